"""``qonnx-hub merge``."""

from __future__ import annotations

from typing import Annotated

import typer

from qonnx_hub.cli.loudness import say
from qonnx_hub.cli.options import From


def command(
    first: Annotated[str, typer.Argument(help="The model in front.", metavar="FIRST")],
    second: Annotated[str, typer.Argument(help="The model behind it.", metavar="SECOND")],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="PATH", help="File to write.")
    ],
    connect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OUTPUT=INPUT",
            help="Output of the first that feeds an input of the second; repeat for several.",
            show_default="equal names, or the only ones",
        ),
    ] = None,
    from_: From = None,
) -> None:
    """Write one model in which the second continues the first."""
    from qonnx_hub import api
    from qonnx_hub.passes import merge_models
    from qonnx_hub_ir.errors import UsageError
    from qonnx_hub_ir.passes import RaiseOpset

    a, b = api.load(first, from_), api.load(second, from_)
    opset = max(a.opset_imports[""], b.opset_imports[""])
    for model in (a, b):
        RaiseOpset(opset)(model)
    pairs = [text.partition("=") for text in connect or ()]
    if any(not equals for _, equals, _ in pairs):
        raise UsageError("--connect takes OUTPUT=INPUT")
    named = {left.strip(): right.strip() for left, _, right in pairs} or None
    api.save(merge_models(a, b, named), output)
    say(f"{first}, {second} -> {output}")
