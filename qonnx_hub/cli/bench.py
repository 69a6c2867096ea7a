"""``qonnx-hub bench``."""

from __future__ import annotations

from typing import Annotated

import typer

from qonnx_hub.cli.options import From, Json, Seed, Source, console, write_json


def command(
    source: Source,
    from_: From = None,
    batch: Annotated[
        list[int] | None,
        typer.Option(
            min=1, help="Samples of a run; repeat for several.", show_default="1 and 64"
        ),
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="numpy or ort; repeat for both.",
            show_default="all that are installed",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads.", show_default="the backend's choice")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.0, help="Time for each row.")] = 1.0,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Measure how fast a model runs here, backends side by side."""
    from qonnx_hub import api

    report = api.bench(
        source,
        from_=from_,
        batches=batch or (1, 64),
        backends=backend,
        threads=threads,
        seconds=seconds,
        seed=seed,
    )
    report.show(console(json))
    write_json(report.document(), json)
