"""Why two models differ: layer by layer, on the reference's own values.

A layer of the other side is run on the values that the reference has before it, so that faults
of earlier layers do not reach it. What still differs is the layer's own fault. A suspected
fault is mended in a copy: only if the copy then agrees is it called the cause.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np
from onnx_ir import Node

from qonnx_hub.equivalence.comparison.compare import (
    Tally,
    Tolerance,
    aligned,
    differs,
    distances,
    tally,
)
from qonnx_hub.equivalence.comparison.matching import Pair
from qonnx_hub.equivalence.diagnosis.isolation import (
    SampleGroup,
    SlicedGraph,
    gather_groups,
    isolate,
)
from qonnx_hub.equivalence.diagnosis.layer_causes import (
    CutLayer,
    CutSide,
    exceeds_sums,
    explain_layer,
    noise_of,
)
from qonnx_hub.equivalence.diagnosis.named_differences import permutation_in_words
from qonnx_hub.equivalence.diagnosis.quantizer_causes import (
    Cause,
    Explanation,
    Reason,
    Seen,
    compare_parameters,
    crosses_ties,
    explain_quantizer,
    explanation_of,
    match_formula,
    same_elements,
)
from qonnx_hub.equivalence.diagnosis.unobserved import known_quantizer
from qonnx_hub.equivalence.inputs.batches import SampleBatch
from qonnx_hub.equivalence.inputs.probes import probe_values
from qonnx_hub.equivalence.runners.sides import ExecutorRunner, Runner, same_library
from qonnx_hub.equivalence.sum_enclosures import SumEnclosures, UnboundedError, is_of_library
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.facts import facts_of
from qonnx_hub_ir.quantizers import Array, BipolarQuant, IntQuant, Quantizer
from qonnx_hub_ir.semantics import quantize, quantize_to_integers

_MOST_EXPLANATIONS = 32

_SMALL_NOISE = 1e-3
"""Steps of a quantizer that noise before it stays below."""


class DifferenceOrigin(Enum):
    """What a difference comes from.

    Given equal inputs, some layer computes something else (FAULT); each computes the same up
    to the rounding of its own sums (NOISE); each computes the very same, and only zeros of
    another sign were passed on (ZERO_SIGN).
    """

    FAULT = "fault"
    NOISE = "noise"
    ZERO_SIGN = "zero sign"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found out about a difference.

    Attributes:
        findings: Causes, in the order of the layers.
        isolated: Pair -> its error when its inputs come from the reference.
        origin: What the difference comes from, where every layer could be judged alone.
        left: Differing layers whose causes were not looked for, since there are so many.
        unbounded: Nodes for which no order of sums is bounded, in words.
    """

    findings: tuple[Explanation, ...] = ()
    isolated: Mapping[Pair, Tally] = field(default_factory=dict)
    origin: DifferenceOrigin | None = None
    left: int = 0
    unbounded: tuple[str, ...] = ()


def diagnose(
    a: Runner,
    b: Runner,
    pairs: Sequence[Pair],
    failing: int,
    batch: SampleBatch,
    *,
    folded: bool = False,
) -> Diagnosis:
    """Return why two sides differ.

    Args:
        a: The reference side; its model must be known.
        b: The other side.
        pairs: All pairs, in the order of the reference.
        failing: Position of the first pair that differs.
        batch: A batch in which it does.
        folded: Whether parameters of one side were rounded anew, on purpose.
    """
    examiner = _Examiner(a, b, pairs, failing, batch, folded=folded)
    findings: list[Explanation] = []
    left = 0
    for k, pair in enumerate(pairs):
        if len(findings) >= _MOST_EXPLANATIONS:
            own = examiner.tallies.get(pair)
            left += own is not None and own.differing > 0
        elif one := examiner.examine(k, findings):
            findings.append(one)
    origin = None if left else examiner.origin()
    unbounded = tuple(dict.fromkeys(examiner.unbounded))
    return Diagnosis(tuple(findings), examiner.tallies, origin, left, unbounded)


class _Examiner:
    def __init__(
        self,
        a: Runner,
        b: Runner,
        pairs: Sequence[Pair],
        failing: int,
        batch: SampleBatch,
        *,
        folded: bool,
    ) -> None:
        if a.model is None:
            raise ValueError("the reference has no graph to examine")
        self.pairs = pairs
        self.failing = failing
        self.groups = gather_groups(a, b, pairs, pairs[failing], batch)
        self.a = SlicedGraph(a.model, a if isinstance(a, ExecutorRunner) else None)
        self.b = None if b.model is None else SlicedGraph(b.model, b)
        found = [None if self.b is None else isolate(self.b, pairs, g) for g in self.groups]
        isolated = [answers for answers in found if answers is not None]
        self.is_isolated = len(isolated) == len(self.groups)
        self.answers = isolated if self.is_isolated else [group.b for group in self.groups]
        self.tallies: dict[Pair, Tally] = {}
        self.faulty = self.noisy = False
        self.unbounded: list[str] = []
        graphs = (self.a,) if self.b is None else (self.a, self.b)
        self._live = not same_library(a, b)
        self._bounds = [
            SumEnclosures(graph, live=self._live, folded=folded) for graph in graphs
        ]
        steps = facts_of(a.model).steps
        for pair in pairs if self.is_isolated else ():
            for number in range(1 if pair.constant else len(self.groups)):
                both = self._values(pair, number)
                if both is not None and both[0].size:
                    part = tally(*both, tolerance=Tolerance(), step=steps.get(pair.a))
                    known = self.tallies.get(pair)
                    self.tallies[pair] = part if known is None else known + part

    def _values(self, pair: Pair, number: int) -> tuple[Array, Array] | None:
        """Return the reference's value in a group and the other side's, in its shape."""
        return _fitted(self.groups[number].a.get(pair.a), self.answers[number].get(pair.b))

    def origin(self) -> DifferenceOrigin | None:
        """Return what all differences come from; ``None`` where some layer is not judged."""
        if not self.is_isolated:
            return None
        for pair in self.pairs:
            shown = [group.a.get(pair.a) for group in self.groups]
            if pair not in self.tallies and any(x is None or x.size for x in shown):
                return None
        if self.faulty:
            return DifferenceOrigin.FAULT
        return DifferenceOrigin.NOISE if self.noisy else DifferenceOrigin.ZERO_SIGN

    def examine(self, k: int, findings: list[Explanation]) -> Explanation | None:
        """Return why one layer differs, beside what was found so far."""
        pair = self.pairs[k]
        own = self.tallies.get(pair)
        if self.is_isolated and own is None:
            return self._shapes(pair) if k <= self.failing else None
        agrees = k != self.failing if own is None else own.differing == 0
        if agrees:
            return self._crossing(pair, findings)
        runs = [_fitted(group.a.get(pair.a), group.b.get(pair.b)) for group in self.groups]
        if all(both is not None and not differs(*both).any() for both in runs):
            # Only feeding the reference's values makes this difference: it is no fault.
            return None
        number = max(range(len(self.groups)), key=lambda n: self._count(pair, n))
        reason, seen = self._explain(pair, number)
        is_noise = self._adds_up(pair, number) and self._is_order_of_sums(pair)
        self.noisy, self.faulty = self.noisy or is_noise, self.faulty or not is_noise
        if reason.cause is Cause.NOISE and findings:
            # Noise after noise says nothing new, and beside a fault it does not matter.
            return None
        return explanation_of(pair.source, reason, seen)

    def _adds_up(self, pair: Pair, number: int) -> bool:
        """Return whether a layer holds what can be rounded in another way.

        That is a sum, or in another library a function such as Exp.
        """
        group = self.groups[number]
        known = [p.a for p in self.pairs if p.b in group.given and p.a != pair.a]
        nodes = self.a.between(known, pair.a)
        adds = sum(operators.adds(node) for node in nodes)
        return adds > 1 or any(
            operators.is_product(node)
            or operators.sums_elements(node)
            or node.op_type == "BatchNormalization"
            or (self._live and is_of_library(node))
            for node in nodes
        )

    def _is_order_of_sums(self, pair: Pair) -> bool:
        """Return whether another order of a layer's sums explains all of its differences."""
        for number, group in enumerate(self.groups):
            both = self._values(pair, number)
            if both is None:
                return False
            if not differs(*both).any():
                continue
            layer = self._cut(pair, group, *both)
            if layer.b is None:
                return False
            try:
                if exceeds_sums(layer, *self._bounds).any():
                    return False
            except UnboundedError as error:
                self.unbounded.append(str(error))
                return False
        return True

    def _count(self, pair: Pair, number: int) -> int:
        both = self._values(pair, number)
        return -1 if both is None else int(np.count_nonzero(differs(*both)))

    def _shapes(self, pair: Pair) -> Explanation | None:
        x, y = self.groups[0].a.get(pair.a), self.groups[0].b.get(pair.b)
        if not isinstance(x, np.ndarray) or not isinstance(y, np.ndarray):
            return None
        if aligned(x, y) is not None:
            return None
        words = f"shape {list(x.shape)} here, {list(y.shape)} there"
        return Explanation(pair.source, Cause.LAYOUT, words)

    def _explain(self, pair: Pair, number: int) -> tuple[Reason, Seen | None]:
        both = self._values(pair, number)
        if both is None:
            return Reason(Cause.UNKNOWN, "the values cannot be compared"), None
        ours, theirs = both
        layer = self._cut(pair, self.groups[number], ours, theirs)
        node = self.a.producer(pair.a)
        quant = known_quantizer(node)
        if node is None or quant is None:
            return explain_layer(layer), Seen(ours, ours, theirs)
        x = self._operand(layer.a, node)
        if x is None or x.shape != ours.shape or x.dtype.kind != "f":
            return Reason(Cause.UNKNOWN, "what it reads is not known"), None
        seen = Seen(x, ours, theirs)
        other = None if self.b is None else self.b.producer(pair.b)
        partner = known_quantizer(other)
        is_weight = self.a.constant(node.inputs[0]) is not None
        if self.b and other and dialect.is_quantizer(other) and is_weight:
            stored = self.b.constant(other.inputs[0])
            if stored is not None and not np.array_equal(x, stored, equal_nan=True):
                return _stored_reason(seen, stored, quant, partner), seen
        probed = self._probe(layer, node, quant, x)
        for evidence in (seen,) if probed is None else (probed, seen):
            reason = explain_quantizer(evidence, quant, partner, noise_of(layer))
            if reason is not None:
                return reason, seen
        reason = explain_layer(layer)
        if reason.cause is Cause.UNKNOWN and pair.constant:
            changed = int(np.count_nonzero(ours != theirs))
            words = f"{changed} of {ours.size} stored values differ"
            reason = Reason(Cause.WEIGHTS, words)
        return reason, seen

    def _cut(self, pair: Pair, group: SampleGroup, ours: Array, theirs: Array) -> CutLayer:
        given = {p.a: group.a[p.a] for p in self.pairs if p.b in group.given}
        known_a = {name: x for name, x in given.items() if name != pair.a}
        known_b = {name: x for name, x in group.given.items() if name != pair.b}
        nodes = self.a.between(known_a, pair.a)
        a, b = CutSide(self.a, pair.a, known_a, group.feeds, nodes), None
        if self.b is not None and self.is_isolated:
            nodes = self.b.between(known_b, pair.b)
            b = CutSide(self.b, pair.b, known_b, group.there, nodes)
        return CutLayer(a, b, ours, theirs)

    def _operand(self, side: CutSide, node: Node) -> Array | None:
        """Return what the reference's quantizer read."""
        value = node.inputs[0]
        constant = self.a.constant(value)
        if value is None or constant is not None:
            return constant
        name = str(value.name)
        if name in side.known:
            return side.known[name]
        return side.feeds[name] if value.is_graph_input() else replace(side, name=name).run()

    def _probe(self, layer: CutLayer, node: Node, quant: Quantizer, x: Array) -> Seen | None:
        """Return both quantizers' answers to ties, limits and the floats beside them.

        Only where the other side's layer reads the same value and no other that depends on
        the inputs.
        """
        value = node.inputs[0]
        if layer.b is None or not isinstance(quant, (IntQuant, BipolarQuant)):
            return None
        if value is None or self.a.constant(value) is not None:
            return None
        values, name = probe_values(quant, x.shape, x.dtype), str(value.name)
        if values is None:
            return None
        known, feeds = dict(layer.b.known), dict(layer.b.feeds)
        partner = next((p.b for p in self.pairs if p.a == name), None)
        if partner is not None and partner in known:
            fitted = aligned(known[partner], values)
            if fitted is None:
                return None
            known[partner] = np.ascontiguousarray(fitted)
        elif name in layer.a.feeds:
            feeds[list(feeds)[list(layer.a.feeds).index(name)]] = values
        else:
            return None
        y = aligned(x, replace(layer.b, known=known, feeds=feeds).run())
        if y is None:
            return None
        ours = quantize(values, quant)
        # Channels along the first axis must not be put behind each other.
        parameters = (p for p in dialect.parameters(quant) if p is not None)
        if x.ndim == 0 or any(p.ndim >= x.ndim and p.shape[0] != 1 for p in parameters):
            return Seen(values, ours, y)
        return Seen(
            np.concatenate([x, values]),
            np.concatenate([layer.ours, ours]),
            np.concatenate([layer.theirs, y]),
        )

    def _crossing(self, pair: Pair, findings: list[Explanation]) -> Explanation | None:
        """Return that noise before a quantizer became steps, the first time that it does."""
        node = self.a.producer(pair.a)
        quant = known_quantizer(node)
        if node is None or quant is None or any(f.cause is Cause.TIE for f in findings):
            return None
        name = None if node.inputs[0] is None else str(node.inputs[0].name)
        before = next((p for p in self.pairs if p.a == name), None)
        if before is None:
            return None
        step = 0.0 if quant.scale is None else float(np.min(quant.scale))
        for group in self.groups:
            read = _fitted(group.a.get(before.a), group.b.get(before.b))
            made = _fitted(group.a.get(pair.a), group.b.get(pair.b))
            if read is None or made is None or read[0].shape != made[0].shape:
                continue
            apart, seen = float(np.max(np.abs(read[0] - read[1]))), Seen(read[0], *made)
            if apart <= _SMALL_NOISE * step and crosses_ties(read[1], seen, quant):
                count = int(np.count_nonzero(seen.differs()))
                words = (
                    f"noise of at most {apart:.3g} before it carries {count} of "
                    f"{seen.a.size} values across a tie"
                )
                return explanation_of(pair.source, Reason(Cause.TIE, words), seen)
        return None


def _fitted(x: Array | None, y: Array | None) -> tuple[Array, Array] | None:
    """Return two values in the shape of the first; ``None`` where they do not fit."""
    fitted = aligned(x, y)
    return None if x is None or fitted is None else (x, fitted)


def _stored_reason(
    seen: Seen, stored: Array, quant: Quantizer, other: Quantizer | None
) -> Reason:
    """Return why quantized weights differ that are not stored alike.

    Weights may be stored as they were trained, or on the grid already: that alone is no fault.
    """
    if other is not None and seen.x.shape == stored.shape:
        same = _codes_agree(seen.x, stored, quant, other)
        if same or seen.is_answered_by(quantize(seen.x, other)):
            reason = compare_parameters(seen, quant, other)
            if reason is not None:
                return reason
    # Integers that were stored with another rounding or range: one formula gives them all.
    reason = match_formula(seen, quant)
    if reason is not None:
        return reason
    if same_elements(seen.a, seen.b) or same_elements(seen.x, stored):
        named = permutation_in_words(seen.x, stored) or permutation_in_words(seen.a, seen.b)
        order = f" ({named})" if named else ""
        return Reason(Cause.PERMUTED, f"the same weights in another order{order}")
    count = int(np.count_nonzero(seen.a != seen.b))
    apart = distances(seen.a, seen.b)
    at = [int(k) for k in np.unravel_index(int(apart.argmax()), apart.shape)]
    words = f"{count} of {seen.a.size} weights differ, by {apart.max():.3g} at most, at {at}"
    return Reason(Cause.WEIGHTS, words)


def _codes_agree(x: Array, y: Array, quant: Quantizer, other: Quantizer) -> bool:
    """Return whether both store the same integers, each by its own quantizer."""
    kinds = (IntQuant, BipolarQuant)
    if not isinstance(quant, kinds) or not isinstance(other, kinds):
        return False
    try:
        codes = quantize_to_integers(x, quant), quantize_to_integers(y, other)
    except ValueError:
        return False
    return bool(np.array_equal(*codes))
