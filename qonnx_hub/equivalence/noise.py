"""Whether a sampled difference is no more than another order of the same float32 sums.

Parameters come first: a scale, weight or attribute that has a counterpart and differs from it
is never noise, however small the difference is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from onnx_ir import Model

from qonnx_hub.equivalence.comparison.batched import BatchResult, ComparisonSpec, compare_all
from qonnx_hub.equivalence.comparison.compare import Tolerance
from qonnx_hub.equivalence.inputs.batches import (
    GivenInputs,
    InputSource,
    count_samples,
    cut_feeds,
    file_batch,
    read_batches,
    run_length,
    shares_first_axis,
)
from qonnx_hub.equivalence.layerwise import differs_by_ties_only
from qonnx_hub.equivalence.options import CheckOptions
from qonnx_hub.equivalence.runners.sides import ExecutorRunner, Runner, SourceRunner
from qonnx_hub_adapters.protocol import Feeds
from qonnx_hub_ir.analysis.float_error import REORDERED, reordering_error
from qonnx_hub_ir.facts import fixed_batch
from qonnx_hub_ir.quantizers import Array

FLIPPED_SHARE = 0.01
"""Share of outputs that may lie beyond the noise: sums on a rounding tie of an inner quantizer
fall to either side."""

ALLOWANCE = (
    "another order of float32 sums explains it: every layer, given equal inputs, stays within "
    "the rounding of its own sums"
)
"""What a difference rests on that is noise."""

LIVE_ALLOWANCE = "another order of float32 sums explains it, compared with the live model"
"""The same of a side that shows no layers."""


def noise_of_outputs(side: ExecutorRunner, feeds: Feeds) -> Tolerance:
    """Return :func:`summation_noise` of what a side answers to inputs."""
    parts: Iterable[Feeds] = [feeds]
    if shares_first_axis(feeds):
        # Run by run: outputs of some models cannot be put together.
        parts = cut_feeds(feeds, run_length(side.model, file_batch(side.model)))
    return summation_noise([x for part in parts for x in side.outputs(part).values()])


def summation_noise(outputs: Iterable[Array]) -> Tolerance:
    """Return what another order of summation explains, with one step on a rounding tie."""
    return Tolerance(atol=reordering_error(outputs), rtol=REORDERED, lsb=1)


def changed_parameters(a: Model | None, b: Model | None) -> tuple[str, ...]:
    """Return what is stored in both models and differs, in words; none without graphs.

    Compared bit by bit are parameters of quantizers, weights, and numbers among attributes, of
    nodes that are counterparts.
    """
    if a is None or b is None:
        return ()
    from qonnx_hub.analysis.diff import find_differences

    found = find_differences(a, b)
    changes = [
        change
        for change in found.changes
        if change.kind == "quantizer"
        or (change.kind == "attribute" and "not given" not in (change.before, change.after))
    ]
    weights = [w for w in found.weights if np.isfinite(w.largest)]
    return tuple(map(str, (*changes, *weights)))


def is_noise_of_live_model(
    a: Runner, b: Runner, what: ComparisonSpec, source: InputSource
) -> bool:
    """Return whether a live model differs from another side by the order of its sums only.

    Its outputs may lie as far apart as float32 sums of their size do, all but a few that ties
    of inner quantizers explain; or each of its layers agrees, where it shows them.
    """
    live, other = (a, b) if isinstance(a, SourceRunner) else (b, a)
    if not isinstance(live, SourceRunner) or changed_parameters(live.model, other.model):
        return False
    names = [pair.a for pair in what.pairs.outputs]
    batches = read_batches(source)
    outputs = [value for batch in batches for value in a.answer(batch, names).values()]
    # A step is no noise: flipped ties are few, and counted below.
    loose = replace(what, tolerance=replace(summation_noise(outputs), lsb=None))
    if explained_by_ties(compare_all(a, b, loose, source, CheckOptions())):
        return True
    feeds = _differing_parts(a, b, loose, source)
    return differs_by_ties_only(live.importer, live.source, live.model, feeds)


def _differing_parts(
    a: Runner, b: Runner, what: ComparisonSpec, source: InputSource
) -> Iterator[Feeds]:
    """Give every part of the inputs, of the file's own size, whose outputs are out of bounds.

    Others show nothing: of inputs near zero, the layers of two models may well agree.
    """
    for batch in read_batches(source):
        for part in live_batches(a.model or b.model, batch.feeds):
            given = GivenInputs(part, count_samples(part))
            if any(
                t.beyond
                for t in compare_all(a, b, what, given, CheckOptions()).tallies.values()
            ):
                yield part


def live_batches(model: Model | None, feeds: Feeds) -> Iterator[Feeds]:
    """Give the feeds in parts of the file's own size."""
    size = None if model is None else fixed_batch(model)
    return cut_feeds(feeds, size or max(count_samples(feeds), 1))


def explained_by_ties(found: BatchResult) -> bool:
    """Return whether no more values are out of bounds than lie on a rounding tie."""
    seen = found.tallies.values()
    return is_share_of_ties(sum(t.beyond for t in seen), sum(t.count for t in seen))


def is_share_of_ties(beyond: int, count: int) -> bool:
    """Return whether so many values out of bounds are no more than lie on rounding ties."""
    return beyond <= FLIPPED_SHARE * count
