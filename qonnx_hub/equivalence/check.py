"""Running both sides of a check and comparing what they answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx_ir import Model

from qonnx_hub.equivalence.comparison.batched import (
    BatchResult,
    ComparisonSpec,
    compare_all,
)
from qonnx_hub.equivalence.comparison.compare import (
    ORDER,
    Tally,
    TensorComparison,
    Verdict,
    summarize,
)
from qonnx_hub.equivalence.comparison.matching import Pair, match_tensors
from qonnx_hub.equivalence.diagnosis.diagnose import Diagnosis, diagnose
from qonnx_hub.equivalence.diagnosis.minimize import FailingInput, find_failing_input
from qonnx_hub.equivalence.diagnosis.quantizer_causes import Explanation
from qonnx_hub.equivalence.diagnosis.unobserved import find_unobserved
from qonnx_hub.equivalence.graph_slices import source_layer
from qonnx_hub.equivalence.inputs.batches import (
    GENERATED,
    GivenInputs,
    InputSource,
    SampleBatch,
    file_batch,
    read_batches,
    run_length,
)
from qonnx_hub.equivalence.options import CheckOptions
from qonnx_hub.equivalence.reports.report import (
    CheckResult,
    Divergence,
    LayerRow,
    QuantizerRow,
    describe_environment,
)
from qonnx_hub.equivalence.runners.sides import ExecutorRunner, Runner
from qonnx_hub_ir import dialect
from qonnx_hub_ir.describe import describe_quantizer
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.facts import facts_of
from qonnx_hub_ir.graph.queries import quantizers
from qonnx_hub_ir.quantizers import Array


def check_runners(
    a: Runner, b: Runner, feeds: Mapping[str, Array], options: CheckOptions
) -> CheckResult:
    """Return how ``b`` compares to ``a`` on generated inputs; see :func:`check_sides`."""
    unit = max(file_batch(a.model), file_batch(b.model))
    length = run_length(a.model or b.model, unit)
    return check_sides(a, b, GivenInputs(feeds, length, GENERATED), options)


def check_sides(
    a: Runner, b: Runner, source: InputSource, options: CheckOptions
) -> CheckResult:
    """Return how side ``b`` compares to side ``a``, the reference.

    Args:
        a: The reference side.
        b: The other side.
        source: Inputs by the names of ``a``.
        options: What to compare, and how strictly; what they say of inputs is not looked at.

    Raises:
        UsageError: The sides cannot be compared, or nothing would be.
        HubError: A side fails.
    """
    layers, model = options.level != "output", a.model or b.model
    pairs = match_tensors(a, b, layers=layers, mapping=options.mapping)
    steps = {} if model is None else dict(facts_of(model).steps)
    if a.model is None:
        steps = {p.a: steps[p.b] for p in (*pairs.layers, *pairs.outputs) if p.b in steps}
    score = options.score or options.labels is not None
    spec = ComparisonSpec(pairs, steps, options.tolerance, score)
    found = compare_all(a, b, spec, source, options)
    missing = [pair.a for pair in pairs.outputs if pair not in found.tallies]
    if missing:
        raise UsageError(f"output {', '.join(missing)} holds nothing that can be compared")
    compared = {
        pair: _summarized(spec, pair, found.tallies[pair])
        for pair in spec.all_pairs
        if pair in found.tallies
    }
    outputs = tuple(compared[pair] for pair in pairs.outputs)
    notes = [*pairs.notes]
    notes += [
        f"not compared: layer '{pair.source}' has shape {list(x)} in the reference, "
        f"{list(y)} in the other side"
        for pair, (x, y) in found.skipped.items()
    ]
    different = [p for p, c in compared.items() if c.verdict is Verdict.DIFFERENT]
    diagnosis, failing = Diagnosis(), None
    unobserved: list[Explanation] = []
    if layers and different:
        diagnosis, failing, more = _explain(a, b, spec, source, found)
        notes += more
    elif layers:
        unobserved = find_unobserved(a, b, spec.all_pairs, SampleBatch(0, 0, source.feeds(0)))
        for one in unobserved:
            ours, theirs = one.values or (0.0, 0.0)
            notes.append(
                f"no input shows it, but quantizer '{one.layer}' differs ({one.cause}: "
                f"{one.words}): it makes {ours!r} of {one.operand!r}, the other {theirs!r}"
            )
    rows = []
    for pair, comparison in compared.items():
        alone = diagnosis.isolated.get(pair)
        isolated = None if alone is None else _summarized(spec, pair, alone)
        rows.append(LayerRow(pair.source, comparison, isolated, pair.constant))
    first = [Divergence(pair.source, compared[pair]) for pair in different[:1]]
    return CheckResult(
        a=a.label,
        b=b.label,
        verdict=max((c.verdict for c in outputs), key=ORDER.index),
        outputs=outputs,
        samples=source.samples,
        inputs=source.description,
        layers=sum(pair in found.tallies for pair in pairs.layers),
        first_divergence=first[0] if layers and first else None,
        notes=tuple(notes),
        findings=diagnosis.findings,
        layer_rows=tuple(rows) if layers else (),
        latent=tuple(unobserved),
        failing=failing,
        score=found.score,
        quantizers=list_quantizers(a.model),
        environment=describe_environment(),
    )


def _summarized(spec: ComparisonSpec, pair: Pair, found: Tally) -> TensorComparison:
    return summarize(found, pair.a, pair.b, spec.steps.get(pair.a))


def _explain(
    a: Runner, b: Runner, spec: ComparisonSpec, source: InputSource, found: BatchResult
) -> tuple[Diagnosis, FailingInput | None, list[str]]:
    """Return causes, the smallest failing input, and what stands in the way of either."""
    pairs = spec.all_pairs
    differing = _differing(pairs, found)
    index = found.tallies[differing[0]].first_batch
    batch = next(batch for batch in read_batches(source) if batch.index == index)
    if a.model is None:
        return Diagnosis(), None, ["the cause is not looked for: the reference has no graph"]
    notes: list[str] = []
    if a.input_names is None or not a.inner_names():
        # The executor stands in for a side that shows its outputs only.
        stand_in = ExecutorRunner(a.model, f"the IR of {a.label}")
        names = list(dict.fromkeys(p.a for p in spec.pairs.outputs))
        own, theirs = a.answer(batch, names), stand_in.answer(batch, names)
        notes = [f"layers are those of the IR of {a.label}, whose outputs equal its own"]
        inner = ComparisonSpec(match_tensors(stand_in, b, layers=True), {}, spec.tolerance)
        again = BatchResult({}, {})
        if all(np.array_equal(own[name], theirs[name]) for name in names):
            feeds = GivenInputs(batch.feeds, batch.samples)
            again = compare_all(stand_in, b, inner, feeds, CheckOptions())
        else:
            notes = [
                f"{a.label} differs from its own IR on the executor: the difference is not in "
                f"{b.label} alone; check the IR against it first"
            ]
        beyond = _differing(inner.all_pairs, again)
        if not beyond:
            is_record = a.input_names is None
            smallest = None if is_record else find_failing_input(a, b, differing[0], batch)
            return Diagnosis(), smallest, notes
        a, pairs, differing = stand_in, inner.all_pairs, beyond
    # No input shows a stored value: the first value that it changes is watched.
    watched = next((pair for pair in differing if not pair.constant), differing[0])
    diagnosis = diagnose(a, b, pairs, pairs.index(differing[0]), batch)
    return diagnosis, find_failing_input(a, b, watched, batch), notes


def _differing(pairs: Sequence[Pair], found: BatchResult) -> list[Pair]:
    return [p for p in pairs if p in found.tallies and found.tallies[p].beyond]


def list_quantizers(model: Model | None) -> tuple[QuantizerRow, ...]:
    """Return the quantizers of a model, in order."""
    return tuple(
        QuantizerRow(
            source_layer(node),
            describe_quantizer(dialect.read_quantizer(node)),
            dialect.constant_value(node.inputs[0]) is not None,
        )
        for node in (() if model is None else quantizers(model))
    )
