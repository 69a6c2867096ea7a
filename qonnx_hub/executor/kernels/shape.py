"""Numpy kernels that rearrange elements, or tell how they are arranged."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from operator import methodcaller
from typing import Any

import numpy as np

from qonnx_hub.executor.kernels._window import Shape
from qonnx_hub.executor.kernels.elementwise import served, stateless
from qonnx_hub.executor.kernels.spec import Array, Kernel, KernelSpec, KernelTable


def axes_of(spec: KernelSpec, position: int) -> Shape | None:
    """Return the axes known when the kernel is made, from the attribute or from an input.

    Args:
        spec: The node.
        position: Which input carries axes where the attribute does not.

    Returns:
        The axes; ``None`` where they are computed at run time or not given at all.

    Raises:
        Unserved: The node has both.
    """
    given = spec.attr("axes")
    if given is not None and spec.has_input(position):
        raise spec.unserved("has axes twice")
    constant = constant_axes(spec, position)
    return constant if constant is not None or given is None else tuple(given)


def constant_axes(spec: KernelSpec, position: int) -> Shape | None:
    """Return a constant input of integers as a flat tuple; ``None`` where it is not known."""
    constant = spec.constant(position)
    return None if constant is None else as_axes(constant)


def as_axes(values: Array) -> Shape:
    """Return an array of integers of any shape as a flat tuple."""
    return tuple(values.reshape(-1).tolist())


def positive_axes(axes: Shape, rank: int) -> Shape:
    """Return ``axes`` counted from the front.

    Raises:
        ValueError: An axis lies outside of ``rank``, or is named twice.
    """
    if any(not -rank <= axis < rank for axis in axes):
        raise ValueError(f"axes {axes} do not exist in {rank} dimensions")
    counted = tuple(axis % rank for axis in axes)
    if len(set(counted)) != len(counted):
        raise ValueError(f"axes {axes} name one of {rank} dimensions twice")
    return counted


def along(axis: int, part: slice) -> tuple[slice, ...]:
    """Return the index that takes ``part`` of ``axis``, which counts from the front."""
    return (*(slice(None),) * axis, part)


@functools.lru_cache(maxsize=1024)
def open_mesh(shape: Shape) -> tuple[Array, ...]:
    """Return one index array per dimension, each of its own length and 1 elsewhere."""
    mesh = []
    for axis, size in enumerate(shape):
        index = np.arange(size, dtype=np.intp)
        index.flags.writeable = False
        mesh.append(index.reshape((size,) + (1,) * (len(shape) - 1 - axis)))
    return tuple(mesh)


def element_index(axis: int, indices: Array) -> tuple[Array, ...]:
    """Return an index per dimension: ``indices`` for ``axis``, the own position elsewhere."""
    mesh = list(open_mesh(indices.shape))
    mesh[axis] = indices
    return tuple(mesh)


def with_axes(spec: KernelSpec, compute: Callable[[Array, Any], Any]) -> Kernel:
    """Return the kernel ``compute(x, axes)`` of a node with axes as attribute or input 1.

    Raises:
        Unserved: The node has both.
    """
    axes = axes_of(spec, 1)
    if axes is None and spec.has_input(1):
        return lambda x, given: compute(x, as_axes(given))
    return lambda x, *_: compute(x, axes)


def _reshape(spec: KernelSpec) -> Kernel:
    allow_zero = bool(spec.attr("allowzero", 0))
    fixed = constant_axes(spec, 1)
    if fixed is None:
        return lambda x, shape: x.reshape(_target(as_axes(shape), x.shape, allow_zero))
    if 0 in fixed:
        return lambda x, shape: x.reshape(_target(fixed, x.shape, allow_zero))
    return lambda x, shape: x.reshape(fixed)


@functools.lru_cache(maxsize=4096)
def _target(shape: Shape, current: Shape, allow_zero: bool) -> Shape:
    if 0 not in shape or (allow_zero and -1 not in shape):
        return shape
    if allow_zero:
        raise ValueError(f"shape {shape} has -1 beside a dimension of 0, which is ambiguous")
    if any(size == 0 for size in shape[len(current) :]):
        raise ValueError(f"shape {shape} copies a dimension that {current} does not have")
    return tuple(size or current[i] for i, size in enumerate(shape))


def _flatten(spec: KernelSpec) -> Kernel:
    axis = spec.attr("axis", 1)

    def kernel(x: Array) -> Array:
        if not -x.ndim <= axis <= x.ndim:
            raise ValueError(f"Flatten at axis {axis} of {x.ndim} dimensions")
        return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))

    return kernel


def _unsqueeze(spec: KernelSpec) -> Kernel:
    if not spec.has_input(1):
        spec.required("axes")
    return with_axes(spec, lambda x, axes: x[_new_axes(axes, x.ndim)])


@functools.cache
def _new_axes(axes: Shape, rank: int) -> tuple[slice | None, ...]:
    inserted = set(positive_axes(axes, rank + len(axes)))
    return tuple(None if i in inserted else slice(None) for i in range(rank + len(axes)))


def _concat(spec: KernelSpec) -> Kernel:
    axis = spec.required("axis")
    return lambda *inputs: np.concatenate(inputs, axis=axis)


def _split(spec: KernelSpec) -> Kernel:
    axis, parts, fixed = spec.attr("axis", 0), spec.attr("num_outputs"), constant_axes(spec, 1)
    if parts is not None and spec.has_input(1):
        raise spec.unserved("has both sizes and num_outputs")

    def kernel(x: Array, split: Array | None = None) -> Any:
        size = x.shape[axis]
        if fixed is not None:
            lengths = fixed
        elif split is not None:
            lengths = as_axes(split)
        else:
            if parts is None and size % spec.num_outputs:
                raise ValueError(
                    f"{size} elements do not split evenly into {spec.num_outputs} outputs"
                )
            count = spec.num_outputs if parts is None else parts
            length = -(-size // count)
            lengths = (*((length,) * (count - 1)), size - length * (count - 1))
        if len(lengths) != spec.num_outputs or sum(lengths) != size or min(lengths) < 0:
            raise ValueError(
                f"{size} elements do not split into {lengths} for {spec.num_outputs} outputs"
            )
        bounds = itertools.pairwise(itertools.accumulate(lengths, initial=0))
        pieces = tuple(x[along(axis % x.ndim, slice(*ends))] for ends in bounds)
        return pieces if len(pieces) > 1 else pieces[0]

    return kernel


def _expand(spec: KernelSpec) -> Kernel:
    constant = constant_axes(spec, 1)
    fixed = None if constant is None else _template(constant)

    def kernel(x: Array, shape: Array) -> Array:
        template = _template(as_axes(shape)) if fixed is None else fixed
        result = np.broadcast(x, template).shape
        if result == x.shape:
            return x
        out = np.empty(result, dtype=x.dtype)
        out[...] = x
        return out

    return kernel


def _template(shape: Shape) -> Array:
    """Return an array of ``shape`` that takes no memory, to broadcast against."""
    return np.broadcast_to(np.zeros((), dtype=np.bool_), shape)


def _tile(x: Array, repeats: Array) -> Array:
    counts = as_axes(repeats)
    if len(counts) != x.ndim:
        raise ValueError(f"Tile repeats {counts} do not match {x.ndim} dimensions")
    return np.tile(x, counts)


def _shape(spec: KernelSpec) -> Kernel:
    start, end = spec.attr("start", 0), spec.attr("end")
    return lambda x: np.array(x.shape[start:end], dtype=np.int64)


def _depth_to_space(spec: KernelSpec) -> Kernel:
    block, depth_first = _block(spec)
    order = (0, 3, 4, 1, 5, 2) if depth_first else (0, 1, 4, 2, 5, 3)

    def kernel(x: Array) -> Array:
        n, c, h, w = x.shape
        depth, rest = divmod(c, block * block)
        if rest:
            raise ValueError(f"{c} channels do not fill blocks of {block} x {block}")
        parts = (block, block, depth) if depth_first else (depth, block, block)
        blocks = x.reshape(n, *parts, h, w).transpose(order)
        return np.reshape(blocks, (n, depth, h * block, w * block))

    return kernel


def _space_to_depth(spec: KernelSpec) -> Kernel:
    block, depth_first = _block(spec)
    order = (0, 3, 5, 1, 2, 4) if depth_first else (0, 1, 3, 5, 2, 4)

    def kernel(x: Array) -> Array:
        n, c, h, w = x.shape
        if h % block or w % block:
            raise ValueError(f"{h} x {w} does not divide into blocks of {block} x {block}")
        blocks = x.reshape(n, c, h // block, block, w // block, block).transpose(order)
        return np.reshape(blocks, (n, c * block * block, h // block, w // block))

    return kernel


def _block(spec: KernelSpec) -> tuple[int, bool]:
    """Return the block size, and whether the depth is the innermost of the block's axes."""
    mode = spec.choice("mode", "DCR", ("DCR", "CRD"))
    return spec.whole("blocksize", None), mode == "DCR"


KERNELS: KernelTable = {
    ("", "Concat"): served(_concat, "axis"),
    ("", "DepthToSpace"): served(_depth_to_space, "blocksize", "mode"),
    ("", "Expand"): served(_expand),
    ("", "Flatten"): served(_flatten, "axis"),
    ("", "Reshape"): served(_reshape, "allowzero"),
    ("", "Shape"): served(_shape, "start", "end"),
    ("", "Size"): stateless(lambda x: np.array(x.size, dtype=np.int64)),
    ("", "SpaceToDepth"): served(_space_to_depth, "blocksize", "mode"),
    ("", "Split"): served(_split, "axis", "num_outputs"),
    ("", "Squeeze"): served(
        lambda spec: with_axes(spec, lambda x, axes: x.squeeze(axes)), "axes"
    ),
    ("", "Tile"): stateless(_tile),
    ("", "Transpose"): served(
        lambda spec: methodcaller("transpose", *spec.attr("perm", ())), "perm"
    ),
    ("", "Unsqueeze"): served(_unsqueeze, "axes"),
}
