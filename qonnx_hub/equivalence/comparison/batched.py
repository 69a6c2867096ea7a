"""Comparison batch by batch, in one process or in several, in constant memory."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import pickle
from collections import deque
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from qonnx_hub.equivalence.comparison.compare import (
    Tally,
    Tolerance,
    aligned,
    tally,
    tally_of_shapes,
)
from qonnx_hub.equivalence.comparison.matching import Pair, Pairs
from qonnx_hub.equivalence.comparison.scores import Score, ScoreSpec, score_predictions
from qonnx_hub.equivalence.inputs.batches import InputSource, SampleBatch, read_batches
from qonnx_hub.equivalence.options import CheckOptions
from qonnx_hub.equivalence.runners.recorded import GoldenWriter, golden_folder
from qonnx_hub.equivalence.runners.sides import ExecutorRunner, OrtRunner, Runner, for_side
from qonnx_hub.io.cluster import Cluster
from qonnx_hub.reporting.progress import advance, stage
from qonnx_hub_ir.errors import ExecutionError, UsageError
from qonnx_hub_ir.quantizers import Array


@dataclass(frozen=True, slots=True)
class ComparisonSpec:
    """What is compared, and how strictly.

    Attributes:
        pairs: What with what.
        steps: Tensor of the reference -> step size.
        tolerance: What counts as within bounds.
        score: How predictions of the first output are counted; ``None`` where they are not.
    """

    pairs: Pairs
    steps: dict[str, Array]
    tolerance: Tolerance
    score: ScoreSpec | None = None

    @property
    def all_pairs(self) -> tuple[Pair, ...]:
        """Inner values, then outputs."""
        return (*self.pairs.layers, *self.pairs.outputs)


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What the comparison of one batch, or of several, gave.

    Attributes:
        tallies: Pair -> numbers.
        skipped: Pair -> both shapes, where they do not fit.
        score: Predictions, where they are counted.
    """

    tallies: dict[Pair, Tally]
    skipped: dict[Pair, tuple[tuple[int, ...], tuple[int, ...]]]
    score: Score | None = None

    def __add__(self, later: BatchResult) -> BatchResult:
        """Return what both runs showed."""
        tallies = dict(self.tallies)
        for pair, more in later.tallies.items():
            tallies[pair] = tallies[pair] + more if pair in tallies else more
        score = later.score if self.score is None else self.score
        if self.score is not None and later.score is not None:
            score = self.score + later.score
        return BatchResult(tallies, {**self.skipped, **later.skipped}, score)


def compare_batch(
    a: Runner,
    b: Runner,
    what: ComparisonSpec,
    batch: SampleBatch,
    labels: Array | None = None,
    golden: GoldenWriter | None = None,
) -> BatchResult:
    """Return what one batch shows.

    Values of another shape differ; what holds no element says nothing.
    """
    # Constants are the same in every batch: comparing them once is enough.
    wanted = [pair for pair in what.all_pairs if batch.index == 0 or not pair.constant]
    first = a.answer(batch, list(dict.fromkeys(p.a for p in wanted)))
    second = b.answer(for_side(batch, b), list(dict.fromkeys(p.b for p in wanted)))
    tallies, skipped = {}, {}
    for pair in wanted:
        x, y = first.get(pair.a), second.get(pair.b)
        # A sequence or a missing optional value is no array.
        if not isinstance(x, np.ndarray) or not isinstance(y, np.ndarray):
            continue
        fitted = aligned(x, y)
        if fitted is None:
            skipped[pair] = (x.shape, y.shape)
            if pair in what.pairs.outputs:
                tallies[pair] = tally_of_shapes(x.shape, batch.index)
            continue
        tallies[pair] = tally(
            x,
            fitted,
            tolerance=what.tolerance.of(pair.a, pair.source, pair.b),
            step=what.steps.get(pair.a),
            batch=batch.index,
            start=0 if pair.constant else batch.start,
        )
    if golden is not None:
        outputs = {p.a: first[p.a] for p in what.pairs.outputs}
        golden.add(batch, outputs, {n: v for n, v in first.items() if n not in outputs})
    score = None
    if what.score is not None and what.pairs.outputs:
        pair = what.pairs.outputs[0]
        score = score_predictions(first[pair.a], second[pair.b], labels, what.score)
    return BatchResult(tallies, skipped, score)


def compare_all(
    a: Runner,
    b: Runner,
    what: ComparisonSpec,
    source: InputSource,
    options: CheckOptions,
) -> BatchResult:
    """Return what all batches show together, the same for any number of workers.

    Args:
        a: The reference side.
        b: The other side.
        what: What is compared.
        source: The inputs.
        options: Where the batches are compared, with which labels, and where answers are kept.

    Raises:
        UsageError: The sides cannot be sent to workers.
    """
    labels, pool, golden = options.labels, options.executor, None
    with contextlib.ExitStack() as stack:
        if options.golden is not None:
            held = golden_folder(options.golden, a.label, a.model)
            golden, pool = stack.enter_context(held), None
        if golden is None and pool is None and options.workers > 1:
            # Threads of runtimes do not survive a fork.
            context = multiprocessing.get_context("spawn")
            processes = ProcessPoolExecutor(options.workers, mp_context=context)
            pool = stack.enter_context(processes)
        parts: Iterator[tuple[SampleBatch, BatchResult]] = (
            (batch, compare_batch(a, b, what, batch, _part(labels, batch), golden))
            for batch in read_batches(source)
        )
        if pool is not None:
            parts = _spread(pool, a, b, what, source, options)
        found, done = BatchResult({}, {}), 0
        stage("comparing samples")
        for batch, part in parts:
            found = found + part
            done += batch.samples
            advance("comparing samples", done, source.samples)
        if golden is not None:
            golden.finish(source)
    return found


def _part(labels: Array | None, batch: SampleBatch) -> Array | None:
    return None if labels is None else labels[batch.start : batch.start + batch.samples]


def _spread(
    pool: Executor | Cluster,
    a: Runner,
    b: Runner,
    what: ComparisonSpec,
    source: InputSource,
    options: CheckOptions,
) -> Iterator[tuple[SampleBatch, BatchResult]]:
    for side in (a, b):
        if type(side) not in (ExecutorRunner, OrtRunner):
            raise UsageError(f"{side.label} cannot be sent to workers; leave the workers out")
    job: Any = pickle.dumps((a, b, what))
    most = 2 * (options.workers or 8)
    lost: tuple[type[BaseException], ...] = (BrokenExecutor,)
    if isinstance(pool, Cluster):
        most, lost, job = 2 * pool.threads, pool.lost, pool.scatter(job)
    waiting: deque[tuple[SampleBatch, Future[BatchResult]]] = deque()
    try:
        for batch in read_batches(source):
            future = pool.submit(_work, job, batch, _part(options.labels, batch))
            waiting.append((batch, future))
            if len(waiting) >= most:
                done, answer = waiting.popleft()
                yield done, answer.result()
        while waiting:
            done, answer = waiting.popleft()
            yield done, answer.result()
    except lost as error:
        raise ExecutionError(
            f"a worker ended before its work was done: {error}. Memory may have run out; and "
            "a script that asks for workers must make its calls below 'if __name__ == "
            '"__main__":\', since each worker imports it anew'
        ) from error
    finally:
        for _, future in waiting:
            future.cancel()


def _work(job: bytes, batch: SampleBatch, labels: Array | None) -> BatchResult:
    return compare_batch(*_unpacked(job), batch, labels)


@functools.lru_cache(maxsize=1)
def _unpacked(job: bytes) -> tuple[Runner, Runner, ComparisonSpec]:
    """Return a job's parts; a worker gets the same job for every batch."""
    found: tuple[Runner, Runner, ComparisonSpec] = pickle.loads(job)
    return found
