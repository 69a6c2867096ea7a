"""A few inputs that show a difference, with what both sides make of them, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Value

from qonnx_hub.equivalence.comparison.compare import aligned
from qonnx_hub.equivalence.comparison.matching import Pair
from qonnx_hub.equivalence.graph_slices import (
    CUT,
    cut_at,
    elements_per_sample,
)
from qonnx_hub.equivalence.inputs.batches import Batch, Feeds, file_batch
from qonnx_hub.equivalence.runners.sides import Runner, renamed
from qonnx_hub.executor.session import Session
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import HubError
from qonnx_hub_ir.facts import facts_of, fixed_batch
from qonnx_hub_ir.quantizers import Array

_MOST_ROWS = 16
_MOST_UNITS = 6
_FEW_ELEMENTS = 1 << 18

Edit = Callable[[Model], None]


@dataclass(frozen=True, slots=True)
class Unit:
    """Inputs that are run at once, and what they become.

    Attributes:
        feeds: Inputs by the names of the reference.
        there: Inputs by the names of the other side.
        a: Values of the reference, by its names.
        b: Values of the other side, by its names, in its own layout.
        given: Values of the reference, by the other side's names and in its layout.
    """

    feeds: Feeds
    there: Feeds
    a: Mapping[str, Array]
    b: Mapping[str, Array]
    given: Mapping[str, Array]


class Side:
    """A graph that can be run in pieces, from values that are known to values that are not."""

    def __init__(
        self,
        model: Model,
        runner: Runner | None = None,
        shown: Mapping[str, Array] | None = None,
    ) -> None:
        """Look at the graph once.

        Args:
            model: The graph.
            runner: Runs pieces of it; the executor by default.
            shown: Values that it has shown; those that depend on no input are not computed
                again.
        """
        self.model = model
        self.values: Mapping[str, Value] = facts_of(model).values
        self.moving = facts_of(model).dynamic
        self._runner = runner
        self._constants: dict[str, Array] = {}
        self._shown = {} if shown is None else shown

    def run(
        self,
        wanted: Sequence[str],
        known: Mapping[str, Array],
        feeds: Feeds,
        edit: Edit | None = None,
    ) -> dict[str, Array] | None:
        """Return values computed from known ones, or ``None`` where that does not run.

        Args:
            wanted: Names of values; the known ones among them are computed all the same.
            known: Value name -> what its readers are given instead.
            feeds: The graph's own inputs.
            edit: Changes the graph before it is run.
        """
        given = [name for name in known if name in self.moving]
        stored = {
            name: array
            for name, array in known.items()
            if name in self.values and name not in self.moving and not self._holds(name, array)
        }
        graph = cut_at(self.model, given, wanted, stored)
        try:
            if edit is not None:
                edit(graph)
            needed = [str(v.name) for v in graph.graph.inputs]
            entries = {name: _given(name, known, feeds) for name in needed}
            if self._runner is not None:
                return self._runner.run_graph(graph, entries)
            return Session(graph).run(entries)
        except (HubError, ValueError):
            # An edit need not make sense: a graph that does not run is no evidence.
            return None

    def _holds(self, name: str, array: Array) -> bool:
        """Return whether a stored value is that array: then it stays, with its layout."""
        own = self.constant(self.values[name])
        return own is not None and own.shape == array.shape and np.array_equal(own, array)

    def constant(self, value: Value | None) -> Array | None:
        """Return what a value is for all inputs, or ``None`` where it depends on them."""
        known = dialect.constant_value(value)
        if value is None or known is not None:
            return known
        name = str(value.name)
        if name in self.moving or value.is_graph_input() or name not in self.values:
            return None
        if name in self._shown:
            return self._shown[name]
        if not self._constants:
            # All at once: cutting the graph takes as long for one as for all.
            names = [n for n in self.values if n not in self.moving]
            self._constants.update(self.run(names, {}, {}) or {})
        if name not in self._constants:
            found = self.run([name], {}, {})
            if found is None:
                return None
            self._constants[name] = found[name]
        return self._constants[name]


def _given(name: str, known: Mapping[str, Array], feeds: Feeds) -> Array:
    return known[name[: -len(CUT)]] if name.endswith(CUT) else feeds[name]


def gather_units(
    a: Runner, b: Runner, pairs: Sequence[Pair], failing: Pair, batch: Batch
) -> list[Unit]:
    """Return units of a batch, first of all those in which a pair differs.

    Args:
        a: The reference side; its model must be known.
        b: The other side.
        pairs: All pairs whose values are wanted.
        failing: The pair.
        batch: A batch in which it differs.
    """
    fixed = max(file_batch(a.model), file_batch(b.model))
    is_open = fixed == 1 and not (_is_fixed(a.model) or _is_fixed(b.model))
    groups = _failing_first(a, b, failing, batch, fixed)
    if a.is_record or b.is_record:
        return [_make_unit(a, b, pairs, batch)]
    if is_open:
        chosen = [groups[:_MOST_ROWS]]
    else:
        chosen = [list(range(g * fixed, (g + 1) * fixed)) for g in groups[:_MOST_UNITS]]
    parts = [_rows(batch.feeds, sorted(rows)) for rows in chosen]
    return [_make_unit(a, b, pairs, Batch(0, 0, feeds)) for feeds in parts]


def gather_first_unit(a: Runner, b: Runner, pairs: Sequence[Pair], batch: Batch) -> Unit:
    """Return the first few samples of a batch, with what both sides make of them."""
    fixed = max(file_batch(a.model), file_batch(b.model))
    is_open = fixed == 1 and not (_is_fixed(a.model) or _is_fixed(b.model))
    rows = fixed
    if is_open and a.model is not None:
        rows = int(np.clip(_FEW_ELEMENTS // elements_per_sample(a.model), 4, 64))
    count = min(rows, batch.samples)
    return _make_unit(a, b, pairs, Batch(0, 0, _rows(batch.feeds, list(range(count)))))


def _is_fixed(model: Model | None) -> bool:
    return model is not None and fixed_batch(model) is not None


def _rows(feeds: Feeds, rows: list[int]) -> dict[str, Array]:
    return {name: x[rows] if x.ndim else x for name, x in feeds.items()}


def _failing_first(a: Runner, b: Runner, pair: Pair, batch: Batch, unit: int) -> list[int]:
    """Return the groups of ``unit`` samples, those that show the difference first."""
    count = max(batch.samples // unit, 1)
    x = a.answer(batch, [pair.a])[pair.a]
    there = Batch(batch.index, batch.start, renamed(batch.feeds, b))
    y = aligned(x, b.answer(there, [pair.b])[pair.b])
    if y is None or x.ndim == 0 or len(x) != batch.samples:
        return list(range(count))
    differs = ~((x == y) | ((x != x) & (y != y)))
    rows = differs.reshape(len(x), -1).any(axis=1)
    groups = rows[: count * unit].reshape(count, unit).any(axis=1)
    failing, others = np.flatnonzero(groups).tolist(), np.flatnonzero(~groups).tolist()
    room = _MOST_ROWS - 4
    return [*failing[:room], *others[:4], *failing[room:], *others[4:]]


def _make_unit(a: Runner, b: Runner, pairs: Sequence[Pair], batch: Batch) -> Unit:
    feeds, there = batch.feeds, renamed(batch.feeds, b)
    turned_batch = Batch(batch.index, batch.start, there)
    here = a.answer(batch, list(dict.fromkeys(p.a for p in pairs)))
    other = b.answer(turned_batch, list(dict.fromkeys(p.b for p in pairs)))
    given: dict[str, Array] = {}
    for pair in pairs:
        x, y = here.get(pair.a), other.get(pair.b)
        if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
            turned = aligned(y, x)
            if turned is not None:
                given[pair.b] = turned.astype(y.dtype, copy=False)
    return Unit(feeds, there, here, other, given)


def isolate(side: Side, pairs: Sequence[Pair], unit: Unit) -> dict[str, Array] | None:
    """Return what each layer of the other side makes of the reference's values.

    Args:
        side: The other side.
        pairs: All pairs.
        unit: Some inputs.

    Returns:
        Tensor of the other side -> its value; ``None`` where the side runs no pieces.
    """
    wanted = list(dict.fromkeys(p.b for p in pairs if p.b in side.values))
    return side.run(wanted, unit.given, unit.there)


def known_without(values: Mapping[str, Array], names: Collection[str]) -> dict[str, Array]:
    """Return the values but those of some names."""
    return {name: value for name, value in values.items() if name not in names}
