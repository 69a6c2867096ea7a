"""What makes another model: convert, transform, routes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qonnx_hub.api.reading import as_model, label_of
from qonnx_hub.conversion.convert import convert_source
from qonnx_hub.conversion.options import ConvertOptions, data_options
from qonnx_hub.conversion.report import ConversionReport
from qonnx_hub.equivalence.acceptance import Acceptance
from qonnx_hub.io.preprocessing import Preprocessing, parse_preprocessing
from qonnx_hub.reporting.progress import Progress, watched
from qonnx_hub_adapters.protocol import import_options
from qonnx_hub_ir import choices
from qonnx_hub_ir.quantizers import Array

if TYPE_CHECKING:
    from qonnx_hub.conversion.routes import RoutesReport
    from qonnx_hub.passes import Step
    from qonnx_hub.transformation.transform import TransformReport


def convert(
    source: Any,
    path: str | Path | None = None,
    to: str = "qonnx",
    *,
    from_: str | None = None,
    check: bool = True,
    samples: int | None = None,
    seed: int = 0,
    opset: int | None = None,
    allow_lossy: bool = False,
    encoding: choices.EncodingName = "auto",
    stored_weights: choices.StoredWeights = "int8",
    dialect: choices.Dialect = "source",
    layout: choices.ImageLayout = "keep",
    profile: str = "",
    self_contained: bool = False,
    target_options: Mapping[str, Any] | None = None,
    inputs: Any = None,
    labels: Array | None = None,
    max_accuracy_drop: float | None = None,
    min_agreement: float | None = None,
    metric: choices.Metric = "accuracy",
    top_k: int = 1,
    threshold: float | None = None,
    preprocess: str | Preprocessing | None = None,
    progress: bool | Progress | None = None,
    **load_options: Any,
) -> ConversionReport:
    """Convert a source, check the result against it, and write it.

    The file is written only after the check: a conversion that changes the function leaves
    nothing behind. Where onnxruntime is installed and the form is standard ONNX, the file must
    load there with default options, and its answers are compared as well.

    Args:
        source: As in :func:`load`.
        path: The file to write, or the folder for forms that are folders; ``None`` converts
            without writing.
        to: Name of the form.
        from_: Name of the source's format.
        check: Whether to compare the result with the source.
        samples: Samples of the check's generated inputs.
        seed: Seed of the check's generated inputs.
        opset: Standard opset of the file; by default the source's, or what its nodes need.
        allow_lossy: Write near forms where no exact one exists.
        encoding: Which encodings of quantizers to use, for forms that have several.
        stored_weights: Narrowest integers in which weights are stored, for such forms.
        dialect: "onnx" for standard operators only, "ort" for those of onnxruntime as well,
            "source" for those where the source has some.
        layout: Of image inputs and outputs: "keep", "nchw" or "nhwc".
        profile: Whose rules beyond the form's own the file shall keep, such as "finn".
        self_contained: Define every operator of the form within the file.
        target_options: Options that only the form's exporter has, by name.
        inputs: Data to count predictions on, as in :func:`check`.
        labels: The right class of every sample, or the right number.
        max_accuracy_drop: How much of the metric may be lost on the inputs and labels given;
            0.01 is one point of a hundred. Nothing is written where a bound is not kept.
        min_agreement: Share of the samples on which predictions must agree, likewise.
        metric: "accuracy" of classes, "auc" of their scores, or "r2" of numbers.
        top_k: A class is right, or agreed on, among so many of the best.
        threshold: From which score on a single output says yes.
        preprocess: What is done to ``inputs`` before they are run, as in :func:`check`.
        progress: Whether to show a bar; by default on a terminal and in a notebook. A function
            is called with (samples done, samples in all) instead.
        **load_options: As in :func:`load`.

    Raises:
        NotExactError: The form cannot say the model exactly; every reason is listed.
        ConversionError: The result computes something else, or does not keep a bound.
        HubError: As in :func:`load`.
    """
    options = ConvertOptions(
        to=to,
        from_=from_,
        reading=import_options(**load_options),
        check=check,
        samples=samples,
        seed=seed,
        opset=opset,
        allow_lossy=allow_lossy,
        encoding=encoding,
        stored_weights=stored_weights,
        dialect=dialect,
        layout=layout,
        profile=profile,
        self_contained=self_contained,
        target_options=target_options or {},
        data=data_options(
            inputs,
            labels,
            Acceptance(max_accuracy_drop, min_agreement, metric, top_k, threshold),
            preprocess,
        ),
    )
    with watched(progress):
        return convert_source(source, path, label_of(source), options)


def transform(
    source: Any,
    passes: Sequence[Step],
    path: str | Path | None = None,
    *,
    from_: str | None = None,
    to: str = "qonnx",
    opset: int | None = None,
    check: bool = True,
    samples: int | None = None,
    seed: int = 0,
    inputs: Mapping[str, Array] | None = None,
    labels: Array | None = None,
    max_accuracy_drop: float | None = None,
    min_agreement: float | None = None,
    metric: choices.Metric = "accuracy",
    top_k: int = 1,
    threshold: float | None = None,
    preprocess: str | Preprocessing | None = None,
    progress: bool | Progress | None = None,
) -> TransformReport:
    """Run passes over a model, compare before and after, and write the result.

    The source is not changed; ``report.model`` is the transformed model. Nothing is written
    where a pass changed what the model computes without saying that it does.

    Args:
        source: As in :func:`load`; an IR model is used as it is.
        passes: Passes, or texts that name passes or pipelines, such as
            ``["cleanup", "change_batch:batch=4"]``; :mod:`qonnx_hub.passes` lists them.
        path: The file to write; ``None`` transforms without writing.
        from_: Name of the source's format.
        to: Name of the form to write.
        opset: Standard opset of the file.
        check: Whether to compare the model before and after, on the executor.
        samples: Samples of the comparison's generated inputs.
        seed: Their seed.
        inputs: Input name -> array, to compare on instead; predictions are counted on it.
        labels: The right class of every sample, or the right number.
        max_accuracy_drop: How much of the metric may be lost on the inputs and labels given;
            0.01 is one point of a hundred. Nothing is written where a bound is not kept.
        min_agreement: Share of the samples on which predictions must agree, likewise.
        metric: "accuracy" of classes, "auc" of their scores, or "r2" of numbers.
        top_k: A class is right, or agreed on, among so many of the best.
        threshold: From which score on a single output says yes.
        preprocess: What is done to ``inputs`` before they are run, as in :func:`check`.
        progress: As in :func:`convert`.

    Raises:
        UsageError: An unknown pass, pipeline or option.
        PassError: A pass cannot transform the model.
        ConversionError: The result computes something else although no pass says so, or does
            not keep a bound.
        HubError: As in :func:`load` and :func:`save`.
    """
    from qonnx_hub.transformation.transform import TransformOptions, transform_model

    options = TransformOptions(
        to=to,
        opset=opset,
        check=check,
        samples=samples,
        seed=seed,
        inputs=inputs,
        labels=labels,
        acceptance=Acceptance(max_accuracy_drop, min_agreement, metric, top_k, threshold),
        preprocess=parse_preprocessing(preprocess)
        if isinstance(preprocess, str)
        else preprocess,
    )
    with watched(progress):
        model = as_model(source, from_)
        return transform_model(model, passes, path, label_of(source), options)


def routes(
    source: Any,
    *,
    from_: str | None = None,
    samples: int | None = None,
    seed: int = 0,
    progress: bool | Progress | None = None,
) -> RoutesReport:
    """Return what becomes of a model in every form and profile; nothing is written.

    Args:
        source: As in :func:`load`; an IR model is used as it is.
        from_: Name of the source's format.
        samples: Samples of every check's generated inputs.
        seed: Their seed.
        progress: As in :func:`convert`.

    Returns:
        One route for each form: the verdict, or the reason of a refusal, and the command, in
        which MODEL stands for a source that is no path.

    Raises:
        HubError: As in :func:`load`.

    Example:
        >>> print(qh.routes("model.onnx").table())
    """
    from qonnx_hub.conversion.routes import find_routes

    options = ConvertOptions(from_=from_, samples=samples, seed=seed)
    named = source if isinstance(source, (str, Path)) else "MODEL"
    with watched(progress):
        return find_routes(as_model(source, from_), label_of(source), options, str(named))
