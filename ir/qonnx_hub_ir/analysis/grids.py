"""Grids: values that are whole numbers times a scale, and what arithmetic makes of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from qonnx_hub_ir.analysis.integer_sums import largest_magnitude, odd_part
from qonnx_hub_ir.quantizers import Array, bits_of_range

LARGEST_INTEGER = 2.0**62
"""Integers of this magnitude and beyond are not followed: their sums would not fit int64."""

_LARGEST_RATIO = 1 << 16
"""Two scales have a common one only if each is at most this many times as large."""

_FLOATS = {
    "float16": (11, -14, 15),
    "bfloat16": (8, -126, 127),
    "float32": (24, -126, 127),
    "float64": (53, -1022, 1023),
}
"""Float type -> digits of its significand, smallest and largest exponent of normal numbers."""


@dataclass(frozen=True, slots=True)
class IntegerType:
    """A datatype of integers.

    Attributes:
        bits: Bit width.
        signed: Whether it is two's complement.
        bipolar: Whether its one bit stands for -1 and +1.
    """

    bits: int
    signed: bool
    bipolar: bool = False

    def __str__(self) -> str:
        """Return the name that the QONNX tools use."""
        if self.bipolar:
            return "BIPOLAR"
        return f"{'INT' if self.signed else 'UINT'}{self.bits}"


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """``value = integer * scale + offset``, for integers in a range.

    All arrays have one element or are shaped to broadcast to the tensor, with one axis longer
    than 1: that of the channels.

    Attributes:
        scale: Step, float64, positive.
        offset: Value of integer 0, float64.
        low: Lowest integer, int64.
        high: Highest integer, int64.
        exact: Whether the tensor's floats are these numbers to the bit; if not, they are these
            numbers but for the rounding of float arithmetic.
        declared: The type that a quantizer gave the integers, where one did and nothing has
            changed them since.
    """

    scale: Array
    offset: Array
    low: Array
    high: Array
    exact: bool
    declared: IntegerType | None = None

    @property
    def needed(self) -> IntegerType:
        """The narrowest type that holds all integers."""
        if self.declared is not None and self.declared.bipolar:
            return self.declared
        return IntegerType(*bits_of_range(int(self.low.min()), int(self.high.max())))

    @property
    def has_offset(self) -> bool:
        """Whether integer 0 stands for another value than 0."""
        return bool(np.any(self.offset != 0))

    @property
    def magnitude(self) -> Array:
        """The largest magnitude of the integers, int64."""
        return largest_magnitude(self.low, self.high)

    def mapped(self, move: Callable[[Array], Array]) -> Grid:
        """Return the grid with every array of several elements moved."""
        scale, offset, low, high = (
            np.asarray(move(array)) if array.size > 1 else array
            for array in (self.scale, self.offset, self.low, self.high)
        )
        return replace(self, scale=scale, offset=offset, low=low, high=high)

    def held_by(self, dtype: np.dtype[np.generic]) -> Grid:
        """Return the grid, exact only if a float type holds each of its values."""
        reach = self.magnitude * self.scale + np.abs(self.offset)
        if not self.exact or holds(dtype, reach, self.scale, self.offset):
            return self
        return replace(self, exact=False)

    def ends(self) -> tuple[Array, Array]:
        """Return the lowest and the highest value, float64; exact where the grid is."""
        return self.low * self.scale + self.offset, self.high * self.scale + self.offset


ONE, ZERO = np.ones((), dtype=np.float64), np.zeros((), dtype=np.float64)
"""Scale and offset of whole numbers."""


def whole_numbers(low: Array, high: Array, declared: IntegerType | None = None) -> Grid:
    """Return the grid of whole numbers between two, given in any type."""
    return Grid(ONE, ZERO, low.astype(np.int64), high.astype(np.int64), True, declared)


def lowest_bit(values: Array) -> Array:
    """Return the power of two of the last bit of each float, infinity for zero."""
    array = np.asarray(values, dtype=np.float64)
    odd = odd_part(np.abs(array))
    with np.errstate(all="ignore"):
        return np.where(array == 0, np.inf, np.abs(array) / np.where(odd == 0, 1, odd))


def digits_of(dtype: np.dtype[np.generic]) -> int:
    """Return the digits of a float type's significand; 0 for other types."""
    return _FLOATS[dtype.name][0] if dtype.name in _FLOATS else 0


def largest_of(dtype: np.dtype[np.generic]) -> float:
    """Return a magnitude that a float type holds, and below which nothing overflows."""
    return float(2.0 ** _FLOATS[dtype.name][2])


def holds(dtype: np.dtype[np.generic], magnitude: Array, *parts: Array) -> bool:
    """Return whether a float type holds every sum of multiples of ``parts`` exactly.

    Args:
        dtype: The float type.
        magnitude: Bound of the magnitude of all sums, partial ones included.
        *parts: The numbers of which all terms are whole multiples.
    """
    if dtype.name not in _FLOATS:
        return False
    digits, smallest, largest = (2.0**power for power in _FLOATS[dtype.name])
    unit = functools.reduce(np.minimum, [lowest_bit(part) for part in parts])
    with np.errstate(all="ignore"):
        fits = (magnitude <= unit * digits) & (magnitude < largest) & (unit >= smallest)
    return bool(np.all(fits))


def product_is_exact(a: Array, b: Array) -> bool:
    """Return whether float64 multiplies these without rounding."""
    return bool(np.all(odd_part(np.abs(a)) * odd_part(np.abs(b)) < 2.0**53))


def common_scale_along(scales: Array, axes: tuple[int, ...]) -> Array | None:
    """Return the largest number of which all scales along some axes are whole multiples.

    Args:
        scales: Positive, float64.
        axes: The axes; they stay with length 1.

    Returns:
        float64, or ``None`` where the scales have no common one that is worth having.
    """
    if not bool(np.all(np.isfinite(scales))):
        return None
    kept = tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(scales.ndim))
    first = scales[kept]
    if bool(np.all(scales == first)):
        return np.asarray(first, dtype=np.float64)
    smallest = scales.min(axis=axes, keepdims=True)
    ratio = scales / smallest
    whole = np.rint(ratio)
    multiples = (ratio == whole) & (whole * smallest == scales) & (whole <= _LARGEST_RATIO)
    if np.all(multiples) and product_is_exact(whole, smallest):
        return np.asarray(smallest, dtype=np.float64)
    columns = np.moveaxis(scales, axes, range(len(axes))).reshape(-1, first.size)
    different, places = np.unique(columns, axis=1, return_inverse=True)
    found = [_common_divisor(np.unique(column)) for column in different.T]
    if any(number is None for number in found):
        return None
    return np.array(found, dtype=np.float64)[places.reshape(-1)].reshape(first.shape)


def _common_divisor(scales: Array) -> float | None:
    fractions = [Fraction(float(s)) for s in scales]
    bottom = math.lcm(*(f.denominator for f in fractions))
    tops = [int(f * bottom) for f in fractions]
    unit = Fraction(math.gcd(*tops), bottom)
    if max(fractions) / unit > _LARGEST_RATIO or Fraction(float(unit)) != unit:
        return None
    return float(unit)


def refined(grid: Grid, scale: Array) -> Grid | None:
    """Return the same values on a finer scale, of which the grid's own is a multiple."""
    ratio = np.rint(grid.scale / scale)
    if not in_reach(ratio * grid.magnitude):
        return None
    whole = ratio.astype(np.int64)
    same = bool(np.all(whole == 1))
    return replace(
        grid,
        scale=np.broadcast_to(scale, np.broadcast_shapes(scale.shape, grid.scale.shape)),
        low=grid.low * whole,
        high=grid.high * whole,
        declared=grid.declared if same else None,
    )


def in_reach(magnitude: Array) -> bool:
    """Return whether integers of this magnitude, given as floats, are followed."""
    return bool(np.all(np.asarray(magnitude, dtype=np.float64) < LARGEST_INTEGER))


def on_common_scale(a: Grid, b: Grid) -> tuple[Grid, Grid] | None:
    """Return the values of both on one scale; ``None`` where that is not worth having."""
    scales = np.stack(np.broadcast_arrays(a.scale, b.scale))
    found = common_scale_along(scales, (0,))
    if found is None:
        return None
    first, second = (refined(grid, np.asarray(found[0])) for grid in (a, b))
    return None if first is None or second is None else (first, second)


def hull(a: Grid | None, b: Grid | None) -> Grid | None:
    """Return the grid on which both lie, with all integers of both."""
    if a is None or b is None or not bool(np.all(a.offset == b.offset)):
        return None
    pair = on_common_scale(a, b)
    if pair is None:
        return None
    first, second = pair
    return replace(
        first,
        offset=np.asarray(a.offset + 0 * b.offset, dtype=np.float64),
        low=np.minimum(first.low, second.low),
        high=np.maximum(first.high, second.high),
        exact=a.exact and b.exact,
        declared=first.declared if first.declared == second.declared else None,
    )


def whole_multiples(values: Array, scale: Array) -> Array | None:
    """Return the int64 ``n`` of ``values = n * scale``; ``None`` unless that is exact.

    Args:
        values: float64.
        scale: float64, positive, broadcasts to the values.
    """
    integers = np.rint(values / scale)
    if not in_reach(np.abs(integers)) or not bool(
        np.all(integers * scale == values) and product_is_exact(integers, scale)
    ):
        return None
    return np.asarray(integers.astype(np.int64))
