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
from dataclasses import dataclass

import numpy as np

from qonnx_hub.executor.kernels._window import Index, Placement, Shape, Slices, padded, spatial
from qonnx_hub.executor.kernels.spec import Array

Algorithm = Callable[[Array, "Filters"], Array]

COLUMN_BYTES = 2 << 20
"""Size of a block of columns: as much as a core's second-level cache holds."""

STACK_BYTES = 4 << 20
"""Size of columns plus partial results where the first kernel axis is stacked."""

STACK_POSITIONS = 1024
"""Output positions from which stacking the first kernel axis pays."""

FEW_COLUMNS = 512
"""Columns below which a matrix product is not worth its call; samples are then joined."""

DEPTHWISE_BYTES = 64 << 10
"""Size of one channel block of a depthwise result, with nine times as much in columns."""

LONG_CHANNEL = 1024
"""Output positions from which a depthwise product is quicker as multiply and add."""


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
        return _Depthwise(place, outputs // channels)
    if (
        group == 1
        and place.strides[0] == 1
        and place.kernel[0] > 1
        and outputs <= channels
        and positions >= STACK_POSITIONS
    ):
        return functools.partial(_stacked, place=place)
    return functools.partial(_by_columns, place=place)


def _pointwise(x: Array, filters: Filters, place: Placement) -> Array:
    """Convolve with one tap and no padding: the input is its own column matrix."""
    if any(stride > 1 for stride in place.strides):
        x = x[spatial(tuple(slice(None, None, stride) for stride in place.strides))]
    samples, channels = x.shape[:2]
    group, outputs, _ = filters.rows.shape
    positions = math.prod(place.out)
    if group == 1:
        y: Array = np.matmul(filters.rows[0], x.reshape(samples, channels, positions))
    else:
        columns = x.reshape(samples, group, channels // group, positions)
        y = np.matmul(filters.rows, columns)
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
        step = most // positions
        for first in range(0, x.shape[0], step):
            last = min(first + step, x.shape[0])
            columns = _columns(xp[first:last], place, 0, out[0])
            block = np.matmul(filters.rows, columns.reshape(group, depth, -1))
            joined = block.reshape(group * outputs, last - first, *out)
            y[first:last] = joined.swapaxes(0, 1)
        return y
    per_row = positions // out[0]
    step = max(1, most // per_row)
    flat = y.reshape(x.shape[0], group, outputs, positions)
    for sample in range(x.shape[0]):
        for first in range(0, out[0], step):
            last = min(first + step, out[0])
            columns = _columns(xp[sample : sample + 1], place, first, last)
            target = flat[sample, :, :, first * per_row : last * per_row]
            np.matmul(filters.rows, columns.reshape(group, depth, -1), out=target)
    return y


def _columns(xp: Array, place: Placement, first: int, last: int) -> Array:
    """Return what each tap reads for some windows.

    Args:
        xp: Padded samples.
        place: Windows.
        first: First window along the first spatial axis.
        last: One past the last of them.

    Returns:
        (C, *kernel, samples, last - first, *out[1:]).
    """
    source = xp.swapaxes(0, 1)
    shape = (*source.shape[:1], *place.kernel, len(xp), last - first, *place.out[1:])
    columns = np.empty(shape, dtype=xp.dtype)
    everything = slice(None)
    for tap, slices in place.tap_slices():
        rows = place.axis_slice(0, tap[0], first, last)
        target: Index = (everything, *tap)
        columns[target] = source[spatial((rows, *slices[1:]))]
    return columns


def _stacked(x: Array, filters: Filters, place: Placement) -> Array:
    """Convolve with columns along all but the first axis, whose taps become filters.

    One product gives the partial result of every tap of the first axis for every row; rows are
    then shifted against each other and added. The columns are smaller by the taps of that
    axis, which saves more than the partial results cost where filters are few. Needs stride 1
    on the first axis and one group.
    """
    xp = padded(x, place, 0.0)
    taps, outputs = place.kernel[0], filters.weight.shape[0]
    dilation, height = place.dilations[0], place.out[0]
    depth = filters.stacked.shape[1]
    per_row = math.prod(place.out[1:])
    reach = (taps - 1) * dilation
    step = STACK_BYTES // (x.itemsize * per_row * (depth + taps * outputs)) - reach
    # Rows that two blocks share are computed twice: keep them few.
    step = min(height, max(step, 2 * reach))
    y = np.empty((x.shape[0], outputs, height * per_row), dtype=x.dtype)
    for sample in range(x.shape[0]):
        for first in range(0, height, step):
            last = min(first + step, height)
            columns = _row_columns(xp[sample], place, first, last + reach)
            parts = np.matmul(filters.stacked, columns.reshape(depth, -1))
            parts = parts.reshape(taps, outputs, -1)
            length, pitch = (last - first) * per_row, dilation * per_row
            target = y[sample, :, first * per_row : last * per_row]
            np.add(parts[0, :, :length], parts[1, :, pitch : pitch + length], out=target)
            for tap in range(2, taps):
                target += parts[tap, :, tap * pitch : tap * pitch + length]
    return y.reshape(x.shape[0], outputs, *place.out)


def _row_columns(xp: Array, place: Placement, first: int, last: int) -> Array:
    """Return (C, *kernel[1:], last - first, *out[1:]) of one padded sample's input rows."""
    shape = (len(xp), *place.kernel[1:], last - first, *place.out[1:])
    columns = np.empty(shape, dtype=xp.dtype)
    everything, rows = slice(None), slice(first, last)
    for tap, slices in place.tap_slices():
        if tap[0] == 0:
            target: Index = (everything, *tap[1:])
            columns[target] = xp[spatial((rows, *slices[1:]))]
    return columns


class _Depthwise:
    """Convolution of each channel by itself.

    The padded input is split into planes by its position modulo the stride. Within a plane, a
    tap reads one contiguous run of a flattened channel: the result of the run has the pitch of
    the plane, and the surplus positions of each row are dropped at the end.
    """

    def __init__(self, place: Placement, multiplier: int) -> None:
        """Plan for one input size.

        Args:
            place: Windows.
            multiplier: Output channels per input channel.
        """
        self.place = place
        self.multiplier = multiplier
        axes = range(len(place.out))
        reach = [(place.kernel[axis] - 1) * place.dilations[axis] for axis in axes]
        pitch = [place.out[axis] + reach[axis] // place.strides[axis] for axis in axes]
        self.plane: Shape = tuple(pitch)
        # The run of the last tap goes past the last row by less than one row.
        self.buffer: Shape = (pitch[0] + 1, *pitch[1:])
        self.length = place.out[0] * math.prod(pitch[1:])
        self.planes = [self._plane(phase) for phase in itertools.product(*self._phases())]
        phases = [phase for phase, _, _ in self.planes]
        strides = [math.prod(pitch[axis + 1 :]) for axis in axes]
        self.runs: list[tuple[int, int]] = []
        for tap in np.ndindex(place.kernel):
            where = [divmod(tap[a] * place.dilations[a], place.strides[a]) for a in axes]
            start = sum(where[a][0] * strides[a] for a in axes)
            self.runs.append((phases.index(tuple(rest for _, rest in where)), start))

    def _phases(self) -> list[list[int]]:
        """Return the phases per axis that any tap reads."""
        place = self.place
        numbers = zip(place.kernel, place.dilations, place.strides, strict=True)
        return [
            sorted({tap * dilation % stride for tap in range(taps)})
            for taps, dilation, stride in numbers
        ]

    def _plane(self, phase: Shape) -> tuple[Shape, Slices, Slices]:
        """Return a phase, the part of its plane that the input fills, and from where."""
        target, source = [], []
        for axis, rest in enumerate(phase):
            stride, begin = self.place.strides[axis], self.place.begin[axis]
            size = self.place.size[axis]
            first = max(-((rest - begin) // stride), 0)
            start = first * stride + rest - begin
            count = max(min(-((start - size) // stride), self.plane[axis] - first), 0)
            target.append(slice(first, first + count))
            source.append(slice(start, start + count * stride, stride))
        return phase, tuple(target), tuple(source)

    def __call__(self, x: Array, filters: Filters) -> Array:
        """Return the convolution of ``x``."""
        samples, channels = x.shape[:2]
        multiplier, out, length = self.multiplier, self.place.out, self.length
        y = np.empty((samples, channels, multiplier, *out), dtype=x.dtype)
        weight = filters.weight.reshape(channels, multiplier, len(self.runs))
        adds = multiplier == 1 and length > LONG_CHANNEL
        room = 4 * DEPTHWISE_BYTES if adds else DEPTHWISE_BYTES
        step = min(channels, max(1, room // (length * x.itemsize)))
        buffer = np.zeros((len(self.planes), step, *self.buffer), dtype=x.dtype)
        scratch_shape = (step, length) if adds else (step, len(self.runs), length)
        scratch = np.empty(scratch_shape, dtype=x.dtype)
        result = np.empty((step, multiplier, length), dtype=x.dtype)
        crop = spatial(tuple(slice(0, size) for size in out[1:]))
        combine = self._add if adds else self._multiply
        for sample, first in itertools.product(range(samples), range(0, channels, step)):
            last = min(first + step, channels)
            count = last - first
            for plane, (_, target, source) in zip(buffer, self.planes, strict=True):
                plane[:count][spatial(target)] = x[sample, first:last][spatial(source)]
            flat = buffer[:, :count].reshape(len(self.planes), count, -1)
            combine(flat, weight[first:last], scratch[:count], result[:count])
            rows = result[:count].reshape(count, multiplier, out[0], *self.plane[1:])
            y[sample, first:last] = rows[crop]
        return y.reshape(samples, channels * multiplier, *out)

    def _add(self, planes: Array, weight: Array, scratch: Array, result: Array) -> None:
        """Multiply each run by its weight and add it: long runs, one filter per channel."""
        total = result[:, 0]
        for tap, (plane, start) in enumerate(self.runs):
            run = planes[plane, :, start : start + self.length]
            if tap == 0:
                np.multiply(run, weight[:, 0, :1], out=total)
                continue
            np.multiply(run, weight[:, 0, tap : tap + 1], out=scratch)
            np.add(total, scratch, out=total)

    def _multiply(self, planes: Array, weight: Array, scratch: Array, result: Array) -> None:
        """Copy the runs below each other and multiply by all weights at once."""
        for tap, (plane, start) in enumerate(self.runs):
            scratch[:, tap] = planes[plane, :, start : start + self.length]
        np.matmul(weight, scratch, out=result)
