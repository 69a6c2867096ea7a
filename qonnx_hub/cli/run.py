"""``qonnx-hub run``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qonnx_hub.cli.options import From, Source, fit_names


def command(
    source: Source,
    inputs: Annotated[
        Path, typer.Option(metavar="PATH", help="Inputs as .npz, by input name.")
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="PATH", help="Outputs to write, as .npz.")
    ],
    from_: From = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Samples at once.", show_default="all")
    ] = None,
    backend: Annotated[
        str, typer.Option(help="Where to run: numpy, or ort (onnxruntime).")
    ] = "numpy",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads.", show_default="the backend's choice")
    ] = None,
    all_tensors: Annotated[
        bool, typer.Option("--all-tensors", help="Write every value of the graph.")
    ] = False,
) -> None:
    """Run a model on given inputs."""
    from qonnx_hub import api
    from qonnx_hub.executor.session import Session
    from qonnx_hub.io.arrays import read_arrays, write_arrays
    from qonnx_hub.io.terminal import visible

    model = api.load_to_run(source, from_)
    names = [str(v.name) for v in model.graph.inputs]
    feeds = fit_names(read_arrays(inputs), names)
    session = Session(model, backend=backend, threads=threads)
    results = session.run(feeds, all_tensors=all_tensors, batch=batch)
    write_arrays(output, results)
    for name, array in results.items():
        typer.echo(visible(f"{name}: {array.dtype.name}{list(array.shape)}"))
