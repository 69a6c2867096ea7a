"""What is known about one tensor: its range, its grid, and its values if it is constant."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qonnx_hub_ir.analysis.grids import (
    LARGEST_INTEGER,
    ZERO,
    Grid,
    IntegerType,
    common_scale_along,
    lowest_bit,
    refined,
    whole_numbers,
)
from qonnx_hub_ir.analysis.integer_sums import largest_magnitude
from qonnx_hub_ir.graph.constants import full_rank
from qonnx_hub_ir.quantizers import Array, bits_of_range, integer_bounds

Shape = tuple[int | None, ...] | None
"""Sizes of a tensor, ``None`` for a size or a rank that is not known."""

_PLAIN_BITS = 16
"""Constants without a quantizer are taken as integers on a grid up to this width."""


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A tensor that is known without running.

    Attributes:
        values: Its values.
        integers: int64, in the shape of the values: ``values = integers * scale``, where they
            lie on a grid.
        scale: float64, broadcasts to the values.
        exact: Whether that equation holds to the bit, and not but for float rounding.
        declared: The type that a quantizer gave the integers.
    """

    values: Array
    integers: Array | None = None
    scale: Array | None = None
    exact: bool = True
    declared: IntegerType | None = None

    def mapped(self, move: Callable[[Array], Array]) -> Constant:
        """Return the constant with its elements moved."""
        integers, scale = self.integers, self.scale
        if scale is not None:
            spread = np.broadcast_to(scale, self.values.shape)
            scale = scale.reshape(()) if scale.size == 1 else np.asarray(move(spread))
        if integers is not None:
            integers = np.asarray(move(integers))
        values = np.asarray(move(self.values))
        return replace(self, values=values, integers=integers, scale=scale)


@dataclass(frozen=True, slots=True, eq=False)
class ValueInfo:
    """What is known about a tensor.

    Arrays have one element, where all elements of the tensor share it, or are shaped to
    broadcast to the tensor with one axis longer than 1, that of the channels. Everything holds
    as long as no value is NaN.

    Attributes:
        low: Lowest value, float64; minus infinity where none is known.
        high: Highest value, float64.
        grid: The integers behind the values, where they lie on a grid.
        constant: The values, where they are known without running.
    """

    low: Array
    high: Array
    grid: Grid | None = None
    constant: Constant | None = None

    @property
    def is_bounded(self) -> bool:
        """Whether both ends are finite."""
        return bool(np.all(np.isfinite(self.low)) and np.all(np.isfinite(self.high)))

    @property
    def magnitude(self) -> Array:
        """The largest magnitude, float64."""
        return largest_magnitude(self.low, self.high)

    def mapped(self, move: Callable[[Array], Array]) -> ValueInfo:
        """Return the same with every array of several elements moved, and no constant."""
        low, high = (
            np.asarray(move(end)) if end.size > 1 else end for end in (self.low, self.high)
        )
        return ValueInfo(low, high, None if self.grid is None else self.grid.mapped(move))

    @property
    def scale(self) -> Array | None:
        """Step of the grid, ``None`` without one."""
        return None if self.grid is None else self.grid.scale

    @property
    def offset(self) -> Array | None:
        """Value of integer 0, ``None`` without a grid."""
        return None if self.grid is None else self.grid.offset

    @property
    def integer_low(self) -> Array | None:
        """Lowest integer, int64, ``None`` without a grid."""
        return None if self.grid is None else self.grid.low

    @property
    def integer_high(self) -> Array | None:
        """Highest integer, int64, ``None`` without a grid."""
        return None if self.grid is None else self.grid.high

    @property
    def bits(self) -> int | None:
        """Bits that the integers need, ``None`` without a grid."""
        return None if self.grid is None else self.grid.needed.bits

    @property
    def signed(self) -> bool | None:
        """Whether the integers go below zero, ``None`` without a grid."""
        return None if self.grid is None else self.grid.needed.signed

    @property
    def datatype(self) -> IntegerType | None:
        """The type that a quantizer gave the integers, else the narrowest that holds them."""
        if self.grid is None:
            return None
        return self.grid.declared or self.grid.needed

    @property
    def channel_axis(self) -> int | None:
        """The axis along which something differs, ``None`` where nothing does."""
        arrays = [self.low, self.high]
        if self.grid is not None:
            arrays += [self.grid.scale, self.grid.offset, self.grid.low, self.grid.high]
        found = [axis for a in arrays for axis, size in enumerate(a.shape) if size > 1]
        return found[0] if found else None

    def fixed_point(self) -> tuple[int, int, bool] | None:
        """Return the narrowest fixed-point type that holds every value exactly.

        Returns:
            (width, integer bits including a sign, signed) as in ``ap_fixed<W, I>`` and
            ``ap_ufixed<W, I>``, or ``None`` where the values lie on no exact binary grid of
            at most 64 bits.
        """
        grid = self.grid
        if grid is None or not grid.exact:
            return None
        unit = float(min(lowest_bit(grid.scale).min(), lowest_bit(grid.offset).min()))
        low, high = (float(end) for end in (grid.ends()[0].min(), grid.ends()[1].max()))
        if max(-low, high) / unit >= 2.0**63:
            return None
        bits, signed = bits_of_range(int(low / unit), int(high / unit))
        return bits, bits + int(math.log2(unit)), signed


def unbounded() -> ValueInfo:
    """Return that nothing is known."""
    return between(-math.inf, math.inf)


def between(low: float | Array, high: float | Array, grid: Grid | None = None) -> ValueInfo:
    """Return the range between two ends, without normalizing the arrays' shapes."""
    return ValueInfo(
        np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64), grid
    )


def on_grid(grid: Grid) -> ValueInfo:
    """Return what is known about values on an exact grid."""
    low, high = grid.ends()
    return ValueInfo(np.asarray(low), np.asarray(high), grid)


def of_integers(low: float, high: float, declared: IntegerType | None = None) -> ValueInfo:
    """Return what is known about whole numbers in a range."""
    if max(-low, high) >= LARGEST_INTEGER:
        return between(low, high)
    ends = (np.array(int(low), dtype=np.int64), np.array(int(high), dtype=np.int64))
    return on_grid(whole_numbers(*ends, declared))


def of_type(datatype: IntegerType) -> ValueInfo:
    """Return what is known about whole numbers of a type."""
    if datatype.bipolar:
        return of_integers(-1, 1, datatype)
    bounds = integer_bounds(datatype.bits, signed=datatype.signed, narrow=False)
    return of_integers(*bounds, datatype)


def of_constant(constant: Constant) -> ValueInfo:
    """Return what is known about a constant, channel by channel where one axis is enough."""
    values, grid = constant.values, None
    is_number = values.size > 0 and values.dtype.kind in "iuf"
    if not is_number or not bool(np.all(np.isfinite(values))):
        return replace(unbounded(), constant=constant)
    wide = values.astype(np.float64)
    if constant.integers is None:
        constant = _with_plain_grid(constant)
    if constant.integers is not None and constant.scale is not None:
        ends = (constant.integers, constant.integers)
        grid = Grid(constant.scale, ZERO, *ends, constant.exact, constant.declared)
    return settled(ValueInfo(wide, wide, grid, constant), values.shape)


def _with_plain_grid(constant: Constant) -> Constant:
    """Return the constant with the binary grid on which few-bit numbers visibly lie."""
    wide = constant.values.astype(np.float64)
    unit = float(lowest_bit(wide).min())
    if math.isinf(unit):
        unit = 1.0
    integers = wide / unit
    if np.abs(integers).max() >= 2.0 ** (_PLAIN_BITS - 1):
        return constant
    scale = np.array(unit, dtype=np.float64)
    return replace(constant, integers=integers.astype(np.int64), scale=scale)


def settled(info: ValueInfo, shape: Shape) -> ValueInfo:
    """Return the same with arrays of one element or one channel axis.

    Args:
        info: Arrays that broadcast to the tensor.
        shape: The tensor's shape; where the rank is not known, nothing stays per channel.
    """
    ends, steps = [info.low, info.high], []
    if info.grid is not None:
        ends += [info.grid.low, info.grid.high]
        steps = [info.grid.scale, info.grid.offset]
    if not any(array.ndim for array in (*ends, *steps)):
        return info
    axis, rank = None, max(array.ndim for array in (*ends, *steps))
    if shape is not None:
        rank = len(shape)
        # Steps that differ have to stay apart, or there is no grid any more.
        axis = _channel_axis(steps, rank)
        axis = _channel_axis(ends, rank) if axis is None else axis
    grid = None if info.grid is None else _settled_grid(info.grid, rank, axis)
    low, high = _reduced(info.low, rank, axis, np.min), _reduced(info.high, rank, axis, np.max)
    low, high = np.broadcast_arrays(low, high)
    return ValueInfo(low, high, grid, info.constant)


def _channel_axis(arrays: Sequence[Array], rank: int) -> int | None:
    """Return the axis that stays: the second where it differs, else the last that does."""
    longer = {
        axis + rank - a.ndim for a in arrays for axis, size in enumerate(a.shape) if size > 1
    }
    longer = {axis for axis in longer if axis >= 0}
    if not longer:
        return None
    return 1 if 1 in longer and rank > 2 else max(longer)


def _other_axes(array: Array, axis: int | None) -> tuple[int, ...]:
    return tuple(k for k in range(array.ndim) if k != axis and array.shape[k] > 1)


def _reduced(array: Array, rank: int, axis: int | None, how: Callable[..., Array]) -> Array:
    lined = full_rank(array, rank)
    lined = np.asarray(how(lined, axis=_other_axes(lined, axis), keepdims=True))
    return lined.reshape(()) if lined.size == 1 else lined


def _settled_grid(grid: Grid, rank: int, axis: int | None) -> Grid | None:
    scale = full_rank(grid.scale, rank)
    common = common_scale_along(scale, _other_axes(scale, axis))
    finer = None if common is None else refined(grid, common)
    offset = _reduced(grid.offset, rank, axis, np.min)
    if common is None or finer is None:
        return None
    if bool(np.any(offset != _reduced(grid.offset, rank, axis, np.max))):
        return None
    low, high = np.broadcast_arrays(
        _reduced(finer.low, rank, axis, np.min), _reduced(finer.high, rank, axis, np.max)
    )
    scale = _reduced(common, rank, axis, np.min)
    return replace(finer, scale=scale, offset=offset, low=low, high=high)


def axis_shape(axis: int, rank: int, size: int = -1) -> tuple[int, ...]:
    """Return the shape of an array with several elements along one axis only."""
    return tuple(size if k == axis else 1 for k in range(rank))


def channels_on(info: ValueInfo, axis: int) -> ValueInfo:
    """Return the same per channel of this axis, or without channels if another one differs."""
    return info if info.channel_axis in (None, axis) else collapsed(info)


def collapsed(info: ValueInfo) -> ValueInfo:
    """Return the same without channels."""
    return settled(replace(info, constant=None), None)
