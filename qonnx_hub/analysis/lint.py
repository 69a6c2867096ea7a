"""Everything in a model that a target refuses or computes wrongly, found before it happens."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import onnx
import onnx_ir
from onnx_ir import Model

from qonnx_hub.equivalence.runners.sides import ORT_OPTIMIZED, OrtRunner
from qonnx_hub.io.model_files import in_one_message
from qonnx_hub_adapters.dependencies import is_installed
from qonnx_hub_adapters.lint import finn as finn_rules
from qonnx_hub_adapters.lint import hls4ml as hls4ml_acceptance
from qonnx_hub_adapters.lint import onnxruntime
from qonnx_hub_adapters.lint import qonnx as qonnx_acceptance
from qonnx_hub_adapters.lint.finding import Finding, Severity, of_model
from qonnx_hub_adapters.onnx_reader import is_onnx
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import HubError, UsageError

_ON_THE_IR: Mapping[str, Callable[[Model], list[Finding]]] = {
    "hls4ml": hls4ml_acceptance.find,
    "finn": finn_rules.find,
    "qonnx": qonnx_acceptance.find,
}

TARGETS = (*_ON_THE_IR, "ort")
"""Tools that a model can be held against."""


@dataclass(frozen=True, slots=True)
class LintReport:
    """What a target would make of a model.

    Attributes:
        source: The model.
        target: The tool.
        findings: Everything found, in the order of the graph.
    """

    source: str
    target: str
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Return what the target refuses or computes wrongly."""
        return tuple(finding for finding in self.findings if finding.is_error)

    def __bool__(self) -> bool:
        """Return whether the target takes the model as it is."""
        return not self.errors

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data, fit for JSON."""
        rows = [{**asdict(f), "severity": f.severity.value} for f in self.findings]
        return {"source": self.source, "target": self.target, "findings": rows}

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(self.to_dict(), indent=2)


def lint_model(source: Any, model: Model, target: str, name: str) -> LintReport:
    """Return what a target would make of a model.

    Args:
        source: What was loaded; an ONNX file is looked at as it lies, too.
        model: It as IR.
        target: One of :data:`TARGETS`.
        name: How the report calls it.

    Raises:
        UsageError: There is no such target.
    """
    if target not in TARGETS:
        raise UsageError(f"nothing is known of '{target}'; there are: {', '.join(TARGETS)}")
    raw = _as_it_lies(source)
    if target == "ort":
        written = model if raw is None else raw
        return LintReport(name, target, tuple(_on_onnxruntime(written)))
    found = _ON_THE_IR[target](model)
    if raw is not None:
        found = [*_spelling(raw, target), *found]
    return LintReport(name, target, tuple(found))


def _as_it_lies(source: Any) -> Model | None:
    """Return an ONNX source without any of our passes; ``None`` for live models."""
    if isinstance(source, onnx.ModelProto):
        return onnx_ir.from_proto(source)
    if isinstance(source, str) and is_onnx(source):
        return onnx_ir.load(source)
    return None


def _spelling(raw: Model, target: str) -> list[Finding]:
    """Return what a target makes of names that other tools give the same operators."""
    found = []
    for node in raw.graph.all_nodes():
        alias = node.op_type in dialect.OPERATOR_ALIASES
        if alias and target == "finn":
            found.append(
                Finding(
                    Severity.REFUSED,
                    node.name or "",
                    node.op_type,
                    f"is called {node.op_type}",
                    "FINN looks for Quant by name and leaves the node in the graph",
                    finn_rules.EXPORT,
                )
            )
    return found


def _on_onnxruntime(written: Model) -> list[Finding]:
    found = onnxruntime.find(written)
    if any(finding.is_error for finding in found) or not is_installed("onnxruntime"):
        return found
    try:
        OrtRunner(in_one_message(written), "the file", optimize=ORT_OPTIMIZED).ready()
    except HubError as error:
        text = " ".join(str(error).split())
        reason, remedy = "is not loaded with default options", "convert it with --to qcdq"
        found.append(of_model(Severity.REFUSED, reason, text, remedy))
    return found
