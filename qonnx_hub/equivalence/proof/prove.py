"""Whether two models are equal on every input: proven, not sampled.

Values that both models compute by the same operators from equal inputs are equal. Where they
stop being the same, the quantizers are: a part of each graph that is a function of one number,
starts at equal values and quantizes. Such functions are compared on every value of their input
type (:mod:`qonnx_hub.equivalence.proof.scalar_equality`); where they are equal, the graphs
stay the same behind them. Weights are constants, whatever stores them; they are compared by
value.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from onnx_ir import Model, Node, Value

from qonnx_hub.equivalence.proof.bounded import bound_models
from qonnx_hub.equivalence.proof.bounds import ModelBounds
from qonnx_hub.equivalence.proof.certificate import Certificate
from qonnx_hub.equivalence.proof.code_values import with_values_of_codes
from qonnx_hub.equivalence.proof.counterexamples import find_feeds
from qonnx_hub.equivalence.proof.deadline import DEFAULT_SECONDS, Deadline
from qonnx_hub.equivalence.proof.factors import with_factors
from qonnx_hub.equivalence.proof.graph_matching import GraphMatching, paired
from qonnx_hub.equivalence.proof.intervals import LOG_ULPS
from qonnx_hub.equivalence.proof.proof_model import ProofModel
from qonnx_hub_ir import operators
from qonnx_hub_ir.analysis.value_ranges import prepared


def prove_models(
    a: Model, b: Model, *, seconds: float = DEFAULT_SECONDS, search: bool = True
) -> Certificate:
    """Return whether two models compute equal outputs from equal inputs, with the evidence.

    Inputs and outputs are matched by name where both models have the same names, otherwise by
    position. Equal means equal values; the sign of a zero does not count.

    Args:
        a: An IR model: the reference.
        b: Another IR model.
        seconds: How long pieces may be compared; what is not compared by then is listed as
            late. Reading the models and computing their constants is not counted.
        search: Look for an input of the whole models that shows a refuted piece.

    Returns:
        The certificate; its ``outcome`` is proven, refuted, unmatched or out of time::

            found = prove_models(a, b, seconds=2.0, search=False)
            if found.outcome is ProofOutcome.REFUTED:
                print(found.counterexample.layer)

    Raises:
        UnsupportedGraphError: An initializer without data.
        ExecutionError: A node with constant inputs fails.
    """
    reason = different_interface(a, b)
    if reason:
        return Certificate(False, 0, (), (), (reason,))
    first, second = (ProofModel(with_values_of_codes(prepared(side))) for side in (a, b))
    deadline = Deadline(seconds)
    certificate = _certify(first, second, deadline)
    if not certificate.proven and not deadline.passed():
        bounds = bound_models(first, second, deadline)
        if bounds is None or not bounds.equal:
            bounds = _with_factors(first.model, second.model, deadline) or bounds
        certificate = _bounded(certificate, bounds)
    found = certificate.counterexample
    if found is None or not search:
        return certificate
    return replace(certificate, counterexample=replace(found, feeds=find_feeds(a, b)))


def _with_factors(a: Model, b: Model, deadline: Deadline) -> ModelBounds | None:
    """Return what layers are with their factors split off, where that makes all equal."""
    one, other = with_factors(a), with_factors(b)
    if deadline.passed() or (one is None and other is None):
        return None
    bounds = bound_models(ProofModel(one or a), ProofModel(other or b), deadline)
    return bounds if bounds is not None and bounds.equal else None


def _bounded(certificate: Certificate, bounds: ModelBounds | None) -> Certificate:
    """Return a certificate with what layers are as functions of real numbers."""
    if bounds is None:
        return certificate
    if not bounds.equal:
        # One function of reals is refuted by no float of its own.
        refuted = None if bounds.same_function else certificate.counterexample
        return replace(certificate, bounds=bounds, counterexample=refuted)
    return replace(
        certificate,
        proven=True,
        counterexample=None,
        unmatched=(),
        inputs="every input on which no NaN arises",
        assumptions=(*certificate.assumptions, "sums of whole numbers on a grid are exact"),
    )


def different_interface(a: Model, b: Model) -> str:
    """Return why the models cannot be compared, or an empty string."""
    for kind, ours, theirs in (
        ("input", a.graph.inputs, b.graph.inputs),
        ("output", a.graph.outputs, b.graph.outputs),
    ):
        if len(ours) != len(theirs):
            return f"one model has {len(ours)} {kind}s, the other {len(theirs)}"
        for one, other in paired(ours, theirs):
            if one.dtype != other.dtype:
                return f"{kind} '{one.name}' is {one.dtype}, '{other.name}' {other.dtype}"
            if kind == "input" and not _shapes_agree(one, other):
                return f"{kind} '{one.name}' is {one.shape}, '{other.name}' {other.shape}"
    return ""


def _shapes_agree(one: Value, other: Value) -> bool:
    """Return whether both can have the same shape, as far as they say one."""
    if one.shape is None or other.shape is None:
        return one.shape is other.shape
    pairs = zip(one.shape, other.shape, strict=False)
    return len(one.shape) == len(other.shape) and not any(
        isinstance(d, int) and isinstance(e, int) and d != e for d, e in pairs
    )


def matched(a: ProofModel, b: ProofModel, deadline: Deadline) -> GraphMatching:
    """Return two models with equal numbers on values that are proven equal."""
    matching = GraphMatching(a, b, deadline)
    # Two values of one model that are found equal may make more of the other model match.
    while matching.walk():
        pass
    return matching


def _certify(a: ProofModel, b: ProofModel, deadline: Deadline) -> Certificate:
    matching = matched(a, b, deadline)
    found = matching.findings
    proven = not any(value in found.supposed for value in b.model.graph.outputs)
    names = _differ_on_nan(matching) if proven else ""
    inputs = f"every input on which no NaN reaches {names}" if names else "every input"
    return Certificate(
        proven=proven,
        matched=matching.count_matched(),
        quantizers=tuple(found.proofs.values()),
        assumptions=tuple(_assumptions(matching)),
        unmatched=tuple(found.unmatched),
        counterexample=found.counterexample,
        late=tuple(found.late),
        seconds=deadline.seconds,
        inputs=inputs if proven else "",
        counterparts=matching.equal_names() if proven else {},
    )


def _differ_on_nan(matching: GraphMatching) -> str:
    proofs = matching.findings.proofs.values()
    return ", ".join(f"'{proof.name_b}'" for proof in proofs if not proof.nan_equal)


def _assumptions(matching: GraphMatching) -> Iterator[str]:
    found = matching.findings
    yield "the operators that both models share are computed by the same kernels"
    yield "inputs have the shapes that the models declare"
    names = _differ_on_nan(matching)
    if names:
        yield f"no NaN reaches or arises in these quantizers, which differ on it: {names}"
    opaque = {
        f"{node.domain}::{node.op_type}"
        for node in matching.b.nodes()
        if operators.is_opaque(node)
    }
    telling = {node.op_type for node in matching.b.nodes() if _may_tell(node, matching.b)}
    for claim, operators_named in (
        ("these operators mean the same in the opsets of both models", found.reworded),
        ("these operators of the two models compute the same", found.respelled),
        ("these unknown operators are functions of their inputs and attributes", opaque),
        ("no operator is fed with a zero whose sign it tells and differs", telling),
    ):
        if operators_named:
            yield f"{claim}: {', '.join(sorted(operators_named))}"
    if found.margins:
        yield f"a float32 logarithm is off by less than {LOG_ULPS} units in the last place"


def _may_tell(node: Node, model: ProofModel) -> bool:
    """Return whether the sign of a computed zero can matter to the node."""
    if not operators.tells_zeros_apart(node):
        return False
    if operators.has_subgraphs(node) or operators.is_opaque(node):
        return True
    # Division by a zero; the first operand of all others.
    place = node.inputs[1] if operators.multiplies(node) else node.inputs[0]
    return place is not None and place not in model.constants
