"""Equal nodes and equal constants, once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx_ir
from onnx_ir import (
    Attr,
    AttributeType,
    DataType,
    Graph,
    Model,
    Node,
    TensorProtocol,
    Value,
)
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.annotations import annotations_of
from qonnx_hub_ir.graph.rewriting import can_be_output, replace_value
from qonnx_hub_ir.graph.subgraphs import bodies, every_graph


@dataclass(frozen=True)
class MergeEqual(InPlacePass):
    """Compute once what is computed twice, and hold one of equal constants.

    Before -> after::

        y = Add(Relu(x), Neg(Relu(x)))
        r = Relu(x);  y = Add(r, Neg(r))

    Nodes are equal that have one operator, the same inputs and the same attributes; constants
    that have one type, one shape, the same bytes and the same annotations. Does not fire on
    random numbers, on operators of others, on nodes with bodies, and where two outputs of the
    model would be one tensor.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        modified = False
        for graph in every_graph(model):
            modified |= isinstance(graph, Graph) and _merge_constants(graph)
            modified |= _merge_nodes(graph)
        return PassResult(model, modified=modified)


def _merge_constants(graph: Graph) -> bool:
    seen: dict[Any, Value] = {}
    modified = False
    for value in list(graph.initializers.values()):
        if value.is_graph_input() or value.is_graph_output():
            continue
        tensor = dialect.constant_tensor(value)
        if tensor is None:
            continue
        notes = tuple(sorted(annotations_of(value).items()))
        key = (_held_in(tensor), notes)
        first = seen.setdefault(key, value)
        if first is not value:
            value.replace_all_uses_with(first)
            graph.initializers.pop(str(value.name))
            modified = True
    return modified


def _merge_nodes(graph: Graph | onnx_ir.Function) -> bool:
    seen: dict[Any, Node] = {}
    modified = False
    for node in list(graph):
        if operators.is_opaque(node) or operators.is_random(node) or bodies(node):
            continue
        inputs = tuple(None if value is None else id(value) for value in node.inputs)
        attributes = tuple(sorted((name, _held(a)) for name, a in node.attributes.items()))
        key = (node.op_identifier(), len(node.outputs), inputs, attributes)
        first = seen.setdefault(key, node)
        if first is node or not _can_stand_for(first, node):
            continue
        for old, new in zip(node.outputs, first.outputs, strict=True):
            replace_value(old, new, keep_name=False, keep_metadata=False)
        graph.remove(node, safe=True)
        modified = True
    return modified


def _can_stand_for(first: Node, node: Node) -> bool:
    pairs = list(zip(node.outputs, first.outputs, strict=True))
    if any(bool(old.name) != bool(new.name) for old, new in pairs):
        return False
    return all(not old.is_graph_output() or can_be_output(new) for old, new in pairs)


def _held(attr: Attr) -> object:
    """Return an attribute's value as what differs where values differ."""
    value = attr.value
    if attr.is_ref():
        return f"ref {attr.ref_attr_name}"
    if attr.type is AttributeType.TENSOR:
        return _held_in(value)
    if attr.type in (AttributeType.INTS, AttributeType.FLOATS, AttributeType.STRINGS):
        return repr(list(value))
    if attr.type in (AttributeType.INT, AttributeType.FLOAT, AttributeType.STRING):
        return repr(value)
    return f"only itself {id(attr)}"


def _held_in(tensor: TensorProtocol) -> tuple[object, ...]:
    """Return a tensor's type, shape and elements; texts have no bytes of their own."""
    is_text = tensor.dtype == DataType.STRING
    held = tuple(tensor.numpy().reshape(-1).tolist()) if is_text else tensor.tobytes()
    return tensor.dtype, tuple(tensor.shape), held
