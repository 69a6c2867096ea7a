"""A scalar quantizer as a table: where each level begins, over all values of its input type.

The values of a float type, ordered, are consecutive integers (their *keys*): a monotone
function of one float is a function of an integer that never turns back, so that bisection
finds every key at which it changes. Two such functions are equal on all values of the type
when their tables are; NaN stands outside the order and is asked for by itself.

That a function is monotone is not found out here: :mod:`qonnx_hub.equivalence.proof.intervals`
shows of each segment of a table that the function cannot leave its level inside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qonnx_hub.equivalence.proof.deadline import Deadline
from qonnx_hub_ir.errors import TooManyLevelsError
from qonnx_hub_ir.quantizers import Array
from qonnx_hub_ir.thresholds import key_range, values_of

Function = Callable[[Array], Array]
"""``f(x)`` of shape (channels, n): row ``c`` is what channel ``c`` makes of row ``c`` of x."""

MOST_SEGMENTS = 1 << 20
"""Segments of all channels together that a table may have: some hundred megabytes at work."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """An input on which two functions part.

    Attributes:
        input: The value.
        value_a: What the first function makes of it.
        value_b: What the second one makes of it.
        channel: The channel.
    """

    input: float
    value_a: float
    value_b: float
    channel: int


@dataclass(frozen=True, slots=True)
class StepFunction:
    """A piecewise constant function of one float, per channel.

    Segments are sorted by channel, then by key; the first one of a channel starts at minus
    infinity, and each reaches to the next one's start.

    Attributes:
        channel: Channel of each segment, int64.
        start: Key of the first value of each segment, int64.
        level: What the function is from there on.
        channels: How many channels there are.
        at_nan: What each channel makes of NaN.
        dtype: Type of the input.
    """

    channel: Array
    start: Array
    level: Array
    channels: int
    at_nan: Array
    dtype: Any

    @property
    def count(self) -> int:
        """Number of thresholds: values at which a channel changes its level."""
        return len(self.start) - self.channels

    def segments(self, channel: int) -> slice:
        """Return which segments are those of a channel."""
        return slice(*np.searchsorted(self.channel, [channel, channel + 1]))

    def thresholds(self, channel: int = 0) -> Array:
        """Return the first value of each level of a channel but the lowest."""
        return values_of(self.start[self.segments(channel)][1:], self.dtype)

    def levels(self, channel: int = 0) -> Array:
        """Return the levels of a channel, from minus infinity on."""
        return np.asarray(self.level[self.segments(channel)])

    def stops(self) -> Array:
        """Return the key of the last value of each segment."""
        last = np.append(self.channel[1:] != self.channel[:-1], True)
        following = np.append(self.start[1:], 0) - 1
        return np.asarray(np.where(last, key_range(self.dtype)[1], following), dtype=np.int64)


def find_steps(
    function: Function,
    channels: int = 1,
    dtype: Any = np.float32,
    *,
    limit: int = MOST_SEGMENTS,
    deadline: Deadline | None = None,
) -> StepFunction:
    """Return the table of a function that is monotone on each side of zero.

    All intervals whose ends differ are halved together until they are two neighbours, in about
    thirty calls of the function however many levels there are.

    Args:
        function: The function.
        channels: How many channels it has.
        dtype: float16, float32 or float64: type of its input.
        limit: Most segments to look for, of all channels together.
        deadline: When to give up.

    Raises:
        TooManyLevelsError: There are more, or the time is over.
    """
    lowest, highest = key_range(dtype)
    ends = np.array([lowest, -1, 0, highest], dtype=np.int64)
    special = values_of(ends, dtype)
    fixed = np.concatenate([special, np.array([np.nan], dtype=dtype)])
    answers = function(np.broadcast_to(fixed, (channels, fixed.size)).copy())
    bounds = limit, deadline or Deadline()
    found = _bisect(function, channels, ends, answers[:, :4], dtype, bounds)
    every = np.arange(channels, dtype=np.int64)
    first = (every, np.full(channels, lowest, dtype=np.int64), answers[:, 0])
    channel, start, level = (np.concatenate(pair) for pair in zip(first, found, strict=True))
    order = np.lexsort((start, channel))
    return StepFunction(
        channel=channel[order],
        start=start[order],
        level=level[order],
        channels=channels,
        at_nan=answers[:, 4],
        dtype=np.dtype(dtype),
    )


def _bisect(
    function: Function,
    channels: int,
    ends: Array,
    answers: Array,
    dtype: Any,
    bounds: tuple[int, Deadline],
) -> tuple[Array, Array, Array]:
    """Return channel, key and new level of every change between the ends."""
    limit, deadline = bounds
    pieces = len(ends) - 1
    channel = np.repeat(np.arange(channels, dtype=np.int64), pieces)
    low, high = np.tile(ends[:-1], channels), np.tile(ends[1:], channels)
    at_low, at_high = answers[:, :-1].reshape(-1), answers[:, 1:].reshape(-1)
    found: list[tuple[Array, Array, Array]] = []
    while True:
        open_ = differs(at_low, at_high)
        channel, low, high, at_low, at_high = (
            part[open_] for part in (channel, low, high, at_low, at_high)
        )
        if channel.size + sum(part[0].size for part in found) > limit:
            raise TooManyLevelsError(
                f"more than {limit} thresholds in {channels} channels: not enumerated"
            )
        if deadline.passed():
            raise TooManyLevelsError(f"not enumerated within {deadline.seconds:g} s")
        near = high - low == 1
        found.append((channel[near], high[near], at_high[near]))
        channel, low, high, at_low, at_high = (
            part[~near] for part in (channel, low, high, at_low, at_high)
        )
        if not channel.size:
            break
        middle = (low >> 1) + (high >> 1) + (low & high & 1)
        at_middle = evaluate(function, channels, channel, middle, dtype)
        channel = np.concatenate([channel, channel])
        low, high = np.concatenate([low, middle]), np.concatenate([middle, high])
        at_low, at_high = (
            np.concatenate([at_low, at_middle]),
            np.concatenate([at_middle, at_high]),
        )
    channel, start, level = (np.concatenate(column) for column in zip(*found, strict=True))
    return channel, start, level


def differs(a: Array, b: Array) -> Array:
    """Return where two arrays hold different values: NaN equals NaN, -0.0 equals 0.0."""
    return np.asarray((a != b) & ~((a != a) & (b != b)))


def packed(
    channels: int, channel: Array, columns: tuple[Array, ...]
) -> tuple[Any, list[Array]]:
    """Return a place for each point in (channels, n) arrays, and those arrays.

    Args:
        channels: Number of rows.
        channel: Row of each point.
        columns: Arrays with one entry per point.

    Returns:
        An index that takes an answer of shape (channels, n) back to the points, and the
        columns as such arrays; places that no point takes repeat some point's value.
    """
    if channels == 1:
        return (0, slice(None)), [column[np.newaxis] for column in columns]
    order = np.argsort(channel, kind="stable")
    counts = np.bincount(channel, minlength=channels)
    first = np.cumsum(counts) - counts
    place = np.empty(channel.size, dtype=np.int64)
    place[order] = np.arange(channel.size, dtype=np.int64) - first[channel[order]]
    width = int(counts.max(initial=0))
    arrays = []
    for column in columns:
        array = np.full((channels, width), column[0] if column.size else 0, dtype=column.dtype)
        array[channel, place] = column
        arrays.append(array)
    return (channel, place), arrays


def evaluate(
    function: Function, channels: int, channel: Array, keys: Array, dtype: Any
) -> Array:
    """Return the function's values at points given by channel and key."""
    back, (rows,) = packed(channels, channel, (values_of(keys, dtype),))
    return np.asarray(function(rows)[back])


def first_difference(a: StepFunction, b: StepFunction) -> Mismatch | None:
    """Return an input on which two tables part, the one nearest to zero; ``None`` if equal.

    Infinities and zeros are inputs like others. NaN is not: see ``at_nan``.

    Raises:
        ValueError: The tables have different channels or input types.
    """
    if a.channels != b.channels or a.dtype != b.dtype:
        raise ValueError(
            f"{a.channels} channels of {a.dtype} against {b.channels} of {b.dtype}"
        )
    same = np.array_equal(a.channel, b.channel) and np.array_equal(a.start, b.start)
    if same and not np.any(differs(a.level, b.level)):
        return None
    found = [_nearest(a, b, channel) for channel in range(a.channels)]
    apart = [mismatch for mismatch in found if mismatch is not None]
    return min(apart, key=lambda mismatch: abs(mismatch.input), default=None)


def _nearest(a: StepFunction, b: StepFunction, channel: int) -> Mismatch | None:
    """Return the differing input of a channel that is nearest to zero."""
    in_a, in_b = a.segments(channel), b.segments(channel)
    merged = np.union1d(a.start[in_a], b.start[in_b])
    stops = np.append(merged[1:] - 1, key_range(a.dtype)[1])
    level_a, level_b = (
        table.level[part][np.searchsorted(table.start[part], merged, side="right") - 1]
        for table, part in ((a, in_a), (b, in_b))
    )
    apart = differs(level_a, level_b)
    if not np.any(apart):
        return None
    # The point of a segment nearest to zero is zero itself or one of its ends.
    values = values_of(np.clip(0, merged[apart], stops[apart]), a.dtype)
    index = int(np.argmin(np.abs(values)))
    made, other = float(level_a[apart][index]), float(level_b[apart][index])
    return Mismatch(float(values[index]), made, other, channel)
