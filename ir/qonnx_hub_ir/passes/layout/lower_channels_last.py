"""Channels-last operators become standard ones between Transposes."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir
from onnx_ir import Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import PassError


@dataclass(frozen=True)
class LowerChannelsLast(InPlacePass):
    """Replace every operator of the channels-last domain by its standard twin.

    Before -> after::

        y = channels_last::Conv(x, w, b)
        y = Transpose(Conv(Transpose(x), Transpose(w), b))

    Both the input and a Conv's weight have their channels last; bias and statistics are
    per channel and stay. A model without such operators is left alone.

    Raises:
        PassError: The rank of a node's input is not known (run shape inference on the file's
            own value_info first), or its output has several results.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        domain = dialect.CHANNELS_LAST_DOMAIN
        nodes = [n for n in model.graph.all_nodes() if n.domain == domain]
        for node in nodes:
            _lower(node)
        if nodes:
            model.opset_imports.pop(domain, None)
        return PassResult(model, modified=bool(nodes))


def _rank(node: Node) -> int:
    for value in (*node.inputs[:2], *node.outputs):
        if value is not None and value.shape is not None and len(value.shape) > 2:
            return len(value.shape)
    kernel = node.attributes.get("kernel_shape")
    if kernel is not None:
        return len(kernel.value) + 2
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if shape is not None:
        return len(shape)
    raise PassError(f"{node.op_type} '{node.name}': the rank of its input is not known")


def _lower(node: Node) -> None:
    if len([v for v in node.outputs if v.uses() or v.is_graph_output()]) > 1:
        raise PassError(f"channels-last {node.op_type} '{node.name}' has more than one output")
    rank = _rank(node)
    if rank == 2:
        node.domain = ""
        return
    to_first = (0, rank - 1, *range(1, rank - 1))
    to_last = (0, *range(2, rank), 1)
    moved = 2 if node.op_type == "Conv" else 1
    for index in range(moved):
        value = node.inputs[index]
        if value is not None:
            node.replace_input_with(
                index, _transposed(value, to_first, f"{node.name}_in{index}", node)
            )
    old = node.outputs[0]
    fresh = Node(
        "", node.op_type, node.inputs, node.attributes.values(), num_outputs=1, name=node.name
    )
    fresh.outputs[0].name = f"{old.name}_channels_first"
    fresh.outputs[0].type = old.type
    node.append(fresh)
    perm = onnx_ir.AttrInt64s("perm", to_last)
    back = Node("", "Transpose", [fresh.outputs[0]], [perm], name=f"{node.name}_to_last")
    fresh.append(back)
    result = back.outputs[0]
    name, result.type, result.shape = old.name, old.type, old.shape
    result.metadata_props.update(old.metadata_props)
    old.replace_all_uses_with(result, replace_graph_outputs=True)
    graph = node.graph
    if graph is not None:
        graph.remove(node, safe=True)
    old.name = None
    result.name = name


def _transposed(value: Value, perm: tuple[int, ...], name: str, before: Node) -> Value:
    node = Node(
        "", "Transpose", [value], [onnx_ir.AttrInt64s("perm", perm)], name=f"{name}_to_first"
    )
    node.outputs[0].name = f"{name}_channels_first"
    node.outputs[0].type = value.type
    before.prepend(node)
    return node.outputs[0]
