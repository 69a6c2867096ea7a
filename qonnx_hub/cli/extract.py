"""``qonnx-hub extract``."""

from __future__ import annotations

from typing import Annotated

import typer

from qonnx_hub.cli.loudness import say
from qonnx_hub.cli.options import From, Source


def command(
    source: Source,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="PATH", help="File to write.")
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="TENSOR",
            help="A tensor that becomes an input; repeat for several.",
            show_default="the model's own",
        ),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            metavar="TENSOR",
            help="A tensor that becomes an output; repeat for several.",
            show_default="the model's own",
        ),
    ] = None,
    from_: From = None,
) -> None:
    """Write the part of a model between some tensors and others."""
    from qonnx_hub import api
    from qonnx_hub.passes import extract_model

    part = extract_model(api.load(source, from_), inputs or (), outputs or ())
    api.save(part, output)
    say(f"{source} -> {output}: {len(list(part.graph))} nodes")
