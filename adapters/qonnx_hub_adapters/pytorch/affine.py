"""torch's affine quantizer: its formula, and when a ``Quant`` node computes the same.

Measured on torch 2.13 with every rounding threshold and the floats beside it, for
fake_quantize (per tensor, per channel, learnable, fused) and quantized_decomposed::

    y = (clip(round(x * (1 / s)) + z, low, high) - z) * s

with ``1 / s`` rounded to float32, half to even, and all between clip and the last product
exact on integers. A ``Quant`` node computes ``(round(clip(x / s + z)) - z) * s``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from qonnx_hub_ir.quantizers import (
    Array,
    Comparable,
    IntQuant,
    bits_of_bounds,
    bits_of_range,
    is_power_of_two,
)
from qonnx_hub_ir.semantics import quantize

_BESIDE = 4
"""Floats looked at on each side of a threshold."""

_MOST_CODES = 1 << 17
"""Largest number of codes whose thresholds are gone through one by one."""

LARGEST_SNAPPED = 1 << 21
"""Largest code that survives a product with the scale and the division by it: both round by
half a unit in the last place, which for whole numbers below 2^22 stays below one half."""


@dataclass(frozen=True, slots=True, eq=False)
class Affine(Comparable):
    """One quantizer in torch's terms.

    Attributes:
        scale: float32, above zero; a scalar, or shaped so that it broadcasts to the input.
        inverse: What torch multiplies with: ``1 / scale``, rounded to float32.
        zero_point: Whole numbers, float64, shaped like scale or a scalar.
        low: Lowest integer code.
        high: Highest integer code.
    """

    scale: Array
    inverse: Array
    zero_point: Array
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class LimitedQuant:
    """A ``Quant`` node that stands for an affine quantizer on its own grid.

    Attributes:
        quant: The node's quantizer.
        limits: (lowest, highest) value, float32, where no bit width has exactly this range.
    """

    quant: IntQuant
    limits: tuple[Array, Array] | None = None


def codes(x: Array, affine: Affine) -> Array:
    """Return the integer codes that torch gives to float32 values, as float64."""
    with np.errstate(all="ignore"):
        rounded = np.rint(x * affine.inverse).astype(np.float64)
    return np.asarray(np.clip(rounded + affine.zero_point, affine.low, affine.high))


def values(code: Array, affine: Affine) -> Array:
    """Return the float32 values of codes."""
    return np.asarray((code - affine.zero_point).astype(np.float32) * affine.scale)


def quant_of(affine: Affine) -> LimitedQuant:
    """Return the ``Quant`` node with the same levels, without a zero point if possible.

    Codes are shifted where that gives a range with zero at its zero point: uint8 with zero
    point 128 are the levels of int8 with zero point 0.
    """
    zero = np.unique(affine.zero_point)
    shift = int(zero[0]) if zero.size == 1 else 0
    point = np.zeros((), dtype=np.float32)
    bounds = bits_of_bounds(affine.low - shift, affine.high - shift)
    if zero.size > 1 or bounds is None:
        point = np.asarray(affine.zero_point, dtype=np.float32)
        bounds = bits_of_bounds(affine.low, affine.high)
    ends = np.array([affine.low, affine.high], dtype=np.float64)
    limits = None if bounds else (values(ends[0], affine), values(ends[1], affine))
    return _limited(affine.scale, point, (affine.low, affine.high), bounds, limits)


def integer_quant_of(affine: Affine) -> LimitedQuant:
    """Return the ``Quant`` node for ``round(x / s)``, with its limits: no zero point is added.

    ``clip(t + z, low, high) - z`` is ``clip(t, low - z, high - z)`` on integers.
    """
    lowest, highest = affine.low - affine.zero_point, affine.high - affine.zero_point
    low, high = int(lowest.min()), int(highest.max())
    bounds = bits_of_bounds(low, high) if lowest.size == 1 else None
    limits = None if bounds else (lowest.astype(np.float32), highest.astype(np.float32))
    one, zero = np.ones((), dtype=np.float32), np.zeros((), dtype=np.float32)
    return _limited(one, zero, (low, high), bounds, limits)


def _limited(
    scale: Array,
    zero_point: Array,
    ends: tuple[int, int],
    bounds: tuple[int, bool, bool] | None,
    limits: tuple[Array, Array] | None,
) -> LimitedQuant:
    """Return a quantizer with these bounds; where no bit width has them, of the next wider."""
    bits, signed, narrow = bounds or (*bits_of_range(*ends, least_signed=2), False)
    width = np.array(bits, dtype=np.float32)
    return LimitedQuant(IntQuant(scale, zero_point, width, signed, narrow), limits)


def is_same(affine: Affine, limited: LimitedQuant) -> bool:
    """Return whether the ``Quant`` node is proven to compute what torch does.

    For a scale that is a power of two, without a zero point, both compute the same product.
    Otherwise both sides are staircases that never fall (products, quotients and sums with a
    constant keep order when rounded, and so does rounding), so that they are the same function
    if they step at the same floats: every threshold is looked at, with the floats around it.
    Not proven is what steps elsewhere, and what has too many steps.
    """
    point = limited.quant.zero_point
    if point is None:
        raise ValueError("the zero point is not known")
    if not np.any(point) and is_power_of_two(affine.scale):
        return bool(np.all(affine.scale * affine.inverse == 1))
    if affine.high - affine.low > _MOST_CODES:
        return False
    arrays = np.broadcast_arrays(affine.scale, affine.inverse, affine.zero_point, point)
    channels = zip(*(array.reshape(-1) for array in arrays), strict=True)
    return all(
        _same_steps(
            Affine(np.asarray(s), np.asarray(i), np.asarray(z), affine.low, affine.high),
            dataclasses.replace(limited.quant, scale=np.asarray(s), zero_point=np.asarray(p)),
        )
        for s, i, z, p in channels
    )


def _same_steps(affine: Affine, quant: IntQuant) -> bool:
    """Return whether one channel steps at the same floats."""
    below = np.arange(affine.low, affine.high, dtype=np.float64)
    middle = (below + 0.5 - float(affine.zero_point)) * float(affine.scale)
    down, up = [middle.astype(np.float32)], [middle.astype(np.float32)]
    for _ in range(_BESIDE):
        down.append(np.nextafter(down[-1], np.float32(-np.inf)))
        up.append(np.nextafter(up[-1], np.float32(np.inf)))
    around = np.stack([*down[:0:-1], *up])
    if not np.all(np.isfinite(around)):
        return False
    mine = codes(around, affine)
    lowest, highest = values(np.array([affine.low, affine.high], dtype=np.float64), affine)
    theirs = np.clip(quantize(around, quant), lowest, highest)
    crossed = np.all(mine[0] == below) and np.all(mine[-1] == below + 1)
    return bool(crossed and np.array_equal(theirs, values(mine, affine)))
