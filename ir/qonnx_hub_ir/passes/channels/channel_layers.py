"""How layers lose channels: their own, and those of what they read."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir
from onnx_ir import Node, Value

from qonnx_hub_ir import operators
from qonnx_hub_ir.graph.constants import constant_shape
from qonnx_hub_ir.graph.queries import attribute, dims, input_of, weight_axes
from qonnx_hub_ir.passes.channels.channel_plan import (
    ChannelPlan,
    Kept,
    refuse,
    require_axis,
    required_rank,
)
from qonnx_hub_ir.quantizers import Array

Made = list[tuple[Value, Kept]]
"""Outputs that lose channels, and which they keep."""


def output_channels(node: Node) -> int | None:
    """Return how many output channels a layer has; ``None`` where its weight is computed."""
    shape, axes = constant_shape(input_of(node, 1)), weight_axes(node)
    matrix = operators.is_matrix_product(node)
    if shape is None or axes is None or (matrix and len(shape) != 2):
        return None
    groups = int(attribute(node, "group", 1)) if node.op_type == "ConvTranspose" else 1
    return shape[axes[0]] * groups


def _layer(node: Node, plan: ChannelPlan) -> Made:
    """Conv, ConvTranspose and Gemm: channels are on axis 1 of input and output."""
    kept, named = plan.of(node, 0), plan.named.get(node)
    if attribute(node, "transA", 0):
        raise refuse(node, "its input is transposed")
    if plan.of(node, 1) is not None or plan.of(node, 2) is not None:
        raise refuse(node, "its weight or bias is computed at run time")
    if kept is not None:
        require_axis(node, kept, 1)
    group = int(attribute(node, "group", 1))
    if group != 1:
        return _depthwise(node, plan, kept, named, group)
    out, into = weight_axes(node) or (0, 1)
    rank = required_rank(node, node.inputs[1])
    if kept is not None:
        plan.take(node, 1, into, kept.mask, rank)
    if named is None:
        return []
    plan.take(node, 1, out, named, rank)
    return _made(node, plan, named)


def _made(node: Node, plan: ChannelPlan, mask: Array) -> Made:
    """Return what is left of a layer's output; its bias loses the same channels."""
    if input_of(node, 2) is not None:
        plan.take(node, 2, 1, mask, 2)  # of shape (channels,), or a row in a Gemm
    return [(node.outputs[0], Kept(1, mask))]


def _depthwise(
    node: Node, plan: ChannelPlan, kept: Kept | None, named: Array | None, group: int
) -> Made:
    shape = constant_shape(node.inputs[1]) or ()
    if node.op_type != "Conv" or len(shape) < 2 or shape[1] != 1 or shape[0] % group:
        raise refuse(node, f"its {group} groups of channels belong together")
    copies = shape[0] // group
    mask = None if kept is None else np.repeat(kept.mask, copies)
    if mask is None or (named is not None and not np.array_equal(mask, named)):
        raise refuse(node, "a depthwise convolution has the channels of its input: mask these")
    plan.take(node, 1, 0, mask, len(shape))
    left = int(np.count_nonzero(mask)) // copies
    attr = onnx_ir.AttrInt64("group", left)
    plan.edits.append(lambda: node.attributes.__setitem__("group", attr))
    return _made(node, plan, mask)


def _matmul(node: Node, plan: ChannelPlan) -> Made:
    kept, named = plan.of(node, 0), plan.named.get(node)
    sizes = dims(node.inputs[1])
    if plan.of(node, 1) is not None or sizes is None or len(sizes) != 2:
        raise refuse(node, "its second operand is no constant matrix")
    rank = required_rank(node, node.inputs[0])
    made: Made = []
    if kept is not None and kept.axis == rank - 1:
        plan.take(node, 1, 0, kept.mask, 2)
    elif kept is not None:
        made.append((node.outputs[0], kept))
    if named is None:
        return made
    if made:
        raise refuse(node, "its result would lose channels along two axes")
    plan.take(node, 1, 1, named, 2)
    return [(node.outputs[0], Kept(rank - 1, named))]


LAYERS: Mapping[tuple[str, str], Callable[[Node, ChannelPlan], Made]] = {
    **operators.assign(_layer, lambda row: row.product and not row.product.is_integer),
    ("", "MatMul"): _matmul,
}
"""Layers whose output channels can be removed."""
