"""The quantizers as steps of standard operators: which, in which order, described once.

Every step is one float operator that rounds as the numpy definition in
:mod:`qonnx_hub_ir.semantics` rounds, in the same order, so the numbers are the same in every
bit but the sign of zeros. A description hands its steps to a :class:`StepWriter`:
:mod:`qonnx_hub_ir.lowering.quantizer_operators` makes nodes of a graph,
:mod:`qonnx_hub_ir.lowering.function_bodies` lines of a model-local function.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import onnx_ir

from qonnx_hub_ir import dialect
from qonnx_hub_ir.quantizers import (
    BipolarQuant,
    FloatQuant,
    IntQuant,
    Quantizer,
    Rounding,
    Trunc,
)

HALF_FLOATS = frozenset({onnx_ir.DataType.FLOAT16, onnx_ir.DataType.BFLOAT16})
"""Types whose quantizers compute in float32 and round once at the end."""


@dataclass(frozen=True, slots=True)
class Variant:
    """What the nodes of one quantizing operator need of its steps.

    Attributes:
        op_type: Canonical operator name.
        roundings: Rounding modes in use, in the order of :class:`Rounding`.
        two_levels: Whether one signed bit is in use, or may be, at run time (Quant).
        overflows: Whether values may overflow instead of saturating (FloatQuant).
        narrow_floats: Whether 16-bit floats are quantized, which compute in float32.
        zero_point_after_rounding: Whether a Quant adds its zero point after rounding; all of
            them do, then.
        version: Version of the operator (Trunc).
    """

    op_type: str
    roundings: tuple[Rounding, ...] = (Rounding.ROUND,)
    two_levels: bool = False
    overflows: bool = False
    narrow_floats: bool = False
    version: int = 1
    zero_point_after_rounding: bool = False


def variant_of(quants: Iterable[Quantizer], dtypes: Iterable[object] = ()) -> Variant:
    """Return what quantizers of one operator need.

    Args:
        quants: The quantizers, at least one.
        dtypes: ONNX types of what they quantize.
    """
    own = list(quants)
    modes = {quant.rounding for quant in own if not isinstance(quant, BipolarQuant)}
    return Variant(
        dialect.operator_of(own[0]),
        tuple(mode for mode in Rounding if mode in modes) or (Rounding.ROUND,),
        two_levels=any(
            isinstance(quant, IntQuant)
            and quant.signed
            and (quant.bits is None or bool(np.any(quant.bits == 1)))
            for quant in own
        ),
        overflows=any(isinstance(quant, FloatQuant) and not quant.saturation for quant in own),
        narrow_floats=any(dtype in HALF_FLOATS for dtype in dtypes),
        version=max(quant.version if isinstance(quant, Trunc) else 1 for quant in own),
        zero_point_after_rounding=isinstance(own[0], IntQuant)
        and own[0].zero_point_after_rounding,
    )


T = TypeVar("T")


class StepWriter(Protocol[T]):
    """What takes the steps of a description; ``T`` stands for a value among them.

    Names are those of values inside a function; nodes have their own. Of a value nothing is
    known before it is computed, unless a writer says so.

    Attributes:
        x: What is quantized, in the type that the quantizer computes in.
    """

    x: T

    def parameter(self, field: str, name: str, *, double: bool = False) -> T:
        """Return a parameter in the computing type, or in double precision."""

    def flags(self) -> tuple[T, T]:
        """Return ``signed`` and ``narrow`` as 0 or 1 in the computing type."""

    def number(self, name: str, value: float, label: str = "") -> T:
        """Return a constant of the computing type."""

    def double(self, name: str, value: float) -> T:
        """Return a constant in double precision."""

    def type_limit(self, name: str) -> T:
        """Return the ``largest`` or the ``tiny``-est normal number of the computing type."""

    def holds(self, value: T, number: float) -> bool:
        """Return whether a value is known to be that number everywhere."""
        return False

    def cast(self, name: str, value: T, label: str = "") -> T:
        """Return a value in the computing type."""

    def add(self, name: str, op_type: str, *operands: T) -> T:
        """Return what a standard operator gives."""

    def compute(self, name: str, op_type: str, *operands: T, label: str = "") -> T:
        """Return the same, worked out beforehand where all operands are known."""
        return self.add(name, op_type, *operands)

    def placed(self, *values: T) -> tuple[T, ...]:
        """Return values whose constants stand in the graph in this order."""
        return values

    def exponent_of_ratio(self, above: T, below: T) -> T:
        """Return the whole number next to the binary logarithm of a ratio of scales."""

    def clamp(self, t: T, low: T, high: T) -> T:
        """Return ``t`` within bounds, of any shape: Clip takes scalars only."""
        return self.add("clamped", "Min", self.add("at_least", "Max", t, low), high)

    def rounded(self, t: T, name: str) -> T:
        """Return ``t`` rounded by the mode of the quantizer."""

    def special(self) -> T:
        """Return what stands for values beyond a minifloat: infinity or NaN."""

    def unless_saturating(self, name: str, clipped: T, overflowed: T) -> T:
        """Return the first where the quantizer saturates, else the second."""
        return overflowed


def write_steps(w: StepWriter[T], variant: Variant) -> T:
    """Return the result of a quantizer, written step by step."""
    if variant.op_type == "Quant":
        if variant.zero_point_after_rounding:
            return _integer_rounded_first(w)
        return _integer(w, two_levels=variant.two_levels)
    if variant.op_type == "BipolarQuant":
        zero = w.number("zero", 0, "nil")
        (scale,) = w.placed(w.parameter("scale", "s"))
        positive = w.add("positive", "GreaterOrEqual", w.x, zero)
        return w.add("t_y", "Where", positive, scale, w.add("low", "Neg", scale))
    if variant.op_type == "Trunc":
        return _truncation_v1(w) if variant.version == 1 else _truncation_v2(w)
    return _minifloat(w, overflows=variant.overflows)


def scaled(w: StepWriter[T], x: T, scale: T, zero: T, name: str = "t") -> T:
    """Return ``x / scale + zero_point``, without steps that are known to do nothing."""
    t = x if w.holds(scale, 1) else w.add("quotient", "Div", x, scale)
    return t if w.holds(zero, 0) else w.add(name, "Add", t, zero)


def _unscaled(w: StepWriter[T], codes: T, scale: T, zero: T) -> T:
    """Return ``(codes - zero_point) * scale``, without steps that are known to do nothing."""
    if not w.holds(zero, 0):
        codes = w.add("centred", "Sub", codes, zero)
    return codes if w.holds(scale, 1) else w.add("t_y", "Mul", codes, scale)


def _sign(w: StepWriter[T], t: T) -> T:
    """Plus or minus one by the sign of ``t``; zero counts as plus."""
    positive = w.add("positive", "GreaterOrEqual", t, w.number("zero", 0, "nil"))
    one = w.number("one", 1, "up")
    minus_one = w.compute("minus_one", "Neg", one, label="down")
    return w.add("sign", "Where", positive, one, minus_one)


def _integer(w: StepWriter[T], *, two_levels: bool) -> T:
    signed, narrow = w.flags()
    scale, zero = w.parameter("scale", "s"), w.parameter("zero_point", "z")
    bits = w.parameter("bits", "b")
    if two_levels and w.holds(bits, 1):
        return _unscaled(w, _sign(w, scaled(w, w.x, scale, zero)), scale, zero)
    low, high = _bounds(w, bits, signed, narrow)
    t = scaled(w, w.x, scale, zero)
    codes = w.rounded(w.clamp(t, low, high), "rounded" if two_levels else "codes")
    if two_levels:
        one, sign = w.number("one", 1), _sign(w, t)
        is_sign = w.add("one_value", "Equal", bits, one)
        if not w.holds(signed, 1):
            is_sign = w.add("is_sign", "And", is_sign, w.add("signed_b", "Equal", signed, one))
        codes = w.add("codes", "Where", is_sign, sign, codes)
    return _unscaled(w, codes, scale, zero)


def _integer_rounded_first(w: StepWriter[T]) -> T:
    """Write QuantizeLinear's order: the zero point is added to what was rounded."""
    signed, narrow = w.flags()
    scale, zero = w.parameter("scale", "s"), w.parameter("zero_point", "z")
    low, high = _bounds(w, w.parameter("bits", "b"), signed, narrow)
    t = w.x if w.holds(scale, 1) else w.add("quotient", "Div", w.x, scale)
    codes = w.add("sum", "Add", w.rounded(t, "rounded"), zero)
    # A comparison and not Max, which would keep a NaN: it becomes the lowest code.
    reaches = w.add("reaches", "GreaterOrEqual", codes, low)
    codes = w.add("codes", "Min", w.add("at_least", "Where", reaches, codes, low), high)
    return _unscaled(w, codes, scale, zero)


def _bounds(w: StepWriter[T], bits: T, signed: T, narrow: T) -> tuple[T, T]:
    """Return (lowest, highest) integer of a bit width that may be computed at run time.

    One subtraction of whole numbers per bound: each is rounded once, as in the definition.
    """
    one, two = w.number("one", 1), w.number("two", 2)
    value_bits = bits if w.holds(signed, 0) else w.compute("value_bits", "Sub", bits, signed)
    span = w.compute("span", "Pow", two, value_bits)
    is_unsigned = w.compute("is_unsigned", "Sub", one, signed)
    left_out = w.compute("left_out", "Mul", narrow, is_unsigned)
    above = w.compute("above", "Add", one, left_out, label="left_out")
    high = w.compute("high", "Sub", span, above)
    if w.holds(signed, 0):
        return w.number("low", 0), high
    low = w.compute("below_zero", "Sub", narrow, span, label="low")
    return low if w.holds(signed, 1) else w.compute("low", "Mul", signed, low), high


def _truncation_v1(w: StepWriter[T]) -> T:
    scale, zero = w.parameter("scale", "s"), w.parameter("zero_point", "z")
    in_bits = w.parameter("in_bits", "in_b", double=True)
    out_bits = w.parameter("out_bits", "out_b", double=True)
    dropped = w.compute("dropped", "Sub", in_bits, out_bits)
    shift = w.cast("shift", w.compute("shift_d", "Pow", w.double("two_d", 2), dropped))
    t = w.add("whole", "Round", scaled(w, w.x, scale, zero, "sum"))
    codes = w.rounded(w.add("t", "Div", t, shift), "codes")
    return _unscaled(w, codes, scale, zero)


def _truncation_v2(w: StepWriter[T]) -> T:
    scale, zero = w.parameter("scale", "s"), w.parameter("zero_point", "z")
    signed, narrow = w.flags()
    out_scale = w.parameter("out_scale", "out_s")
    exponent = w.exponent_of_ratio(out_scale, scale)
    shift = w.compute("shift", "Pow", w.number("two", 2), exponent)
    out_zero = w.compute("out_z", "Div", zero, shift, label="out_zero_point")
    low, high = _bounds(w, w.parameter("out_bits", "b"), signed, narrow)
    t = w.add("whole", "Round", scaled(w, w.x, scale, zero, "sum"))
    codes = w.rounded(w.clamp(w.add("t", "Div", t, shift), low, high), "codes")
    if not w.holds(zero, 0):
        codes = w.add("centred", "Sub", codes, out_zero)
    return w.add("t_y", "Mul", codes, out_scale)


def _minifloat(w: StepWriter[T], *, overflows: bool) -> T:
    limit, mantissa, bias = _read_format(w)
    negative = w.compute("neg_limit", "Neg", limit, label="negative_limit")
    high, low = w.placed(limit, negative)
    scale = w.parameter("scale", "s")
    t = w.add("t", "Div", w.x, scale)
    # What lies beyond twice the limit ends as what lies there; a logarithm takes no infinity.
    twice = w.compute("twice", "Mul", limit, w.number("two", 2))
    beyond = w.compute("beyond_floats", "IsInf", twice)
    largest = w.type_limit("largest")
    reach = w.compute("reach", "Where", beyond, largest, twice, label="reach_high")
    near = w.compute("neg_reach", "Neg", reach, label="reach_low")
    near = w.add("near", "Min", w.add("at_least", "Max", t, near), reach)
    grid = _grid(w, near, mantissa, bias)
    q = w.rounded(w.add("on_grid", "Div", near, grid), "rounded")
    q = w.add("near_q", "Mul", grid, q)
    if not w.holds(beyond, 0):
        q = w.add("q", "Where", w.add("infinite", "IsInf", t), t, q)
    result = w.add("clipped", "Min", w.add("raised", "Max", q, low), high)
    if overflows:
        special = w.special()
        minus = w.compute("neg_special", "Neg", special, label="under")
        over = w.add("over", "Greater", q, high)
        under = w.add("under", "Less", q, low)
        replaced = w.add("with_over", "Where", over, special, result)
        replaced = w.add("with_both", "Where", under, minus, replaced)
        result = w.unless_saturating("result", result, replaced)
    return w.add("t_y", "Mul", result, scale)


def _read_format(w: StepWriter[T]) -> tuple[T, T, T]:
    """Return the largest magnitude, at most ``max_val``, the mantissa's bits and the bias."""
    one, two = w.double("one_d", 1), w.double("two_d", 2)
    exponent_bits = w.parameter("exponent_bits", "e_bits", double=True)
    mantissa_bits = w.parameter("mantissa_bits", "m_bits", double=True)
    bias = w.parameter("exponent_bias", "bias", double=True)
    codes = w.compute("codes", "Pow", two, exponent_bits)
    last_code = w.compute("last_code", "Sub", codes, one)
    top = w.compute("top_power", "Pow", two, w.compute("top", "Sub", last_code, bias))
    minus_m = w.compute("minus_m", "Neg", mantissa_bits)
    last_place = w.compute("last_place", "Pow", two, minus_m)
    mantissa = w.compute("mantissa", "Sub", two, last_place)
    limit = w.compute("format_limit", "Mul", mantissa, top)
    limit = w.compute("limit_d", "Min", limit, w.parameter("max_val", "max_d", double=True))
    return w.cast("limit", limit), mantissa_bits, bias


def _grid(w: StepWriter[T], near: T, mantissa_bits: T, bias: T) -> T:
    """Return the step of the format at each value: two to a whole power, exactly."""
    tiny = w.type_limit("tiny")
    ln2 = w.cast("ln2", w.double("ln2_d", math.log(2)))
    size = w.add("size", "Add", w.add("size_0", "Abs", near), tiny)
    log2 = w.add("log2", "Div", w.add("log", "Log", size), ln2)
    one, two = w.placed(w.number("one", 1), w.number("two", 2))
    guess = w.add("guess", "Floor", log2)
    # The logarithm may be off by one unit either way; powers of two tell for certain.
    too_high = w.add("too_high", "Less", size, w.add("guess_power", "Pow", two, guess))
    one_lower = w.add("one_lower", "Sub", guess, one)
    lowered = w.add("lowered", "Where", too_high, one_lower, guess)
    next_up = w.add("next_up", "Add", lowered, one)
    next_power = w.add("next_power", "Pow", two, next_up)
    too_low = w.add("too_low", "GreaterOrEqual", size, next_power)
    exponent = w.add("exponent", "Where", too_low, next_up, lowered)
    own_step = w.add("own_step", "Sub", exponent, w.cast("m", mantissa_bits, "mantissa"))
    from_bias = w.compute("from_bias", "Sub", w.double("one_d", 1), bias)
    lowest = w.cast("lowest_step", w.compute("lowest_d", "Sub", from_bias, mantissa_bits))
    return w.add("grid", "Pow", two, w.add("step", "Max", own_step, lowest))


PLAIN_ROUNDINGS = {Rounding.ROUND: "Round", Rounding.CEIL: "Ceil", Rounding.FLOOR: "Floor"}
"""Modes that are one operator of ONNX."""


def write_rounding(w: StepWriter[T], mode: Rounding, t: T, name: str) -> T:
    """Return ``t`` rounded by one mode."""
    if mode in PLAIN_ROUNDINGS:
        return w.add(name, PLAIN_ROUNDINGS[mode], t)
    if mode is Rounding.DPU:
        # To nearest: negative ties up, other ties to even.
        middle, zero = w.placed(w.number("half", 0.5), w.number("zero", 0, "nil"))
        fraction = w.add("fraction", "Sub", t, w.add("floor", "Floor", t))
        below = w.add("below", "Less", t, zero)
        tie = w.add("tie", "And", below, w.add("is_half", "Equal", fraction, middle))
        return w.add(name, "Where", tie, w.add("up", "Ceil", t), w.add("nearest", "Round", t))
    part = {Rounding.HALF_UP: "half", Rounding.HALF_DOWN: "half_less"}.get(mode)
    half = None if part is None else w.number(part, 0.5, "half")
    size = w.add(f"size_{mode}", "Abs", t)
    if half is not None:
        more = mode is Rounding.HALF_UP
        size = w.add("more" if more else "less", "Add" if more else "Sub", size, half)
    up = mode in (Rounding.UP, Rounding.HALF_DOWN)
    size = w.add(f"whole_{mode}", "Ceil" if up else "Floor", size)
    return w.add(name, "Mul", size, w.add(f"sign_{mode}", "Sign", t))
