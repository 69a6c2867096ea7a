"""Lint rules as rows of a table, and the one walk that holds a model against them.

A row says where it looks, what must hold there, and three texts. A target is a tuple of rows;
one of them is about the operators that the others do not know, so that none passes unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub_adapters.lint.finding import LintFinding, Severity
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.queries import (
    array,
    is_constant,
    is_standard,
    is_weight,
    known,
    producer,
    rank_of,
    readers,
)
from qonnx_hub_ir.graph.subgraphs import every_node
from qonnx_hub_ir.quantizers import Array, IntQuant, Rounding

Place: TypeAlias = Any
"""A node, an input of the graph, or the model: whatever a scope gives."""

Answer: TypeAlias = bool | int | str | tuple[object, ...] | list[str]
"""Whether a rule applies: anything false for no. A number, a text or a tuple fills the ``{}``
of the rule's texts; every entry of a list is a finding of its own."""


def anywhere(_: Place) -> bool:
    """Return True: every place of a scope counts, or a rule applies wherever it looks."""
    return True


@dataclass(frozen=True, slots=True)
class LintScope:
    """Where a rule looks.

    Attributes:
        name: An operator, or words for several: "weight quantizers".
        places: Gives the places of a model in order.
        holds: Which of them the rule is about.
        is_unknown: Whether these are the operators that no other row of the target knows.
    """

    name: str
    places: Callable[[Model], Iterable[Place]]
    holds: Callable[[Place], bool] = anywhere
    is_unknown: bool = False


@dataclass(frozen=True, slots=True)
class LintRule:
    """One thing that a target refuses, computes wrongly, or that users should know.

    Attributes:
        severity: Which of them.
        scope: Where to look.
        applies: Whether it is so there, and what fills the texts.
        reason: What about the place; ``{}`` stands for what ``applies`` answers.
        effect: The target's own error text, or what comes out wrong; likewise.
        remedy: What to do; empty for the target's own remedy.
    """

    severity: Severity
    scope: LintScope
    applies: Callable[[Place], Answer]
    reason: str
    effect: str
    remedy: str = ""

    def findings(self, place: Place) -> Iterator[LintFinding]:
        """Yield what the rule finds at one place of its scope."""
        answer = self.applies(place) if self.scope.holds(place) else False
        for one in answer if isinstance(answer, list) else [answer] if answer else []:
            fills = one if isinstance(one, tuple) else (one,)
            texts = self.reason.format(*fills), self.effect.format(*fills), self.remedy
            yield LintFinding(self.severity, *_called(place), *texts)


@dataclass(frozen=True, slots=True)
class LintTarget:
    """A tool that models can be held against.

    Attributes:
        summary: What the tool is, in a few words.
        remedy: What to do where a rule does not say it.
        rules: About the model as IR; findings come in their order.
        file_rules: About the graph as it lies in the file, before any pass.
    """

    summary: str
    rules: tuple[LintRule, ...] = ()
    file_rules: tuple[LintRule, ...] = ()
    remedy: str = ""

    def __post_init__(self) -> None:
        """Refuse a table without a row for unknown operators; fill in the remedy.

        Raises:
            ValueError: There is no such row.
        """
        if not any(rule.scope.is_unknown for rule in (*self.rules, *self.file_rules)):
            raise ValueError(
                f"the lint rules of '{self.summary}' let unknown operators pass; add the row "
                "of unknown_operators()"
            )
        for name in ("rules", "file_rules"):
            rows = (
                row if row.remedy else replace(row, remedy=self.remedy)
                for row in getattr(self, name)
            )
            object.__setattr__(self, name, tuple(rows))


def find(rules: Sequence[LintRule], model: Model) -> list[LintFinding]:
    """Return what rules find; rows of the same places go over the graph together."""
    found: list[LintFinding] = []
    for places, group in groupby(rules, key=lambda rule: rule.scope.places):
        rows = tuple(group)
        for place in places(model):
            for row in rows:
                found.extend(row.findings(place))
    return found


def unknown_operators(
    knows: Callable[[Node], bool],
    places: Callable[[Model], Iterable[Node]] = every_node,
    *,
    severity: Severity = Severity.UNKNOWN,
    reason: str = "is not in the table of operators that the rules know",
    effect: str = "what the tool makes of it is not known",
    remedy: str = "try it at the tool, and compare its results",
) -> LintRule:
    """Return the row that reports what a target's table does not know.

    Args:
        knows: Whether the table covers a node: its domain and operator, and of a quantizer
            what it asks for.
        places: Gives the nodes to ask about; inner graphs and local functions by default.
        severity: How bad that is.
        reason: The row's texts.
        effect: Likewise.
        remedy: Likewise.
    """
    scope = LintScope("any other operator", places, lambda n: not knows(n), is_unknown=True)
    return LintRule(severity, scope, anywhere, reason, effect, remedy)


def main_nodes(model: Model) -> Iterable[Node]:
    """Return the nodes of the main graph."""
    return model.graph


def all_nodes(model: Model) -> Iterator[Node]:
    """Yield the nodes of the main graph and of inner graphs."""
    return model.graph.all_nodes()


def quantizer_nodes(model: Model) -> Iterator[Node]:
    """Yield the quantizers of the main graph and of inner graphs."""
    return (node for node in model.graph.all_nodes() if dialect.is_quantizer(node))


def operator(name: str, places: Callable[[Model], Iterable[Node]] = main_nodes) -> LintScope:
    """Return the scope of one operator, by its name in any domain."""
    return LintScope(name, places, lambda node: node.op_type == name)


def constants_of(node: Node) -> Any:
    """Return the quantizer of a node in a scope where all its parameters are constant."""
    return known(node)


def integer_quantizer(node: Node) -> IntQuant | None:
    """Return an integer quantizer whose parameters are all constant; other nodes are none."""
    quant = known(node) if dialect.is_quantizer(node) else None
    return quant if isinstance(quant, IntQuant) else None


def scale_of(node: Node) -> Array:
    """Return the scale of a quantizer whose parameters are constant; 1 for the others."""
    quant = known(node)
    return array(1 if quant is None else quant.scale)


def single_shape(scale: Array | None) -> tuple[object, ...]:
    """Return what fills the texts on a single scale that has axes; empty for any other."""
    return () if scale is None or scale.size != 1 or scale.ndim < 2 else (scale.shape,)


def other_rounding(node: Node, *modes: Rounding) -> str:
    """Return the rounding mode of an integer quantizer; empty if it is one of these."""
    quant = dialect.read_quantizer(node)
    if not isinstance(quant, IntQuant) or quant.rounding in modes:
        return ""
    return str(quant.rounding)


def follows(node: Node, op_type: str) -> bool:
    """Return whether a node's first input is made by such a standard operator."""
    before = producer(node.inputs[0])
    return before is not None and is_standard(before, op_type)


def has_several_widths(node: Node) -> bool:
    """Return whether an integer quantizer has several bit widths."""
    return bool(constants_of(node).bits.size > 1)


def is_one_signed_bit(node: Node) -> bool:
    """Return whether an integer quantizer is signed and of one bit: for QONNX -1 and +1."""
    quant = constants_of(node)
    return bool(quant.signed and (quant.bits == 1).all())


def high_rank(node: Node) -> int:
    """Return the rank of a node's first input if that is above 2, else 0."""
    rank = rank_of(node.inputs[0]) or 2
    return rank if rank > 2 else 0


def has_no_constant(node: Node) -> bool:
    """Return whether no input of a node is constant."""
    return not any(map(is_constant, node.inputs))


def reader_count(node: Node) -> int:
    """Return how often a node's output is read if that is more than once, else 0."""
    count = len(readers(node.outputs[0]))
    return count if count > 1 else 0


MODEL = LintScope("model", lambda model: (model,))
INPUTS = LintScope("input", lambda model: model.graph.inputs)
NODES = LintScope("any node", main_nodes)
QUANTIZERS = LintScope("quantizers", quantizer_nodes)
INTEGERS = LintScope(
    "integer quantizers of constants",
    quantizer_nodes,
    lambda node: integer_quantizer(node) is not None,
)
ACTIVATIONS = LintScope(
    "activation quantizers", quantizer_nodes, lambda node: not is_weight(node)
)
WEIGHTS = LintScope("weight quantizers", quantizer_nodes, is_weight)


def _called(place: Place) -> tuple[str, str]:
    """Return name and operator of a place, as findings call it."""
    if isinstance(place, Node):
        return str(place.name or place.outputs[0].name), place.op_type
    return (str(place.name), "input") if isinstance(place, Value) else ("", "model")


def inserts_numbers(node: Node) -> bool:
    """Return whether a node puts other numbers than 0 between or around the data."""
    inserted = operators.inserted_constant(node)
    return inserted is not None and bool(np.any(inserted))
