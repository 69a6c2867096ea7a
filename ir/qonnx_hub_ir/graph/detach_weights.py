"""Weights kept out of what ONNX's own C++ code copies."""

from __future__ import annotations

import onnx
import onnx_ir
from onnx_ir import ExternalTensor, Graph, GraphView, Model, TensorProtocol, Value

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.subgraphs import nested_graphs, nodes_within
from qonnx_hub_ir.operators import is_opaque, is_opaque_name

OPAQUE_DOMAIN = "qonnx_hub.opaque"
"""Where operators of the standard domain are put that it does not have."""

LARGE = 1024
"""Initializers above this many bytes are detached; the others may be shapes, axes, limits."""


def _loaded(tensor: TensorProtocol) -> TensorProtocol:
    """Return a tensor in memory: that code does not read external files."""
    return onnx_ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)


def _is_large(value: Value) -> bool:
    tensor = value.const_value
    return tensor is not None and not value.is_graph_input() and tensor.nbytes > LARGE


def without_weights(model: Model) -> onnx.ModelProto:
    """Return the model as a message whose large initializers are inputs.

    The model is not changed, and its weights are not copied. An operator that the standard
    domain does not have stands in :data:`OPAQUE_DOMAIN`: that code refuses it otherwise.
    """
    bodies = nested_graphs(model.graph)[1:]
    inner = [value for body in bodies for value in body.initializers.values()]
    if any(isinstance(value.const_value, ExternalTensor) for value in inner):
        model = model.clone()
        for graph in nested_graphs(model.graph)[1:]:
            for value in graph.initializers.values():
                if isinstance(value.const_value, ExternalTensor):
                    value.const_value = _loaded(value.const_value)
    inputs, small = list(model.graph.inputs), []
    for name, value in model.graph.initializers.items():
        kind, tensor = value.type, value.const_value
        if tensor is not None and _is_large(value):
            kind = onnx_ir.TensorType(tensor.dtype)
            inputs.append(Value(name=name, type=kind, shape=dialect.known_shape(tensor)))
        elif isinstance(tensor, ExternalTensor) and not value.is_graph_input():
            held = _loaded(tensor)
            small.append(Value(name=name, type=kind, shape=value.shape, const_value=held))
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
        doc_string=model.graph.doc_string,
        name=model.graph.name,
    )
    # Its protocol asks for attributes to be settable, which a view does not need.
    onnx_ir.serde.serialize_graph_into(message.graph, view)  # type: ignore[arg-type]
    if any(is_opaque(node) and not node.domain for node in nodes_within(model.graph)):
        _disguise(message.graph)
        message.opset_import.add(domain=OPAQUE_DOMAIN, version=1)
    message.functions.extend(
        onnx_ir.serde.serialize_function(function, create_value_info=False)
        for function in model.functions.values()
    )
    return message


def _disguise(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        if not node.domain and is_opaque_name("", node.op_type):
            node.domain = OPAQUE_DOMAIN
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                _disguise(body)


def attach_weights(graph: Graph, model: Model) -> None:
    """Put back what :func:`without_weights` took from a model: weights, and domains."""
    for node in graph.all_nodes():
        if node.domain == OPAQUE_DOMAIN:
            node.domain = ""
    large = {
        name: v.const_value for name, v in model.graph.initializers.items() if _is_large(v)
    }
    put_back = [value for value in graph.inputs if value.name in large]
    graph.inputs[:] = [value for value in graph.inputs if value.name not in large]
    for value in put_back:
        value.const_value = large[str(value.name)]
        graph.register_initializer(value)
