"""Everything in a model that a target refuses or computes wrongly, found before it happens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from onnx_ir import Model

from qonnx_hub.analysis.fused_layers import FusedLayer, fused_layers
from qonnx_hub.analysis.type_overflow import find_overflows
from qonnx_hub.equivalence.runners.sides import ORT_OPTIMIZED, OrtRunner
from qonnx_hub.executor.explained import explained
from qonnx_hub.io import registry
from qonnx_hub.io.model_files import in_one_message
from qonnx_hub.io.python_sources import resolve
from qonnx_hub.io.registry import lint_targets
from qonnx_hub.reporting.plain_data import plain
from qonnx_hub.reporting.report import Part, Report
from qonnx_hub.reporting.tables import Table
from qonnx_hub_adapters.dependencies import is_installed, one_line
from qonnx_hub_adapters.hls4ml.file_names import CONFIG, MODEL, is_folder
from qonnx_hub_adapters.hls4ml.folder import read_config
from qonnx_hub_adapters.lint.finding import LintFinding, Severity
from qonnx_hub_adapters.lint.rules import LintRule, LintTarget, find
from qonnx_hub_adapters.onnx_reader import is_onnx, parse
from qonnx_hub_ir.choices import require_choice
from qonnx_hub_ir.errors import HubError, SourceError, UsageError
from qonnx_hub_ir.quantizers import Array


@dataclass(frozen=True, slots=True, repr=False)
class LintReport(Report):
    """What a target would make of a model.

    Attributes:
        source: The model.
        target: The tool.
        findings: Everything found, in the order of the graph.
        fused: What onnxruntime runs in integers, where that was asked; empty for a file that
            it does not load.
        shown: Inputs that show findings about the types of a config, one sample for each.
        known: How many findings a baseline has left out.
    """

    schema: ClassVar[str] = "lint/1"
    heading: ClassVar[str] = "What a target takes"

    source: str
    target: str
    findings: tuple[LintFinding, ...]
    fused: tuple[FusedLayer, ...] | None = None
    shown: Mapping[str, Array] = field(default_factory=dict)
    known: int = 0

    def with_findings(self, findings: tuple[LintFinding, ...], known: int) -> LintReport:
        """Return the report with other findings, and how many of its own are left out."""
        return replace(self, findings=findings, known=known)

    @property
    def errors(self) -> tuple[LintFinding, ...]:
        """Return what the target refuses or computes wrongly."""
        return tuple(finding for finding in self.findings if finding.is_error)

    def __bool__(self) -> bool:
        """Return whether the target takes the model as it is."""
        return not self.errors

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data, fit for JSON."""
        rows = [{**asdict(f), "severity": f.severity.value} for f in self.findings]
        data: dict[str, Any] = {"source": self.source, "target": self.target, "findings": rows}
        if self.known:
            data["known"] = self.known
        if self.fused is not None:
            data["fused"] = [asdict(layer) for layer in self.fused]
        return data

    def summary(self) -> str:
        """Return the verdict in one line."""
        errors, notes = len(self.errors), len(self.findings) - len(self.errors)
        verdict = (
            f"{errors} error{'s' if errors > 1 else ''}" if errors else "takes it as it is"
        )
        more = f", {notes} note{'s' if notes > 1 else ''}" if notes else ""
        more += f", {self.known} known of the baseline left out" if self.known else ""
        return f"{self.source}: {self.target}: {verdict}{more}"

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per finding: severity, node, reason, effect, remedy."""
        return [plain(one) for one in self.findings]

    def parts(self) -> Iterator[Part]:
        """Give the findings, what onnxruntime runs in integers, and the verdict."""
        if self.findings:
            cells = [
                (
                    *(alike[0].severity.value, _nodes(alike)),
                    *(alike[0].reason, alike[0].effect, alike[0].remedy),
                )
                for alike in _grouped(self.findings)
            ]
            yield Table(("", "node", "what", "effect", "remedy"), cells)
        if self.fused:
            layers = [
                (one.node, one.op, one.runs_as or "floats", one.reason) for one in self.fused
            ]
            yield Table(("node", "operator", "runs as", "why"), layers)
            whole = sum(1 for one in self.fused if one.runs_as)
            yield f"{whole} of {len(layers)} nodes run in integers"
        yield self.summary()


_MOST_NODES = 4
"""Nodes that a row of findings names; the others are counted."""


def _grouped(findings: tuple[LintFinding, ...]) -> list[list[LintFinding]]:
    """Return findings that differ in their node alone as one group, in order."""
    groups: dict[LintFinding, list[LintFinding]] = {}
    for finding in findings:
        groups.setdefault(replace(finding, node=""), []).append(finding)
    return list(groups.values())


def _nodes(alike: list[LintFinding]) -> str:
    """Return the nodes of findings that say the same, the first few by name."""
    names = [one.node for one in alike if one.node]
    if len(alike) == 1:
        return f"{alike[0].op} {alike[0].node}".strip()
    shown, left = names[:_MOST_NODES], len(alike) - _MOST_NODES
    more = f" and {left} more (--json)" if left > 0 else ""
    return f"{len(alike)} {alike[0].op}: {', '.join(shown)}{more}"


def lint_source(
    source: Any,
    target: str,
    from_: str | None,
    name: str,
    *,
    fused: bool = False,
    config: str | Path | None = None,
) -> LintReport:
    """Return what a target would make of any source.

    Args:
        source: As in ``load``; a folder for hls4ml brings its config.
        target: One of :func:`lint_targets`.
        from_: Name of the source's format.
        name: How the report calls it.
        fused: Ask onnxruntime which layers it runs in integers.
        config: Path of a config of hls4ml.

    Raises:
        UsageError: As :func:`lint_model`, or a config for another target than "hls4ml".
        HubError: The source or the config cannot be read.
    """
    if config is not None and target != "hls4ml":
        raise UsageError(f"a config belongs to the target 'hls4ml', not '{target}'")
    types = None
    source = resolve(str(source) if isinstance(source, Path) else source)
    if target == "hls4ml" and (config is not None or is_folder(source)):
        types = read_config(Path(config or Path(source) / CONFIG))["HLSConfig"]
    if is_folder(source):
        source = str(Path(source) / MODEL)
    try:
        model = registry.read_model(source, from_)
    except SourceError:
        # What a target refuses in the file as it lies may be why it cannot be read.
        report = lint_file(source, target, name)
        if report is None:
            raise
        return report
    return lint_model(source, model, target, name, fused=fused, config=types)


def lint_model(
    source: Any,
    model: Model,
    target: str,
    name: str,
    *,
    fused: bool = False,
    config: Mapping[str, Any] | None = None,
) -> LintReport:
    """Return what a target would make of a model.

    Args:
        source: What was loaded; an ONNX file is looked at as it lies, too.
        model: It as IR.
        target: One of :func:`lint_targets`.
        name: How the report calls it.
        fused: Ask onnxruntime which layers it runs in integers.
        config: What hls4ml calls HLSConfig, to be held against the ranges of the model.

    Raises:
        AdapterConflictError: Two distributions claim one target.
        UsageError: There is no such target, or it is another one than "ort" where ``fused``
            is asked.
        MissingDependencyError: Layers are asked for, and onnxruntime is not installed.
    """
    if fused and target != "ort":
        raise UsageError(
            f"fused layers are those of onnxruntime: target 'ort', not '{target}'"
        )
    known_targets = lint_targets()
    require_choice("target", target, known_targets.names())
    table: LintTarget = known_targets.load(target)
    # An ONNX source is also looked at as it lies, without any of our passes.
    written = _as_it_lies(source) if is_onnx(source) else model
    with explained(model, name):
        found = [*find(table.file_rules, written), *find(table.rules, model)]
    if target == "ort":
        found.extend(_on_onnxruntime(written, found))
    layers = _layers(written, found) if fused else None
    shown: dict[str, Array] = {}
    if config is not None:
        more, shown = find_overflows(written, config)
        found.extend(more)
    return LintReport(name, target, tuple(found), layers, shown)


def lint_file(source: Any, target: str, name: str) -> LintReport | None:
    """Return what a target refuses in a file that cannot be read as IR.

    Args:
        source: What cannot be loaded.
        target: One of :func:`lint_targets`.
        name: How the report calls it.

    Returns:
        ``None`` where the rules for files as they lie find no error, or it is no ONNX file.
    """
    known_targets = lint_targets()
    if target not in known_targets.names() or not is_onnx(source):
        return None
    table: LintTarget = known_targets.load(target)
    try:
        found = tuple(find(table.file_rules, _as_it_lies(source)))
    except Exception:  # nothing can be parsed, or nodes break rules of their operators
        return None
    report = LintReport(name, target, found)
    return report if report.errors else None


def lint_rules() -> list[tuple[str, LintRule]]:
    """Return every rule with its target, in the order in which they are applied.

    Raises:
        AdapterConflictError: Two distributions claim one target.
    """
    known_targets = lint_targets()
    tables: list[tuple[str, LintTarget]] = [
        (n, known_targets.load(n)) for n in known_targets.names()
    ]
    return [(n, rule) for n, table in tables for rule in (*table.file_rules, *table.rules)]


def _as_it_lies(source: Any) -> Model:
    return source if isinstance(source, Model) else parse(source)


def _on_onnxruntime(written: Model, found: list[LintFinding]) -> list[LintFinding]:
    """Return what onnxruntime itself says of a file in which the rules find no error."""
    if any(finding.is_error for finding in found) or not is_installed("onnxruntime"):
        return []
    try:
        OrtRunner(in_one_message(written), "the file", optimize=ORT_OPTIMIZED).ready()
    except HubError as error:
        return [_not_loaded(error)]
    return []


def _layers(written: Model, found: list[LintFinding]) -> tuple[FusedLayer, ...]:
    """Return what runs in integers; none, and one finding, of a file that is not loaded."""
    if any(finding.severity is Severity.REFUSED for finding in found):
        return ()
    try:
        return fused_layers(written)
    except SourceError as error:
        found.append(_not_loaded(error))
        return ()


def _not_loaded(error: HubError) -> LintFinding:
    reason, remedy = "is not loaded with default options", "convert it with --to qcdq"
    return LintFinding(Severity.REFUSED, "", "model", reason, one_line(error), remedy)
