"""Layers of both sides, asked directly: given equal inputs, do they compute the same?

Inputs of a whole model reach inner layers with few values. Here every layer gets values of
its own, the same on both sides: of both signs, of several magnitudes, on the grid where a
quantizer makes them. What differs there and at no output was not shown to be out of reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qonnx_hub.equivalence.comparison.compare import aligned, differs
from qonnx_hub.equivalence.comparison.matching import Pair
from qonnx_hub.equivalence.diagnosis.isolation import (
    SampleGroup,
    SlicedGraph,
    gather_first_group,
)
from qonnx_hub.equivalence.diagnosis.layer_causes import (
    CutLayer,
    CutSide,
    exceeds_sums,
    explain_layer,
)
from qonnx_hub.equivalence.diagnosis.quantizer_causes import (
    Explanation,
    Seen,
    explanation_of,
)
from qonnx_hub.equivalence.diagnosis.unobserved import known_quantizer
from qonnx_hub.equivalence.inputs.batches import SampleBatch
from qonnx_hub.equivalence.runners.sides import Runner
from qonnx_hub.equivalence.sum_enclosures import SumEnclosures, UnboundedError
from qonnx_hub_adapters.protocol import Feeds
from qonnx_hub_ir import operators
from qonnx_hub_ir.graph.queries import input_of
from qonnx_hub_ir.quantizers import Array
from qonnx_hub_ir.semantics import quantize

_MAGNITUDES = (1.0, 8.0, 0.125)
"""Reach of the values given, relative to the largest that the inputs brought about."""

_MOST_FOUND = 8


@dataclass(frozen=True, slots=True)
class _Given:
    """Values for every layer's readers: by the names of either side."""

    here: Mapping[str, Array]
    there: Mapping[str, Array]
    feeds: Feeds
    feeds_there: Feeds


def find_differing_pieces(
    a: Runner, b: Runner, pairs: Sequence[Pair], batch: SampleBatch, *, folded: bool = False
) -> list[Explanation]:
    """Return the layers that compute something else from equal inputs, in order.

    Args:
        a: The reference side.
        b: The other side.
        pairs: All pairs, in the order of the reference.
        batch: Any batch: it gives shapes, magnitudes, and what is no float.
        folded: Whether parameters of one side were rounded anew, on purpose.
    """
    if a.model is None or b.model is None or a.input_names is None or b.input_names is None:
        return []
    group = gather_first_group(a, b, pairs, batch)
    sides = SlicedGraph(a.model), SlicedGraph(b.model, b, group.b)
    moving = [p for p in pairs if not p.constant and p.b in group.given]
    found: dict[Pair, Explanation] = {}
    for number, reach in enumerate(_MAGNITUDES):
        given = _given(sides, moving, group, reach, np.random.default_rng(number))
        ours = sides[0].run([p.a for p in moving], given.here, given.feeds) or {}
        theirs = sides[1].run([p.b for p in moving], given.there, given.feeds_there) or {}
        for pair in moving:
            if pair in found or len(found) >= _MOST_FOUND:
                continue
            both = ours.get(pair.a), theirs.get(pair.b)
            one = _explained(sides, pair, given, *both, folded=folded)
            if one is not None:
                found[pair] = one
    return [found[pair] for pair in moving if pair in found]


def _given(
    sides: tuple[SlicedGraph, SlicedGraph],
    pairs: Sequence[Pair],
    group: SampleGroup,
    reach: float,
    rng: np.random.Generator,
) -> _Given:
    here: dict[str, Array] = {}
    there: dict[str, Array] = {}
    for pair in pairs:
        if pair.a not in here:
            here[pair.a] = _drawn(sides[0], pair.a, group.a[pair.a], reach, rng)
        fitted = aligned(group.b[pair.b], here[pair.a])
        if fitted is not None:
            values = np.ascontiguousarray(fitted).reshape(fitted.shape)  # () stays ()
            there[pair.b] = values.astype(group.b[pair.b].dtype, copy=False)
    feeds = {name: _spread(x, reach, rng) for name, x in group.feeds.items()}
    again = dict(zip(group.there, feeds.values(), strict=True))
    return _Given(here, there, feeds, again)


def _drawn(
    side: SlicedGraph, name: str, seen: Array, reach: float, rng: np.random.Generator
) -> Array:
    """Return values that a layer's readers might get: on its grid, on its side of zero."""
    values = _spread(seen, reach, rng)
    node = side.producer(name)
    quant = known_quantizer(node)
    if quant is not None:
        return quantize(values, quant)
    while node is not None and operators.moves_values(node):
        before = input_of(node, 0)
        node = None if before is None else before.producer()
    if known_quantizer(node) is not None or seen.dtype.kind != "f":
        return seen
    if seen.size and np.min(seen) >= 0:
        values = np.asarray(np.abs(values))
    return values


def _spread(seen: Array, reach: float, rng: np.random.Generator) -> Array:
    """Return random values of a shape; what is no float stays as it is."""
    if seen.dtype.kind != "f" or seen.size == 0:
        return seen
    finite = np.abs(seen[np.isfinite(seen)])
    peak = float(finite.max(initial=0)) or 1.0
    return np.asarray(rng.uniform(-reach * peak, reach * peak, seen.shape), dtype=seen.dtype)


def _explained(
    sides: tuple[SlicedGraph, SlicedGraph],
    pair: Pair,
    given: _Given,
    ours: Array | None,
    theirs: Array | None,
    *,
    folded: bool,
) -> Explanation | None:
    """Return how a layer differs beyond the rounding of its own sums, or ``None``."""
    theirs = aligned(ours, theirs)
    if ours is None or theirs is None or not ours.size or not differs(ours, theirs).any():
        return None
    cuts = []
    names = (pair.a, pair.b)
    for side, name, known, feeds in zip(
        sides,
        names,
        (given.here, given.there),
        (given.feeds, given.feeds_there),
        strict=True,
    ):
        before = {key: x for key, x in known.items() if key != name}
        nodes = side.between(before, name)
        cuts.append(CutSide(side, name, before, feeds, nodes))
    layer = CutLayer(cuts[0], cuts[1], ours, theirs)
    if _is_order_of_sums(layer, folded=folded):
        return None
    return explanation_of(pair.source, explain_layer(layer), Seen(ours, ours, theirs))


def _is_order_of_sums(layer: CutLayer, *, folded: bool) -> bool:
    assert layer.b is not None
    graphs = layer.a.graph, layer.b.graph
    try:
        beyond = exceeds_sums(layer, *(SumEnclosures(one, folded=folded) for one in graphs))
    except UnboundedError:
        return False
    return not beyond.any()
