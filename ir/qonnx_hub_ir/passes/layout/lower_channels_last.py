"""Channels-last operators become standard ones between Transposes."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_ir import Model, Node
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.graph.builder import copy_node, transpose_node
from qonnx_hub_ir.graph.permutations import to_first, to_last
from qonnx_hub_ir.graph.queries import is_read, spatial_rank
from qonnx_hub_ir.graph.rewriting import replace_node
from qonnx_hub_ir.graph.subgraphs import nodes_within
from qonnx_hub_ir.graph.unused import import_used


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
        found = nodes_within(model.graph)
        nodes = [node for node in found if node.domain == dialect.CHANNELS_LAST_DOMAIN]
        for node in nodes:
            _lower(node)
        if nodes:
            import_used(model)
        return PassResult(model, modified=bool(nodes))


def _lower(node: Node) -> None:
    if sum(map(is_read, node.outputs)) > 1:
        raise PassError(f"channels-last {node.op_type} '{node.name}' has more than one output")
    rank = spatial_rank(node)
    if rank is None:
        raise PassError(f"{node.op_type} '{node.name}': the rank of its input is not known")
    if rank == 2:
        node.domain = ""
        return
    for index in range(2 if node.op_type == "Conv" else 1):
        value = node.inputs[index]
        if value is not None:
            name = f"{node.name}_in{index}"
            move = transpose_node(value, to_first(rank), f"{name}_to_first")
            move.outputs[0].name = f"{name}_channels_first"
            node.prepend(move)
            node.replace_input_with(index, move.outputs[0])
    fresh = copy_node(node, node.inputs, name=str(node.name))
    fresh.domain, out = "", fresh.outputs[0]
    out.name, out.shape = f"{node.outputs[0].name}_channels_first", None
    out.metadata_props.clear()
    node.append(fresh)
    back = transpose_node(out, to_last(rank), f"{node.name}_to_last")
    fresh.append(back)
    replace_node(node, back.outputs[0])
