"""What runs models: run, check, bench."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qonnx_hub.api.reading import label_of, load_to_run
from qonnx_hub.equivalence.acceptance import Acceptance
from qonnx_hub.equivalence.comparison.compare import make_tolerance
from qonnx_hub.equivalence.options import PROOF_SECONDS, CheckOptions
from qonnx_hub.equivalence.reports.report import CheckResult
from qonnx_hub.equivalence.request import check_request
from qonnx_hub.executor.session import Session
from qonnx_hub.io.cluster import Cluster
from qonnx_hub.io.preprocessing import Preprocessing, parse_preprocessing
from qonnx_hub.reporting.progress import Progress, watched
from qonnx_hub_adapters.dependencies import is_installed
from qonnx_hub_ir import choices
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.quantizers import Array

if TYPE_CHECKING:
    from qonnx_hub.equivalence.matrix import MatrixReport
    from qonnx_hub.equivalence.reduction import ReduceReport
    from qonnx_hub.executor.benchmark import BenchmarkReport


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
    max_accuracy_drop: float | None = None,
    min_agreement: float | None = None,
    metric: choices.Metric = "accuracy",
    top_k: int = 1,
    threshold: float | None = None,
    preprocess: str | Preprocessing | None = None,
    workers: int = 0,
    executor: Executor | Cluster | None = None,
    progress: bool | Progress | None = None,
    save_golden: str | Path | None = None,
    label: str | None = None,
    args: tuple[Any, ...] = (),
    strict: bool = False,
    ignore_outputs: Collection[str] = (),
    proof_seconds: float = PROOF_SECONDS,
    allow_code: bool = False,
    weights: str | None = None,
    python: str | None = None,
) -> CheckResult:
    """Return whether two models compute the same, with the numbers.

    Args:
        a: The reference: as in :func:`load` (a live model of a framework answers itself, where
            its adapter can run it), recorded tensors (path of an .npz file, or name -> array),
            a folder that ``save_golden`` wrote, which brings its inputs along, or a folder
            that was written for hls4ml, which is compiled and asked.
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
        max_accuracy_drop: How much of the metric may be lost on the inputs and labels given;
            0.01 is one point of a hundred. Where a bound is given, the result is true by the
            bounds alone.
        min_agreement: Share of the samples on which predictions must agree, likewise.
        metric: "accuracy" of classes, "auc" of their scores, or "r2" of numbers.
        top_k: A class is right, or agreed on, among so many of the best.
        threshold: From which score on a single output says yes; by default 0, and 0.5 where it
            lies between 0 and 1.
        preprocess: What is done to ``inputs`` before they are run, such as
            "scale=1/255,mean=0.5,std=0.5,layout=nhwc": in float32, (x * scale - mean) / std.
        workers: Processes to spread the samples over.
        executor: Spreads the samples instead: a pool, such as that of a dask client, or what
            :func:`qonnx_hub.io.cluster.connected` gives, which sends the models once.
        progress: Whether to show a bar; by default on a terminal and in a notebook. A function
            is called with (samples done, samples in all) instead.
        save_golden: Folder for the inputs and answers of ``a``, to check others against later.
        label: How the report calls ``a``.
        args: Sample inputs, for live models that must be traced.
        strict: Allow nothing that another order of float32 sums explains.
        ignore_outputs: Outputs of either side that need no counterpart.
        proof_seconds: How long a proof may be looked for before samples are run; 0 for none.
        allow_code: Run code that files hold: Lambda layers, pickles, a SavedModel.
        weights: Path of the weights file of ``a``, where they are kept apart.
        python: An interpreter that has hls4ml, for its folders; the running one by default.

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
        acceptance=Acceptance(max_accuracy_drop, min_agreement, metric, top_k, threshold),
        preprocess=(
            parse_preprocessing(preprocess) if isinstance(preprocess, str) else preprocess
        ),
        golden=save_golden,
        workers=workers,
        executor=executor,
        backend=backend,
        args=args,
        allow_code=allow_code,
        weights=weights,
        python=python,
        strict=strict,
        ignore_outputs=tuple(ignore_outputs),
        proof_seconds=proof_seconds,
    )
    with watched(progress):
        return check_request(a, b, (label or label_of(a), label_of(b)), options)


def check_many(
    a: Any,
    others: Sequence[Any],
    inputs: Any = None,
    *,
    samples: int | None = None,
    seed: int = 0,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    effort: choices.Effort = "normal",
    atol: float | Mapping[str, float] = 0.0,
    rtol: float | Mapping[str, float] = 0.0,
    lsb: float | Mapping[str, float] | None = None,
    level: choices.Level = "layer",
    mapping: Mapping[str, str] | None = None,
    strict: bool = False,
    args: tuple[Any, ...] = (),
    allow_code: bool = False,
    python: str | None = None,
    progress: bool | Progress | None = None,
) -> MatrixReport:
    """Return how many sides compare to one source, and with each other.

    Args:
        a: The reference, as in :func:`check`.
        others: The other sides, likewise: files, live models, recorded tensors, folders for
            hls4ml; the text "model.onnx@ort" runs that file on onnxruntime, and so do the
            other backends.
        inputs: As in :func:`check`.
        samples: Samples to generate.
        seed: Seed of the generated values.
        ranges: Input name -> (lowest, highest) value to generate.
        effort: How much is searched for inputs that reach inner thresholds.
        atol: Absolute difference allowed.
        rtol: Relative difference allowed.
        lsb: Steps of each output's own quantizer allowed.
        level: "output", "layer" or "proof".
        mapping: Tensor or layer of ``a`` -> tensor of the others.
        strict: Allow nothing that another order of float32 sums explains.
        args: Sample inputs, for live models that must be traced.
        allow_code: Run code that files hold.
        python: An interpreter that has hls4ml, for its folders.
        progress: As in :func:`check`.

    Returns:
        A verdict for each side, with the first layer that differs and why, and the groups of
        sides that gave equal values.

    Raises:
        UsageError: Two sides cannot be compared.
        HubError: As in :func:`check`.

    Example:
        >>> print(qh.check_many("model.onnx", ["a.onnx", "a.onnx@ort"]).table())
    """
    from qonnx_hub.equivalence import matrix

    options = CheckOptions(
        tolerance=make_tolerance(atol, rtol, lsb),
        level=level,
        inputs=inputs,
        samples=samples,
        seed=seed,
        ranges=ranges or {},
        effort=effort,
        mapping=mapping,
        args=args,
        allow_code=allow_code,
        python=python,
        strict=strict,
    )
    labels = [label_of(a), *map(label_of, others)]
    sides = [str(other) if isinstance(other, Path) else other for other in others]
    with watched(progress):
        return matrix.check_many(a, sides, labels, options)


def reduce(
    a: Any,
    b: Any,
    inputs: Any = None,
    *,
    folder: str | Path | None = None,
    samples: int | None = None,
    seed: int = 0,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    backend: str = "numpy",
    mapping: Mapping[str, str] | None = None,
    allow_code: bool = False,
    progress: bool | Progress | None = None,
) -> ReduceReport:
    """Return the smallest part of two models that still differs, with an input for it.

    Args:
        a: The reference: a model file or a model with a graph.
        b: The other side, likewise.
        inputs: As in :func:`check`; generated otherwise.
        folder: Folder for both parts, the input, and the command that shows the difference.
        samples: Samples to generate.
        seed: Seed of the generated values.
        ranges: Input name -> (lowest, highest) value to generate.
        backend: Where ``b`` runs: "numpy", "ort" or "ort-optimized".
        mapping: Tensor or layer of ``a`` -> tensor of ``b``, where names do not tell.
        allow_code: Run code that files hold.
        progress: As in :func:`check`.

    Returns:
        Both parts as messages, checked: they differ on the input that comes with them.

    Raises:
        UsageError: The models do not differ on any input tried, or cannot be cut.
        HubError: As in :func:`check`.

    Example:
        >>> print(qh.reduce("model.onnx", "changed.onnx", folder="bug").table())
    """
    from qonnx_hub.equivalence.reduction import reduce_models, write_reduction

    options = CheckOptions(
        inputs=inputs,
        samples=samples,
        seed=seed,
        ranges=ranges or {},
        backend=backend,
        mapping=mapping,
        allow_code=allow_code,
    )
    with watched(progress):
        report = reduce_models(a, b, (label_of(a), label_of(b)), options)
    return report if folder is None else write_reduction(report, folder)


def bench(
    source: Any,
    *,
    from_: str | None = None,
    batches: Sequence[int] = (1, 64),
    backends: Sequence[str] | None = None,
    threads: int | None = None,
    seconds: float = 1.0,
    seed: int = 0,
    progress: bool | Progress | None = None,
) -> BenchmarkReport:
    """Return how fast a model runs here, on generated inputs.

    Args:
        source: As in :func:`run`.
        from_: Name of the source's format.
        batches: Samples of a run, each in a row of its own; of a frozen batch, whole ones, and
            of a model without inputs, one. The rows say what ran.
        backends: "numpy", "ort", or both; by default those that are installed.
        threads: Threads of each backend; its own choice by default.
        seconds: How long each row is measured; three runs at least.
        seed: Seed of the inputs.
        progress: As in :func:`check`.

    Raises:
        UsageError: An unknown backend; no batch, or one below 1.
        HubError: As in :func:`load`.

    Example:
        >>> print(qh.bench("model.onnx", batches=(1, 8)).table())
    """
    from qonnx_hub.equivalence.inputs.generate import generate_inputs
    from qonnx_hub.executor.benchmark import measure

    if not batches or min(batches) < 1:
        raise UsageError(f"batches are numbers of samples from 1 on, not {list(batches)}")
    model = load_to_run(source, from_)
    installed = ("numpy", "ort") if is_installed("onnxruntime") else ("numpy",)
    drawn = [generate_inputs(model, batch, seed) for batch in batches]
    feeds = {next((len(x) for x in arrays.values() if x.ndim), 1): arrays for arrays in drawn}
    with watched(progress):
        return measure(
            model,
            feeds,
            backends or installed,
            label_of(source),
            seconds=seconds,
            threads=threads,
        )
