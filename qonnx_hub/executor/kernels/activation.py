"""Numpy kernels of activation functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from qonnx_hub.executor.kernels._numbers import FLOAT32, scalar_like, widened
from qonnx_hub.executor.kernels.elementwise import erf, served, stateless, unary
from qonnx_hub.executor.kernels.spec import Array, Factory, Kernel, KernelSpec, KernelTable

Function = Callable[..., Any]
"""(x, *attributes) -> y, for x of float32 or float64."""


def function(compute: Function, **defaults: float) -> Factory:
    """Return a factory of kernels for a function of one input and some numbers.

    float16 and bfloat16 are computed in float32 and rounded once.

    Args:
        compute: The function; attributes come after the input, in the order of ``defaults``.
        defaults: ONNX default of each attribute, which is of the same Python type.
    """

    def make(spec: KernelSpec) -> Kernel:
        values = [type(value)(spec.attr(name, value)) for name, value in defaults.items()]

        def kernel(x: Array) -> Array:
            y = np.asarray(compute(widened(x), *values))
            return y if y.dtype == x.dtype else y.astype(x.dtype)

        return kernel

    return served(make, *defaults)


_ZERO = np.zeros((), dtype=np.float32)


def _relu(spec: KernelSpec) -> Kernel:
    reuse = 0 in spec.reusable

    def kernel(x: Array) -> Array:
        zero = _ZERO if x.dtype == FLOAT32 else np.zeros((), dtype=x.dtype)
        if reuse and x.flags.writeable:
            return np.maximum(x, zero, out=x)
        y = np.maximum(x, zero)
        return y if isinstance(y, np.ndarray) else np.asarray(y)

    return kernel


def _exp_minus_one(x: Array) -> Any:
    """Return exp(x) - 1 where x is negative, else 0: no overflow from what is not used."""
    return np.expm1(np.minimum(x, scalar_like(0.0, x)))


def elu(x: Array, alpha: float) -> Any:
    """Return ``x`` where it is positive, else alpha * (exp(x) - 1)."""
    return np.where(x > 0, x, _exp_minus_one(x) * scalar_like(alpha, x))


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)) without overflow, accurate on both sides."""
    decay = np.exp(-np.abs(x))
    one = scalar_like(1.0, x)
    return np.asarray(np.where(x >= 0, one, decay) / (one + decay))


def hard_sigmoid(x: Array, alpha: float, beta: float) -> Any:
    """Return alpha * x + beta, clipped to [0, 1]."""
    y = x * scalar_like(alpha, x) + scalar_like(beta, x)
    return np.minimum(np.maximum(y, scalar_like(0.0, x)), scalar_like(1.0, x))


def softplus(x: Array) -> Array:
    """Return log(1 + exp(x)) without overflow."""
    return np.asarray(np.log1p(np.exp(-np.abs(x))) + np.maximum(x, scalar_like(0.0, x)))


def _shrink(x: Array, bias: float, limit: float) -> Any:
    wide = x.astype(np.float64) if x.dtype.kind in "iu" else x
    b = scalar_like(bias, wide)
    inner = np.where(wide > scalar_like(limit, wide), wide - b, scalar_like(0.0, wide))
    return np.where(wide < scalar_like(-limit, wide), wide + b, inner)


def _gelu(spec: KernelSpec) -> Kernel:
    approximates = spec.choice("approximate", "none", ("none", "tanh")) == "tanh"

    def compute(x: Array) -> Any:
        if approximates:
            inner = x + scalar_like(0.044715, x) * x * x * x
            part = np.tanh(scalar_like(math.sqrt(2.0 / math.pi), x) * inner)
        else:
            part = erf(x * scalar_like(math.sqrt(0.5), x))
        return scalar_like(0.5, x) * x * (scalar_like(1.0, x) + part)

    return function(compute)(replace(spec, attributes={}))


def _softmax(x: Array, axis: int) -> Any:
    y = x - x.max(axis=axis, keepdims=True)
    np.exp(y, out=y)
    y /= y.sum(axis=axis, keepdims=True)
    return y


def _log_softmax(x: Array, axis: int) -> Any:
    y = x - x.max(axis=axis, keepdims=True)
    y -= np.log(np.exp(y).sum(axis=axis, keepdims=True))
    return y


def _hardmax(x: Array, axis: int) -> Any:
    y = np.zeros_like(x)
    first = np.expand_dims(x.argmax(axis=axis), axis)
    np.put_along_axis(y, first, scalar_like(1.0, x), axis=axis)
    return y


FUNCTIONS: Mapping[str, tuple[Function, Mapping[str, float]]] = {
    "Celu": (
        lambda x, alpha: (
            np.maximum(x, scalar_like(0.0, x))
            + scalar_like(alpha, x) * _exp_minus_one(x / scalar_like(alpha, x))
        ),
        {"alpha": 1.0},
    ),
    "Elu": (elu, {"alpha": 1.0}),
    "HardSigmoid": (hard_sigmoid, {"alpha": 0.2, "beta": 0.5}),
    "HardSwish": (lambda x: x * hard_sigmoid(x, 1.0 / 6.0, 0.5), {}),
    "Hardmax": (_hardmax, {"axis": -1}),
    "LeakyRelu": (
        lambda x, alpha: np.where(x >= 0, x, x * scalar_like(alpha, x)),
        {"alpha": 0.01},
    ),
    "LogSoftmax": (_log_softmax, {"axis": -1}),
    "Mish": (lambda x: x * np.tanh(softplus(x)), {}),
    "Selu": (
        lambda x, alpha, gamma: scalar_like(gamma, x) * elu(x, alpha),
        {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875},
    ),
    "Shrink": (_shrink, {"bias": 0.0, "lambd": 0.5}),
    "Sigmoid": (sigmoid, {}),
    "Softmax": (_softmax, {"axis": -1}),
    "Softplus": (softplus, {}),
    "Softsign": (lambda x: x / (np.abs(x) + scalar_like(1.0, x)), {}),
    "Swish": (
        lambda x, alpha: x * sigmoid(x if alpha == 1.0 else x * scalar_like(alpha, x)),
        {"alpha": 1.0},
    ),
    "ThresholdedRelu": (
        lambda x, alpha: np.where(x > scalar_like(alpha, x), x, scalar_like(0.0, x)),
        {"alpha": 1.0},
    ),
}
"""Functions of one input and some numbers; each number's ONNX default has its type."""

KERNELS: KernelTable = {
    **{("", op): function(compute, **numbers) for op, (compute, numbers) in FUNCTIONS.items()},
    ("", "Gelu"): served(_gelu, "approximate"),
    ("", "PRelu"): stateless(
        lambda x, slope: np.where(x < 0, widened(x) * widened(slope), x).astype(
            x.dtype, copy=False
        )
    ),
    ("", "Relu"): served(_relu),
    ("", "Tanh"): unary(np.tanh),
}
