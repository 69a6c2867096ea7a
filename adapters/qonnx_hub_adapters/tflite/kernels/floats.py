"""Operators on float32, and on float32 with weights of 8 bits: within the last bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from qonnx_hub_adapters.tflite.kernels.fixed_point import round_away
from qonnx_hub_adapters.tflite.kernels.pointwise import values_of
from qonnx_hub_adapters.tflite.kernels.pools import axes_of
from qonnx_hub_adapters.tflite.kernels.windows import scatter, windows
from qonnx_hub_adapters.tflite.net import RELU, RELU6, RELU_N1_TO_1, KernelCall
from qonnx_hub_ir.quantizers import Array

_ENDS: Mapping[int, tuple[float, float]] = {
    RELU: (0.0, np.inf),
    RELU6: (0.0, 6.0),
    RELU_N1_TO_1: (-1.0, 1.0),
}
_ALONE = {"RELU": RELU, "RELU6": RELU6, "RELU_N1_TO_1": RELU_N1_TO_1}


def activated(call: KernelCall, x: Array, fused: int | None = None) -> Array:
    """Return values cut by the fused activation, as float32."""
    kind = call.options.get("fused_activation_function", 0) if fused is None else fused
    x = np.asarray(x, dtype=np.float32)
    return np.clip(x, *map(np.float32, _ENDS[kind])) if kind in _ENDS else x


def dense(call: KernelCall, *given: Array | None) -> Array:
    """Return CONV_2D, DEPTHWISE_CONV_2D or FULLY_CONNECTED of floats.

    Weights may be of any type; those of 8 and 4 bits meet data that is quantized at run time,
    per row or per sample.
    """
    x, weights, bias = _first(given[0]), _first(given[1]), given[2] if len(given) > 2 else None
    if weights.dtype.kind == "f":
        return activated(call, _added(_sums(call, x, weights.astype(np.float32)), bias))
    codes, scale, zero = _quantized(call, x)
    levels = codes - zero
    made = _sums(call, levels, weights.astype(np.float64))
    grid = call.tensor(1).grid
    steps = np.ones(1, dtype=np.float32) if grid is None else grid.scale
    shape = [scale.shape[0], *[1] * (made.ndim - 1)]
    of_rows = scale.reshape(shape)
    if call.name == "FULLY_CONNECTED":
        of_rows = scale.reshape(-1, 1)
        made = made.reshape(of_rows.shape[0], -1)
    product = made.astype(np.float32) * (of_rows * steps).astype(np.float32)
    if call.name == "FULLY_CONNECTED" and call.options.get("keep_num_dims"):
        product = product.reshape(*x.shape[:-1], -1)
    return activated(call, _added(product, bias))


def _quantized(call: KernelCall, x: Array) -> tuple[Array, Array, Array]:
    """Return data as codes, with scale and zero point per row or sample, as float64."""
    is_layer = call.name == "FULLY_CONNECTED"
    rows = (
        x.reshape(-1, int(call.tensor(1).shape[1])) if is_layer else x.reshape(x.shape[0], -1)
    )
    grid = call.tensor(1).grid
    is_split = grid is not None and grid.scale.size > 1
    asymmetric = (
        bool(call.options.get("asymmetric_quantize_inputs"))
        if is_layer
        else (is_split or call.name == "DEPTHWISE_CONV_2D")
    )
    low, high = np.minimum(rows.min(axis=1), 0), np.maximum(rows.max(axis=1), 0)
    if asymmetric:
        wide = np.where(high > low, (high.astype(np.float64) - low) / 255.0, 1.0)
        from_low, from_high = -128 - low / wide, 127 - high / wide
        is_low = 128 + np.abs(low / wide) < 127 + np.abs(high / wide)
        zero = np.clip(round_away(np.where(is_low, from_low, from_high)), -128, 127)
        zero = np.where(high > low, zero, 0)
        inverse, first = (1.0 / wide).astype(np.float32), -128
    else:
        peak = np.maximum(np.abs(low), np.abs(high)).astype(np.float64)
        wide = np.where(peak > 0, peak / 127.0, 1.0)
        inverse = np.where(peak > 0, 127.0 / np.where(peak > 0, peak, 1), 1.0).astype(
            np.float32
        )
        zero, first = np.zeros_like(wide), -127
    shifted = (rows * inverse[:, None]).astype(np.float32) + zero[:, None].astype(np.float32)
    codes = np.clip(round_away(shifted), first, 127).reshape(x.shape)
    shape = [x.shape[0], *[1] * (x.ndim - 1)]
    if is_layer:
        return codes.reshape(rows.shape), wide.astype(np.float32), zero[:, None]
    return codes, wide.astype(np.float32), zero.reshape(shape)


def _sums(call: KernelCall, x: Array, weights: Array) -> Array:
    options = call.options
    if call.name == "FULLY_CONNECTED":
        keeps = options.get("keep_num_dims")
        made = x.reshape(-1, weights.shape[1]) @ weights.T
        return np.asarray(made.reshape(*x.shape[:-1], -1) if keeps else made)
    stride = (options["stride_h"], options["stride_w"])
    dilation = (options["dilation_h_factor"], options["dilation_w_factor"])
    seen = windows(x, weights.shape[1:3], stride, dilation, options["padding"], 0)
    if call.name == "DEPTHWISE_CONV_2D":
        kernel = weights.reshape(*weights.shape[1:3], x.shape[3], -1)
        made = np.einsum("nrchwi,hwim->nrcim", seen, kernel)
        return np.asarray(made.reshape(*seen.shape[:3], -1))
    groups = x.shape[3] // weights.shape[3]
    share, inside = weights.shape[0] // groups, weights.shape[3]
    parts = [
        seen[..., g * inside : (g + 1) * inside].reshape(*seen.shape[:3], -1)
        @ weights[g * share : (g + 1) * share].reshape(share, -1).T
        for g in range(groups)
    ]
    return np.concatenate(parts, axis=-1)


def transpose_conv(
    call: KernelCall, shape: Array, weights: Array, x: Array, bias: Array | None = None
) -> Array:
    """Return TRANSPOSE_CONV of floats."""
    if weights.dtype.kind != "f":
        weights = values_of(call.tensor(1), weights)
    stride = (call.options["stride_h"], call.options["stride_w"])
    sums = scatter(x, weights, [int(n) for n in shape], stride, call.options["padding"])
    return activated(call, _added(sums, bias))


def batch_matmul(call: KernelCall, x: Array, y: Array) -> Array:
    """Return BATCH_MATMUL of floats."""
    y = y if y.dtype.kind == "f" else values_of(call.tensor(1), y)
    a = np.swapaxes(x, -1, -2) if call.options.get("adj_x") else x
    return np.asarray(a @ (np.swapaxes(y, -1, -2) if call.options.get("adj_y") else y))


_PAIRS: Mapping[str, Callable[[Array, Array], Array]] = {
    "ADD": np.add,
    "SUB": np.subtract,
    "MUL": np.multiply,
    "DIV": np.divide,
}


def pair(call: KernelCall, x: Array, y: Array) -> Array:
    """Return ADD, SUB, MUL or DIV of floats."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return activated(call, _PAIRS[call.name](x, y))


def average_pool(call: KernelCall, x: Array) -> Array:
    """Return AVERAGE_POOL_2D of floats; what lies outside is not counted."""
    options = call.options
    size = (options["filter_height"], options["filter_width"])
    stride = (options["stride_h"], options["stride_w"])
    total, count = (
        windows(a, size, stride, (1, 1), options["padding"], 0).sum(axis=(3, 4))
        for a in (x, np.ones_like(x))
    )
    return activated(call, total / count)


def max_pool(call: KernelCall, x: Array) -> Array:
    """Return MAX_POOL_2D of floats."""
    options = call.options
    size = (options["filter_height"], options["filter_width"])
    stride = (options["stride_h"], options["stride_w"])
    seen = windows(x, size, stride, (1, 1), options["padding"], -np.inf)
    return activated(call, seen.max(axis=(3, 4)))


def mean(call: KernelCall, x: Array, axes: Array) -> Array:
    """Return MEAN or SUM of floats."""
    reduce = np.sum if call.name == "SUM" else np.mean
    keeps = bool(call.options.get("keep_dims"))
    found = reduce(x, axis=axes_of(call, axes, x.ndim), keepdims=keeps, dtype=np.float32)
    return np.asarray(found, dtype=np.float32)


def softmax(call: KernelCall, x: Array) -> Array:
    """Return SOFTMAX of floats along the last axis."""
    powers = np.exp((x - x.max(axis=-1, keepdims=True)) * np.float32(call.options["beta"]))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def unary(call: KernelCall, x: Array) -> Array:
    """Return a function of one tensor of floats."""
    if call.name in _ALONE:
        return activated(call, x, _ALONE[call.name])
    if call.name == "LEAKY_RELU":
        return np.where(x >= 0, x, x * np.float32(call.options["alpha"]))
    with np.errstate(over="ignore"):
        return np.asarray(_UNARY[call.name](x), dtype=np.float32)


_UNARY: Mapping[str, Callable[[Array], Array]] = {
    "LOGISTIC": lambda x: np.float32(1) / (np.float32(1) + np.exp(-x)),
    "TANH": np.tanh,
    "HARD_SWISH": lambda x: x * np.clip(x + np.float32(3), 0, 6) * np.float32(1 / 6),
}


def prelu(call: KernelCall, x: Array, alpha: Array) -> Array:
    """Return PRELU of floats."""
    return np.where(x >= 0, x, x * alpha)


def _added(sums: Array, bias: Array | None) -> Array:
    return sums if bias is None else sums + bias.astype(np.float32)


def _first(x: Array | None) -> Array:
    if x is None:
        raise IndexError("an input is left out")
    return x
