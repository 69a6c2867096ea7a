"""The generated inputs of a check, and what they reach: one source for check and convert."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from onnx_ir import Model

from qonnx_hub.equivalence.inputs.batches import (
    ChainedInputs,
    GeneratedInputs,
    GivenInputs,
    InputSource,
    read_batches,
)
from qonnx_hub.equivalence.inputs.boundary import search_boundaries
from qonnx_hub.equivalence.inputs.coverage import InputCoverage
from qonnx_hub.equivalence.inputs.generate import Ranges
from qonnx_hub.equivalence.inputs.meter import CoverageMeter

EFFORTS = ("quick", "normal", "thorough")


@dataclass(frozen=True, slots=True)
class ReachingInputs:
    """Generated inputs, and what they reach.

    Attributes:
        source: The inputs, in batches.
        coverage: What they reach in the model they were made for.
    """

    source: InputSource
    coverage: InputCoverage


def find_inputs(
    model: Model,
    samples: int | None = None,
    seed: int = 0,
    ranges: Ranges | None = None,
    length: int | None = None,
    effort: str = "normal",
    *,
    steer: bool = True,
) -> ReachingInputs:
    """Return inputs that exercise a model: random, ties, limits, thresholds of inner layers.

    Args:
        model: The reference.
        samples: How many to generate; as many as suit the model by default.
        seed: Seed of the random values; the same seed gives the same inputs.
        ranges: Input name -> (lowest, highest) value.
        length: Samples per batch; as many as suit the model by default.
        effort: "quick", "normal" or "thorough": how much is searched.
        steer: Whether inputs are steered to the thresholds of inner quantizers as well.

    Raises:
        UsageError: A size that the file leaves open, or a range that is none.
    """
    source: InputSource = GeneratedInputs(model, samples, seed, ranges, length)
    exercised: tuple[int, ...] = ()
    if steer and effort != "quick":
        feeds, exercised = search_boundaries(model, source.feeds(0), seed)
        if feeds is not None:
            batch = length or max(len(x) for x in feeds.values() if x.ndim)
            beside = GivenInputs(feeds, batch, "thresholds of inner quantizers")
            source = ChainedInputs((source, beside))
    coverage = measure_coverage(model, source, ranges)
    if exercised:
        rows = zip(coverage.quantizers, exercised, strict=True)
        quantizers = tuple(dataclasses.replace(row, exercised=n) for row, n in rows)
        coverage = dataclasses.replace(coverage, quantizers=quantizers)
    return ReachingInputs(source, dataclasses.replace(coverage, effort=effort))


def measure_coverage(
    model: Model, source: InputSource, ranges: Ranges | None = None
) -> InputCoverage:
    """Return what inputs reach in a model.

    Args:
        model: The reference.
        source: The inputs, by the names of the model.
        ranges: Input name -> (lowest, highest) value that inputs may have.
    """
    meter = CoverageMeter(model, ranges)
    for batch in read_batches(source):
        meter.add(batch.feeds)
    return meter.coverage()
