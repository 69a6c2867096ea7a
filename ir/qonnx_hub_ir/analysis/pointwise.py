"""What operators that treat every element by itself make of ranges and grids.

Add, Sub, Mul and Div are rounded correctly and keep order in each input, so that the float
answers on the ends are the range, with no margin. Functions such as Tanh are computed
differently by every library: their ranges have a margin.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from qonnx_hub_ir.analysis.float_error import sum_error
from qonnx_hub_ir.analysis.grids import (
    ZERO,
    Grid,
    common_scale,
    hull,
    in_reach,
    index_of,
    product_is_exact,
    refined,
    whole_multiples,
    whole_numbers,
)
from qonnx_hub_ir.analysis.integer_sums import largest_magnitude
from qonnx_hub_ir.analysis.rule_context import (
    RuleTable,
    Site,
    rounded_outward,
    widened,
    within_grid,
)
from qonnx_hub_ir.analysis.value_info import Constant, ValueInfo, between, of_constant
from qonnx_hub_ir.quantizers import Array

_FUNCTION_MARGIN = 2.0**-18
"""Margin around functions, relative to the largest magnitude: far above the error of any
single-precision library."""

_TOP = np.array(np.inf, dtype=np.float64)

Corners = Callable[[Array, Array], Array]


def _corner_range(site: Site, how: Corners, a: ValueInfo, b: ValueInfo) -> ValueInfo:
    """Return the range of a correctly rounded operation that keeps order in each input."""
    ends_a = rounded_outward(a.low, a.high, site.float_type)
    ends_b = rounded_outward(b.low, b.high, site.float_type)
    with np.errstate(all="ignore"):
        corners = [how(x, y).astype(np.float64) for x in ends_a for y in ends_b]
    # Infinity minus infinity, zero times infinity: what lies between can be anything.
    lows = [np.where(np.isnan(corner), -np.inf, corner) for corner in corners]
    highs = [np.where(np.isnan(corner), np.inf, corner) for corner in corners]
    return between(_lowest(lows), _highest(highs))


def _lowest(arrays: Sequence[Array]) -> Array:
    """Return the lowest of arrays that broadcast together."""
    return np.asarray(functools.reduce(np.minimum, arrays))


def _highest(arrays: Sequence[Array]) -> Array:
    """Return the highest of arrays that broadcast together."""
    return np.asarray(functools.reduce(np.maximum, arrays))


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


def added(site: Site, a: ValueInfo, b: ValueInfo) -> ValueInfo:
    """Return what is known about a sum."""
    found = _corner_range(site, np.add, a, b)
    return within_grid(replace(found, grid=_sum_grid(site, a, b)))


def _sum_grid(site: Site, a: ValueInfo, b: ValueInfo) -> Grid | None:
    for x, y in ((a, b), (b, a)):
        number = _point(y)
        if x.grid is not None and number is not None:
            return _shifted(site, x.grid, number)
    if a.grid is None or b.grid is None:
        return None
    scale = common_scale(a.grid.scale, b.grid.scale)
    first = None if scale is None else refined(a.grid, scale)
    second = None if scale is None else refined(b.grid, scale)
    if scale is None or first is None or second is None:
        return None
    low, high = first.low + second.low, first.high + second.high
    offset = np.asarray(a.grid.offset + b.grid.offset, dtype=np.float64)
    if not in_reach(largest_magnitude(low, high)):
        return None
    exact = a.grid.exact and b.grid.exact and not bool(np.any(offset != 0))
    return Grid(scale, offset, low, high, exact).held_by(site.float_type)


def _shifted(site: Site, grid: Grid, number: Array) -> Grid | None:
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


def multiplied(site: Site, a: ValueInfo, b: ValueInfo) -> ValueInfo:
    """Return what is known about a product."""
    found = _corner_range(site, np.multiply, a, b)
    grid = None
    for x, y in ((a, b), (b, a)):
        number = _point(y)
        if x.grid is not None and number is not None:
            grid = scaled_grid(site, x.grid, number)
            break
    else:
        grid = _product_grid(site, a.grid, b.grid)
    return within_grid(replace(found, grid=grid))


def scaled_grid(site: Site, grid: Grid, number: Array) -> Grid | None:
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


def _product_grid(site: Site, a: Grid | None, b: Grid | None) -> Grid | None:
    if a is None or b is None or a.has_offset or b.has_offset:
        return None
    if not in_reach(a.magnitude.astype(np.float64) * b.magnitude):
        return None
    corners = [x * y for x, y in itertools.product((a.low, a.high), (b.low, b.high))]
    scale = np.asarray(a.scale * b.scale)
    exact = a.exact and b.exact and product_is_exact(a.scale, b.scale)
    found = Grid(scale, ZERO, _lowest(corners), _highest(corners), exact)
    return found.held_by(site.float_type)


def _add(site: Site) -> ValueInfo | None:
    return added(site, site.info(0), site.info(1)) if site.is_float else _whole(site, np.add)


def _multiply(site: Site) -> ValueInfo | None:
    if not site.is_float:
        return _whole(site, np.multiply)
    return multiplied(site, site.info(0), site.info(1))


def _whole(site: Site, how: Corners) -> ValueInfo | None:
    """Return the range of integer arithmetic, where nothing can wrap."""
    a, b = site.info(0), site.info(1)
    if (
        site.dtype is None
        or site.dtype.kind not in "iu"
        or not (a.is_bounded and b.is_bounded)
    ):
        return None
    corners = [how(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    low, high = _lowest(corners), _highest(corners)
    limits = np.iinfo(site.dtype)
    largest = min(float(limits.max), 2.0**52)
    if np.any(low < max(float(limits.min), -(2.0**52))) or np.any(high > largest):
        return None
    return between(low, high, whole_numbers(low, high))


def _divide(site: Site) -> ValueInfo | None:
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
        mantissa, _ = np.frexp(np.abs(number))
        if grid is not None and not bool(np.all(mantissa == 0.5)):
            scale = np.asarray(x.grid.scale / np.abs(number))
            offset = np.asarray(x.grid.offset / number)
            grid = replace(grid, scale=scale, offset=offset, exact=False)
    return within_grid(replace(found, grid=grid))


def _sum(site: Site) -> ValueInfo | None:
    if not site.is_float:
        return None
    total = site.info(0)
    for index in range(1, len(site.inputs)):
        total = added(site, total, site.info(index))
    if len(site.inputs) > 2:
        # More than two terms may be added in any order.
        reach = np.asarray(sum(x.magnitude for x in site.inputs if x))
        wider = widened(
            total.low, total.high, sum_error(len(site.inputs), reach, site.rounding_unit)
        )
        return within_grid(replace(wider, grid=total.grid))
    return total


def clipped(info: ValueInfo, low: Array, high: Array) -> ValueInfo:
    """Return what is known about values held between two numbers."""
    constant = info.constant
    if constant is not None and max(low.size, high.size) == 1:
        return _clipped_constant(info, constant, low, high)
    lows = np.minimum(np.maximum(info.low, low), high)
    highs = np.minimum(np.maximum(info.high, low), high)
    return within_grid(between(lows, highs, _clipped_grid(info, low, high)))


def _clipped_constant(
    info: ValueInfo, constant: Constant, low: Array, high: Array
) -> ValueInfo:
    values = constant.values
    below, above = values < low, values > high
    if not bool(np.any(below | above)):
        return info
    held = np.where(below, low, np.where(above, high, values)).astype(values.dtype)
    return of_constant(Constant(held))


def _clipped_grid(info: ValueInfo, low: Array, high: Array) -> Grid | None:
    grid = info.grid
    if grid is None:
        return None
    below, above = grid.ends()
    lows, highs = grid.low, grid.high
    keeps = grid.declared
    if bool(np.any(below < low)):
        index = index_of(grid, low)
        if index is None:
            return None
        lows, highs = np.maximum(lows, index), np.maximum(highs, index)
        keeps = None
    if bool(np.any(above > high)):
        index = index_of(grid, high)
        if index is None:
            return None
        lows, highs = np.minimum(lows, index), np.minimum(highs, index)
        keeps = keeps if keeps is not None and not keeps.signed else None
    return replace(grid, low=lows, high=highs, declared=keeps)


def _clip(site: Site) -> ValueInfo | None:
    ends = [-_TOP, _TOP]
    for index in (1, 2):
        if not site.has(index):
            continue
        known = site.array(index)
        if known is None or known.size != 1 or np.isnan(known.astype(np.float64)).any():
            return None
        ends[index - 1] = known.astype(np.float64).reshape(())
    return clipped(site.info(0), ends[0], ends[1])


def _extreme(site: Site, pick: Corners) -> ValueInfo | None:
    found = site.info(0)
    for index in range(1, len(site.inputs)):
        found = _extreme_of_two(found, site.info(index), pick)
    return found


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


def _leaky(site: Site, slope: Array | None) -> ValueInfo | None:
    x = site.info(0)
    if slope is None or not site.is_float or not np.all((slope >= 0) & np.isfinite(slope)):
        return None
    low, high = rounded_outward(x.low, x.high, site.float_type)
    factor = slope.astype(site.float_type)
    with np.errstate(all="ignore"):
        ends = [
            np.where(end < 0, np.nan_to_num(end * factor, nan=0.0, posinf=None), end)
            for end in (low, high)
        ]
    if bool(np.all(x.low >= 0)):
        return x
    found = between(ends[0].astype(np.float64), ends[1].astype(np.float64))
    found = between(np.where(np.isinf(x.low), -np.inf, found.low), found.high)
    return within_grid(replace(found, grid=_leaky_grid(site, x.grid, slope)))


def _leaky_grid(site: Site, grid: Grid | None, slope: Array) -> Grid | None:
    if grid is None or grid.has_offset or bool(np.any(slope == 0)):
        return None
    below = scaled_grid(site, replace(grid, high=np.minimum(grid.high, 0)), slope)
    above = replace(grid, low=np.maximum(grid.low, 0), high=np.maximum(grid.high, 0))
    found = hull(below, above)
    return None if found is None else replace(found, declared=None)


def _absolute(site: Site) -> ValueInfo | None:
    x = site.info(0)
    if not site.is_float:
        return None
    holds_zero = (x.low <= 0) & (x.high >= 0)
    ends = (np.abs(x.low), np.abs(x.high))
    low = np.where(holds_zero, 0.0, np.minimum(*ends))
    grid = x.grid
    if grid is not None and not grid.has_offset:
        inside = (grid.low <= 0) & (grid.high >= 0)
        sizes = (np.abs(grid.low), np.abs(grid.high))
        lows = np.where(inside, 0, np.minimum(*sizes))
        grid = replace(grid, low=lows, high=np.maximum(*sizes), declared=None)
    else:
        grid = None
    return within_grid(between(low, np.maximum(*ends), grid))


def _to_whole(how: Callable[[Array], Array]) -> Callable[[Site], ValueInfo | None]:
    def rule(site: Site) -> ValueInfo | None:
        x = site.info(0)
        low, high = how(x.low), how(x.high)
        if not site.is_float or not x.is_bounded:
            return between(low, high)
        if np.any(largest_magnitude(low, high) >= 2.0**53):
            return between(low, high)
        return between(low, high, whole_numbers(low, high))

    return rule


def _increasing(
    how: Callable[[Site, Array], Array], lowest: float = -np.inf, highest: float = np.inf
) -> Callable[[Site], ValueInfo | None]:
    """Return the rule of a function that keeps order, with the limits that it never passes."""

    def rule(site: Site) -> ValueInfo | None:
        if not site.is_float or site.rounding_unit > _FUNCTION_MARGIN / 2:
            return between(lowest, highest)
        x = site.info(0)
        with np.errstate(all="ignore"):
            low, high = how(site, x.low), how(site, x.high)
        low, high = (
            np.where(np.isnan(low), -np.inf, low),
            np.where(np.isnan(high), np.inf, high),
        )
        reach = largest_magnitude(low, high)
        margin = _FUNCTION_MARGIN * np.maximum(np.where(np.isfinite(reach), reach, 1.0), 1.0)
        found = widened(low, high, margin)
        return between(np.maximum(found.low, lowest), np.minimum(found.high, highest))

    return rule


def _sigmoid(site: Site, x: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


def _hard_sigmoid(site: Site, x: Array) -> Array:
    alpha, beta = float(site.attr("alpha", 0.2)), float(site.attr("beta", 0.5))
    return np.clip(alpha * x + beta, 0.0, 1.0) if alpha > 0 else np.full_like(x, np.nan)


def _elu(site: Site, x: Array) -> Array:
    alpha = float(site.attr("alpha", 1.0))
    return np.where(x < 0, alpha * np.expm1(x), x) if alpha >= 0 else np.full_like(x, np.nan)


def _softsign(site: Site, x: Array) -> Array:
    return np.where(np.isinf(x), np.sign(x), x / (1.0 + np.abs(x)))


def _hard_swish(site: Site) -> ValueInfo | None:
    """Return the range of ``x * clip(x / 6 + 0.5, 0, 1)``, which is lowest at -1.5."""
    x = site.info(0)
    if not site.is_float or site.rounding_unit > _FUNCTION_MARGIN / 2:
        return None
    finite = [np.clip(end, -4.0, np.inf) for end in (x.low, x.high)]
    with np.errstate(all="ignore"):
        ends = [end * np.clip(end / 6 + 0.5, 0.0, 1.0) for end in finite]
    turns = (x.low <= -1.5) & (x.high >= -1.5)
    low = np.where(turns, -0.375, np.minimum(*ends))
    high = np.maximum(*ends)
    reach = np.maximum(np.where(np.isfinite(high), np.abs(high), 1.0), 1.0)
    return widened(low, high, _FUNCTION_MARGIN * reach)


def _batch_normalization(site: Site) -> ValueInfo | None:
    arrays = [site.array(k) for k in range(1, 5)]
    shape = site.shapes[0]
    if not site.is_float or shape is None or len(shape) < 2 or site.attr("training_mode", 0):
        return None
    known = [a.astype(np.float64) for a in arrays if a is not None]
    if len(known) != 4 or not all(bool(np.all(np.isfinite(a))) for a in known):
        return None
    place = (1, -1, *(1,) * (len(shape) - 2))
    gain, shift, mean, variance = (a.reshape(place) for a in known)
    spread = variance + float(site.attr("epsilon", 1e-5))
    if not bool(np.all(spread > 0)):
        return None
    x, factor = site.info(0), gain / np.sqrt(spread)
    with np.errstate(all="ignore"):
        corners = [
            np.nan_to_num((end - mean) * factor, nan=0.0, posinf=np.inf, neginf=-np.inf)
            for end in (x.low, x.high)
        ]
        # No library's order of operations is known: each of a handful rounds once.
        reach = (x.magnitude + np.abs(mean)) * np.abs(factor)
        margin = 16 * site.rounding_unit * (np.nan_to_num(reach) + np.abs(shift))
    found = widened(np.minimum(*corners) + shift, np.maximum(*corners) + shift, margin)
    grid = None if x.grid is None else scaled_grid(site, x.grid, factor)
    if grid is not None:
        offset = np.asarray(grid.offset + (shift - mean * factor))
        grid = replace(grid, offset=offset, exact=False)
    return replace(found, grid=grid)


def _cast(site: Site) -> ValueInfo | None:
    x, target = site.info(0), site.dtype
    if target is None:
        return None
    if site.is_float:
        with np.errstate(all="ignore"):
            low = x.low.astype(target).astype(np.float64)
            high = x.high.astype(target).astype(np.float64)
        grid = x.grid
        return between(low, high, None if grid is None else grid.held_by(site.float_type))
    if target.kind not in "iu":
        return None
    limits = np.iinfo(target)
    # Beyond its limits a type wraps, or not, as the library likes.
    if np.any(x.low <= limits.min - 1.0) or np.any(x.high >= limits.max + 1.0):
        return None
    low, high = np.trunc(x.low), np.trunc(x.high)
    if np.any(largest_magnitude(low, high) >= 2.0**53):
        return None
    return between(low, high, whole_numbers(low, high))


RULES: RuleTable = {
    "Abs": _absolute,
    "Add": _add,
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Ceil": _to_whole(np.ceil),
    "Clip": _clip,
    "Div": _divide,
    "Elu": _increasing(_elu),
    "Erf": lambda site: between(-1.0, 1.0),
    "Exp": _increasing(lambda site, x: np.exp(x), lowest=0.0),
    "Floor": _to_whole(np.floor),
    "HardSwish": _hard_swish,
    "HardSigmoid": _increasing(_hard_sigmoid, 0.0, 1.0),
    "LeakyRelu": lambda site: _leaky(
        site, np.array(site.attr("alpha", 0.01), dtype=np.float32).astype(np.float64)
    ),
    "Log": _increasing(lambda site, x: np.log(np.maximum(x, 0.0))),
    "Max": lambda site: _extreme(site, np.maximum),
    "Min": lambda site: _extreme(site, np.minimum),
    "Mul": _multiply,
    "Neg": lambda site: negated(site.info(0)) if site.is_float else None,
    "PRelu": lambda site: _leaky(site, _point(site.info(1))),
    "Relu": lambda site: clipped(site.info(0), ZERO, _TOP),
    "Round": _to_whole(np.rint),
    "Sigmoid": _increasing(_sigmoid, 0.0, 1.0),
    "Sign": _to_whole(np.sign),
    "Softplus": _increasing(lambda site, x: np.logaddexp(0.0, x), lowest=0.0),
    "Softsign": _increasing(_softsign, -1.0, 1.0),
    "Sqrt": _increasing(lambda site, x: np.sqrt(np.maximum(x, 0.0)), lowest=0.0),
    "Sub": lambda site: (
        added(site, site.info(0), negated(site.info(1))) if site.is_float else None
    ),
    "Sum": _sum,
    "Tanh": _increasing(lambda site, x: np.tanh(x), -1.0, 1.0),
    "Where": lambda site: union(site.info(1), site.info(2)),
}
