"""Looks for an input on which two sides part, where nothing showed one yet.

What a proof refuted, or what differs inside, need not reach an output on the inputs that a
check runs. So many more are drawn, of all magnitudes and of several in one sample, and mixed
with one another; only outputs are compared, which takes little time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qonnx_hub.equivalence.comparison.compare import aligned, differs
from qonnx_hub.equivalence.comparison.matching import Pair
from qonnx_hub.equivalence.inputs.batches import (
    GeneratedInputs,
    InputSource,
    SampleBatch,
    read_batches,
    shares_first_axis,
    take_samples,
)
from qonnx_hub.equivalence.inputs.boundary import runs_for
from qonnx_hub.equivalence.inputs.generate import Ranges
from qonnx_hub.equivalence.inputs.reach import search_bounds
from qonnx_hub.equivalence.inputs.sizes import InputLayout
from qonnx_hub.equivalence.inputs.sweep import MAGNITUDES, try_magnitudes
from qonnx_hub.equivalence.inputs.watch import Watcher
from qonnx_hub.equivalence.runners.sides import Runner, for_side
from qonnx_hub_adapters.protocol import Feeds
from qonnx_hub_ir.errors import HubError
from qonnx_hub_ir.quantizers import Array

_TRIES = 20 * MAGNITUDES
_TRIES_OF_RUNS = 2 * MAGNITUDES
_ROUNDS = {"quick": 2, "normal": 12, "thorough": 100}
_SHOWN = 8
"""Samples that are returned at most."""


def find_difference(
    a: Runner,
    b: Runner,
    outputs: Sequence[Pair],
    seed: int = 0,
    ranges: Ranges | None = None,
    effort: str = "normal",
) -> InputSource | None:
    """Return inputs on which an output of two sides differs; ``None`` where none was found.

    Args:
        a: The reference side; nothing is looked for where it has no graph.
        b: The other side.
        outputs: The outputs that are compared.
        seed: Seed of the random values.
        ranges: Input name -> (lowest, highest) value; other inputs may have any.
        effort: "quick", "normal" or "thorough": how much is tried.
    """
    if a.model is None:
        return None
    watcher = Watcher(a.model)
    source = GeneratedInputs(a.model, None, seed, ranges)
    free = [name for name in source.floats if name not in (ranges or {})]
    rows = _TRIES if watcher.layout is InputLayout.SAMPLES else _TRIES_OF_RUNS
    rows = min(rows, runs_for(watcher, search_bounds(effort).work) // _ROUNDS[effort])
    if not free or rows < MAGNITUDES:
        return None
    rng = np.random.default_rng([seed, rows])
    known = watcher.tries(source)
    for turn in range(_ROUNDS[effort]):
        # What was drawn last is mixed with what is drawn now.
        drawn = try_magnitudes(watcher, known, free, rows, int(rng.integers(1 << 31)))
        tries = drawn if turn % 2 == 0 else _mixed(drawn, known, free, rng)
        known = drawn
        try:
            shown = _differing(a, b, outputs, watcher, tries)
        except HubError:
            return None
        if shown is not None:
            return shown
    return None


def _mixed(
    drawn: Feeds, known: Feeds, names: Sequence[str], rng: np.random.Generator
) -> dict[str, Array]:
    """Return tries with some elements of one and some of another, few of one mostly."""
    found = {}
    for name, x in drawn.items():
        other = known[name][rng.integers(len(known[name]), size=len(x))]
        share = rng.choice([0.05, 0.25, 0.5], size=(len(x), *[1] * (x.ndim - 1)))
        taken = rng.random(x.shape) < share
        found[name] = np.where(taken, x, other) if name in names else x
    return found


def _differing(
    a: Runner, b: Runner, outputs: Sequence[Pair], watcher: Watcher, tries: Feeds
) -> InputSource | None:
    words = "a search for a difference"
    source = watcher.source_of(tries, None, words)
    names, theirs = [pair.a for pair in outputs], [pair.b for pair in outputs]
    for batch in read_batches(source):
        ours, others = a.answer(batch, names), b.answer(for_side(batch, b), theirs)
        for pair in outputs:
            x, y = ours.get(pair.a), aligned(ours.get(pair.a), others.get(pair.b))
            if x is None or y is None or not differs(x, y).any():
                continue
            return watcher.shown(_failing(batch, x, y, watcher.unit), words)
    return None


def _failing(batch: SampleBatch, x: Array, y: Array, unit: int) -> Feeds:
    """Return the samples of a batch that show a difference, as few as can be run."""
    if not shares_first_axis(batch.feeds) or not x.ndim or len(x) != batch.samples:
        return batch.feeds
    differing = np.flatnonzero(differs(x, y).reshape(len(x), -1).any(axis=1))
    units = np.unique(differing // unit)[:_SHOWN]
    rows = (units.reshape(-1, 1) * unit + np.arange(unit)).reshape(-1)
    return take_samples(batch.feeds, rows.tolist())
