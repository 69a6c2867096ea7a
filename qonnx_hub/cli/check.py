"""``qonnx-hub check``."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from qonnx_hub.cli.data import (
    Data,
    Inputs,
    Labels,
    MaxAccuracyDrop,
    MetricName,
    MinAgreement,
    Preprocess,
    Threshold,
    TopK,
    read_feeds,
)
from qonnx_hub.cli.options import (
    AllowCode,
    Dask,
    InputShapes,
    Jobs,
    Json,
    Page,
    Python,
    Samples,
    Seed,
    console,
    name_and_rest,
    named_ranges,
    sample_inputs,
    write_json,
)
from qonnx_hub_ir.choices import Effort, Level, OrtOptimizations

if TYPE_CHECKING:
    from qonnx_hub.equivalence.options import CheckOptions
    from qonnx_hub.equivalence.reports.report import CheckResult

_ORT_BACKENDS = {"off": "ort", "all": "ort-optimized"}


def command(
    a: Annotated[
        str,
        typer.Argument(
            help="The reference: a model, recorded tensors or an hls4ml trace (.npz), a "
            "golden folder, a folder for hls4ml, which is compiled; or a folder of models.",
            metavar="A",
        ),
    ],
    b: Annotated[
        str,
        typer.Argument(
            help="The other side, likewise; or intermediate_models of a build of FINN.",
            metavar="B",
        ),
    ],
    more: Annotated[
        list[str] | None,
        typer.Argument(
            help="Further sides: all are compared with A, and with each other; any of them "
            "runs on a backend as FILE@ort.",
            metavar="[C...]",
            show_default=False,
        ),
    ] = None,
    inputs: Inputs = None,
    data: Data = None,
    labels: Labels = None,
    preprocess: Preprocess = None,
    max_accuracy_drop: MaxAccuracyDrop = None,
    min_agreement: MinAgreement = None,
    metric: MetricName = "accuracy",
    top_k: TopK = 1,
    threshold: Threshold = None,
    input_shape: InputShapes = None,
    samples: Samples = None,
    seed: Seed = 0,
    range_: Annotated[
        list[str] | None,
        typer.Option("--range", metavar="NAME=LO,HI", help="Range of a generated input."),
    ] = None,
    boundary: Annotated[
        bool,
        typer.Option(
            "--boundary/--no-boundary", help="Steer inputs to thresholds of inner quantizers."
        ),
    ] = True,
    effort: Annotated[
        Effort, typer.Option(help="How much is searched for inputs that reach.")
    ] = "normal",
    level: Annotated[
        Level, typer.Option(help="Outputs; also layers, to name the first and why; or proof.")
    ] = "layer",
    lsb: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]K", help="Quantizer steps allowed per output."),
    ] = None,
    atol: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]V", help="Absolute difference allowed."),
    ] = None,
    rtol: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]V", help="Relative difference allowed."),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            help="Where B runs: numpy or ort; tflite[:ref|opt|xnn]: the .tflite side, in "
            "ai-edge-litert."
        ),
    ] = "numpy",
    ort_opt: Annotated[
        OrtOptimizations,
        typer.Option(help="Optimizations of onnxruntime; off runs the graph as written."),
    ] = "off",
    mapping: Annotated[
        Path | None,
        typer.Option("--map", metavar="PATH", help="JSON: name in A -> name in B."),
    ] = None,
    ignore_output: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="An output that needs no counterpart; repeatable."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Allow nothing that the order of sums explains.")
    ] = False,
    proof_seconds: Annotated[
        float | None,
        typer.Option(
            min=0, help="Time for a proof, before samples are run; 0: none.", show_default="10"
        ),
    ] = None,
    allow_code: AllowCode = False,
    weights: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Weights file of A, where they are kept apart."),
    ] = None,
    python: Python = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes to spread samples over.")] = 0,
    jobs: Jobs = None,
    dask: Dask = "",
    save_golden: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep A's answers there, to check others later."),
    ] = None,
    save_failing: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Write the smallest failing input as .npz."),
    ] = None,
    report: Page = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write the answer as JUnit's XML.")
    ] = None,
    json: Json = None,
) -> None:
    """Say whether two models compute the same, where they first differ, and why."""
    from qonnx_hub.cli.errors import DIFFERENT
    from qonnx_hub.cli.many import Where, check_many_pairs, is_model_folder, show_outcomes
    from qonnx_hub.equivalence.acceptance import Acceptance
    from qonnx_hub.equivalence.comparison.compare import make_tolerance
    from qonnx_hub.equivalence.matrix import named_backend
    from qonnx_hub.equivalence.options import PROOF_SECONDS, CheckOptions
    from qonnx_hub.equivalence.request import check_request
    from qonnx_hub.io.cluster import connected
    from qonnx_hub.io.preprocessing import parse_preprocessing

    if _is_build(b):
        if junit is not None:
            _usage("--junit is for models; stages of a build have --json")
        _check_build(a, b, (inputs, data), samples, seed, save_golden, json)
        return
    bounds = {"atol": atol, "rtol": rtol, "lsb": lsb}
    options = CheckOptions(
        tolerance=make_tolerance(**{k: _tolerance(f"--{k}", v) for k, v in bounds.items()}),
        level=level,
        acceptance=Acceptance(max_accuracy_drop, min_agreement, metric, top_k, threshold),
        preprocess=None if preprocess is None else parse_preprocessing(preprocess),
        samples=samples,
        seed=seed,
        ranges=named_ranges(range_ or ()),
        boundary=boundary,
        effort=effort,
        mapping=None if mapping is None else _read_mapping(mapping),
        workers=workers,
        golden=save_golden,
        allow_code=allow_code,
        weights=weights,
        python=python,
        strict=strict,
        ignore_outputs=tuple(ignore_output or ()),
        proof_seconds=PROOF_SECONDS if proof_seconds is None else proof_seconds,
        args=sample_inputs(input_shape or (), seed),
    )
    if is_model_folder(a) and is_model_folder(b):
        single = (
            inputs,
            data,
            save_golden,
            save_failing,
            junit,
            mapping,
            *(more or ()),
        )
        if any(option is not None for option in single):
            _usage("of two folders, each pair is checked on inputs of its own, into --json")
        one = replace(options, backend=_backends(backend, ort_opt).popitem()[1])
        show_outcomes(check_many_pairs(a, b, one, Where(jobs or 1, dask)), json, report)
        return
    if jobs is not None:
        _usage(
            "--jobs is for two folders of models; --workers spreads the samples of one pair"
        )
    reference: Any = a
    names: list[str] = []
    if inputs is not None or data is not None:
        reference, names = _reference(a, b, options)
    feeds, right = read_feeds(inputs, data, labels, names)
    options = replace(options, inputs=feeds, labels=right)
    results: dict[str, CheckResult] = {}
    with connected(dask) if dask else contextlib.nullcontext() as cluster:
        options = replace(options, executor=cluster)
        if more:
            pages = (report, save_failing, junit)
            _check_many((reference, a, b, *more), backend, options, pages, json)
            return
        other, named = named_backend(b)
        for name, chosen in _backends(named or backend, ort_opt).items():
            asked = replace(options, backend=chosen)
            results[name] = check_request(reference, other, (a, other), asked)
            results[name].show(console(json))
    worst = min(results.values(), key=bool)
    _write(results, worst, json, report, save_failing)
    if junit is not None:
        _write_junit(junit, {f"{one.sides()} ({k})": one for k, one in results.items()})
    if not worst:
        raise typer.Exit(DIFFERENT)


def _check_many(
    sides: tuple[Any, ...],
    backend: str,
    options: CheckOptions,
    pages: tuple[Path | None, Path | None, Path | None],
    json: str | None,
) -> None:
    """Compare many sides with one: the first two given are the reference, and its name."""
    from qonnx_hub.cli.errors import DIFFERENT
    from qonnx_hub.equivalence.matrix import check_many

    if backend != "numpy":
        _usage(f"of several sides, each names its own backend: FILE@{backend}")
    if pages[1] is not None or options.golden is not None:
        _usage("--save-failing and --save-golden are for two sides")
    reference, *names = sides
    found = check_many(reference, names[1:], names, options)
    found.show(console(json))
    write_json(found.document(), json)
    if pages[0] is not None:
        found.to_html(pages[0])
    if pages[2] is not None:
        pairs = zip(found.sides[1:], found.results, strict=True)
        named = {f"{reference} against {name}": result for name, result in pairs}
        refused = {f"{reference} against {n}": why for n, why in found.refused.items()}
        _write_junit(pages[2], named, refused)
    if not found:
        raise typer.Exit(DIFFERENT)


def _is_build(path: str) -> bool:
    from qonnx_hub_adapters.finn.stages import stage_files

    return bool(stage_files(path))


def _check_build(
    source: str,
    folder: str,
    given: tuple[Path | None, Path | None],
    samples: int | None,
    seed: int,
    golden: Path | None,
    json: str | None,
) -> None:
    """Compare what a build of FINN kept with its source, stage by stage."""
    from qonnx_hub import api
    from qonnx_hub.cli.errors import DIFFERENT
    from qonnx_hub.equivalence.build_stages import check_stages

    model = api.load(source)
    names = [str(value.name) for value in model.graph.inputs]
    feeds, _ = read_feeds(*given, None, names)
    report = check_stages(
        model,
        folder,
        feeds,
        samples=samples,
        seed=seed,
        save_golden=golden,
        label=source,
    )
    report.show(console(json))
    write_json(report.document(), json)
    if not report:
        raise typer.Exit(DIFFERENT)


def _write(
    results: dict[str, CheckResult],
    worst: CheckResult,
    json: str | None,
    report: Path | None,
    save_failing: Path | None,
) -> None:
    found = {name: result.document() for name, result in results.items()}
    write_json(found if len(found) > 1 else worst.document(), json)
    if report is not None:
        worst.to_html(report)
    if save_failing is not None and worst.failing is not None:
        worst.failing.save(save_failing)


def _write_junit(
    path: Path,
    results: dict[str, CheckResult],
    refused: Mapping[str, str] = MappingProxyType({}),
) -> None:
    from qonnx_hub.equivalence.reports.junit import junit_xml
    from qonnx_hub.io.atomic import write_text

    write_text(path, junit_xml(results, refused))


def _reference(a: str, b: str, options: CheckOptions) -> tuple[Any, list[str]]:
    """Return the reference, loaded once, and the names that inputs must have."""
    from qonnx_hub import api
    from qonnx_hub.equivalence.runners.recorded import is_golden
    from qonnx_hub_adapters.onnx_reader import is_onnx

    runs = b if Path(a).suffix.lower() == ".npz" else a
    if is_golden(runs) or Path(runs).suffix.lower() == ".npz":
        return a, []
    model = api.load(
        runs,
        args=options.args,
        verify=False,
        allow_code=options.allow_code,
        weights=options.weights if runs is a else None,
    )
    names = [str(v.name) for v in model.graph.inputs]
    # Only what has no forward pass of its own is the same once it is loaded.
    return (model if runs is a and is_onnx(a) else a), names


def _backends(backend: str, ort_opt: str) -> dict[str, str]:
    if backend != "ort":
        if ort_opt != "off":
            _usage("--ort-opt needs --backend ort")
        return {backend: backend}
    if ort_opt == "both":
        return _ORT_BACKENDS
    return {ort_opt: _ORT_BACKENDS[ort_opt]}


def _tolerance(option: str, texts: list[str] | None) -> dict[str, float]:
    """Return tensor name -> number; the name "" stands for all others."""
    found: dict[str, float] = {}
    for text in texts or []:
        name, number = name_and_rest(text)
        try:
            found[name] = float(number)
        except ValueError:
            _usage(f"{option} takes a number or NAME=NUMBER, not '{text}'")
    return found


def _read_mapping(path: Path) -> dict[str, str]:
    import json as json_module

    try:
        found = json_module.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        _usage(f"'{path}' cannot be read as JSON: {error}")
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        _usage(f"'{path}' must hold one JSON object, name in A -> name in B")
    return {str(k): str(v) for k, v in found.items()}


def _usage(message: str) -> NoReturn:
    from qonnx_hub_ir.errors import UsageError

    raise UsageError(message)
