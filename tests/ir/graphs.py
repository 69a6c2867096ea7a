"""Small graphs for the tests of this room, and an interpreter for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

DOMAIN = "qonnx.custom_op.general"
CHANNELS_LAST = "qonnx.custom_op.channels_last"
IMPORTS = {"": 19, DOMAIN: 2}
BARE: dict[str, None] = {"signed": None, "narrow": None, "rounding_mode": None}
"""Given to :func:`quant`, leaves these attributes out."""


def f32(values: Any) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def i64(values: Any) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def info(name: str, shape: Sequence[Any] | None, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def parameters(scale: Any = 0.5, zero: Any = 0.0, bits: Any = 4.0) -> dict[str, np.ndarray]:
    return {"s": f32(scale), "z": f32(zero), "b": f32(bits)}


def quant(x: str = "x", y: str = "y", name: str = "q", **changes: Any) -> onnx.NodeProto:
    """A canonical Quant node; `inputs`, `op`, `domain` and attributes can be given."""
    op, domain = changes.pop("op", "Quant"), changes.pop("domain", DOMAIN)
    inputs = [x, *changes.pop("inputs", ("s", "z", "b"))]
    attributes = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND", **changes}
    given = {key: value for key, value in attributes.items() if value is not None}
    return helper.make_node(op, inputs, [y], name=name, domain=domain, **given)


def proto(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Any] = (info("x", [2, 3]),),
    outputs: Sequence[Any] = (info("y", [2, 3]),),
    weights: Mapping[str, np.ndarray] | None = None,
    imports: Mapping[str, int] | Sequence[tuple[str, int]] = tuple(IMPORTS.items()),
    functions: Sequence[onnx.FunctionProto] = (),
    ir_version: int = 9,
    value_info: Sequence[Any] = (),
) -> onnx.ModelProto:
    weights = parameters() if weights is None else weights
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(
        nodes, "g", list(inputs), list(outputs), tensors, value_info=list(value_info)
    )
    pairs = imports.items() if isinstance(imports, Mapping) else imports
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in pairs],
        functions=list(functions),
        ir_version=ir_version,
    )


def model(*args: Any, **kwargs: Any) -> onnx_ir.Model:
    """The same as an IR model."""
    return onnx_ir.from_proto(proto(*args, **kwargs))


def operators(found: onnx_ir.Model) -> list[str]:
    return [node.op_type for node in found.graph]


def node_of(found: onnx_ir.Model, op_type: str) -> onnx_ir.Node:
    (node,) = [node for node in found.graph.all_nodes() if node.op_type == op_type]
    return node


def attributes(node: onnx_ir.Node) -> dict[str, Any]:
    return {name: attr.value for name, attr in node.attributes.items()}


def constants(found: onnx_ir.Model) -> dict[str, np.ndarray]:
    return {
        name: value.const_value.numpy() for name, value in found.graph.initializers.items()
    }


class Quant(OpRun):
    """The QONNX operator document's formula for ROUND, signed, not narrow, for these tests."""

    op_domain = DOMAIN

    def _run(self, x, scale, zero, bits, signed=1, narrow=0, rounding_mode="ROUND"):
        assert (signed, narrow, rounding_mode) == (1, 0, "ROUND")
        high = 2.0 ** (bits - 1) - 1
        t = np.round(np.clip(x / scale + zero, -high - 1, high))
        return (((t - zero) * scale).astype(np.float32),)


def evaluate(found: onnx_ir.Model | onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    """The outputs, from ONNX's reference implementation."""
    if isinstance(found, onnx_ir.Model):
        found = onnx_ir.to_proto(found)
    with np.errstate(all="ignore"):
        return list(ReferenceEvaluator(found, new_ops=[Quant]).run(None, feeds))
