"""The verbs: load, save, convert, run, check, inspect."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_ir import Model

from qonnx_hub.conversion.convert import convert_source
from qonnx_hub.conversion.options import ConvertOptions
from qonnx_hub.conversion.report import ConversionReport
from qonnx_hub.conversion.validation import check_source, feeds_for_check
from qonnx_hub.equivalence.comparison.compare import make_tolerance
from qonnx_hub.equivalence.options import PROOF_SECONDS, CheckOptions
from qonnx_hub.equivalence.reports.report import CheckResult
from qonnx_hub.equivalence.request import check_request
from qonnx_hub.equivalence.verdicts import Verdict
from qonnx_hub.executor.session import Session
from qonnx_hub.io import registry
from qonnx_hub.io.model_files import has_external_data, write_artifact
from qonnx_hub.io.python_sources import resolve
from qonnx_hub_adapters.features import require_declared
from qonnx_hub_adapters.protocol import (
    Artifact,
    ReadsAsWritten,
    export_options,
    import_options,
)
from qonnx_hub_ir import choices
from qonnx_hub_ir.errors import ConversionError
from qonnx_hub_ir.quantizers import Array

if TYPE_CHECKING:
    from qonnx_hub.analysis.cost.cost import Cost
    from qonnx_hub.analysis.diff import Difference
    from qonnx_hub.analysis.inspection import Inspection
    from qonnx_hub.analysis.lint import LintReport
    from qonnx_hub.passes import Step
    from qonnx_hub.transformation.transform import TransformReport
    from qonnx_hub_ir.analysis import InputRange


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
    label = _label(source)
    given = import_options(weights, args, custom_objects, options, allow_code)
    importer, source = registry.open_source(source, from_, given)
    model = importer.load(source, given)
    if verify and given.args:
        feeds = feeds_for_check(model, None, 0, [])
        if feeds is not None:
            check_source(importer, source, model, feeds, label)
    return model


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
        **load_options: As in :func:`load`.

    Raises:
        NotExactError: The form cannot say the model exactly; every reason is listed.
        ConversionError: The result computes something else.
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
    )
    return convert_source(source, path, _label(source), options)


def run(model: Any, feeds: Any, *, all_tensors: bool = False) -> dict[str, Array]:
    """Return a model's outputs on the numpy executor, by name, in the graph's order.

    Args:
        model: As in :func:`load`; an IR model is used as it is, and a file of integer
            operators runs in integers, as it is written.
        feeds: Input name -> array; an array alone, for a model with one input; or the path of
            an .npz or .npy file of them.
        all_tensors: Return every value of the graph instead.

    Raises:
        UsageError: Names, dtypes or shapes that do not fit the model.
        UnsupportedGraphError: Operators that nothing can run; all of them are listed.
        ExecutionError: A node fails.
    """
    return Session(load_to_run(model)).run(feeds, all_tensors=all_tensors)


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


def check(
    a: Any,
    b: Any,
    inputs: Any = None,
    *,
    samples: int | None = None,
    seed: int = 0,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    boundary: bool = True,
    effort: choices.Effort = "normal",
    atol: float | Mapping[str, float] = 0.0,
    rtol: float | Mapping[str, float] = 0.0,
    lsb: float | Mapping[str, float] | None = None,
    level: choices.Level = "layer",
    backend: str = "numpy",
    mapping: Mapping[str, str] | None = None,
    labels: Array | None = None,
    score: bool = False,
    workers: int = 0,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
    save_golden: str | Path | None = None,
    label: str | None = None,
    args: tuple[Any, ...] = (),
    strict: bool = False,
    ignore_outputs: Collection[str] = (),
    proof_seconds: float = PROOF_SECONDS,
    allow_code: bool = False,
) -> CheckResult:
    """Return whether two models compute the same, with the numbers.

    Args:
        a: The reference: as in :func:`load` (a live model of a framework answers itself, where
            its adapter can run it), recorded tensors (path of an .npz file, or name -> array),
            or a folder that ``save_golden`` wrote, which brings its inputs along.
        b: The other side, likewise.
        inputs: Input name -> array, by the names of ``a``; an array alone, for one input; or
            the path of an .npz or .npy file. Generated otherwise: random values, and values
            on and beside every tie and limit of the first quantizers.
        samples: Samples to generate.
        seed: Seed of the generated values.
        ranges: Input name -> (lowest, highest) value to generate.
        boundary: Add generated inputs on both sides of thresholds of inner quantizers.
        effort: How much is searched for inputs that reach inner thresholds: "quick",
            "normal" or "thorough".
        atol: Absolute difference allowed; by tensor name where it is a mapping, in which the
            name "" stands for all others.
        rtol: Relative difference allowed, likewise.
        lsb: Steps of each output's own quantizer allowed, likewise.
        level: "output" compares outputs; "layer" also inner values matched by source layer,
            to find the first that differs, and why; "proof" tries to prove the graphs equal.
        backend: Where ``b`` runs: "numpy", "ort" (the graph as written) or "ort-optimized";
            "tflite", "tflite:opt" or "tflite:xnn" run the TFLite file among the two on
            ai-edge-litert's reference kernels, its optimized ones or XNNPACK.
        mapping: Tensor or layer of ``a`` -> tensor of ``b``, where names do not tell.
        labels: The right class of every sample: counts accuracy and changed predictions.
        score: Count changed predictions without labels.
        workers: Processes to spread the samples over.
        executor: Spreads the samples instead, such as that of a dask client.
        progress: Called with (samples done, samples in all).
        save_golden: Folder for the inputs and answers of ``a``, to check others against later.
        label: How the report calls ``a``.
        args: Sample inputs, for live models that must be traced.
        strict: Allow nothing that another order of float32 sums explains.
        ignore_outputs: Outputs of either side that need no counterpart.
        proof_seconds: How long a proof may be looked for before samples are run; 0 for none.
        allow_code: Run code that files hold: Lambda layers, pickles, a SavedModel.

    Raises:
        UsageError: The models cannot be compared.
        HubError: As in :func:`load` and :func:`run`.
    """
    options = CheckOptions(
        tolerance=make_tolerance(atol, rtol, lsb),
        level=level,
        inputs=inputs,
        samples=samples,
        seed=seed,
        ranges=ranges or {},
        boundary=boundary,
        effort=effort,
        mapping=mapping,
        labels=labels,
        score=score,
        golden=save_golden,
        workers=workers,
        executor=executor,
        progress=progress,
        backend=backend,
        args=args,
        allow_code=allow_code,
        strict=strict,
        ignore_outputs=tuple(ignore_outputs),
        proof_seconds=proof_seconds,
    )
    return check_request(a, b, (label or _label(a), _label(b)), options)


def inspect(
    model: Any,
    *,
    ranges: bool = False,
    weights: bool = False,
    inputs: Mapping[str, InputRange] | None = None,
) -> Inspection:
    """Return what is quantized in a model, tensor by tensor, with totals.

    Args:
        model: As in :func:`load`; an IR model is used as it is.
        ranges: Infer the range of every tensor and the accumulators of all layers as well.
        weights: Compute the integers of all weights as well.
        inputs: Input name -> (lowest, highest), or its type, such as "UINT8", for the ranges.

    Raises:
        HubError: As in :func:`load`.
    """
    from qonnx_hub.analysis.inspection import inspect_model

    return inspect_model(_as_model(model), ranges=ranges, weights=weights, inputs=inputs)


def lint(
    model: Any, target: str, from_: str | None = None, *, fused: bool = False
) -> LintReport:
    """Return what a tool would refuse or compute wrongly in a model, and what to do about it.

    Args:
        model: As in :func:`load`; ONNX files are looked at as they lie, too.
        target: Name of the tool, such as "hls4ml" or "finn"; ``lint --list`` shows them all.
        from_: Name of the source's format.
        fused: For the target "ort", ask onnxruntime which layers it runs in integers.

    Raises:
        UsageError: There is no such target, or it is not "ort" where ``fused`` is asked.
        MissingDependencyError: ``fused`` without onnxruntime.
        HubError: As in :func:`load`.
    """
    from qonnx_hub.analysis.lint import lint_model

    source = resolve(str(model) if isinstance(model, Path) else model)
    return lint_model(source, _as_model(source, from_), target, _label(model), fused=fused)


def cost(
    model: Any,
    convention: choices.Convention = "true",
    *,
    sparsity: bool = False,
    input_types: Mapping[str, str] | None = None,
    input_shapes: Sequence[Sequence[int]] = (),
    from_: str | None = None,
) -> Cost:
    """Return what one inference costs: MACs, bit operations, weights, activations, by layer.

    Args:
        model: As in :func:`load`; an IR model is used as it is.
        convention: "true" (exact datatypes), "qonnx" (as the qonnx tool counts) or "paper" (as
            the published table of the model zoo); see
            :class:`qonnx_hub.analysis.cost.cost.CostOptions`.
        sparsity: Leave out weights that are zero, and their products.
        input_types: Input name -> its type, such as "INT8"; the name "" stands for all.
        input_shapes: Sizes of the inputs in the model's order, where it leaves them open.
        from_: Name of the source's format.

    Raises:
        UsageError: An unknown convention, input or type; a shape that does not fit its input.
        HubError: As in :func:`load`; sizes that are not known.
    """
    from qonnx_hub.analysis.cost.cost import CostOptions, count_cost

    options = CostOptions(convention, sparsity, input_types or {}, input_shapes)
    return count_cost(_as_model(model, from_), options, _label(model))


def diff(a: Any, b: Any, from_: str | None = None) -> Difference:
    """Return in what two models differ: quantizers, weights, nodes; nothing is run.

    Args:
        a: As in :func:`load`; an IR model is used as it is.
        b: The other, likewise.
        from_: Name of the format of both.

    Raises:
        HubError: As in :func:`load`.
    """
    from qonnx_hub.analysis.diff import find_differences

    models = _as_model(a, from_), _as_model(b, from_)
    return find_differences(*models, _label(a), _label(b))


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
        labels: The right class of every sample: accuracy is counted.

    Raises:
        UsageError: An unknown pass, pipeline or option.
        PassError: A pass cannot transform the model.
        ConversionError: The result computes something else although no pass says so.
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
    )
    return transform_model(_as_model(source, from_), passes, path, _label(source), options)


def _as_model(source: Any, from_: str | None = None) -> Model:
    return source if isinstance(source, Model) else load(source, from_)


def _label(source: Any) -> str:
    if isinstance(source, (str, Path)):
        return str(source)
    return f"the given {type(source).__name__}"


__all__ = [
    "ConversionError",
    "ConversionReport",
    "Verdict",
    "check",
    "convert",
    "cost",
    "diff",
    "inspect",
    "lint",
    "load",
    "run",
    "save",
    "transform",
]
