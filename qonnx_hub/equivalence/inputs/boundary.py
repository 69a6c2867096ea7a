"""Inputs steered so that inner quantizers cross their thresholds.

Random inputs rarely come near the thresholds of inner quantizers, and a fault that shifts a
threshold shows only there. Along a line between two inputs, the code of an element changes
somewhere; bisection finds two inputs, as close together as floats go, between which it does.
Both become inputs of the check.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from qonnx_hub.equivalence.graph_slices import work_per_sample
from qonnx_hub.equivalence.inputs.batches import batch_length, file_batch
from qonnx_hub.equivalence.inputs.sizes import InputLayout
from qonnx_hub.equivalence.inputs.watch import WatchedSteps, Watcher, rows_of
from qonnx_hub_adapters.protocol import Feeds
from qonnx_hub_ir.errors import ExecutionError, HubError
from qonnx_hub_ir.quantizers import Array

_LINES = 2
"""Lines for each threshold of a layer that is followed."""

_FEWEST_LINES = 2
_GRID = (0.0, 2.0**-12, 2.0**-9, 2.0**-6, 2.0**-3, 0.25, 0.5, 0.75, 1.0)
"""Where lines are looked at first: close to their start as well, for ends of any magnitude."""

_HALVINGS = 24
_FEWEST_HALVINGS = 8
_NODE = 40
"""Elements per sample that a node costs by being called, whatever it computes."""

_CALL = 4000
"""Elements that a call of a node takes as long as."""


@dataclass(frozen=True, slots=True)
class _Target:
    """A change of code on a line: which layer, which element, which line, between where."""

    layer: int
    element: int
    line: int
    start: float
    stop: float


def runs_for(watcher: Watcher, work: int) -> int:
    """Return how many tries a model computes for so many elements of work."""
    model, nodes = watcher.model, len(watcher.model.graph)
    if watcher.layout is InputLayout.SAMPLES:
        return work // (work_per_sample(model) + _NODE * nodes)
    return work // (work_per_sample(model) * file_batch(model) + _CALL * nodes)


def search_boundaries(
    watcher: Watcher,
    feeds: Feeds,
    names: list[str],
    work: int,
    seed: int = 0,
    most: int = 24,
) -> tuple[dict[str, Array] | None, tuple[int, ...]]:
    """Return inputs beside thresholds of inner quantizers, and how many were met.

    Args:
        watcher: Runs the reference.
        feeds: Inputs to start from, the first axis over samples.
        names: The float inputs that may be moved.
        work: Elements that all runs together may compute.
        seed: Chooses the elements that are followed.
        most: Thresholds of a layer to follow.

    Returns:
        (inputs, exercised): the inputs are ``None`` where there is nothing to steer: no float
        input, no inner quantizer with known parameters, samples that cannot be told apart, or
        a model too large to be run so often. ``exercised`` holds, in the order of
        :func:`~qonnx_hub.equivalence.inputs.watch.watched_steps`, how many thresholds have
        inputs right beside them.
    """
    layers = watcher.steps
    samples = min((len(x) for x in feeds.values()), default=0)
    if samples < 2 or not layers or not names:
        return None, ()
    lines = min(_LINES * most, batch_length(watcher.model))
    runs = runs_for(watcher, work) // len(layers)
    if lines < _FEWEST_LINES or runs < _FEWEST_HALVINGS:
        return None, ()
    search = _Search(watcher, feeds, names, min(_HALVINGS, runs))
    per_layer = max(runs // _HALVINGS, 1)
    rng = np.random.default_rng(seed)
    try:
        targets = search.targets(min(lines, samples), min(per_layer, most), rng)
        found = search.bisect(targets, lines)
        codes = [search.codes(part) for part in found]
    except HubError:
        found = []
    if not found:
        return None, ()
    joined = {name: np.concatenate([part[name] for part in found]) for name in feeds}
    return joined, _exercised(layers, codes)


class _Search:
    def __init__(
        self, watcher: Watcher, feeds: Feeds, names: list[str], halvings: int
    ) -> None:
        self.watcher = watcher
        self.feeds = feeds
        self.names = names
        self.halvings = halvings
        self.layers = watcher.steps
        self.read = tuple(layer.source for layer in self.layers)

    def codes(self, feeds: Feeds) -> list[Array]:
        """Return the codes of every quantizer, one row per sample.

        Raises:
            HubError: The model does not run, or does not keep the samples apart.
        """
        values = self._values(feeds)
        return [layer.codes(values[layer.source]) for layer in self.layers]

    def _values(self, feeds: Feeds) -> dict[str, Array]:
        samples = len(next(iter(feeds.values())))
        values = self.watcher.run(feeds, self.read)
        if not rows_of(values, self.read, samples):
            raise ExecutionError("what a quantizer reads has no axis over samples")
        return values

    def on_lines(self, lines: Array, t: Array) -> dict[str, Array]:
        """Return the inputs at positions ``t`` of lines, each to the next sample."""
        found: dict[str, Array] = {}
        for name, x in self.feeds.items():
            count = len(x)
            if name not in self.names:
                found[name] = x[lines % count]
                continue
            first, second = x[lines % count], x[(lines + 1) % count]
            at = t.reshape(-1, *[1] * (x.ndim - 1))
            moved = first + at * (second.astype(np.float64) - first)
            found[name] = moved.astype(x.dtype)
        return found

    def targets(self, lines: int, most: int, rng: np.random.Generator) -> list[_Target]:
        """Return changes of code to follow: as many different thresholds as there are."""
        rows = [self.codes(self.on_lines(np.arange(lines), np.full(lines, t))) for t in _GRID]
        found: list[_Target] = []
        for k in range(len(self.layers)):
            seen: dict[tuple[int, int], list[_Target]] = {}
            for step, (start, stop) in enumerate(itertools.pairwise(_GRID)):
                before, after = rows[step][k], rows[step + 1][k]
                changed = np.argwhere(before != after)
                picked = rng.permutation(len(changed))[: 4 * most]
                for line, element in changed[picked].tolist():
                    code = int(min(before[line, element], after[line, element]))
                    target = _Target(k, element, line, start, stop)
                    # Elements with thresholds of their own are followed one by one.
                    own = 0 if self.layers[k].uniform else element
                    seen.setdefault((code, own), []).append(target)
            in_turn = itertools.chain(*itertools.zip_longest(*seen.values()))
            found += [target for target in in_turn if target is not None][:most]
        return found

    def bisect(self, targets: list[_Target], width: int) -> list[dict[str, Array]]:
        """Return inputs on both sides of every change, as close as floats go."""
        found = []
        for start in range(0, len(targets), width):
            part = targets[start : start + width]
            lines = np.array([t.line for t in part], dtype=np.int64)
            low = np.array([t.start for t in part], dtype=np.float64)
            high = np.array([t.stop for t in part], dtype=np.float64)
            at_low = self._own_codes(part, lines, low)
            for _ in range(self.halvings):
                middle = (low + high) / 2
                same = self._own_codes(part, lines, middle) == at_low
                low, high = np.where(same, middle, low), np.where(same, high, middle)
            found += [self.on_lines(lines, low), self.on_lines(lines, high)]
        return found

    def _own_codes(self, part: list[_Target], lines: Array, t: Array) -> Array:
        values = self._values(self.on_lines(lines, t))
        # Only the layers that are followed: a deep graph has many more.
        followed = {target.layer for target in part}
        codes = {k: self.layers[k].codes(values[self.layers[k].source]) for k in followed}
        own = [codes[target.layer][i, target.element] for i, target in enumerate(part)]
        return np.array(own, dtype=np.int64)


def _exercised(layers: list[WatchedSteps], pairs: list[list[Array]]) -> tuple[int, ...]:
    """Return how many thresholds the inputs of pairs have on both sides.

    ``pairs`` holds the codes before and after the changes, in turn.
    """
    counts = []
    for k, layer in enumerate(layers):
        crossed: set[int] = set()
        for before, after in zip(pairs[::2], pairs[1::2], strict=True):
            low, high = np.minimum(before[k], after[k]), np.maximum(before[k], after[k])
            moved = high > low
            apart = layer.bands(low[moved]) < layer.bands(high[moved])
            crossed.update(np.unique(layer.bands(low[moved][apart])).tolist())
        counts.append(len(crossed))
    return tuple(counts)
