"""``qonnx-hub check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qonnx_hub.cli.options import (
    Json,
    Samples,
    Seed,
    console,
    fit_names,
    read_arrays,
    write_json,
)

if TYPE_CHECKING:
    from rich.table import Table


def command(
    a: Annotated[str, typer.Argument(help="The reference model.", metavar="A")],
    b: Annotated[str, typer.Argument(help="The other model.", metavar="B")],
    inputs: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Inputs as .npz, by input name.")
    ] = None,
    samples: Samples = None,
    seed: Seed = 0,
    lsb: Annotated[
        float | None, typer.Option(min=0, help="Quantizer steps allowed per output.")
    ] = None,
    atol: Annotated[float, typer.Option(min=0, help="Absolute difference allowed.")] = 0.0,
    rtol: Annotated[float, typer.Option(min=0, help="Relative difference allowed.")] = 0.0,
    backend: Annotated[
        str, typer.Option(help="Where B runs: numpy, ort (as written) or ort-optimized.")
    ] = "numpy",
    json: Json = None,
) -> None:
    """Say whether two models compute the same, and where they first differ."""
    from qonnx_hub import api
    from qonnx_hub.cli.errors import DIFFERENT

    reference = api.load(a)
    names = [str(v.name) for v in reference.graph.inputs]
    feeds = None if inputs is None else fit_names(read_arrays(inputs), names)
    result = api.check(
        reference,
        b,
        feeds,
        samples=samples,
        seed=seed,
        lsb=lsb,
        atol=atol,
        rtol=rtol,
        backend=backend,
        label=a,
    )
    out = console(json)
    out.print(_table(result.outputs))
    if result.first_divergence is not None:
        comparison = result.first_divergence.comparison
        out.print(
            f"first divergence: layer '{result.first_divergence.source}', "
            f"{comparison.differing} of {comparison.count} values, "
            f"by {comparison.max_abs:.6g} at most"
        )
    out.print(result.summary())
    write_json(result.to_json(), json)
    if not result:
        raise typer.Exit(DIFFERENT)


def _table(outputs: Any) -> Table:
    from rich.table import Table

    columns = ("output", "verdict", "differing", "max abs", "max rel", "max LSB")
    table = Table(*columns, box=None, pad_edge=False)
    for row in outputs:
        table.add_row(
            row.name if row.name == row.other else f"{row.name} / {row.other}",
            str(row.verdict),
            f"{row.differing} of {row.count}",
            f"{row.max_abs:.6g}",
            f"{row.max_rel:.3g}",
            "-" if row.max_lsb is None else f"{row.max_lsb:.6g}",
        )
    return table
