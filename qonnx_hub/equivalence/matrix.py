"""One source against many results and backends: who agrees, and where the others leave."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from qonnx_hub.equivalence.check import match_sides
from qonnx_hub.equivalence.comparison.compare import aligned, differs, distances
from qonnx_hub.equivalence.inputs.batches import GeneratedInputs, SampleBatch, read_batches
from qonnx_hub.equivalence.options import CheckOptions
from qonnx_hub.equivalence.reports.page import check_sections
from qonnx_hub.equivalence.reports.report import CheckResult
from qonnx_hub.equivalence.request import (
    BACKENDS,
    TFLITE_BACKENDS,
    check_opened,
    open_sides,
    source_of_given,
)
from qonnx_hub.equivalence.runners.recorded import Golden
from qonnx_hub.equivalence.runners.sides import Runner, for_side
from qonnx_hub.io.python_sources import resolve
from qonnx_hub.reporting.pages.page import Page, Tone, sections_of
from qonnx_hub.reporting.plain_data import plain
from qonnx_hub.reporting.progress import advance
from qonnx_hub.reporting.report import Part, Report
from qonnx_hub.reporting.tables import Table
from qonnx_hub_adapters.protocol import Feeds
from qonnx_hub_ir.errors import HubError
from qonnx_hub_ir.quantizers import Array

_LENGTH = 256
"""Samples of the inputs given that all sides are asked for at once."""


@dataclass(frozen=True, slots=True, repr=False)
class MatrixReport(Report):
    """One source against many. True where every side ran, and agrees with it.

    Attributes:
        results: The check of each side against the first.
        sides: Names of all sides that ran, the first one included.
        groups: Of every side, the number of its group: sides of one group gave the same
            values for all outputs on the inputs that all of them were run on.
        distances: Row by row, how far the outputs of two sides were apart at most; NaN where
            they have other shapes.
        samples: On how many samples groups and distances rest.
        refused: Name of each side that could not be read or run, and why.
    """

    schema: ClassVar[str] = "matrix/1"
    heading: ClassVar[str] = "Many sides against one"

    results: tuple[CheckResult, ...]
    sides: tuple[str, ...]
    groups: tuple[int, ...]
    distances: tuple[tuple[float, ...], ...]
    samples: int
    refused: Mapping[str, str]

    def __bool__(self) -> bool:
        """Return whether every side ran, and agrees with the first."""
        return all(self.results) and not self.refused

    def summary(self) -> str:
        """Return how many sides agree, in one line."""
        agree = sum(map(bool, self.results))
        alike = max(self.groups.count(k) for k in self.groups)
        asked = len(self.results) + len(self.refused)
        return (
            f"{self.sides[0]}: {agree} of {asked} sides agree with it; {alike} of "
            f"{len(self.sides)} sides gave the same values"
            + (f"; {len(self.refused)} did not run" if self.refused else "")
        )

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per side that was checked, and behind them those that did not run."""
        found: list[dict[str, Any]] = []
        for result, name, group in zip(
            self.results, self.sides[1:], self.groups[1:], strict=True
        ):
            first = result.first_divergence
            found.append(
                {
                    "side": name,
                    "verdict": str(result.verdict),
                    "group": group,
                    "differing": sum(o.differing for o in result.outputs),
                    "values": sum(o.count for o in result.outputs),
                    "first_layer": None if first is None else first.source,
                    "cause": None if result.cause is None else str(result.cause),
                }
            )
        nothing = dict.fromkeys(("group", "differing", "values", "first_layer"))
        for name, why in self.refused.items():
            found.append({"side": name, "verdict": "refused", **nothing, "cause": why})
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data, fit for JSON."""
        found: Mapping[str, Any] = {
            "sides": self.sides,
            "groups": self.groups,
            "distances": self.distances,
            "samples": self.samples,
            "refused": self.refused,
            "results": [result.to_dict() for result in self.results],
        }
        return {name: plain(value) for name, value in found.items()}

    def page(self) -> Page:
        """Return the page: the tables, and of every side that differs, why and where."""
        sections = [*sections_of(self.parts(), ("Sides", "Largest difference"))]
        for k, (name, result) in enumerate(zip(self.sides[1:], self.results, strict=True)):
            if not result:
                sections += check_sections(result, f"side-{k}-", f"{name}: ", tables=False)
        agree = sum(map(bool, self.results))
        word = f"{agree} of {len(self.results) + len(self.refused)} agree"
        tone: Tone = "good" if self else "bad"
        return Page(self.heading, self.sides[0], tuple(sections), word, self.summary(), tone)

    def parts(self) -> Iterator[Part]:
        """Give verdicts, distances between all sides, groups, and why sides leave."""
        rows = [(self.sides[0], "the reference", str(self.groups[0]), "", "", "")]
        rows += [
            (
                *(row["side"], row["verdict"], str(row["group"] or "-")),
                "-" if row["group"] is None else f"{row['differing']} of {row['values']}",
                *(row["first_layer"] or "", row["cause"] or ""),
            )
            for row in self.rows()
        ]
        ran = len(self.results)
        apart = [k for k, result in enumerate(self.results, 1) if not result]
        apart += range(ran + 1, ran + 1 + len(self.refused))
        columns = ("side", "verdict", "group", "differing", "first layer", "cause")
        yield Table(columns, rows, marked=apart)
        yield ""
        names = [f"({k})" for k in range(1, len(self.sides) + 1)]
        cells = [
            (f"{names[k]} {side}", *(f"{x:.6g}" for x in self.distances[k]))
            for k, side in enumerate(self.sides)
        ]
        yield Table(("largest difference", *names), cells, numbers=len(names))
        yield ""
        for number in dict.fromkeys(self.groups):
            members = [s for s, g in zip(self.sides, self.groups, strict=True) if g == number]
            if len(members) > 1:
                yield f"equal on {self.samples} samples: {', '.join(members)}"
        for name, result in zip(self.sides[1:], self.results, strict=True):
            for finding in result.findings[:1]:
                yield f"{name}: {finding.cause} in layer '{finding.layer}': {finding.words}"
            yield f"{name}: {result.summary()}"
        yield self.summary()


def named_backend(source: Any) -> tuple[Any, str]:
    """Return a source and where it runs, of what may be written as "model.onnx@ort"; or "".

    Args:
        source: A source; a text that is the name of a file is that file.
    """
    if not isinstance(source, str) or Path(source).exists():
        return source, ""
    path, _, backend = source.rpartition("@")
    known = path and backend in {"numpy", *BACKENDS, *TFLITE_BACKENDS}
    return (path, backend) if known else (source, "")


def check_many(
    first: Any, others: Sequence[Any], labels: Sequence[str], options: CheckOptions
) -> MatrixReport:
    """Return how many sources compare to the first, and with each other.

    Args:
        first: The reference, as for a check.
        others: The other sides, likewise; "model.onnx@ort" runs on onnxruntime.
        labels: How reports call all of them.
        options: As for a check; its backend is not looked at.

    Returns:
        The verdicts; a side that cannot be read or run is named there, and the others stand.

    Raises:
        HubError: As in :func:`qonnx_hub.equivalence.request.check_request`, where no side can
            be compared.
    """
    # Once: a callable may build another model at every call.
    first = resolve(first)
    sides: list[Runner] = []
    ran, results = [labels[0]], list[CheckResult]()
    refused: dict[str, HubError] = {}
    for k, (other, label) in enumerate(zip(others, labels[1:], strict=True)):
        source, backend = named_backend(other)
        wanted = dataclasses.replace(options, backend=backend or "numpy")
        pair = (labels[0], label.removesuffix(f"@{backend}"))
        try:
            a, b, asked = open_sides(first, source, pair, wanted)
            results.append(check_opened(a, b, asked))
        except HubError as error:
            # Sides may be called alike, and each has its own reason.
            refused[f"{label} ({k + 2})" if label in refused else label] = error
        else:
            sides += [b] if sides else [a, b]
            ran.append(label)
        advance("checking sides", k + 1, len(others))
    if not results:
        raise next(iter(refused.values()))
    feeds = _common_feeds(sides, results, options)
    answers = [_answers(sides[0], side, feeds, options) for side in sides]
    apart = tuple(tuple(_distance(x, y) for y in answers) for x in answers)
    groups: list[int] = []
    for k, row in enumerate(apart):
        twin = next((j for j in range(k) if row[j] == 0), None)
        groups.append(max(groups, default=0) + 1 if twin is None else groups[twin])
    samples = sum(batch.samples for batch in feeds)
    why = {label: " ".join(str(error).split()) for label, error in refused.items()}
    return MatrixReport(tuple(results), tuple(ran), tuple(groups), apart, samples, why)


def _common_feeds(
    sides: Sequence[Runner], results: Sequence[CheckResult], options: CheckOptions
) -> list[SampleBatch]:
    """Return the inputs given; or generated ones, and those that showed a difference."""
    reference = sides[0]
    if isinstance(reference, Golden):
        return list(read_batches(reference))
    model = next((side.model for side in sides if side.model is not None), None)
    if options.inputs is not None:
        taker = reference if reference.input_names is not None else sides[1]
        return list(read_batches(source_of_given(taker, model, options, _LENGTH)))
    assert model is not None, "records have no graph, and come with their inputs"
    made = GeneratedInputs(model, options.samples, options.seed, options.ranges)
    found = list(read_batches(made))
    shown = [result.failing.feeds for result in results if result.failing is not None]
    start = made.samples
    for feeds in shown:
        found.append(SampleBatch(len(found), start, feeds))
        start += found[-1].samples
    return found


def _answers(
    reference: Runner, side: Runner, feeds: Sequence[SampleBatch], options: CheckOptions
) -> list[Array]:
    """Return a side's outputs, batch by batch, in the order of the reference's outputs."""
    outputs = match_sides(reference, side, options).outputs
    names = [pair.b for pair in outputs]
    found = []
    for batch in feeds:
        own: Feeds = side.answer(for_side(batch, side), names)
        found += [np.asarray(own[name]) for name in names if name in own]
    return found


def _distance(x: Sequence[Array], y: Sequence[Array]) -> float:
    """Return how far arrays are apart at most: 0 only where all values are the same."""
    if len(x) != len(y):
        return float("nan")
    largest = 0.0
    for one, other in zip(x, y, strict=True):
        fitted = aligned(one, other)
        if fitted is None:
            return float("nan")
        apart = differs(one, fitted)
        if apart.any():
            far = np.asarray(distances(one, fitted))[apart]
            largest = max(largest, float(np.nan_to_num(far, nan=np.inf).max()))
    return largest
