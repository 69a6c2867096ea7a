"""Which value of one model equals which value of another, found while walking both once.

Where two functions or weights differ, that is noted, and what follows is compared as if they
did not: one difference does not hide the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub.equivalence.proof.canonical_forms import (
    expression_number,
    is_transparent,
    leaves_nan_out,
)
from qonnx_hub.equivalence.proof.certificate import Counterexample, QuantizerProof
from qonnx_hub.equivalence.proof.intervals import is_coarse
from qonnx_hub.equivalence.proof.scalar_equality import (
    Outcome,
    compare_functions,
    difference_on_probes,
)
from qonnx_hub.equivalence.proof.scalar_functions import Region, Side, layout_of
from qonnx_hub.equivalence.proof.step_functions import differs
from qonnx_hub.equivalence.proof.value_numbering import (
    NumberedSide,
    Numbering,
    Signature,
    since_version,
)
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.verify import label

_SOURCES_TRIED = 3
"""Starting points of a function that are tried, from the nearest on."""

_FLOATS = frozenset({"float16", "float32", "float64"})


def paired(a: Sequence[Value], b: Sequence[Value]) -> list[tuple[Value, Value]]:
    """Return pairs of inputs or outputs: by name, or else by position."""
    named = {str(value.name): value for value in b}
    if {str(value.name) for value in a} == set(named):
        return [(value, named[str(value.name)]) for value in a]
    return list(zip(a, b, strict=True))


@dataclass(slots=True)
class Findings:
    """What a walk over both models has brought to light so far.

    Attributes:
        proofs: Quantizers compared, by their outputs in both models.
        unmatched: What has no counterpart or could not be decided.
        counterexample: The first difference.
        reworded: Operators of two opset versions that were taken for the same.
        respelled: Operators that were taken for others: "Gemm as MatMul".
        supposed: Values of the second model that are only supposed to have a counterpart.
        taken: Nodes of the first model that have one.
        margins: Whether an enclosure rests on the accuracy of a logarithm.
    """

    proofs: dict[tuple[Value, Value], QuantizerProof] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)
    counterexample: Counterexample | None = None
    reworded: set[str] = field(default_factory=set)
    respelled: set[str] = field(default_factory=set)
    supposed: set[Value] = field(default_factory=set)
    taken: set[Node] = field(default_factory=set)
    margins: bool = False


@dataclass(frozen=True, slots=True)
class Function:
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


class Alignment:
    """Two models whose values have numbers, equal ones where they are equal.

    Attributes:
        a: The first model, from the first walk on.
        b: The second model, likewise.
        findings: What the last walk found.
    """

    def __init__(self, a: Side, b: Side) -> None:
        """Start with nothing known.

        Args:
            a: The first model.
            b: The second model, with as many inputs and outputs.
        """
        # What a walk finds starts afresh with each; comparisons are kept.
        self._sides = a, b
        self._outcomes: dict[Function, Outcome | None] = {}
        self._merges: dict[Value, Value] = {}
        self._needed = _ancestors(b.model)

    def _begin(self) -> None:
        numbering = Numbering()
        self.a, self.b = (NumberedSide(side, numbering) for side in self._sides)
        self.findings = Findings()
        self._holders: dict[int, list[Value]] = {}
        self._functions: dict[int, list[tuple[Value, Value]]] = {}
        self._nodes: dict[Signature, list[Node]] = {}
        models = [side.model.graph.inputs for side in self._sides]
        for position, (one, other) in enumerate(paired(*models)):
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
            if value not in self.a.side.constants:
                self._holders.setdefault(self.a.number(value), []).append(value)
        signature = self.a.signature(node)
        if signature is not None:
            self._nodes.setdefault(signature, []).append(node)
        for source in self.a.side.chain(out):
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
            if any(value in self.findings.supposed for value in node.inputs):
                self.findings.supposed.update(node.outputs)
        for one, other in paired(*(side.model.graph.outputs for side in self._sides)):
            self._compare_outputs(one, other)
        self._note_weights()
        return len(self._merges) > known

    def count_matched(self) -> int:
        """Return how many values of the second model equal one of the first."""
        return sum(
            value in self._needed
            and value not in self.b.side.constants
            and value not in self.findings.supposed
            and self._is_known(value)
            for node in self.b.nodes()
            for value in node.outputs
        )

    def _is_known(self, value: Value | None) -> bool:
        """Return whether the first model holds the value too, as far as is supposed."""
        if value is None or value in self.b.side.constants:
            return True
        return self.b.number(value) in self._holders

    def _find_number(self, node: Node) -> int:
        first = expression_number(self.b, node)
        if first in self._holders:
            self._note_same(node, first)
            return first
        if self.b.side.chain(node.outputs[0]):
            return self._equal_function(node.outputs[0]) or first
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
            channels = _channels(partner, self.a.side)
            self._record(one, other, channels, Outcome(nan_equal=nan_equal))

    def _is_fixed(self, value: Value | None) -> bool:
        return value is not None and value in self.b.side.constants

    def _note_weights(self) -> None:
        """Record the quantizers of the first model whose results the second one stores."""
        stored = {self.b.number(value): value for value in self.b.side.constants}
        for node in self.a.side.model.graph:
            one = node.outputs[0]
            if not dialect.is_quantizer(node) or one not in self.a.side.constants:
                continue
            other = stored.get(self.a.number(one))
            if other is not None and other not in self.findings.supposed:
                channels = _channels(node, self.a.side)
                self._record(one, other, channels, Outcome())

    def _record(self, one: Value, other: Value, channels: int, outcome: Outcome) -> None:
        proof = QuantizerProof(
            _node_name(one),
            _node_name(other),
            channels,
            equal=outcome.equal,
            thresholds=outcome.thresholds,
            counterexample=outcome.difference,
            nan_equal=outcome.nan_equal,
        )
        self.findings.proofs.setdefault((one, other), proof)

    def _equal_function(self, target: Value) -> int | None:
        """Return the number of a value of the first model that is the same function.

        The functions start at values that are equal in both models and quantize.
        """
        known = [source for source in self.b.side.chain(target) if self._is_known(source)]
        for source in known[:_SOURCES_TRIED]:
            equal: list[Value] = []
            for one, start in self._functions.get(self.b.number(source), ()):
                function = Function(one, start, target, source)
                if self._is_equal(function):
                    self._note_equal(function)
                    equal.append(one)
            if equal:
                self._merge(equal)
                return self.a.number(equal[0])
        return None

    def _merge(self, equal: Sequence[Value]) -> None:
        """Remember that values of the first model equal each other."""
        for later in equal[1:]:
            if self.a.number(later) != self.a.number(equal[0]):
                self._merges[later] = equal[0]

    def _is_equal(self, function: Function) -> bool:
        """Return whether both functions quantize and are proven equal."""
        if function not in self._outcomes:
            self._outcomes[function] = None
            regions = self._regions(function)
            dtype = float_type(function.start)
            if (
                regions is not None
                and dtype is not None
                and all(region.is_coarse() for region in regions)
                and difference_on_probes(*regions, dtype) is None
            ):
                self._outcomes[function] = compare_functions(*regions, dtype)
        outcome = self._outcomes[function]
        return outcome is not None and outcome.equal

    def _note_equal(self, function: Function) -> None:
        regions, outcome = self._regions(function), self._outcomes[function]
        assert regions is not None
        assert outcome is not None
        self.findings.margins |= any(region.uses("Log") for region in regions)
        self._record(function.one, function.other, regions[0].channels, outcome)
        producer = function.one.producer()
        if producer is not None:
            self.findings.taken.add(producer)

    def _regions(self, function: Function) -> tuple[Region, Region] | None:
        """Return both functions over one layout; ``None`` if they cannot be compared."""
        one, start, other, source = (
            function.one,
            function.start,
            function.other,
            function.source,
        )
        if one.dtype != other.dtype or float_type(start) is None:
            return None
        a, b = self._sides
        layout = layout_of([(a, start, one), (b, source, other)])
        if layout is None:
            return None
        return Region(a, start, one, layout), Region(b, source, other, layout)

    def _pair_up(self, node: Node) -> bool:
        """Suppose that a node is the likeliest node of the first model; compare its inputs.

        Returns:
            Whether there is one; the node's inputs then have the numbers of that node's.
        """
        signature = self.b.signature(node)
        best: tuple[int, Node, Sequence[Value | None]] | None = None
        for partner in self._nodes.get(signature, ()) if signature is not None else ():
            for inputs in _orders(node):
                score = self._likeness(partner, node, inputs)
                if score is not None and (best is None or score > best[0]):
                    best = (score, partner, inputs)
        if best is None:
            return False
        _, partner, inputs = best
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
                related |= not self._is_fixed(other)
                continue
            if one is None or other is None:
                return None
            if self._have_same_form(one, other):
                score += 2
            elif self._common(one, other) is not None:
                score += 2
                related = True
            else:
                return None
        score += 2 * (partner not in self.findings.taken) + (partner.name == node.name)
        return score if related else None

    def _have_same_form(self, one: Value, other: Value) -> bool:
        first, second = self.a.side.constants.get(one), self.b.side.constants.get(other)
        if first is None or second is None:
            return False
        return first.shape == second.shape and first.dtype == second.dtype

    def _common(self, one: Value, other: Value) -> Function | None:
        """Return two values as functions of the nearest equal values, if they are."""
        if one in self.a.side.constants or other in self.b.side.constants:
            return None
        starts = {self.a.number(v): v for v in reversed((one, *self.a.side.chain(one)))}
        for source in (other, *self.b.side.chain(other)):
            start = starts.get(self.b.number(source))
            if start is not None:
                function = Function(one, start, other, source)
                if self._regions(function) is not None:
                    return function
        return None

    def _settle(self, one: Value, other: Value) -> None:
        """Compare two values that should be equal, and go on as if they were."""
        if self.a.number(one) == self.b.number(other):
            return
        if one in self.a.side.constants:
            self._report_constants(*self._stored_difference(one, other))
            self.findings.supposed.add(other)
        else:
            self._report_functions(one, other)
        self.b.set_number(other, self.a.number(one))

    def _stored_difference(self, one: Value, other: Value) -> tuple[Value, Value]:
        """Return the constants that make two computed constants differ, as far as they go."""
        while True:
            found = self._differing_inputs(one.producer(), other.producer())
            if len(found) != 1 or not self._have_same_form(*found[0]):
                return one, other
            one, other = found[0]

    def _differing_inputs(
        self, partner: Node | None, node: Node | None
    ) -> list[tuple[Value, Value]]:
        """Return the inputs in which two nodes of one signature differ."""
        if partner is None or node is None or len(partner.inputs) != len(node.inputs):
            return []
        signature = self.a.signature(partner)
        if signature is None or signature != self.b.signature(node):
            return []
        return [
            (one, other)
            for one, other in zip(partner.inputs, node.inputs, strict=True)
            if one is not None
            and other is not None
            and self.a.number(one) != self.b.number(other)
        ]

    def _report_constants(self, one: Value, other: Value) -> None:
        first, second = self.a.side.constants[one], self.b.side.constants[other]
        index = np.unravel_index(int(np.argmax(differs(first, second))), first.shape)
        place = [int(i) for i in index]
        self.findings.unmatched.append(
            f"constant '{other.name}' is {second[index]} at {place}, "
            f"'{one.name}' is {first[index]}"
        )
        if first.dtype.kind in "fiub" and self.findings.counterexample is None:
            self.findings.counterexample = Counterexample(
                _layer(one), None, None, float(first[index]), float(second[index])
            )

    def _report_functions(self, one: Value, other: Value) -> None:
        function = self._common(one, other)
        assert function is not None
        regions, dtype = self._regions(function), float_type(function.start)
        assert regions is not None
        assert dtype is not None
        outcome = compare_functions(*regions, dtype)
        self._outcomes[function] = outcome
        if outcome.equal:
            self._note_equal(function)
            return
        self.findings.supposed.add(other)
        if self._blame_constant(function):
            return
        self._record(one, other, regions[0].channels, outcome)
        found = outcome.difference
        if found is None:
            self.findings.unmatched.append(f"'{other.name}': {outcome.doubt}")
        elif self.findings.counterexample is None:
            self.findings.counterexample = Counterexample(
                _layer(one), None, found.input, found.value_a, found.value_b
            )

    def _blame_constant(self, function: Function) -> bool:
        """Report a constant of an operator before the quantizer, if that is what differs."""
        b = self.b.side
        for node in b.nodes_between(function.source, function.other):
            if self._is_known(node.outputs[0]) or is_coarse(node):
                continue
            for partner in self._nodes.get(self.b.signature(node) or (), ()):
                found = self._differing_inputs(partner, node)
                if len(found) == 1 and self._have_same_form(*found[0]):
                    self._report_constants(*found[0])
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
                f"output '{other.name}' is something else of the first model than '{one.name}'"
            )

    def _strangers(self, output: Value) -> Iterator[str]:
        """Yield the first nodes on the way to an output that the first model does not have."""
        waiting, seen = [output], {output}
        while waiting:
            value = waiting.pop()
            node = value.producer()
            if self._is_known(value) or node is None:
                continue
            unknown = [v for v in node.inputs if v is not None and not self._is_known(v)]
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
            waiting.extend(v for v in node.inputs if v is not None)
    return found


def _orders(node: Node) -> Iterator[Sequence[Value | None]]:
    yield node.inputs
    if operators.is_commutative(node) and len(node.inputs) == 2:
        yield tuple(reversed(node.inputs))


def float_type(value: Value) -> np.dtype[np.generic] | None:
    """Return the numpy type of a value, if its floats can be enumerated."""
    if value.dtype is None:
        return None
    dtype = np.dtype(value.dtype.numpy())
    return dtype if dtype.name in _FLOATS else None


def _channels(node: Node, side: Side) -> int:
    """Return the most values that a parameter of a quantizer has."""
    parameters = (side.constants.get(value) for value in node.inputs[1:] if value is not None)
    return max((array.size for array in parameters if array is not None), default=1)


def _node_name(value: Value) -> str:
    node = value.producer()
    return str(value.name) if node is None else node.name or str(value.name)


def _layer(value: Value) -> str:
    return value.metadata_props.get(dialect.PROVENANCE) or _node_name(value)
