"""Numpy kernels that pool windows, or whole channels."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from qonnx_hub.executor.kernels._numbers import FLOAT32, widened
from qonnx_hub.executor.kernels._window import (
    ATTRIBUTES,
    Placement,
    Shape,
    padded,
    spatial,
    window_of,
)
from qonnx_hub.executor.kernels.elementwise import served, stateless
from qonnx_hub.executor.kernels.spec import Array, Kernel, KernelSpec, KernelTable


def placement_of(spec: KernelSpec) -> Callable[[Shape], Placement]:
    """Return what places the windows of a pooling node on an input's spatial shape.

    Raises:
        Unserved: The window attributes are missing or out of range.
    """
    taps = tuple(spec.required("kernel_shape"))
    return functools.lru_cache(maxsize=16)(
        functools.partial(window_of(spec).over, kernel=taps)
    )


def _max_pool(spec: KernelSpec) -> Kernel:
    place_on = placement_of(spec)
    column_major = bool(spec.choice("storage_order", 0, (0, 1)))
    if spec.num_outputs == 1:
        return lambda x: _maximum(x, place_on(x.shape[2:]))
    return lambda x: _maximum_with_index(x, place_on(x.shape[2:]), column_major)


def _lowest(x: Array) -> float:
    """Return the value of padding that never wins against an element of ``x``."""
    if x.dtype.kind in "iu":
        return int(np.iinfo(x.dtype).min)
    return -math.inf


def _maximum(x: Array, place: Placement) -> Array:
    """Return the largest element of each window, one axis after the other."""
    y = padded(x, place, _lowest(x) if place.padded else 0.0)
    for axis, taps in enumerate(place.kernel):
        behind = (slice(None),) * (len(place.kernel) - 1 - axis)
        windows = place.out[axis]
        reads = [place.axis_slice(axis, tap, 0, windows) for tap in range(taps)]
        parts = [y[spatial((read, *behind))] for read in reads]
        y = _folded(np.maximum, parts)
    return y.copy() if place.taps == 1 else y


def _folded(ufunc: np.ufunc, parts: list[Array]) -> Array:
    """Return the parts combined in order; one alone as it is."""
    if len(parts) == 1:
        return parts[0]
    y: Array = ufunc(parts[0], parts[1])
    for part in parts[2:]:
        ufunc(y, part, out=y)
    return y


def _maximum_with_index(x: Array, place: Placement, column_major: bool) -> tuple[Array, Array]:
    """Return the largest element of each window and where in ``x`` its first one is.

    The index counts elements of the whole input; among spatial axes the last one runs
    fastest, or the first one if ``column_major``.
    """
    lowest = _lowest(x)
    numbers = np.arange(math.prod(place.size), dtype=np.int64)
    where = numbers.reshape(place.size, order="F" if column_major else "C")
    where = padded(where, place, -1)
    xp = padded(x, place, lowest)
    y = np.full((*x.shape[:2], *place.out), lowest, dtype=x.dtype)
    index = np.full(y.shape, -1, dtype=np.int64)
    for _, slices in place.tap_slices:
        part, position = xp[spatial(slices)], where[slices]
        better = ((part > y) | (index < 0)) & (position >= 0)
        np.copyto(y, part, where=better)
        np.copyto(index, position, where=better)
    channels = np.arange(math.prod(x.shape[:2]), dtype=np.int64) * numbers.size
    index += channels.reshape(*x.shape[:2], *(1,) * len(place.size))
    return y, index


def window_total(x: Array, place: Placement) -> Array:
    """Return the sum of each window, added tap by tap in row-major order."""
    xp = padded(x, place, 0.0)
    y = _folded(np.add, [xp[spatial(slices)] for _, slices in place.tap_slices])
    return y.copy() if place.taps == 1 else y


def window_count(place: Placement, include_pad: bool) -> Array:
    """Return how many elements each window averages: (*out), int64.

    What ``ceil_mode`` lets hang over the padding is never counted.
    """
    total = np.ones((), dtype=np.int64)
    for axis, taps in enumerate(place.kernel):
        begin, size = place.begin[axis], place.size[axis]
        low = 0 if include_pad else begin
        high = begin + size + (place.end[axis] if include_pad else 0)
        start = np.arange(place.out[axis], dtype=np.int64) * place.strides[axis]
        read = start[:, np.newaxis] + np.arange(taps, dtype=np.int64) * place.dilations[axis]
        inside = ((read >= low) & (read < high)).sum(axis=1, dtype=np.int64)
        total = np.multiply.outer(total, inside)
    return total


def _average_pool(spec: KernelSpec) -> Kernel:
    place_on, include = placement_of(spec), bool(spec.attr("count_include_pad", 0))

    @functools.lru_cache(maxsize=16)
    def divisor(place: Placement, dtype: np.dtype[np.generic]) -> Array:
        count = window_count(place, include)
        if count.min() == count.max():
            count = count.flat[:1].reshape(())
        return count.astype(dtype)

    def kernel(x: Array) -> Array:
        place = place_on(x.shape[2:])
        y = window_total(widened(x), place)
        y /= divisor(place, y.dtype)
        return y.astype(x.dtype, copy=False)

    return kernel


def _lp_pool(spec: KernelSpec) -> Kernel:
    """Build LpPool, and GlobalLpPool, which has no windows."""
    power = spec.whole("p", 2)
    place_on = placement_of(spec) if spec.op_type == "LpPool" else None

    def kernel(x: Array) -> Array:
        terms = np.abs(widened(x))
        if power > 1:
            np.power(terms, power, out=terms)
        if place_on is None:
            total = terms.sum(axis=tuple(range(2, x.ndim)), keepdims=True)
        else:
            total = window_total(terms, place_on(x.shape[2:]))
        if power == 2:
            total = np.sqrt(total)
        elif power > 2:
            total = np.power(total, np.asarray(1.0 / power, dtype=total.dtype))
        return np.asarray(total).astype(x.dtype, copy=False)

    return kernel


def _global_average(x: Array) -> Array:
    wide = widened(x)
    flat = wide.reshape(*x.shape[:2], math.prod(x.shape[2:]))
    total = _sum_in_lanes(flat) if flat.dtype == FLOAT32 else np.add.reduce(flat, axis=2)
    mean: Array = np.divide(total, np.asarray(flat.shape[2], dtype=flat.dtype), out=total)
    return mean.reshape(*x.shape[:2], *(1,) * (x.ndim - 2)).astype(x.dtype, copy=False)


def _sum_in_lanes(flat: Array) -> Array:
    """Return the sum along the last axis, added in the order of four-lane hardware.

    onnxruntime adds in this order, so that a quantizer behind the mean meets the same bits.

    Args:
        flat: (N, C, elements).
    """
    length = flat.shape[2]
    # Channels last, so that numpy adds long rows, one after the other.
    columns = np.ascontiguousarray(flat.reshape(math.prod(flat.shape[:2]), length).T)
    whole = length - length % 4
    lanes = np.add.reduce(columns[:whole].reshape(whole // 4, 4, columns.shape[1]), axis=0)
    pairs = lanes[:2] + lanes[2:]
    total = pairs[0] + pairs[1]
    for row in columns[whole:]:
        total += row
    return np.asarray(total).reshape(flat.shape[:2])


KERNELS: KernelTable = {
    ("", "AveragePool"): served(_average_pool, "ceil_mode", "count_include_pad", *ATTRIBUTES),
    ("", "GlobalAveragePool"): stateless(_global_average),
    ("", "GlobalLpPool"): served(_lp_pool, "p"),
    ("", "GlobalMaxPool"): stateless(
        lambda x: x.max(axis=tuple(range(2, x.ndim)), keepdims=True)
    ),
    ("", "LpPool"): served(_lp_pool, "ceil_mode", "p", *ATTRIBUTES),
    ("", "MaxPool"): served(_max_pool, "ceil_mode", "storage_order", *ATTRIBUTES),
}
