"""``qonnx-hub split``."""

from __future__ import annotations

from typing import Annotated

import typer

from qonnx_hub.cli.loudness import say
from qonnx_hub.cli.options import From, Source


def command(
    source: Source,
    part_before: Annotated[
        str, typer.Argument(help="File of the part before.", metavar="FIRST")
    ],
    part_behind: Annotated[
        str, typer.Argument(help="File of the part behind.", metavar="SECOND")
    ],
    at: Annotated[
        list[str],
        typer.Option(
            metavar="TENSOR",
            help="A tensor to cut at; repeat for all that together separate the parts.",
        ),
    ],
    from_: From = None,
) -> None:
    """Write the part of a model before some tensors, and the part behind them."""
    from qonnx_hub import api
    from qonnx_hub.api.reading import save_parts
    from qonnx_hub.passes import split_model
    from qonnx_hub_ir.errors import UsageError

    if part_before == part_behind:
        raise UsageError(f"both parts would be written to '{part_before}'")
    parts = split_model(api.load(source, from_), at)
    save_parts(dict(zip((part_before, part_behind), parts, strict=True)))
    sizes = [len(list(part.graph)) for part in parts]
    say(f"{source} -> {part_before}: {sizes[0]} nodes, {part_behind}: {sizes[1]} nodes")
