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
    Page,
    console,
    named_types,
    read_shapes,
    write_json,
)
from qonnx_hub_ir.choices import Convention

if TYPE_CHECKING:
    from qonnx_hub.analysis.cost.cost import Cost, CostOptions
    from qonnx_hub_ir.errors import HubError


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
    report: Page = None,
    json: Json = None,
) -> None:
    """Count what one inference costs: MACs, bit operations, weights, activations.

    Of several models, one that cannot be counted is listed, and stops no other.
    """
    from qonnx_hub.analysis.cost.cost import COUNTS, Cost, CostOptions, counts_of
    from qonnx_hub.cli.errors import exit_code, message_of
    from qonnx_hub.reporting.tables import Table
    from qonnx_hub_ir.errors import UsageError

    shapes = read_shapes(input_shape or ())
    options = CostOptions(convention, sparsity, named_types(input_dtype or ()), shapes)
    found = [(source, _cost_or_error(source, from_, options)) for source in sources]
    costs = [one for _, one in found if isinstance(one, Cost)]
    failed = [(source, one) for source, one in found if not isinstance(one, Cost)]
    if failed and len(sources) == 1:
        raise failed[0][1]
    if plot is not None:
        from qonnx_hub.analysis.cost.plot import write_plot

        write_plot(costs, plot)
    out = console(json)
    if report is not None:
        if len(sources) > 1:
            raise UsageError("--report is of one model; --json holds several")
        costs[0].to_html(report)
    if len(sources) == 1:
        costs[0].show(out)
    else:
        rows = [(cost.source, str(len(cost.layers)), *counts_of(cost)) for cost in costs]
        out.print(Table(("model", "layers", *COUNTS), rows, numbers=len(COUNTS) + 1))
        for cost in costs:
            for note in cost.notes:
                out.print(f"note: {cost.source}: {note}")
    if plot is not None:
        out.print(f"plot: {plot}")
    for source, error in failed:
        code, why = exit_code(error), message_of(error).removeprefix("qonnx-hub: ")
        out.print(f"{source}: failed with code {code}: {why}")
    data = [cost.document() for cost in costs]
    write_json(data[0] if len(sources) == 1 else data, json)
    if failed:
        raise typer.Exit(max(exit_code(error) for _, error in failed))


def _cost_or_error(
    source: str, from_: str | None, options: CostOptions
) -> Cost | HubError | OSError:
    from qonnx_hub import api
    from qonnx_hub.analysis.cost.cost import count_cost
    from qonnx_hub_ir.errors import HubError

    try:
        return count_cost(api.load(source, from_), options, source)
    except (HubError, OSError) as error:
        return error
