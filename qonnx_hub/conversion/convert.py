"""Converting a source: read, export, check, write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnx_ir import Model

from qonnx_hub.conversion.litert_check import LitertAnswers, check_on_litert
from qonnx_hub.conversion.onnxruntime_check import OrtAnswers, check_on_onnxruntime
from qonnx_hub.conversion.options import ConvertOptions
from qonnx_hub.conversion.report import ConversionReport
from qonnx_hub.conversion.validation import (
    check_around,
    check_artifact,
    check_on_data,
    check_source,
    feeds_for_check,
    nodes_not_run,
    why_not_compared,
)
from qonnx_hub.equivalence.inputs.generate import generate_inputs
from qonnx_hub.equivalence.reports.report import CheckResult
from qonnx_hub.equivalence.runners.sides import run_label
from qonnx_hub.executor.explained import explained
from qonnx_hub.io import registry
from qonnx_hub.io.model_files import (
    fits_one_message,
    has_external_data,
    in_one_message,
    write_artifact,
)
from qonnx_hub.reporting.progress import stage
from qonnx_hub_adapters.features import require_declared
from qonnx_hub_adapters.protocol import Artifact, Exporter, ExportOptions
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import ExecutionError
from qonnx_hub_ir.passes import ChangeLayout
from qonnx_hub_ir.passes.quantizers.zero_point_pairs import restore_order


def convert_source(
    source: Any, path: str | Path | None, label: str, options: ConvertOptions
) -> ConversionReport:
    """Convert a source, check the result against it, and write it.

    Args:
        source: As in :func:`qonnx_hub.load`.
        path: The file to write, or the folder for forms that are folders; ``None`` converts
            without writing.
        label: How reports call the source.
        options: How it is done.

    Raises:
        NotExactError: The form cannot say the model exactly; every reason is listed.
        ConversionError: The result computes something else.
        HubError: As in :func:`qonnx_hub.load`.
    """
    stage(f"reading {label}")
    # Once: a callable may build another model at every call.
    importer, source = registry.open_source(source, options.from_, options.reading)
    model = importer.load(source, options.reading)
    told = (dialect.NOTE, dialect.BOUNDED)
    notes = [model.metadata_props[key] for key in told if key in model.metadata_props]
    if marked := restore_order(model):
        notes.append(_order_in_words(marked))
    samples, seed = options.samples, options.seed
    stage("asking the source")
    feeds = feeds_for_check(model, samples, seed, notes) if options.check else None
    own_result = None if feeds is None else check_source(importer, source, model, feeds, label)
    if ChangeLayout(options.layout)(model).modified and feeds is not None:
        feeds = generate_inputs(model, samples, seed)
    exporter = registry.find_exporter(options.to)
    stage(f"making {options.to}")
    with explained(model, label):
        artifact = _export(model, exporter, options)
    notes.extend(artifact.notes)
    if artifact.original is not None:
        # The IR is not what was written from: how near it is does not matter.
        own_result = None
        notes = [note for note in notes if note != model.metadata_props.get(dialect.BOUNDED)]
    result, ort, message = None, OrtAnswers(), None
    litert = LitertAnswers()
    if feeds is None and options.check:
        told_by = artifact.original or model
        result = _compared_around(told_by, artifact, label, options, notes)
    if feeds is not None:
        compared = in_one_message(artifact.compared or artifact.model)
        # Compared with its own answer, what was read stands for the source.
        read = (
            f"{label} as read"
            if own_result is not None
            else run_label(importer, source, label)
        )
        if marked:
            read = f"{read} in the order of its source"
        told_by = artifact.original or model
        if artifact.original is not None:
            read = f"{label} on TFLite's reference kernels"
        try:
            with explained(model, label):
                stage("checking the result")
                result = check_artifact(told_by, artifact, compared, feeds, read, options.to)
                stage("asking other runtimes")
                ort = check_on_onnxruntime(source, told_by, artifact, compared, feeds)
                litert = check_on_litert(source, told_by, artifact, compared, feeds)
        except ExecutionError:
            why = why_not_compared(told_by, feeds)
            if own_result is not None or not why:
                raise
            result = None
            notes.append(why)
        notes.extend((*ort.notes, *litert.notes))
        message = compared if artifact.compared is None else None
    on_data = None
    if options.data is not None:
        stage("comparing predictions")
        made = in_one_message(artifact.compared or artifact.model)
        with explained(model, label):
            on_data = check_on_data(model, made, options.data, label, options.to)
    if path is not None:
        stage(f"writing {path}")
        beside = has_external_data(model)
        write_artifact(artifact, path, exporter.info.folder, external=beside, message=message)
    return ConversionReport(
        source=label,
        path=None if path is None else str(path),
        format=options.to,
        opset=artifact.model.opset_imports[""],
        quantizers=artifact.quantizers,
        notes=tuple(notes),
        check=result,
        ort=ort.first,
        ort_executor=ort.executor,
        own=own_result,
        tflite_kernels=litert.kernels,
        data=on_data,
        model=artifact.model,
    )


_MOST_NAMES = 3


def _order_in_words(marked: list[str]) -> str:
    """Return what a conversion of marked quantizers compares, and what it does not."""
    named = ", ".join(f"'{name}'" for name in marked[:_MOST_NAMES])
    more = f" and {len(marked) - _MOST_NAMES} more" if len(marked) > _MOST_NAMES else ""
    return (
        f"{len(marked)} quantizers are marked as near: {named}{more}. Source order restored: "
        "they round before they add the zero point, and so they were compared; readers of the "
        "file as it stands add it before, which at ties gives another value ('check' shows it)"
    )


def _compared_around(
    model: Model, artifact: Artifact, label: str, options: ConvertOptions, notes: list[str]
) -> CheckResult | None:
    """Return how what was made compares around nodes that nothing runs."""
    if not (fits_one_message(model) and nodes_not_run(model)):
        return None
    message = in_one_message(artifact.compared or artifact.model)
    asked = options.samples, options.seed
    with explained(model, label):
        result, problem = check_around(model, artifact, message, asked, label, options.to)
    notes.extend([problem] if problem else [])
    return result


def _export(model: Model, exporter: Exporter, options: ConvertOptions) -> Artifact:
    """Return the model in the exporter's form.

    Options that say how quantizers are encoded go only to exporters that have them. A profile
    and self-containment are promises about the file: an exporter without them must refuse.
    """
    require_declared(exporter.info, model)
    shared = ("encoding", "stored_weights", "dialect")
    extra = {
        name: getattr(options, name) for name in shared if name in exporter.info.option_names
    }
    asked = {"profile": options.profile, "self_contained": options.self_contained}
    extra |= {name: value for name, value in asked.items() if value}
    extra |= options.target_options
    wanted = ExportOptions(opset=options.opset, allow_lossy=options.allow_lossy, extra=extra)
    return exporter.export(model, wanted)
