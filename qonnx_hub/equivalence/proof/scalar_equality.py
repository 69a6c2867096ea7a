"""Whether two functions of one number are equal on every value of its type."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qonnx_hub.equivalence.proof.deadline import Deadline
from qonnx_hub.equivalence.proof.scalar_functions import ScalarFunction
from qonnx_hub.equivalence.proof.step_functions import (
    Mismatch,
    StepFunction,
    differs,
    find_steps,
    first_difference,
    packed,
)
from qonnx_hub_ir.errors import TooManyLevelsError
from qonnx_hub_ir.quantizers import Array
from qonnx_hub_ir.thresholds import key_range, keys_of, values_of

MOST_SPLITS = 1 << 21
"""Intervals that may be looked into before a proof is given up: some seconds of work."""

_CHUNK = 1 << 17
_PROBES = 129


@dataclass(frozen=True, slots=True)
class ScalarComparison:
    """What comparing two functions found.

    Attributes:
        thresholds: Thresholds of the first function, of all channels together.
        difference: An input on which they part; ``None`` where none is known.
        nan_equal: Whether they make the same of NaN.
        doubt: Why equality is not proven although no difference is known; empty otherwise.
        late: Whether that is for want of time.
    """

    thresholds: int = 0
    difference: Mismatch | None = None
    nan_equal: bool = True
    doubt: str = ""
    late: bool = False

    @property
    def equal(self) -> bool:
        """Whether the functions are proven equal on all inputs but NaN."""
        return self.difference is None and not self.doubt


def difference_on_probes(f: ScalarFunction, g: ScalarFunction, dtype: Any) -> Mismatch | None:
    """Return the smallest of some hundred inputs of all sizes on which two functions part."""
    lowest, highest = key_range(dtype)
    even = np.linspace(lowest, highest, _PROBES).astype(np.int64)
    small = np.linspace(-40.0, 40.0, _PROBES).astype(dtype)
    probes = np.concatenate([values_of(np.clip(even, lowest, highest), dtype), small])
    probes = probes[np.argsort(np.abs(probes), kind="stable")]
    rows = np.broadcast_to(probes, (f.channels, probes.size)).copy()
    of_f, of_g = f(rows), g(rows)
    apart = np.flatnonzero(differs(of_f, of_g).T)
    if not apart.size:
        return None
    place, channel = (int(i) for i in np.unravel_index(apart[0], of_f.T.shape))
    value_f, value_g = of_f[channel, place], of_g[channel, place]
    return Mismatch(float(probes[place]), float(value_f), float(value_g), channel)


def compare_functions(
    f: ScalarFunction, g: ScalarFunction, dtype: Any, deadline: Deadline | None = None
) -> ScalarComparison:
    """Return whether two functions are equal on every float, with the proof's size.

    Their tables are found by bisection and compared. Then the enclosures of both show, segment
    by segment, that neither can leave its level inside; what they cannot show is split until
    they can, down to single values if need be.

    Args:
        f: The first function.
        g: The second one, over the same layout.
        dtype: Type of the input.
        deadline: When to give up.
    """
    deadline = deadline or Deadline()
    if not f.is_coarse() or not g.is_coarse():
        return _unlisted(f, g, dtype, "one of the functions does not quantize")
    try:
        table = find_steps(f, f.channels, dtype, deadline=deadline)
        other = find_steps(g, g.channels, dtype, deadline=deadline)
    except TooManyLevelsError as error:
        found = _unlisted(f, g, dtype, str(error))
        return replace(found, late=deadline.passed() and found.difference is None)
    nan_equal = not bool(np.any(differs(table.at_nan, other.at_nan)))
    difference = first_difference(table, other)
    if difference is not None:
        # The tables of functions that are not monotone may be wrong.
        rows = np.full((f.channels, 1), difference.input, dtype=dtype)
        if differs(f(rows), g(rows))[difference.channel, 0]:
            return ScalarComparison(table.count, difference, nan_equal)
    difference, doubt = _confirm(f, g, table, deadline)
    late = bool(doubt) and deadline.passed()
    return ScalarComparison(table.count, difference, nan_equal, doubt, late)


def _unlisted(
    f: ScalarFunction, g: ScalarFunction, dtype: Any, reason: str
) -> ScalarComparison:
    """Return what probes say of functions that have no table."""
    difference = difference_on_probes(f, g, dtype)
    return ScalarComparison(0, difference, doubt="" if difference is not None else reason)


def _confirm(
    f: ScalarFunction, g: ScalarFunction, table: StepFunction, deadline: Deadline
) -> tuple[Mismatch | None, str]:
    """Return a difference inside of the table's segments, or why there may be one."""
    channel, low, high = table.channel, table.start, table.stops()
    looked_into = 0
    while channel.size:
        open_ = np.zeros(channel.size, dtype=np.bool_)
        for start in range(0, channel.size, _CHUNK):
            if deadline.passed():
                return None, f"not every interval was decided within {deadline.seconds:g} s"
            part = slice(start, start + _CHUNK)
            found = _look(f, g, channel[part], low[part], high[part], table.dtype)
            if isinstance(found, Mismatch):
                return found, ""
            open_[part] = found
        looked_into += int(np.count_nonzero(open_))
        if looked_into > MOST_SPLITS:
            return None, "no difference was found, but not every interval could be decided"
        channel, low, high = _halves(channel[open_], low[open_], high[open_])
    return None, ""


def _halves(channel: Array, low: Array, high: Array) -> tuple[Array, Array, Array]:
    """Return both halves of intervals of keys."""
    # Keys of doubles are so far apart that their difference is no int64.
    middle = (low >> 1) + (high >> 1) + (low & high & 1)
    ends = np.concatenate([low, middle + 1]), np.concatenate([middle, high])
    return np.concatenate([channel, channel]), *ends


def _look(
    f: ScalarFunction, g: ScalarFunction, channel: Array, low: Array, high: Array, dtype: Any
) -> Mismatch | Array:
    """Return which intervals stay undecided, or an input on which the functions part."""
    decided, level_f, level_g = _levels(f, g, channel, low, high, dtype)
    apart = decided & differs(level_f, level_g)
    if not np.any(apart):
        return np.asarray(~decided)
    index = int(np.flatnonzero(apart)[0])
    key = np.clip(keys_of(np.zeros(1, dtype=dtype)), low[index], high[index])
    return Mismatch(
        float(values_of(key, dtype)[0]),
        float(level_f[index]),
        float(level_g[index]),
        int(channel[index]),
    )


def _levels(
    f: ScalarFunction, g: ScalarFunction, channel: Array, low: Array, high: Array, dtype: Any
) -> tuple[Array, Array, Array]:
    """Return where both functions are constant on intervals, and what they are there."""
    ends = (values_of(low, dtype), values_of(high, dtype))
    back, rows = packed(f.channels, channel, ends)
    first, second = f.enclose(*rows), g.enclose(*rows)
    decided = (first.is_constant() & second.is_constant())[back]
    return np.asarray(decided), first.low[back], second.low[back]


def largest_distance(
    f: ScalarFunction, g: ScalarFunction, dtype: Any, deadline: Deadline
) -> float | None:
    """Return how far apart two functions are at most, on every float but NaN.

    Args:
        f: The first function.
        g: The second one, over the same layout.
        dtype: Type of the input.
        deadline: When to give up.

    Returns:
        ``None`` where they do not quantize, or are not decided everywhere.
    """
    if not f.is_coarse() or not g.is_coarse():
        return None
    try:
        tables = [find_steps(h, h.channels, dtype, deadline=deadline) for h in (f, g)]
    except TooManyLevelsError:
        return None
    starts = np.concatenate([np.stack([t.channel, t.start]) for t in tables], axis=1)
    channel, low = np.unique(starts, axis=1)
    high = replace(tables[0], channel=channel, start=low).stops()
    largest, looked_into = 0.0, 0
    while channel.size:
        open_ = np.zeros(channel.size, dtype=np.bool_)
        for start in range(0, channel.size, _CHUNK):
            if deadline.passed():
                return None
            part = slice(start, start + _CHUNK)
            known, one, other = _levels(f, g, channel[part], low[part], high[part], dtype)
            open_[part] = ~known
            apart = np.abs(one[known].astype(np.float64) - other[known])
            largest = max(largest, float(np.max(apart, initial=0.0)))
        looked_into += int(np.count_nonzero(open_))
        if looked_into > MOST_SPLITS or not np.isfinite(largest):
            return None
        channel, low, high = _halves(channel[open_], low[open_], high[open_])
    return largest
