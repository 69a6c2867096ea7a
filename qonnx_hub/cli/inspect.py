"""``qonnx-hub inspect``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from qonnx_hub.cli.options import (
    From,
    InputTypes,
    Json,
    Page,
    Source,
    console,
    named_ranges,
    named_types,
    write_json,
)


def command(
    source: Source,
    from_: From = None,
    ranges: Annotated[
        bool,
        typer.Option(
            "--ranges", help="Show what every tensor and every accumulator can hold."
        ),
    ] = False,
    range_: Annotated[
        list[str] | None,
        typer.Option("--range", metavar="NAME=LO,HI", help="Range of an input, for --ranges."),
    ] = None,
    input_dtype: InputTypes = None,
    weights: Annotated[
        bool, typer.Option("--weights", help="Show the integers of all weights.")
    ] = False,
    export_ints: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Write the integers of all weights: .npz, or .h for C."
        ),
    ] = None,
    report: Page = None,
    json: Json = None,
) -> None:
    """Show what is quantized in a model, tensor by tensor, with totals."""
    from qonnx_hub import api
    from qonnx_hub.analysis.weight_export import write_integers

    model = api.load(source, from_)
    given: dict[str, Any] = {**named_types(input_dtype or ()), **named_ranges(range_ or ())}
    if "" in given:
        names = [str(value.name) for value in model.graph.inputs]
        given = {**dict.fromkeys(names, given.pop("")), **given}
    found = api.inspect(
        model,
        ranges=ranges or json is not None or report is not None,
        weights=weights or any(x is not None for x in (export_ints, json, report)),
        inputs=given,
    )
    if export_ints is not None:
        write_integers(found.weights, export_ints)
    out = console(json)
    shown = found if ranges else replace(found, ranges=(), accumulators=())
    (shown if weights else replace(shown, weights=())).show(out)
    if export_ints is not None:
        out.print(f"{export_ints}: integers of {len(found.weights)} weights")
    write_json(found.document(), json)
    if report is not None:
        found.to_html(report)
