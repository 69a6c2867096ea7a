"""Types of the inputs: what a caller says, what the first quantizers need, or a default."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
from onnx_ir import Node, Value

from qonnx_hub_adapters.hls4ml.fixed_point import (
    FixedGrid,
    FixedType,
    exponent,
    number,
    quantizer_type,
)
from qonnx_hub_adapters.hls4ml.options import Hls4mlOptions
from qonnx_hub_adapters.hls4ml.ranges import folded_norm, inverse_divisor
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.quantizers import Array, BipolarQuant, IntQuant

DEFAULT = FixedType(32, 16, True, "RND", "SAT")
"""What an input gets that no quantizer reads and of which nobody says the range."""

_SIGNIFICANT = 28
"""Bits of an input of known range: more than float32 has, for small values as well."""

_FINER = 16
"""Bits below the step of a quantizer that reads a scaled input, so that rounding at the input
cannot move a value over a tie but where float32 could as well."""


def input_type(value: Value, name: str, options: Hls4mlOptions) -> FixedType:
    """Return the type of an input of the lowered graph.

    The first of these that applies: the caller's type; the caller's range, in 28 bits; the
    type of the quantizer that all readers are; the range in which no quantizer behind it
    saturates yet, in 28 bits or more; 32 bits, of which 16 before the point. Values beyond
    the range saturate.

    Args:
        value: The input.
        name: Its name in the source.
        options: What the caller says.
    """
    if name in options.precisions:
        return parse_type(options.precisions[name])
    if name in options.ranges:
        return _type_for(*options.ranges[name], None)
    quantizers = {_quantizer_type(usage.node) for usage in value.uses()}
    if len(quantizers) == 1:
        only = quantizers.pop()
        if only is not None:
            return only
    needed = _needed(value)
    if needed is None:
        return DEFAULT
    low, high = float(np.min(needed.low)), float(np.max(needed.high))
    return _type_for(low, high, needed.lsb - _FINER)


def parse_type(text: str) -> FixedType:
    """Return a type that a caller wrote in hls4ml's words."""
    signed = not re.match(r"^(ap_|ac_)?u", text)
    inside = text[text.index("<") + 1 : -1].split(",")
    width = int(inside[0])
    if "int<" in text:
        return FixedType(width, width, signed)
    names = [part.removeprefix("AP_") for part in inside[2:] if part not in {"true", "false"}]
    if text.startswith("ac_"):
        signed = "false" not in inside
    rounding, saturation = (*names, "", "")[:2]
    return FixedType(width, int(inside[1]), signed, rounding, saturation)


def _quantizer_type(node: Node) -> FixedType | None:
    if not dialect.is_quantizer(node):
        return None
    quant = dialect.read_quantizer(node)
    return quantizer_type(quant) if isinstance(quant, IntQuant) else None


def _type_for(low: float, high: float, lsb: int | None) -> FixedType:
    signed = low < 0
    integer = max(exponent(high), exponent(-low)) + int(signed)
    finest = integer - int(signed) - _SIGNIFICANT
    step = finest if lsb is None else min(finest, lsb)
    return FixedType(max(integer - step, 1), integer, signed, "RND", "SAT")


def _needed(value: Value) -> FixedGrid | None:
    """Return where quantizers behind a value do not saturate; ``None`` if one is missing.

    The lowest bit is that of the finest step.
    """
    found: FixedGrid | None = None
    for usage in value.uses():
        grid = _needed_by(usage.node)
        if grid is None:
            return None
        found = grid if found is None else _both(found, grid)
    return None if value.is_graph_output() else found


def _both(a: FixedGrid, b: FixedGrid) -> FixedGrid:
    return FixedGrid(
        number(min(a.ends()[0], b.ends()[0])),
        number(max(a.ends()[1], b.ends()[1])),
        min(a.lsb, b.lsb),
    )


def _needed_by(node: Node) -> FixedGrid | None:
    if dialect.is_quantizer(node):
        return _needed_by_quantizer(node)
    moves = operators.moves_axes(node) or operators.is_max_pool(node, any_layout=True)
    behind = _needed(node.outputs[0])
    if behind is None or node.op_type == "Relu":
        return behind
    if moves:
        return behind.overall()
    if node.op_type == "Div":
        return _undone(behind, inverse_divisor(node), np.zeros((), dtype=np.float32))
    if node.op_type == "BatchNormalization":
        return _undone(behind, *folded_norm(node))
    return None


def _needed_by_quantizer(node: Node) -> FixedGrid:
    quant = dialect.read_quantizer(node)
    if isinstance(quant, BipolarQuant):
        return FixedGrid(number(-1.0), number(1.0), -8)
    assert isinstance(quant, IntQuant)
    grid = quantizer_type(quant).grid()
    step = 2.0**grid.lsb
    return replace(grid, low=grid.low - step, high=grid.high + step)


def _undone(grid: FixedGrid, factor: Array, offset: Array) -> FixedGrid | None:
    scale = factor.astype(np.float64)
    if not np.all(scale):
        return None
    ends = [(end - offset) / scale for end in (grid.low, grid.high)]
    lsb = grid.lsb - exponent(float(np.max(np.abs(scale))))
    return FixedGrid(np.minimum(*ends), np.maximum(*ends), lsb)
