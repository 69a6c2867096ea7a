"""``qonnx-hub run``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from qonnx_hub.cli.loudness import say
from qonnx_hub.cli.options import From, Samples, Seed, Source
from qonnx_hub_ir.choices import Backend


def command(
    source: Source,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="PATH", help="Outputs to write, as .npz.")
    ],
    inputs: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Inputs: .npz by input name, or .npy of one.",
            show_default="generated",
        ),
    ] = None,
    samples: Samples = None,
    seed: Seed = 0,
    save_inputs: Annotated[
        str | None, typer.Option(metavar="PATH", help="Write the inputs as well, as .npz.")
    ] = None,
    from_: From = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Samples at once.", show_default="all")
    ] = None,
    backend: Annotated[
        Backend, typer.Option(help="Where to run; ort is onnxruntime.")
    ] = "numpy",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads.", show_default="the backend's choice")
    ] = None,
    all_tensors: Annotated[
        bool, typer.Option("--all-tensors", help="Write every value of the graph.")
    ] = False,
) -> None:
    """Run a model, on given or generated inputs."""
    from qonnx_hub import api
    from qonnx_hub.executor.session import Session
    from qonnx_hub.io.arrays import read_feeds, write_arrays

    model = api.load_to_run(source, from_)
    session = Session(model, backend=backend, threads=threads)
    if inputs is None:
        from qonnx_hub.equivalence.inputs.generate import generate_inputs

        feeds = generate_inputs(model, samples, seed)
    else:
        feeds = read_feeds(inputs, session.input_names)
    results = session.run(feeds, all_tensors=all_tensors, batch=batch)
    arrays = dict(_arrays_of(results))
    if save_inputs is not None:
        write_arrays(save_inputs, feeds)
    write_arrays(output, arrays)
    for name, array in arrays.items():
        say(f"{name}: {array.dtype.name}{list(array.shape)}")


def _arrays_of(results: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Give outputs by name, those of a sequence with their number behind it.

    Raises:
        UsageError: An output is an optional value that is empty.
    """
    from qonnx_hub_ir.errors import UsageError

    for name, value in results.items():
        if value is None:
            raise UsageError(f"output '{name}' is an optional value, and it is empty")
        if isinstance(value, list):
            yield from _arrays_of({f"{name}.{k}": part for k, part in enumerate(value)})
        else:
            yield name, value
