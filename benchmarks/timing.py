"""Times calls in turn, so that other work on the machine meets all of them alike.

Where everything computes on one thread, what is counted is the processor's time on it, which
other work does not lengthen; with more threads, time as it passes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypedDict

from qonnx_hub.executor.threads import default_threads

SECONDS_PER_CALL = 1.5
_FEWEST_ROUNDS = 3
_ROUND = 0.02
"""Seconds of one round of a call: short ones are called more than once."""


class Timing(TypedDict):
    """Milliseconds of one call: best and median of all rounds, and ends of the middle half."""

    best: float
    median: float
    low: float
    high: float


def in_turn(calls: Mapping[str, Callable[[], object] | None]) -> dict[str, Timing | None]:
    """Return name -> timing of calls that are made round by round, one after the other."""
    repeats: dict[str, int] = {}
    rounds: dict[str, list[float]] = {name: [] for name in calls}
    for name, call in calls.items():
        if call is not None:
            call()
            repeats[name] = max(1, int(_ROUND / max(_seconds(call, 1), 1e-7)))
    start, budget = time.perf_counter(), SECONDS_PER_CALL * len(repeats)
    while min((len(rounds[n]) for n in repeats), default=_FEWEST_ROUNDS) < _FEWEST_ROUNDS or (
        time.perf_counter() - start < budget
    ):
        for name, count in repeats.items():
            call = calls[name]
            assert call is not None
            rounds[name].append(_seconds(call, count) / count * 1e3)
    return {name: _timing(times) if times else None for name, times in rounds.items()}


def _seconds(call: Callable[[], object], count: int) -> float:
    clock = time.thread_time if default_threads() == 1 else time.perf_counter
    start = clock()
    for _ in range(count):
        call()
    return clock() - start


def _timing(times: list[float]) -> Timing:
    low, median, high = statistics.quantiles(times, n=4)
    return {"best": min(times), "median": median, "low": low, "high": high}
