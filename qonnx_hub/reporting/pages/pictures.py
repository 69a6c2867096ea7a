"""A graph as a picture: boxes in ranks below one another, lines that go around boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from qonnx_hub.reporting.pages.page import Box, Picture, shortened

WIDTH = 236
"""Pixels of a box."""

_HEIGHT, _GAP, _BETWEEN, _LANE, _MARGIN = 54, 26, 18, 26, 10
_MOST = 300
"""Boxes of a picture; a model of more is drawn up to there."""

_LETTERS = 31


@dataclass(frozen=True, slots=True)
class GraphStep:
    """What is drawn as one box: operators in a row, up to a quantizer.

    Attributes:
        layers: Names of the layers that its values stand for.
        operators: Its operators, in order.
        weights: What its stored weights are quantized to; "" where none is.
        result: What its result is quantized to; "" where it is not.
        inputs: Numbers of the stages whose results it reads.
    """

    layers: tuple[str, ...]
    operators: tuple[str, ...]
    weights: str
    result: str
    inputs: tuple[int, ...]


def draw(
    stages: Sequence[GraphStep],
    level_of: Callable[[GraphStep], str] = lambda _: "none",
    anchor_of: Callable[[GraphStep], str] = lambda _: "",
    legend: Mapping[str, str] | None = None,
) -> Picture | None:
    """Return a graph's picture; ``None`` where there is nothing to draw.

    Args:
        stages: The boxes, each behind those that it reads.
        level_of: The colour of a box.
        anchor_of: Where a box leads to.
        legend: Level -> what its colour means; levels that no box has are left out.
    """
    drawn = stages[:_MOST]
    if not drawn:
        return None
    ranks = _ranks(drawn)
    places = _places(drawn, ranks)
    width = max(x + WIDTH for x in places.values())
    boxes = tuple(
        Box(
            x=places[k, ranks[k]] + _MARGIN,
            y=ranks[k] * (_HEIGHT + _GAP) + _MARGIN,
            lines=tuple(shortened_at_end(line) for line in _lines(stage)),
            title=shortened(", ".join(stage.layers), 200),
            level=level_of(stage),
            anchor=anchor_of(stage),
        )
        for k, stage in enumerate(drawn)
    )
    used = {box.level for box in boxes}
    return Picture(
        boxes,
        tuple(_paths(drawn, ranks, places)),
        width=int(width + 2 * _MARGIN),
        height=int((max(ranks) + 1) * (_HEIGHT + _GAP) - _GAP + 2 * _MARGIN),
        box=(WIDTH, _HEIGHT),
        legend=tuple(item for item in (legend or {}).items() if item[0] in used),
    )


def shortened_at_end(text: str) -> str:
    """Return a text that fits into a box."""
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 3]}..."


def _lines(stage: GraphStep) -> Iterable[str]:
    yield ", ".join(stage.operators)
    if stage.weights:
        yield f"weights {stage.weights}"
    yield f"\N{RIGHTWARDS ARROW} {stage.result}" if stage.result else stage.layers[-1]


def _ranks(stages: Sequence[GraphStep]) -> list[int]:
    ranks: list[int] = []
    for stage in stages:
        ranks.append(max((ranks[k] + 1 for k in stage.inputs), default=0))
    return ranks


def _places(stages: Sequence[GraphStep], ranks: Sequence[int]) -> dict[tuple[int, int], float]:
    """Return (stage, rank) -> left edge; a line that passes a rank has a lane there."""
    passing: list[dict[int, float]] = [{} for _ in range(max(ranks) + 1)]
    for k, stage in enumerate(stages):
        passing[ranks[k]][k] = WIDTH
        for before in stage.inputs:
            for rank in range(ranks[before] + 1, ranks[k]):
                passing[rank].setdefault(before, _LANE)
    middle: dict[int, float] = {}
    found: dict[tuple[int, int], float] = {}
    widest = max(sum(row.values()) + _BETWEEN * (len(row) - 1) for row in passing)
    for rank, row in enumerate(passing):
        own = {
            k: sum(middle[i] for i in stages[k].inputs) / max(len(stages[k].inputs), 1)
            if ranks[k] == rank and stages[k].inputs
            else middle.get(k, widest)
            for k in row
        }
        # Boxes left of lanes: the main line keeps its place beside what goes around it.
        order = sorted(row, key=lambda k: (row[k] == _LANE, own[k], k))
        total = sum(row.values()) + _BETWEEN * (len(row) - 1)
        boxes = sum(size == WIDTH for size in row.values())
        x = 0.0 if boxes == 1 else (widest - total) / 2
        for k in order:
            found[k, rank] = x
            middle[k] = x + row[k] / 2
            x += row[k] + _BETWEEN
    return found


def _paths(
    stages: Sequence[GraphStep], ranks: Sequence[int], places: Mapping[tuple[int, int], float]
) -> Iterable[str]:
    pitch = _HEIGHT + _GAP
    for k, stage in enumerate(stages):
        for before in stage.inputs:
            x = places[before, ranks[before]] + WIDTH / 2 + _MARGIN
            y = ranks[before] * pitch + _HEIGHT + _MARGIN
            path = f"M{x:.0f} {y:.0f}"
            for rank in range(ranks[before] + 1, ranks[k] + 1):
                lane = rank < ranks[k]
                end = places[before if lane else k, rank]
                end += (_LANE if lane else WIDTH) / 2 + _MARGIN
                top = rank * pitch + _MARGIN
                turn = y + _GAP / 2
                path += f"C{x:.0f} {turn:.0f} {end:.0f} {turn:.0f} {end:.0f} {top:.0f}"
                x, y = end, top
                if lane:
                    y = top + _HEIGHT
                    path += f"V{y:.0f}"
            yield path
