"""Weights kept out of what ONNX's own C++ code copies."""

from __future__ import annotations

import onnx
import onnx_ir
from onnx_ir import ExternalTensor, Graph, GraphView, Model, TensorProtocol, Value

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
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ExternalTensor):
                array = tensor.numpy()
                value.const_value = onnx_ir.Tensor(array, dtype=tensor.dtype, name=tensor.name)
    return detached


def without_weights(model: Model) -> onnx.ModelProto:
    """Return the model as a message whose large initializers are inputs.

    The model is not changed, and its weights are not copied.
    """
    for graph in model.graph.subgraphs():
        if any(isinstance(v.const_value, ExternalTensor) for v in graph.initializers.values()):
            model = model.clone()
            detach_weights(model)
            break
    inputs, small = list(model.graph.inputs), []
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or value.is_graph_input():
            small.append(value)
        elif tensor.nbytes > LARGE:
            kind = onnx_ir.TensorType(tensor.dtype)
            inputs.append(Value(name=name, type=kind, shape=dialect.known_shape(tensor)))
        elif isinstance(tensor, ExternalTensor):
            inner = onnx_ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
            small.append(
                Value(name=name, type=value.type, shape=value.shape, const_value=inner)
            )
        else:
            small.append(value)
    message = onnx.ModelProto(ir_version=model.ir_version)
    for domain, version in model.opset_imports.items():
        message.opset_import.add(domain=domain, version=version)
    view = GraphView(
        inputs,
        model.graph.outputs,
        nodes=model.graph,
        initializers=small,
        name=model.graph.name,
    )
    # Its protocol asks for attributes to be settable, which a view does not need.
    onnx_ir.serde.serialize_graph_into(message.graph, view)  # type: ignore[arg-type]
    message.functions.extend(
        onnx_ir.serde.serialize_function(function, create_value_info=False)
        for function in model.functions.values()
    )
    return message


def attach_weights(graph: Graph, detached: dict[str, TensorProtocol]) -> None:
    """Make initializers of the graph inputs that :func:`detach_weights` made."""
    kept = [value for value in graph.inputs if value.name not in detached]
    put_back = [value for value in graph.inputs if value.name in detached]
    graph.inputs.clear()
    graph.inputs.extend(kept)
    for value in put_back:
        value.const_value = detached[str(value.name)]
        graph.register_initializer(value)
