"""``qonnx-hub convert``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qonnx_hub.cli.options import (
    From,
    Json,
    Samples,
    Seed,
    Source,
    console,
    named_values,
    sample_inputs,
    write_json,
)

if TYPE_CHECKING:
    from rich.table import Table


STORED = ("int8", "int4", "int2", "float")
"""How weights can be stored as integers, or not."""


def command(
    source: Source,
    output: Annotated[
        str,
        typer.Option("--output", "-o", "--output-file", metavar="PATH", help="File to write."),
    ],
    to: Annotated[
        str, typer.Option("--to", metavar="FORMAT", help="Form to write; see 'formats'.")
    ] = "qonnx",
    from_: From = None,
    opset: Annotated[
        int | None, typer.Option(help="Standard opset.", show_default="lowest exact")
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
        str, typer.Option(help="For qlinear: onnx (standard operators) or ort (its own too).")
    ] = "onnx",
    input_shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N,C,...", help="Shape of a sample input, for sources that are traced."
        ),
    ] = None,
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
    json: Json = None,
) -> None:
    """Convert a model, check the result against it, and write it."""
    from qonnx_hub import api

    if weights in STORED and not Path(weights).exists():
        stored_weights, weights = weights, None
    report = api.convert(
        source,
        output,
        to,
        from_=from_,
        check=check,
        samples=samples,
        seed=seed,
        opset=opset,
        allow_lossy=allow_lossy,
        encoding=encoding,
        stored_weights=stored_weights,
        dialect=dialect,
        layout=layout,
        weights=weights,
        args=sample_inputs(input_shape or (), seed),
        options=named_values(option or ()),
        profile=profile,
        self_contained=self_contained,
        target_options=named_values(target_option or ()),
    )
    out = console(json)
    if report.quantizers:
        out.print(_table(report.quantizers))
    exact = sum(record.exact for record in report.quantizers)
    out.print(
        f"{report.source} -> {report.path}: {report.format}, opset {report.opset}, "
        f"{exact} of {len(report.quantizers)} quantizers exact"
    )
    for note in report.notes:
        out.print(f"note: {note}")
    if report.own is not None:
        out.print(f"the source:  {report.own.summary()}")
    if report.check is None:
        out.print("not checked")
    else:
        agree = report.check.first_divergence is None
        out.print(f"executor:    {report.check.summary()}")
        out.print(
            f"             {report.check.layers} inner values compared"
            f"{', none differs' if agree and report.check.layers else ''}"
        )
    if report.ort is not None:
        out.print(f"onnxruntime: {report.ort.summary()}")
    write_json(report.to_json(), json)


def _table(records: Any) -> Table:
    from rich.table import Table

    table = Table("quantizer", "what", "encoding", "exact", box=None, pad_edge=False)
    for record in records:
        exact = "yes" if record.exact else f"no: {record.reason}"
        table.add_row(record.node, record.quantizer, record.encoding, exact)
    return table
