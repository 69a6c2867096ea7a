"""Charts as numbers: where on its axis each mark, bar, column and point stands."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from qonnx_hub.reporting.pages.page import Bar, Bars, Plot, Tick

_MOST_BARS = 150
"""Lines of a chart; of more, the longest are drawn."""


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers from ``low`` to ``high``: 1, 2 or 5 times a power of ten apart.

    Example:
        >>> ticks(0.0, 9.3)
        [0.0, 2.0, 4.0, 6.0, 8.0]
    """
    if not low < high:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((k * power for k in (1, 2, 5) if k * power >= rough), 10 * power)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def bars(
    lines: Sequence[tuple[str, Sequence[float], str, str]],
    series: Sequence[str],
    words: str,
    *,
    logarithmic: bool = False,
) -> Bars:
    """Return a bar chart of numbers from zero on.

    Args:
        lines: Label, one number per series, the value in words, and the anchor of its row.
        series: What each colour means.
        words: What the axis shows.
        logarithmic: Whether the axis is: one step is seen beside thousands.
    """
    shown = lines
    if len(lines) > _MOST_BARS:
        kept = sorted(range(len(lines)), key=lambda k: -max(lines[k][1]))[:_MOST_BARS]
        shown = [lines[k] for k in sorted(kept)]
        words = f"{words} The {_MOST_BARS} largest of {len(lines)} are drawn."
    largest = max((min(x, 1e15) for _, numbers, _, _ in shown for x in numbers), default=0.0)
    largest = largest or 1.0
    place: Callable[[float], float] = lambda x: 100 * x / largest  # noqa: E731
    marks = ticks(0.0, largest)
    if logarithmic:
        end = math.log10(1 + largest)
        place = lambda x: 100 * math.log10(1 + min(x, 1e15)) / end  # noqa: E731
        every = max(1, math.ceil(end / 5))
        marks = [0.0, *(10.0**k for k in range(0, math.floor(math.log10(largest)) + 1, every))]
        marks = marks if largest >= 1 else [0.0, largest]
    return Bars(
        tuple(
            Bar(label, tuple(min(100.0, place(x)) for x in numbers), text, anchor)
            for label, numbers, text, anchor in shown
        ),
        tuple(Tick(place(x), number(x)) for x in marks),
        tuple(series),
        words,
    )


def histogram(title: str, counts: Mapping[str, int], words: str) -> Plot:
    """Return columns: what is counted below, how often at the left."""
    largest = max(counts.values(), default=0) or 1
    step = 100 / max(len(counts), 1)
    columns = tuple(
        (k * step, 100 * count / largest, f"{count:,}")
        for k, count in enumerate(counts.values())
    )
    across = tuple(Tick((k + 0.5) * step, text) for k, text in enumerate(counts))
    up = tuple(Tick(100 * x / largest, number(x)) for x in ticks(0, largest, 4))
    return Plot(title, (), columns, across, up, words)


def scatter(title: str, points: Sequence[tuple[float, float]], words: str) -> Plot:
    """Return points of two numbers each, on two axes of the same numbers."""
    ends = [x for point in points for x in point if math.isfinite(x)] or [0.0]
    low, high = min(ends), max(ends)
    if low == high:
        low, high = low - 0.5, high + 0.5
    span = high - low
    if not math.isfinite(span):
        return Plot(title, (), (), (), (), words)
    placed = tuple(
        (100 * (x - low) / span, 100 * (y - low) / span)
        for x, y in points
        if math.isfinite(x) and math.isfinite(y)
    )
    marks = tuple(Tick(100 * (x - low) / span, number(x)) for x in ticks(low, high, 4))
    return Plot(title, placed, (), marks, marks, words)


def number(x: float) -> str:
    """Return a number as it stands at an axis: 0, 2.5, 1,000, 2M, 1e-07."""
    if abs(x) >= 1e4 or 0 < abs(x) < 1e-4:
        for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if size <= abs(x) < 1e12:
                return f"{x / size:.4g}{letter}"
        return f"{x:.0e}"
    return f"{x:,.4g}"
