"""Running both sides of a check and comparing what they say."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

from onnx_ir import Model

from qonnx_hub.equivalence.comparison.batched import Comparing, Found, Progress, compare_all
from qonnx_hub.equivalence.comparison.compare import (
    ORDER,
    Tally,
    TensorComparison,
    Tolerance,
    Verdict,
    summarize,
)
from qonnx_hub.equivalence.comparison.matching import Pair, match_tensors
from qonnx_hub.equivalence.diagnosis.diagnose import Diagnosis, diagnose
from qonnx_hub.equivalence.diagnosis.minimize import find_failing_input
from qonnx_hub.equivalence.diagnosis.quantizer_causes import Finding
from qonnx_hub.equivalence.diagnosis.unobserved import find_latent
from qonnx_hub.equivalence.inputs.batches import (
    Batch,
    GivenInputs,
    InputSource,
    file_batch,
    read_batches,
    run_length,
)
from qonnx_hub.equivalence.reports.report import (
    CheckResult,
    Coverage,
    Divergence,
    FailingInput,
    LayerRow,
    QuantizerRow,
    describe_environment,
)
from qonnx_hub.equivalence.runners.recorded import GoldenWriter
from qonnx_hub.equivalence.runners.sides import ExecutorRunner, Runner
from qonnx_hub_ir import dialect
from qonnx_hub_ir.describe import describe_quantizer
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.facts import facts_of
from qonnx_hub_ir.quantizers import Array

LEVELS = ("output", "layer", "proof")


@dataclass(frozen=True, slots=True)
class How:
    """How a check is done.

    Attributes:
        tolerance: What counts as within bounds.
        layers: Compare inner values, find the first that differs, and why.
        explain: Look for the cause and the smallest failing input.
        mapping: Tensor or layer of the reference -> tensor of the other side.
        labels: The right class of every sample.
        score: Count predictions.
        golden: Folder for the reference's answers.
        workers: Processes to spread the batches over.
        executor: Spreads the batches instead.
        progress: Told after each batch.
        seed: Seed of the generated inputs, for the report.
        coverage: Thresholds that the inputs meet, for the report.
    """

    tolerance: Tolerance = field(default_factory=Tolerance)
    layers: bool = True
    explain: bool = True
    mapping: Mapping[str, str] | None = None
    labels: Array | None = None
    score: bool = False
    golden: str | Path | None = None
    workers: int = 0
    executor: Executor | None = None
    progress: Progress | None = None
    seed: int | None = None
    coverage: tuple[Coverage, ...] = ()


def check_runners(
    a: Runner,
    b: Runner,
    feeds: Mapping[str, Array],
    *,
    inputs: str,
    how: How,
) -> CheckResult:
    """Return how side ``b`` compares to side ``a`` on given feeds; see :func:`check_sides`."""
    unit = max(file_batch(a.model), file_batch(b.model))
    length = run_length(a.model or b.model, unit)
    return check_sides(a, b, GivenInputs(feeds, length, inputs), how)


def check_sides(a: Runner, b: Runner, source: InputSource, how: How) -> CheckResult:
    """Return how side ``b`` compares to side ``a``, the reference.

    Args:
        a: The reference side.
        b: The other side.
        source: Inputs by the names of ``a``.
        how: What to compare, and how strictly.

    Raises:
        UsageError: The sides cannot be compared, or nothing would be.
        HubError: A side fails.
    """
    model = a.model or b.model
    pairs = match_tensors(a, b, layers=how.layers, mapping=how.mapping)
    step = {} if model is None else dict(facts_of(model).steps)
    if a.model is None:
        step = {p.a: step[p.b] for p in (*pairs.layers, *pairs.outputs) if p.b in step}
    what = Comparing(pairs, step, how.tolerance, how.score or how.labels is not None)
    writer = None if how.golden is None else GoldenWriter(how.golden, a.label, a.model)
    found = compare_all(
        a,
        b,
        what,
        source,
        labels=how.labels,
        golden=writer,
        workers=how.workers,
        executor=how.executor,
        progress=how.progress,
    )
    return _conclude(a, b, what, source, how, found)


def _conclude(
    a: Runner, b: Runner, what: Comparing, source: InputSource, how: How, found: Found
) -> CheckResult:
    inner = len(what.pairs.layers)
    missing = [
        p.a for k, p in enumerate(what.all_pairs) if k >= inner and k not in found.tallies
    ]
    if missing:
        raise UsageError(f"output {', '.join(missing)} holds nothing that can be compared")
    rows = [
        LayerRow(pair.source, _compare(what, k, found.tallies[k]), None, pair.constant)
        for k, pair in enumerate(what.all_pairs)
        if k in found.tallies
    ]
    outputs = tuple(_compare(what, k, t) for k, t in found.tallies.items() if k >= inner)
    outputs = tuple(
        _compare(what, k, found.tallies[k]) for k in range(inner, len(what.all_pairs))
    )
    verdict = max((c.verdict for c in outputs), key=ORDER.index)
    notes = [*what.pairs.notes, *_shape_notes(what, found)]
    first = _first(rows) if how.layers else None
    diagnosis, failing = None, None
    if how.explain and how.layers and first is not None:
        diagnosis, failing, more = _explain(a, b, what, source, found)
        notes += more
    latent: list[Finding] = []
    if how.explain and how.layers and first is None:
        start = Batch(0, 0, source.feeds(0))
        latent = find_latent(a, b, what.all_pairs, start)
        notes += [_latent_words(finding) for finding in latent]
    if diagnosis is not None:
        rows = _with_isolated(rows, what, found, diagnosis)
    return CheckResult(
        a=a.label,
        b=b.label,
        verdict=verdict,
        outputs=outputs,
        samples=source.samples,
        inputs=source.description,
        layers=sum(k < inner for k in found.tallies),
        first_divergence=first,
        notes=tuple(notes),
        findings=() if diagnosis is None else diagnosis.findings,
        layer_rows=tuple(rows) if how.layers else (),
        latent=tuple(latent),
        failing=failing,
        coverage=how.coverage,
        score=found.score,
        quantizers=list_quantizers(a.model),
        seed=how.seed,
        environment=describe_environment(),
    )


def _latent_words(finding: Finding) -> str:
    ours, theirs = finding.values or (0.0, 0.0)
    return (
        f"no input shows it, but quantizer '{finding.layer}' differs ({finding.cause}: "
        f"{finding.words}): of {finding.operand!r} it makes {ours!r}, the other {theirs!r}"
    )


def _compare(what: Comparing, k: int, found: Tally) -> TensorComparison:
    pair = what.all_pairs[k]
    return summarize(found, pair.a, pair.b, what.steps.get(pair.a))


def _shape_notes(what: Comparing, found: Found) -> list[str]:
    return [
        f"not compared: layer '{what.all_pairs[k].source}' has shape {list(x)} in the "
        f"reference, {list(y)} in the other side"
        for k, (x, y) in found.skipped.items()
    ]


def _first(rows: list[LayerRow]) -> Divergence | None:
    for row in rows:
        if row.comparison.verdict is Verdict.DIFFERENT:
            return Divergence(row.source, row.comparison)
    return None


def _with_isolated(
    rows: list[LayerRow], what: Comparing, found: Found, diagnosis: Diagnosis
) -> list[LayerRow]:
    known = [k for k in range(len(what.all_pairs)) if k in found.tallies]
    return [
        LayerRow(
            row.source,
            row.comparison,
            _compare(what, k, diagnosis.isolated[k]) if k in diagnosis.isolated else None,
            row.constant,
        )
        for k, row in zip(known, rows, strict=True)
    ]


def _explain(
    a: Runner, b: Runner, what: Comparing, source: InputSource, found: Found
) -> tuple[Diagnosis | None, FailingInput | None, list[str]]:
    """Return causes, the smallest failing input, and what stands in the way of either."""
    failing = next(
        k
        for k in range(len(what.all_pairs))
        if k in found.tallies and found.tallies[k].first_batch is not None
    )
    index = found.tallies[failing].first_batch or 0
    batch = next(batch for batch in read_batches(source) if batch.index == index)
    pair = what.all_pairs[failing]
    pairs = what.all_pairs
    if a.model is None:
        return None, None, ["the cause is not looked for: the reference has no graph"]
    reference: Runner = a
    notes: list[str] = []
    if a.is_record or not a.inner_names():
        reference, failing, pairs, notes = _stand_in(a, b, what, batch)
        if failing < 0:
            return None, None if a.is_record else _smallest(a, b, pair, batch), notes
    diagnosis = diagnose(reference, b, pairs, failing, batch)
    watched = pairs[failing]
    if watched.constant:
        watched = next(
            (p for p in pairs[failing:] if not p.constant and _differs(p, what, found)),
            watched,
        )
    return diagnosis, _smallest(reference, b, watched, batch), notes


def _differs(pair: Pair, what: Comparing, found: Found) -> bool:
    if pair not in what.all_pairs:
        return True
    tally = found.tallies.get(what.all_pairs.index(pair))
    return tally is not None and tally.beyond > 0


def _smallest(a: Runner, b: Runner, pair: Pair, batch: Batch) -> FailingInput | None:
    return None if pair.constant else find_failing_input(a, b, pair, batch)


def _stand_in(
    a: Runner, b: Runner, what: Comparing, batch: Batch
) -> tuple[Runner, int, tuple[Pair, ...], list[str]]:
    """Return the executor in the place of a side that shows its outputs only."""
    model = a.model
    if model is None:
        raise UsageError(f"{a.label} has no graph")
    stand_in = ExecutorRunner(model, f"the IR of {a.label}")
    outputs = list(dict.fromkeys(p.a for p in what.pairs.outputs))
    own, theirs = a.answer(batch, outputs), stand_in.answer(batch, outputs)
    same = all(
        own[n].shape == theirs[n].shape and (own[n] == theirs[n]).all() for n in outputs
    )
    if not same:
        return (
            stand_in,
            -1,
            (),
            [
                f"{a.label} differs from its own IR on the executor: the difference is not in "
                f"{b.label} alone; check the IR against it first"
            ],
        )
    pairs = match_tensors(stand_in, b, layers=True)
    inner = Comparing(pairs, {}, what.tolerance)
    found = compare_all(stand_in, b, inner, GivenInputs(batch.feeds, batch.samples))
    positions = [k for k in sorted(found.tallies) if found.tallies[k].beyond]
    note = f"layers are those of the IR of {a.label}, whose outputs equal its own"
    return stand_in, positions[0] if positions else -1, inner.all_pairs, [note]


def list_quantizers(model: Model | None) -> tuple[QuantizerRow, ...]:
    """Return the quantizers of a model, in order."""
    if model is None:
        return ()
    return tuple(
        QuantizerRow(
            str(node.outputs[0].metadata_props.get(dialect.PROVENANCE) or node.name),
            describe_quantizer(dialect.read_quantizer(node)),
            dialect.constant_value(node.inputs[0]) is not None,
        )
        for node in model.graph
        if dialect.is_quantizer(node)
    )
