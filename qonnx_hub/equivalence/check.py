"""Running both sides of a check and comparing what they answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from onnx_ir import Model

from qonnx_hub.equivalence.acceptance import judged as judged_by_bounds
from qonnx_hub.equivalence.comparison.batched import (
    BatchResult,
    ComparisonSpec,
    compare_all,
)
from qonnx_hub.equivalence.comparison.compare import Tally, TensorComparison, summarize
from qonnx_hub.equivalence.comparison.matching import Pair, Pairs, match_tensors
from qonnx_hub.equivalence.diagnosis.diagnose import Diagnosis
from qonnx_hub.equivalence.doubts import Doubts, find_doubts, refutation, unreached
from qonnx_hub.equivalence.graph_slices import source_layer
from qonnx_hub.equivalence.inputs.batches import (
    GENERATED,
    ChainedInputs,
    GivenInputs,
    InputSource,
    OneRun,
    SampleBatch,
    count_samples,
    file_batch,
    run_length,
    shares_first_axis,
)
from qonnx_hub.equivalence.inputs.coverage import InputCoverage
from qonnx_hub.equivalence.inputs.differences import find_difference
from qonnx_hub.equivalence.inputs.reach import find_inputs
from qonnx_hub.equivalence.inputs.sizes import sizes_of
from qonnx_hub.equivalence.judgement import Comparison, Judgement, judge
from qonnx_hub.equivalence.noise import FOLD_ALLOWANCE
from qonnx_hub.equivalence.options import CheckOptions
from qonnx_hub.equivalence.parameters import FOLDED, compare_parameters
from qonnx_hub.equivalence.proof.certificate import Certificate
from qonnx_hub.equivalence.proving import look_for_proof, proven_bound, proven_inputs
from qonnx_hub.equivalence.reports.report import (
    CheckResult,
    Divergence,
    LayerRow,
    QuantizerRow,
    describe_environment,
)
from qonnx_hub.equivalence.runners.sides import ExecutorRunner, Runner
from qonnx_hub.equivalence.stages import stages_of
from qonnx_hub.equivalence.verdicts import Evidence, Verdict, decide
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.describe import describe_quantizer
from qonnx_hub_ir.facts import facts_of
from qonnx_hub_ir.graph.queries import quantizers
from qonnx_hub_ir.quantizers import Array


@dataclass(frozen=True, slots=True)
class Preparation:
    """What is known of two sides before anything is run.

    Attributes:
        pairs: What is compared with what.
        certificate: What was proven; ``None`` where nothing was looked for.
        given: Whether the inputs are the user's own.
        coverage: What generated inputs reach; ``None`` where nobody measured it.
    """

    pairs: Pairs
    certificate: Certificate | None = None
    given: bool = False
    coverage: InputCoverage | None = None

    @property
    def is_refuted(self) -> bool:
        """Whether a proof saw two functions of one number, or two constants, differ."""
        return self.certificate is not None and self.certificate.counterexample is not None

    @property
    def is_proven(self) -> bool:
        """Whether the graphs of both sides are proven equal."""
        return self.certificate is not None and self.certificate.proven


def check_runners(
    a: Runner,
    b: Runner,
    feeds: Mapping[str, Array],
    options: CheckOptions,
    left_out: Sequence[str] = (),
) -> CheckResult:
    """Return how ``b`` compares to ``a`` on generated inputs; see :func:`check_sides`.

    Where a proof is looked for and leaves something, the inputs are steered further. What was
    left out of both sides before is said, and nothing is called equal by the rest.
    """
    unit = max(file_batch(a.model), file_batch(b.model))
    length = run_length(a.model or b.model, unit)
    known = Preparation(match_sides(a, b, options, left_out))
    if options.proof_seconds:
        proof = look_for_proof(a, b, known.pairs.outputs, options.proof_seconds)
        # Layers of one name that a proof of all outputs shows to be two are no pair.
        equal = {} if proof is None else proof.counterparts
        layers = [p for p in known.pairs.layers if p.b not in equal or p.a in equal[p.b]]
        pairs = replace(known.pairs, layers=tuple(layers))
        known = replace(known, certificate=proof, pairs=pairs)
    # Without inputs there is one run, and nothing to cut.
    apart = bool(feeds) and shares_first_axis(feeds)
    source: InputSource = OneRun(feeds, GENERATED)
    if apart:
        source = GivenInputs(feeds, length, GENERATED)
    if known.is_proven and a.model is not None:
        sizes = sizes_of(a.model, [feeds])
        known = replace(known, coverage=InputCoverage(sizes=sizes, measured=False))
    elif options.proof_seconds and a.model is not None:
        samples = count_samples(feeds) if apart else None
        found = find_inputs(
            a.model, samples, options.seed, length=length, effort=options.effort
        )
        source, known = found.source, replace(known, coverage=found.coverage)
    return check_until_decided(a, b, source, options, known)


def check_until_decided(
    a: Runner, b: Runner, source: InputSource, options: CheckOptions, known: Preparation
) -> CheckResult:
    """Return :func:`check_sides`; where that is undecided, with an input that decides it.

    The search for one takes outputs only, many more inputs, and the time that the effort
    gives; inputs that the user gave are not added to.
    """
    result = check_sides(a, b, source, options, known)
    if result.verdict is not Verdict.UNDECIDED or known.given or not options.boundary:
        return result
    shown = find_difference(
        a, b, known.pairs.outputs, options.seed, options.ranges, options.effort
    )
    if shown is None:
        return result
    return check_sides(a, b, ChainedInputs((source, shown)), options, known)


def match_sides(
    a: Runner, b: Runner, options: CheckOptions, left_out: Sequence[str] = ()
) -> Pairs:
    """Return what is compared with what; what two runs of one side would not agree on is not.

    Raises:
        UsageError: The sides cannot be compared, or nothing would be.
    """
    layers = options.level != "output"
    pairs = match_tensors(
        a, b, layers=layers, mapping=options.mapping, ignored=options.ignore_outputs
    )
    pairs = replace(pairs, left_out=(*pairs.left_out, *left_out))
    random = {**_random_values(a.model), **_random_values(b.model)}
    if not random:
        return pairs
    of_random = tuple(
        f"output '{p.a}' depends on the random operator '{node}': two runs differ"
        for p in pairs.outputs
        if (node := random.get(p.a) or random.get(p.b))
    )
    apart = [p for p in (*pairs.outputs, *pairs.layers) if {p.a, p.b} & random.keys()]
    return replace(
        pairs,
        outputs=tuple(p for p in pairs.outputs if p not in apart),
        layers=tuple(p for p in pairs.layers if p not in apart),
        left_out=(*pairs.left_out, *of_random),
    )


def _random_values(model: Model | None) -> dict[str, str]:
    """Return value -> the random operator that it depends on."""
    found: dict[str, str] = {}
    for node in () if model is None else model.graph:
        known = operators.is_known(operators.of(node))
        before = (found.get(str(v.name)) for v in node.inputs if v is not None)
        reason = next(filter(None, before), "")
        if known and operators.is_random(node):
            reason = node.name or node.op_type
        if reason:
            found.update((str(v.name), reason) for v in node.outputs)
    return found


def check_sides(
    a: Runner,
    b: Runner,
    source: InputSource,
    options: CheckOptions,
    known: Preparation,
) -> CheckResult:
    """Return how side ``b`` compares to side ``a``, the reference.

    Args:
        a: The reference side.
        b: The other side.
        source: Inputs by the names of ``a``.
        options: What to compare, and how strictly; what they say of inputs is not looked at.
        known: What is known before anything is run.

    Raises:
        UsageError: The sides cannot be compared.
        HubError: A side fails.
    """
    pairs, model = known.pairs, a.model or b.model
    steps = {} if model is None else dict(facts_of(model).steps)
    if a.model is None:
        steps = {p.a: steps[p.b] for p in (*pairs.layers, *pairs.outputs) if p.b in steps}
    score = None
    if options.score or options.labels is not None or options.acceptance.scores:
        score = options.acceptance.spec(a.model or b.model)
    spec = ComparisonSpec(pairs, steps, options.tolerance, score)
    found = compare_all(a, b, spec, source, options)
    run = Comparison(a, b, spec, source, options, found, known.is_refuted, known.is_proven)
    judged = judge(run)
    folding = _folding_unseen(run, judged, known)
    doubts = _doubts(run, judged, known, folded=judged.is_folding or bool(folding))
    compared = {
        pair: _summarized(spec, pair, found.tallies[pair], judged.allowance)
        for pair in spec.all_pairs
        if pair in found.tallies
    }
    bound = proven_bound(known.certificate, compared.values(), options.tolerance.lsb)
    if not _run_as_proven(a, b) or (options.strict and options.tolerance.lsb is None):
        bound = ""
    if bound:
        apart = [p for p in pairs.outputs if p in compared and p in judged.wrong]
        compared |= {p: replace(compared[p], verdict=Verdict.WITHIN) for p in apart}
    if judged.unseen and not judged.allowance:
        compared |= {p: replace(compared[p], verdict=Verdict.UNDECIDED) for p in judged.wrong}
    outputs = tuple(compared[pair] for pair in pairs.outputs if pair in compared)
    undecidable = judged.wrong if judged.left_out else ()
    evidence = Evidence(
        outputs=tuple(
            compared[pair].verdict
            for pair in pairs.outputs
            if pair in compared and pair not in undecidable
        )
        + (Verdict.WITHIN,) * bool((judged.allowance and not judged.wrong) or folding)
        + (Verdict.UNDECIDED,) * bool((judged.allowance or folding) and doubts.words)
        + (Verdict.WITHIN,) * bool(options.folded and known.is_refuted),
        left_out=(*pairs.left_out, *_without_numbers(pairs, found), *judged.left_out),
        proven=known.is_proven and _run_as_proven(a, b),
        inputs=proven_inputs(known.certificate, a.model),
        bound=bound,
        doubts=doubts.words,
        allowance=judged.allowance or options.folded or folding or _tolerance_words(options),
        backing=_backing(source, known, alone=a.model is not None and b.model is not None),
    )
    verdict, reason = decide(evidence)
    diagnosis = judged.diagnosis if options.level != "output" else Diagnosis()
    rows = _layer_rows(spec, compared, diagnosis) if options.level != "output" else ()
    first = judged.differing[:1] if options.level != "output" else ()
    certificate, reached = known.certificate, known.coverage or InputCoverage()
    accepted, acceptance = judged_by_bounds(options.acceptance, found.score)
    return CheckResult(
        a=a.label,
        b=b.label,
        verdict=verdict,
        reason=reason,
        outputs=outputs,
        samples=source.samples,
        inputs=source.description,
        layers=sum(pair in found.tallies for pair in pairs.layers),
        first_divergence=next((Divergence(p.source, compared[p]) for p in first), None),
        notes=tuple(_notes(run, judged, doubts, evidence, known)),
        findings=diagnosis.findings,
        latent=doubts.latent,
        layer_rows=rows,
        failing=judged.failing,
        score=found.score,
        accepted=accepted,
        acceptance=acceptance,
        certificate=None if certificate is None else certificate.to_dict(),
        quantizers=list_quantizers(a.model),
        coverage=reached.quantizers,
        bends=reached.bends,
        unchanged=reached.unchanged,
        sizes=reached.sizes,
        effort=reached.effort,
        environment=describe_environment(),
        stages=stages_of(model),
    )


def _run_as_proven(a: Runner, b: Runner) -> bool:
    return isinstance(a, ExecutorRunner) and isinstance(b, ExecutorRunner)


def _folding_unseen(run: Comparison, judged: Judgement, known: Preparation) -> str:
    """Return that parameters were folded, where no value differs and a proof sees them do.

    Folding makes constants differ; a function that does is explained by none.
    """
    if judged.differing or run.options.strict or run.options.folded:
        return ""
    seen = None if known.certificate is None else known.certificate.counterexample
    if seen is None or seen.input_value is not None:
        return ""
    found = compare_parameters(run.a.model, run.b.model)
    if not found.is_folding:
        return ""
    return f"no value differs; {FOLDED.format(', '.join(found.folded))}{FOLD_ALLOWANCE}"


def _doubts(run: Comparison, judged: Judgement, known: Preparation, *, folded: bool) -> Doubts:
    """Return why samples are not enough, where no proof makes them so."""
    if judged.unseen:
        return Doubts((judged.unseen,))
    if known.is_proven or run.options.samples_only or (judged.wrong and not judged.allowance):
        return Doubts()
    found = Doubts()
    # Layers that were rounded anew on purpose need not be the same by themselves.
    alike = run.a.model is run.b.model or bool(run.options.folded)
    if (judged.allowance or not judged.differing) and not alike:
        outputs = run.spec.pairs.outputs
        named = {(pair.a, pair.b) for pair in outputs}
        every = match_tensors(run.a, run.b, layers=True, mapping=run.options.mapping).layers
        pairs = (*(p for p in every if (p.a, p.b) not in named), *outputs)
        batch = SampleBatch(0, 0, run.source.feeds(0))
        # A proof supposes that parameters which are stored alike are counterparts.
        proof = None if folded else known.certificate
        found = find_doubts(run.a, run.b, pairs, batch, proof, folded=folded)
    words = [*found.words]
    if judged.allowance:
        return Doubts(tuple(words), found.latent)
    if judged.differing:
        words.append(f"inner values differ, first of all '{judged.differing[0].source}'")
    if not known.given:
        words += unreached(run.spec.pairs.outputs, run.found.tallies, known.coverage)
    return Doubts(tuple(words), found.latent)


def _notes(
    run: Comparison, judged: Judgement, doubts: Doubts, evidence: Evidence, known: Preparation
) -> Iterator[str]:
    """Give everything that a user should read beside the verdict."""
    outputs = run.spec.pairs.outputs
    yield from known.pairs.notes
    for pair, (x, y) in run.found.skipped.items():
        what = "output" if pair in outputs else "not compared: layer"
        yield (
            f"{what} '{pair.source}' has shape {list(x)} in the reference, {list(y)} in the "
            "other side"
        )
    yield from judged.notes
    yield from evidence.left_out
    yield from (f"no input shows it, but {words}" for words in doubts.words)
    if known.is_proven and not _run_as_proven(run.a, run.b):
        yield "the graphs are proven equal; the sides as they run are sampled only"
    if known.certificate is not None and not judged.left_out:
        yield from _left_by_proof(known.certificate, run.options)
    if judged.diagnosis.left:
        yield f"{judged.diagnosis.left} more layers differ, whose causes were not looked for"


def _summarized(spec: ComparisonSpec, pair: Pair, found: Tally, why: str) -> TensorComparison:
    summary = summarize(found, pair.a, pair.b, spec.steps.get(pair.a))
    if why and summary.verdict is Verdict.DIFFERENT:
        return replace(summary, verdict=Verdict.WITHIN)
    return summary


def _without_numbers(pairs: Pairs, found: BatchResult) -> tuple[str, ...]:
    return tuple(
        f"output '{pair.a}' holds no tensor that can be compared"
        for pair in pairs.outputs
        if pair not in found.tallies
    )


def _tolerance_words(options: CheckOptions) -> str:
    own = options.tolerance
    numbers = {"atol": own.atol, "rtol": own.rtol, "lsb": own.lsb}
    given = [f"{name} {value:g}" for name, value in numbers.items() if value]
    given += [f"that of {name}" for name in own.named]
    return f"within the tolerance given ({', '.join(given) or 'none'})"


def _backing(source: InputSource, known: Preparation, *, alone: bool) -> str:
    if known.is_proven:
        return "the graphs are proven equal, the sides as they run are sampled"
    layers = ", inner values and layers by themselves" if alone else " and inner values"
    words = f"sampled: outputs{layers} agree"
    if known.given:
        words = f"equal on the {source.samples} inputs given"
    if known.coverage is None or not known.coverage.measured or not known.coverage.reachable:
        return words
    reached, reachable = known.coverage.reached, known.coverage.reachable
    return f"{words}; {reached} of {reachable} thresholds that can be reached were crossed"


def _layer_rows(
    spec: ComparisonSpec, compared: Mapping[Pair, TensorComparison], diagnosis: Diagnosis
) -> tuple[LayerRow, ...]:
    rows = []
    for pair, comparison in compared.items():
        alone = diagnosis.isolated.get(pair)
        isolated = None if alone is None else _summarized(spec, pair, alone, "")
        rows.append(LayerRow(pair.source, comparison, isolated, pair.constant))
    return tuple(rows)


def _left_by_proof(certificate: Certificate, options: CheckOptions) -> Iterator[str]:
    if (words := refutation(certificate)) is not None:
        unseen = (
            ""
            if certificate.counterexample and certificate.counterexample.feeds
            else ("; no input was found that brings this about")
        )
        yield f"refuted: {words}{unseen}"
    if options.level == "proof":
        yield from (f"not proven: {item}" for item in certificate.unmatched)
    if certificate.bounds is not None:
        yield f"proven: {certificate.bounds.words()}"


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
