"""Every form and profile tried on one model: which are exact, and the command for each."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from onnx_ir import Model

from qonnx_hub.analysis.cost.cost import CostOptions, count_cost
from qonnx_hub.conversion.convert import convert_source
from qonnx_hub.conversion.options import ConvertOptions
from qonnx_hub.equivalence.inputs.generate import generate_inputs
from qonnx_hub.executor.benchmark import measure
from qonnx_hub.io import registry
from qonnx_hub.io.model_files import in_one_message
from qonnx_hub.reporting.pages.page import Page, Row, Rows, Section
from qonnx_hub.reporting.plain_data import plain
from qonnx_hub.reporting.progress import advance
from qonnx_hub.reporting.report import Part, Report
from qonnx_hub.reporting.tables import Table
from qonnx_hub_ir.errors import HubError, reasons_of

VARIANTS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "qonnx": ({}, {"profile": "finn"}, {"self_contained": True}),
    "qcdq": ({}, {"encoding": "qdq"}),
}
"""Form -> the options that it is tried with; every other form is tried as it is."""


NUMBERS = ("exact quantizers", "opset", "bytes", "weight bits", "BOPs", "ms here")
"""Titles of what is counted and measured of a route."""


@dataclass(frozen=True, slots=True)
class Route:
    """One way out of a model.

    Attributes:
        form: The form, with its options.
        outcome: The verdict of the check, or "refused".
        why: What the verdict rests on, or the first reasons of the refusal.
        exact: Quantizers that are exact; ``None`` where the route is refused.
        quantizers: Quantizers in all; likewise.
        opset: Standard opset of the file; likewise.
        size: Bytes of the model's file; likewise.
        weight_bits: Bits of all weights, by their types in the file; ``None`` where sizes are
            not known as well.
        bops: Bit operations of one inference, likewise.
        latency: Seconds of one run on the executor here, the median of three or more; ``None``
            where it cannot.
        command: The command that writes it.
    """

    form: str
    outcome: str
    why: str
    exact: int | None
    quantizers: int | None
    opset: int | None
    size: int | None
    weight_bits: int | None
    bops: int | None
    latency: float | None
    command: str

    def cells(self) -> tuple[str, ...]:
        """Return the numbers of a route in words, "-" for one that is not known."""
        exact = "-" if self.exact is None else f"{self.exact} of {self.quantizers}"
        counts = (self.opset, self.size, self.weight_bits, self.bops)
        shown = ("-" if n is None else f"{n:,}" for n in counts)
        return exact, *shown, "-" if self.latency is None else f"{1e3 * self.latency:.3f}"


@dataclass(frozen=True, slots=True, repr=False)
class RoutesReport(Report):
    """All ways out of a model.

    Attributes:
        source: The model.
        routes: Every form and profile, tried.
    """

    schema: ClassVar[str] = "routes/1"
    heading: ClassVar[str] = "All ways out of a model"

    source: str
    routes: tuple[Route, ...]

    def summary(self) -> str:
        """Return how many ways are open, in one line."""
        refused = sum(route.outcome == "refused" for route in self.routes)
        return f"{self.source}: {len(self.routes) - refused} of {len(self.routes)} routes open"

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per route."""
        return [plain(route) for route in self.routes]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data, fit for JSON."""
        return {"source": self.source, "routes": self.rows()}

    def page(self) -> Page:
        """Return the page: one table of all ways, with why, and the commands."""
        columns = ("form", "outcome", "why", "command", *NUMBERS)
        rows = tuple(
            Row(
                (one.form, one.outcome, one.why, one.command, *one.cells()),
                one.outcome == "refused",
            )
            for one in self.routes
        )
        table = Rows(columns, rows, 4, "only what is refused")
        return Page(self.heading, self.summary(), (Section("Routes", (table,)),))

    def parts(self) -> Iterator[Part]:
        """Give a table of the routes, why each is what it is, and the commands."""
        columns = ("form", "outcome", *NUMBERS)
        cells = [(route.form, route.outcome, *route.cells()) for route in self.routes]
        yield Table(columns, cells, numbers=len(NUMBERS))
        yield ""
        for route in self.routes:
            yield f"{route.form}: {route.why}"
            yield f"    {route.command}"
        yield self.summary()


def find_routes(model: Model, label: str, options: ConvertOptions, named: str) -> RoutesReport:
    """Return what becomes of a model in every form that can be written.

    Nothing is written. Every result is checked against the model as ``convert`` does.

    Args:
        model: An IR model; it is not changed.
        label: How the report calls it.
        options: Samples and seed of the checks; the format that the model was read as.
        named: How the commands call it.
    """
    forms = registry.exporters().names()
    asked = [(form, variant) for form in forms for variant in VARIANTS.get(form, ({},))]
    found = []
    for form, variant in asked:
        wanted = replace(options, to=form, **variant)
        found.append(_try(model, label, wanted, variant, named))
        advance("trying routes", len(found), len(asked))
    return RoutesReport(label, tuple(found))


def _try(
    model: Model, label: str, options: ConvertOptions, variant: Mapping[str, Any], named: str
) -> Route:
    words = []
    for name, value in variant.items():
        words += [f"--{name.replace('_', '-')}", *(() if value is True else (str(value),))]
    form = " ".join((options.to, *words))
    info = registry.find_exporter(options.to).info
    target = "project" if info.folder else f"out{next(iter(info.suffixes), '')}"
    given = () if options.from_ is None else ("--from", options.from_)
    to = ("-o", target, "--to", options.to, *words)
    command = shlex.join(("qonnx-hub", "convert", named, *given, *to))
    try:
        # What is read already has no format.
        report = convert_source(model.clone(), None, label, replace(options, from_=None))
    except HubError as error:
        return Route(form, "refused", _first_reason(error), *(None,) * 7, command)
    assert report.model is not None
    weight_bits, bops = _counted(report.model)
    return Route(
        form=form,
        outcome="not checked" if report.verdict is None else str(report.verdict),
        why=report.conclusion(),
        exact=sum(record.exact for record in report.quantizers),
        quantizers=len(report.quantizers),
        opset=report.opset,
        size=int(in_one_message(report.model).ByteSize()),
        weight_bits=weight_bits,
        bops=bops,
        latency=_latency(report.model, options.seed),
        command=command,
    )


def _counted(model: Model) -> tuple[int, int] | tuple[None, None]:
    try:
        found = count_cost(model, CostOptions())
    except HubError:  # sizes that are left open
        return None, None
    return found.weight_bits, found.bops


def _latency(model: Model, seed: int) -> float | None:
    try:
        feeds = generate_inputs(model, 1, seed)
        rows = next((len(x) for x in feeds.values() if x.ndim), 1)
        [timing] = measure(model, {rows: feeds}, ("numpy",), "", seconds=0.02).timings
    except HubError:
        return None
    return timing.median


def _first_reason(error: HubError) -> str:
    """Return the first reason of a refusal, and how many there are."""
    reasons = [str(reason) for reason in reasons_of(error)]
    if not reasons:
        return " ".join(str(error).split())
    more = f" (and {len(reasons) - 1} more reasons)" if len(reasons) > 1 else ""
    return f"{reasons[0]}{more}"
