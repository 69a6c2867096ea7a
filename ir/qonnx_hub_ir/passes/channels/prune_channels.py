"""Output channels of layers are removed, with everything that belongs to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx_ir import Graph, Model, Node
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.graph.queries import input_of
from qonnx_hub_ir.passes.channels.channel_layers import LAYERS, output_channels
from qonnx_hub_ir.passes.channels.channel_plan import ChannelPlan, refuse
from qonnx_hub_ir.passes.channels.channel_rules import RULES
from qonnx_hub_ir.passes.shapes.infer_shapes import InferShapes
from qonnx_hub_ir.quantizers import Array


@dataclass(frozen=True, eq=False)
class PruneChannels(InPlacePass):
    """Remove output channels of Conv, ConvTranspose, Gemm and MatMul, and what goes with them.

    Before -> after (``masks`` keeps 3 of 4 channels of the first layer)::

        y = Conv(Relu(BatchNormalization(Conv(x, w[4, 3, 3, 3]))), v[8, 4, 3, 3])
        y = Conv(Relu(BatchNormalization(Conv(x, w[3, 3, 3, 3]))), v[8, 3, 3, 3])

    The masks are carried on to the layers that read the channels: through quantizers (with
    scales, zero points and bit widths per channel), normalization, activations, pooling,
    depthwise convolutions, Flatten and Reshape, Transpose, Concat, Split and sums. What comes
    out is the model in which these layers' weights for the removed channels are zero.

    A mask that cannot be carried through is refused before anything is changed: branches of a
    residual sum with different masks, grouped convolutions, Softmax over the channels, a
    graph output that would lose channels. Masks that keep everything change nothing.

    Attributes:
        masks: Node, or the weight tensor of one -> one truth value per output channel; true
            keeps it.

    Raises:
        PassError: A name that is no such layer, a mask of another length or one that keeps
            nothing, or an operator that a mask cannot be carried through, by its name.
    """

    masks: Mapping[str, Array]
    effect = Effect.VALUES

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        named = _named_layers(model, self.masks)
        if not named:
            return PassResult(model, modified=False)
        plan = ChannelPlan(model.graph, named)
        for node in model.graph:
            _follow(node, plan)
        for edit in plan.edits:
            edit()
        for value in plan.kept:
            value.shape = None
        InferShapes()(model)
        return PassResult(model, modified=True)


def _named_layers(model: Model, masks: Mapping[str, Array]) -> dict[Node, Array]:
    """Return the masks by node, without those that keep everything."""
    nodes = {str(node.name): node for node in model.graph}
    readers = _readers_of_weights(model.graph)
    named: dict[Node, Array] = {}
    for name, given in masks.items():
        node = nodes.get(name) or readers.get(name)
        if node is None or not _is_layer(node):
            known = ", ".join(n.name or "" for n in nodes.values() if _is_layer(n))
            raise PassError(f"'{name}' is no layer whose channels can be removed; {known} are")
        if node in named:
            raise PassError(f"two masks are given for '{node.name}'")
        array = np.asarray(given)
        if array.ndim != 1 or not np.all((array == 0) | (array == 1)):
            raise PassError(
                f"the mask of '{name}' must be one truth value per channel, not an array of "
                f"shape {array.shape} and type {array.dtype.name}"
            )
        mask = array.astype(np.bool_)
        channels = output_channels(node)
        if channels is None:
            raise refuse(
                node,
                "its weight is computed at run time (where it depends on constants only, "
                "fold_constants and fold_weight_layout make one of it)",
            )
        if mask.size != channels:
            raise PassError(
                f"the mask of '{name}' has {mask.size} entries, the layer {channels} channels"
            )
        if not mask.any():
            raise PassError(f"the mask of '{name}' keeps no channel")
        if not mask.all():
            named[node] = mask
    return named


def _is_layer(node: Node) -> bool:
    return (node.domain, node.op_type) in LAYERS


def _readers_of_weights(graph: Graph) -> dict[str, Node]:
    """Return the only layer that reads each weight, by the names that the weight goes by."""
    found: dict[str, Node] = {}
    for node in graph:
        value = input_of(node, 1) if _is_layer(node) else None
        while value is not None and len(value.uses()) == 1:
            found[str(value.name)] = node
            maker = value.producer()
            is_quantizer = maker is not None and dialect.is_quantizer(maker)
            value = maker.inputs[0] if maker is not None and is_quantizer else None
    return found


def _follow(node: Node, plan: ChannelPlan) -> None:
    """Carry the masks of a node's inputs on to its outputs."""
    touched = [i for i, v in enumerate(node.inputs) if v is not None and v in plan.kept]
    if not touched and node not in plan.named:
        return
    key = (node.domain, node.op_type)
    rule = LAYERS.get(key) or RULES.get(key)
    if rule is None:
        raise refuse(node, "no rule says which channels are left behind it")
    for value, kept in rule(node, plan):
        if kept.mask.all():
            continue  # a part of a Split, say, that loses nothing
        if value.is_graph_output():
            raise refuse(node, f"the output '{value.name}' of the model would lose channels")
        for usage in value.uses():
            if usage.node.graph is not plan.graph:
                raise refuse(usage.node, "it reads the channels from inside of a subgraph")
        plan.kept[value] = kept
