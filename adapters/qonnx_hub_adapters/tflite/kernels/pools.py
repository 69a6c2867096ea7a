"""Pools and reductions of codes, and changes of size."""

from __future__ import annotations

import numpy as np

from qonnx_hub_adapters.tflite.kernels.fixed_point import Factor, factor, rescale, wrap
from qonnx_hub_adapters.tflite.kernels.grids import finish
from qonnx_hub_adapters.tflite.kernels.windows import windows
from qonnx_hub_adapters.tflite.net import KernelCall
from qonnx_hub_ir.quantizers import Array


def average_pool(call: KernelCall, x: Array) -> Array:
    """Return AVERAGE_POOL_2D of codes: halves away from zero; only cells inside count."""
    total = _windows(call, x.astype(np.int64), 0).sum(axis=(3, 4))
    count = _windows(call, np.ones_like(x, dtype=np.int64), 0).sum(axis=(3, 4))
    size = (np.abs(total) + count // 2) // count
    return finish(call, np.sign(total) * size)


def max_pool(call: KernelCall, x: Array) -> Array:
    """Return MAX_POOL_2D of codes."""
    return finish(call, _windows(call, x, int(np.iinfo(x.dtype).min)).max(axis=(3, 4)))


def _windows(call: KernelCall, x: Array, fill: int | float) -> Array:
    options = call.options
    size = (options["filter_height"], options["filter_width"])
    stride = (options["stride_h"], options["stride_w"])
    return windows(x, size, stride, (1, 1), options["padding"], fill)


def axes_of(call: KernelCall, axes: Array, rank: int) -> tuple[int, ...]:
    """Return the axes of a reduction, none of them negative or twice."""
    return tuple(sorted({int(axis) % rank for axis in np.asarray(axes).reshape(-1)}))


def mean(call: KernelCall, x: Array, axes: Array) -> Array:
    """Return MEAN or SUM: the number of cells is divided into the factor, and cut."""
    kept = axes_of(call, axes, x.ndim)
    keeps = bool(call.options.get("keep_dims"))
    total = x.astype(np.int64).sum(axis=kept, keepdims=keeps)
    count = int(np.prod([x.shape[axis] for axis in kept], dtype=np.int64))
    by = mean_factor(call, count)
    levels = wrap(total - call.tensor(0).zero * count)
    return finish(call, rescale(levels, by) + call.output.zero)


def mean_factor(call: KernelCall, count: int) -> Factor:
    """Return the factor from the sum of so many levels to levels of the mean."""
    by = factor(float(call.tensor(0).scale) / float(call.output.scale))
    if call.name == "SUM" or count < 1:
        return by
    shift = min(count.bit_length() - 1, 32, 31 + int(by.exponent))
    cut = (int(by.multiplier) << shift) // count
    return Factor(np.asarray(cut, dtype=np.int64), by.exponent - shift)


def reduce_max(call: KernelCall, x: Array, axes: Array) -> Array:
    """Return REDUCE_MAX or REDUCE_MIN of codes."""
    reduce = np.max if call.name == "REDUCE_MAX" else np.min
    keeps = bool(call.options.get("keep_dims"))
    return np.asarray(reduce(x, axis=axes_of(call, axes, x.ndim), keepdims=keeps))


def resize_bilinear(call: KernelCall, x: Array, size: Array) -> Array:
    """Return RESIZE_BILINEAR: weights of 10 bits; uint8 in single precision."""
    lines = [line_of(call, x.shape[i + 1], int(size[i])) for i in (0, 1)]
    if x.dtype == np.uint8 or x.dtype.kind == "f":
        return _resize_floats(call, x, size)
    (y0, y1, fy), (x0, x1, fx) = lines
    fy, one = fy[:, None, None], 1 << 10
    fx = fx[:, None]
    data = x.astype(np.int64)
    total = data[:, y0][:, :, x0] * (one - fy) * (one - fx)
    total += data[:, y1][:, :, x0] * fy * (one - fx)
    total += data[:, y0][:, :, x1] * (one - fy) * fx
    total += data[:, y1][:, :, x1] * fy * fx
    size_of = (np.abs(total) + (1 << 19)) >> 20
    return np.asarray((np.sign(total) * size_of).astype(x.dtype))


def line_of(call: KernelCall, given: int, made: int) -> tuple[Array, Array, Array]:
    """Return lower index, upper index and the fraction above the lower one, in 10 bits."""
    centred = bool(call.options.get("half_pixel_centers"))
    if call.options.get("align_corners") and made > 1:
        step = (((given - 1) << 10) + (made - 1) // 2) // (made - 1)
    else:
        step = ((given << 10) + made // 2) // made
    at = np.arange(made, dtype=np.int64) * step
    at = at + step // 2 - (1 << 9) if centred else at
    low = np.clip(_cut(at), 0, given - 1)
    high = np.minimum(_cut(at + (1 << 10) - 1), given - 1)
    return low, np.maximum(high, 0), at - (low << 10)


def _cut(x: Array) -> Array:
    """Return ``x / 1024`` without what is behind the point."""
    return np.where(x < 0, -(-x >> 10), x >> 10)


def _resize_floats(call: KernelCall, x: Array, size: Array) -> Array:
    lines = [_float_line(call, x.shape[i + 1], int(size[i])) for i in (0, 1)]
    (y0, y1, fy), (x0, x1, fx) = lines
    fy, fx, one = fy[:, None, None], fx[:, None], np.float32(1)
    data = x.astype(np.float32)
    total = data[:, y0][:, :, x0] * (one - fy) * (one - fx)
    total = total + data[:, y1][:, :, x0] * fy * (one - fx)
    total = total + data[:, y0][:, :, x1] * (one - fy) * fx
    total = total + data[:, y1][:, :, x1] * fy * fx
    if x.dtype.kind == "f":
        return np.asarray(total)
    return np.asarray((total + np.float32(0.5)).astype(x.dtype))


def _float_line(call: KernelCall, given: int, made: int) -> tuple[Array, Array, Array]:
    step = np.float32(given) / np.float32(made)
    if call.options.get("align_corners") and made > 1:
        step = np.float32(given - 1) / np.float32(made - 1)
    at = np.arange(made, dtype=np.float32)
    if call.options.get("half_pixel_centers"):
        at = (at + np.float32(0.5)) * step - np.float32(0.5)
    else:
        at = at * step
    low = np.maximum(np.floor(at).astype(np.int64), 0)
    high = np.minimum(np.ceil(at).astype(np.int64), given - 1)
    return low, high, (at - low.astype(np.float32)).astype(np.float32)


def resize_nearest(call: KernelCall, x: Array, size: Array) -> Array:
    """Return RESIZE_NEAREST_NEIGHBOR."""
    rows, columns = (nearest(call, x.shape[i + 1], int(size[i])) for i in (0, 1))
    return x[:, rows][:, :, columns]


def nearest(call: KernelCall, given: int, made: int) -> Array:
    """Return which index along an axis each new one takes."""
    aligned = bool(call.options.get("align_corners")) and made > 1
    step = (
        np.float32(given - 1) / np.float32(made - 1)
        if aligned
        else np.float32(given) / np.float32(made)
    )
    half = np.float32(0.5 if call.options.get("half_pixel_centers") else 0.0)
    at = ((np.arange(made, dtype=np.float32) + half) * step).astype(np.float32)
    is_aligned = bool(call.options.get("align_corners"))
    index = np.floor(at + np.float32(0.5)) if is_aligned else np.floor(at)
    return np.asarray(np.clip(index.astype(np.int64), 0, given - 1))
