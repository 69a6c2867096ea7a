"""Sums of products on codes: convolutions, fully connected layers, matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np

from qonnx_hub_adapters.tflite.kernels.fixed_point import (
    factor,
    rescale,
    rescale_wide,
    round_away,
    wrap,
)
from qonnx_hub_adapters.tflite.kernels.grids import finish
from qonnx_hub_adapters.tflite.kernels.windows import scatter, windows
from qonnx_hub_adapters.tflite.net import KernelCall, NetTensor
from qonnx_hub_ir.quantizers import Array

Given = Array | None


def conv_2d(call: KernelCall, x: Array, weights: Array, bias: Given = None) -> Array:
    """Return CONV_2D: channels last, weights [O, height, width, I / groups]."""
    seen = _seen(call, x, weights.shape[1:3])
    return _rescaled(call, _grouped(seen, _centred(call.tensor(1), weights, 0)), bias)


def depthwise_conv_2d(call: KernelCall, x: Array, weights: Array, bias: Given = None) -> Array:
    """Return DEPTHWISE_CONV_2D: weights [1, height, width, C * multiplier]."""
    seen = _seen(call, x, weights.shape[1:3])
    weights = _centred(call.tensor(1), weights, 3)
    _, height, width, outputs = weights.shape
    multiplier = outputs // seen.shape[5]
    kernel = weights.reshape(height, width, -1, multiplier)
    sums = np.einsum("nrchwi,hwim->nrcim", seen, kernel)
    return _rescaled(call, np.asarray(sums.reshape(*seen.shape[:3], outputs)), bias)


def transpose_conv(
    call: KernelCall, shape: Array, weights: Array, x: Array, bias: Given = None
) -> Array:
    """Return TRANSPOSE_CONV: weights [O, height, width, I]."""
    data = _centred(call.tensor(2), x, 0)
    kernel = _centred(call.tensor(1), weights, 0)
    stride = (call.options["stride_h"], call.options["stride_w"])
    kind = call.options["padding"]
    sums = scatter(data, kernel, [int(n) for n in shape], stride, kind)
    return _rescaled(call, sums, bias, data=2)


def fully_connected(call: KernelCall, x: Array, weights: Array, bias: Given = None) -> Array:
    """Return FULLY_CONNECTED: weights [O, I]; sums are scaled in double precision."""
    data = _centred(call.tensor(0), x, 0).reshape(-1, weights.shape[1])
    sums = (data @ _centred(call.tensor(1), weights, 0).T).astype(np.int64)
    if bias is not None:
        sums = sums + bias.astype(np.int64)
    given, made = call.tensor(0), call.output
    scale = np.float64(given.scale) * _scales(call.tensor(1)) / np.float64(made.scale)
    sums = sums if _sums_widely(call, bias) else wrap(sums)
    codes = finish(call, round_away(sums.astype(np.float64) * scale) + made.zero)
    keeps = call.options.get("keep_num_dims")
    return codes.reshape(*x.shape[:-1], -1) if keeps else codes


def batch_matmul(call: KernelCall, x: Array, y: Array) -> Array:
    """Return BATCH_MATMUL, with either side transposed on request."""
    a, b = _centred(call.tensor(0), x, 0), _centred(call.tensor(1), y, 0)
    a = np.swapaxes(a, -1, -2) if call.options.get("adj_x") else a
    b = np.swapaxes(b, -1, -2) if call.options.get("adj_y") else b
    sums = (a @ b).astype(np.int64)
    left, right, made = call.tensor(0), call.tensor(1), call.output
    by = factor(np.float64(left.scale * right.scale) / np.float64(made.scale))
    is_wide = made.type == "INT16"
    return finish(call, (rescale_wide if is_wide else rescale)(sums, by) + made.zero)


def real_factors(call: KernelCall, data: int = 0) -> Array:
    """Return the real factors from sums to codes, one per output channel, as float64.

    Args:
        call: A convolution of either kind.
        data: Which input holds the data.
    """
    given, made = call.tensor(data), call.output
    if made.type == "UINT8":
        return np.asarray(
            np.float64(given.scale * call.tensor(1).scale) / np.float64(made.scale)
        )
    return np.asarray(
        np.float64(given.scale) * _scales(call.tensor(1)) / np.float64(made.scale)
    )


def _rescaled(call: KernelCall, sums: Array, bias: Given, data: int = 0) -> Array:
    """Return the codes of a convolution's sums."""
    whole = sums.astype(np.int64)
    if bias is not None:
        whole = whole + bias.astype(np.int64)
    by = factor(real_factors(call, data))
    is_wide = _sums_widely(call, bias)
    codes = rescale_wide(whole, by) if is_wide else rescale(wrap(whole), by)
    return finish(call, codes + call.output.zero)


def _sums_widely(call: KernelCall, bias: Given) -> bool:
    """Return whether sums have 64 bits; those of 32 bits wrap."""
    return call.output.type == "INT16" and (bias is None or bias.dtype == np.int64)


def _seen(call: KernelCall, x: Array, size: Any) -> Array:
    """Return what windows see, without zero point, as float64: exact below 2**53."""
    options = call.options
    stride = (options["stride_h"], options["stride_w"])
    dilation = (options["dilation_h_factor"], options["dilation_w_factor"])
    data = _centred(call.tensor(0), x, 0)
    return windows(data, size, stride, dilation, options["padding"], 0)


def _grouped(seen: Array, weights: Array) -> Array:
    """Return the sums of a convolution, [N, rows, columns, O]."""
    places, (outputs, height, width, inputs) = seen.shape[:3], weights.shape
    groups = seen.shape[5] // inputs
    parts = []
    for group in range(groups):
        of_group = seen[..., group * inputs : (group + 1) * inputs]
        share = outputs // groups
        kernel = weights[group * share : (group + 1) * share].reshape(share, -1)
        parts.append(of_group.reshape(-1, height * width * inputs) @ kernel.T)
    return np.concatenate(parts, axis=-1).reshape(*places, outputs)


def _centred(tensor: NetTensor, codes: Array, axis: int) -> Array:
    """Return codes minus their zero points, as float64: products of them are exact."""
    grid = tensor.grid
    if grid is None or not grid.zero.any():
        return codes.astype(np.float64)
    if grid.zero.size == 1:
        return codes.astype(np.float64) - float(grid.zero[0])
    shape = [1] * codes.ndim
    shape[axis] = -1
    return codes.astype(np.float64) - grid.zero.astype(np.float64).reshape(shape)


def _scales(tensor: NetTensor) -> Array:
    grid = tensor.grid
    return np.ones(1) if grid is None else grid.scale.astype(np.float64)
