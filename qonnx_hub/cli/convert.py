"""``qonnx-hub convert``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, cast, get_args

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
    Force,
    From,
    InputShapes,
    Jobs,
    Json,
    Page,
    Samples,
    Seed,
    To,
    console,
    named_values,
    sample_inputs,
    write_json,
)
from qonnx_hub_ir.choices import Dialect, EncodingName, ImageLayout, StoredWeights

if TYPE_CHECKING:
    pass


def command(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="A model file, or package.module:callable; several; a folder of models.",
            metavar="MODEL...",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            *("--output", "-o", "--output-file"),
            metavar="PATH",
            help="File to write; the folder to write into, for several models.",
            show_default="the last of two arguments",
        ),
    ] = None,
    to: To = "qonnx",
    from_: From = None,
    opset: Annotated[
        int | None, typer.Option(help="Standard opset.", show_default="the source's")
    ] = None,
    allow_lossy: Annotated[
        bool, typer.Option("--allow-lossy", help="Write near forms where none is exact.")
    ] = False,
    encoding: Annotated[
        EncodingName,
        typer.Option(help="For qcdq: with Clip, qdq without, in floats, or all integers."),
    ] = "auto",
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|TYPE",
            help="Weights file of an architecture file; or what --stored-weights takes.",
        ),
    ] = None,
    stored_weights: Annotated[
        StoredWeights, typer.Option(help="For qcdq: the narrowest stored integers.")
    ] = "int8",
    dialect: Annotated[
        Dialect,
        typer.Option(
            help="For qlinear: standard operators, onnxruntime's own too, or as the source."
        ),
    ] = "source",
    input_shape: InputShapes = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An option that only one adapter has."),
    ] = None,
    layout: Annotated[ImageLayout, typer.Option(help="Of image inputs and outputs.")] = "keep",
    profile: Annotated[
        str, typer.Option(help="Whose rules the file shall keep, for qonnx: finn.")
    ] = "",
    self_contained: Annotated[
        bool,
        typer.Option("--self-contained", help="For qonnx: define its operators in the file."),
    ] = False,
    target_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An option that only one form has."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Compare the result with the source.")
    ] = True,
    inputs: Inputs = None,
    data: Data = None,
    labels: Labels = None,
    preprocess: Preprocess = None,
    max_accuracy_drop: MaxAccuracyDrop = None,
    min_agreement: MinAgreement = None,
    metric: MetricName = "accuracy",
    top_k: TopK = 1,
    threshold: Threshold = None,
    samples: Samples = None,
    seed: Seed = 0,
    jobs: Jobs = None,
    dask: Dask = "",
    skip_existing: Annotated[
        bool,
        typer.Option("--skip-existing", help="Of several models, those not yet converted."),
    ] = False,
    allow_code: AllowCode = False,
    report: Page = None,
    json: Json = None,
    force: Force = False,
) -> None:
    """Convert a model, check the result against it, and write it.

    With several models, a folder of them, --jobs or --dask, each is reported in one line; a
    model that fails does not stop the others, and the exit code is the highest. What lies in a
    folder keeps its place below the one that is written.
    """
    if weights in get_args(StoredWeights) and not os.path.exists(str(weights)):
        stored_weights, weights = cast("StoredWeights", weights), None
    many = jobs is not None or bool(dask)
    if output is None:
        sources, output = _last_is_written(sources, force, one=not many)
    from qonnx_hub.cli.errors import DIFFERENT
    from qonnx_hub.cli.many import Where, convert_many, is_model_folder, show_outcomes
    from qonnx_hub.conversion.convert import convert_source
    from qonnx_hub.conversion.options import ConvertOptions, data_options
    from qonnx_hub.equivalence.acceptance import Acceptance
    from qonnx_hub_adapters.protocol import import_options

    samples_given = sample_inputs(input_shape or (), seed)
    feeds, right = read_feeds(inputs, data, labels, [])
    bounds = Acceptance(max_accuracy_drop, min_agreement, metric, top_k, threshold)
    given = feeds if data is None or feeds is None else feeds["data"]
    options = ConvertOptions(
        to=to,
        from_=from_,
        reading=import_options(
            weights,
            samples_given,
            options=named_values(option or ()),
            allow_code=allow_code,
        ),
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
        target_options=named_values(target_option or ()),
        data=data_options(given, right, bounds, preprocess),
    )
    if many or len(sources) > 1 or is_model_folder(sources[0]):
        where = Where(jobs or 1, dask)
        show_outcomes(
            convert_many(sources, output, options, where, skip_existing=skip_existing),
            json,
            report,
        )
        return
    if skip_existing and os.path.exists(output):
        console(json).print(f"{sources[0]} -> {output}: left as it is")
        return
    found = convert_source(sources[0], output, sources[0], options)
    found.show(console(json))
    write_json(found.document(), json)
    if report is not None:
        found.to_html(report)
    if found.verdict is not None and not found:
        raise typer.Exit(DIFFERENT)


def _last_is_written(given: list[str], force: bool, *, one: bool) -> tuple[list[str], str]:
    """Return IN and OUT of two arguments; OUT must be new, since a model may be meant."""
    from qonnx_hub_ir.errors import UsageError

    if len(given) != 2 or not one:
        raise UsageError(
            "no place to write is named: add -o PATH, or give exactly IN and OUT (without "
            "--jobs)"
        )
    path = given[1]
    if os.path.lexists(path) and not force:
        raise UsageError(
            f"'{path}' exists; without -o, the second of two arguments is written: name it "
            "with -o, or add --force"
        )
    return given[:1], path
