"""A net as a graph of TFLite's own operators, and such nodes as calls of kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from qonnx_hub_adapters.tflite.graph_writer import start
from qonnx_hub_adapters.tflite.net import CodeGrid, KernelCall, NetTensor, TfliteNet
from qonnx_hub_ir import dialect

_STANDARD_OPSET = 19


def net_as_nodes(net: TfliteNet) -> onnx.ModelProto:
    """Return a net as nodes of the domain of TFLite: codes in, codes out.

    Each node holds, beside the options of its operator, type, shape and grid of every tensor
    that it reads or makes, in that order.
    """
    writer = start(net, _STANDARD_OPSET)
    writer.domains[dialect.TFLITE_DOMAIN] = 1
    for index, tensor in enumerate(net.tensors):
        if tensor.is_variable and tensor.data is None:
            start_codes = np.full(tensor.shape, tensor.zero, dtype=tensor.dtype)
            writer.put(index, "codes", writer.constant(start_codes, tensor.name))
    for operation in net.operations:
        call = net.call(operation)
        inputs = ["" if i < 0 else writer.codes(i) for i in operation.inputs]
        made = [writer.name(t.name) for t in call.outputs]
        name = writer.name(f"{operation.name}_{made[0]}")
        attributes = _written_options(call.options) | _written_tensors(call)
        writer.nodes.append(
            helper.make_node(
                operation.name,
                inputs,
                made,
                name=name,
                domain=dialect.TFLITE_DOMAIN,
                **attributes,
            )
        )
        for index, value in zip(operation.outputs, made, strict=True):
            writer.put(index, "codes", value)
    return writer.finish(writer.codes, {})


def _written_options(options: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, (bool, int, float)):
            found[name] = int(value) if isinstance(value, (bool, int)) else value
        elif isinstance(value, np.ndarray) and value.size:
            found[name] = [int(n) for n in value]
    return found


def _written_tensors(call: KernelCall) -> dict[str, Any]:
    tensors = [*call.inputs, *call.outputs, *call.intermediates]
    grids = [None if t is None else t.grid for t in tensors]
    scales = [float(s) for g in grids if g is not None for s in g.scale]
    zeros = [int(z) for g in grids if g is not None for z in g.zero]
    found = {
        "tensor_types": ["" if t is None else t.type for t in tensors],
        "tensor_ranks": [0 if t is None else len(t.shape) for t in tensors],
        "tensor_scales": [0 if g is None else g.scale.size for g in grids],
        "tensor_axes": [0 if g is None else g.axis for g in grids],
        "tensor_inputs": len(call.inputs),
        "tensor_outputs": len(call.outputs),
    }
    shapes = [n for t in tensors if t is not None for n in t.shape]
    return found | {
        k: v for k, v in (("shapes", shapes), ("scales", scales), ("zeros", zeros)) if v
    }


def call_of(
    op_type: str, attributes: Mapping[str, Any], constants: Sequence[Any] = ()
) -> KernelCall:
    """Return a node as the call of a kernel.

    Args:
        op_type: Its operator.
        attributes: Name -> value.
        constants: What is known of its inputs.
    """
    shapes = iter(attributes.get("shapes", ()))
    scales, zeros = iter(attributes.get("scales", ())), iter(attributes.get("zeros", ()))
    found: list[NetTensor | None] = []
    for order, (type_, rank, count, axis) in enumerate(
        zip(
            *(attributes[f"tensor_{k}"] for k in ("types", "ranks", "scales", "axes")),
            strict=True,
        )
    ):
        if not type_:
            found.append(None)
            continue
        shape = tuple(next(shapes) for _ in range(rank))
        scale = np.array([next(scales) for _ in range(count)], dtype=np.float32)
        zero = np.array([next(zeros) for _ in range(count)], dtype=np.int64)
        grid = CodeGrid(scale, zero, axis) if count else None
        data = constants[order] if order < len(constants) else None
        found.append(NetTensor("", type_, shape, shape, grid, data))
    inputs, outputs = attributes["tensor_inputs"], attributes["tensor_outputs"]
    made = tuple(t for t in found[inputs : inputs + outputs] if t is not None)
    inner = tuple(t for t in found[inputs + outputs :] if t is not None)
    return KernelCall(op_type, attributes, tuple(found[:inputs]), made, inner)
