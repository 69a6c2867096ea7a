"""How each dense operator is a table of terms: its weights, its taps, its input channels."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np

from qonnx_hub_ir import operators
from qonnx_hub_ir.analysis.pointwise import multiplied
from qonnx_hub_ir.analysis.pooling import total
from qonnx_hub_ir.analysis.products import Terms, arranged, dense, scaled
from qonnx_hub_ir.analysis.rule_context import NodeInfo, RuleTable, is_padded
from qonnx_hub_ir.analysis.value_info import (
    Constant,
    Shape,
    ValueInfo,
    axis_shape,
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
        bias: What it adds, per output.
        axis: Axis of the outputs' channels.
    """

    x: ValueInfo
    terms: Terms
    bias: Constant
    axis: int


def read_layer(site: NodeInfo) -> DenseLayer | None:
    """Return a MatMul, Gemm, Conv or ConvTranspose as sums; ``None`` if its weights move."""
    reader = _READERS.get(site.node.op_type) if operators.is_product(site.node) else None
    return reader(site) if reader is not None and site.is_float else None


def _layer(site: NodeInfo) -> ValueInfo | None:
    layer = read_layer(site)
    if layer is not None:
        found = dense(site, layer.x, layer.terms, layer.bias)
        if site.shape is None:
            return collapsed(found)
        place = axis_shape(layer.axis % len(site.shape), len(site.shape))
        return found.mapped(lambda array: array.reshape(place))
    count = None if not site.shapes[0] else site.shapes[0][-1]
    if site.node.op_type != "MatMul" or not site.is_float or count is None:
        return None
    # Both sides of the matrix product depend on the inputs.
    a, b = collapsed(site.info(0)), collapsed(site.info(1))
    is_bounded = a.is_bounded and b.is_bounded
    return total(site, multiplied(site, a, b), count) if is_bounded else None


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
    x, axis = (left, -1) if is_right else (right, -2)
    return DenseLayer(channels_on(x, len(before) + axis), terms, _no_bias(outputs), axis)


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
    bias = _bias(site, outputs, float(site.attr("beta", 1.0)))
    if bias is None:
        return None
    axis = 0 if site.attr("transA", 0) else 1
    return DenseLayer(channels_on(x, axis), _plain(table), bias, 1)


def _no_bias(outputs: int) -> Constant:
    return Constant(np.zeros(outputs, dtype=np.float64))


def _bias(site: NodeInfo, outputs: int, factor: float = 1.0) -> Constant | None:
    """Return the bias per output, ``None`` where it is not known or differs elsewhere."""
    if not site.has(2) or factor == 0.0:
        return _no_bias(outputs)
    constant = _weights(site, 2, least_rank=0)
    if constant is None or constant.values.size not in (1, outputs):
        return None
    if constant.values.size > 1 and constant.values.shape[-1] != outputs:
        return None
    flat = constant.mapped(lambda array: np.broadcast_to(array.reshape(-1), (outputs,)))
    return scaled(flat, factor)


def _convolution(site: NodeInfo) -> DenseLayer | None:
    x, weights = site.info(0), _weights(site, 1, least_rank=3)
    groups = int(site.attr("group", 1))
    if weights is None or weights.values.shape[0] % groups:
        return None
    first, second, *kernel = weights.values.shape
    taps = math.prod(kernel)
    if site.node.op_type == "Conv":
        outputs, inner, order = first // groups, second, (0, 1, 3, 2)
    else:
        outputs, inner, order = second, first // groups, (0, 2, 3, 1)
    axes = tuple(range(weights.values.ndim))
    grouped = arranged(weights, axes, (groups, first // groups, second, taps))
    table = arranged(grouped, order, (groups * outputs, taps, inner))
    group = np.arange(groups * outputs, dtype=np.int64) // outputs
    inputs = group[:, None] * inner + np.arange(inner, dtype=np.int64)
    bias = _bias(site, groups * outputs)
    if bias is None:
        return None
    terms = Terms(table, inputs[:, None, :], _patterns(site, tuple(kernel)))
    return DenseLayer(channels_on(x, 1), terms, bias, 1)


def _patterns(site: NodeInfo, kernel: tuple[int, ...]) -> Array | None:
    """Return all different sets of taps that count at some place, bool (patterns, taps)."""
    is_transposed = site.node.op_type == "ConvTranspose"
    if not is_padded(site) and not is_transposed:
        return np.ones((1, math.prod(kernel)), dtype=np.bool_)
    if is_transposed and (
        site.attr("auto_pad", "NOTSET") != "NOTSET" or site.attr("output_shape")
    ):
        # Libraries disagree about which side gets the odd element.
        return None
    sides = _sides(site, kernel)
    if sides is None:
        return None
    rows = [np.unique(side, axis=0) for side in sides]
    if math.prod(len(row) for row in rows) > _MOST_PATTERNS:
        return None
    found = [
        functools.reduce(lambda one, other: (one[:, None] & other).reshape(-1), choice)
        for choice in itertools.product(*rows)
    ]
    return np.array(found, dtype=np.bool_)


def _sides(site: NodeInfo, kernel: tuple[int, ...]) -> list[Array] | None:
    """Return which taps meet the input along each spatial axis, bool (outputs, taps)."""
    auto, pads = site.attr("auto_pad", "NOTSET"), site.attr("pads") or (0,) * len(kernel)
    strides, dilations = (
        tuple(site.attr(name) or (1,) * len(kernel)) for name in ("strides", "dilations")
    )
    sizes, outs = _inner(site.shapes[0]), _inner(site.shape)
    if sizes is None or outs is None:
        return None
    sides = []
    for k, (size, out, taps) in enumerate(zip(sizes, outs, kernel, strict=True)):
        stride, before = strides[k], pads[k]
        if auto != "NOTSET":
            total = max((out - 1) * stride + (taps - 1) * dilations[k] + 1 - size, 0)
            before = total // 2 if auto == "SAME_UPPER" else -(-total // 2)
        outputs, offsets = np.arange(out)[:, None], np.arange(taps) * dilations[k]
        if site.node.op_type == "Conv":
            place = outputs * stride - before + offsets
            sides.append(np.asarray((place >= 0) & (place < size)))
        else:
            place = outputs + before - offsets
            inside = (place >= 0) & (place < size * stride)
            sides.append(np.asarray(inside & (place % stride == 0)))
    return sides


def _inner(shape: Shape) -> list[int] | None:
    """Return the spatial sizes, ``None`` unless all are known and of moderate size."""
    if shape is None:
        return None
    known = [size for size in shape[2:] if size is not None]
    return known if len(known) == len(shape) - 2 and max(known) <= _LARGEST_SIDE else None


_READERS = {
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "Gemm": _gemm,
    "MatMul": _matmul,
}

RULES: RuleTable = dict.fromkeys(_READERS, _layer)
