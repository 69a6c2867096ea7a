"""Operators that only choose and move values: the same on integers as on floats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from onnx_ir import Node

from qonnx_hub_adapters.qlinear.constants import read_number
from qonnx_hub_adapters.qlinear.epilogue import MOVES as CHAIN_MOVES
from qonnx_hub_adapters.qlinear.epilogue import windows_are_filled
from qonnx_hub_adapters.qlinear.integer_values import Codes, Form, clipped, integer
from qonnx_hub_ir.graph.builder import Emitter

_MOVES = frozenset(
    {
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)

MOVES = _MOVES | {"Concat", "Dropout", "MaxPool", "Pad", "Relu", "Resize"}


def move(
    emit: Emitter, node: Node, sources: Sequence[Codes | None], form: Form
) -> Codes | str:
    """Return the integers that a node makes of integers, or why it makes none.

    Args:
        emit: Where to write.
        node: A node of :data:`MOVES`.
        sources: The integers of each input; ``None`` where an input has none.
        form: The model's type.
    """
    first = sources[0] if sources else None
    if first is None:
        return "its input is not quantized to 8 bits"
    if len(node.outputs) > 1:
        return "it has several outputs"
    if node.op_type == "Relu":
        low, high = max(first.low, 0), max(first.high, 0)
        floor = clipped(emit, first.value, low + first.zero, form.high, form)
        return replace(first, value=floor, low=low, high=high)
    if node.op_type == "Concat":
        return _concat(emit, node, sources)
    if node.op_type == "Pad":
        return _pad(emit, node, first, form)
    if node.op_type == "Resize" and _text(node, "mode", "nearest") != "nearest":
        return "it interpolates"
    if node.op_type == "MaxPool" and not windows_are_filled(node):
        return "its windows may hold padding only"
    inputs = [first.value, *node.inputs[1:]]
    if node.op_type == "Dropout":
        inputs = inputs[:1]
    attributes = {name: a.value for name, a in node.attributes.items()}
    op_type = "Identity" if node.op_type == "Dropout" else node.op_type
    if op_type == "Identity":
        attributes = {}
    return replace(first, value=emit.add(op_type, inputs, **attributes))


def _text(node: Node, name: str, default: str) -> str:
    return str(node.attributes[name].value) if name in node.attributes else default


def repeat_moves(emit: Emitter, chain: Sequence[Node], codes: Codes) -> Codes:
    """Return codes behind the moves of a chain that was followed without them."""
    for node in chain:
        if node.op_type in CHAIN_MOVES:
            attributes = {name: a.value for name, a in node.attributes.items()}
            inputs = [codes.value, *node.inputs[1:]]
            codes = replace(codes, value=emit.add(node.op_type, inputs, **attributes))
    return codes


def _concat(emit: Emitter, node: Node, sources: Sequence[Codes | None]) -> Codes | str:
    known = [codes for codes in sources if codes is not None]
    if len(known) != len(sources) or not known:
        return "not all of its inputs are quantized to 8 bits"
    if not all(codes.same_grid(known[0]) for codes in known):
        return "its inputs have different scales"
    joined = emit.add(
        "Concat", [c.value for c in known], axis=int(node.attributes["axis"].value)
    )
    low, high = min(c.low for c in known), max(c.high for c in known)
    return replace(known[0], value=joined, low=low, high=high)


def _pad(emit: Emitter, node: Node, codes: Codes, form: Form) -> Codes | str:
    level = 0
    mode = _text(node, "mode", "constant")
    given = node.inputs[2] if len(node.inputs) > 2 else None
    if given is not None and mode == "constant":
        number = read_number(given)
        if number is None or number.size != 1:
            return "it pads with a value that is computed at run time"
        value = np.float32(number.reshape(-1)[0])
        level = int(np.rint(value / codes.scale)) if np.isfinite(value) else 1 << 20
        if np.float32(level) * codes.scale != value or not (
            form.low <= level + codes.zero <= form.high
        ):
            return "it pads with a value off the grid of its input"
    fill = integer(emit, "fill", level + codes.zero, form)
    inputs = [codes.value, node.inputs[1], fill, *node.inputs[3:]]
    padded = emit.add("Pad", inputs, mode=mode)
    low, high = codes.low, codes.high
    if mode == "constant":
        low, high = min(low, level), max(high, level)
    return replace(codes, value=padded, low=low, high=high)
