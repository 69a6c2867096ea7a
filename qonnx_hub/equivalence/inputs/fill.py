"""Inputs along lines that cross all thresholds of a quantizer that others left out."""

from __future__ import annotations

import numpy as np

from qonnx_hub.equivalence.inputs.watch import WatchedSteps, Watcher, rows_of
from qonnx_hub_adapters.protocol import Feeds
from qonnx_hub_ir.errors import HubError
from qonnx_hub_ir.quantizers import Array

_MOST_POINTS = 512
_NARROWINGS = 4


def fill_thresholds(
    watcher: Watcher, tries: Feeds, names: list[str], most: int
) -> dict[str, Array] | None:
    """Return tries whose codes none of the given ones has; ``None`` without any.

    For each quantizer, the line is walked between the two tries that lead farthest apart.

    Args:
        watcher: Runs the model.
        tries: The tries so far.
        names: The inputs that may be moved.
        most: Tries that may be run for each quantizer.
    """
    layers = [one for one in watcher.steps if one.counted]
    kept = []
    try:
        for layer in layers:
            points = min(4 * layer.total, most, _MOST_POINTS)
            found = _walk(watcher, tries, names, layer, points) if points > 1 else None
            kept += [found] if found is not None else []
    except HubError:
        return None
    if not kept:
        return None
    return {name: np.concatenate([part[name] for part in kept]) for name in tries}


def _walk(
    watcher: Watcher, tries: Feeds, names: list[str], layer: WatchedSteps, points: int
) -> dict[str, Array] | None:
    bands = _bands(watcher, tries, layer)
    if bands is None or not bands.size:
        return None
    element = int((bands.max(axis=0) - bands.min(axis=0)).argmax())
    first, last = int(bands[:, element].argmin()), int(bands[:, element].argmax())
    met = np.zeros(layer.total + 1, dtype=np.bool_)
    met[np.unique(bands)] = True
    if met[bands[first, element] : bands[last, element] + 1].all():
        return None
    ends = (0.0, 1.0)
    for _ in range(_NARROWINGS):
        t = np.linspace(*ends, points)
        line = {n: _between(x, first, last, t, moved=n in names) for n, x in tries.items()}
        now = _bands(watcher, line, layer)
        if now is None:
            return None
        own = now[:, element]
        inside = np.flatnonzero((own != own[0]) & (own != own[-1]))
        changes = np.flatnonzero(np.diff(own))
        if not changes.size or inside.size * 2 > points:
            break
        # Both ends lie far beyond the limits: the part between them is walked again.
        ends = (float(t[changes[0]]), float(t[changes[-1] + 1]))
    places, rows = np.unique(own, return_index=True)
    rows = rows[~met[places]]
    return {name: x[rows] for name, x in line.items()} if rows.size else None


def _bands(watcher: Watcher, tries: Feeds, layer: WatchedSteps) -> Array | None:
    values = watcher.run(tries, [layer.source])
    if not rows_of(values, [layer.source], len(next(iter(tries.values())))):
        return None
    return layer.bands(layer.codes(values[layer.source]))


def _between(x: Array, first: int, last: int, t: Array, *, moved: bool) -> Array:
    if not moved:
        return np.repeat(x[first : first + 1], len(t), axis=0)
    start, stop = x[first].astype(np.float64), x[last].astype(np.float64)
    at = t.reshape(-1, *[1] * (x.ndim - 1))
    return np.asarray(start + at * (stop - start)).astype(x.dtype)
