"""How each dense operator is a table of terms: its weights, its taps, its input channels."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass, replace

import numpy as np

from qonnx_hub_ir.analysis.float_error import sum_margin
from qonnx_hub_ir.analysis.grids import Grid, holds, in_reach, product_is_exact
from qonnx_hub_ir.analysis.products import Terms, arranged, dense, flat_bias, placed, scaled
from qonnx_hub_ir.analysis.rule_context import NodeInfo, RuleTable, within_grid
from qonnx_hub_ir.analysis.value_info import (
    Constant,
    Shape,
    ValueInfo,
    between,
    channels_on,
    collapsed,
)
from qonnx_hub_ir.quantizers import Array

_MOST_PATTERNS = 4096
"""More patterns of taps than this are not told apart."""

_LARGEST_SIDE = 4096


@dataclass(frozen=True, slots=True, eq=False)
class DenseLayer:
    """A dense operator with constant weights.

    Attributes:
        x: What is known about its input, per input channel.
        terms: Its sums.
        bias: What it adds, per output; ``None`` for nothing.
        axis: Axis of the outputs' channels.
    """

    x: ValueInfo
    terms: Terms
    bias: Constant | None
    axis: int


def read_layer(site: NodeInfo) -> DenseLayer | None:
    """Return a MatMul, Gemm, Conv or ConvTranspose as sums; ``None`` if its weights move."""
    reader = _READERS.get(site.node.op_type)
    return reader(site) if reader is not None and site.is_float else None


def _layer(site: NodeInfo) -> ValueInfo | None:
    layer = read_layer(site)
    if layer is None:
        return _both_move(site) if site.node.op_type == "MatMul" and site.is_float else None
    rank = None if site.shape is None else len(site.shape)
    found = dense(site, layer.x, layer.terms, layer.bias)
    found = between(found.low, found.high, found.grid)
    return collapsed(found) if rank is None else placed(found, layer.axis, rank)


def _weights(site: NodeInfo, index: int, least_rank: int = 1) -> Constant | None:
    """Return the constant at an input, if it has elements, all finite, and so many axes."""
    constant = site.info(index).constant
    if constant is None or constant.values.size == 0 or constant.values.ndim < least_rank:
        return None
    return constant if bool(np.all(np.isfinite(constant.values.astype(np.float64)))) else None


def _matmul(site: NodeInfo) -> DenseLayer | None:
    left, right = site.info(0), site.info(1)
    is_right = right.constant is not None
    before, constant = site.shapes[0 if is_right else 1], _weights(site, int(is_right))
    if (left.constant is not None) == is_right or before is None or len(before) < 2:
        return None
    if constant is None or constant.values.ndim != 2:
        return None
    order = (1, 0) if is_right else (0, 1)
    outputs, count = (constant.values.shape[k] for k in order)
    terms = _plain(arranged(constant, order, (outputs, 1, count)))
    if is_right:
        return DenseLayer(channels_on(left, len(before) - 1), terms, None, -1)
    return DenseLayer(channels_on(right, len(before) - 2), terms, None, -2)


def _plain(weights: Constant) -> Terms:
    """Return sums over all weights of an output, one for each input channel."""
    count = weights.values.shape[2]
    inputs = np.arange(count, dtype=np.int64).reshape(1, 1, count)
    return Terms(weights, inputs, np.ones((1, 1), dtype=np.bool_))


def _gemm(site: NodeInfo) -> DenseLayer | None:
    x, weights = site.info(0), _weights(site, 1)
    if x.constant is not None or weights is None:
        return None
    order = (0, 1) if site.attr("transB", 0) else (1, 0)
    outputs, count = (weights.values.shape[k] for k in order)
    factor = float(site.attr("alpha", 1.0))
    table = scaled(arranged(weights, order, (outputs, 1, count)), factor)
    bias, known = _bias(site, outputs, float(site.attr("beta", 1.0)))
    if not known:
        return None
    axis = 0 if site.attr("transA", 0) else 1
    return DenseLayer(channels_on(x, axis), _plain(table), bias, 1)


def _bias(site: NodeInfo, outputs: int, factor: float = 1.0) -> tuple[Constant | None, bool]:
    """Return the bias per output, and whether it is known at all."""
    if not site.has(2) or factor == 0.0:
        return None, True
    constant = _weights(site, 2, least_rank=0)
    flat = None if constant is None else flat_bias(constant, outputs)
    return (None, False) if flat is None else (scaled(flat, factor), True)


def _conv(site: NodeInfo) -> DenseLayer | None:
    x, weights = site.info(0), _weights(site, 1, least_rank=3)
    if weights is None:
        return None
    outputs, per_group, *kernel = weights.values.shape
    taps = int(np.prod(kernel))
    table = arranged(
        weights, (0, *range(2, weights.values.ndim), 1), (outputs, taps, per_group)
    )
    groups = int(site.attr("group", 1))
    group = np.arange(outputs, dtype=np.int64) // max(outputs // groups, 1)
    inputs = group[:, None] * per_group + np.arange(per_group, dtype=np.int64)
    bias, known = _bias(site, outputs)
    if not known:
        return None
    terms = Terms(table, inputs[:, None, :], _patterns(site, tuple(kernel)))
    return DenseLayer(channels_on(x, 1), terms, bias, 1)


def _conv_transpose(site: NodeInfo) -> DenseLayer | None:
    x, weights = site.info(0), _weights(site, 1, least_rank=3)
    if weights is None:
        return None
    channels, per_group, *kernel = weights.values.shape
    groups = int(site.attr("group", 1))
    inner = channels // groups
    rank = len(kernel)
    grouped = arranged(
        weights, tuple(range(rank + 2)), (groups, inner, per_group, int(np.prod(kernel)))
    )
    table = arranged(grouped, (0, 2, 3, 1), (groups * per_group, int(np.prod(kernel)), inner))
    group = np.arange(groups * per_group, dtype=np.int64) // per_group
    inputs = group[:, None] * inner + np.arange(inner, dtype=np.int64)
    bias, known = _bias(site, groups * per_group)
    if not known:
        return None
    terms = Terms(table, inputs[:, None, :], _patterns(site, tuple(kernel)))
    return DenseLayer(channels_on(x, 1), terms, bias, 1)


@dataclass(frozen=True, slots=True)
class _Side:
    """One spatial axis of a convolution.

    Attributes:
        size: Of the input.
        out: Of the output.
        kernel: Number of taps.
        stride: Step.
        dilation: Distance of the taps.
        before: Padding in front.
    """

    size: int
    out: int
    kernel: int
    stride: int
    dilation: int
    before: int


def _taps(side: _Side, *, is_transposed: bool) -> Array:
    """Return which taps of each output meet an element of the input, bool (outputs, taps)."""
    outputs, taps = np.arange(side.out)[:, None], np.arange(side.kernel)
    if not is_transposed:
        place = outputs * side.stride - side.before + taps * side.dilation
        return np.asarray((place >= 0) & (place < side.size))
    place = outputs + side.before - taps * side.dilation
    inside = (place >= 0) & (place < side.size * side.stride)
    return np.asarray(inside & (place % side.stride == 0))


def _patterns(site: NodeInfo, kernel: tuple[int, ...]) -> Array | None:
    """Return all different sets of taps that count at some place, bool (patterns, taps)."""
    rank = len(kernel)
    is_transposed = site.node.op_type == "ConvTranspose"
    pads = tuple(site.attr("pads") or (0,) * (2 * rank))
    auto = site.attr("auto_pad", "NOTSET")
    padded = auto.startswith("SAME") or (auto == "NOTSET" and any(pads))
    if not padded and not is_transposed:
        return np.ones((1, int(np.prod(kernel))), dtype=np.bool_)
    if is_transposed and (auto != "NOTSET" or site.attr("output_shape")):
        # Libraries disagree about which side gets the odd element.
        return None
    sides = _sides(site, kernel, pads if auto == "NOTSET" else None)
    if sides is None:
        return None
    rows = [np.unique(_taps(side, is_transposed=is_transposed), axis=0) for side in sides]
    if np.prod([len(row) for row in rows]) > _MOST_PATTERNS:
        return None
    found = [
        functools.reduce(lambda one, other: (one[:, None] & other).reshape(-1), choice)
        for choice in itertools.product(*rows)
    ]
    return np.array(found, dtype=np.bool_)


def _sides(
    site: NodeInfo, kernel: tuple[int, ...], pads: tuple[int, ...] | None
) -> list[_Side] | None:
    strides, dilations = (
        tuple(site.attr(name) or (1,) * len(kernel)) for name in ("strides", "dilations")
    )
    sizes, outs = _inner(site.shapes[0]), _inner(site.shape)
    if sizes is None or outs is None:
        return None
    sides = []
    for k, (size, out, taps) in enumerate(zip(sizes, outs, kernel, strict=True)):
        if pads is not None:
            before = pads[k]
        else:
            total = max((out - 1) * strides[k] + (taps - 1) * dilations[k] + 1 - size, 0)
            before = total // 2 if site.attr("auto_pad") == "SAME_UPPER" else -(-total // 2)
        sides.append(_Side(size, out, taps, strides[k], dilations[k], before))
    return sides


def _inner(shape: Shape) -> list[int] | None:
    """Return the spatial sizes, ``None`` unless all are known and of moderate size."""
    if shape is None:
        return None
    known = [size for size in shape[2:] if size is not None]
    return known if len(known) == len(shape) - 2 and max(known) <= _LARGEST_SIDE else None


def _both_move(site: NodeInfo) -> ValueInfo | None:
    """Return the range of a matrix product whose both sides depend on the inputs."""
    a, b = collapsed(site.info(0)), collapsed(site.info(1))
    count = None if not site.shapes[0] else site.shapes[0][-1]
    if count is None or not (a.is_bounded and b.is_bounded):
        return None
    corners = [float(x * y) for x in (a.low, a.high) for y in (b.low, b.high)]
    magnitude = count * max(abs(corner) for corner in corners)
    growth = sum_margin(count + 1, site.rounding_unit)
    if math.isinf(growth):
        return None
    margin = growth * magnitude
    found = between(count * min(corners) - margin, count * max(corners) + margin)
    if a.grid is None or b.grid is None or a.grid.has_offset or b.grid.has_offset:
        return found
    whole = [
        int(x) * int(y) * count
        for x in (a.grid.low, a.grid.high)
        for y in (b.grid.low, b.grid.high)
    ]
    largest = np.array(float(max(abs(n) for n in whole)), dtype=np.float64)
    if not in_reach(largest):
        return found
    scale = np.asarray(a.grid.scale * b.grid.scale)
    exact = a.grid.exact and b.grid.exact and product_is_exact(a.grid.scale, b.grid.scale)
    grid = Grid(
        scale,
        np.zeros((), dtype=np.float64),
        np.array(min(whole), dtype=np.int64),
        np.array(max(whole), dtype=np.int64),
        exact and holds(site.float_type, largest * scale, scale),
    )
    return within_grid(replace(found, grid=grid))


_READERS = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}

RULES: RuleTable = dict.fromkeys(_READERS, _layer)
