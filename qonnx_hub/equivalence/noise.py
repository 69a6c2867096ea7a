"""Whether a sampled difference is no more than another order of the same float32 sums.

Parameters come first: a scale, weight or attribute that has a counterpart and differs from it
is never noise, however small the difference is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from onnx_ir import Model

from qonnx_hub.equivalence.comparison.batched import ComparisonSpec, compare_all
from qonnx_hub.equivalence.comparison.compare import aligned, differs
from qonnx_hub.equivalence.comparison.matching import Pair
from qonnx_hub.equivalence.diagnosis.isolation import (
    SampleGroup,
    SlicedGraph,
    isolate,
    make_group,
)
from qonnx_hub.equivalence.diagnosis.layer_causes import CutLayer, CutSide, exceeds_sums
from qonnx_hub.equivalence.graph_slices import elements_per_sample
from qonnx_hub.equivalence.inputs.batches import (
    GivenInputs,
    InputSource,
    SampleBatch,
    count_samples,
    cut_feeds,
    file_batch,
    read_batches,
    shares_first_axis,
)
from qonnx_hub.equivalence.layerwise import differs_by_ties_only
from qonnx_hub.equivalence.normalizing import FUNCTION_ULPS
from qonnx_hub.equivalence.options import CheckOptions
from qonnx_hub.equivalence.parameters import compare_parameters
from qonnx_hub.equivalence.proof.intervals import Enclosure
from qonnx_hub.equivalence.runners.hls4ml import Hls4mlRunner
from qonnx_hub.equivalence.runners.sides import (
    Runner,
    SourceRunner,
    for_side,
    same_library,
)
from qonnx_hub.equivalence.sum_enclosures import (
    FOLD_ROUNDINGS,
    SumEnclosures,
    UnboundedError,
    holds_all,
    unexplained,
)
from qonnx_hub_adapters.protocol import Feeds, ReadsAsWritten
from qonnx_hub_ir import dialect
from qonnx_hub_ir.facts import fixed_batch
from qonnx_hub_ir.quantizers import Array

MOST_RUNS = 256
"""Runs with a difference whose layers are looked at one by one, besides those with the largest
difference of each output. With more than that, nothing is said to be noise."""

_SMALL_RUN, _MOST_SMALL_RUNS = 1 << 14, 4
"""Elements of all values of a run; of runs that are smaller, up to so many times as many are
looked at."""

ALLOWANCE = (
    "another order of float32 sums explains it: every layer, given equal inputs, stays within "
    "the rounding of its own sums"
)
"""What a difference rests on that is noise."""

LIVE_ALLOWANCE = "another order of float32 sums explains it, compared with the live model"
"""The same of a side that shows no layers."""

OUTPUT_ALLOWANCE = "another order of float32 sums explains it, carried through both graphs"
"""The same of outputs whose layers have no counterpart."""

FUNCTION_ALLOWANCE = (
    f"; functions such as Exp may lie {FUNCTION_ULPS} float32 steps apart in another library"
)
"""What stands behind the reason where one side runs in another library."""

FOLD_ALLOWANCE = (
    f"; up to {FOLD_ROUNDINGS} roundings of each folded parameter are added to the bounds"
)
"""What stands behind the reason where parameters were folded."""


@dataclass(frozen=True, slots=True)
class OrderSearch:
    """What came of looking for a layer that no order of its sums explains.

    Attributes:
        beyond: Where one was seen, in words; empty where every layer stays within its bounds.
        seen: Samples that were looked at.
        left: Samples that differ and were not looked at, since so many do.
    """

    beyond: str = ""
    seen: int = 0
    left: int = 0


def find_layer_beyond_sums(
    a: Runner, b: Runner, pairs: Sequence[Pair], source: InputSource, *, folded: bool = False
) -> OrderSearch:
    """Return whether each layer, given the other side's inputs, stays within its own bounds.

    Args:
        a: The reference side; its graph must be known.
        b: The other side, likewise.
        pairs: All pairs, in the order of the reference.
        source: The inputs.
        folded: Whether parameters of one side were rounded anew, on purpose.
    """
    assert a.model is not None
    assert b.model is not None
    sides = SlicedGraph(a.model), SlicedGraph(b.model, b)
    live = not same_library(a, b)
    bounds = [SumEnclosures(side, live=live, folded=folded) for side in sides]
    runs = seen = left = 0
    small = _SMALL_RUN // elements_per_sample(a.model)
    most = MOST_RUNS * min(max(small, 1), _MOST_SMALL_RUNS)
    for part in _runs(source, a.model, b.model):
        group = make_group(a, b, pairs, part)
        if not any(_differ(group.a.get(p.a), group.b.get(p.b)) for p in pairs):
            continue
        if runs >= most:
            left += part.samples
            continue
        runs, seen = runs + 1, seen + part.samples
        isolated = isolate(sides[1], pairs, group) or {}
        for pair in pairs:
            layer = _cut_layer(sides, pairs, pair, group, isolated.get(pair.b))
            if layer is None:
                continue
            try:
                beyond = exceeds_sums(layer, *bounds)
            except UnboundedError as error:
                return OrderSearch(f"no order of sums is bounded behind {error}")
            if beyond.any():
                where = [int(k) for k in np.argwhere(beyond)[0]]
                where[:1] = [where[0] + part.start] if where else []
                return OrderSearch(
                    f"no order of its sums explains layer '{pair.source}' at {where}"
                )
    return OrderSearch(seen=seen, left=left)


def _differ(ours: Array | None, theirs: Array | None) -> bool:
    fitted = aligned(ours, theirs)
    return ours is None or fitted is None or bool(differs(ours, fitted).any())


def _cut_layer(
    sides: tuple[SlicedGraph, SlicedGraph],
    pairs: Sequence[Pair],
    pair: Pair,
    group: SampleGroup,
    answer: Array | None,
) -> CutLayer | None:
    """Return a layer of both sides, cut out; ``None`` where their answers are equal."""
    ours = group.a.get(pair.a)
    theirs = aligned(ours, answer)
    if ours is None or theirs is None or not differs(ours, theirs).any():
        return None
    known = {p.a: group.a[p.a] for p in pairs if p.b in group.given and p.a != pair.a}
    there = {name: x for name, x in group.given.items() if name != pair.b}
    one, other = sides
    return CutLayer(
        CutSide(one, pair.a, known, group.feeds, one.between(known, pair.a)),
        CutSide(other, pair.b, there, group.there, other.between(there, pair.b)),
        ours,
        theirs,
    )


def _runs(source: InputSource, *models: Model) -> Iterator[SampleBatch]:
    """Give the samples of a source in what both models run at once."""
    unit = math.lcm(*map(file_batch, models))
    is_open = all(fixed_batch(model) is None for model in models)
    for batch in read_batches(source):
        if is_open or not shares_first_axis(batch.feeds):
            yield batch
            continue
        for number, part in enumerate(cut_feeds(batch.feeds, unit)):
            yield SampleBatch(batch.index, batch.start + number * unit, part)


def is_noise_of_outputs(
    a: Runner, b: Runner, outputs: Sequence[Pair], source: InputSource, *, folded: bool = False
) -> bool:
    """Return whether the order of sums explains how outputs differ, carried through graphs.

    What one side computes must lie in what the other side's graph can make of the sample; of
    two graphs, each side's values lie in what its own can make, and what both can make meets.

    Args:
        a: A side.
        b: The other; one of them is a graph on the executor.
        outputs: Their outputs.
        source: The inputs.
        folded: Whether parameters of one side were rounded anew, on purpose.
    """
    graphs = [None if isinstance(side, SourceRunner) else side.model for side in (a, b)]
    models = [model for model in graphs if model is not None]
    live = not same_library(a, b)
    bounds = [
        None if graph is None else SumEnclosures(SlicedGraph(graph), live=live, folded=folded)
        for graph in graphs
    ]
    names = [pair.a for pair in outputs], [pair.b for pair in outputs]
    for part in _runs(source, *models):
        feeds = part.feeds, for_side(part, b).feeds
        first = a.answer(part, names[0])
        second = b.answer(for_side(part, b), names[1])
        for pair in outputs:
            x, y = first[pair.a], aligned(first[pair.a], second[pair.b])
            if y is None:
                return False
            if not differs(x, y).any():
                continue
            try:
                found = [
                    None if one is None else enclose_output(one, name, given)
                    for one, name, given in zip(bounds, (pair.a, pair.b), feeds, strict=True)
                ]
            except UnboundedError:
                return False
            if not explains(found, first[pair.a], second[pair.b]):
                return False
    return True


def enclose_output(bounds: SumEnclosures, name: str, feeds: Feeds) -> Enclosure:
    """Return between which ends every order of all sums keeps a value of a whole graph.

    Raises:
        UnboundedError: A node for which no bound is known.
    """
    return bounds.enclose(bounds.graph.between((), name), name, {}, feeds)


def explains(found: Sequence[Enclosure | None], ours: Array, theirs: Array) -> bool:
    """Return whether answers lie in what graphs can make; of two graphs, whether both meet.

    Args:
        found: What encloses either side; ``None`` for one without a graph.
        ours: What the first side answers.
        theirs: What the other one does.
    """
    a, b = found
    if a is not None and b is not None:
        fitted, own = aligned(ours, theirs), aligned(b.low, theirs)
        if fitted is None or own is None or unexplained(a, b, ours, fitted).any():
            return False
        return bool(holds_all(a, ours).all() and holds_all(b, own).all())
    one, other = (a, theirs) if a is not None else (b, ours)
    assert one is not None
    fitted = aligned(one.low, other)
    return fitted is not None and bool(holds_all(one, fitted).all())


def is_noise_of_live_model(
    a: Runner, b: Runner, what: ComparisonSpec, source: InputSource
) -> bool:
    """Return whether a live model differs from another side by the order of its sums only.

    Its outputs lie in what any order of sums makes of the other side's graph; or each of its
    layers agrees, where it shows them.
    """
    live, other = (a, b) if isinstance(a, SourceRunner) else (b, a)
    if isinstance(other, Hls4mlRunner):
        return False  # the live model's own ties say nothing about hardware
    if not isinstance(live, SourceRunner):
        return False
    found = compare_parameters(live.model, other.model)
    if found.changed or found.unmatched:
        return False
    is_near = dialect.BOUNDED in live.model.metadata_props
    if is_near and isinstance(live.importer, ReadsAsWritten):
        return False  # its graph is near by itself: no order of sums is what lies between
    is_graph = other.model is not None and not isinstance(other, SourceRunner)
    if is_graph and is_noise_of_outputs(a, b, what.pairs.outputs, source):
        return True
    feeds = _differing_parts(a, b, what, source)
    return differs_by_ties_only(live.importer, live.source, live.model, feeds)


def _differing_parts(
    a: Runner, b: Runner, what: ComparisonSpec, source: InputSource
) -> Iterator[Feeds]:
    """Give every part of the inputs, of the file's own size, whose outputs differ.

    Others show nothing: of inputs near zero, the layers of two models may well agree.
    """
    for batch in read_batches(source):
        for part in live_batches(a.model or b.model, batch.feeds):
            given = GivenInputs(part, count_samples(part))
            found = compare_all(a, b, what, given, CheckOptions())
            if any(seen.beyond for seen in found.tallies.values()):
                yield part


def live_batches(model: Model | None, feeds: Feeds) -> Iterator[Feeds]:
    """Give the feeds in parts of the file's own size."""
    size = None if model is None else fixed_batch(model)
    return cut_feeds(feeds, size or max(count_samples(feeds), 1))
