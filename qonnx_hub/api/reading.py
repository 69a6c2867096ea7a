"""What is read and written as it is: load, save."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnx_ir import Model

from qonnx_hub.conversion.validation import check_source, feeds_for_check
from qonnx_hub.io import registry
from qonnx_hub.io.model_files import has_external_data, write_artifact, write_models
from qonnx_hub.io.python_sources import resolve
from qonnx_hub_adapters.features import require_declared
from qonnx_hub_adapters.protocol import (
    Artifact,
    ReadsAsWritten,
    export_options,
    import_options,
)


def load(
    source: Any,
    from_: str | None = None,
    *,
    weights: str | None = None,
    args: tuple[Any, ...] = (),
    custom_objects: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    allow_code: bool = False,
    verify: bool = True,
) -> Model:
    """Return any source as a verified IR model. The source is not changed.

    Args:
        source: Path of a file, onnx.ModelProto or its bytes, onnx_ir.Model, a ModelWrapper, a
            live model of a framework that an adapter reads, or "package.module:callable" that
            makes one.
        from_: Name of the format; found by asking the adapters otherwise.
        weights: Path of a weights file, for sources that keep them apart.
        args: Sample inputs, for sources that must be traced.
        custom_objects: Name -> class, for sources with the user's own layers.
        options: Options that only one adapter has, by name.
        allow_code: Run code that the file holds: Lambda layers of Keras, SavedModel folders,
            pickles. Only for files that you trust.
        verify: Whether to compare what was traced on a sample with the live model's own
            answer, where inputs for it can be generated.

    Raises:
        UnknownAdapterError: No such format, or nobody reads the source.
        SourceError: It cannot be read.
        InvalidModelError: It breaks rules of the IR; all of them are listed.
        UnsupportedGraphError: It holds what the IR cannot say exactly.
        ConversionError: What was read computes something else than the live model.
    """
    label = label_of(source)
    given = import_options(weights, args, custom_objects, options, allow_code)
    importer, source = registry.open_source(source, from_, given)
    model = importer.load(source, given)
    if verify and given.args:
        feeds = feeds_for_check(model, None, 0, [])
        if feeds is not None:
            check_source(importer, source, model, feeds, label)
    return model


def load_to_run(source: Any, from_: str | None = None) -> Model:
    """Return a source as :func:`run` takes it: files of integer operators as they are written.

    :func:`load` reads them as quantizers and float layers, whose sums may round; run as they
    are written, they give the very integers.

    Args:
        source: As in :func:`load`; an IR model is used as it is.
        from_: Name of the format; it is read as that format then.

    Raises:
        HubError: As in :func:`load`.
    """
    if isinstance(source, Model):
        return source
    source = resolve(str(source) if isinstance(source, Path) else source)
    importer = registry.find_importer(source, from_)
    if isinstance(importer, ReadsAsWritten):
        return importer.load_as_written(source)
    if from_ is None and importer.info.name == "qlinear":
        from_ = "qonnx"
    return load(source, from_)


def save(model: Model, path: str | Path, format: str = "qonnx", **options: Any) -> Artifact:
    """Write an IR model in a form, whole or not at all, and return what was written.

    Args:
        model: An IR model.
        path: The file to write; for forms that are folders, the folder.
        format: Name of the form.
        **options: ``opset``, ``allow_lossy``, and what only the form's exporter takes, as
            ``encoding`` and ``stored_weights`` of "qcdq".

    Raises:
        NotExactError: The form cannot say the model exactly; every reason is listed.
    """
    exporter = registry.find_exporter(format)
    require_declared(exporter.info, model)
    artifact = exporter.export(model, export_options(**options))
    beside = has_external_data(model)
    write_artifact(artifact, path, exporter.info.folder, external=beside)
    return artifact


def save_parts(parts: Mapping[str | Path, Model]) -> None:
    """Write IR models that belong together as QONNX files: all of them, or none.

    Args:
        parts: Path -> model.

    Raises:
        NotExactError: The form cannot say one exactly.
        UsageError: A file cannot be written, or is that of two parts.
    """
    exporter = registry.find_exporter("qonnx")
    written: dict[str | Path, Model] = {}
    for path, part in parts.items():
        require_declared(exporter.info, part)
        written[path] = exporter.export(part, export_options()).model
    write_models(written, external=any(map(has_external_data, parts.values())))


def as_model(source: Any, from_: str | None = None) -> Model:
    """Return a source as an IR model; one that is given is not copied."""
    return source if isinstance(source, Model) else load(source, from_)


def label_of(source: Any) -> str:
    """Return how reports call a source."""
    if isinstance(source, (str, Path)):
        return str(source)
    return f"the given {type(source).__name__}"
