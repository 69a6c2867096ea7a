"""A few inputs that show a difference, with what both sides make of them, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub.equivalence.comparison.compare import aligned, differs, distances
from qonnx_hub.equivalence.comparison.matching import Pair, answer_pair
from qonnx_hub.equivalence.graph_slices import (
    cut_at,
    elements_per_sample,
    nodes_between,
    slice_feeds,
)
from qonnx_hub.equivalence.inputs.batches import (
    SampleBatch,
    file_batch,
    shares_first_axis,
    take_samples,
)
from qonnx_hub.equivalence.runners.sides import Runner, for_side
from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.protocol import Feeds
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import HubError
from qonnx_hub_ir.facts import facts_of, fixed_batch
from qonnx_hub_ir.graph.queries import producer
from qonnx_hub_ir.quantizers import Array

_MOST_ROWS = 16
_MOST_GROUPS = 6
_FEW_ELEMENTS = 1 << 18

Edit = Callable[[Model], None]


@dataclass(frozen=True, slots=True)
class SampleGroup:
    """Samples that are run at once, and what they become.

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


class SlicedGraph:
    """A graph that is run in slices, from values that are known to values that are not.

    Attributes:
        model: The graph.
        values: Its values by name.
        dynamic: Names of those that depend on its inputs.
    """

    def __init__(
        self,
        model: Model,
        runner: Runner | None = None,
        shown: Mapping[str, Array] | None = None,
    ) -> None:
        """Look at the graph once.

        Args:
            model: The graph.
            runner: Runs slices of it; the executor by default.
            shown: Values that it has shown; those that depend on no input are not computed
                again.
        """
        self.model = model
        self.values: Mapping[str, Value] = facts_of(model).values
        self.dynamic = facts_of(model).dynamic
        self._runner = runner
        self._constants: dict[str, Array] = {}
        self._shown = {} if shown is None else shown
        self._last: tuple[object, Model] | None = None
        self._between: dict[tuple[frozenset[str], str], tuple[Node, ...]] = {}

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
        stored = {}
        for name, array in known.items():
            if name in self.values and name not in self.dynamic:
                own = self.constant(self.values[name])
                # A stored value that is that array stays, with its layout in memory.
                if own is None or not np.array_equal(own, array):
                    stored[name] = array
        given = [name for name in known if name in self.dynamic]
        key = (tuple(wanted), tuple(given))
        if stored or edit is not None:
            graph = cut_at(self.model, given, wanted, stored)
        elif self._last is not None and self._last[0] == key:
            graph = self._last[1]  # sample after sample asks for the same slice
        else:
            graph = cut_at(self.model, given, wanted)
            self._last = (key, graph)
        try:
            if edit is not None:
                edit(graph)
            entries = slice_feeds(graph, known, feeds)
            if self._runner is not None:
                return self._runner.run_graph(graph, entries)
            session: Session = facts_of(graph).remember("session", lambda: Session(graph))
            return session.run(entries)
        except (HubError, ValueError):
            # An edit need not make sense: a graph that does not run is no evidence.
            return None

    def between(self, known: Collection[str], wanted: str) -> tuple[Node, ...]:
        """Return the nodes that compute a value from the nearest known values and the inputs.

        They are looked for once: sample after sample asks for the same layer.
        """
        key = (frozenset(known), wanted)
        if key not in self._between:
            self._between[key] = nodes_between(self.model, known, wanted)
        return self._between[key]

    def producer(self, name: str) -> Node | None:
        """Return the node that makes a value; ``None`` where the graph has no such value."""
        return producer(self.values.get(name))

    def constant(self, value: Value | None) -> Array | None:
        """Return what a value is for all inputs, or ``None`` where it depends on them."""
        known = dialect.constant_value(value)
        if value is None or known is not None:
            return known
        name = str(value.name)
        if name in self.dynamic or value.is_graph_input() or name not in self.values:
            return None
        if name in self._shown:
            return self._shown[name]
        if not self._constants:
            # All at once: cutting the graph takes as long for one as for all.
            names = [n for n in self.values if n not in self.dynamic]
            self._constants.update(self.run(names, {}, {}) or {})
        if name not in self._constants:
            self._constants.update(self.run([name], {}, {}) or {})
        if name not in self._constants and self._runner is not None:
            # A runtime need not give out what depends on no input.
            self._constants.update(SlicedGraph(self.model).run([name], {}, {}) or {})
        return self._constants.get(name)


def gather_groups(
    a: Runner, b: Runner, pairs: Sequence[Pair], failing: Pair, batch: SampleBatch
) -> list[SampleGroup]:
    """Return groups of samples of a batch, first of all those in which a pair differs.

    Args:
        a: The reference side; its model must be known.
        b: The other side.
        pairs: All pairs whose values are wanted.
        failing: The pair.
        batch: A batch in which it differs.
    """
    unit, is_open = _batch_of(a, b)
    unit = min(unit, batch.samples)  # files run fewer samples than their own as well
    order = _failing_first(a, b, failing, batch, unit)
    is_record = a.input_names is None or b.input_names is None
    if is_record or not shares_first_axis(batch.feeds):
        return [make_group(a, b, pairs, batch)]
    chosen = [sorted(order[:_MOST_ROWS])]
    if not is_open:
        chosen = [list(range(g * unit, (g + 1) * unit)) for g in order[:_MOST_GROUPS]]
    parts = [SampleBatch(0, 0, take_samples(batch.feeds, rows)) for rows in chosen]
    return [make_group(a, b, pairs, part) for part in parts]


def gather_first_group(
    a: Runner, b: Runner, pairs: Sequence[Pair], batch: SampleBatch
) -> SampleGroup:
    """Return the first few samples of a batch, with what both sides make of them."""
    rows, is_open = _batch_of(a, b)
    if is_open and a.model is not None:
        rows = int(np.clip(_FEW_ELEMENTS // elements_per_sample(a.model), 4, 64))
    part = batch.feeds
    if shares_first_axis(batch.feeds):
        part = take_samples(batch.feeds, slice(min(rows, batch.samples)))
    return make_group(a, b, pairs, SampleBatch(0, 0, part))


def _batch_of(a: Runner, b: Runner) -> tuple[int, bool]:
    """Return the samples that both sides run at once, and whether that number is free."""
    models = [model for model in (a.model, b.model) if model is not None]
    unit = math.lcm(*map(file_batch, models))
    return unit, all(fixed_batch(model) is None for model in models)


def _failing_first(
    a: Runner, b: Runner, pair: Pair, batch: SampleBatch, unit: int
) -> list[int]:
    """Return the groups of ``unit`` samples, those that show the difference first."""
    count = max(batch.samples // unit, 1)
    x, y = answer_pair(a, b, pair, batch)
    if y is None or x.ndim == 0 or len(x) != batch.samples:
        return list(range(count))
    apart = np.where(differs(x, y), distances(x, y), 0.0)
    size = apart.reshape(len(x), -1).max(axis=1, initial=0.0)[: count * unit]
    groups = size.reshape(count, unit).max(axis=1)
    failing, others = np.flatnonzero(groups).tolist(), np.flatnonzero(groups == 0).tolist()
    # What explains the largest difference has to be seen, whatever else is.
    failing.sort(key=lambda group: group != int(groups.argmax()))
    room = _MOST_ROWS - 4
    return [*failing[:room], *others[:4], *failing[room:], *others[4:]]


def make_group(a: Runner, b: Runner, pairs: Sequence[Pair], batch: SampleBatch) -> SampleGroup:
    """Return samples, all run at once, with what both sides make of them."""
    there = for_side(batch, b)
    ours = a.answer(batch, list(dict.fromkeys(p.a for p in pairs)))
    theirs = b.answer(there, list(dict.fromkeys(p.b for p in pairs)))
    given: dict[str, Array] = {}
    for pair in pairs:
        fitted = aligned(theirs.get(pair.b), ours.get(pair.a))
        if fitted is not None:
            given[pair.b] = fitted.astype(theirs[pair.b].dtype, copy=False)
    return SampleGroup(batch.feeds, there.feeds, ours, theirs, given)


def isolate(
    side: SlicedGraph, pairs: Sequence[Pair], group: SampleGroup
) -> dict[str, Array] | None:
    """Return what each layer of the other side makes of the reference's values.

    Args:
        side: The other side.
        pairs: All pairs.
        group: Some samples.

    Returns:
        Tensor of the other side -> its value; ``None`` where the side runs no slices.
    """
    wanted = list(dict.fromkeys(p.b for p in pairs if p.b in side.values))
    return side.run(wanted, group.given, group.there)
