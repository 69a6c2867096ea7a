"""Convolution of each channel by itself.

The padded input is split into planes by its position modulo the stride. Within a plane, a tap
reads one contiguous run of a flattened channel: the result of the run has the pitch of the
plane, and the surplus positions of each row are dropped at the end.

The runs of the taps of all axes but the first are copied below each other, and one small
product per tap of the first axis and channel combines them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from qonnx_hub.executor.kernels._window import Index, Placement, Shape, spatial
from qonnx_hub.executor.kernels.spec import Array
from qonnx_hub.executor.threads import parallel_for

BLOCK_BYTES = 128 << 10
"""Size of one copied run of all channels of a block; several of them fit into the cache."""

SINGLE_THREAD = 9216
"""Elements up to which the matrix library multiplies without waking its other threads.

Each of these products is over before another thread would have started.
"""


SHARED_ELEMENTS = 1_500_000
"""Elements of the padded input from which threads share the channels."""


@dataclass(frozen=True, slots=True)
class _Plane:
    """Every ``stride``-th element of the padded input.

    Attributes:
        phase: First of them, per axis.
        target: The part of the plane that the input fills; the rest is padding.
        source: What of the input fills it.
    """

    phase: Shape
    target: Index
    source: Index


class Depthwise:
    """A depthwise convolution, planned for one input size."""

    def __init__(self, place: Placement, multiplier: int) -> None:
        """Plan.

        Args:
            place: Windows.
            multiplier: Output channels per input channel.
        """
        self.out = place.out
        place = place if len(place.out) > 1 else _with_row(place)
        self.place, self.multiplier = place, multiplier
        axes = range(len(place.out))
        reach = [(place.kernel[a] - 1) * place.dilations[a] // place.strides[a] for a in axes]
        self.pitch = [place.out[axis] + reach[axis] for axis in axes]
        self.row = math.prod(self.pitch[1:])
        self.reach = reach[0]
        # Positions modulo the stride that any tap of an axis reads.
        phases = [
            sorted({tap * dilation % stride for tap in range(taps)})
            for taps, dilation, stride in zip(
                place.kernel, place.dilations, place.strides, strict=True
            )
        ]
        self.planes = [self._plane(phase) for phase in itertools.product(*phases)]
        self.first_phases = phases[0]
        self.runs = [self._run(tap) for tap in np.ndindex(place.kernel[1:])]
        self.first_taps = [
            divmod(tap * place.dilations[0], place.strides[0])
            for tap in range(place.kernel[0])
        ]

    def _plane(self, phase: Shape) -> _Plane:
        target, source = [], []
        for axis, rest in enumerate(phase):
            stride, begin = self.place.strides[axis], self.place.begin[axis]
            first = max(-((rest - begin) // stride), 0)
            start = first * stride + rest - begin
            fitting = -((start - self.place.size[axis]) // stride)
            count = max(min(fitting, self.pitch[axis] - first), 0)
            target.append(slice(first, first + count))
            source.append(slice(start, start + count * stride, stride))
        return _Plane(phase, spatial(tuple(target)), spatial(tuple(source)))

    def _run(self, tap: Shape) -> tuple[Shape, int]:
        """Return the phase of a tap of the axes behind the first, and where its run starts."""
        start, phase = 0, []
        for axis, number in enumerate(tap, start=1):
            position, rest = divmod(
                number * self.place.dilations[axis], self.place.strides[axis]
            )
            phase.append(rest)
            start += position * math.prod(self.pitch[axis + 1 :])
        return tuple(phase), start

    def __call__(self, x: Array, weight: Array) -> Array:
        """Return the convolution of ``x``: (N, C, *size) to (N, C * multiplier, *out)."""
        samples, channels = x.shape[:2]
        place, multiplier = self.place, self.multiplier
        x = x.reshape(samples, channels, *place.size)
        y = np.empty((samples, channels, multiplier, *place.out), dtype=x.dtype)
        weight = weight.reshape(channels, multiplier, place.kernel[0], len(self.runs))
        rows = max(1, SINGLE_THREAD // (len(self.runs) * self.row))
        rows = math.ceil(place.out[0] / math.ceil(place.out[0] / rows))
        length = (rows + self.reach) * self.row
        step = min(channels, max(1, BLOCK_BYTES // (length * x.itemsize)))
        parts = itertools.product(range(samples), range(0, channels, step))

        def make() -> Callable[[tuple[int, int]], None]:
            # The run of the last tap goes past the last row by less than one row.
            plane_shape = (step, self.pitch[0] + 1, *self.pitch[1:])
            planes = np.zeros((len(self.planes), *plane_shape), dtype=x.dtype)
            columns_shape = (len(self.first_phases), step, len(self.runs), length)
            columns = np.empty(columns_shape, dtype=x.dtype)

            def work(part: tuple[int, int]) -> None:
                sample, first = part
                block = slice(first, min(first + step, channels))
                count = block.stop - first
                space = planes[:, :count], columns[:, :count]
                self._block(x[sample, block], weight[block], *space, y[sample, block], rows)

            return work

        elements = samples * channels * math.prod(self.pitch)
        parallel_for(make, parts, share=elements >= SHARED_ELEMENTS)
        return y.reshape(samples, channels * multiplier, *self.out)

    def _block(
        self, x: Array, weight: Array, planes: Array, columns: Array, y: Array, rows: int
    ) -> None:
        """Convolve some channels of one sample.

        Args:
            x: (C, *size).
            weight: (C, multiplier, taps of the first axis, taps of the others).
            planes: Zeros where nothing of the input is, (planes, C, *pitch).
            columns: Space for the runs.
            y: Where the result goes, (C, multiplier, *out).
            rows: Rows of the result to compute at once.
        """
        place, count = self.place, len(x)
        for plane, filled in zip(self.planes, planes, strict=True):
            filled[plane.target] = x[plane.source]
        flat = planes.reshape(len(planes), count, -1)
        crop = spatial(tuple(slice(0, size) for size in place.out[1:]))
        for top in range(0, place.out[0], rows):
            bottom = min(top + rows, place.out[0])
            self._copy_runs(flat, columns, top, bottom)
            result = self._multiply(weight, columns, bottom - top)
            shaped = result.reshape(count, self.multiplier, bottom - top, *self.pitch[1:])
            y[:, :, top:bottom] = shaped[crop]

    def _copy_runs(self, planes: Array, columns: Array, top: int, bottom: int) -> None:
        """Copy what the taps read of some rows, for every phase of the first axis."""
        begin = top * self.row
        length = (bottom - top + self.reach) * self.row
        phases = [plane.phase for plane in self.planes]
        for number, first_phase in enumerate(self.first_phases):
            for tap, (phase, start) in enumerate(self.runs):
                plane = planes[phases.index((first_phase, *phase))]
                run = plane[:, begin + start : begin + start + length]
                columns[number, :, tap, :length] = run

    def _multiply(self, weight: Array, columns: Array, rows: int) -> Array:
        """Return the sum over all taps: (C, multiplier, rows * pitch)."""
        length = rows * self.row
        total: Array | None = None
        for tap, (position, rest) in enumerate(self.first_taps):
            begin = position * self.row
            part = columns[self.first_phases.index(rest), :, :, begin : begin + length]
            # Products of one term do not go through the matrix library.
            combine = np.matmul if len(self.runs) > 1 else np.multiply
            product: Array = combine(weight[:, :, tap], part)
            total = product if total is None else np.add(total, product, out=total)
        assert total is not None
        return total


def _with_row(place: Placement) -> Placement:
    """Return the same windows on an input with one row in front."""
    ones = {
        n: (1, *getattr(place, n)) for n in ("kernel", "strides", "dilations", "size", "out")
    }
    none = {name: (0, *getattr(place, name)) for name in ("begin", "end", "after")}
    return replace(place, **ones, **none)
