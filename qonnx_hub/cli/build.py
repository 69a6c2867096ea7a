"""``qonnx-hub build``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qonnx_hub.cli.loudness import say
from qonnx_hub.cli.options import Python


def command(
    folder: Annotated[
        Path, typer.Argument(help="A folder written with --to hls4ml.", metavar="FOLDER")
    ],
    python: Python = None,
    synthesize: Annotated[
        bool, typer.Option("--synthesize", help="Run the vendor's synthesis as well.")
    ] = False,
    allow_code: Annotated[
        bool,
        typer.Option(
            "--allow-code", help="Run the folder's build.py although somebody changed it."
        ),
    ] = False,
) -> None:
    """Convert and compile a folder with hls4ml; the project lies in FOLDER/hls4ml_prj."""
    from qonnx_hub_adapters.hls4ml.simulation import build

    words = ("--synthesize",) if synthesize else ()
    build(folder, python, words, allow_code=allow_code)
    say(f"{folder}: compiled; 'qonnx-hub check SOURCE {folder}' compares it")
