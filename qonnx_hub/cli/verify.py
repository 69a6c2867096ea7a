"""``qonnx-hub verify``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from qonnx_hub.cli.loudness import say


def command(
    certificate: Annotated[
        Path, typer.Argument(help="What ``certify`` wrote.", metavar="CERTIFICATE")
    ],
    a: Annotated[Path, typer.Argument(help="The first ONNX file.", metavar="A")],
    b: Annotated[Path, typer.Argument(help="The other.", metavar="B")],
) -> None:
    """Prove a certificate of equality again, by a program that shares nothing with ours.

    Exit code 1 if it does not hold. ``python -m qonnx_hub.verifier`` does the same; its one
    module runs alone, with numpy and onnx.
    """
    from qonnx_hub.verifier import RejectedError, verify
    from qonnx_hub_ir.errors import SourceError

    try:
        document = json.loads(certificate.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SourceError(f"{certificate}: not a JSON file: {error}") from None
    try:
        say(f"holds: {verify(document, a, b)}")
    except RejectedError as error:
        say(f"rejected: {error}")
        raise typer.Exit(1) from None
