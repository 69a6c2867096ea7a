"""``qonnx-hub certify``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from qonnx_hub.cli.options import console


def command(
    a: Annotated[Path, typer.Argument(help="An ONNX file.", metavar="A")],
    b: Annotated[Path, typer.Argument(help="The other.", metavar="B")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where the certificate is written.")
    ] = Path("certificate.json"),
    seconds: Annotated[
        float, typer.Option(help="How long pieces of the models may be compared.", min=0.0)
    ] = 60.0,
) -> None:
    """Prove that two ONNX files are equal on all inputs; write what ``verify`` needs.

    Exit code 1 if it is not proven; nothing is written then.
    """
    from qonnx_hub.equivalence.proof.document import certify
    from qonnx_hub.io.atomic import write_text
    from qonnx_hub_ir.errors import NotProvenError

    try:
        document = certify(a, b, seconds=seconds)
    except NotProvenError as error:
        console(None).print(str(error), markup=False)
        raise typer.Exit(1) from None
    write_text(out, json.dumps(document, indent=1) + "\n")
    said = document["assumptions"]
    console(None).print(
        f"proven, {len(document['values'])} values, {len(document['functions'])} functions; "
        f"taken for granted: {', '.join(said['operators'])}"
    )
