"""The pads of a window operator, where it leaves them to be worked out."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_ir import Node

from qonnx_hub_ir.graph.queries import attribute


def explicit_pads(node: Node, sizes: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """Return the pads of a Conv or pool: all in front, then all behind.

    Args:
        node: The node.
        sizes: Lengths of the spatial axes of its input.
        kernel: Taps along each.
    """
    rank = len(sizes)
    mode = str(attribute(node, "auto_pad", "NOTSET"))
    if mode == "NOTSET":
        return [int(pad) for pad in attribute(node, "pads", (0,) * (2 * rank))]
    pads = [0] * (2 * rank)
    if mode == "VALID":
        return pads
    strides = attribute(node, "strides", (1,) * rank)
    dilations = attribute(node, "dilations", (1,) * rank)
    for axis, size in enumerate(sizes):
        reach = (kernel[axis] - 1) * int(dilations[axis]) + 1
        stride = int(strides[axis])
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        small = total // 2
        begin = small if mode == "SAME_UPPER" else total - small
        pads[axis], pads[axis + rank] = begin, total - begin
    return pads
