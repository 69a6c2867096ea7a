"""Numpy kernels of onnxruntime's own integer operators.

Sums are of integers and exact; what scales them follows the operator documents. Where these
say ``Quantize``, or nothing, onnxruntime 1.32 rounds half to even in one of two places:

* ``rint(value) + zero_point``: QGemm, QLinearConcat, QLinearGlobalAveragePool,
  QLinearLeakyRelu, QLinearReduceMean, QLinearSigmoid, QLinearSoftmax, QLinearWhere;
* ``rint(value + zero_point)``: QLinearAdd, QLinearAveragePool, QLinearMul.

Behind an odd zero point the two differ at every tie; the kernels round where it does.
onnxruntime computes some values in float32 on the way, in an order that depends on the
processor. Here they are computed as if exactly, so that a value within a few float32 roundings
of a tie may be one step away from onnxruntime's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qonnx_hub.executor.kernels._numbers import BYTES, FLOAT32, FLOAT64, requantize, saturated
from qonnx_hub.executor.kernels._window import ATTRIBUTES
from qonnx_hub.executor.kernels.elementwise import served, stateless
from qonnx_hub.executor.kernels.matmul import integer_product
from qonnx_hub.executor.kernels.pool import placement_of, window_count, window_total
from qonnx_hub.executor.kernels.quantize import KERNELS as STANDARD
from qonnx_hub.executor.kernels.quantize import dynamic_quantization
from qonnx_hub.executor.kernels.spec import Array, Factory, Kernel, KernelSpec, KernelTable


def _single(parameter: Array | None, default: float) -> Array:
    """Return a scale or zero point of a whole tensor as a float64 scalar.

    Raises:
        ValueError: It is not single.
    """
    if parameter is None:
        return np.array(default, dtype=FLOAT64)
    if parameter.size != 1:
        raise ValueError(f"a parameter of shape {parameter.shape}, where one number is needed")
    return parameter.reshape(()).astype(FLOAT64)


@dataclass(frozen=True, slots=True)
class _Operand:
    """An 8-bit tensor with its scale and zero point, as a node lists them.

    Attributes:
        codes: int8 or uint8.
        scale: Of the whole tensor.
        zero_point: Of the whole tensor; ``None`` where it is left out.
    """

    codes: Array
    scale: Array
    zero_point: Array | None

    def __post_init__(self) -> None:
        if self.codes.dtype not in BYTES:
            raise TypeError(f"takes int8 or uint8, not {self.codes.dtype}")

    def levels(self) -> Array:
        """Return codes minus zero point, float64."""
        y = self.codes.astype(FLOAT64)
        if self.zero_point is not None and self.zero_point.any():
            y -= _single(self.zero_point, 0.0)
        return y


def _codes(
    value: Array, zero_point: Array | None, dtype: np.dtype[Any], *, of_sum: bool = False
) -> Array:
    """Return ``saturate(rint(value) + zero_point)``, or ``rint`` of the sum."""
    zero = _single(zero_point, 0.0).astype(value.dtype)
    return saturated(np.rint(value + zero) if of_sum else np.rint(value) + zero, dtype)


def _pairwise(combine: Callable[[Array, Array, Array, Array], Array]) -> Factory:
    """Return the factory of an operator of two 8-bit tensors.

    Args:
        combine: (levels of a, scale of a, levels of b, scale of b) -> the result times the
            output's scale, float64. A tie is exact in float64 for any float32 scales: its
            significand has no more bits than that of the output scale times a code.
    """

    def kernel(*inputs: Any) -> Array:
        a, b = _Operand(*inputs[:3]), _Operand(*inputs[3:6])
        y_scale, y_zero = [*inputs[6:], None][:2]
        value = combine(a.levels(), _single(a.scale, 1.0), b.levels(), _single(b.scale, 1.0))
        quotient = np.asarray(value / _single(y_scale, 1.0))
        return _codes(quotient, y_zero, a.codes.dtype, of_sum=True)

    return stateless(kernel)


_OfOne = Callable[[_Operand, Array, Array | None], Array]
"""(operand, output scale, output zero point) -> codes."""


def _of_one(make: Callable[[KernelSpec], _OfOne], *attributes: str) -> Factory:
    """Return the factory of an operator of one 8-bit tensor, with its known attributes."""

    def factory(spec: KernelSpec) -> Kernel:
        if spec.attr("channels_last", 0):
            raise spec.unserved("is channels-last")
        compute = make(spec)
        return lambda *inputs: compute(_Operand(*inputs[:3]), *[*inputs[3:], None][:2])

    return served(factory, *attributes)


def _average_pool(spec: KernelSpec) -> _OfOne:
    place_on, include = placement_of(spec), bool(spec.attr("count_include_pad", 0))

    def compute(x: _Operand, y_scale: Array, y_zero: Array | None) -> Array:
        place = place_on(x.codes.shape[2:])
        total = window_total(x.levels(), place) * _single(x.scale, 1.0)
        total /= window_count(place, include).astype(FLOAT64) * _single(y_scale, 1.0)
        return _codes(total, y_zero, x.codes.dtype, of_sum=True)

    return compute


def _mean(spec: KernelSpec) -> _OfOne:
    """Build QLinearReduceMean, and QLinearGlobalAveragePool, which has no axes."""
    axes, keeps = spec.attr("axes"), bool(spec.attr("keepdims", 1))

    def compute(x: _Operand, y_scale: Array, y_zero: Array | None) -> Array:
        over = tuple(range(2, x.codes.ndim)) if axes is None else tuple(int(a) for a in axes)
        total = x.codes.sum(axis=over, keepdims=keeps, dtype=np.int64).astype(FLOAT64)
        count = x.codes.size / max(total.size, 1)
        total -= count * _single(x.zero_point, 0.0)
        total *= _single(x.scale, 1.0)
        quotient = np.asarray(total / (count * _single(y_scale, 1.0)))
        return _codes(quotient, y_zero, x.codes.dtype)

    return compute


def _recoded(
    x: _Operand,
    y_scale: Array,
    y_zero: Array | None,
    function: Callable[[Array], Array] = lambda x: x,
) -> Array:
    """Return ``quantize(function(dequantize(x)))``, looked up in a table of all 256 codes."""
    codes = np.arange(256, dtype=np.uint8).view(x.codes.dtype)
    levels = codes.astype(FLOAT32) - _single(x.zero_point, 0.0).astype(FLOAT32)
    values = function(np.asarray(levels * x.scale.reshape(()).astype(FLOAT32)))
    quotient = np.asarray(values / y_scale.reshape(()).astype(FLOAT32))
    table = _codes(quotient, y_zero, x.codes.dtype)
    return np.asarray(table[np.ascontiguousarray(x.codes).view(np.uint8)])


def _elementwise(function: Callable[..., Array], **defaults: float) -> Factory:
    """Return the factory of a float32 function of one 8-bit tensor and float attributes."""

    def make(spec: KernelSpec) -> _OfOne:
        values = [np.float32(spec.attr(name, value)) for name, value in defaults.items()]
        return functools.partial(_recoded, function=lambda x: function(x, *values))

    return _of_one(make, *defaults)


def _all_recoded(inputs: Sequence[Any], *output: Any) -> list[Array]:
    """Return 8-bit tensors, each followed by its scale and zero point, in the output's."""
    starts = range(0, len(inputs), 3)
    return [_recoded(_Operand(*inputs[at : at + 3]), *output) for at in starts]


def _concat(spec: KernelSpec) -> Kernel:
    axis = int(spec.attr("axis"))
    return lambda scale, zero, *x: np.concatenate(_all_recoded(x, scale, zero), axis=axis)


def _softmax(spec: KernelSpec) -> _OfOne:
    flat = int(spec.attr("opset")) < 13
    axis = int(spec.attr("axis", 1 if flat else -1))

    def compute(x: _Operand, y_scale: Array, y_zero: Array | None) -> Array:
        # A zero point would cancel: only distances from the largest level count.
        levels = x.codes.astype(FLOAT64)
        over = axis % levels.ndim
        # Before opset 13 all axes from that one on are one.
        axes = tuple(range(over, levels.ndim)) if flat else (over,)
        levels -= levels.max(axis=axes, keepdims=True)
        powers = np.exp(levels * _single(x.scale, 1.0))
        shares = powers / powers.sum(axis=axes, keepdims=True)
        quotient = np.asarray(shares / _single(y_scale, 1.0))
        return _codes(quotient, y_zero, x.codes.dtype)

    return compute


def _gemm(spec: KernelSpec) -> Kernel:
    turn_a, turn_b = bool(spec.attr("transA", 0)), bool(spec.attr("transB", 0))
    alpha = np.float32(spec.attr("alpha", 1.0))
    if spec.has_input(7) != spec.has_input(8):
        raise spec.unserved("has only one of output scale and zero point")
    product = integer_product(spec, 3, 5, transpose=turn_b)

    def kernel(*inputs: Any) -> Array:
        a, a_scale, a_zero, b, b_scale, b_zero, *rest = inputs
        bias, y_scale, y_zero = [*rest, None, None, None][:3]
        left, right = a.T if turn_a else a, b.T if turn_b else b
        total = product(left, a_zero, right, b_zero)
        if bias is not None:
            # Sums that float32 holds may leave its whole numbers once the bias is added.
            total = total.astype(FLOAT64) + bias
        scale = alpha * a_scale.reshape(()) * b_scale.reshape(-1)
        if y_scale is None or y_zero is None:
            return np.asarray(total.astype(FLOAT32) * scale)
        return requantize(total, scale / y_scale.reshape(()), y_zero.reshape(()))

    return kernel


def _scaled(total: Array, scale: Array, bias: Array | None) -> Array:
    """Return exact sums as float32 values, with a float32 bias."""
    y = total.astype(FLOAT32)
    y *= scale
    if bias is not None:
        y += bias
    return y


def _matmul_to_float(spec: KernelSpec) -> Kernel:
    product = integer_product(spec, 1, 5)

    def kernel(a: Array, b: Array, a_scale: Array, b_scale: Array, *rest: Any) -> Array:
        a_zero, b_zero, bias = [*rest, None, None, None][:3]
        if a_scale.size != 1:
            raise ValueError("MatMulIntegerToFloat with a scale per row of its first input")
        scale = a_scale.reshape(()) * b_scale
        return _scaled(product(a, a_zero, b, b_zero), scale, bias)

    return kernel


def _dynamic_matmul(spec: KernelSpec) -> Kernel:
    product = integer_product(spec, 1, 3)

    def kernel(x: Array, b: Array, b_scale: Array, *rest: Any) -> Array:
        b_zero, bias = [*rest, None, None][:2]
        codes, scale, zero = dynamic_quantization(x)
        return _scaled(product(codes, zero, b, b_zero), scale * b_scale, bias)

    return kernel


_OPERATORS: Mapping[str, Factory] = {
    "DequantizeLinear": STANDARD["", "DequantizeLinear"],
    "DynamicQuantizeMatMul": served(_dynamic_matmul),
    "MatMulIntegerToFloat": served(_matmul_to_float),
    "QGemm": served(_gemm, "alpha", "transA", "transB"),
    "QLinearAdd": _pairwise(lambda a, a_scale, b, b_scale: a * a_scale + b * b_scale),
    "QLinearAveragePool": _of_one(
        _average_pool, "ceil_mode", "channels_last", "count_include_pad", *ATTRIBUTES
    ),
    "QLinearConcat": served(_concat, "axis"),
    "QLinearGlobalAveragePool": _of_one(_mean, "channels_last"),
    "QLinearLeakyRelu": _elementwise(
        lambda x, alpha: np.where(x < 0, x * alpha, x), alpha=0.01
    ),
    "QLinearMul": _pairwise(lambda a, a_scale, b, b_scale: a * b * a_scale * b_scale),
    "QLinearReduceMean": _of_one(_mean, "axes", "keepdims"),
    "QLinearSigmoid": _elementwise(lambda x: np.float32(1) / (np.float32(1) + np.exp(-x))),
    "QLinearSoftmax": _of_one(_softmax, "axis", "opset"),
    "QLinearWhere": stateless(
        lambda condition, *x: np.where(condition, *_all_recoded(x[:6], *x[6:]))
    ),
    "QuantizeLinear": STANDARD["", "QuantizeLinear"],
}

KERNELS: KernelTable = {("com.microsoft", op): kernel for op, kernel in _OPERATORS.items()}
