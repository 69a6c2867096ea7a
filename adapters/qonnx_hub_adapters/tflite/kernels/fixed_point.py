"""The fixed-point multiplier of TFLite's reference kernels, and what rounds with it.

A real factor becomes ``multiplier * 2**(exponent - 31)``. :func:`rescale` rounds twice, the
first time halves up and the second time halves away from zero; :func:`rescale_wide`, for sums
of 16-bit codes, rounds once with a factor of 15 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qonnx_hub_ir.quantizers import Array


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """A real factor as the kernels hold it.

    Attributes:
        multiplier: int64, 31 bits and a sign.
        exponent: int64; positive shifts left, before the multiplication.
    """

    multiplier: Array
    exponent: Array

    @property
    def left(self) -> Array:
        """By how much a number is shifted left first."""
        return np.maximum(self.exponent, 0)

    @property
    def right(self) -> Array:
        """By how much a product is shifted right last."""
        return np.maximum(-self.exponent, 0)


def round_away(x: Any) -> Array:
    """Return the nearest integers as float64; halves go away from zero.

    Example:
        >>> round_away([0.5, -0.5, 1.4])
        array([ 1., -1.,  1.])
    """
    values = np.asarray(x, dtype=np.float64)
    whole = np.trunc(values)
    return whole + np.where(np.abs(values - whole) >= 0.5, np.sign(values), 0.0)


def factor(real: Any) -> Factor:
    """Return real factors as fixed-point numbers.

    Args:
        real: float64, of any shape.

    Example:
        >>> factor(0.5)
        Factor(multiplier=array(1073741824), exponent=array(0))
    """
    mantissa, exponent = np.frexp(np.asarray(real, dtype=np.float64))
    multiplier = round_away(mantissa * 2.0**31).astype(np.int64)
    exponent = exponent.astype(np.int64)
    full = np.abs(multiplier) == 2**31
    multiplier, exponent = np.where(full, multiplier // 2, multiplier), exponent + full
    tiny, huge = exponent < -31, exponent > 30
    multiplier = np.where(tiny, 0, np.where(huge, 2**31 - 1, multiplier))
    return Factor(multiplier, np.where(tiny, 0, np.where(huge, 30, exponent)))


def high_product(a: Any, b: Any, bits: int = 32) -> Array:
    """Return the upper half of the doubled product, halves rounded up; saturated.

    Args:
        a: int64 holding numbers of so many bits.
        b: Likewise.
        bits: 16 or 32.
    """
    half = np.int64(1) << (bits - 2)
    product = (np.asarray(a, dtype=np.int64) * np.asarray(b, dtype=np.int64) + half) >> (
        bits - 1
    )
    return np.asarray(np.minimum(product, 2 ** (bits - 1) - 1))


def shift_right(x: Any, by: Any) -> Array:
    """Return ``x / 2**by``, rounded, halves away from zero."""
    values, shift = np.asarray(x, dtype=np.int64), np.asarray(by, dtype=np.int64)
    half = np.where(shift > 0, np.left_shift(np.int64(1), np.maximum(shift - 1, 0)), 0)
    return (values + half - ((values < 0) & (shift > 0))) >> shift


def rescale(x: Any, by: Factor) -> Array:
    """Return 32-bit numbers times factors, rounded twice, as int64."""
    shifted = wrap(np.asarray(x, dtype=np.int64) << by.left)
    return shift_right(high_product(shifted, by.multiplier), by.right)


def rescale_wide(x: Any, by: Factor) -> Array:
    """Return 64-bit sums times factors of 15 bits, rounded once, as int64."""
    short = np.where(by.multiplier < 0x7FFF0000, (by.multiplier + 2**15) >> 16, 0x7FFF)
    shift = 15 - by.exponent
    values = np.asarray(x, dtype=np.int64)
    rounded = values * short + np.left_shift(np.int64(1), np.maximum(shift - 1, 0))
    return wrap(rounded >> shift)


def wrap(x: Array) -> Array:
    """Return integers as 32 bits hold them, as int64."""
    return x.astype(np.int32).astype(np.int64)
