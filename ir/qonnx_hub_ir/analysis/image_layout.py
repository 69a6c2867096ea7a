"""Where the channels of an image stand: what a graph does to it tells."""

from __future__ import annotations

from collections.abc import Callable

from onnx_ir import Node, Value

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph import permutations
from qonnx_hub_ir.graph.queries import dims

FIRST, LAST = "nchw", "nhwc"

_Perm = Callable[[int], permutations.Perm]


def layout_read(value: Value) -> str:
    """Return in which layout an image is read: ``nchw``, ``nhwc``, or "" if nothing tells.

    Every way from it must lead, through functions of each element, to a Transpose between the
    two or an operator whose channels stand there. Images of one dimension count as well.

    Example:
        >>> import onnx_ir
        >>> x = onnx_ir.Value(name="x", shape=onnx_ir.Shape([1, 6, 5, 2]))
        >>> relu = onnx_ir.node("Relu", [x])
        >>> relu.outputs[0].shape = x.shape
        >>> turned = onnx_ir.node("Transpose", relu.outputs, {"perm": (0, 3, 1, 2)})
        >>> layout_read(x)
        'nhwc'
    """
    found, waiting, seen = set(), [value], {value}
    while waiting:
        for usage in waiting.pop().uses():
            node = usage.node
            told = _told(node, value, usage.idx, permutations.to_first, permutations.to_last)
            if not told and _keeps_axes(node) and _alike(node.outputs[0], value):
                waiting.extend({node.outputs[0]} - seen)
                seen.add(node.outputs[0])
            elif told or not operators.reads_shape_only(node):
                found.add(told)
    return found.pop() if len(found) == 1 else ""


def layout_made(value: Value) -> str:
    """Return in which layout an image is made: ``nchw``, ``nhwc``, or "" if nothing tells."""
    node = value.producer()
    while node is not None and node.inputs and node.inputs[0] is not None:
        told = _told(node, value, None, permutations.to_last, permutations.to_first)
        if told or not _keeps_axes(node) or not _alike(node.inputs[0], value):
            return told
        node = node.inputs[0].producer()
    return ""


def _told(node: Node, image: Value, index: int | None, to_last: _Perm, to_first: _Perm) -> str:
    """Return the layout that a node tells: by a Transpose, or by where its channels stand.

    Args:
        node: Reads or makes the image.
        image: Of the rank in question.
        index: Position at which it is read; ``None`` where it is made.
        to_last: Permutation of a Transpose at an image that is channels last.
        to_first: The same of one that is channels first.
    """
    rank = len(dims(image) or ())
    if rank not in (3, 4):
        return ""
    perm = permutations.perm_of(node)
    if perm is not None:
        return LAST if perm == to_last(rank) else FIRST if perm == to_first(rank) else ""
    if index is not None and index not in operators.data_inputs(node)[:1]:
        return ""
    return {1: FIRST, -1: LAST}.get(operators.channel_axis(node) or 0, "")


def _keeps_axes(node: Node) -> bool:
    return (
        operators.is_elementwise(node)
        or dialect.is_quantizer(node)
        or operators.is_identity(node)
        or (node.op_type == "Pad" and node.domain in dialect.STANDARD_DOMAINS)
    )


def _alike(value: Value, image: Value) -> bool:
    """Return whether two values are known to have the same number of axes."""
    return (sizes := dims(value)) is not None and len(sizes) == len(dims(image) or ())
