"""Inputs along lines that cross all thresholds of a quantizer that others left out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from qonnx_hub.equivalence.inputs.watch import WatchedSteps, Watcher, rows_of
from qonnx_hub_adapters.protocol import Feeds
from qonnx_hub_ir.errors import HubError
from qonnx_hub_ir.graph.queries import dims
from qonnx_hub_ir.quantizers import Array

_MOST_POINTS = 512
_NARROWINGS = 4
_MOST_ELEMENTS = 1 << 25
"""Elements of the values of several quantizers that are held together."""


def fill_thresholds(
    watcher: Watcher, tries: Feeds, names: list[str], most: int, in_all: int
) -> dict[str, Array] | None:
    """Return tries whose codes none of the given ones has; ``None`` without any.

    For each quantizer, the line is walked between the two tries that lead farthest apart.

    Args:
        watcher: Runs the model.
        tries: The tries so far.
        names: The inputs that may be moved.
        most: Tries that may be run at once for a quantizer.
        in_all: Tries that may be run for all quantizers together, in order.
    """
    kept = []
    most = min(most, _MOST_POINTS)
    budget = _Budget(in_all)
    try:
        for group in _groups(watcher, max(len(next(iter(tries.values()))), most)):
            read = [layer.source for layer in group]
            values = watcher.run(tries, read)
            if not rows_of(values, read, len(next(iter(tries.values())))):
                continue
            for layer in group:
                points = min(4 * layer.total, most)
                bands = layer.bands(layer.codes(values[layer.source]))
                line = _Line(watcher, tries, names, layer, read)
                found = line.walk(bands, points, budget) if points > 1 else None
                kept += [found] if found is not None else []
    except HubError:
        return None
    if not kept:
        return None
    return {name: np.concatenate([part[name] for part in kept]) for name in tries}


@dataclass(slots=True)
class _Budget:
    """How many tries may still be run."""

    left: int


def _groups(watcher: Watcher, rows: int) -> Iterator[list[WatchedSteps]]:
    """Yield the counted quantizers in groups whose values fit in memory together.

    A group is planned once: a plan for each quantizer would make a deep graph's quadratic.
    """
    group: list[WatchedSteps] = []
    elements = 0
    for layer in (one for one in watcher.steps if one.counted):
        sizes = dims(layer.reads) or [_MOST_ELEMENTS]
        size = rows * math.prod(one for one in sizes if isinstance(one, int))
        if group and elements + size > _MOST_ELEMENTS:
            yield group
            group, elements = [], 0
        group.append(layer)
        elements += size
    if group:
        yield group


@dataclass(frozen=True, slots=True)
class _Line:
    """The lines of one quantizer, between two of the tries.

    Attributes:
        read: What is read of each run: the values of the quantizer's group.
    """

    watcher: Watcher
    tries: Feeds
    names: list[str]
    layer: WatchedSteps
    read: list[str]

    def walk(self, bands: Array, points: int, budget: _Budget) -> dict[str, Array] | None:
        """Return tries in bands that the given ones, and their rows of bands, left out."""
        if not bands.size:
            return None
        element = int((bands.max(axis=0) - bands.min(axis=0)).argmax())
        first, last = int(bands[:, element].argmin()), int(bands[:, element].argmax())
        met = np.zeros(self.layer.total + 1, dtype=np.bool_)
        met[np.unique(bands)] = True
        if met[bands[first, element] : bands[last, element] + 1].all():
            return None
        ends, line = (0.0, 1.0), None
        for _ in range(_NARROWINGS):
            if budget.left < points:
                break
            budget.left -= points
            t = np.linspace(*ends, points)
            line = {
                n: _between(x, first, last, t, moved=n in self.names)
                for n, x in self.tries.items()
            }
            values = self.watcher.run(line, self.read)
            if not rows_of(values, [self.layer.source], points):
                return None
            own = self.layer.bands(self.layer.codes(values[self.layer.source]))[:, element]
            inside = np.flatnonzero((own != own[0]) & (own != own[-1]))
            changes = np.flatnonzero(np.diff(own))
            if not changes.size or inside.size * 2 > points:
                break
            # Both ends lie far beyond the limits: the part between them is walked again.
            ends = (float(t[changes[0]]), float(t[changes[-1] + 1]))
        if line is None:
            return None
        places, rows = np.unique(own, return_index=True)
        rows = rows[~met[places]]
        return {name: x[rows] for name, x in line.items()} if rows.size else None


def _between(x: Array, first: int, last: int, t: Array, *, moved: bool) -> Array:
    if not moved:
        return np.repeat(x[first : first + 1], len(t), axis=0)
    start, stop = x[first].astype(np.float64), x[last].astype(np.float64)
    at = t.reshape(-1, *[1] * (x.ndim - 1))
    return np.asarray(start + at * (stop - start)).astype(x.dtype)
