"""The generated inputs of a check, and what they reach: one source for check and convert."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from onnx_ir import Model

from qonnx_hub.equivalence.inputs.batches import (
    ChainedInputs,
    GeneratedInputs,
    InputSource,
    read_batches,
)
from qonnx_hub.equivalence.inputs.boundary import runs_for, search_boundaries
from qonnx_hub.equivalence.inputs.coverage import InputCoverage
from qonnx_hub.equivalence.inputs.fill import fill_thresholds
from qonnx_hub.equivalence.inputs.generate import Ranges
from qonnx_hub.equivalence.inputs.meter import CoverageMeter
from qonnx_hub.equivalence.inputs.sweep import MAGNITUDES, sweep_magnitudes
from qonnx_hub.equivalence.inputs.watch import Watcher
from qonnx_hub.reporting.progress import stage
from qonnx_hub_adapters.protocol import Feeds
from qonnx_hub_ir.choices import require_choice
from qonnx_hub_ir.quantizers import Array

_SWEEP_SHARE = 16
_FILL_SHARE = 32
"""What part of the work trying magnitudes, and walking a line once, may take."""


@dataclass(frozen=True, slots=True)
class SearchBounds:
    """What bounds a search.

    Attributes:
        work: Elements that all runs together may compute; see :func:`runs_for`.
        tried: Samples of other magnitudes to try.
        kept: Samples of other magnitudes to keep.
        per_layer: Thresholds of a layer to follow.
    """

    work: int
    tried: int
    kept: int
    per_layer: int


_BOUNDS = {
    "quick": SearchBounds(1 << 26, 4 * MAGNITUDES, 16, 0),
    "normal": SearchBounds(1 << 28, 10 * MAGNITUDES, 48, 24),
    "thorough": SearchBounds(1 << 31, 64 * MAGNITUDES, 256, 96),
}


def search_bounds(effort: str) -> SearchBounds:
    """Return what bounds the searches of an effort: "quick", "normal" or "thorough".

    Raises:
        UsageError: No such effort.
    """
    require_choice("effort", effort, _BOUNDS)
    return _BOUNDS[effort]


@dataclass(frozen=True, slots=True)
class ReachingInputs:
    """Generated inputs, and what they reach.

    Attributes:
        source: The inputs, in batches.
        coverage: What they reach in the model they were made for.
    """

    source: InputSource
    coverage: InputCoverage


def find_inputs(
    model: Model,
    samples: int | None = None,
    seed: int = 0,
    ranges: Ranges | None = None,
    length: int | None = None,
    effort: str = "normal",
    *,
    steer: bool = True,
) -> ReachingInputs:
    """Return inputs that exercise a model: random, ties, limits, thresholds of inner layers.

    Args:
        model: The reference.
        samples: How many to generate; as many as suit the model by default.
        seed: Seed of the random values; the same seed gives the same inputs.
        ranges: Input name -> (lowest, highest) value.
        length: Samples per batch; as many as suit the model by default.
        effort: "quick", "normal" or "thorough": how much is searched.
        steer: Whether inputs are steered to the thresholds of inner quantizers as well.

    Raises:
        UsageError: A size that the file leaves open, or a range that is none.
    """
    stage("looking for inputs")
    bounds = search_bounds(effort)
    source = GeneratedInputs(model, samples, seed, ranges, length)
    watcher = Watcher(model)
    parts: list[InputSource] = [source]
    exercised: tuple[int, ...] = ()
    if steer:
        free = [name for name in source.floats if name not in (ranges or {})]
        tries = watcher.tries(source)
        swept = _sweep(watcher, tries, free, bounds, seed)
        if swept is not None:
            parts.append(watcher.source_of(swept, length, "many magnitudes"))
        if bounds.per_layer:
            start = tries if swept is None else _in_turn(swept, tries)
            runs = runs_for(watcher, bounds.work)
            filled = fill_thresholds(
                watcher, start, source.floats, runs // _FILL_SHARE, in_all=runs
            )
            if filled is not None:
                parts.append(watcher.source_of(filled, length, "thresholds left out"))
            beside, exercised = search_boundaries(
                watcher, start, source.floats, bounds.work, seed, bounds.per_layer
            )
            if beside is not None:
                words = "thresholds of inner quantizers"
                parts.append(watcher.source_of(beside, length, words))
    found: InputSource = ChainedInputs(parts) if len(parts) > 1 else source
    coverage = measure_coverage(model, found, ranges, watcher)
    if exercised:
        rows = zip(coverage.quantizers, exercised, strict=False)
        quantizers = tuple(dataclasses.replace(row, exercised=n) for row, n in rows)
        coverage = dataclasses.replace(coverage, quantizers=quantizers)
    coverage = dataclasses.replace(coverage, effort=effort, sizes=source.sizes)
    return ReachingInputs(found, coverage)


def _sweep(
    watcher: Watcher, tries: Feeds, names: list[str], bounds: SearchBounds, seed: int
) -> dict[str, Array] | None:
    """Return tries of other magnitudes that lead somewhere new, where there is time for it."""
    rows = min(runs_for(watcher, bounds.work) // _SWEEP_SHARE, bounds.tried)
    rows -= rows % MAGNITUDES
    if not names or rows < MAGNITUDES or len({len(x) for x in tries.values()}) != 1:
        return None
    return sweep_magnitudes(watcher, tries, names, rows, bounds.kept, seed)


def _in_turn(first: Feeds, second: Feeds) -> dict[str, Array]:
    """Return zeros, tries of both in turn, and the rest of the longer one."""
    found = {}
    for name, x in first.items():
        y = second[name]
        count = min(len(x), len(y))
        both = np.stack([x[:count], y[:count]], axis=1).reshape(-1, *x.shape[1:])
        found[name] = np.concatenate([x[:1] * 0, both, x[count:], y[count:]]).astype(x.dtype)
    return found


def measure_coverage(
    model: Model,
    source: InputSource,
    ranges: Ranges | None = None,
    watcher: Watcher | None = None,
) -> InputCoverage:
    """Return what inputs reach in a model.

    Args:
        model: The reference.
        source: The inputs, by the names of the model.
        ranges: Input name -> (lowest, highest) value that inputs may have.
        watcher: What runs the model, where there is one already.
    """
    meter = CoverageMeter(model, ranges, watcher)
    for batch in read_batches(source):
        meter.add(batch.feeds)
    return meter.coverage()
