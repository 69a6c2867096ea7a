"""Weights kept out of what ONNX's own C++ code copies."""

from __future__ import annotations

import onnx_ir
from onnx_ir import Graph, Model, TensorProtocol

from qonnx_hub_ir import dialect

LARGE = 1024
"""Initializers above this many bytes are detached; the others may be shapes, axes, limits."""


def detach_weights(model: Model) -> dict[str, TensorProtocol]:
    """Return the large initializers by name, after making them plain graph inputs.

    The other ones are brought into memory, for that code does not read external files.

    Args:
        model: A copy that nobody else uses; changed in place.
    """
    detached: dict[str, TensorProtocol] = {}
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes <= LARGE:
            continue
        detached[name] = tensor
        model.graph.initializers.pop(name)
        value.const_value = None
        value.type = onnx_ir.TensorType(tensor.dtype)
        value.shape = dialect.known_shape(tensor)
        model.graph.inputs.append(value)
    for graph in (model.graph, *model.graph.subgraphs()):
        _bring_into_memory(graph)
    return detached


def attach_weights(graph: Graph, detached: dict[str, TensorProtocol]) -> None:
    """Make initializers of the graph inputs that :func:`detach_weights` made."""
    kept = [value for value in graph.inputs if value.name not in detached]
    put_back = [value for value in graph.inputs if value.name in detached]
    graph.inputs.clear()
    graph.inputs.extend(kept)
    for value in put_back:
        value.const_value = detached[str(value.name)]
        graph.register_initializer(value)


def _bring_into_memory(graph: Graph) -> None:
    for value in graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, onnx_ir.ExternalTensor):
            value.const_value = onnx_ir.Tensor(
                tensor.numpy(), dtype=tensor.dtype, name=tensor.name
            )
