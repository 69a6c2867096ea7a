"""Numpy kernels of convolutions, of floats and of integers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from qonnx_hub.executor.kernels._convolve import Algorithm, Filters, algorithm_for
from qonnx_hub.executor.kernels._numbers import (
    BYTE_REACH,
    FLOAT32,
    exact_float,
    per_channel,
    requantize,
    require_bytes,
    shifted,
    to_int32,
    widened,
)
from qonnx_hub.executor.kernels._transpose import conv_transpose
from qonnx_hub.executor.kernels._window import ATTRIBUTES, Shape, group_of, placer, window_of
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
    place, group = placer(window_of(spec, weight)), group_of(spec)

    @functools.lru_cache(maxsize=16)
    def choose(shape: Shape, weight_shape: Shape) -> Algorithm:
        return algorithm_for(
            shape, weight_shape, group, place(tuple(shape[2:]), tuple(weight_shape[2:]))
        )

    return choose


def _conv(spec: KernelSpec) -> Kernel:
    choose, group = _chooser(spec, 1), group_of(spec)
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


class _IntegerFilters:
    """The weight of an integer convolution minus its zero point, as floats.

    Where weight and zero point are constant, they are combined once, and their values decide
    how wide the sum must be; else its length does.
    """

    def __init__(self, spec: KernelSpec, weight: int, zero_point: int, bias: int) -> None:
        """Combine what is constant.

        Args:
            spec: The node.
            weight: Position of the weight among its inputs.
            zero_point: Position of the weight's zero point.
            bias: Position of the int32 bias.
        """
        self.group = group_of(spec)
        self.known: Filters | None = None
        w, zero, b = (spec.constant(index) for index in (weight, zero_point, bias))
        if w is None or not spec.is_fixed(zero_point, bias):
            return
        exact = self._minus(w, zero, FLOAT32)
        sums = np.abs(exact).reshape(len(exact), -1).sum(axis=1, dtype=np.float64)
        bound = BYTE_REACH * float(sums.max(initial=0.0)) + _largest(b)
        self.known = Filters(exact.astype(exact_float(bound), copy=False), self.group)

    def __call__(self, w: Array, zero_point: Array | None, bias: Array | None) -> Filters:
        """Return the filters for the weight and zero point that a call brings."""
        if self.known is not None:
            return self.known
        bound = BYTE_REACH * BYTE_REACH * (w.size / len(w)) + _largest(bias)
        return Filters(self._minus(w, zero_point, exact_float(bound)), self.group)

    @staticmethod
    def _minus(w: Array, zero_point: Array | None, dtype: np.dtype[np.generic]) -> Array:
        if zero_point is not None:
            zero_point = zero_point.reshape(-1, *(1,) * (w.ndim - 1))
        return shifted(w, zero_point, dtype)


def _largest(bias: Array | None) -> float:
    return 0.0 if bias is None else float(np.abs(bias.astype(np.float64)).max(initial=0.0))


def _scalar(zero_point: Array | None) -> Array | None:
    """Return the zero point of the input, which is one for all channels."""
    return None if zero_point is None else zero_point.reshape(())


def _conv_integer(spec: KernelSpec) -> Kernel:
    choose = _chooser(spec, 1)
    filters_of = _IntegerFilters(spec, 1, 3, bias=4)

    def kernel(x: Array, w: Array, *zero_points: Array | None) -> Array:
        x_zero, w_zero = [*zero_points, None, None][:2]
        filters = filters_of(w, w_zero, None)
        exact = shifted(x, _scalar(x_zero), filters.weight.dtype)
        return to_int32(choose(x.shape, filters.weight.shape)(exact, filters))

    return kernel


def _qlinear_conv(spec: KernelSpec) -> Kernel:
    require_bytes(spec)
    choose = _chooser(spec, 3)
    filters_of = _IntegerFilters(spec, 3, 5, bias=8)

    def kernel(*inputs: Any) -> Array:
        x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias = [*inputs, None][:9]
        filters = filters_of(w, w_zero, bias)
        exact = shifted(x, _scalar(x_zero), filters.weight.dtype)
        total = choose(x.shape, filters.weight.shape)(exact, filters)
        if bias is not None:
            total += per_channel(bias.astype(total.dtype), total.ndim)
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
