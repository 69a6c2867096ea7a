"""``qonnx-hub diff``."""

from __future__ import annotations

from typing import Annotated

import typer

from qonnx_hub.cli.options import From, Json, console, write_json


def command(
    a: Annotated[str, typer.Argument(help="A model file.", metavar="A")],
    b: Annotated[str, typer.Argument(help="The other.", metavar="B")],
    from_: From = None,
    json: Json = None,
) -> None:
    """Show in what two models differ: quantizers, weights, nodes; exit code 1 if they do."""
    from qonnx_hub import api

    found = api.diff(a, b, from_)
    found.show(console(json))
    write_json(found.document(), json)
    if found:
        raise typer.Exit(1)
