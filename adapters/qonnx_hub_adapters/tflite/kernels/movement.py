"""Operators that move codes and compute nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from qonnx_hub_adapters.tflite.kernels.fixed_point import round_away
from qonnx_hub_adapters.tflite.kernels.grids import finish
from qonnx_hub_adapters.tflite.net import KernelCall
from qonnx_hub_ir.quantizers import Array


def concatenation(call: KernelCall, *parts: Array) -> Array:
    """Return CONCATENATION; uint8 parts on other grids are brought to the output's."""
    made = call.output
    if made.type == "UINT8" and made.grid is not None:
        parts = tuple(_regridded(call, i, part) for i, part in enumerate(parts))
    return np.concatenate(parts, axis=call.options["axis"])


def _regridded(call: KernelCall, index: int, part: Array) -> Array:
    given, made = call.tensor(index), call.output
    if given.zero == made.zero and given.scale == made.scale:
        return part
    inverse = np.float32(np.float32(1) / made.scale)
    step = np.float32(given.scale * inverse)
    bias = np.float32(np.float32(-given.zero) * step)
    codes = round_away((part.astype(np.float32) * step + bias).astype(np.float32)) + made.zero
    return np.asarray(np.clip(codes, 0, 255).astype(np.uint8))


def pad(call: KernelCall, x: Array, wide: Array, value: Array | None = None) -> Array:
    """Return PAD with the code of zero, or PADV2 with its own."""
    fill: Any = call.output.zero if value is None else value.reshape(-1)[0]
    return np.pad(x, [tuple(map(int, pair)) for pair in wide], constant_values=fill)


def mirror_pad(call: KernelCall, x: Array, wide: Array) -> Array:
    """Return MIRROR_PAD."""
    mode: Any = "symmetric" if call.options["mode"] == 1 else "reflect"
    return np.pad(x, [tuple(map(int, pair)) for pair in wide], mode=mode)


def transpose(call: KernelCall, x: Array, order: Array) -> Array:
    """Return TRANSPOSE."""
    return np.asarray(x.transpose([int(axis) for axis in order]))


def reshape(call: KernelCall, x: Array, shape: Array | None = None) -> Array:
    """Return RESHAPE to a given shape, or to that of the output; a -1 takes what is left."""
    wanted = [int(n) for n in new_shape(call, shape)]
    if -1 not in wanted and int(np.prod(wanted, dtype=np.int64)) != x.size:
        wanted = [-1, *wanted[1:]]  # another batch than the file's
    return x.reshape(wanted)


def new_shape(call: KernelCall, shape: Array | None) -> list[int]:
    """Return the shape that RESHAPE asks for."""
    if shape is not None:
        return [int(n) for n in np.asarray(shape).reshape(-1)]
    if call.name == "RESHAPE" and len(call.options.get("new_shape", ())):
        return [int(n) for n in call.options["new_shape"]]
    return list(call.output.shape)


def squeeze(call: KernelCall, x: Array) -> Array:
    """Return SQUEEZE."""
    axes = tuple(int(axis) % x.ndim for axis in call.options.get("squeeze_dims", ()))
    return np.squeeze(x, axis=axes or None)


def expand_dims(call: KernelCall, x: Array, axis: Array) -> Array:
    """Return EXPAND_DIMS."""
    return np.expand_dims(x, int(np.asarray(axis).reshape(-1)[0]))


def split(call: KernelCall, axis: Array, x: Array) -> tuple[Array, ...]:
    """Return SPLIT into equal parts."""
    return tuple(np.split(x, len(call.outputs), axis=int(np.asarray(axis).reshape(-1)[0])))


def split_v(call: KernelCall, x: Array, sizes: Array, axis: Array) -> tuple[Array, ...]:
    """Return SPLIT_V into parts of given sizes."""
    along = int(np.asarray(axis).reshape(-1)[0])
    counts = [int(n) for n in sizes]
    known = sum(n for n in counts if n >= 0)
    counts = [n if n >= 0 else x.shape[along] - known for n in counts]
    return tuple(np.split(x, np.cumsum(counts)[:-1], axis=along))


def cut(call: KernelCall, x: Array, begin: Array, size: Array) -> Array:
    """Return SLICE."""
    spans = zip(begin.tolist(), size.tolist(), x.shape, strict=True)
    return x[tuple(slice(b, n if s < 0 else b + s) for b, s, n in spans)]


def strided_slice(
    call: KernelCall, x: Array, begin: Array, end: Array, strides: Array
) -> Array:
    """Return STRIDED_SLICE."""
    return np.asarray(x[slices(call, begin, end, strides)])


def slices(call: KernelCall, begin: Array, end: Array, strides: Array) -> tuple[Any, ...]:
    """Return the index that STRIDED_SLICE takes.

    Raises:
        IndexError: It has an ellipsis, which the reference kernel does not take.
    """
    options = call.options
    if options.get("ellipsis_mask"):
        raise IndexError("STRIDED_SLICE: an ellipsis is not read")
    index: list[Any] = []
    for i in range(len(begin)):
        flag = 1 << i
        if options.get("new_axis_mask", 0) & flag:
            index.append(None)
        elif options.get("shrink_axis_mask", 0) & flag:
            is_open = options.get("begin_mask", 0) & flag
            index.append((0 if strides[i] > 0 else -1) if is_open else int(begin[i]))
        else:
            first = None if options.get("begin_mask", 0) & flag else int(begin[i])
            last = None if options.get("end_mask", 0) & flag else int(end[i])
            if last is not None and options.get("offset"):
                last += int(begin[i])
            index.append(slice(first, last, int(strides[i])))
    return tuple(index)


def pack(call: KernelCall, *parts: Array) -> Array:
    """Return PACK."""
    return np.stack(parts, axis=call.options["axis"])


def unpack(call: KernelCall, x: Array) -> tuple[Array, ...]:
    """Return UNPACK."""
    axis = call.options["axis"]
    return tuple(np.take(x, i, axis=axis) for i in range(x.shape[axis]))


def gather(call: KernelCall, x: Array, index: Array) -> Array:
    """Return GATHER."""
    return np.take(x, index.astype(np.int64), axis=call.options.get("axis", 0))


def cast(call: KernelCall, x: Array) -> Array:
    """Return CAST."""
    return x.astype(call.output.dtype)


def shape_of(call: KernelCall, x: Array) -> Array:
    """Return SHAPE."""
    return np.array(x.shape, dtype=call.output.dtype)


def clamp_codes(call: KernelCall, x: Array) -> Array:
    """Return codes as they are, cut by the fused activation."""
    return finish(call, x)
