"""The smallest input that shows a difference: one sample, and few of its values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from qonnx_hub.equivalence.comparison.compare import aligned
from qonnx_hub.equivalence.comparison.matching import Pair
from qonnx_hub.equivalence.inputs.batches import Batch, batch_length, file_batch
from qonnx_hub.equivalence.reports.report import FailingInput
from qonnx_hub.equivalence.runners.sides import Runner, renamed
from qonnx_hub_ir.quantizers import Array

_MOST_SAMPLES = 64
_TRIALS = 96
_TRIALS_OF_LARGE_MODELS = 6


def find_failing_input(a: Runner, b: Runner, pair: Pair, batch: Batch) -> FailingInput | None:
    """Return the smallest input found for which a pair differs, or ``None``.

    The first sample that shows it by itself is taken; values whose replacement by zero leaves
    the difference are replaced, in halves, quarters and so on.

    Args:
        a: The reference side.
        b: The other side.
        pair: The tensors to watch.
        batch: A batch in which they differ.
    """
    unit = max(file_batch(a.model), file_batch(b.model))
    for start in _starts(a, b, pair, batch, unit):
        feeds = {
            name: np.array(x[start : start + unit]) if x.ndim else x
            for name, x in batch.feeds.items()
        }
        part = Batch(batch.index, batch.start + start, feeds)
        seen = _difference(a, b, pair, part)
        if seen is None:
            continue
        is_record = a.is_record or b.is_record
        small = feeds if is_record else _shrink(a, b, pair, feeds)
        found = None if is_record else _difference(a, b, pair, Batch(0, 0, small))
        where, values = found or seen
        nonzero = sum(int(np.count_nonzero(x)) for x in small.values())
        return FailingInput(small, batch.start + start, pair.source, where, values, nonzero)
    return None


def _starts(a: Runner, b: Runner, pair: Pair, batch: Batch, unit: int) -> Iterable[int]:
    """Return where samples begin that show the difference among others."""
    x = a.answer(batch, [pair.a])[pair.a]
    there = Batch(batch.index, batch.start, renamed(batch.feeds, b))
    y = aligned(x, b.answer(there, [pair.b])[pair.b])
    if y is None or x.ndim == 0 or len(x) != batch.samples:
        return range(0, min(batch.samples, _MOST_SAMPLES), unit)
    rows = ~((x == y) | ((x != x) & (y != y))).reshape(len(x), -1).all(axis=1)
    starts = np.unique(np.flatnonzero(rows) // unit * unit)
    return [int(s) for s in starts[:_MOST_SAMPLES]]


def _difference(
    a: Runner, b: Runner, pair: Pair, batch: Batch
) -> tuple[tuple[int, ...], tuple[float, float]] | None:
    x = a.answer(batch, [pair.a])[pair.a]
    there = Batch(batch.index, batch.start, renamed(batch.feeds, b))
    y = aligned(x, b.answer(there, [pair.b])[pair.b])
    if y is None or x.dtype.kind not in "fiub":
        return None
    with np.errstate(all="ignore"):
        apart = np.abs(x.astype(np.float64) - y.astype(np.float64))
    apart = np.where((x == y) | ((x != x) & (y != y)), 0.0, apart)
    apart = np.where(np.isnan(apart), np.inf, apart)
    if apart.size == 0 or not apart.any():
        return None
    where = tuple(int(i) for i in np.unravel_index(int(apart.argmax()), x.shape))
    return where, (float(x[where]), float(y[where]))


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
                if _difference(a, b, pair, Batch(0, 0, changed)) is not None:
                    kept = changed
            part //= 2
    return kept
