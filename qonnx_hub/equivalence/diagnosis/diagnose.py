"""Why two models differ: layer by layer, on the reference's own values.

A layer of the other side is run on the values that the reference has before it, so that faults
of earlier layers do not reach it. What still differs is the layer's own fault. A suspected
fault is mended in a copy: only if the copy then agrees is it called the cause.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx_ir import Node

from qonnx_hub.equivalence.comparison.compare import Tally, Tolerance, aligned, tally
from qonnx_hub.equivalence.comparison.matching import Pair
from qonnx_hub.equivalence.diagnosis.isolation import (
    Side,
    Unit,
    gather_units,
    isolate,
    known_without,
)
from qonnx_hub.equivalence.diagnosis.layer_causes import Piece, explain_piece, noise_of
from qonnx_hub.equivalence.diagnosis.quantizer_causes import (
    Cause,
    Finding,
    Reason,
    Seen,
    compare_parameters,
    crosses_ties,
    explain_quantizer,
    match_formula,
)
from qonnx_hub.equivalence.diagnosis.unobserved import known_quantizer
from qonnx_hub.equivalence.graph_slices import segment_of
from qonnx_hub.equivalence.inputs.batches import Batch
from qonnx_hub.equivalence.inputs.probes import probe_values
from qonnx_hub.equivalence.runners.sides import ExecutorRunner, Runner
from qonnx_hub_ir import dialect
from qonnx_hub_ir.facts import facts_of
from qonnx_hub_ir.quantizers import Array, BipolarQuant, IntQuant, Quantizer
from qonnx_hub_ir.semantics import quantize, quantize_to_integers

_MOST_FINDINGS = 8


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found out about a difference.

    Attributes:
        findings: Causes, in the order of the layers.
        isolated: Position of a pair -> its error when its inputs come from the reference.
    """

    findings: tuple[Finding, ...]
    isolated: dict[int, Tally]


def diagnose(
    a: Runner, b: Runner, pairs: Sequence[Pair], failing: int, batch: Batch
) -> Diagnosis:
    """Return why two sides differ.

    Args:
        a: The reference side; its model must be known.
        b: The other side.
        pairs: All pairs, in the order of the reference.
        failing: Position of the first pair that differs.
        batch: A batch in which it does.
    """
    return _Examiner(a, b, pairs, failing, batch).report()


class _Examiner:
    def __init__(
        self, a: Runner, b: Runner, pairs: Sequence[Pair], failing: int, batch: Batch
    ) -> None:
        if a.model is None:
            raise ValueError("the reference has no graph to examine")
        self.pairs = pairs
        self.failing = failing
        self.units = gather_units(a, b, pairs, pairs[failing], batch)
        self.a = Side(a.model, a if isinstance(a, ExecutorRunner) else None)
        self.b = None if b.model is None else Side(b.model, b)
        self.steps = facts_of(a.model).steps
        self.isolated = self._isolate()
        self.tallies = self._tally_isolated()

    def report(self) -> Diagnosis:
        """Return the findings, layer by layer."""
        findings: list[Finding] = []
        for k in range(len(self.pairs)):
            if len(findings) >= _MOST_FINDINGS:
                break
            finding = self._examine(k, findings)
            if finding is not None:
                findings.append(finding)
        return Diagnosis(tuple(findings), self.tallies)

    def _isolate(self) -> list[dict[str, Array]] | None:
        if self.b is None:
            return None
        found = [isolate(self.b, self.pairs, unit) for unit in self.units]
        known = [x for x in found if x is not None]
        return known if len(known) == len(found) else None

    def _tally_isolated(self) -> dict[int, Tally]:
        tallies: dict[int, Tally] = {}
        for k, pair in enumerate(self.pairs):
            for number, unit in enumerate(self.units):
                x, y = self._answers(pair, number)
                if self.isolated is None or x is None or y is None or x.size == 0:
                    continue
                step = self.steps.get(pair.a)
                fits = step is not None and _broadcasts(step, x)
                part = tally(x, y, tolerance=Tolerance(), step=step if fits else None)
                tallies[k] = tallies[k] + part if k in tallies else part
                if unit is not None and pair.constant:
                    break
        return tallies

    def _answers(self, pair: Pair, number: int) -> tuple[Array | None, Array | None]:
        """Return (reference, other side on the reference's values) for one unit."""
        unit = self.units[number]
        x = unit.a.get(pair.a)
        answers = unit.b if self.isolated is None else self.isolated[number]
        y = answers.get(pair.b)
        if not isinstance(x, np.ndarray) or not isinstance(y, np.ndarray):
            return None, None
        fitted = aligned(x, y)
        if fitted is None:
            return x, None
        return x, fitted

    def _examine(self, k: int, findings: list[Finding]) -> Finding | None:
        pair = self.pairs[k]
        if self.isolated is None and k != self.failing:
            return self._crossing(k, findings)
        own = self.tallies.get(k)
        if own is None and self.isolated is not None:
            return self._shapes(k) if k <= self.failing else None
        if own is not None and own.differing == 0:
            return self._crossing(k, findings)
        if not any(self._parts(pair, unit) for unit in self.units):
            # What differs on the reference's values only is the doing of how they were fed.
            return None
        number = max(range(len(self.units)), key=lambda n: self._differing(pair, n))
        reason, layer, seen = self._explain(pair, number)
        if reason.cause is Cause.NOISE and findings:
            # Noise after noise says nothing new, and beside a fault it does not matter.
            return None
        return _finding(layer or pair.source, reason, seen)

    def _parts(self, pair: Pair, unit: Unit) -> bool:
        """Return whether the sides differ as they run."""
        x, y = unit.a.get(pair.a), unit.b.get(pair.b)
        fitted = None if x is None or y is None else aligned(x, y)
        return fitted is None or bool(np.any((x != fitted) & ~((x != x) & (fitted != fitted))))

    def _differing(self, pair: Pair, number: int) -> int:
        x, y = self._answers(pair, number)
        if x is None or y is None:
            return -1
        return int(np.count_nonzero(~((x == y) | ((x != x) & (y != y)))))

    def _shapes(self, k: int) -> Finding | None:
        pair = self.pairs[k]
        x, y = self.units[0].a.get(pair.a), self.units[0].b.get(pair.b)
        if not isinstance(x, np.ndarray) or not isinstance(y, np.ndarray):
            return None
        if aligned(x, y) is not None:
            return None
        words = f"shape {list(x.shape)} here, {list(y.shape)} there"
        return Finding(pair.source, Cause.LAYOUT, words)

    def _explain(self, pair: Pair, number: int) -> tuple[Reason, str | None, Seen | None]:
        unit = self.units[number]
        ours, theirs = self._answers(pair, number)
        if ours is None or theirs is None:
            return Reason(Cause.UNKNOWN, "the values cannot be compared"), None, None
        piece = self._piece(pair, unit, ours, theirs)
        node = self._producer(self.a, pair.a)
        quant = known_quantizer(node)
        if node is None or quant is None:
            reason, layer = explain_piece(piece)
            return reason, layer, Seen(ours, ours, theirs)
        x = self._operand(piece, node)
        if x is None or x.shape != ours.shape or x.dtype.kind != "f":
            return Reason(Cause.UNKNOWN, "what it reads is not known"), None, None
        seen = Seen(x, ours, theirs)
        other = known_quantizer(self._other_producer(pair))
        stored = self._stored_operand(pair)
        if stored is not None and not np.array_equal(x, stored, equal_nan=True):
            return _stored_reason(seen, stored, quant, other), None, seen
        asked = self._asked(piece, node, quant, x)
        reason_of = explain_quantizer(asked or seen, quant, other, noise_of(piece))
        if reason_of is None and asked is not None:
            reason_of = explain_quantizer(seen, quant, other, noise_of(piece))
        if reason_of is not None:
            return reason_of, None, seen
        reason, layer = explain_piece(piece)
        if reason.cause is Cause.UNKNOWN and pair.constant:
            changed = int(np.count_nonzero(ours != theirs))
            words = f"{changed} of {ours.size} stored values differ"
            reason = Reason(Cause.WEIGHTS, words)
        return reason, layer, seen

    def _piece(self, pair: Pair, unit: Unit, ours: Array, theirs: Array) -> Piece:
        known_a = known_without(
            {p.a: unit.a[p.a] for p in self.pairs if p.b in unit.given}, {pair.a}
        )
        known_b = known_without(unit.given, {pair.b})
        return Piece(
            a=self.a,
            b=self.b if self.isolated is not None else None,
            pair=pair,
            known_a=known_a,
            known_b=known_b,
            feeds_a=unit.feeds,
            feeds_b=unit.there,
            ours=ours,
            theirs=theirs,
            nodes_a=segment_of(self.a.model, pair.a, known_a).nodes,
            nodes_b=() if self.b is None else segment_of(self.b.model, pair.b, known_b).nodes,
        )

    def _producer(self, side: Side, name: str) -> Node | None:
        value = side.values.get(name)
        return None if value is None else value.producer()

    def _other_producer(self, pair: Pair) -> Node | None:
        return None if self.b is None else self._producer(self.b, pair.b)

    def _stored_operand(self, pair: Pair) -> Array | None:
        """Return the weight that the other side quantizes, where both sides store one."""
        node, own = self._other_producer(pair), self._producer(self.a, pair.a)
        if self.b is None or node is None or not dialect.is_quantizer(node):
            return None
        if own is None or self.a.constant(own.inputs[0]) is None:
            return None
        return self.b.constant(node.inputs[0])

    def _operand(self, piece: Piece, node: Node) -> Array | None:
        """Return what the reference's quantizer read."""
        value = node.inputs[0]
        constant = self.a.constant(value)
        if value is None or constant is not None:
            return constant
        name = str(value.name)
        if name in piece.known_a:
            return piece.known_a[name]
        if value.is_graph_input():
            return piece.feeds_a[name]
        found = self.a.run([name], piece.known_a, piece.feeds_a)
        return None if found is None else found[name]

    def _asked(self, piece: Piece, node: Node, quant: Quantizer, x: Array) -> Seen | None:
        """Return both quantizers' answers to ties, limits and what lies beside them.

        Only where the other side's piece reads the same value and no other that depends on
        the inputs.
        """
        if piece.b is None or not isinstance(quant, (IntQuant, BipolarQuant)):
            return None
        value = node.inputs[0]
        if value is None or self.a.constant(value) is not None:
            return None
        name = str(value.name)
        partner = next((p.b for p in self.pairs if p.a == name), None)
        values = probe_values(quant, x.shape, x.dtype)
        if values is None:
            return None
        known, feeds = dict(piece.known_b), dict(piece.feeds_b)
        position = list(piece.feeds_a).index(name) if name in piece.feeds_a else None
        if partner is not None and partner in known:
            turned = aligned(known[partner], values)
            if turned is None:
                return None
            known[partner] = np.ascontiguousarray(turned)
        elif position is not None:
            feeds[list(feeds)[position]] = values
        else:
            return None
        answer = piece.b.run([piece.pair.b], known, feeds)
        if answer is None:
            return None
        y = aligned(x, answer[piece.pair.b])
        mine = self.a.run(
            [piece.pair.a],
            {**piece.known_a, **({name: values} if name in piece.known_a else {})},
            {**piece.feeds_a, **({name: values} if name in piece.feeds_a else {})},
        )
        if y is None or mine is None:
            return None
        both = Seen(
            np.concatenate([x, values]),
            np.concatenate([piece.ours, mine[piece.pair.a]]),
            np.concatenate([piece.theirs, y]),
        )
        # Channels along the first axis must not be put behind each other.
        fits = x.ndim > 0 and all(_first_is_free(p, x.ndim) for p in dialect.parameters(quant))
        return both if fits else Seen(values, mine[piece.pair.a], y)

    def _crossing(self, k: int, findings: list[Finding]) -> Finding | None:
        """Return that noise before a quantizer turned into steps, the first time it does."""
        if any(f.cause is Cause.TIE for f in findings):
            return None
        pair = self.pairs[k]
        node = self._producer(self.a, pair.a)
        quant = known_quantizer(node)
        if node is None or quant is None or node.inputs[0] is None:
            return None
        before = next((p for p in self.pairs if p.a == str(node.inputs[0].name)), None)
        if before is None:
            return None
        for unit in self.units:
            xa, xb = unit.a.get(before.a), unit.b.get(before.b)
            ya, yb = unit.a.get(pair.a), unit.b.get(pair.b)
            if xa is None or xb is None or ya is None or yb is None:
                continue
            fitted = [aligned(xa, xb), aligned(ya, yb)]
            if fitted[0] is None or fitted[1] is None or xa.shape != ya.shape:
                continue
            seen = Seen(xa, ya, fitted[1])
            apart = float(np.max(np.abs(xa - fitted[0])))
            if apart > 1e-3 * _typical_step(quant) or not crosses_ties(
                xa, fitted[0], seen, quant
            ):
                continue
            count = int(np.count_nonzero(seen.differs()))
            words = (
                f"noise of at most {apart:.3g} before it carries {count} of {ya.size} values "
                f"across a tie"
            )
            return _finding(pair.source, Reason(Cause.TIE, words), seen)
        return None


def _typical_step(quant: Quantizer) -> float:
    scale = quant.scale
    return float(np.min(scale)) if scale is not None else 0.0


def _broadcasts(step: Array, x: Array) -> bool:
    try:
        return np.broadcast_shapes(step.shape, x.shape) == x.shape
    except ValueError:
        return False


def _first_is_free(parameter: Array | None, ndim: int) -> bool:
    if parameter is None or parameter.size == 1 or parameter.ndim < ndim:
        return True
    return bool(parameter.shape[0] == 1)


def _stored_reason(
    seen: Seen, stored: Array, quant: Quantizer, other: Quantizer | None
) -> Reason:
    """Return why quantized weights differ that are not stored alike.

    Weights may be stored as they were trained, or on the grid already: that alone is no fault.
    """
    x, ours, theirs = seen.x, seen.a, seen.b
    if other is not None and x.shape == stored.shape:
        same = _codes_agree(x, stored, quant, other)
        if same or seen.is_said_by(quantize(x, other)):
            reason = compare_parameters(seen, quant, other)
            if reason is not None:
                return reason
    # Integers that were stored with another rounding or range: one formula gives them all.
    reason = match_formula(seen, quant)
    if reason is not None:
        return reason
    for first, second in ((ours, theirs), (x, stored)):
        if np.array_equal(np.sort(first, axis=None), np.sort(second, axis=None)):
            return Reason(Cause.LAYOUT, "the same weights in another order")
    count = int(np.count_nonzero(ours != theirs))
    worst = float(np.max(np.abs(ours.astype(np.float64) - theirs.astype(np.float64))))
    words = f"{count} of {ours.size} weights differ, by {worst:.3g} at most"
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


def _finding(layer: str, reason: Reason, seen: Seen | None) -> Finding:
    if seen is None or not seen.differs().any():
        return Finding(layer, reason.cause, reason.words)
    where = tuple(int(i) for i in np.argwhere(seen.differs())[0])
    operand = None if seen.x is seen.a else float(seen.x[where])
    values = (float(seen.a[where]), float(seen.b[where]))
    return Finding(layer, reason.cause, reason.words, where, operand, values)
