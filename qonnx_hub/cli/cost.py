"""``qonnx-hub cost``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qonnx_hub.cli.options import (
    From,
    InputTypes,
    Json,
    OpenShapes,
    console,
    named_types,
    read_shapes,
    write_json,
)
from qonnx_hub_ir.choices import Convention


def command(
    sources: Annotated[
        list[str],
        typer.Argument(help="Model files, or package.module:callable.", metavar="MODEL..."),
    ],
    from_: From = None,
    convention: Annotated[
        Convention,
        typer.Option(
            help="Exact datatypes, as the qonnx tool counts, or as the model zoo's table."
        ),
    ] = "true",
    sparsity: Annotated[
        bool, typer.Option("--sparsity", help="Leave out weights that are zero.")
    ] = False,
    input_dtype: InputTypes = None,
    input_shape: OpenShapes = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Draw the layers of one model, or bits against operations of several.",
        ),
    ] = None,
    json: Json = None,
) -> None:
    """Count what one inference costs: MACs, bit operations, weights, activations."""
    from qonnx_hub import api
    from qonnx_hub.analysis.cost.cost import COUNTS, CostOptions, count_cost, counts_of
    from qonnx_hub.reporting.tables import Table

    shapes = read_shapes(input_shape or ())
    options = CostOptions(convention, sparsity, named_types(input_dtype or ()), shapes)
    costs = [count_cost(api.load(source, from_), options, source) for source in sources]
    if plot is not None:
        from qonnx_hub.analysis.cost.plot import write_plot

        write_plot(costs, plot)
    out = console(json)
    if len(costs) == 1:
        costs[0].show(out)
    else:
        rows = [(cost.source, str(len(cost.layers)), *counts_of(cost)) for cost in costs]
        out.print(Table(("model", "layers", *COUNTS), rows, numbers=len(COUNTS) + 1))
        for cost in costs:
            for note in cost.notes:
                out.print(f"note: {cost.source}: {note}")
    if plot is not None:
        out.print(f"plot: {plot}")
    data = [cost.document() for cost in costs]
    write_json(data[0] if len(data) == 1 else data, json)
