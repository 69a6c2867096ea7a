"""Which value of one model equals which value of another, found while walking both once.

Where two functions or weights differ, that is noted, and what follows is compared as if they
did not: one difference does not hide the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub.equivalence.proof.canonical_forms import (
    expression_number,
    is_transparent,
    leaves_nan_out,
)
from qonnx_hub.equivalence.proof.deadline import Deadline
from qonnx_hub.equivalence.proof.findings import Findings
from qonnx_hub.equivalence.proof.finite_functions import Lists
from qonnx_hub.equivalence.proof.intervals import is_coarse
from qonnx_hub.equivalence.proof.proof_model import ProofModel
from qonnx_hub.equivalence.proof.scalar_equality import (
    ScalarComparison,
    compare_functions,
    difference_on_probes,
)
from qonnx_hub.equivalence.proof.scalar_functions import ScalarFunction, layout_of
from qonnx_hub.equivalence.proof.value_numbering import (
    Numbering,
    Signature,
    since_version,
)
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.analysis.rule_context import numpy_type
from qonnx_hub_ir.graph.subgraphs import read_values
from qonnx_hub_ir.validity import label

_SOURCES_TRIED = 3
"""Starting points of a function that are tried, from the nearest on."""


def paired(a: Sequence[Value], b: Sequence[Value]) -> list[tuple[Value, Value]]:
    """Return pairs of inputs or outputs: by name, or else by position."""
    named = {str(value.name): value for value in b}
    if {str(value.name) for value in a} == set(named):
        return [(value, named[str(value.name)]) for value in a]
    return list(zip(a, b, strict=True))


@dataclass(frozen=True, slots=True)
class FunctionPair:
    """A pair of functions of one number, one in each model, that start at equal values.

    Attributes:
        one: Output in the first model.
        start: Input in the first model.
        other: Output in the second model.
        source: Input in the second model.
    """

    one: Value
    start: Value
    other: Value
    source: Value


class GraphMatching:
    """Two models whose values have numbers, equal ones where they are equal.

    Attributes:
        a: The first model.
        b: The second model.
        findings: What the last walk found.
    """

    def __init__(self, a: ProofModel, b: ProofModel, deadline: Deadline) -> None:
        """Start with nothing known.

        Args:
            a: The first model.
            b: The second model, with as many inputs and outputs.
            deadline: After that, functions are no longer compared.
        """
        # What a walk finds starts afresh with each; comparisons are kept.
        self.a, self.b = a, b
        self._deadline = deadline
        self._outcomes: dict[FunctionPair, ScalarComparison | None] = {}
        self._merges: dict[Value, Value] = {}
        self._needed = _ancestors(b.model)
        self._lists = Lists(a, b, self.holders)

    def _begin(self) -> None:
        numbering = Numbering()
        self.a.renumber(numbering)
        self.b.renumber(numbering)
        self.findings = Findings()
        self._holders: dict[int, list[Value]] = {}
        self._functions: dict[int, list[tuple[Value, Value]]] = {}
        self._lists.forget()
        self._nodes: dict[Signature, list[Node]] = {}
        inputs = paired(self.a.model.graph.inputs, self.b.model.graph.inputs)
        for position, (one, other) in enumerate(inputs):
            number = numbering.of_input(position)
            self.a.set_number(one, number)
            self.b.set_number(other, number)
            self._holders[number] = [one]
        for node in self.a.nodes():
            self._enter(node)

    def _enter(self, node: Node) -> None:
        """Number a node of the first model and remember what can be found by it."""
        out = node.outputs[0]
        same = self._merges.get(out)
        number = expression_number(self.a, node) if same is None else self.a.number(same)
        self.a.set_outputs(node, number)
        for value in node.outputs:
            if value not in self.a.constants:
                self._holders.setdefault(self.a.number(value), []).append(value)
        signature = self.a.signature(node)
        if signature is not None:
            self._nodes.setdefault(signature, []).append(node)
        for source in self.a.chain(out):
            self._functions.setdefault(self.a.number(source), []).append((out, source))

    def walk(self) -> bool:
        """Number the second model, comparing functions on the way.

        Returns:
            Whether values of the first model were found to equal each other, so that another
            walk may match more.
        """
        known = len(self._merges)
        self._begin()
        for node in self.b.nodes():
            if not any(value in self._needed for value in node.outputs):
                continue
            self.b.set_outputs(node, self._find_number(node))
            if any(value in self.findings.supposed for value in read_values(node)):
                self.findings.supposed.update(node.outputs)
        for one, other in paired(self.a.model.graph.outputs, self.b.model.graph.outputs):
            self._compare_outputs(one, other)
        self._note_weights()
        return len(self._merges) > known

    def count_matched(self) -> int:
        """Return how many values of the second model equal one of the first."""
        return sum(
            value in self._needed
            and value not in self.b.constants
            and value not in self.findings.supposed
            and self._is_known(value)
            for node in self.b.nodes()
            for value in node.outputs
        )

    def partner(self, value: Value) -> Value | None:
        """Return the first value of the first model that equals one of the second, if any."""
        return next(iter(self.holders(value)), None)

    def holders(self, value: Value) -> Sequence[Value]:
        """Return the values of the first model that equal one of the second."""
        if value not in self._needed or value in self.findings.supposed:
            return ()
        return self._holders.get(self.b.number(value), ())

    def equal_names(self) -> dict[str, frozenset[str]]:
        """Return value of the second model -> values of the first that equal it, by name."""
        return {
            str(value.name): frozenset(str(one.name) for one in holders)
            for node in self.b.nodes()
            for value in node.outputs
            if (holders := self.holders(value))
        }

    def proven_pair(self, target: Value) -> FunctionPair | None:
        """Return the two functions whose comparison gave a value of the second model."""
        found = (p for p, o in self._outcomes.items() if p.other is target and o and o.equal)
        return next(found, None)

    def _is_known(self, value: Value | None) -> bool:
        """Return whether the first model holds the value too, as far as is supposed."""
        if value is None or value in self.b.constants:
            return True
        return self.b.number(value) in self._holders

    def _find_number(self, node: Node) -> int:
        first = expression_number(self.b, node)
        if first in self._holders:
            self._note_same(node, first)
            return first
        out = node.outputs[0]
        found = self._equal_function(out) or self._equal_list(out)
        if found is not None or self.b.chain(out):
            return found or first
        return expression_number(self.b, node) if self._pair_up(node) else first

    def _note_same(self, node: Node, first: int) -> None:
        partner = self._holders[first][0].producer()
        if partner is None or is_transparent(node):
            return
        self.findings.taken.add(partner)
        if (partner.op_type == "Gemm") != (node.op_type == "Gemm"):
            self.findings.respelled.add(f"{partner.op_type} as {node.op_type}")
        elif partner.op_type == node.op_type and since_version(
            node, self.b.imports
        ) != since_version(partner, self.a.imports):
            self.findings.reworded.add(node.op_type)
        if dialect.is_quantizer(node) or dialect.is_quantizer(partner):
            one, other = partner.outputs[0], node.outputs[0]
            nan_equal = not leaves_nan_out(self.a, partner) ^ leaves_nan_out(self.b, node)
            channels = self.a.channels(partner)
            self.findings.record(one, other, channels, ScalarComparison(nan_equal=nan_equal))

    def _note_weights(self) -> None:
        """Record the quantizers of the first model whose results the second one stores."""
        stored = {self.b.number(value): value for value in self.b.constants}
        for node in self.a.model.graph:
            one = node.outputs[0]
            if not dialect.is_quantizer(node) or one not in self.a.constants:
                continue
            other = stored.get(self.a.number(one))
            if other is not None and other not in self.findings.supposed:
                channels = self.a.channels(node)
                self.findings.record(one, other, channels, ScalarComparison())

    def _equal_function(self, target: Value) -> int | None:
        """Return the number of a value of the first model that is the same function.

        The functions start at values that are equal in both models and quantize.
        """
        known = [source for source in self.b.chain(target) if self._is_known(source)]
        for source in known[:_SOURCES_TRIED]:
            equal: list[Value] = []
            for one, start in self._functions.get(self.b.number(source), ()):
                pair = FunctionPair(one, start, target, source)
                if self._is_equal(pair):
                    self._note_equal(pair)
                    equal.append(one)
            # Values of the first model that equal each other may make more match.
            for later in equal[1:]:
                if self.a.number(later) != self.a.number(equal[0]):
                    self._merges[later] = equal[0]
            if equal:
                return self.a.number(equal[0])
        return None

    def _equal_list(self, target: Value) -> int | None:
        """Return the number of a value of the first model that is the same list of numbers."""
        if self._deadline.passed() or (found := self._lists.find_equal(target)) is None:
            return None
        one, nan_equal = found
        self.findings.record(one, target, 1, ScalarComparison(nan_equal=nan_equal))
        return self.a.number(one)

    def _is_equal(self, pair: FunctionPair) -> bool:
        """Return whether both functions quantize and are proven equal."""
        if pair not in self._outcomes:
            if self._deadline.passed():
                self._note_late(pair.other)
                return False
            self._outcomes[pair] = None
            compared = self.functions(pair)
            if (
                compared is not None
                and compared[0].is_coarse()
                and compared[1].is_coarse()
                and difference_on_probes(*compared) is None
            ):
                self._outcomes[pair] = compare_functions(*compared, self._deadline)
        outcome = self._outcomes[pair]
        if outcome is not None and outcome.late:
            self._note_late(pair.other)
        return outcome is not None and outcome.equal

    def _note_late(self, value: Value) -> None:
        if value.name not in self.findings.late:
            self.findings.late.append(str(value.name))

    def _note_equal(self, pair: FunctionPair) -> None:
        compared, outcome = self.functions(pair), self._outcomes[pair]
        assert compared is not None
        assert outcome is not None
        f, g, _ = compared
        self.findings.margins |= f.uses("Log") or g.uses("Log")
        self.findings.record(pair.one, pair.other, f.channels, outcome)
        producer = pair.one.producer()
        if producer is not None:
            self.findings.taken.add(producer)

    def functions(
        self, pair: FunctionPair
    ) -> tuple[ScalarFunction, ScalarFunction, np.dtype[np.generic]] | None:
        """Return both functions over one layout, and the type of their input.

        Returns:
            ``None`` if they cannot be compared.
        """
        dtype = numpy_type(pair.start)
        if pair.one.dtype != pair.other.dtype or dtype is None or dtype.kind != "f":
            return None
        ends = ((self.a, pair.start, pair.one), (self.b, pair.source, pair.other))
        layout = layout_of(ends)
        if layout is None:
            return None
        f, g = (ScalarFunction(*end, layout) for end in ends)
        return f, g, dtype

    def _pair_up(self, node: Node) -> bool:
        """Suppose that a node is the likeliest node of the first model; compare its inputs.

        Returns:
            Whether there is one; the node's inputs then have the numbers of that node's.
        """
        if self._deadline.passed():
            self._note_late(node.outputs[0])
            return False
        signature = self.b.signature(node)
        orders: list[Sequence[Value | None]] = [node.inputs]
        if operators.is_commutative(node) and len(node.inputs) == 2:
            orders.append(node.inputs[::-1])
        partners = [] if signature is None else self._nodes.get(signature, [])
        scores = [
            (score, partner, inputs)
            for partner in partners
            for inputs in orders
            if (score := self._likeness(partner, node, inputs)) is not None
        ]
        if not scores:
            return False
        _, partner, inputs = max(scores, key=lambda found: found[0])
        self.findings.taken.add(partner)
        for one, other in zip(partner.inputs, inputs, strict=True):
            if one is not None and other is not None:
                self._settle(one, other)
        return True

    def _likeness(
        self, partner: Node, node: Node, inputs: Sequence[Value | None]
    ) -> int | None:
        """Return how much two nodes are alike; ``None`` if they cannot be the same."""
        if len(partner.inputs) != len(inputs):
            return None
        score, related = 0, False
        for one, other in zip(partner.inputs, inputs, strict=True):
            if self.a.number(one) == self.b.number(other):
                score += 4
                related |= other not in self.b.constants
                continue
            if one is None or other is None:
                return None
            if not self._have_same_form(one, other):
                if self._common(one, other) is None:
                    return None
                related = True
            score += 2
        score += 2 * (partner not in self.findings.taken) + (partner.name == node.name)
        return score if related else None

    def _have_same_form(self, one: Value, other: Value) -> bool:
        first, second = self.a.constants.get(one), self.b.constants.get(other)
        if first is None or second is None:
            return False
        return first.shape == second.shape and first.dtype == second.dtype

    def _common(self, one: Value, other: Value) -> FunctionPair | None:
        """Return two values as functions of the nearest equal values, if they are."""
        if one in self.a.constants or other in self.b.constants:
            return None
        starts = {self.a.number(v): v for v in reversed((one, *self.a.chain(one)))}
        for source in (other, *self.b.chain(other)):
            start = starts.get(self.b.number(source))
            if start is not None:
                pair = FunctionPair(one, start, other, source)
                if self.functions(pair) is not None:
                    return pair
        return None

    def _settle(self, one: Value, other: Value) -> None:
        """Compare two values that should be equal, and go on as if they were."""
        if self.a.number(one) == self.b.number(other):
            return
        if one in self.a.constants:
            self._report_constants(one, other)
            self.findings.supposed.add(other)
        else:
            self._report_functions(one, other)
        self.b.set_number(other, self.a.number(one))

    def _report_constants(self, one: Value, other: Value) -> None:
        """Report two constants that differ: the stored ones, as far as they are computed."""
        cause: tuple[Value, Value] | None = (one, other)
        while cause is not None:
            one, other = cause
            cause = self._differing_constants(one.producer(), other.producer())
        first, second = self.a.constants[one], self.b.constants[other]
        self.findings.refute_constants(one, first, other, second)

    def _differing_constants(
        self, partner: Node | None, node: Node | None
    ) -> tuple[Value, Value] | None:
        """Return the constants in which alone two nodes of one signature differ."""
        if partner is None or node is None or len(partner.inputs) != len(node.inputs):
            return None
        signature = self.a.signature(partner)
        if signature is None or signature != self.b.signature(node):
            return None
        found = [
            (one, other)
            for one, other in zip(partner.inputs, node.inputs, strict=True)
            if one is not None
            and other is not None
            and self.a.number(one) != self.b.number(other)
        ]
        return found[0] if len(found) == 1 and self._have_same_form(*found[0]) else None

    def _report_functions(self, one: Value, other: Value) -> None:
        pair = self._common(one, other)
        compared = None if pair is None else self.functions(pair)
        if pair is None or compared is None:
            # They had a common start before another input of the node was settled.
            self.findings.supposed.add(other)
            self.findings.unmatched.append(f"'{other.name}' has no counterpart")
            return
        outcome = compare_functions(*compared, self._deadline)
        self._outcomes[pair] = outcome
        if outcome.late:
            self._note_late(other)
        if outcome.equal:
            self._note_equal(pair)
            return
        self.findings.supposed.add(other)
        if self._blame_constant(pair):
            return
        self.findings.record(one, other, compared[0].channels, outcome)
        found = outcome.difference
        if found is None:
            self.findings.unmatched.append(f"'{other.name}': {outcome.doubt}")
        else:
            self.findings.refute(one, found.input, found.value_a, found.value_b)

    def _blame_constant(self, pair: FunctionPair) -> bool:
        """Report a constant of an operator before the quantizer, if that is what differs."""
        for node in self.b.nodes_between(pair.source, pair.other):
            if self._is_known(node.outputs[0]) or is_coarse(node):
                continue
            for partner in self._nodes.get(self.b.signature(node) or (), ()):
                cause = self._differing_constants(partner, node)
                if cause is not None:
                    self._report_constants(*cause)
                    return True
        return False

    def _compare_outputs(self, one: Value, other: Value) -> None:
        if self.a.number(one) == self.b.number(other):
            return
        if self._have_same_form(one, other) or self._common(one, other) is not None:
            self._settle(one, other)
            return
        self.findings.supposed.add(other)
        reasons = list(dict.fromkeys(self._strangers(other)))
        self.findings.unmatched.extend(
            reason for reason in reasons if reason not in self.findings.unmatched
        )
        if not reasons:
            self.findings.unmatched.append(
                f"output '{other.name}' equals another value of the first model than "
                f"'{one.name}'"
            )

    def _strangers(self, output: Value) -> Iterator[str]:
        """Yield the first nodes on the way to an output that the first model does not have."""
        waiting, seen = [output], {output}
        while waiting:
            value = waiting.pop()
            node = value.producer()
            if self._is_known(value) or node is None:
                continue
            unknown = [v for v in read_values(node) if not self._is_known(v)]
            if not unknown:
                yield f"{label(node)} has no counterpart"
            waiting.extend(v for v in unknown if v not in seen)
            seen.update(unknown)


def _ancestors(model: Model) -> set[Value]:
    """Return the values on which some output of the model depends."""
    found: set[Value] = set()
    waiting = list(model.graph.outputs)
    while waiting:
        value = waiting.pop()
        if value in found:
            continue
        found.add(value)
        node = value.producer()
        if node is not None:
            waiting.extend(read_values(node))
    return found
