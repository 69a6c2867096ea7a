"""Values that differ: why they do, whether it is noise, and an input that shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from qonnx_hub.equivalence.comparison.batched import (
    BatchResult,
    ComparisonSpec,
    compare_all,
)
from qonnx_hub.equivalence.comparison.matching import Pair, match_tensors
from qonnx_hub.equivalence.diagnosis.diagnose import Diagnosis, DifferenceOrigin, diagnose
from qonnx_hub.equivalence.diagnosis.minimize import FailingInput, find_failing_input
from qonnx_hub.equivalence.diagnosis.overflow import find_overflow
from qonnx_hub.equivalence.inputs.batches import (
    GivenInputs,
    InputSource,
    OneRun,
    SampleBatch,
    read_batches,
    shares_first_axis,
)
from qonnx_hub.equivalence.noise import (
    ALLOWANCE,
    FOLD_ALLOWANCE,
    FUNCTION_ALLOWANCE,
    LIVE_ALLOWANCE,
    OUTPUT_ALLOWANCE,
    find_layer_beyond_sums,
    is_noise_of_live_model,
    is_noise_of_outputs,
)
from qonnx_hub.equivalence.options import CheckOptions
from qonnx_hub.equivalence.parameters import (
    FOLDED,
    ParameterComparison,
    compare_parameters,
)
from qonnx_hub.equivalence.runners.sides import (
    ExecutorRunner,
    OrtRunner,
    Runner,
    SourceRunner,
    same_library,
)
from qonnx_hub.equivalence.sum_enclosures import is_of_library
from qonnx_hub_adapters.protocol import ReadsAsWritten
from qonnx_hub_ir import operators
from qonnx_hub_ir.graph.subgraphs import every_node

REWRITTEN = (
    "the graphs are written otherwise in {} places, and outputs differ by no more than the "
    "rounding of sums and of folded parameters can make, carried through both graphs"
)
"""Why outputs that differ show no fault."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is known of the values that differ.

    Attributes:
        differing: Pairs out of bounds, in order.
        wrong: Pairs of outputs among them.
        diagnosis: Causes.
        origin: What all differences come from, as far as it is known.
        allowance: Why they are within bounds all the same; empty where they are not.
        left_out: What cannot be compared.
        unseen: What was not looked at, in words, so that differences may be more than noise;
            or, without an allowance, why they may be less than a fault.
        failing: The smallest input that shows a difference of outputs.
        is_folding: Whether parameters differ since they are folded into others, and only so.
        notes: What stands in the way of any of these.
    """

    differing: tuple[Pair, ...] = ()
    wrong: tuple[Pair, ...] = ()
    diagnosis: Diagnosis = field(default_factory=Diagnosis)
    origin: DifferenceOrigin | None = None
    allowance: str = ""
    left_out: tuple[str, ...] = ()
    unseen: str = ""
    failing: FailingInput | None = None
    is_folding: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison that was run: of which sides, of what, on which inputs.

    Attributes:
        a: The reference side.
        b: The other side.
        spec: What was compared.
        source: The inputs.
        options: How strictly.
        found: What it gave.
        is_refuted: Whether a proof saw two functions of one number, or two constants, differ:
            that is no order of sums.
        is_proven: Whether both graphs are proven equal: then runtimes alone differ.
        parameters: How those of both graphs compare, once values differ.
    """

    a: Runner
    b: Runner
    spec: ComparisonSpec
    source: InputSource
    options: CheckOptions
    found: BatchResult
    is_refuted: bool = False
    is_proven: bool = False
    parameters: ParameterComparison = field(default_factory=ParameterComparison)

    @property
    def folding(self) -> str:
        """Why parameters need not be the same; empty where they must."""
        known = self.parameters
        if self.options.folded or known.changed or known.unmatched or not known.folded:
            return self.options.folded
        return FOLDED.format(", ".join(known.folded))

    @property
    def speaks_against_noise(self) -> bool:
        """Whether a refuted proof does: not one that supposed what was folded to be alike."""
        return self.is_refuted and not self.parameters.is_folding

    def batch(self, index: int | None) -> SampleBatch:
        """Return one batch of the inputs."""
        batches = read_batches(self.source)
        return next(batch for batch in batches if batch.index == (index or 0))


def judge(run: Comparison) -> Judgement:
    """Return why values differ, whether that is noise, and an input that shows it."""
    tallies = run.found.tallies
    differing = tuple(differing_pairs(run.spec.all_pairs, run.found))
    if not differing:
        return Judgement()
    if not (run.options.folded or run.is_proven):
        run = replace(run, parameters=compare_parameters(run.a.model, run.b.model))
    wrong = tuple(pair for pair in run.spec.pairs.outputs if pair in differing)
    batch = run.batch(tallies[differing[0]].first_batch)
    diagnosis, notes = _explain(run, differing[0], batch)
    origin = diagnosis.origin
    if origin is DifferenceOrigin.NOISE:
        origin = _origin_of_outputs(run, wrong)
    if (
        origin is DifferenceOrigin.NOISE
        and run.speaks_against_noise
        and not run.options.folded
    ):
        origin = DifferenceOrigin.FAULT
    unseen = ""
    if origin is DifferenceOrigin.NOISE:
        found, unseen = _is_beyond_noise(run)
        notes += [f"no noise: {words}" for words in found]
        origin = DifferenceOrigin.FAULT if found else origin
    notes += [f"no noise: no order of sums is bounded behind {x}" for x in diagnosis.unbounded]
    allowance = _allowance(run, wrong, origin)
    left_out = _undecidable(run, wrong) if origin is DifferenceOrigin.ZERO_SIGN else ()
    if wrong and not allowance and not left_out:
        unseen = _may_be_rounding(run, wrong)
    failing = None
    if (
        wrong
        and not allowance
        and not unseen
        and not left_out
        and run.a.input_names is not None
    ):
        first = run.batch(tallies[wrong[0]].first_batch)
        failing = find_failing_input(run.a, run.b, wrong[0], first)
    return Judgement(
        differing,
        wrong,
        diagnosis,
        origin,
        allowance,
        left_out,
        unseen if allowance or wrong else "",
        failing,
        run.parameters.is_folding,
        tuple(notes),
    )


def differing_pairs(pairs: Sequence[Pair], found: BatchResult) -> list[Pair]:
    """Return the pairs that are out of bounds."""
    return [p for p in pairs if p in found.tallies and found.tallies[p].beyond]


def _is_beyond_noise(run: Comparison) -> tuple[list[str], str]:
    """Return what speaks against noise, in words, and what was not looked at."""
    changed = [*run.parameters.changed]
    graphs = all(isinstance(side, (ExecutorRunner, OrtRunner)) for side in (run.a, run.b))
    if changed or not graphs:
        return [*changed, *run.parameters.unmatched], ""
    pairs = run.spec.all_pairs
    if run.options.level == "output":
        pairs = _with_layers(run, run.a).all_pairs
    search = find_layer_beyond_sums(run.a, run.b, pairs, run.source, folded=bool(run.folding))
    words = ""
    if search.left:
        words = (
            f"layers were looked at on {search.seen} samples that differ, and not on "
            f"{search.left} others: give fewer inputs at once"
        )
    found = [search.beyond] if search.beyond else []
    return [*found, *run.parameters.unmatched], words


def _allowance(run: Comparison, wrong: Sequence[Pair], origin: DifferenceOrigin | None) -> str:
    """Return why differences are within bounds; empty where they are not."""
    if run.options.strict:
        return ""
    folded = f"; {run.folding}{FOLD_ALLOWANCE}" if run.folding else ""
    graph = None if same_library(run.a, run.b) else run.a.model
    if graph is not None and any(map(is_of_library, every_node(graph))):
        folded += FUNCTION_ALLOWANCE
    if origin is DifferenceOrigin.NOISE:
        return f"{ALLOWANCE}{folded}"
    if not wrong:
        return ""
    graphs = all(isinstance(side, (ExecutorRunner, OrtRunner)) for side in (run.a, run.b))
    alike = origin is not DifferenceOrigin.FAULT and not run.speaks_against_noise
    known = run.parameters
    if graphs and (run.options.folded or (alike and not (known.changed or known.unmatched))):
        # Layers that agree when few samples run may add in another order when many do.
        is_noise = is_noise_of_outputs(run.a, run.b, wrong, run.source, folded=bool(folded))
        return f"{OUTPUT_ALLOWANCE}{folded}" if is_noise else ""
    if origin is not None:
        return ""
    outputs = replace(run.spec, pairs=replace(run.spec.pairs, layers=()))
    is_noise = is_noise_of_live_model(run.a, run.b, outputs, run.source)
    return LIVE_ALLOWANCE if is_noise else ""


def _may_be_rounding(run: Comparison, wrong: Sequence[Pair]) -> str:
    """Return why differing outputs show no fault, in words; empty where they do."""
    graphs = all(isinstance(side, (ExecutorRunner, OrtRunner)) for side in (run.a, run.b))
    known = run.parameters
    may_be = run.is_proven or known.is_folding or known.rewriting.may_be_equal
    if run.options.strict or run.options.folded or not (graphs and may_be):
        return ""
    if not is_noise_of_outputs(run.a, run.b, wrong, run.source, folded=True):
        return ""
    return REWRITTEN.format(known.rewriting.places or "some")


def _origin_of_outputs(run: Comparison, wrong: Sequence[Pair]) -> DifferenceOrigin | None:
    """Return what the largest difference of each output comes from; noise if all are noise.

    No output speaks for another, and no small difference for a large one.
    """
    for pair in wrong:
        seen = run.found.tallies[pair].worst
        batch = run.batch(None if seen is None else seen.batch)
        diagnosis, _ = _explain(run, pair, batch, at_first_layer=False)
        if diagnosis.origin is not DifferenceOrigin.NOISE:
            return diagnosis.origin
    return DifferenceOrigin.NOISE


def _undecidable(run: Comparison, wrong: Sequence[Pair]) -> tuple[str, ...]:
    """Return the outputs that differ only since zeros of another sign were passed on."""
    graphs = [side.model.graph for side in (run.a, run.b) if side.model is not None]
    telling = (n for graph in graphs for n in graph if operators.tells_zeros_apart(n))
    names = ", ".join(dict.fromkeys(f"{n.op_type} '{n.name}'" for n in telling))
    return tuple(
        f"output '{pair.a}' where the sign of a zero decides ({names}): quantizers of the two "
        "forms make zeros of another sign, which count as equal"
        for pair in (wrong if names else ())
    )


def _explain(
    run: Comparison, failing: Pair, batch: SampleBatch, *, at_first_layer: bool = True
) -> tuple[Diagnosis, list[str]]:
    """Return causes of the differences in a batch, and what stands in the way of them.

    They are looked for in samples in which the failing pair differs, or the first layer does
    where layers were not compared before.
    """
    a, pairs = run.a, run.spec.all_pairs
    if a.model is None:
        return Diagnosis(), ["the cause is not looked for: the reference has no graph"]
    notes: list[str] = []
    stands_in = a.input_names is None or not a.inner_names()
    if isinstance(a, SourceRunner) and isinstance(a.importer, ReadsAsWritten):
        return Diagnosis(), [
            f"{a.label} runs its own kernels, of which its IR is only near: the first layer "
            "that differs is not looked for"
        ]
    if stands_in:
        # The executor stands in for a side that shows its outputs only.
        stand_in = ExecutorRunner(a.model, f"the IR of {a.label}")
        names = list(dict.fromkeys(p.a for p in run.spec.pairs.outputs))
        own, theirs = a.answer(batch, names), stand_in.answer(batch, names)
        if not all(np.array_equal(own[name], theirs[name]) for name in names):
            return Diagnosis(), [
                f"{a.label} differs from its own IR on the executor: the difference is not in "
                f"{run.b.label} alone; check the IR against it first"
            ]
        notes = [f"layers are those of the IR of {a.label}, whose outputs equal its own"]
        a = stand_in
    if stands_in or run.options.level == "output":
        inner = _with_layers(run, a)
        feeds: InputSource = OneRun(batch.feeds)
        if batch.feeds and shares_first_axis(batch.feeds):
            feeds = GivenInputs(batch.feeds, batch.samples)
        again = compare_all(a, run.b, inner, feeds, CheckOptions())
        pairs = inner.all_pairs
        differing = differing_pairs(pairs, again)
        if not differing:
            return Diagnosis(), notes
        failing = differing[0] if at_first_layer else failing
    folded = bool(run.folding)
    found = diagnose(a, run.b, pairs, pairs.index(failing), batch, folded=folded)
    overflow = find_overflow(a, run.b, failing, batch)
    if overflow is not None:
        left = tuple(one for one in found.findings if one.layer != overflow.layer)
        found = replace(found, findings=(overflow, *left), origin=DifferenceOrigin.FAULT)
    return found, notes


def _with_layers(run: Comparison, a: Runner) -> ComparisonSpec:
    """Return what is compared, with every layer that both sides show."""
    matched = match_tensors(a, run.b, layers=True, mapping=run.options.mapping)
    outputs = run.spec.pairs.outputs
    named = {(pair.a, pair.b) for pair in outputs}
    layers = tuple(p for p in matched.layers if (p.a, p.b) not in named)
    return replace(run.spec, pairs=replace(matched, outputs=outputs, layers=layers))
