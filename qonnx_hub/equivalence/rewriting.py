"""In how many places two graphs are written otherwise, and whether rounding alone does it.

A number that was folded leaves one place and comes to another, and changes both by more than
a rounding. One place alone, a number that is off by its last digits, or one that a side has
and nothing of the other took up, is a fault.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx_ir import Node

from qonnx_hub.analysis.diff import Change, WeightChange
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.quantizers import Array

ROUNDED = 2.0**-12
"""Share of its own size that a number may be off which was rounded anew, many times over."""

_NEUTRAL = np.array([-1.0, 0.0, 1.0], dtype=np.float64)
"""Numbers that do nothing as factors or offsets, and need come from nowhere."""

_LEAST = 2
"""Places in which a graph has to be written otherwise to be another form of the same."""


@dataclass(frozen=True, slots=True)
class Rewriting:
    """What differs between two graphs and is not explained by what their layers make.

    Attributes:
        places: Nodes and weights that differ from their counterpart, or have none.
        strangers: Nodes among them that compute and have no counterpart.
        moved: Whether all numbers among them differ by more than a rounding, and none came
            from nowhere.
    """

    places: int = 0
    strangers: int = 0
    moved: bool = True

    @property
    def may_be_equal(self) -> bool:
        """Whether the graphs may be two forms of one function, each rounded in its own way."""
        return self.places >= _LEAST and self.moved


def find_rewriting(
    changes: Sequence[Change],
    weights: Sequence[WeightChange],
    named: tuple[Mapping[str, Node], Mapping[str, Node]],
    stored: tuple[Mapping[str, Array], Mapping[str, Array]],
    explained: Collection[Node],
) -> Rewriting:
    """Return in how many places two graphs are written otherwise.

    Args:
        changes: All changes of nodes.
        weights: The changes of weights that nothing explains.
        named: Label -> node, of either graph.
        stored: Name of a value -> what it is for all inputs, of either graph.
        explained: Nodes of layers that are right by what their parameters make together.
    """
    apart: dict[tuple[str, str], bool] = {}
    for change in changes:
        nodes = named[0].get(change.a), named[1].get(change.b)
        if change.kind != "wiring" and not any(node in explained for node in nodes):
            is_gone = change.kind in {"missing", "added"}
            apart[change.a, change.b] = apart.get((change.a, change.b), False) or is_gone
    first = stored[0]
    rounded = [
        one
        for one in weights
        if one.name in first and one.largest <= ROUNDED * np.abs(first[one.name]).max()
    ]
    pairs = [(named[0].get(a), named[1].get(b)) for a, b in apart]
    moved = not rounded and not any(_is_rounded(*pair) for pair in pairs)
    strangers = [one for one, is_gone in zip(pairs, apart.values(), strict=True) if is_gone]
    moved = moved and _is_taken_up(stored, strangers)
    computing = [
        one
        for one in strangers
        if not all(node is None or operators.moves_values(node) for node in one)
    ]
    return Rewriting(len(apart) + len(weights), len(computing), moved)


def _is_taken_up(
    stored: tuple[Mapping[str, Array], Mapping[str, Array]],
    strangers: Sequence[tuple[Node | None, Node | None]],
) -> bool:
    """Return whether numbers that one side lacks may be in others, or in what an operator is.

    Both sides hold numbers of their own, or neither does; else the side that has none holds a
    function that the other one spells out.
    """
    floats = [[x.ravel() for x in side.values() if x.dtype.kind == "f"] for side in stored]
    first, second = (np.unique(np.concatenate([_NEUTRAL, *arrays])) for arrays in floats)
    own = [bool(np.setdiff1d(x, y).size) for x, y in ((first, second), (second, first))]
    if own[0] == own[1]:
        return True
    poorer = own.index(False)
    return any(_is_function(pair[poorer]) for pair in strangers)


def _is_function(node: Node | None) -> bool:
    if node is None or dialect.is_quantizer(node) or operators.is_qdq(node):
        return False
    is_linear = operators.is_affine(node) or operators.is_product(node)
    return not (is_linear or operators.moves_values(node) or operators.clamps(node))


def _is_rounded(one: Node | None, other: Node | None) -> bool:
    """Return whether scales of two quantizers differ, by no more than a rounding."""
    if one is None or other is None:
        return False
    if not (dialect.is_quantizer(one) and dialect.is_quantizer(other)):
        return False
    scales = [dialect.read_quantizer(node).scale for node in (one, other)]
    first, second = (None if s is None else np.asarray(s, np.float64) for s in scales)
    if first is None or second is None or np.array_equal(first, second):
        return False
    if first.size != second.size and 1 not in {first.size, second.size}:
        return False
    apart = np.abs(first.reshape(-1) - second.reshape(-1))
    return bool(np.all(apart <= ROUNDED * np.abs(first.reshape(-1))))
