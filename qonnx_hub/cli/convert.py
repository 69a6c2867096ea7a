"""``qonnx-hub convert``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qonnx_hub.cli.options import (
    AllowCode,
    Force,
    From,
    InputShapes,
    Json,
    Samples,
    Seed,
    To,
    console,
    named_values,
    sample_inputs,
    write_json,
)

if TYPE_CHECKING:
    from qonnx_hub.conversion.options import ConvertOptions


STORED = ("int8", "int4", "int2", "float")
"""How weights can be stored as integers, or not."""


def command(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="A model file, or package.module:callable; or several.", metavar="MODEL..."
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            *("--output", "-o", "--output-file"),
            metavar="PATH",
            help="File to write; the folder to write into, for several models.",
        ),
    ],
    to: To = "qonnx",
    from_: From = None,
    opset: Annotated[
        int | None, typer.Option(help="Standard opset.", show_default="the source's")
    ] = None,
    allow_lossy: Annotated[
        bool, typer.Option("--allow-lossy", help="Write near forms where none is exact.")
    ] = False,
    encoding: Annotated[
        str,
        typer.Option(help="For qcdq: auto, qcdq (integer Clip), qdq (none) or float."),
    ] = "auto",
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|TYPE",
            help="Weights file of an architecture file; or what --stored-weights takes.",
        ),
    ] = None,
    stored_weights: Annotated[
        str, typer.Option(help="For qcdq: narrowest stored integers: int8, int4, int2, float.")
    ] = "int8",
    dialect: Annotated[
        str,
        typer.Option(
            help="For qlinear: onnx (standard operators), ort (its own too), or source (its "
            "own where the source has some)."
        ),
    ] = "source",
    input_shape: InputShapes = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An option that only one adapter has."),
    ] = None,
    layout: Annotated[
        str, typer.Option(help="Of image inputs and outputs: keep, nchw or nhwc.")
    ] = "keep",
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
    samples: Samples = None,
    seed: Seed = 0,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Processes to spread several models over.", show_default="1"),
    ] = None,
    allow_code: AllowCode = False,
    json: Json = None,
    force: Force = False,
) -> None:
    """Convert a model, check the result against it, and write it.

    With several models, or --jobs, each is reported in one line; a model that fails does not
    stop the others, and the exit code is the highest.
    """
    if weights in STORED and not Path(weights).exists():
        stored_weights, weights = weights, None
    from qonnx_hub.cli.errors import DIFFERENT
    from qonnx_hub.conversion.convert import convert_source
    from qonnx_hub.conversion.options import ConvertOptions
    from qonnx_hub_adapters.protocol import import_options

    samples_given = sample_inputs(input_shape or (), seed)
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
    )
    if len(sources) > 1 or jobs is not None:
        _convert_many(sources, output, jobs or 1, options, json)
        return
    report = convert_source(sources[0], output, sources[0], options)
    report.show(console(json))
    write_json(report.to_dict(), json)
    if report.verdict is not None and not report:
        raise typer.Exit(DIFFERENT)


def _convert_many(
    sources: list[str], folder: str, jobs: int, options: ConvertOptions, json: str | None
) -> None:
    from qonnx_hub.cli.convert_many import convert_many

    out = console(json)
    outcomes = []
    for outcome in convert_many(sources, folder, jobs, options):
        out.print(outcome.line)
        outcomes.append(outcome)
    write_json([outcome.to_dict() for outcome in outcomes], json)
    worst = max(outcome.exit_code for outcome in outcomes)
    if worst:
        raise typer.Exit(worst)
