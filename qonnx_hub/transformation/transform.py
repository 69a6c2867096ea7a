"""Transforming a model by passes: run, compare before and after, write."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from onnx_ir import Model

from qonnx_hub.conversion.validation import feeds_for_check
from qonnx_hub.equivalence.acceptance import Acceptance
from qonnx_hub.equivalence.check import check_runners
from qonnx_hub.equivalence.inputs.batches import file_batch
from qonnx_hub.equivalence.options import CheckOptions
from qonnx_hub.equivalence.reports.report import CheckResult
from qonnx_hub.equivalence.reports.text import score_in_words
from qonnx_hub.equivalence.request import check_opened, require_accepted
from qonnx_hub.equivalence.runners.sides import ExecutorRunner
from qonnx_hub.equivalence.verdicts import Verdict
from qonnx_hub.executor.explained import explained
from qonnx_hub.io import registry
from qonnx_hub.io.model_files import has_external_data, write_model
from qonnx_hub.io.preprocessing import Preprocessing
from qonnx_hub.passes import Step, StepRecord, run
from qonnx_hub.reporting.plain_data import plain
from qonnx_hub.reporting.report import Part, Report
from qonnx_hub.transformation.layouts import in_layout_of_first, match_layouts
from qonnx_hub_adapters.features import require_declared
from qonnx_hub_adapters.protocol import ExportOptions, Feeds
from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.errors import ConversionError
from qonnx_hub_ir.passes import InferShapes
from qonnx_hub_ir.quantizers import Array


@dataclass(frozen=True, slots=True, repr=False)
class TransformReport(Report):
    """What passes did to a model.

    Attributes:
        source: What was transformed.
        path: The file written; ``None`` where none was asked for.
        format: Its form.
        steps: What each pass did, in order.
        notes: Sentences that a user should read.
        check: The result against the model before; ``None`` where not compared.
        model: The transformed model.
        asked: Names of the passes and pipelines that were asked for.
    """

    schema: ClassVar[str] = "transform/1"
    heading: ClassVar[str] = "Transformation"

    source: str
    path: str | None
    format: str
    steps: tuple[StepRecord, ...]
    notes: tuple[str, ...] = ()
    check: CheckResult | None = None
    model: Model = field(default=None, compare=False, repr=False)  # type: ignore[assignment]
    asked: tuple[str, ...] = ()

    def conclusion(self) -> str:
        """Return the verdict and what it rests on, in one line; no verdict if not compared."""
        if self.check is None:
            return "not compared"
        return f"{self.check.verdict}: {self.check.reason}"

    @property
    def intended(self) -> bool:
        """Whether a pass changed values by intention."""
        return any(s.modified and s.effect is Effect.VALUES for s in self.steps)

    @property
    def modified(self) -> bool:
        """Whether any pass changed the model."""
        return any(step.modified for step in self.steps)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data, fit for JSON."""
        data: dict[str, Any] = plain(
            {
                "source": self.source,
                "path": self.path,
                "format": self.format,
                "modified": self.modified,
                "steps": self.steps,
                "notes": self.notes,
                "check": self.check,
            }
        )
        return data

    def summary(self) -> str:
        """Return how many passes changed something, and the verdict, in one line."""
        changed = sum(step.modified for step in self.steps)
        found = f"{self.source} -> {self.path}: {self.format}, "
        return f"{found}{changed} of {len(self.steps)} passes changed it; {self.conclusion()}"

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per pass: its options, what changed, seconds."""
        return [plain(step) for step in self.steps]

    def parts(self) -> Iterator[Part]:
        """Give every pass that was asked for or changed something, notes and the verdict."""
        for step in self.steps:
            # Of a pipeline, only what changed something is worth a line.
            if step.modified or step.name in self.asked:
                yield _step_in_words(step)
        yield from (f"note: {note}" for note in self.notes)
        if self.check is not None:
            yield f"executor: {self.check.summary()}"
            if self.check.score is not None:
                yield score_in_words(self.check.score)
        if self.path is not None:
            yield f"{self.source} -> {self.path}: {self.format}"
        yield self.conclusion()


def _step_in_words(step: StepRecord) -> str:
    options = ", ".join(f"{name}={value}" for name, value in step.options.items())
    name = f"{step.name}:{options}" if options else step.name
    if not step.modified:
        return f"{name}: nothing to do"
    changes = [f"{count:+d} {operator}" for operator, count in step.operators.items()]
    if step.constants:
        changes.append(f"{step.constants:+d} constants")
    return f"{name}: {', '.join(changes) or 'changed, no node more or fewer'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformOptions:
    """How a transformation is done.

    Attributes:
        to: Name of the form to write.
        opset: Standard opset of the file; the form's own choice by default.
        check: Compare before and after.
        samples: Samples of the comparison's generated inputs.
        seed: Their seed.
        inputs: Inputs of the user's own for the comparison, by name; predictions are counted
            on them.
        labels: The right class of every sample.
        acceptance: How predictions are counted, and which bounds must be kept.
        preprocess: What is done to the inputs given, before a model takes them.
    """

    to: str = "qonnx"
    opset: int | None = None
    check: bool = True
    samples: int | None = None
    seed: int = 0
    inputs: Mapping[str, Array] | None = None
    labels: Array | None = None
    acceptance: Acceptance = field(default_factory=Acceptance)
    preprocess: Preprocessing | None = None


def transform_model(
    model: Model,
    steps: Sequence[Step],
    path: str | Path | None,
    label: str,
    options: TransformOptions,
) -> TransformReport:
    """Return what passes make of a model, which itself is not changed.

    Args:
        model: An IR model.
        steps: Passes, or texts that name passes or pipelines.
        path: The file to write; ``None`` writes nothing.
        label: Name of the model in the report.
        options: How it is done.

    Raises:
        UsageError: An unknown pass, pipeline or option.
        PassError: A pass cannot transform the model, fails, or breaks it.
        ConversionError: The result computes something else although no pass says so.
        NotExactError: The form cannot say the result exactly.
    """
    result = model.clone()
    with explained(model, label):
        records = run(result, steps)
        if any(record.modified for record in records):
            InferShapes()(result)
    notes: list[str] = []
    compared = None
    if options.check:
        with explained(model, label):
            compared = _compare(model, result, records, label, options, notes)
    if path is not None:
        exporter = registry.find_exporter(options.to)
        require_declared(exporter.info, result)
        with explained(model, label):
            artifact = exporter.export(result, ExportOptions(opset=options.opset))
        notes.extend(artifact.notes)
        write_model(artifact.model, path, external=has_external_data(model))
    return TransformReport(
        source=label,
        path=None if path is None else str(path),
        format=options.to,
        steps=records,
        notes=tuple(notes),
        check=compared,
        model=result,
        asked=tuple(step.partition(":")[0].strip() for step in steps if isinstance(step, str)),
    )


def _words(records: Sequence[StepRecord]) -> str:
    names = ", ".join(r.name for r in records if r.effect is not Effect.EXACT)
    return f"{names} rounds parameters anew, as said"


def _compare(
    before: Model,
    after: Model,
    records: Sequence[StepRecord],
    label: str,
    wanted: TransformOptions,
    notes: list[str],
) -> CheckResult | None:
    """Return how the result compares to the model before; ``None``, and a note, if it cannot.

    Raises:
        ConversionError: It differs beyond what the passes promise.
    """
    changing = [record for record in records if record.modified]
    if not changing:
        notes.append("no pass found anything to change")
        return None
    layout = match_layouts(before, after)
    if layout is None:
        names = ", ".join(r.name for r in changing if r.effect is not Effect.EXACT)
        notes.append(f"not compared: inputs or outputs have other shapes now ({names})")
        return None
    unit = math.lcm(file_batch(before), file_batch(after))
    samples = None if wanted.samples is None else math.ceil(wanted.samples / unit) * unit
    if samples is None and unit > file_batch(before):
        samples = unit
    feeds: Feeds | None = None
    if wanted.inputs is None:
        feeds = feeds_for_check(before, samples, wanted.seed, notes)
        if feeds is None:
            return None
    made = in_layout_of_first(after, layout) if layout.moves else after
    a, b = ExecutorRunner(before, label), ExecutorRunner(made, "the transformed model")
    values = {record.name for record in changing if record.effect is Effect.VALUES}
    rounds = any(record.effect is Effect.ROUNDING for record in changing)
    options = CheckOptions(level="output")
    if wanted.inputs is not None:
        options = replace(
            options,
            score=True,
            inputs=wanted.inputs,
            labels=wanted.labels,
            acceptance=wanted.acceptance,
            preprocess=wanted.preprocess,
            proof_seconds=0,
        )
    if values or rounds:
        options = replace(options, folded=_words(changing))
    if unit != file_batch(before):
        # A proof takes both for the same number of samples.
        options = replace(options, proof_seconds=0)
    if feeds is None:
        result = check_opened(a, b, options)
        require_accepted(result, f"what the passes made of {label}")
    else:
        result = check_runners(a, b, feeds, options)
    if values:
        names = ", ".join(sorted(values))
        notes.append(f"the values may differ: {names} changes them by intention")
        return result
    if result.verdict is not Verdict.DIFFERENT:
        return result
    raise ConversionError(
        f"the passes changed what {label} computes: {result.summary()}; nothing was written. "
        "This is a defect of a pass: run them one by one to find it"
    )
