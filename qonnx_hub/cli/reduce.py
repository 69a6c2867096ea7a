"""``qonnx-hub reduce``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qonnx_hub.cli.data import Inputs
from qonnx_hub.cli.options import AllowCode, Json, Samples, Seed, console, write_json


def command(
    a: Annotated[str, typer.Argument(help="The reference: a model file.", metavar="A")],
    b: Annotated[str, typer.Argument(help="The other side, likewise.", metavar="B")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder for both parts and the input."
        ),
    ],
    inputs: Inputs = None,
    samples: Samples = None,
    seed: Seed = 0,
    backend: Annotated[
        str, typer.Option(help="Where B runs: numpy, ort or ort-optimized.")
    ] = "numpy",
    allow_code: AllowCode = False,
    json: Json = None,
) -> None:
    """Cut two models that differ down to the part that still does, with a small input.

    What is written fits a bug report: both parts, the input, the cause, and the command.
    """
    from qonnx_hub import api

    report = api.reduce(
        a,
        b,
        inputs,
        folder=output,
        samples=samples,
        seed=seed,
        backend=backend,
        allow_code=allow_code,
    )
    report.show(console(json))
    write_json(report.document(), json)
