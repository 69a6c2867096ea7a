"""``qonnx-hub view``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qonnx_hub.cli.loudness import say


def command(
    path: Annotated[Path, typer.Argument(help="A model file.", metavar="MODEL")],
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the local server.")
    ] = 8080,
    browse: Annotated[
        bool, typer.Option("--browse/--no-browse", help="Open the web browser.")
    ] = True,
) -> None:
    """Show a model file in netron, until interrupted."""
    from qonnx_hub_adapters.dependencies import require
    from qonnx_hub_ir.errors import SourceError

    netron = require("netron", needed_by="view", extra="view")
    if not path.is_file():
        raise SourceError(f"'{path}' is no file")
    host, opened = netron.start(str(path), ("localhost", port), browse=browse)
    say(f"'{path}' is shown at http://{host}:{opened}; stop with Ctrl-C")
    netron.wait()
