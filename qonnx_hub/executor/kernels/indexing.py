"""Numpy kernels that pick, place, pad and mask elements by position."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qonnx_hub.executor.kernels._window import Shape, Slices
from qonnx_hub.executor.kernels.elementwise import served, stateless
from qonnx_hub.executor.kernels.shape import (
    as_axes,
    constant_axes,
    element_index,
    open_mesh,
    positive_axes,
)
from qonnx_hub.executor.kernels.spec import Array, Kernel, KernelSpec, KernelTable

_ALL = slice(None)
_ROOM = 1 << 31
"""Elements of a result above which there is no use in asking for the memory."""


def _slice(spec: KernelSpec) -> Kernel:
    if not spec.is_fixed(1, 2, 3, 4):
        return lambda x, *bounds: x[
            _slices(x.shape, *(None if b is None else as_axes(b) for b in bounds))
        ]
    starts, ends, axes, steps = (constant_axes(spec, i) for i in range(1, 5))
    if starts is None or _depends_on_shape(starts, axes, steps):
        return lambda x, *_: x[_slices(x.shape, starts, ends, axes, steps)]
    rank = 1 + max(range(len(starts)) if axes is None else axes, default=-1)
    index = _slices((0,) * rank, starts, ends, axes, steps)
    return lambda x, *_: x[index]


def _depends_on_shape(starts: Shape, axes: Shape | None, steps: Shape | None) -> bool:
    """Return whether the slices change with the shape of the data."""
    if axes is not None and min(axes, default=0) < 0:
        return True
    backwards = zip(starts, steps or (), strict=False)
    return any(step < 0 and start < -1 for start, step in backwards)


@functools.lru_cache(maxsize=4096)
def _slices(
    shape: Shape,
    starts: Shape | None,
    ends: Shape | None,
    axes: Shape | None = None,
    steps: Shape | None = None,
) -> Slices:
    """Return one slice per dimension of ``shape``, clamped as ONNX says.

    numpy clamps alike but for one case: walking backwards from before the first element is
    empty for numpy, while ONNX moves the start to the first element.
    """
    if starts is None or ends is None:
        raise ValueError("Slice needs both starts and ends")
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise ValueError(f"Slice of {starts}, {ends}, {axes}, {steps}: lengths differ")
    slices = [_ALL] * len(shape)
    counted = positive_axes(axes, len(shape))
    for axis, start, end, step in zip(counted, starts, ends, steps, strict=True):
        first = max(start + shape[axis], 0) if step < 0 and start < -1 else start
        slices[axis] = slice(first, end, step)
    return tuple(slices)


def _gather(spec: KernelSpec) -> Kernel:
    axis = spec.attr("axis", 0)
    constant = spec.constant(1)
    if constant is not None and constant.ndim == 0 and axis >= 0:
        position = (*(_ALL,) * axis, int(constant), ...)
        return lambda x, indices: x[position]

    def kernel(x: Array, indices: Array) -> Array:
        y = x.take(indices, axis=axis)
        return y if isinstance(y, np.ndarray) else np.asarray(y, dtype=x.dtype)

    return kernel


def _gather_elements(spec: KernelSpec) -> Kernel:
    axis = spec.attr("axis", 0)

    return lambda x, indices: np.asarray(x[_elements(axis, x, indices)])


def _elements(axis: int, x: Array, indices: Array) -> tuple[Array, ...]:
    if x.ndim != indices.ndim:
        raise ValueError(f"indices have {indices.ndim} dimensions, the data has {x.ndim}")
    return element_index(axis, indices)


def _gather_nd(spec: KernelSpec) -> Kernel:
    batch = spec.attr("batch_dims", 0)

    def kernel(x: Array, indices: Array) -> Array:
        if x.shape[:batch] != indices.shape[:batch]:
            raise ValueError(f"batch dimensions differ: {x.shape} and {indices.shape}")
        index = (*open_mesh(indices.shape[:-1])[:batch], *_index_parts(indices))
        return np.asarray(x[index])

    return kernel


def _index_parts(indices: Array) -> tuple[Array, ...]:
    """Return one index array per dimension that the last axis of ``indices`` addresses."""
    if indices.shape[-1] == 0:
        raise ValueError("indices address no dimension")
    return tuple(indices[..., i] for i in range(indices.shape[-1]))


_REDUCTIONS: dict[str, Callable[..., None] | None] = {
    "none": None,
    "add": np.add.at,
    "max": np.maximum.at,
    "min": np.minimum.at,
    "mul": np.multiply.at,
}


def _scatter_elements(spec: KernelSpec) -> Kernel:
    axis = spec.attr("axis", 0)
    scatter = _scatter(spec)

    def kernel(x: Array, indices: Array, updates: Array) -> Array:
        if indices.shape != updates.shape:
            raise ValueError(f"{indices.shape} indices for {updates.shape} updates")
        return scatter(x, _elements(axis, x, indices), updates)

    return kernel


def _scatter_nd(spec: KernelSpec) -> Kernel:
    scatter = _scatter(spec)

    def kernel(x: Array, indices: Array, updates: Array) -> Array:
        expected = indices.shape[:-1] + x.shape[indices.shape[-1] :]
        if updates.shape != expected:
            raise ValueError(f"updates have the shape {updates.shape} instead of {expected}")
        return scatter(x, _index_parts(indices), updates)

    return kernel


def _scatter(spec: KernelSpec) -> Callable[[Array, tuple[Array, ...], Array], Array]:
    """Return what puts updates at an index, combined as the node's ``reduction`` says."""
    place = _REDUCTIONS[spec.choice("reduction", "none", _REDUCTIONS)]
    reuse = 0 in spec.reusable

    def scatter(x: Array, index: tuple[Array, ...], updates: Array) -> Array:
        out = x if reuse and x.flags.writeable else x.copy()
        if place is None:
            out[index] = updates
        else:
            place(out, index, updates)
        return out

    return scatter


def _wrapped(x: Array, grow: Sequence[tuple[int, int]]) -> Array:
    """Return an array repeated beyond its ends, in one step however far."""
    for axis, (before, after) in enumerate(grow):
        size = x.shape[axis]
        if not size and (before or after):
            raise ValueError(f"axis {axis} is empty, there is nothing to repeat")
        if before or after:
            index = np.arange(-before, size + after, dtype=np.int64) % size
            x = np.take(x, index, axis=axis)
    return x


def _pad(spec: KernelSpec) -> Kernel:
    mode = spec.choice("mode", "constant", ("constant", "edge", "reflect", "wrap"))
    fixed_pads, fixed_axes = constant_axes(spec, 1), constant_axes(spec, 3)

    def kernel(
        x: Array, pads: Array, value: Array | None = None, axes: Array | None = None
    ) -> Array:
        amounts = as_axes(pads) if fixed_pads is None else fixed_pads
        along = as_axes(axes) if fixed_axes is None and axes is not None else fixed_axes
        crop, grow, inner, sizes = _padding(x.shape, amounts, along)
        if math.prod(sizes) > _ROOM:
            raise MemoryError
        if mode == "wrap":
            return _wrapped(x[crop], grow)
        if mode != "constant":
            return np.pad(x[crop], grow, mode=mode)
        out = np.zeros(sizes, dtype=x.dtype)
        if value is not None:
            out[...] = value.reshape(())
        out[inner] = x[crop]
        return out

    return kernel


@functools.lru_cache(maxsize=4096)
def _padding(
    shape: Shape, pads: Shape, axes: Shape | None
) -> tuple[Slices, list[tuple[int, int]], Slices, list[int]]:
    """Return what negative pads leave, what others add, where the rest lies, and the shape."""
    axes = tuple(range(len(shape))) if axes is None else positive_axes(axes, len(shape))
    if len(pads) != 2 * len(axes):
        raise ValueError(f"{len(pads)} pads for {len(axes)} axes")
    crop, inner = [_ALL] * len(shape), [_ALL] * len(shape)
    grow, sizes = [(0, 0)] * len(shape), list(shape)
    for axis, before, after in zip(axes, pads, pads[len(axes) :], strict=False):
        first, kept = max(-before, 0), shape[axis] + min(before, 0) + min(after, 0)
        if kept < 0:
            raise ValueError(
                f"pads {before} and {after} remove more than the {shape[axis]} elements"
            )
        crop[axis] = slice(first, first + kept)
        grow[axis] = max(before, 0), max(after, 0)
        inner[axis] = slice(grow[axis][0], grow[axis][0] + kept)
        sizes[axis] = kept + sum(grow[axis])
    return tuple(crop), grow, tuple(inner), sizes


def _trilu(spec: KernelSpec) -> Kernel:
    cut = np.triu if spec.attr("upper", 1) else np.tril

    def kernel(x: Array, k: Array | None = None) -> Array:
        if x.ndim < 2:
            raise ValueError(f"Trilu needs a matrix, not the shape {x.shape}")
        return cut(x, 0 if k is None else int(k.item()))

    return kernel


def _one_hot(spec: KernelSpec) -> Kernel:
    axis = spec.attr("axis", -1)

    def kernel(indices: Array, depth: Array, values: Array) -> Array:
        rank, classes = indices.ndim + 1, int(depth.item())
        position = positive_axes((axis,), rank)[0]
        off, on = values
        index = np.expand_dims(indices.astype(np.int64), position)
        index = np.where(index < 0, index + classes, index)
        shape = [classes if i == position else 1 for i in range(rank)]
        hot = index == np.arange(classes, dtype=np.int64).reshape(shape)
        return np.asarray(np.where(hot, on, off), dtype=values.dtype)

    return kernel


def _non_zero(x: Array) -> Array:
    if x.ndim == 0:
        return np.zeros((0, int(bool(x))), dtype=np.int64)
    return np.array(np.nonzero(x), dtype=np.int64)


def _unique(spec: KernelSpec) -> Kernel:
    axis, in_order = spec.attr("axis"), bool(spec.attr("sorted", 1))

    def kernel(x: Array) -> Any:
        values, first, inverse, counts = np.unique(
            x, return_index=True, return_inverse=True, return_counts=True, axis=axis
        )
        inverse = inverse.reshape(-1)
        if not in_order:
            order = np.argsort(first, kind="stable")
            place = np.empty_like(order)
            place[order] = np.arange(order.size, dtype=order.dtype)
            values = values.take(order, axis=0 if axis is None else axis)
            first, inverse, counts = first[order], place[inverse], counts[order]
        outputs = (values, *(part.astype(np.int64) for part in (first, inverse, counts)))
        return outputs[: spec.num_outputs] if spec.num_outputs > 1 else values

    return kernel


def reversed_steps(steps: int, lengths: Array) -> Array:
    """Return which step each sample starts from behind reads: (T, B).

    A sample's own steps are reversed; what follows them stays where it is. Applied twice, the
    order is back as it was.
    """
    forward = np.arange(steps, dtype=np.int64)[:, np.newaxis]
    return np.where(forward < lengths, lengths - 1 - forward, forward)


def _reverse_sequence(spec: KernelSpec) -> Kernel:
    batch_axis, time_axis = spec.attr("batch_axis", 1), spec.attr("time_axis", 0)
    if {batch_axis, time_axis} != {0, 1}:
        raise spec.unserved(f"has batch axis {batch_axis}, time axis {time_axis}")

    def kernel(x: Array, lengths: Array) -> Array:
        steps = x.shape[time_axis]
        fits = (lengths >= 0) & (lengths <= steps)
        if lengths.shape != (x.shape[batch_axis],) or not fits.all():
            raise ValueError(f"sequence lengths {lengths} do not fit the shape {x.shape}")
        source = reversed_steps(steps, lengths)
        batch = np.arange(x.shape[batch_axis], dtype=np.int64)
        index = (source, batch) if time_axis == 0 else (batch[:, np.newaxis], source.T)
        return np.asarray(x[index])

    return kernel


KERNELS: KernelTable = {
    ("", "Compress"): served(
        lambda spec: lambda x, kept: np.compress(kept, x, axis=spec.attr("axis")), "axis"
    ),
    ("", "Gather"): served(_gather, "axis"),
    ("", "GatherElements"): served(_gather_elements, "axis"),
    ("", "GatherND"): served(_gather_nd, "batch_dims"),
    ("", "NonZero"): stateless(_non_zero),
    ("", "OneHot"): served(_one_hot, "axis"),
    ("", "Pad"): served(_pad, "mode"),
    ("", "ReverseSequence"): served(_reverse_sequence, "batch_axis", "time_axis"),
    ("", "ScatterElements"): served(_scatter_elements, "axis", "reduction"),
    ("", "ScatterND"): served(_scatter_nd, "reduction"),
    ("", "Slice"): served(_slice),
    ("", "Trilu"): served(_trilu, "upper"),
    ("", "Unique"): served(_unique, "axis", "sorted"),
}
