"""How far integers can go: ranges of sums of products, and which floats hold them exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qonnx_hub_ir.quantizers import Array

INT32 = (-(1 << 31), (1 << 31) - 1)
"""Range of the accumulators of integer products."""

FLOAT32_WHOLE = 1 << 24
"""Largest magnitude up to which float32 holds every whole number."""

_PAIR_SUM = 32767
"""What two products of bytes may add up to where they are summed in signed 16 bits."""


@dataclass(frozen=True, slots=True)
class SumRange:
    """What sums of products can reach, per output channel.

    Attributes:
        low: Lowest sum, int64 of shape (C,).
        high: Highest sum, likewise.
        magnitude: Largest sum of the magnitudes of all terms, likewise: no partial sum, in any
            order, goes beyond it.
    """

    low: Array
    high: Array
    magnitude: Array


def largest_magnitude(low: int | Array, high: int | Array) -> Array:
    """Return the largest magnitude between two ends."""
    return np.asarray(np.maximum(np.abs(low), np.abs(high)))


def sum_range(weights: Array, low: int | Array, high: int | Array) -> SumRange:
    """Return the range of ``sum(w * x)`` per channel, over all ``x`` from low to high.

    Args:
        weights: Integers of shape (C, terms); floats give sums in float64.
        low: Lowest value of each ``x``, one for all or broadcasting to the weights.
        high: Highest value of each ``x``, likewise.
    """
    total = np.float64 if weights.dtype.kind == "f" else np.int64
    positive, negative = np.maximum(weights, 0), np.minimum(weights, 0)
    reach = largest_magnitude(low, high)
    if np.ndim(low) == 0 and np.ndim(high) == 0:
        above = positive.sum(axis=1, dtype=total)
        below = negative.sum(axis=1, dtype=total)
        return SumRange(
            above * low + below * high,
            above * high + below * low,
            (above - below) * reach,
        )
    return SumRange(
        (positive * low + negative * high).sum(axis=1, dtype=total),
        (positive * high + negative * low).sum(axis=1, dtype=total),
        ((positive - negative) * reach).sum(axis=1, dtype=total),
    )


def odd_part(scales: Array) -> Array:
    """Return the odd whole number in each scale: ``scale = odd * 2 ** k``, as float64.

    It is 1 for powers of two. A product of integers and scales is exact in float32 as long as
    the product of the integers and the odd parts does not exceed 2^24, and none underflows.
    """
    mantissa, _ = np.frexp(np.asarray(scales, dtype=np.float64))
    whole = np.asarray(mantissa * 2.0**53, dtype=np.float64).astype(np.int64)
    lowest_bit = whole & -whole
    return np.asarray(whole // np.maximum(lowest_bit, 1), dtype=np.float64)


def saturates_in_16_bits(activation: int, weight: int) -> bool:
    """Return whether two products of these magnitudes can overflow 16 bits when added.

    Processors without dot-product instructions (x86 before VNNI) multiply unsigned by signed
    bytes and add neighbours in saturating 16-bit integers.
    """
    return 2 * activation * weight > _PAIR_SUM


def largest_safe_weight(activation: int) -> int:
    """Return the largest weight that cannot overflow 16 bits with such activations."""
    return _PAIR_SUM // (2 * max(activation, 1))
