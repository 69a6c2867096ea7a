"""What a conversion did, for people and programs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from onnx_ir import Model

from qonnx_hub.equivalence.reports.report import CheckResult, plain
from qonnx_hub_adapters.protocol import QuantizerRecord


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What a conversion did.

    Attributes:
        source: What was converted.
        path: The file written; ``None`` where none was asked for.
        format: Its form.
        opset: Its standard opset.
        quantizers: What became of each quantizer.
        notes: Sentences that a user should read.
        check: The file against the source, on the executor; ``None`` where not checked.
        ort: The file on onnxruntime against the source; ``None`` where not run.
        own: What was read against the live model's own answer; ``None`` for files.
        model: The converted model.
    """

    source: str
    path: str | None
    format: str
    opset: int
    quantizers: tuple[QuantizerRecord, ...]
    notes: tuple[str, ...] = ()
    check: CheckResult | None = None
    ort: CheckResult | None = None
    own: CheckResult | None = None
    model: Model | None = field(default=None, compare=False, repr=False)

    def __bool__(self) -> bool:
        """Return whether the file was shown to compute what the source computes."""
        return bool(self.check)

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
            }
        )
        return data

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def summary(self) -> str:
        """Return what was written, in one line."""
        exact = sum(record.exact for record in self.quantizers)
        return (
            f"{self.source} -> {self.path}: {self.format}, opset {self.opset}, "
            f"{exact} of {len(self.quantizers)} quantizers exact"
        )
