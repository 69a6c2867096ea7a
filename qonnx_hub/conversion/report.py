"""What a conversion did, for people and programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from onnx_ir import Model

from qonnx_hub.conversion.litert_check import KernelAnswer
from qonnx_hub.equivalence.reports.report import CheckResult
from qonnx_hub.equivalence.verdicts import ORDER, Verdict
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
        model: The converted model.
    """

    schema: ClassVar[str] = "convert/1"

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
    model: Model | None = field(default=None, compare=False, repr=False)

    def __bool__(self) -> bool:
        """Return whether the file was shown to compute what the source computes."""
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
        return "not checked" if found is None else f"{found.verdict}: {found.reason}"

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
            yield Table(("quantizer", "what", "encoding", "exact"), cells)
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
        yield self.conclusion()
