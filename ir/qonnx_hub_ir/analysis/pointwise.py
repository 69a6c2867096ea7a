"""What operators that treat every element by itself make of ranges and grids.

Add, Sub, Mul and Div are rounded correctly and keep order in each input, so that the float
answers on the ends are the range, with no margin.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from qonnx_hub_ir.analysis.float_error import sum_error
from qonnx_hub_ir.analysis.grids import (
    ZERO,
    Grid,
    holds,
    hull,
    in_reach,
    on_common_scale,
    product_is_exact,
    whole_multiples,
    whole_numbers,
)
from qonnx_hub_ir.analysis.integer_sums import largest_magnitude
from qonnx_hub_ir.analysis.rule_context import (
    NodeInfo,
    RuleTable,
    rounded_outward,
    widened,
    within_grid,
    without_nan,
)
from qonnx_hub_ir.analysis.value_info import Constant, ValueInfo, between, of_constant
from qonnx_hub_ir.quantizers import Array, is_power_of_two

_TOP = np.array(np.inf, dtype=np.float64)

Corners = Callable[[Array, Array], Array]


def _corner_range(site: NodeInfo, how: Corners, a: ValueInfo, b: ValueInfo) -> ValueInfo:
    """Return the range of a correctly rounded operation that keeps order in each input."""
    ends_a = rounded_outward(a.low, a.high, site.float_type)
    ends_b = rounded_outward(b.low, b.high, site.float_type)
    # Infinity minus infinity, zero times infinity are NaN.
    return between(*without_nan(*_extent(how, ends_a, ends_b)))


def _extent(
    how: Corners, a: tuple[Array, Array], b: tuple[Array, Array]
) -> tuple[Array, Array]:
    """Return the lowest and the highest of all combinations of ends; NaN if one is NaN."""
    corners = [how(x, y) for x, y in itertools.product(a, b)]
    low, high = functools.reduce(np.minimum, corners), functools.reduce(np.maximum, corners)
    return np.asarray(low), np.asarray(high)


def _point(info: ValueInfo) -> Array | None:
    """Return the one value of each channel, ``None`` where there is a range."""
    same = bool(np.all(info.low == info.high)) and info.is_bounded
    return info.low if same else None


def negated(info: ValueInfo) -> ValueInfo:
    """Return what is known about the negative values."""
    grid = info.grid
    if grid is not None:
        keeps = grid.declared if grid.declared and grid.declared.bipolar else None
        grid = Grid(grid.scale, -grid.offset, -grid.high, -grid.low, grid.exact, keeps)
    return between(-info.high, -info.low, grid)


def added(site: NodeInfo, a: ValueInfo, b: ValueInfo) -> ValueInfo:
    """Return what is known about a sum."""
    found = _corner_range(site, np.add, a, b)
    return within_grid(replace(found, grid=_sum_grid(site, a, b)))


def _grid_and_number(a: ValueInfo, b: ValueInfo) -> tuple[Grid, Array] | None:
    """Return the grid of one value and the number that the other one is, if it is one."""
    for x, y in ((a, b), (b, a)):
        number = _point(y)
        if x.grid is not None and number is not None:
            return x.grid, number
    return None


def _sum_grid(site: NodeInfo, a: ValueInfo, b: ValueInfo) -> Grid | None:
    moved = _grid_and_number(a, b)
    if moved is not None:
        return shifted_grid(site, *moved)
    pair = None if a.grid is None or b.grid is None else on_common_scale(a.grid, b.grid)
    if pair is None:
        return None
    first, second = pair
    low, high = first.low + second.low, first.high + second.high
    offset = np.asarray(first.offset + second.offset, dtype=np.float64)
    if not in_reach(largest_magnitude(low, high)):
        return None
    exact = first.exact and second.exact and not bool(np.any(offset != 0))
    return Grid(first.scale, offset, low, high, exact).held_by(site.float_type)


def shifted_grid(site: NodeInfo, grid: Grid, number: Array) -> Grid | None:
    """Return the grid moved by a constant: in integers where it is a multiple of the step."""
    steps = whole_multiples(number, grid.scale)
    if steps is None:
        offset = np.asarray(grid.offset + number)
        clean = bool(
            np.all((offset - grid.offset == number) & (offset - number == grid.offset))
        )
        moved = replace(grid, offset=offset, exact=clean and grid.exact, declared=None)
        return moved.held_by(site.float_type)
    if not bool(np.any(steps != 0)):
        return grid
    moved = replace(grid, low=grid.low + steps, high=grid.high + steps, declared=None)
    return moved.held_by(site.float_type)


def multiplied(site: NodeInfo, a: ValueInfo, b: ValueInfo) -> ValueInfo:
    """Return what is known about a product."""
    found = _corner_range(site, np.multiply, a, b)
    factor = _grid_and_number(a, b)
    if factor is None:
        grid = _product_grid(site, a.grid, b.grid)
    else:
        grid = scaled_grid(site, *factor)
    return within_grid(replace(found, grid=grid))


def scaled_grid(site: NodeInfo, grid: Grid, number: Array) -> Grid | None:
    """Return the grid of values times a constant."""
    size, sign = np.abs(number), np.sign(number).astype(np.int64)
    factor = np.where(size == 0, 1.0, size)
    scale, offset = np.asarray(grid.scale * factor), np.asarray(grid.offset * number)
    if not bool(np.all(np.isfinite(scale) & (scale > 0))):
        return None
    ends = (grid.low * sign, grid.high * sign)
    low, high = np.minimum(*ends), np.maximum(*ends)
    clean = product_is_exact(grid.scale, factor) and product_is_exact(grid.offset, number)
    keeps = grid.declared
    if keeps is not None and bool(np.any(sign == 0 if keeps.bipolar else sign <= 0)):
        keeps = None
    found = Grid(scale, offset, low, high, grid.exact and clean, keeps)
    return found.held_by(site.float_type)


def _product_grid(site: NodeInfo, a: Grid | None, b: Grid | None) -> Grid | None:
    if a is None or b is None or a.has_offset or b.has_offset:
        return None
    if not in_reach(a.magnitude.astype(np.float64) * b.magnitude):
        return None
    ends = _extent(np.multiply, (a.low, a.high), (b.low, b.high))
    exact = a.exact and b.exact and product_is_exact(a.scale, b.scale)
    return Grid(np.asarray(a.scale * b.scale), ZERO, *ends, exact).held_by(site.float_type)


def _arithmetic(
    site: NodeInfo,
    of_floats: Callable[[NodeInfo, ValueInfo, ValueInfo], ValueInfo],
    how: Corners,
) -> ValueInfo | None:
    """Return the range of a sum or product; of integers only where nothing can wrap."""
    a, b = site.info(0), site.info(1)
    if site.is_float:
        return of_floats(site, a, b)
    bounded = a.is_bounded and b.is_bounded
    if site.dtype is None or site.dtype.kind not in "iu" or not bounded:
        return None
    low, high = _extent(how, (a.low, a.high), (b.low, b.high))
    limits = np.iinfo(site.dtype)
    if np.any(low < max(limits.min, -(2**52))) or np.any(high > min(limits.max, 2**52)):
        return None
    return between(low, high, whole_numbers(low, high))


def _divide(site: NodeInfo) -> ValueInfo | None:
    if not site.is_float:
        return None
    x, y = site.info(0), site.info(1)
    if bool(np.any((y.low <= 0) & (y.high >= 0))):
        return None
    found = _corner_range(site, np.divide, x, y)
    number, grid = _point(y), None
    if x.grid is not None and number is not None:
        inverse = 1.0 / number
        grid = scaled_grid(site, x.grid, inverse)
        if grid is not None and not is_power_of_two(np.abs(number)):
            scale = np.asarray(x.grid.scale / np.abs(number))
            offset = np.asarray(x.grid.offset / number)
            grid = replace(grid, scale=scale, offset=offset, exact=False)
    return within_grid(replace(found, grid=grid))


def _sum(site: NodeInfo) -> ValueInfo | None:
    if not site.is_float:
        return None
    infos = [site.info(index) for index in range(len(site.inputs))]
    total = functools.reduce(functools.partial(added, site), infos)
    if len(site.inputs) <= 2:
        return total
    # More than two terms may be added in any order: partial sums can be larger than these.
    reach, grid = np.asarray(sum(x.magnitude for x in infos)), total.grid
    if grid is not None and not holds(site.float_type, reach, grid.scale, grid.offset):
        grid = replace(grid, exact=False)
    margin = sum_error(len(site.inputs), reach, site.rounding_unit)
    return within_grid(replace(widened(total.low, total.high, margin), grid=grid))


def clipped(info: ValueInfo, low: Array, high: Array) -> ValueInfo:
    """Return what is known about values held between two numbers."""
    if info.constant is not None and max(low.size, high.size) == 1:
        values = info.constant.values
        if not bool(np.any((values < low) | (values > high))):
            return info
        return of_constant(Constant(np.clip(values, low, high).astype(values.dtype)))
    lows = np.minimum(np.maximum(info.low, low), high)
    highs = np.minimum(np.maximum(info.high, low), high)
    return within_grid(between(lows, highs, _clipped_grid(info, low, high)))


def _clipped_grid(info: ValueInfo, low: Array, high: Array) -> Grid | None:
    grid = info.grid
    if grid is None:
        return None
    below, above = grid.ends()
    is_below, is_above = bool(np.any(below < low)), bool(np.any(above > high))
    lows, highs = grid.low, grid.high
    for limit, hold, is_beyond in (
        (low, np.maximum, is_below),
        (high, np.minimum, is_above),
    ):
        index = whole_multiples(limit - grid.offset, grid.scale) if is_beyond else None
        if index is not None:
            lows, highs = hold(lows, index), hold(highs, index)
        elif is_beyond:
            return None
    declared = grid.declared
    if is_below or (is_above and declared is not None and declared.signed):
        declared = None
    return replace(grid, low=lows, high=highs, declared=declared)


def _clip(site: NodeInfo) -> ValueInfo | None:
    ends = [-_TOP, _TOP]
    for index in (1, 2):
        if not site.has(index):
            continue
        known = site.array(index)
        if known is None or known.size != 1 or np.isnan(known.astype(np.float64)).any():
            return None
        ends[index - 1] = known.astype(np.float64).reshape(())
    return clipped(site.info(0), ends[0], ends[1])


def _extreme(site: NodeInfo, pick: Corners) -> ValueInfo | None:
    infos = [site.info(index) for index in range(len(site.inputs))]
    return functools.reduce(lambda a, b: _extreme_of_two(a, b, pick), infos)


def _extreme_of_two(a: ValueInfo, b: ValueInfo, pick: Corners) -> ValueInfo:
    for x, y in ((a, b), (b, a)):
        number = _point(y)
        if number is not None:
            nothing = np.full_like(number, np.inf)
            is_max = pick is np.maximum
            return clipped(x, number, nothing) if is_max else clipped(x, -nothing, number)
    grid = hull(a.grid, b.grid)
    return within_grid(between(pick(a.low, b.low), pick(a.high, b.high), grid))


def union(a: ValueInfo, b: ValueInfo) -> ValueInfo:
    """Return what holds of every value of either."""
    low, high = np.minimum(a.low, b.low), np.maximum(a.high, b.high)
    return between(low, high, hull(a.grid, b.grid))


def _leaky(site: NodeInfo, slope: Array | None) -> ValueInfo | None:
    x = site.info(0)
    if slope is None or not site.is_float or not np.all((slope >= 0) & np.isfinite(slope)):
        return None
    if bool(np.all(x.low >= 0)):
        return x
    factor = slope.astype(site.float_type)
    low, high = (
        np.where(end < 0, np.nan_to_num(end * factor, nan=0.0), end)
        for end in rounded_outward(x.low, x.high, site.float_type)
    )
    low = np.where(np.isinf(x.low), -np.inf, low)
    grid = None
    if x.grid is not None and not x.grid.has_offset and bool(np.all(slope != 0)):
        own = replace(x.grid, declared=None)
        below = scaled_grid(site, replace(own, high=np.minimum(own.high, 0)), slope)
        above = replace(own, low=np.maximum(own.low, 0), high=np.maximum(own.high, 0))
        grid = hull(below, above)
    return within_grid(between(low, high, grid))


def _absolute(site: NodeInfo) -> ValueInfo | None:
    x = site.info(0)
    if not site.is_float:
        return None
    grid = None
    if x.grid is not None and not x.grid.has_offset:
        low, high = _magnitudes(x.grid.low, x.grid.high)
        grid = replace(x.grid, low=low, high=high, declared=None)
    return within_grid(between(*_magnitudes(x.low, x.high), grid))


def _magnitudes(low: Array, high: Array) -> tuple[Array, Array]:
    """Return the smallest and the largest magnitude between two ends."""
    nearest = np.minimum(np.abs(low), np.abs(high))
    return np.where((low <= 0) & (high >= 0), 0, nearest), largest_magnitude(low, high)


RULES: RuleTable = {
    "Abs": _absolute,
    "Add": lambda site: _arithmetic(site, added, np.add),
    "Clip": _clip,
    "Div": _divide,
    "LeakyRelu": lambda site: _leaky(
        site, np.array(site.attr("alpha", 0.01), dtype=np.float32).astype(np.float64)
    ),
    "Max": lambda site: _extreme(site, np.maximum),
    "Min": lambda site: _extreme(site, np.minimum),
    "Mul": lambda site: _arithmetic(site, multiplied, np.multiply),
    "Neg": lambda site: negated(site.info(0)) if site.is_float else None,
    "PRelu": lambda site: _leaky(site, _point(site.info(1))),
    "Relu": lambda site: clipped(site.info(0), ZERO, _TOP),
    "Sub": lambda site: (
        added(site, site.info(0), negated(site.info(1))) if site.is_float else None
    ),
    "Sum": _sum,
    "Where": lambda site: union(site.info(1), site.info(2)),
}
