"""The smallest input that shows a difference: one sample, and few of its values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qonnx_hub.equivalence.comparison.compare import Tolerance, differs, tally
from qonnx_hub.equivalence.comparison.matching import Pair, answer_pair
from qonnx_hub.equivalence.inputs.batches import (
    SampleBatch,
    batch_length,
    file_batch,
    shares_first_axis,
    take_samples,
)
from qonnx_hub.equivalence.runners.sides import Runner
from qonnx_hub.io.arrays import write_arrays
from qonnx_hub_ir.quantizers import Array

_SHOWN_VALUES = 4096
_MOST_SAMPLES = 64
_TRIALS = 96
_TRIALS_OF_LARGE_MODELS = 6


@dataclass(frozen=True, slots=True)
class FailingInput:
    """The smallest input found that shows a difference.

    Attributes:
        feeds: Input name -> array, of as few samples as the models take.
        sample: Position of the first of them in the run.
        layer: The layer that was watched.
        where: An element in which its values differ.
        values: Both values there.
        nonzero: Elements of the inputs that are not zero.
    """

    feeds: dict[str, Array]
    sample: int
    layer: str
    where: tuple[int, ...]
    values: tuple[float, float]
    nonzero: int

    def save(self, path: str | Path) -> None:
        """Write the inputs as an .npz file, to run both models on."""
        write_arrays(path, self.feeds)

    def to_dict(self) -> dict[str, Any]:
        """Return the input as plain data; large arrays by their elements that are not zero."""
        return {
            "sample": self.sample,
            "layer": self.layer,
            "where": list(self.where),
            "values": list(self.values),
            "nonzero": self.nonzero,
            "feeds": {name: _array_data(x) for name, x in self.feeds.items()},
        }


def _array_data(x: Array) -> dict[str, Any]:
    data: dict[str, Any] = {"dtype": x.dtype.name, "shape": list(x.shape)}
    flat = x.reshape(-1)
    places = np.flatnonzero(flat)
    if places.size * 2 < flat.size:
        data["nonzero"] = {
            str(int(i)): float(flat[i]) for i in places[:_SHOWN_VALUES].tolist()
        }
    elif flat.size <= _SHOWN_VALUES:
        data["values"] = flat.astype(np.float64).tolist()
    return data


def find_failing_input(
    a: Runner, b: Runner, pair: Pair, batch: SampleBatch
) -> FailingInput | None:
    """Return the smallest input found for which a pair differs, or ``None``.

    The first sample that shows it by itself is taken, without a NaN if there is one; values
    whose replacement by zero leaves the difference are replaced, in halves, quarters, ...

    Args:
        a: The reference side.
        b: The other side.
        pair: The tensors to watch; no input shows a difference of constants.
        batch: A batch in which they differ.
    """
    if pair.constant:
        return None
    unit = max(file_batch(a.model), file_batch(b.model))
    starts = list(range(0, min(batch.samples, _MOST_SAMPLES), unit))
    x, y = answer_pair(a, b, pair, batch)
    if y is not None and x.ndim and len(x) == batch.samples:
        rows = np.flatnonzero(differs(x, y).reshape(len(x), -1).any(axis=1))
        # What quantizers make of a NaN is open in ONNX: other samples tell more.
        spoiled = set((np.flatnonzero(_has_nan(x) | _has_nan(y)) // unit * unit).tolist())
        found = np.unique(rows // unit * unit).tolist()
        starts = sorted(found, key=lambda start: start in spoiled)[:_MOST_SAMPLES]
    for start in starts:
        feeds = dict(batch.feeds)
        if shares_first_axis(feeds):
            feeds = take_samples(feeds, slice(start, start + unit))
        first = batch.start + start
        seen = _difference(a, b, pair, SampleBatch(batch.index, first, feeds))
        if seen is None:
            continue
        if a.input_names is not None and b.input_names is not None:
            feeds = _shrink(a, b, pair, feeds)
            seen = _difference(a, b, pair, SampleBatch(0, 0, feeds)) or seen
        nonzero = sum(int(np.count_nonzero(x)) for x in feeds.values())
        return FailingInput(feeds, first, pair.source, *seen, nonzero)
    return None


def _has_nan(x: Array) -> Array:
    """Return which rows hold a NaN."""
    return np.asarray((x != x).reshape(len(x), -1).any(axis=1))


def _difference(
    a: Runner, b: Runner, pair: Pair, batch: SampleBatch
) -> tuple[tuple[int, ...], tuple[float, float]] | None:
    """Return where a pair differs most, and both values there."""
    x, y = answer_pair(a, b, pair, batch)
    worst = None if y is None or x.size == 0 else tally(x, y, tolerance=Tolerance()).worst
    return None if worst is None or worst.values is None else (worst.where, worst.values)


def _shrink(a: Runner, b: Runner, pair: Pair, feeds: Mapping[str, Array]) -> dict[str, Array]:
    is_small = batch_length(a.model) >= _MOST_SAMPLES
    trials = _TRIALS if is_small else _TRIALS_OF_LARGE_MODELS
    kept = {name: np.array(x) for name, x in feeds.items()}
    for name, array in kept.items():
        # Numbers of integer inputs may be indices, for which zero is no smaller than others.
        if array.dtype.kind != "f" or array.size < 2:
            continue
        part = array.size
        while part >= max(array.size // 256, 1) and trials > 0:
            for start in range(0, array.size, part):
                flat = kept[name].reshape(-1)
                if trials <= 0 or not flat[start : start + part].any():
                    continue
                trials -= 1
                trial = flat.copy()
                trial[start : start + part] = 0
                changed = {**kept, name: trial.reshape(array.shape)}
                if _difference(a, b, pair, SampleBatch(0, 0, changed)) is not None:
                    kept = changed
            part //= 2
    return kept
