"""Single nodes on onnxruntime: operators that only onnxruntime has, between nodes of ours."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value

from qonnx_hub.executor.fallback import NoFallbackError
from qonnx_hub.executor.foreign import is_foreign
from qonnx_hub.executor.kernels import kernel_table
from qonnx_hub.executor.kernels.spec import Array, Kernel
from qonnx_hub_adapters.dependencies import is_installed, require
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import words_of
from qonnx_hub_ir.graph.queries import rank_of
from qonnx_hub_ir.graph.subgraphs import bodies
from qonnx_hub_ir.operators import is_opaque_name
from qonnx_hub_ir.validity import label

_IR_VERSION = 10
"""One that every onnxruntime reads which has these operators."""


def build_on_onnxruntime(
    node: Node, imports: Mapping[str, int], constants: Sequence[Array | None]
) -> Kernel:
    """Return a kernel that runs the node on onnxruntime, without its optimizations.

    Args:
        node: A node without bodies.
        imports: Domain -> version of the model.
        constants: What is known of its inputs, in order: some operators ask for constants.

    Raises:
        NoFallbackError: onnxruntime is not installed, or does not know the operator either.
    """
    if not is_installed("onnxruntime"):
        raise NoFallbackError(
            "no kernel for this operator; onnxruntime, which may have one, is not installed"
        )
    if bodies(node) or not _knows(node):
        raise NoFallbackError("no kernel for this operator, in onnxruntime neither")
    constants = [None if c is None or c.dtype.kind in "OSU" else c for c in constants]
    given = [i for i, v in enumerate(node.inputs) if v is not None and constants[i] is None]
    made = [i for i, value in enumerate(node.outputs) if value.name]
    sessions: dict[tuple[Any, ...], Any] = {}

    def run(*args: Any) -> Any:
        fed = [args[i] for i in given]
        key = tuple(array.dtype for array in fed)
        if key not in sessions:
            sessions[key] = _session(
                node, imports, constants, dict(zip(given, fed, strict=True))
            )
        feeds = {f"i{i}": array for i, array in zip(given, fed, strict=True)}
        results = dict(zip(made, sessions[key].run(None, feeds), strict=True))
        arrays = [results.get(i) for i in range(len(node.outputs))]
        return arrays[0] if len(arrays) == 1 else tuple(arrays)

    return run


def runs_somewhere(node: Node) -> bool:
    """Return whether the executor has a kernel, or the reference or another distribution.

    The training operators of ONNX's preview have documents, and neither.
    """
    if is_opaque_name(node.domain, node.op_type):
        if is_foreign(node):
            return True
    elif node.domain in dialect.STANDARD_DOMAINS or _has_kernel(node):
        return True
    return is_installed("onnxruntime") and _knows(node)


def _has_kernel(node: Node) -> bool:
    return (node.domain, node.op_type) in kernel_table()


def first_refused(model: Model) -> str:
    """Return the first node that onnxruntime refuses alone, and why; empty where none is.

    Nodes with bodies, calls of functions, and what reads a value of unknown rank are passed
    over.

    Args:
        model: A model that onnxruntime does not load.
    """
    for node in model.graph:
        constants = [_constant(value) for value in node.inputs]
        fed = {
            index: np.zeros((1,) * rank, dtype=np.float32)
            for index, value in enumerate(node.inputs)
            if value is not None and (rank := rank_of(value)) is not None
        }
        known = all(
            value is None or (index in fed and value.dtype is not None)
            for index, value in enumerate(node.inputs)
        )
        if bodies(node) or not known or not _knows(node):
            continue
        try:
            _session(node, model.opset_imports, constants, fed)
        except Exception as error:  # the binding raises its own exception types
            return f"{label(node)}: {words_of(error)}"
    return ""


def _constant(value: Value | None) -> Array | None:
    held = None if value is None else dialect.constant_tensor(value)
    return None if held is None else held.numpy()


def _knows(node: Node) -> bool:
    return (node.domain, node.op_type) in _schemas()


@functools.cache
def _schemas() -> frozenset[tuple[str, str]]:
    module = require("onnxruntime", needed_by="operators of onnxruntime", extra="ort")
    binding = module.capi.onnxruntime_pybind11_state
    read: Callable[[], Any] | None = getattr(binding, "get_all_operator_schema", None)
    return frozenset((one.domain, one.name) for one in read()) if read else frozenset()


def _input(index: int, value: Value, known: Array | None, fed: Mapping[int, Array]) -> Value:
    """Return an input of the twin: a constant where it is known, of the fed type elsewhere."""
    name = f"i{index}"
    if known is not None:
        held = dialect.constant_tensor(value) or onnx_ir.tensor(known)
        tensor = onnx_ir.Tensor(held.numpy(), dtype=held.dtype, name=name)
        kind, shape = onnx_ir.TensorType(held.dtype), dialect.known_shape(held)
        return Value(name=name, type=kind, shape=shape, const_value=tensor)
    array = fed[index]
    is_text = array.dtype.kind in "OSU"
    dtype = onnx_ir.DataType.STRING if is_text else onnx_ir.DataType.from_numpy(array.dtype)
    rank = onnx_ir.Shape([None] * array.ndim)
    return Value(name=name, type=onnx_ir.TensorType(value.dtype or dtype), shape=rank)


_ACCURACY = "accuracy_level"
"""Attribute of products with blocked weights: how far a runtime may round what it multiplies.
Here they are products of floats, which is what they are read as and what their bound says."""


def _session(
    node: Node,
    imports: Mapping[str, int],
    constants: Sequence[Array | None],
    fed: Mapping[int, Array],
) -> Any:
    """Return a session of a graph of the node alone."""
    inputs = [
        None if value is None else _input(index, value, constants[index], fed)
        for index, value in enumerate(node.inputs)
    ]
    count = len(node.outputs)
    attributes = [one for one in node.attributes.values() if one.name != _ACCURACY]
    twin = Node(node.domain, node.op_type, inputs, attributes, num_outputs=count)
    for index, (value, own) in enumerate(zip(twin.outputs, node.outputs, strict=True)):
        value.name, value.type = (f"o{index}" if own.name else ""), own.type
    connected = [value for value in inputs if value is not None]
    graph = onnx_ir.Graph(
        [value for value in connected if value.const_value is None],
        [value for value in twin.outputs if value.name],
        nodes=[twin],
        initializers=[value for value in connected if value.const_value is not None],
        opset_imports=dict(imports),
        name="node",
    )
    message = onnx_ir.to_proto(onnx_ir.Model(graph, ir_version=_IR_VERSION))
    ort = require("onnxruntime", needed_by="operators of onnxruntime", extra="ort")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    serialized, providers = message.SerializeToString(), ["CPUExecutionProvider"]
    return ort.InferenceSession(serialized, options, providers=providers)
