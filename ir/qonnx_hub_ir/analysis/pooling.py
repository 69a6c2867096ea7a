"""What pooling and reductions make of ranges and grids."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from qonnx_hub_ir import operators
from qonnx_hub_ir.analysis.float_error import sum_error
from qonnx_hub_ir.analysis.grids import Grid, in_reach
from qonnx_hub_ir.analysis.pointwise import scaled_grid, union
from qonnx_hub_ir.analysis.rule_context import (
    NodeInfo,
    RuleTable,
    is_padded,
    widened,
    within_grid,
)
from qonnx_hub_ir.analysis.value_info import (
    ValueInfo,
    axis_shape,
    between,
    channels_on,
    collapsed,
    of_integers,
)
from qonnx_hub_ir.graph.queries import element_count
from qonnx_hub_ir.quantizers import is_power_of_two


def total(site: NodeInfo, x: ValueInfo, count: int) -> ValueInfo:
    """Return what is known about a sum of so many elements of one channel."""
    reach = count * x.magnitude
    margin = 2 * sum_error(count, np.nan_to_num(reach), site.rounding_unit)
    found = _same_sign(widened(count * x.low, count * x.high, margin), x)
    grid = x.grid
    if grid is None or not in_reach(reach / grid.scale.min()):
        return found
    sums = Grid(
        grid.scale,
        np.asarray(grid.offset * count),
        grid.low * count,
        grid.high * count,
        grid.exact and not grid.has_offset,
    )
    return within_grid(replace(found, grid=sums.held_by(site.float_type)))


def _same_sign(found: ValueInfo, x: ValueInfo) -> ValueInfo:
    """Return the range of a sum without the sign that none of its terms has."""
    low = np.where(x.low >= 0, np.maximum(found.low, 0.0), found.low)
    high = np.where(x.high <= 0, np.minimum(found.high, 0.0), found.high)
    return between(low, high)


def _mean(site: NodeInfo, x: ValueInfo, count: int) -> ValueInfo:
    """Return what is known about the mean of so many elements of one channel."""
    margin = 2 * sum_error(count + 2, np.nan_to_num(x.magnitude), site.rounding_unit)
    found = _same_sign(widened(x.low, x.high, margin), x)
    number = np.array(count, dtype=np.float64)
    sums = total(site, x, count).grid
    grid = None if sums is None else scaled_grid(site, sums, 1.0 / number)
    if grid is not None:
        grid = replace(grid, exact=grid.exact and is_power_of_two(number), declared=None)
    return within_grid(replace(found, grid=grid))


def _average_pool(site: NodeInfo) -> ValueInfo | None:
    x = channels_on(replace(site.info(0), constant=None), 1)
    kernel = site.attr("kernel_shape")
    if not site.is_float or not kernel:
        return None
    count = math.prod(int(size) for size in kernel)
    if is_padded(site) or site.attr("ceil_mode", 0):
        # Some windows hold fewer elements, or zeros.
        x = replace(union(x, of_integers(0, 0)), grid=None)
    return _mean(site, x, count)


def reduced_axes(site: NodeInfo) -> tuple[int, ...] | None:
    """Return the axes that a reduction runs over, ``None`` where they are not known."""
    shape = site.shapes[0]
    if shape is None:
        return None
    if operators.is_global_pool(site.node):
        return tuple(range(2, len(shape)))
    given = site.attr("axes")
    if given is None and site.has(1):
        known = site.array(1)
        if known is None:
            return None
        given = [int(axis) for axis in known.reshape(-1)]
    if not given:
        return () if site.attr("noop_with_empty_axes", 0) else tuple(range(len(shape)))
    return tuple(int(axis) % len(shape) for axis in given)


def _before_reduction(site: NodeInfo, axes: tuple[int, ...]) -> ValueInfo:
    """Return the input with channels only where they outlive the reduction in place."""
    x, shape = replace(site.info(0), constant=None), site.shapes[0]
    if x.channel_axis is None:
        return x
    if x.channel_axis in axes or shape is None:
        return collapsed(x)
    if site.attr("keepdims", 1):
        return x
    gone = sum(axis < x.channel_axis for axis in axes)
    place = axis_shape(x.channel_axis - gone, len(shape) - len(axes))
    return x.mapped(lambda array: array.reshape(place))


def _reduce(site: NodeInfo, *, is_mean: bool) -> ValueInfo | None:
    axes, shape = reduced_axes(site), site.shapes[0]
    if axes is None or shape is None or not site.is_float:
        return None
    count = element_count(tuple(shape[axis] for axis in axes))
    if not count:
        return None if count is None or is_mean else of_integers(0, 0)
    x = _before_reduction(site, axes)
    return _mean(site, x, count) if is_mean else total(site, x, count)


def _reduce_extreme(site: NodeInfo) -> ValueInfo | None:
    axes = reduced_axes(site)
    return collapsed(site.info(0)) if axes is None else _before_reduction(site, axes)


def _index(site: NodeInfo) -> ValueInfo | None:
    shape = site.shapes[0]
    axis = int(site.attr("axis", 0))
    size = None if shape is None else shape[axis]
    return None if not size else of_integers(0, size - 1)


RULES: RuleTable = {
    "ArgMax": _index,
    "ArgMin": _index,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda site: _reduce(site, is_mean=True),
    "GlobalMaxPool": _reduce_extreme,
    "MaxPool": lambda site: channels_on(replace(site.info(0), constant=None), 1),
    "ReduceMax": _reduce_extreme,
    "ReduceMean": lambda site: _reduce(site, is_mean=True),
    "ReduceMin": _reduce_extreme,
    "ReduceSum": lambda site: _reduce(site, is_mean=False),
}
