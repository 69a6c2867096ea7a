"""Types of the inputs: what a caller says, what the first quantizers need, or a default."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from onnx_ir import Node, Value

from qonnx_hub_adapters.hls4ml.fixed_point import (
    WHOLE_BITS,
    FixedGrid,
    FixedType,
    exponent,
    number,
    type_of_quantizer,
)
from qonnx_hub_adapters.hls4ml.options import Hls4mlOptions
from qonnx_hub_adapters.hls4ml.ranges import MERGED, folded_norm
from qonnx_hub_ir import dialect, operators

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
    kinds = {type_of_quantizer(usage.node) for usage in value.uses()}
    only = kinds.pop() if len(kinds) == 1 else None
    if only is not None and only.width != WHOLE_BITS:
        return only
    needed = _needed(value)
    return DEFAULT if needed is None else _type_for(*needed.ends(), needed.lsb - _FINER)


def parse_type(text: str) -> FixedType:
    """Return a type that a caller wrote in hls4ml's words, for either library."""
    inside = [part.strip() for part in text[text.index("<") + 1 : -1].split(",")]
    # The types of ac_ say by a parameter whether they are signed, the others by their name.
    signed = not re.match(r"^(ap_|ac_)?u", text) and "false" not in inside
    width = int(inside[0])
    if "int<" in text:
        return FixedType(width, width, signed)
    modes = (part for part in inside[2:] if part not in {"true", "false"})
    names = [part.removeprefix("AP_").removeprefix("AC_") for part in modes]
    rounding, saturation = (*names, "", "")[:2]
    return FixedType(width, int(inside[1]), signed, rounding, saturation)


def configured_types(entry: object) -> dict[str, FixedType]:
    """Return the fixed-point types of a layer's entry in a config, by name.

    What hls4ml is to find ("auto") and what is no fixed-point type is left out.
    """
    precision = entry.get("Precision") if isinstance(entry, Mapping) else None
    named = precision if isinstance(precision, Mapping) else {"result": precision}
    return {
        str(name): parse_type(text)
        for name, text in named.items()
        if isinstance(text, str) and _TYPE.fullmatch(text)
    }


_TYPE = re.compile(r"(ap_|ac_)?u?(fixed<\d+, *-?\d+(, *\w+)*>|int<\d+(, *\w+)?>)")


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
        found = grid if found is None else found.hull(grid)
    return None if value.is_graph_output() else found


def _needed_by(node: Node) -> FixedGrid | None:
    if dialect.is_quantizer(node):
        kind = type_of_quantizer(node)
        if kind is None:
            return FixedGrid(number(-1.0), number(1.0), -8)
        if kind.width == WHOLE_BITS:
            return None  # it makes numbers whole: nothing saturates
        grid, step = kind.grid(), 2.0 ** kind.lsb()
        return replace(grid, low=grid.low - step, high=grid.high + step)
    behind = _needed(node.outputs[0])
    if behind is None or node.op_type == "Relu":
        return behind
    if operators.moves_axes(node) or operators.is_max_pool(node, any_layout=True):
        return behind.overall()
    if node.op_type not in MERGED:
        return None
    factor, offset = (values.astype(np.float64) for values in folded_norm(node))
    if not np.all(factor):
        return None
    ends = [(end - offset) / factor for end in (behind.low, behind.high)]
    lsb = behind.lsb - exponent(float(np.max(np.abs(factor))))
    return FixedGrid(np.minimum(*ends), np.maximum(*ends), lsb)
