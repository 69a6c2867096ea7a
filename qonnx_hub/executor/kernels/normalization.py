"""Numpy kernels that normalize by mean, variance or magnitude."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qonnx_hub.executor.kernels._numbers import (
    FLOAT32,
    FLOAT64,
    per_channel,
    scalar_like,
    widened,
)
from qonnx_hub.executor.kernels.elementwise import served
from qonnx_hub.executor.kernels.spec import Array, Kernel, KernelSpec, KernelTable

_STASH_TYPES: dict[int, np.dtype[Any]] = {1: FLOAT32, 11: FLOAT64}
"""``TensorProto.DataType`` of the type in which statistics are computed."""


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
        inverse = np.reciprocal(np.sqrt(variance + scalar_like(epsilon, variance)))
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
            raise spec.unserved("trains channels-last")
        return _training_batch_norm(epsilon, float(spec.attr("momentum", 0.9)))
    if spec.num_outputs != 1:
        raise spec.unserved(f"has {spec.num_outputs} outputs")
    known, reuse = folded_constants(spec), 0 in spec.reusable
    shaped: dict[int, list[Array]] = {}

    def kernel(x: Array, *parameters: Array) -> Array:
        factors = shaped.get(x.ndim)
        if factors is None:
            scale, bias, mean, variance = map(widened, parameters)
            pair = known or fold_batch_norm(scale, bias, mean, variance, epsilon)
            factors = [per_channel(values, x.ndim, axis) for values in pair]
            if known is not None:
                shaped[x.ndim] = factors
        wide = widened(x)
        in_place = reuse and wide.dtype == factors[0].dtype and wide.flags.writeable
        y = np.multiply(wide, factors[0], out=wide if in_place else None)
        y += factors[1]
        return y.astype(x.dtype, copy=False)

    return kernel


def _training_batch_norm(epsilon: float, momentum: float) -> Kernel:
    def kernel(
        x: Array, scale: Array, bias: Array, mean: Array, variance: Array
    ) -> tuple[Array, Array, Array]:
        wide = widened(x)
        axes = (0, *range(2, x.ndim))
        current = wide.mean(axis=axes), wide.var(axis=axes)
        factor, offset = fold_batch_norm(widened(scale), widened(bias), *current, epsilon)
        y = wide * per_channel(factor, x.ndim) + per_channel(offset, x.ndim)
        kept, new = scalar_like(momentum, wide), scalar_like(1.0 - momentum, wide)
        running_mean, running_var = (
            (widened(before) * kept + now * new).astype(mean.dtype)
            for before, now in zip((mean, variance), current, strict=True)
        )
        return y.astype(x.dtype, copy=False), running_mean, running_var

    return kernel


def _stash_type(spec: KernelSpec) -> np.dtype[Any]:
    """Return the dtype in which statistics are computed."""
    return _STASH_TYPES[spec.choice("stash_type", 1, _STASH_TYPES)]


def _centred(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Return ``x`` minus its mean, the mean and the variance over ``axes``, kept as ones."""
    mean = x.mean(axis=axes, keepdims=True)
    rest = x - mean
    return rest, mean, np.square(rest).mean(axis=axes, keepdims=True)


def _inverse_root(variance: Array, epsilon: float) -> Array:
    return np.asarray(np.reciprocal(np.sqrt(variance + scalar_like(epsilon, variance))))


def _layer_norm(spec: KernelSpec) -> Kernel:
    """Build LayerNormalization, and RMSNormalization, which subtracts no mean."""
    axis, epsilon = int(spec.attr("axis", -1)), float(spec.attr("epsilon", 1e-5))
    stash, outputs = _stash_type(spec), spec.num_outputs
    centres = spec.op_type == "LayerNormalization"

    def kernel(x: Array, scale: Array, bias: Array | None = None) -> Any:
        wide = x.astype(np.promote_types(stash, x.dtype), copy=False)
        axes = tuple(range(axis % x.ndim, x.ndim))
        rest = mean = wide
        if centres:
            mean = wide.mean(axis=axes, keepdims=True)
            rest = wide - mean
        inverse = _inverse_root(np.square(rest).mean(axis=axes, keepdims=True), epsilon)
        y = (rest * inverse).astype(x.dtype, copy=False) * scale
        if bias is not None:
            y += bias
        if outputs == 1:
            return y.astype(scale.dtype, copy=False)
        return (y, mean.astype(stash, copy=False), inverse.astype(stash, copy=False))[:outputs]

    return kernel


def _instance_norm(spec: KernelSpec) -> Kernel:
    epsilon = float(spec.attr("epsilon", 1e-5))

    def kernel(x: Array, scale: Array, bias: Array) -> Array:
        rest, _, variance = _centred(widened(x), tuple(range(2, x.ndim)))
        factor = _inverse_root(variance, epsilon) * per_channel(widened(scale), x.ndim)
        y: Array = rest * factor
        y += per_channel(widened(bias), x.ndim)
        return y.astype(x.dtype, copy=False)

    return kernel


def _group_norm(spec: KernelSpec) -> Kernel:
    groups, epsilon = spec.whole("num_groups", None), float(spec.attr("epsilon", 1e-5))
    stash, per_group = _stash_type(spec), spec.version < 21

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
        normed = (rest * _inverse_root(variance, epsilon)).reshape(x.shape)
        y: Array = normed.astype(x.dtype, copy=False) * per_channel(scale, x.ndim)
        y += per_channel(bias, x.ndim)
        return y

    return kernel


def _local_response(spec: KernelSpec) -> Kernel:
    alpha, beta = float(spec.attr("alpha", 1e-4)), float(spec.attr("beta", 0.75))
    bias, size = float(spec.attr("bias", 1.0)), spec.whole("size", None)
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2

    def kernel(x: Array) -> Array:
        wide = widened(x)
        square, channels = np.square(wide), x.shape[1]
        total = np.zeros_like(square)
        for shift in range(-before, after + 1):
            low, high = max(0, -shift), min(channels, channels - shift)
            total[:, low:high] += square[:, low + shift : high + shift]
        total *= scalar_like(alpha / size, wide)
        total += scalar_like(bias, wide)
        return (wide / np.power(total, scalar_like(beta, wide))).astype(x.dtype, copy=False)

    return kernel


def _mean_variance(spec: KernelSpec) -> Kernel:
    axes = tuple(spec.attr("axes", (0, 2, 3)))

    def kernel(x: Array) -> Array:
        rest, _, variance = _centred(widened(x), axes)
        # 1e-9 keeps a constant input from dividing by zero; ONNX writes it into the function.
        y: Array = rest / (np.sqrt(variance) + scalar_like(1e-9, rest))
        return y.astype(x.dtype, copy=False)

    return kernel


def _lp_normalization(spec: KernelSpec) -> Kernel:
    axis, power = int(spec.attr("axis", -1)), spec.choice("p", 2, (1, 2))

    def kernel(x: Array) -> Array:
        wide = widened(x)
        terms = np.abs(wide) if power == 1 else np.square(wide)
        total = terms.sum(axis=axis, keepdims=True)
        norm = total if power == 1 else np.sqrt(total)
        y: Array = np.divide(wide, norm, out=np.zeros_like(wide), where=norm != 0)
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
    ("", "RMSNormalization"): served(_layer_norm, "axis", "epsilon", "stash_type"),
}
