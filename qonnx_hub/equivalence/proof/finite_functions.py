"""Functions of one or two numbers that can be listed: they are compared on all of them.

What one model looks up in a table of two codes, the other one computes with floats: a sum, a
product. Both are functions of quantized values, of which 8 bits leave 256 each, so that every
pair of them can be run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from onnx_ir import Node, Value

from qonnx_hub.equivalence.proof.proof_model import ProofModel, is_single
from qonnx_hub.equivalence.proof.step_functions import differs
from qonnx_hub_ir.analysis.rule_context import numpy_type
from qonnx_hub_ir.analysis.value_sets import ValueSets
from qonnx_hub_ir.graph.queries import dims
from qonnx_hub_ir.quantizers import Array

MOST_POINTS = 1 << 16
"""Combinations of values that are run: two values of 8 bits."""

_MOST_SOURCES = 2
_MOST_NODES = 64
"""Nodes of the first model that are looked at behind one pair of values."""

Points = Mapping[Value, Array]
"""Value -> what it is at each point, (n,)."""


class Lists:
    """What values of two models can be, as far as that can be listed."""

    def __init__(
        self, a: ProofModel, b: ProofModel, holders: Callable[[Value], Sequence[Value]]
    ) -> None:
        """Start with nothing known.

        Args:
            a: The first model.
            b: The second one.
            holders: Returns the values of the first model that equal one of the second.
        """
        self._a, self._b, self._holders = a, b, holders
        self._sets = ValueSets()
        self.forget()

    def forget(self) -> None:
        """Forget what followed from values that were found to be equal."""
        self._made: dict[Value, Array] = {}

    def find_equal(self, target: Value) -> tuple[Value, bool] | None:
        """Return a value of the first model that is the same function of listed values.

        Args:
            target: A value of the second model.

        Returns:
            The value, and whether it is the same where a NaN comes along as well.
        """
        sources = _listed_sources(self._b, target, lambda v: self._of(v) is not None)
        values = [array for v in sources if (array := self._of(v)) is not None]
        points = _all_points(sources, values) if sources else None
        made = None if points is None else _made_of(self._b, target, points)
        if points is None or made is None:
            return None
        starts = {one: row for v, row in points.items() for one in self._holders(v)}
        has_nan = np.logical_or.reduce([values != values for values in points.values()])
        for one, row in _behind(self._a, starts):
            apart = differs(row, made)
            if one.dtype == target.dtype and not np.any(apart & ~has_nan):
                self._made[one] = np.unique(made)
                return one, not bool(np.any(apart & has_nan))
        return None

    def _of(self, value: Value) -> Array | None:
        """Return all that a value of the second model can be, NaN last where it can be one."""
        one = next(iter(self._holders(value)), None)
        if one is None or one in self._made:
            return None if one is None else self._made[one]
        dtype = numpy_type(one)
        if dtype is not None and dtype.kind in "iu" and dtype.itemsize == 1:
            ends = np.iinfo(dtype)
            return np.arange(ends.min, int(ends.max) + 1, dtype=np.int64).astype(dtype)
        found = self._sets.of(one)
        if found is None or found.values.size > MOST_POINTS or dtype != np.float32:
            return None
        values = np.unique(found.values).astype(np.float32)
        return np.append(values, np.float32(np.nan)) if found.keeps_nan else values


def _listed_sources(
    side: ProofModel, target: Value, is_listed: Callable[[Value], bool]
) -> tuple[Value, ...]:
    """Return the nearest one or two listed values of which a value is a pointwise function.

    Args:
        side: The model.
        target: The value.
        is_listed: Whether all that a value can be is known, in both models.

    Returns:
        Nothing where there are none.
    """
    front, count = [target], 0
    while open_ := [v for v in front if v is target or not is_listed(v)]:
        # The last one made comes first, so that whatever several read is met once.
        made = {v: n for v in open_ if (n := v.producer()) is not None}
        if len(made) < len(open_):
            return ()
        value, node = max(made.items(), key=lambda item: side.order(item[1]))
        count += 1
        if count > _MOST_NODES or not _is_plain(side, node):
            return ()
        rest = (v for v in front if v is not value)
        front = list(dict.fromkeys((*rest, *side.sources(node))))
    return tuple(front) if len(front) <= _MOST_SOURCES else ()


def _all_points(sources: Sequence[Value], values: Sequence[Array]) -> Points | None:
    """Return every combination of values; ``None`` where there are too many."""
    # A NaN comes along as one value more.
    if np.prod([len(v) - bool(v[-1] != v[-1]) for v in values]) > MOST_POINTS:
        return None
    grid = np.meshgrid(*values, indexing="ij")
    return {v: part.reshape(-1) for v, part in zip(sources, grid, strict=True)}


def _made_of(side: ProofModel, target: Value, points: Points) -> Array | None:
    """Return what a value is at each point; ``None`` where a table ends before that."""
    nodes: dict[Node, None] = {}
    waiting = [target]
    while waiting:
        value = waiting.pop()
        node = None if value in points or value in side.constants else value.producer()
        if node is not None and node not in nodes:
            nodes[node] = None
            waiting.extend(side.sources(node))
    return dict(_run(side, sorted(nodes, key=side.order), points)).get(target)


def _behind(side: ProofModel, points: Points) -> Iterator[tuple[Value, Array]]:
    """Yield the given values, and each pointwise function of them, with what it is there."""
    yield from points.items()
    reached: dict[Value, None] = dict.fromkeys(points)
    nodes: dict[Node, None] = {}
    waiting = {node for value in points for node in side.readers(value)}
    while waiting and len(nodes) < _MOST_NODES:
        node = min(waiting, key=side.order)
        waiting.discard(node)
        if node in nodes or not _is_plain(side, node):
            continue
        if all(source in reached for source in side.sources(node)):
            nodes[node] = None
            reached[node.outputs[0]] = None
            waiting.update(side.readers(node.outputs[0]))
    yield from _run(side, sorted(nodes, key=side.order), points)


def _is_plain(side: ProofModel, node: Node) -> bool:
    """Return whether a node treats every element by itself, and all alike."""
    constants = (
        (k, side.constants.get(v)) for k, v in enumerate(node.inputs) if v is not None
    )
    return side.is_pointwise(node) and all(
        held is None or is_single(node, k, held) for k, held in constants
    )


def _run(
    side: ProofModel, nodes: Sequence[Node], points: Points
) -> Iterator[tuple[Value, Array]]:
    # Data have their own rank: some operators look for an axis of channels.
    values: dict[int, Any] = {
        side.slot(v): array.reshape(-1, *(1,) * (len(dims(v) or (0,)) - 1))
        for v, array in points.items()
    }
    for node in nodes:
        step = side.step(node)
        if not all(side.slot(value) in values for value in side.sources(node)):
            continue
        fed = [values.get(slot, side.plan.initial[slot]) for slot in step.inputs]
        try:
            with np.errstate(all="ignore"):
                made = np.asarray(step.run(*fed))
        except IndexError:
            continue  # a table that is shorter than all that the code's type can say
        values[step.outputs[0]] = made
        yield node.outputs[0], made.reshape(-1)
