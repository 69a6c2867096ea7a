"""Normalizations, with the order of operations that each generation of Keras has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx_ir import Value

from qonnx_hub_adapters.keras_files.graph import Layer
from qonnx_hub_adapters.keras_files.kinds import Kind, Use
from qonnx_hub_adapters.keras_files.scope import Scope
from qonnx_hub_adapters.keras_files.variables import LayerWeights, Variables, variables
from qonnx_hub_ir.quantizers import Array


def batchnorm_variables(layer: Layer) -> Variables:
    """Return the variables of a batch normalization."""
    c = layer.config
    own = [n for n, k in (("gamma", "scale"), ("beta", "center")) if c.get(k, True)]
    return variables(*own, fixed=("moving_mean", "moving_variance"))


def one_axis(s: Scope, axis: Any, rank: int) -> int:
    """Return the one axis that a layer normalizes along."""
    axes = [axis] if isinstance(axis, int) else list(axis)
    if len(axes) != 1:
        raise s.fail(f"normalizes along {len(axes)} axes")
    return int(axes[0]) % rank


def along(values: Array, axis: int, rank: int) -> Array:
    """Return a vector with axes of length 1 around it, ready to broadcast."""
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape) if axis != rank - 1 else values


def inverse_of(weights: LayerWeights, epsilon: float) -> Array:
    """Return ``gamma / sqrt(variance + epsilon)`` as TensorFlow rounds it."""
    deviation = np.sqrt((weights["moving_variance"] + np.float32(epsilon)).astype(np.float32))
    inverse = (np.float32(1) / deviation).astype(np.float32)
    gamma = weights.get("gamma")
    return np.asarray(inverse if gamma is None else inverse * gamma, dtype=np.float32)


def _batchnorm(s: Scope, use: Use) -> Value:
    rank = s.rank(use.x)
    axis = one_axis(s, use.config.get("axis", -1), rank)
    w, epsilon = use.weights, float(use.config.get("epsilon", 1e-3))
    mean, count = w["moving_mean"], w["moving_mean"].size
    if use.config.get("virtual_batch_size"):
        raise s.fail("BatchNormalization with a virtual batch size")
    if count != s.known(use.x, axis):
        raise s.fail(f"has {count} means for {s.known(use.x, axis)} channels")
    beta = w.get("beta")
    if s.net.generation == 2 and rank == 4 and axis in (1, 3):
        gamma = w.get("gamma")
        parameters = {
            "gamma": np.ones(count, dtype=np.float32) if gamma is None else gamma,
            "beta": np.zeros(count, dtype=np.float32) if beta is None else beta,
            "moving_mean": mean,
            "moving_variance": w["moving_variance"],
        }
        given = [s.weight(name, values) for name, values in parameters.items()]
        last = axis == rank - 1
        x = s.transpose(use.x, [0, 3, 1, 2]) if last else use.x
        y = s.op("BatchNormalization", x, *given, epsilon=epsilon)
        return s.transpose(y, [0, 2, 3, 1]) if last else y
    inverse = inverse_of(w, epsilon)
    shift = (-mean * inverse).astype(np.float32)
    if beta is not None:
        shift = (beta - mean * inverse).astype(np.float32)
    return affine(s, use.x, inverse, shift, axis)


def affine(s: Scope, x: Value, factor: Array, shift: Array, axis: int) -> Value:
    """Return ``x * factor + shift`` along an axis."""
    rank = s.rank(x)
    y = s.op("Mul", x, s.stored("factor", along(factor, axis, rank), None))
    return s.op("Add", y, s.stored("shift", along(shift, axis, rank), None))


def _layernorm_variables(layer: Layer) -> Variables:
    c = layer.config
    own = [n for n, k in (("gamma", "scale"), ("beta", "center")) if c.get(k, True)]
    return variables(*own)


def _layernorm(s: Scope, use: Use) -> Value:
    rank = s.rank(use.x)
    axis = use.config.get("axis", -1)
    axes = sorted(int(a) % rank for a in ([axis] if isinstance(axis, int) else axis))
    epsilon = float(use.config.get("epsilon", 1e-3))
    if use.config.get("rms_scaling"):
        raise s.fail("rms_scaling of LayerNormalization")
    return _normalized(s, use, use.x, axes, epsilon)


def _normalized(
    s: Scope, use: Use, x: Value, axes: list[int], epsilon: float, shape: Any = None
) -> Value:
    """Return a value less its mean, over its deviation, times gamma, plus beta."""
    y = _over_deviation(s, x, axes, epsilon)
    sizes = [1] * s.rank(x)
    for a in axes:
        sizes[a] = s.known(x, a)
    return _scaled(s, use, y, lambda values: values.reshape(shape or sizes))


def _over_deviation(s: Scope, x: Value, axes: list[int], epsilon: float) -> Value:
    at = s.integers(axes, "axes")
    centred = s.op("Sub", x, s.op("ReduceMean", x, at, keepdims=1))
    variance = s.op("ReduceMean", s.op("Mul", centred, centred), at, keepdims=1)
    return s.op("Div", centred, s.op("Sqrt", s.op("Add", variance, epsilon)))


def _scaled(s: Scope, use: Use, y: Value, laid: Callable[[Array], Array]) -> Value:
    """Return a value times gamma, plus beta, where the layer has them."""
    for name, op_type in {"gamma": "Mul", "beta": "Add"}.items():
        values = use.weights.get(name)
        if values is not None:
            y = s.op(op_type, y, s.weight(name, laid(values)))
    return y


def _groupnorm(s: Scope, use: Use) -> Value:
    rank = s.rank(use.x)
    axis = one_axis(s, use.config.get("axis", -1), rank)
    channels = s.known(use.x, axis)
    groups = int(use.config.get("groups", 32))
    groups = channels if groups == -1 else groups
    if None in s.shape(use.x)[axis + 1 :]:
        raise s.fail("groups of channels with open sizes behind them")
    sizes = [0 if n is None else n for n in s.shape(use.x)]
    split = [*sizes[:axis], groups, channels // groups, *sizes[axis + 1 :]]
    x = s.reshape(use.x, [-1 if i == 0 else n for i, n in enumerate(split)])
    axes = [a for a in range(1, rank + 1) if a != axis]
    y = _over_deviation(s, x, axes, float(use.config.get("epsilon", 1e-3)))
    y = s.reshape(y, [-1, *sizes[1:]])
    return _scaled(s, use, y, lambda values: along(values, axis, rank))


def _unitnorm(s: Scope, use: Use) -> Value:
    rank, axis = s.rank(use.x), use.config.get("axis", -1)
    axes = [int(a) % rank for a in ([axis] if isinstance(axis, int) else axis)]
    square = s.op("ReduceSum", s.op("Mul", use.x, use.x), s.integers(axes, "axes"), keepdims=1)
    return s.op("Div", use.x, s.op("Sqrt", s.op("Max", square, np.float32(1e-12))))


def _rmsnorm(s: Scope, use: Use) -> Value:
    rank, axis = s.rank(use.x), use.config.get("axis", -1)
    axes = [int(a) % rank for a in ([axis] if isinstance(axis, int) else axis)]
    square = s.op(
        "ReduceMean", s.op("Mul", use.x, use.x), s.integers(axes, "axes"), keepdims=1
    )
    root = s.op("Sqrt", s.op("Add", square, float(use.config.get("epsilon", 1e-6))))
    scale = use.weights["scale"]
    return s.op("Mul", s.op("Div", use.x, root), s.weight("scale", scale))


def _normalization(s: Scope, use: Use) -> Value:
    rank, axis = s.rank(use.x), use.config.get("axis", -1)
    axes = [] if axis is None else [axis] if isinstance(axis, int) else list(axis)
    shape = [1] * rank
    for a in axes:
        shape[int(a) % rank] = s.known(use.x, int(a) % rank)
    found = {}
    for name in ("mean", "variance"):
        values = use.config.get(name)
        values = use.weights[name] if values is None else values
        found[name] = np.asarray(values, dtype=np.float32)
        size = shape if found[name].size > 1 else [1] * rank
        found[name] = np.broadcast_to(found[name].reshape(size), shape)
    deviation = np.maximum(np.sqrt(found["variance"]), np.float32(1e-7)).astype(np.float32)
    x = s.floats(use.x)
    if use.config.get("invert"):
        return s.op("Add", s.op("Mul", x, deviation), found["mean"])
    return s.op("Div", s.op("Sub", x, found["mean"]), deviation)


KINDS: Mapping[str, Kind] = {
    "keras>BatchNormalization": Kind(_batchnorm, batchnorm_variables),
    "keras>SyncBatchNormalization": Kind(_batchnorm, batchnorm_variables),
    "keras>LayerNormalization": Kind(_layernorm, _layernorm_variables),
    "keras>GroupNormalization": Kind(_groupnorm, _layernorm_variables),
    "keras>UnitNormalization": Kind(_unitnorm),
    "keras>RMSNormalization": Kind(_rmsnorm, lambda layer: variables("scale")),
    "keras>Normalization": Kind(
        _normalization,
        lambda layer: (
            variables(fixed=("mean", "variance", "count"))
            if layer.config.get("mean") is None
            else Variables()
        ),
    ),
}
