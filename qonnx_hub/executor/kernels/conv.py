"""Numpy kernels of convolutions, of floats and of integers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from qonnx_hub.executor.kernels._convolve import Algorithm, Filters, algorithm_for
from qonnx_hub.executor.kernels._numbers import (
    FLOAT32,
    any_factor,
    exact_factor,
    per_channel,
    requantize,
    require_bytes,
    shifted,
    to_int32,
    widened,
)
from qonnx_hub.executor.kernels._transpose import conv_transpose
from qonnx_hub.executor.kernels._window import ATTRIBUTES, Shape, window_of
from qonnx_hub.executor.kernels.elementwise import served
from qonnx_hub.executor.kernels.spec import Array, Kernel, KernelSpec, KernelTable


def _chooser(spec: KernelSpec, weight: int) -> Callable[[Shape, Shape], Algorithm]:
    """Return what gives the algorithm for an input and a weight shape, and remembers it.

    Args:
        spec: The node.
        weight: Position of the weight among its inputs.

    Raises:
        Unserved: Group or window attributes are out of range, or contradict the weight.
    """
    window, group = window_of(spec, weight), spec.whole("group", 1)

    @functools.lru_cache(maxsize=16)
    def choose(shape: Shape, weight_shape: Shape) -> Algorithm:
        place = window.over(tuple(shape[2:]), tuple(weight_shape[2:]))
        return algorithm_for(shape, weight_shape, group, place)

    return choose


def _conv(spec: KernelSpec) -> Kernel:
    choose, group = _chooser(spec, 1), spec.whole("group", 1)
    weight, bias = spec.constant(1), spec.constant(2)
    known = None if weight is None else Filters(widened(weight), group)
    addend = None
    if bias is not None and weight is not None:
        addend = per_channel(widened(bias), weight.ndim)

    def kernel(x: Array, w: Array, b: Array | None = None) -> Array:
        filters = known or Filters(widened(w), group)
        wide = widened(x)
        y = choose(x.shape, filters.weight.shape)(wide, filters)
        if addend is not None:
            y += addend
        elif b is not None:
            y += per_channel(widened(b), y.ndim)
        return y if wide is x else y.astype(x.dtype)

    return kernel


def _exact_sums(spec: KernelSpec, weight: int, bias: int) -> Callable[..., Array]:
    """Return the convolution of 8-bit integers minus their zero points, as exact floats.

    Where weight and zero point are constant, they are combined once, and their values decide
    how wide the sum must be; else its length does.

    Args:
        spec: The node.
        weight: Position of the weight among its inputs; its zero point is two behind.
        bias: Position of the int32 bias, which must fit into the sums as well.

    Returns:
        (x, zero point of x, weight, its zero point, bias) -> sums, without the bias.
    """
    choose, group = _chooser(spec, weight), spec.whole("group", 1)
    w, zero, b = (spec.constant(index) for index in (weight, weight + 2, bias))
    known: Filters | None = None
    if w is not None and spec.is_fixed(weight + 2, bias):
        axes = tuple(range(1, w.ndim))
        known = Filters(exact_factor(w, _per_filter(zero, w), axes, _largest(b)), group)

    def sums(x: Array, x_zero: Array | None, w: Array, *rest: Array | None) -> Array:
        filters = known
        if filters is None:
            w_zero, bias = rest
            factor = any_factor(w, _per_filter(w_zero, w), w[0].size, _largest(bias))
            filters = Filters(factor, group)
        x_zero = None if x_zero is None else x_zero.reshape(())
        exact = shifted(x, x_zero, filters.weight.dtype)
        return choose(x.shape, filters.weight.shape)(exact, filters)

    return sums


def _per_filter(zero_point: Array | None, weight: Array) -> Array | None:
    return None if zero_point is None else per_channel(zero_point, weight.ndim, axis=0)


def _largest(bias: Array | None) -> float:
    return 0.0 if bias is None else float(np.abs(bias.astype(np.float64)).max(initial=0.0))


def _conv_integer(spec: KernelSpec) -> Kernel:
    sums = _exact_sums(spec, 1, bias=4)
    return lambda x, w, x_zero=None, w_zero=None: to_int32(sums(x, x_zero, w, w_zero, None))


def _qlinear_conv(spec: KernelSpec) -> Kernel:
    require_bytes(spec)
    sums = _exact_sums(spec, 3, bias=8)

    def kernel(*inputs: Any) -> Array:
        x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias = [*inputs, None][:9]
        total = sums(x, x_zero, w, w_zero, bias)
        if bias is not None:
            total += per_channel(bias.astype(total.dtype), total.ndim)
        if total.dtype != FLOAT32:
            total = to_int32(total)  # the accumulator of the file, which holds no more
        multiplier = (x_scale.reshape(()) * w_scale) / y_scale.reshape(())
        scale = per_channel(multiplier.astype(FLOAT32, copy=False), total.ndim)
        return requantize(total, scale, y_zero.reshape(()))

    return kernel


KERNELS: KernelTable = {
    ("", "Conv"): served(_conv, "group", *ATTRIBUTES),
    ("", "ConvInteger"): served(_conv_integer, "group", *ATTRIBUTES),
    ("", "ConvTranspose"): served(
        conv_transpose, "group", "output_padding", "output_shape", *ATTRIBUTES
    ),
    ("", "QLinearConv"): served(_qlinear_conv, "group", *ATTRIBUTES),
}
