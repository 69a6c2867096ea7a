"""Convolutions that make an image larger, as transposed ones: what both passes share."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_ir import Node

from qonnx_hub_ir.graph.constants import constant_shape
from qonnx_hub_ir.graph.queries import attribute, dims, input_of, is_standard
from qonnx_hub_ir.passes.layers.window_pads import explicit_pads


@dataclass(frozen=True, slots=True)
class PlainConv:
    """A convolution of images by steps of one, all taps side by side, all channels together.

    Attributes:
        kernel: Taps along height and width.
        pads: Pixels at the top, left, bottom and right.
    """

    kernel: tuple[int, int]
    pads: tuple[int, int, int, int]


def plain_conv(node: Node, size: tuple[int, int]) -> PlainConv | None:
    """Return what a Conv with a constant weight does; ``None`` if it does something else.

    Args:
        node: Any node.
        size: Height and width of its input.
    """
    if not is_standard(node, "Conv"):
        return None
    shape = constant_shape(node.inputs[1])
    if shape is None or len(shape) != 4 or attribute(node, "group", 1) != 1:
        return None
    steps = (*attribute(node, "strides", (1, 1)), *attribute(node, "dilations", (1, 1)))
    if any(step != 1 for step in steps):
        return None
    pads = explicit_pads(node, size, shape[2:])
    # A pad of a whole kernel would read nothing but padding.
    if any(pad >= shape[2 + axis % 2] for axis, pad in enumerate(pads)):
        return None
    return PlainConv((shape[2], shape[3]), (pads[0], pads[1], pads[2], pads[3]))


def image_size(node: Node) -> tuple[int, int] | None:
    """Return height and width of what a node reads, where they are numbers."""
    sizes = dims(input_of(node, 0))
    if sizes is None or len(sizes) != 4:
        return None
    height, width = sizes[2:]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None
