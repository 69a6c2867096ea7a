"""``qonnx-hub diff``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from qonnx_hub.cli.options import From, Json, console, write_json

if TYPE_CHECKING:
    from rich.console import Console

    from qonnx_hub.analysis.diff import Difference


def command(
    a: Annotated[str, typer.Argument(help="A model file.", metavar="A")],
    b: Annotated[str, typer.Argument(help="The other.", metavar="B")],
    from_: From = None,
    json: Json = None,
) -> None:
    """Show in what two models differ: quantizers, weights, nodes; exit code 1 if they do."""
    from qonnx_hub import api

    found = api.diff(a, b, from_)
    _print(console(json), found)
    write_json(found.to_dict(), json)
    if found:
        raise typer.Exit(1)


def _print(out: Console, found: Difference) -> None:
    for kind, title in (
        ("input", "inputs"),
        ("output", "outputs"),
        ("missing", f"only in {found.a}"),
        ("added", f"only in {found.b}"),
        ("quantizer", "quantizers"),
        ("operator", "operators"),
        ("attribute", "attributes"),
        ("wiring", "wiring"),
    ):
        changes = [change for change in found.changes if change.kind == kind]
        if changes:
            out.print(f"{title}:")
            for change in changes:
                out.print(f"  {change}")
    if found.weights:
        out.print("weights:")
        for weight in found.weights:
            out.print(f"  {weight}")
    for note in found.notes:
        out.print(f"note: {note}")
    placed = f", {found.by_position} of them by place" if found.by_position else ""
    verdict = "different" if found else "no difference"
    out.print(f"{verdict}; {found.matched} nodes matched{placed}")
