"""Numpy kernels that normalize by mean, variance or magnitude."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from qonnx_hub.executor.kernels._numbers import FLOAT32, FLOAT64, SHORT_FLOATS, widened
from qonnx_hub.executor.kernels.elementwise import served
from qonnx_hub.executor.kernels.spec import Array, Kernel, KernelSpec, KernelTable, Unserved

_STASH_TYPES: dict[int, np.dtype[Any]] = {1: FLOAT32, 11: FLOAT64}
"""``TensorProto.DataType`` of the type in which statistics are computed."""


def _number(value: float, like: Array) -> Array:
    """Return ``value`` as a scalar array of the dtype of ``like``."""
    return np.asarray(value, dtype=like.dtype)


def _along(values: Array, axis: int, rank: int) -> Array:
    """Return one value per channel, ready to broadcast to arrays with channels on ``axis``."""
    return values.reshape(-1, *(1,) * (rank - 1 - axis % rank))


def fold_batch_norm(
    scale: Array, bias: Array, mean: Array, variance: Array, epsilon: float
) -> tuple[Array, Array]:
    """Return factor and offset of a BatchNormalization: y = x * factor + offset.

    This order of operations, each rounded by itself, gives the bits that onnxruntime gives
    (checked for version 1.32 without optimizations); (x - mean) / std * scale + bias does not.

    Args:
        scale: (C,); likewise the others.
        bias: Added at the end.
        mean: Subtracted from the input.
        variance: Divided by its root.
        epsilon: Added to the variance.
    """
    # Statistics may have no finite factor; whoever reads the outputs sees that.
    with np.errstate(all="ignore"):
        inverse = np.reciprocal(np.sqrt(variance + _number(epsilon, variance)))
        factor = inverse * scale
        return factor, bias - mean * factor


def folded_constants(spec: KernelSpec) -> tuple[Array, Array] | None:
    """Return factor and offset, (C,) each, of a node whose parameters are all constant."""
    parameters = [spec.constant(index) for index in range(1, 5)]
    if any(parameter is None for parameter in parameters):
        return None
    scale, bias, mean, variance = (widened(p) for p in parameters if p is not None)
    return fold_batch_norm(scale, bias, mean, variance, float(spec.attr("epsilon", 1e-5)))


def batch_norm(spec: KernelSpec, axis: int = 1) -> Kernel:
    """Return the kernel of a BatchNormalization node.

    Args:
        spec: The node.
        axis: Axis of the channels.

    Raises:
        Unserved: The node trains and its channels are not on axis 1.
    """
    epsilon = float(spec.attr("epsilon", 1e-5))
    if spec.attr("training_mode", 0):
        if axis != 1:
            raise Unserved(f"BatchNormalization '{spec.name}' trains channels-last")
        return _training_batch_norm(epsilon, float(spec.attr("momentum", 0.9)))
    if spec.num_outputs != 1:
        raise Unserved(f"BatchNormalization '{spec.name}' has {spec.num_outputs} outputs")
    known = folded_constants(spec)
    if known is not None and known[0].dtype == FLOAT32:
        return _folded_batch_norm(*known, axis, 0 in spec.reusable)

    def kernel(x: Array, s: Array, b: Array, m: Array, v: Array) -> Array:
        s, b, m, v = (widened(parameter) for parameter in (s, b, m, v))
        factor, offset = known or fold_batch_norm(s, b, m, v, epsilon)
        y = widened(x) * _along(factor, axis, x.ndim)
        y += _along(offset, axis, x.ndim)
        return y.astype(x.dtype, copy=False)

    return kernel


def _folded_batch_norm(factor: Array, offset: Array, axis: int, reuse: bool) -> Kernel:
    """Return the kernel for constant float32 parameters."""
    shaped = {}

    def kernel(x: Array, *_: Array) -> Array:
        rank = x.ndim
        if rank not in shaped:
            shaped[rank] = (_along(factor, axis, rank), _along(offset, axis, rank))
        a, b = shaped[rank]
        if x.dtype in SHORT_FLOATS:
            return (widened(x) * a + b).astype(x.dtype)
        in_place = reuse and x.dtype == FLOAT32 and x.flags.writeable
        y = np.multiply(x, a, out=x if in_place else None)
        y += b
        return y

    return kernel


def _training_batch_norm(epsilon: float, momentum: float) -> Kernel:
    def kernel(
        x: Array, scale: Array, bias: Array, mean: Array, variance: Array
    ) -> tuple[Array, Array, Array]:
        wide = widened(x)
        axes = (0, *range(2, x.ndim))
        current_mean = wide.mean(axis=axes)
        current_variance = wide.var(axis=axes)
        factor, offset = fold_batch_norm(
            widened(scale), widened(bias), current_mean, current_variance, epsilon
        )
        y = wide * _along(factor, 1, x.ndim) + _along(offset, 1, x.ndim)
        kept, new = _number(momentum, wide), _number(1.0 - momentum, wide)
        running_mean = (widened(mean) * kept + current_mean * new).astype(mean.dtype)
        running_var = (widened(variance) * kept + current_variance * new).astype(mean.dtype)
        return y.astype(x.dtype, copy=False), running_mean, running_var

    return kernel


def _stash_type(spec: KernelSpec) -> np.dtype[Any]:
    """Return the dtype in which statistics are computed.

    Raises:
        Unserved: It is neither float32 nor float64.
    """
    code = spec.attr("stash_type", 1)
    if code not in _STASH_TYPES:
        raise Unserved(f"{spec.op_type} '{spec.name}' has stash_type {code}")
    return _STASH_TYPES[code]


def _centred(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Return ``x`` minus its mean, the mean and the variance over ``axes``, kept as ones."""
    mean = x.mean(axis=axes, keepdims=True)
    rest = x - mean
    return rest, mean, np.square(rest).mean(axis=axes, keepdims=True)


def _inverse_root(variance: Array, epsilon: float) -> Array:
    return np.asarray(np.reciprocal(np.sqrt(variance + _number(epsilon, variance))))


def _layer_norm(spec: KernelSpec) -> Kernel:
    axis, epsilon = int(spec.attr("axis", -1)), float(spec.attr("epsilon", 1e-5))
    stash, outputs = _stash_type(spec), spec.num_outputs

    def kernel(x: Array, scale: Array, bias: Array | None = None) -> Any:
        wide = x.astype(np.promote_types(stash, x.dtype), copy=False)
        rest, mean, variance = _centred(wide, tuple(range(axis % x.ndim, x.ndim)))
        inverse = _inverse_root(variance, epsilon)
        y = (rest * inverse).astype(x.dtype, copy=False) * scale
        if bias is not None:
            y += bias
        if outputs == 1:
            return y
        return (y, mean.astype(stash, copy=False), inverse.astype(stash, copy=False))[:outputs]

    return kernel


def _rms_norm(spec: KernelSpec) -> Kernel:
    axis, epsilon = int(spec.attr("axis", -1)), float(spec.attr("epsilon", 1e-5))
    stash = _stash_type(spec)

    def kernel(x: Array, scale: Array) -> Array:
        wide = x.astype(np.promote_types(stash, x.dtype), copy=False)
        axes = tuple(range(axis % x.ndim, x.ndim))
        inverse = _inverse_root(np.square(wide).mean(axis=axes, keepdims=True), epsilon)
        y = (wide * inverse).astype(x.dtype, copy=False) * scale
        return y.astype(scale.dtype, copy=False)

    return kernel


def _instance_norm(spec: KernelSpec) -> Kernel:
    epsilon = float(spec.attr("epsilon", 1e-5))

    def kernel(x: Array, scale: Array, bias: Array) -> Array:
        rest, _, variance = _centred(widened(x), tuple(range(2, x.ndim)))
        factor = _inverse_root(variance, epsilon) * _along(widened(scale), 1, x.ndim)
        y: Array = rest * factor
        y += _along(widened(bias), 1, x.ndim)
        return y.astype(x.dtype, copy=False)

    return kernel


def _group_norm(spec: KernelSpec) -> Kernel:
    groups, epsilon = spec.attr("num_groups"), float(spec.attr("epsilon", 1e-5))
    stash, per_group = _stash_type(spec), spec.version < 21
    if groups is None or groups < 1:
        raise Unserved(f"GroupNormalization '{spec.name}' has {groups} groups")

    def kernel(x: Array, scale: Array, bias: Array) -> Array:
        samples, channels = x.shape[:2]
        if channels % groups:
            raise ValueError(f"{channels} channels do not fall into {groups} groups")
        if per_group:
            scale, bias = (np.repeat(p, channels // groups) for p in (scale, bias))
        wide = x.astype(np.promote_types(stash, x.dtype), copy=False)
        rest, _, variance = _centred(
            wide.reshape(samples, groups, math.prod(x.shape[1:]) // groups), (2,)
        )
        y = (
            (rest * _inverse_root(variance, epsilon))
            .reshape(x.shape)
            .astype(x.dtype, copy=False)
        )
        y = y * _along(scale, 1, x.ndim)
        y += _along(bias, 1, x.ndim)
        return y

    return kernel


def _local_response(spec: KernelSpec) -> Kernel:
    alpha, beta = float(spec.attr("alpha", 1e-4)), float(spec.attr("beta", 0.75))
    bias, size = float(spec.attr("bias", 1.0)), spec.attr("size")
    if size is None or size < 1:
        raise Unserved(f"LRN '{spec.name}' has size {size}")
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2

    def kernel(x: Array) -> Array:
        wide = widened(x)
        square, channels = np.square(wide), x.shape[1]
        total = np.zeros_like(square)
        for shift in range(-before, after + 1):
            low, high = max(0, -shift), min(channels, channels - shift)
            total[:, low:high] += square[:, low + shift : high + shift]
        total *= _number(alpha / size, wide)
        total += _number(bias, wide)
        return (wide / np.power(total, _number(beta, wide))).astype(x.dtype, copy=False)

    return kernel


def _mean_variance(spec: KernelSpec) -> Kernel:
    axes = tuple(spec.attr("axes", (0, 2, 3)))

    def kernel(x: Array) -> Array:
        rest, _, variance = _centred(widened(x), axes)
        # 1e-9 keeps a constant input from dividing by zero; ONNX writes it into the function.
        y: Array = rest / (np.sqrt(variance) + _number(1e-9, rest))
        return y.astype(x.dtype, copy=False)

    return kernel


def _lp_normalization(spec: KernelSpec) -> Kernel:
    axis, power = int(spec.attr("axis", -1)), int(spec.attr("p", 2))
    norms: dict[int, Callable[[Array], Array]] = {
        1: lambda x: np.abs(x).sum(axis=axis, keepdims=True),
        2: lambda x: np.sqrt(np.square(x).sum(axis=axis, keepdims=True)),
    }
    if power not in norms:
        raise Unserved(f"LpNormalization '{spec.name}' has p={power}")
    norm_of = norms[power]

    def kernel(x: Array) -> Array:
        wide = widened(x)
        norm = norm_of(wide)
        y = np.divide(wide, norm, out=np.zeros_like(wide), where=norm != 0)
        return y.astype(x.dtype, copy=False)

    return kernel


KERNELS: KernelTable = {
    ("", "BatchNormalization"): served(batch_norm, "epsilon", "momentum", "training_mode"),
    ("", "GroupNormalization"): served(_group_norm, "epsilon", "num_groups", "stash_type"),
    ("", "InstanceNormalization"): served(_instance_norm, "epsilon"),
    ("", "LRN"): served(_local_response, "alpha", "beta", "bias", "size"),
    ("", "LayerNormalization"): served(_layer_norm, "axis", "epsilon", "stash_type"),
    ("", "LpNormalization"): served(_lp_normalization, "axis", "p"),
    ("", "MeanVarianceNormalization"): served(_mean_variance, "axes"),
    ("", "RMSNormalization"): served(_rms_norm, "axis", "epsilon", "stash_type"),
}
