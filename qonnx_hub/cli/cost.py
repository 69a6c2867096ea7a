"""``qonnx-hub cost``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from qonnx_hub.analysis.cost.cost import Cost, LayerCost


def command(
    sources: Annotated[
        list[str],
        typer.Argument(help="Model files, or package.module:callable.", metavar="MODEL..."),
    ],
    from_: From = None,
    convention: Annotated[
        str,
        typer.Option(
            help="true (exact datatypes), qonnx (as the qonnx tool counts) or paper (as the "
            "published table of the model zoo)."
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
    from qonnx_hub.analysis.cost.cost import CostOptions, count_cost
    from qonnx_hub.equivalence.reports.text import table

    shapes = read_shapes(input_shape or ())
    options = CostOptions(convention, sparsity, named_types(input_dtype or ()), shapes)
    costs = [count_cost(api.load(source, from_), options, source) for source in sources]
    if plot is not None:
        from qonnx_hub.analysis.cost.plot import write_plot

        write_plot(costs, plot)
    out = console(json)
    if len(costs) == 1:
        _print_one(out, costs[0])
    else:
        rows = [(cost.source, str(len(cost.layers)), *_counts(cost)) for cost in costs]
        out.print(table(("model", "layers", *_COUNTS), rows, numbers=len(_COUNTS) + 1))
        for cost in costs:
            _print_notes(out, cost, f"{cost.source}: ")
    if plot is not None:
        out.print(f"plot: {plot}")
    data = [cost.to_dict() for cost in costs]
    write_json(data[0] if len(data) == 1 else data, json)


def _print_one(out: Console, cost: Cost) -> None:
    out.print(_layers(cost))
    what = "nonzero weights only" if cost.sparsity else "all weights"
    out.print()
    out.print(f"convention {cost.convention}, {what}")
    if cost.convention == "paper":
        out.print("MACs and weights are those of the largest datatype bucket")
    for title, buckets in (
        ("MACs", cost.mac_buckets),
        ("weights", cost.weight_buckets),
        ("activations", cost.activation_buckets),
    ):
        parts = ", ".join(f"{name}: {count:,}" for name, count in buckets.items())
        out.print(f"{title} by datatype: {parts or 'none'}")
    _print_notes(out, cost, "")


def _print_notes(out: Console, cost: Cost, prefix: str) -> None:
    for note in cost.notes:
        out.print(f"note: {prefix}{note}")


_COUNTS = ("MACs", "BOPs", "weights", "bits", "activations", "bits")


def _layers(cost: Cost) -> RenderableType:
    from qonnx_hub.equivalence.reports.text import table

    columns = ("layer", "operator", "input", "weights", "output", *_COUNTS)
    rows = [
        (one.name, one.op, one.input_type, one.weight_type, one.output_type, *_counts(one))
        for one in cost.layers
    ]
    rows.append(("total", "", "", "", "", *_counts(cost)))
    return table(columns, rows, numbers=len(_COUNTS))


def _counts(cost: Cost | LayerCost) -> list[str]:
    numbers = (
        *(cost.macs, cost.bops, cost.weights, cost.weight_bits),
        *(cost.activations, cost.activation_bits),
    )
    return [f"{number:,}" for number in numbers]
