"""What a conversion did, for people and programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from onnx_ir import Model

from qonnx_hub.conversion.litert_check import KernelAnswer
from qonnx_hub.equivalence.reports.page import TONES, check_sections
from qonnx_hub.equivalence.reports.report import CheckResult
from qonnx_hub.equivalence.reports.text import score_in_words
from qonnx_hub.equivalence.stages import stages_of
from qonnx_hub.equivalence.verdicts import ORDER, Verdict
from qonnx_hub.reporting.pages.page import Page, Section, sections_of
from qonnx_hub.reporting.pages.pictures import draw
from qonnx_hub.reporting.plain_data import plain
from qonnx_hub.reporting.report import Part, Report
from qonnx_hub.reporting.tables import Table
from qonnx_hub_adapters.protocol import QuantizerRecord


@dataclass(frozen=True, slots=True, repr=False)
class ConversionReport(Report):
    """What a conversion did.

    Attributes:
        source: What was converted.
        path: The file written; ``None`` where none was asked for.
        format: Its form.
        opset: Its standard opset.
        quantizers: What became of each quantizer.
        notes: Sentences that a user should read.
        check: The file against the source, on the executor; ``None`` where not checked.
        ort: The file on onnxruntime against the source there, or on the executor where
            onnxruntime does not load the source; ``None`` where not run.
        ort_executor: The file on onnxruntime against the source on the executor, where ``ort``
            is not that; ``None`` otherwise.
        own: What was read against the live model's own answer; ``None`` for files.
        tflite_kernels: Where a side is a TFLite file and ai-edge-litert is installed: how that
            file on its kernels compares to the other side.
        data: The file against the source on data of the user's own; ``None`` without.
        model: The converted model.
    """

    schema: ClassVar[str] = "convert/1"
    heading: ClassVar[str] = "Conversion"

    source: str
    path: str | None
    format: str
    opset: int
    quantizers: tuple[QuantizerRecord, ...]
    notes: tuple[str, ...] = ()
    check: CheckResult | None = None
    ort: CheckResult | None = None
    own: CheckResult | None = None
    ort_executor: CheckResult | None = None
    tflite_kernels: tuple[KernelAnswer, ...] = ()
    data: CheckResult | None = None
    model: Model | None = field(default=None, compare=False, repr=False)

    def __bool__(self) -> bool:
        """Return whether the file was shown to compute the same, or keeps the bounds given."""
        if self.data is not None and self.data.accepted is not None:
            return self.data.accepted
        return self.verdict is not None and self.verdict.holds

    @property
    def verdict(self) -> Verdict | None:
        """The worse of what was read and what was written; ``None`` where not checked."""
        deciding = self.deciding
        return None if deciding is None else deciding.verdict

    @property
    def deciding(self) -> CheckResult | None:
        """The check that the verdict is of; ``None`` where not checked."""
        found = [result for result in (self.check, self.own) if result is not None]
        return max(found, key=lambda result: ORDER.index(result.verdict), default=None)

    def conclusion(self) -> str:
        """Return the verdict and what it rests on, in one line; no verdict if not checked."""
        found = self.deciding
        words = "not checked" if found is None else f"{found.verdict}: {found.reason}"
        return words if self.data is None else f"{words}; {self.data.acceptance}".rstrip("; ")

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data, fit for JSON."""
        data: dict[str, Any] = plain(
            {
                "source": self.source,
                "path": self.path,
                "format": self.format,
                "opset": self.opset,
                "quantizers": self.quantizers,
                "notes": self.notes,
                "check": self.check,
                "source_itself": self.own,
                "onnxruntime": self.ort,
                "onnxruntime_executor": self.ort_executor,
                "tflite_kernels": self.tflite_kernels,
                "data": self.data,
                "verdict": self.verdict,
            }
        )
        return data

    def written(self) -> str:
        """Return what was written, in one line."""
        exact = sum(record.exact for record in self.quantizers)
        return (
            f"{self.source} -> {self.path}: {self.format}, opset {self.opset}, "
            f"{exact} of {len(self.quantizers)} quantizers exact"
        )

    def summary(self) -> str:
        """Return what was written, and the verdict, in one line."""
        return f"{self.written()}; {self.conclusion()}"

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per quantizer: node, what it does, encoding, whether exact."""
        return [plain(record) for record in self.quantizers]

    def page(self) -> Page:
        """Return the page: quantizers, the graph written, and the check that decides."""
        found = self.deciding
        sections = [*sections_of(self.parts(), ("What became of the quantizers",))]
        picture = draw(stages_of(self.model))
        if picture is not None:
            sections.append(Section("The graph that was written", (picture,)))
        verdict, words = "not checked", self.written()
        if found is not None:
            verdict, words = str(found.verdict), f"{words}; {found.reason}"
            sections += check_sections(found)
        return Page(
            self.heading,
            f"{self.source} to {self.format}",
            tuple(sections),
            verdict,
            words,
            "open" if found is None else TONES[found.verdict],
        )

    def parts(self) -> Iterator[Part]:
        """Give the quantizers, what was written, notes, every comparison, the verdict."""
        if self.quantizers:
            cells = [
                (
                    one.node,
                    one.quantizer,
                    one.encoding,
                    "yes" if one.exact else f"no: {one.reason}",
                )
                for one in self.quantizers
            ]
            near = (k for k, one in enumerate(self.quantizers) if not one.exact)
            columns = ("quantizer", "what", "encoding", "exact")
            yield Table(columns, cells, marked=near, only="what is not exact")
        yield self.written()
        yield from (f"note: {note}" for note in self.notes)
        if self.own is not None:
            yield f"the source:  {self.own.sides()}: {self.own.summary()}"
        if self.check is not None:
            agree = self.check.first_divergence is None
            yield f"executor:    {self.check.sides()}: {self.check.summary()}"
            yield (
                f"             {self.check.layers} inner values compared"
                f"{', none differs' if agree and self.check.layers else ''}"
            )
        for result in (self.ort, self.ort_executor):
            if result is not None:
                yield f"onnxruntime: {result.sides()}: {result.summary()}"
        if self.data is not None and self.data.score is not None:
            yield score_in_words(self.data.score)
        yield self.conclusion()
