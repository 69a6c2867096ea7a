"""Operators that only choose and move values: the same on integers as on floats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir
from onnx_ir import Node

from qonnx_hub_adapters.qcdq.chains import windows_are_filled
from qonnx_hub_adapters.qlinear import epilogue
from qonnx_hub_adapters.qlinear.constants import read_number
from qonnx_hub_adapters.qlinear.integer_values import Codes, clipped, integer
from qonnx_hub_ir import operators
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import attribute, input_of, is_standard


def move(emit: Emitter, node: Node, sources: Sequence[Codes | None]) -> Codes | None:
    """Return the integers that a node makes of integers, if it makes some.

    Args:
        emit: Where to write.
        node: A node.
        sources: The integers of each input; ``None`` where an input has none.
    """
    first = sources[0]
    if first is None or len(node.outputs) > 1:
        return None
    if is_standard(node, "Relu", "MaxPool") and not first.form.clips:
        return None
    if is_standard(node, "Relu"):
        low, high = max(first.low, 0), max(first.high, 0)
        form = first.form
        floor = clipped(emit, first.value, low + first.zero, form.high, form)
        return replace(first, value=floor, low=low, high=high)
    if is_standard(node, "Concat"):
        known = [codes for codes in sources if codes is not None]
        if len(known) < len(sources) or not all(codes.same_grid(first) for codes in known):
            return None
        axis = attribute(node, "axis", 0)
        joined = emit.add("Concat", [codes.value for codes in known], axis=axis)
        low, high = min(codes.low for codes in known), max(codes.high for codes in known)
        return replace(first, value=joined, low=low, high=high)
    if is_standard(node, "Pad"):
        return _pad(emit, node, first)
    if operators.is_identity(node):
        return replace(first, value=emit.add("Identity", [first.value]))
    pools = is_standard(node, "MaxPool") and windows_are_filled(node)
    return _repeated(emit, node, first) if pools or operators.moves_first(node) else None


def split(emit: Emitter, node: Node, codes: Codes | None) -> list[Codes]:
    """Return the integers of each part of a Split of integers; none where it has none."""
    if codes is None:
        return []
    copy = onnx_ir.node(
        "Split",
        [codes.value, *node.inputs[1:]],
        {name: attr.value for name, attr in node.attributes.items()},
        num_outputs=len(node.outputs),
        name=f"{node.name}_of_integers",
    )
    emit.insert(copy)
    for index, part in enumerate(copy.outputs):
        part.name = f"{copy.name}_{index}"
    return [replace(codes, value=part) for part in copy.outputs]


def _repeated(emit: Emitter, node: Node, codes: Codes) -> Codes:
    attributes = {name: attr.value for name, attr in node.attributes.items()}
    inputs = [codes.value, *node.inputs[1:]]
    return replace(codes, value=emit.add(node.op_type, inputs, **attributes))


def repeat_moves(emit: Emitter, chain: Sequence[Node], codes: Codes) -> Codes:
    """Return codes behind the moves of a chain that was followed without them."""
    for node in filter(epilogue.is_move, chain):
        codes = _repeated(emit, node, codes)
    return codes


def _pad(emit: Emitter, node: Node, codes: Codes) -> Codes | None:
    """Return padded integers, where what is padded with lies on their grid."""
    level, mode, given = 0, attribute(node, "mode", "constant"), input_of(node, 2)
    form = codes.form
    if given is not None and mode == "constant":
        number = read_number(given)
        if number is None or number.size != 1 or not np.all(np.isfinite(number)):
            return None
        value = np.float32(number.reshape(-1)[0])
        level = int(np.rint(value / codes.scale))
        inside = form.low <= level + codes.zero <= form.high
        if not inside or np.float32(level) * codes.scale != value:
            return None
    fill = integer(emit, "fill", level + codes.zero, form)
    padded = emit.add("Pad", [codes.value, node.inputs[1], fill, *node.inputs[3:]], mode=mode)
    # Other modes repeat what is there.
    ends = (codes.low, codes.high, level) if mode == "constant" else (codes.low, codes.high)
    return replace(codes, value=padded, low=min(ends), high=max(ends))
