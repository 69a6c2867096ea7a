"""Dense layers: what MatMul, Gemm, Conv and ConvTranspose can reach, channel by channel.

A layer with constant weights is a table of terms: for every output channel, taps (positions of
a kernel) times input channels. Which taps meet the input and which its padding differs from
place to place; every such pattern is a sum of its own, and the range is that of all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from qonnx_hub_ir.analysis.float_error import sum_margin
from qonnx_hub_ir.analysis.grids import (
    Grid,
    common_scale_along,
    holds,
    in_reach,
    largest_of,
    product_is_exact,
    whole_multiples,
)
from qonnx_hub_ir.analysis.integer_sums import SumRange, sum_range
from qonnx_hub_ir.analysis.rule_context import NodeInfo, within_grid
from qonnx_hub_ir.analysis.value_info import Constant, ValueInfo, between
from qonnx_hub_ir.quantizers import Array


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """The sums of a layer.

    Attributes:
        constant: The weights, arranged as (outputs, taps, inputs per output).
        inputs: Input channel of each weight, broadcasting to (outputs, 1, inputs).
        patterns: Which taps count, bool of shape (patterns, taps); ``None`` where a tap may
            meet padding and it is not known which do together.
    """

    constant: Constant
    inputs: Array
    patterns: Array | None


def summed(terms: Terms, weights: Array, low: Array, high: Array) -> SumRange:
    """Return the range of the sums of weights times inputs.

    Args:
        terms: How the sums are made up.
        weights: Of shape (outputs, taps, inputs).
        low: Lowest value of each input channel, of one element or one per channel.
        high: Highest value, likewise.
    """
    outputs, taps, count = weights.shape
    ends = [_of_inputs(end, terms.inputs, weights.shape) for end in (low, high)]
    if terms.patterns is None:
        ends = [np.minimum(ends[0], 0), np.maximum(ends[1], 0)]
    table = weights.reshape(outputs * taps, count)
    found = sum_range(table, ends[0], ends[1])
    shape = (outputs, taps)
    lows, highs = found.low.reshape(shape), found.high.reshape(shape)
    magnitude = found.magnitude.reshape(shape).sum(axis=1)
    if terms.patterns is None:
        return SumRange(lows.sum(axis=1), highs.sum(axis=1), magnitude)
    mask = terms.patterns.astype(lows.dtype)
    return SumRange((lows @ mask.T).min(axis=1), (highs @ mask.T).max(axis=1), magnitude)


def _of_inputs(end: Array, inputs: Array, shape: tuple[int, ...]) -> Array:
    if end.size == 1:
        return end.reshape(())
    spread = np.broadcast_to(end.reshape(-1)[inputs], shape)
    return spread.reshape(shape[0] * shape[1], shape[2])


def dense(site: NodeInfo, x: ValueInfo, terms: Terms, bias: Constant) -> ValueInfo:
    """Return the range and grid of a layer, arrays of shape (outputs,) or one element.

    Args:
        site: The layer.
        x: What is known about its input; per-channel arrays are those of the input channels.
        terms: Its sums.
        bias: What it adds to each output, of shape (outputs,).
    """
    found = _float_range(site, x, terms, bias)
    return within_grid(replace(found, grid=_sum_grid(site, x, terms, bias)))


def _float_range(site: NodeInfo, x: ValueInfo, terms: Terms, bias: Constant) -> ValueInfo:
    weights = terms.constant.values.astype(np.float64)
    finite = [np.where(np.isfinite(end), end, 0.0) for end in (x.low, x.high)]
    sums = summed(terms, weights, finite[0], finite[1])
    added = bias.values.astype(np.float64)
    magnitude = sums.magnitude + np.abs(added)
    growth = sum_margin(weights.shape[1] * weights.shape[2] + 1, site.rounding_unit)
    if math.isinf(growth) or np.any(magnitude > largest_of(site.float_type)):
        # A partial sum may overflow where the sum does not.
        return between(-np.inf, np.inf)
    margin = growth * magnitude
    open_ends = np.isinf(x.low) | np.isinf(x.high)
    reached = summed(
        replace(terms, patterns=np.ones((1, weights.shape[1]), dtype=np.bool_)),
        np.abs(weights),
        np.zeros((), dtype=np.float64),
        open_ends.astype(np.float64),
    ).high
    low, high = sums.low + added - margin, sums.high + added + margin
    is_open = reached > 0
    return between(np.where(is_open, -np.inf, low), np.where(is_open, np.inf, high))


def _sum_grid(site: NodeInfo, x: ValueInfo, terms: Terms, bias: Constant) -> Grid | None:
    products = product_grid(x, terms)
    if products is None:
        return None
    low, high, scale = products.sums.low, products.sums.high, products.scale
    offset, exact = products.offset, products.exact
    added, steps = bias.values.astype(np.float64), _bias_steps(bias, scale)
    if steps is None:
        clean = bool(np.all(offset == 0))
        offset, exact = offset + added, exact and clean
    else:
        low, high = low + steps, high + steps
    reach = products.sums.magnitude * scale + np.abs(offset) + np.abs(added)
    exact = exact and holds(site.float_type, reach, scale, offset, added)
    return Grid(scale, np.asarray(offset), low, high, exact)


def _bias_steps(bias: Constant, scale: Array) -> Array | None:
    """Return the bias in units of the products; ``None`` where it lies between them."""
    if bias.integers is not None and bias.scale is not None:
        ratio = np.asarray(bias.scale / scale)
        whole = np.rint(ratio)
        if bool(np.all(ratio == whole)) and in_reach(np.abs(whole * bias.integers)):
            return np.asarray(whole.astype(np.int64) * bias.integers)
    return whole_multiples(bias.values.astype(np.float64), scale)


@dataclass(frozen=True, slots=True, eq=False)
class ProductSums:
    """The integer sums of a layer without its bias: ``value = sum * scale + offset``.

    Attributes:
        weights: The integers that the inputs' integers are multiplied by, as in the terms.
        sums: Their range, int64.
        scale: Of the sums, per output or of one element.
        offset: Likewise; not 0 where the input's grid has one.
        exact: Whether inputs and weights lie on their grids to the bit.
    """

    weights: Array
    sums: SumRange
    scale: Array
    offset: Array
    exact: bool


def product_grid(x: ValueInfo, terms: Terms) -> ProductSums | None:
    """Return the integer sums of a layer without its bias; ``None`` without a common grid."""
    constant, grid = terms.constant, x.grid
    if grid is None or constant.integers is None or constant.scale is None:
        return None
    if grid.has_offset and (terms.patterns is None or not bool(np.all(terms.patterns))):
        # Padding is zero, not the value of integer 0.
        return None
    shape = constant.values.shape
    steps = grid.scale
    if steps.size > 1:
        steps = np.broadcast_to(steps.reshape(-1)[terms.inputs], shape)
    weight_steps = np.broadcast_to(constant.scale, shape)
    each = np.asarray(weight_steps * steps)
    scale = common_scale_along(each, (1, 2))
    if scale is None:
        return None
    weights = np.asarray(constant.integers)
    if not bool(np.all(each == scale)):
        weights = weights * np.rint(each / scale).astype(np.int64)
    reach = grid.magnitude.astype(np.float64).max()
    if not in_reach(np.abs(weights.astype(np.float64)).sum(axis=(1, 2)) * max(reach, 1.0)):
        return None
    sums = summed(terms, weights, grid.low, grid.high)
    offset = np.zeros((), dtype=np.float64)
    exact = grid.exact and constant.exact and product_is_exact(weight_steps, steps)
    if grid.has_offset:
        values = constant.integers * weight_steps
        offsets = _of_inputs(grid.offset, terms.inputs, shape)
        offset = (values.reshape(-1, shape[2]) * offsets).reshape(shape).sum(axis=(1, 2))
        exact = False
    flat = scale.reshape(-1)
    if bool(np.all(flat == flat[0])):
        flat = flat[0].reshape(())
    return ProductSums(weights, sums, flat, np.asarray(offset), exact)


def arranged(constant: Constant, order: tuple[int, ...], shape: tuple[int, ...]) -> Constant:
    """Return the weights with their axes in another order, and in another shape."""
    return constant.mapped(lambda array: array.transpose(order).reshape(shape))


def scaled(constant: Constant, factor: float) -> Constant:
    """Return a constant times a number; its integers only where that is 1."""
    if factor == 1.0:
        return constant
    return Constant(constant.values * np.float64(factor))
