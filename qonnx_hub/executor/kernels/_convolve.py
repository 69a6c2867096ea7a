"""Convolution of floating-point arrays, by whichever of five ways suits the shapes.

Every way turns most of the work into matrix products; they differ in how much of the input
they copy to get there. The copies are made in blocks that stay in the processor's cache.
Arrays are x (N, C, *size), weight (M, C / group, *kernel), result (N, M, *out).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from qonnx_hub.executor.kernels._depthwise import Depthwise
from qonnx_hub.executor.kernels._window import Index, Placement, Shape, padded, spatial
from qonnx_hub.executor.kernels.spec import Array
from qonnx_hub.executor.threads import parallel_for

Algorithm = Callable[[Array, "Filters"], Array]

COLUMN_BYTES = 1 << 20
"""Size of a block of columns: it stays in the cache, and adds little to what values take."""

STACK_BYTES = 4 << 20
"""Size of columns plus partial results where the first kernel axis is stacked."""

STACK_POSITIONS = 512
"""Output positions from which stacking the first kernel axis pays."""

FEW_COLUMNS = 512
"""Columns below which a matrix product is not worth its call; samples are then joined."""

SHARED_PRODUCTS = 60_000_000
"""Multiplications that are worth a part of their own, for another thread to take."""


@dataclass(frozen=True)
class Filters:
    """The weight of a convolution, arranged as the algorithms need it, each way once.

    Attributes:
        weight: (M, C / group, *kernel), float32 or float64.
        group: Number of groups.
    """

    weight: Array
    group: int

    @functools.cached_property
    def rows(self) -> Array:
        """One row per output channel: (group, M / group, C / group * taps)."""
        outputs = self.weight.shape[0]
        shape = (self.group, outputs // self.group, self.weight[0].size)
        return np.ascontiguousarray(self.weight).reshape(shape)

    @functools.cached_property
    def stacked(self) -> Array:
        """Taps of the first kernel axis one below the other: (kh * M, C * other taps)."""
        outputs, _, first = self.weight.shape[:3]
        ordered = np.ascontiguousarray(np.moveaxis(self.weight, 2, 0))
        return ordered.reshape(first * outputs, self.weight[0].size // first)


def algorithm_for(
    shape: Shape, weight_shape: Shape, group: int, place: Placement
) -> Algorithm:
    """Return the quickest way to convolve an input of ``shape``.

    Raises:
        ValueError: Channels, groups and weight do not fit each other.
    """
    channels, outputs = shape[1], weight_shape[0]
    if weight_shape[1] * group != channels or outputs % group:
        raise ValueError(
            f"{channels} channels in {group} groups do not fit a weight of {weight_shape}"
        )
    positions = math.prod(place.out)
    if not place.padded and place.taps == 1:
        return functools.partial(_pointwise, place=place)
    if not place.padded and group == 1 and place.kernel == place.size:
        return _whole
    if group > 1 and group == channels:
        depthwise = Depthwise(place, outputs // channels)
        return lambda x, filters: depthwise(x, filters.weight)
    if (
        group == 1
        and place.strides[0] == 1
        and place.kernel[0] > 1
        and outputs <= channels
        and positions >= STACK_POSITIONS
    ):
        rows = replace(place, kernel=(1, *place.kernel[1:]))
        return functools.partial(_stacked, place=place, rows_place=rows)
    return functools.partial(_by_columns, place=place)


def _parts(length: int, products: int, step: int) -> list[tuple[int, int]]:
    """Return (first, last) of parts of a length: as few as ``step`` and the work allow.

    Args:
        length: What is cut.
        products: Multiplications of the whole.
        step: The most that one part may be.
    """
    wanted = max(math.ceil(length / step), min(4, products // SHARED_PRODUCTS), 1)
    size = math.ceil(length / wanted)
    return [(first, min(first + size, length)) for first in range(0, length, size)]


def _pointwise(x: Array, filters: Filters, place: Placement) -> Array:
    """Convolve with one tap and no padding: the input is its own column matrix."""
    if any(stride > 1 for stride in place.strides):
        x = x[spatial(tuple(slice(None, None, stride) for stride in place.strides))]
    samples, channels = x.shape[:2]
    group, outputs, depth = filters.rows.shape
    positions = math.prod(place.out)
    columns = x.reshape(samples, group, channels // group, positions)
    y = np.empty((samples, group, outputs, positions), dtype=x.dtype)
    parts = _parts(outputs, outputs * depth * positions * group * samples, outputs)

    def make() -> Callable[[tuple[int, int]], None]:
        def work(part: tuple[int, int]) -> None:
            rows = slice(*part)
            np.matmul(filters.rows[:, rows], columns, out=y[:, :, rows])

        return work

    parallel_for(make, parts)
    return y.reshape(samples, group * outputs, *place.out)


def _whole(x: Array, filters: Filters) -> Array:
    """Convolve with a kernel of the input's size: one dot product per sample and filter."""
    rows = filters.rows[0]
    y: Array = np.matmul(x.reshape(x.shape[0], rows.shape[1]), rows.T)
    return y.reshape(*y.shape, *(1,) * (x.ndim - 2))


def _by_columns(x: Array, filters: Filters, place: Placement) -> Array:
    """Convolve by writing out what each tap reads (im2col), then one product per block."""
    group, outputs, depth = filters.rows.shape
    out = place.out
    xp = padded(x, place, 0.0)
    y = np.empty((x.shape[0], group * outputs, *out), dtype=x.dtype)
    positions = math.prod(out)
    most = COLUMN_BYTES // (depth * group * x.itemsize)
    if x.shape[0] > 1 and positions < FEW_COLUMNS and most >= 2 * positions:
        space = np.empty(0, dtype=x.dtype)
        step = most // positions
        for first in range(0, x.shape[0], step):
            last = min(first + step, x.shape[0])
            columns, space = _columns(xp[first:last], place, 0, out[0], space)
            block = np.matmul(filters.rows, columns.reshape(group, depth, -1))
            joined = block.reshape(group * outputs, last - first, *out)
            y[first:last] = joined.swapaxes(0, 1)
        return y
    per_row = positions // out[0]
    flat = y.reshape(x.shape[0], group, outputs, positions)
    products = positions * depth * outputs * group
    rows = _parts(out[0], products, max(1, most // per_row))

    def make() -> Callable[[tuple[int, tuple[int, int]]], None]:
        # One buffer for all blocks: memory new to the process costs more than the copy.
        space = np.empty(0, dtype=x.dtype)

        def work(part: tuple[int, tuple[int, int]]) -> None:
            nonlocal space
            sample, (first, last) = part
            columns, space = _columns(xp[sample : sample + 1], place, first, last, space)
            target = flat[sample, :, :, first * per_row : last * per_row]
            np.matmul(filters.rows, columns.reshape(group, depth, -1), out=target)

        return work

    parallel_for(make, itertools.product(range(x.shape[0]), rows))
    return y


def _columns(
    xp: Array, place: Placement, first: int, last: int, space: Array
) -> tuple[Array, Array]:
    """Return what each tap reads for some windows, and the memory that it lies in.

    Args:
        xp: Padded samples.
        place: Windows.
        first: First window along the first spatial axis.
        last: One past the last of them.
        space: One axis, of the dtype of ``xp``; used where it is large enough.

    Returns:
        (C, *kernel, samples, last - first, *out[1:]), and one axis.
    """
    source = xp.swapaxes(0, 1)
    shape = (*source.shape[:1], *place.kernel, len(xp), last - first, *place.out[1:])
    needed = math.prod(shape)
    if space.size < needed:
        space = np.empty(needed, dtype=xp.dtype)
    columns = space[:needed].reshape(shape)
    everything = slice(None)
    for tap, slices in place.tap_slices:
        rows = place.axis_slice(0, tap[0], first, last)
        target: Index = (everything, *tap)
        columns[target] = source[spatial((rows, *slices[1:]))]
    return columns, space


def _stacked(x: Array, filters: Filters, place: Placement, rows_place: Placement) -> Array:
    """Convolve with columns along all but the first axis, whose taps become filters.

    One product gives the partial result of every tap of the first axis for every row; rows are
    then shifted against each other and added. ``rows_place`` is ``place`` with only the first
    of these taps. The columns are smaller by the taps of that axis, which saves more than the
    partial results cost where filters are few. Needs stride 1 on the first axis and one group.
    """
    xp = padded(x, place, 0.0)
    taps, outputs = place.kernel[0], filters.weight.shape[0]
    dilation, height = place.dilations[0], place.out[0]
    depth = filters.stacked.shape[1]
    per_row = math.prod(place.out[1:])
    reach = (taps - 1) * dilation
    step = STACK_BYTES // (x.itemsize * per_row * (depth + taps * outputs)) - reach
    # Rows that two blocks share are computed twice: keep them few.
    rows = _parts(
        height, outputs * depth * taps * height * per_row, max(step, min(height, 4 * reach))
    )
    y = np.empty((x.shape[0], outputs, height * per_row), dtype=x.dtype)

    def make() -> Callable[[tuple[int, tuple[int, int]]], None]:
        space = np.empty(0, dtype=x.dtype)

        def work(part: tuple[int, tuple[int, int]]) -> None:
            nonlocal space
            sample, (first, last) = part
            block = xp[sample : sample + 1]
            columns, space = _columns(block, rows_place, first, last + reach, space)
            partial = np.matmul(filters.stacked, columns.reshape(depth, -1))
            partial = partial.reshape(taps, outputs, -1)
            length, pitch = (last - first) * per_row, dilation * per_row
            target = y[sample, :, first * per_row : last * per_row]
            np.add(partial[0, :, :length], partial[1, :, pitch : pitch + length], out=target)
            for tap in range(2, taps):
                target += partial[tap, :, tap * pitch : tap * pitch + length]

        return work

    parallel_for(make, itertools.product(range(x.shape[0]), rows))
    return y.reshape(x.shape[0], outputs, *place.out)
