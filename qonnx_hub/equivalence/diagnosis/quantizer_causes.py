"""Why a quantizer answers differently: every known fault as a formula, tried on the numbers.

A cause is named only if its formula gives the other side's answer for every value seen.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from qonnx_hub.equivalence.comparison.compare import differs
from qonnx_hub.equivalence.diagnosis.named_differences import scales_in_words
from qonnx_hub_ir.describe import describe_number, describe_quantizer
from qonnx_hub_ir.quantizers import (
    Array,
    BipolarQuant,
    IntQuant,
    Quantizer,
    Rounding,
    changed_fields,
    integer_bounds,
    single_value,
)
from qonnx_hub_ir.semantics import quantize, quantize_to_integers, round_values

_ROUNDED = 2.0**-7
"""Relative difference up to which a scale counts as the same number, rounded again (bfloat16
keeps eight bits)."""

_NEAR_TIE = 8
"""Distance from a tie, in float32 units in the last place, that arithmetic may bridge."""


class Cause(str, Enum):
    """What can make two layers differ."""

    TIE = "flipped rounding tie"
    RANGE = "saturation or narrow range"
    WRAPPED = "overflow that wraps"
    ROUNDING = "rounding mode"
    SCALE_ROUNDED = "scale re-rounded"
    SCALE_HALF = "scale rounded to float16"
    SCALES_MERGED = "one scale for all channels"
    SCALE = "another scale"
    ZERO_ORDER = "zero-point order"
    ZERO_POINT = "another zero point"
    MISSING = "missing quantizer"
    LAYOUT = "layout or padding"
    SAME_PADDING = "TensorFlow's SAME against even padding"
    PERMUTED = "permuted values"
    WEIGHTS = "weight mismatch"
    NOISE = "float reordering noise"
    OPERATOR = "another operator or attribute"
    UNKNOWN = "unexplained"

    def __str__(self) -> str:
        """Return the words themselves."""
        return self.value


@dataclass(frozen=True, slots=True)
class Reason:
    """A cause, and the sentence that says how it shows.

    Attributes:
        cause: The kind of fault.
        words: How it shows.
        layer: The layer at fault, where it is not the one examined.
    """

    cause: Cause
    words: str
    layer: str | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a layer differs.

    Attributes:
        layer: Name of the source layer at fault.
        cause: The kind of fault.
        words: How it shows, in one sentence.
        where: Index of an element that shows it, in the inputs examined.
        operand: What the quantizer read there; ``None`` for what is no quantizer.
        values: Both answers there.
    """

    layer: str
    cause: Cause
    words: str
    where: tuple[int, ...] | None = None
    operand: float | None = None
    values: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What a quantizer read and what both sides made of it; all of one shape.

    Attributes:
        x: What it read.
        a: The reference's answer.
        b: The other answer.
    """

    x: Array
    a: Array
    b: Array

    def differs(self) -> Array:
        """Return where the answers differ."""
        return differs(self.a, self.b)

    def is_answered_by(self, predicted: Array) -> bool:
        """Return whether a formula gives the other side's answer everywhere."""
        return not differs(predicted, self.b).any()


def explanation_of(layer: str, reason: Reason, seen: Seen | None) -> Explanation:
    """Return a reason as the explanation of a layer, with the first element that shows it."""
    layer = reason.layer or layer
    if seen is None or not seen.differs().any():
        return Explanation(layer, reason.cause, reason.words)
    where = tuple(int(i) for i in np.argwhere(seen.differs())[0])
    if {one.dtype.kind for one in (seen.x, seen.a, seen.b)} & set("OSUc"):
        return Explanation(layer, reason.cause, reason.words, where)
    operand = None if seen.x is seen.a else float(seen.x[where])
    values = (float(seen.a[where]), float(seen.b[where]))
    return Explanation(layer, reason.cause, reason.words, where, operand, values)


def same_elements(a: Array, b: Array) -> bool:
    """Return whether two arrays hold the same elements, in whatever order."""
    return np.array_equal(np.sort(a, axis=None), np.sort(b, axis=None))


def explain_quantizer(
    seen: Seen, quant: Quantizer, other: Quantizer | None, noise: float = 0.0
) -> Reason | None:
    """Return why two quantizers differ on the same values, or ``None``.

    Args:
        seen: Values and answers, some of which differ.
        quant: The reference's quantizer, every parameter known.
        other: The other side's, where it is a quantizer of the IR with known parameters.
        noise: Difference that float arithmetic before the quantizer may have made.
    """
    if not seen.differs().any():
        return None
    with np.errstate(all="ignore"):
        if other is not None and seen.is_answered_by(quantize(seen.x, other)):
            return compare_parameters(seen, quant, other)
        return match_formula(seen, quant) or _by_statistics(seen, quant, noise)


def match_formula(seen: Seen, quant: Quantizer) -> Reason | None:
    """Return the known fault whose formula gives every one of the other side's answers."""
    with np.errstate(all="ignore"):
        for reason, predicted in _formulas(seen, quant):
            if seen.is_answered_by(predicted):
                return reason
    return None


def compare_parameters(seen: Seen, quant: Quantizer, other: Quantizer) -> Reason | None:
    """Return which parameter makes two quantizers differ, or ``None`` if they are the same.

    The parameter named is the one whose mending brings the reference's answers back best.

    Args:
        seen: Values and answers.
        quant: The reference's quantizer, every parameter known.
        other: The other side's, likewise.
    """
    if type(quant) is not type(other):
        words = f"{describe_quantizer(quant)} against {describe_quantizer(other)}"
        return Reason(Cause.OPERATOR, words)
    names = changed_fields(quant, other)
    if not names:
        return None
    left = {name: _left_over(seen, quant, other, name) for name in names}
    first = min(names, key=lambda name: left[name])
    words = _field_words(quant, other, first)
    if left[first]:
        rest = ", ".join(_field_words(quant, other, n) for n in names if n != first)
        words += f"; beside it {rest}" if rest else ""
    return Reason(_field_cause(quant, other, first), words)


def _left_over(seen: Seen, quant: Quantizer, other: Quantizer, name: str) -> int:
    """Return how many answers still differ once one parameter is as in the reference."""
    try:
        mended = dataclasses.replace(other, **{name: getattr(quant, name)})
        return int(np.count_nonzero(differs(quantize(seen.x, mended), seen.a)))
    except ValueError:
        return seen.x.size


def _field_cause(quant: Quantizer, other: Quantizer, name: str) -> Cause:
    if name in {"scale", "out_scale"}:
        return _scale_cause(getattr(quant, name), getattr(other, name))
    if name == "zero_point":
        return Cause.ZERO_POINT
    if name == "rounding":
        return Cause.ROUNDING
    if name == "zero_point_after_rounding":
        return Cause.ZERO_ORDER
    ranges = {"bits", "signed", "narrow", "in_bits", "out_bits", "max_val", "saturation"}
    return Cause.RANGE if name in ranges else Cause.OPERATOR


def _scale_cause(ours: Array, theirs: Array) -> Cause:
    named = scales_in_words(ours, theirs)
    if named:
        return Cause.SCALE_HALF if "float16" in named else Cause.SCALES_MERGED
    ratio = theirs.astype(np.float64) / ours.astype(np.float64)
    near = bool(np.all(np.abs(ratio - 1) <= _ROUNDED))
    return Cause.SCALE_ROUNDED if near else Cause.SCALE


def _field_words(quant: Quantizer, other: Quantizer, name: str) -> str:
    ours, theirs = getattr(quant, name), getattr(other, name)
    if name == "zero_point_after_rounding":
        return _order_words(late=bool(ours))
    if name == "scale" and isinstance(ours, np.ndarray) and isinstance(theirs, np.ndarray):
        return _scale_words(ours, theirs)
    if isinstance(ours, np.ndarray):
        ours, theirs = describe_number(ours), describe_number(theirs)
    return f"{name} {ours} against {theirs}"


def _order_words(*, late: bool) -> str:
    theirs, ours = ("before", "after") if late else ("after", "before")
    return (
        f"the zero point is added {theirs} rounding there, {ours} it here: ties between two "
        "codes, and values within a float of one, are one step apart"
    )


def _scale_words(ours: Array, theirs: Array) -> str:
    ratio = np.abs(theirs.astype(np.float64) / ours.astype(np.float64) - 1)
    worst = np.unravel_index(int(ratio.argmax()), ratio.shape)
    pair = [np.broadcast_to(s, ratio.shape)[worst] for s in (ours, theirs)]
    named = scales_in_words(ours, theirs)
    at = f" at {[int(k) for k in worst]}" if ratio.size > 1 else ""
    words = (
        f"scale {float(pair[0])!r} against {float(pair[1])!r}{at}, {ratio[worst]:.3g} apart"
    )
    return f"{named}: {words}" if named else words


def _formulas(seen: Seen, quant: Quantizer) -> Iterator[tuple[Reason, Array]]:
    words = "the other side passes the values on as they are"
    yield Reason(Cause.MISSING, words), seen.x
    if isinstance(quant, BipolarQuant):
        scale = np.asarray(quant.scale, dtype=seen.x.dtype)
        words = "zero counts as minus there, as plus here"
        yield Reason(Cause.TIE, words), np.where(seen.x > 0, scale, -scale)
        words = "zero stays zero there, counts as plus here"
        yield Reason(Cause.TIE, words), np.sign(seen.x) * scale
    elif isinstance(quant, IntQuant):
        yield from _integer_formulas(seen, quant)


def _integer_formulas(seen: Seen, quant: IntQuant) -> Iterator[tuple[Reason, Array]]:
    x = seen.x
    bits = single_value(quant.bits)
    if bits is None or quant.scale is None or quant.zero_point is None:
        return
    scale = quant.scale.astype(x.dtype)
    zero = quant.zero_point.astype(x.dtype)
    low, high = (
        x.dtype.type(v) for v in integer_bounds(bits, signed=quant.signed, narrow=quant.narrow)
    )
    clipped = np.clip(x / scale + zero, low, high)
    words = "the other side keeps to the limits, but does not round"
    yield Reason(Cause.MISSING, words), np.asarray((clipped - zero) * scale)
    ends = [(end - zero) * scale for end in (low, high)]
    yield Reason(Cause.MISSING, words), np.asarray(np.clip(x, ends[0], ends[1]))
    for mode in Rounding:
        if mode is not quant.rounding:
            reason = Reason(Cause.ROUNDING, f"{quant.rounding} here, {mode} there")
            yield reason, quantize(x, dataclasses.replace(quant, rounding=mode))
    yield from _other_ranges(x, quant, int(bits))
    whole = round_values(np.asarray(x / scale + zero), quant.rounding)
    span = high - low + 1
    wrapped = np.asarray((np.mod(whole - low, span) + low - zero) * scale)
    yield Reason(Cause.WRAPPED, "values beyond the limits wrap around there"), wrapped
    yield from _other_orders(x, quant, scale, zero, (low, high))
    times = x * (x.dtype.type(1) / scale) + zero
    product = round_values(np.asarray(np.clip(times, low, high)), quant.rounding)
    words = "the other side multiplies by 1 / scale, which moves values across ties"
    yield Reason(Cause.TIE, words), np.asarray((product - zero) * scale)
    yield from _other_scales(seen, quant)


def _other_ranges(x: Array, quant: IntQuant, bits: int) -> Iterator[tuple[Reason, Array]]:
    ours = describe_quantizer(dataclasses.replace(quant, scale=np.ones(1, dtype=np.float32)))
    widths = [bits, *(b for b in (*range(2, 17), 24, 32) if b != bits)]
    signs, ends = (quant.signed, not quant.signed), (quant.narrow, not quant.narrow)
    for width, signed, narrow in itertools.product(widths, signs, ends):
        if signed and width == 1:
            continue
        codes = np.array(width, dtype=np.float32)
        trial = dataclasses.replace(quant, bits=codes, signed=signed, narrow=narrow)
        theirs = f"{'' if signed else 'u'}int{width}{' narrow' if narrow else ''}"
        words = f"{ours} here, limits as of {theirs} there"
        yield Reason(Cause.RANGE, words), quantize(x, trial)


def _other_orders(
    x: Array, quant: IntQuant, scale: Array, zero: Array, bounds: tuple[Any, Any]
) -> Iterator[tuple[Reason, Array]]:
    """Give the orders in which other operators add zero points, round and clip."""
    if not np.any(zero):
        return
    low, high = bounds
    mode = quant.rounding
    late = quant.zero_point_after_rounding
    other_order = dataclasses.replace(quant, zero_point_after_rounding=not late)
    yield Reason(Cause.ZERO_ORDER, _order_words(late=late)), quantize(x, other_order)
    inner = round_values(np.asarray(np.clip(x / scale, low, high)), mode)
    words = "the zero point is added after clipping there, before it here"
    yield Reason(Cause.ZERO_ORDER, words), np.asarray(inner * scale)
    shifted = round_values(np.asarray(np.clip((x + zero) / scale, low, high)), mode)
    words = "the zero point is added before dividing by the scale there, after it here"
    yield Reason(Cause.ZERO_ORDER, words), np.asarray((shifted - zero) * scale)
    others = {"none": np.zeros_like(zero), "rounded": np.rint(zero), "negated": -zero}
    for how, other in others.items():
        trial = dataclasses.replace(quant, zero_point=other.astype(np.float32))
        words = f"zero point {describe_number(quant.zero_point)} here, {how} there"
        yield Reason(Cause.ZERO_POINT, words), quantize(x, trial)


def _other_scales(seen: Seen, quant: IntQuant) -> Iterator[tuple[Reason, Array]]:
    ours = np.asarray(quant.scale, dtype=np.float32)
    for guess in _scale_guesses(seen, quant, ours):
        for ulps in (0, 1, -1, 2, -2, 3, -3):
            theirs = guess
            for _ in range(abs(ulps)):
                theirs = np.nextafter(theirs, np.float32(np.copysign(np.inf, ulps)))
            if not np.all(np.isfinite(theirs) & (theirs > 0)) or np.all(theirs == ours):
                continue
            reason = Reason(_scale_cause(ours, theirs), _scale_words(ours, theirs))
            yield reason, quantize(seen.x, dataclasses.replace(quant, scale=theirs))


def _scale_guesses(seen: Seen, quant: IntQuant, ours: Array) -> Iterator[Array]:
    zero = np.asarray(quant.zero_point, dtype=np.float64)
    codes = quantize_to_integers(np.nan_to_num(seen.x), quant).astype(np.float64) - zero
    ratios = np.where(codes != 0, seen.b / np.where(codes != 0, codes, 1), np.nan)
    ratios = np.where(ratios > 0, ratios, np.nan)
    rank = seen.x.ndim
    shape = (1,) * rank if ours.size == 1 else (1,) * (rank - ours.ndim) + ours.shape
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1)
    # Where a channel shows no code but zero, its scale does not matter.
    shown = np.isfinite(ratios).any(axis=axes, keepdims=True)
    middle = np.nanmedian(np.where(shown, ratios, 1.0), axis=axes, keepdims=True)
    found = np.where(shown, middle, np.nan)
    found = found.reshape(ours.shape if ours.size == found.size else found.shape)
    yield np.where(np.isfinite(found), found, ours).astype(np.float32)
    if ours.size == 1:
        levels = np.unique(seen.b[np.isfinite(seen.b)])
        if levels.size > 1:
            yield np.full(ours.shape, np.diff(levels).min(), dtype=np.float32)
        for level in np.unique(np.abs(levels[levels != 0]))[:2]:
            yield np.full(ours.shape, level, dtype=np.float32)


def _by_statistics(seen: Seen, quant: Quantizer, noise: float) -> Reason | None:
    """Return the cause that the places of the differences point to."""
    if not isinstance(quant, IntQuant) or quant.scale is None or quant.zero_point is None:
        x = np.abs(seen.x[seen.differs()])
        if not isinstance(quant, BipolarQuant) or not np.all(x <= noise):
            return None
        words = f"{x.size} values within {float(x.max()):.3g} of zero fall to its other side"
        return Reason(Cause.TIE, words)
    where = seen.differs()
    scale = np.broadcast_to(quant.scale, seen.x.shape)[where].astype(np.float64)
    zero = np.broadcast_to(quant.zero_point, seen.x.shape)[where].astype(np.float64)
    t = seen.x[where].astype(np.float64) / scale + zero
    gap = np.abs(seen.a[where].astype(np.float64) - seen.b[where]) / scale
    nearest = {Rounding.ROUND, Rounding.HALF_UP, Rounding.HALF_DOWN, Rounding.DPU}
    shift = 0.5 if quant.rounding in nearest else 0.0
    edge = np.abs(t - (np.rint(t - shift) + shift))
    reach = _NEAR_TIE * np.spacing(np.abs(t).astype(np.float32) + 1) + noise / scale
    if bool(np.all(np.abs(gap - 1) < 1e-3) and np.all(edge <= reach)):
        furthest = float((edge / np.spacing(np.abs(t).astype(np.float32))).max())
        words = (
            f"{where.sum()} values within {furthest:.3g} ulp of a tie fall to its other side"
        )
        return Reason(Cause.TIE, words)
    bits = single_value(quant.bits)
    if bits is None:
        return None
    low, high = integer_bounds(bits, signed=quant.signed, narrow=quant.narrow)
    if bool(np.all((t <= low + 0.5) | (t >= high - 0.5))):
        return Reason(Cause.RANGE, "only values at or beyond the limits differ")
    return None


def crosses_ties(other: Array, seen: Seen, quant: Quantizer) -> bool:
    """Return whether two sides differ only because what they read lies on two sides of ties.

    Args:
        other: What the other side's quantizer read.
        seen: What the reference's quantizer read, and both answers.
        quant: The quantizer that both are.
    """
    where = seen.differs()
    if not where.any() or not np.any(seen.x[where] != other[where]):
        return False
    with np.errstate(all="ignore"):
        return seen.is_answered_by(quantize(other.astype(seen.x.dtype), quant))
