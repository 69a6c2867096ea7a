"""``qonnx-hub inspect``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qonnx_hub.cli.options import (
    From,
    InputTypes,
    Json,
    Source,
    console,
    named_ranges,
    named_types,
    write_json,
)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from qonnx_hub.analysis.inspection import Inspection
    from qonnx_hub.analysis.weight_export import IntegerWeight

_MOST_NOTES = 20


def command(
    source: Source,
    from_: From = None,
    ranges: Annotated[
        bool,
        typer.Option(
            "--ranges", help="Show what every tensor and every accumulator can hold."
        ),
    ] = False,
    range_: Annotated[
        list[str] | None,
        typer.Option("--range", metavar="NAME:LO,HI", help="Range of an input, for --ranges."),
    ] = None,
    input_dtype: InputTypes = None,
    weights: Annotated[
        bool, typer.Option("--weights", help="Show the integers of all weights.")
    ] = False,
    export_ints: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Write the integers of all weights: .npz, or .h for C."
        ),
    ] = None,
    json: Json = None,
) -> None:
    """Show what is quantized in a model, tensor by tensor, with totals."""
    from qonnx_hub import api
    from qonnx_hub.analysis.weight_export import integer_weights, write_integers

    model = api.load(source, from_)
    given: dict[str, Any] = {**named_types(input_dtype or ()), **named_ranges(range_ or ())}
    if "" in given:
        names = [str(value.name) for value in model.graph.inputs]
        given = {**dict.fromkeys(names, given.pop("")), **given}
    found = api.inspect(model, ranges=ranges or json is not None, inputs=given)
    wanted = weights or export_ints is not None or json is not None
    stored = integer_weights(model) if wanted else []
    if export_ints is not None:
        write_integers(stored, export_ints)
    out = console(json)
    _print_tensors(out, found)
    if ranges:
        _print_ranges(out, found)
    if weights:
        out.print()
        out.print(_weights(stored))
    if export_ints is not None:
        out.print(f"{export_ints}: integers of {len(stored)} weights")
    data = {**found.to_dict(), "weights": [_weight_data(weight) for weight in stored]}
    write_json(data, json)


def _print_tensors(out: Console, found: Inspection) -> None:
    out.print(_table(found.tensors))
    signature = [f"{name} {kind}" for name, kind in found.inputs.items()]
    results = [f"{name} {kind}" for name, kind in found.outputs.items()]
    out.print(f"inputs: {', '.join(signature)}; outputs: {', '.join(results)}")
    operators = ", ".join(f"{count} {name}" for name, count in found.operators.items())
    out.print(f"opset {found.opset}: {operators}")
    weights = sum(tensor.kind == "weight" for tensor in found.tensors)
    out.print(
        f"{len(found.tensors)} quantizers ({weights} on weights); "
        f"{found.parameters} parameters, {found.float_weights} of them float; "
        f"quantized weights need {found.weight_bits} bits"
    )
    for note in found.notes[:_MOST_NOTES]:
        out.print(f"note: {note}")
    if len(found.notes) > _MOST_NOTES:
        out.print(f"note: and {len(found.notes) - _MOST_NOTES} more; --json holds all")


def _table(tensors: Any) -> RenderableType:
    from qonnx_hub.equivalence.reports.text import table

    columns = (
        *("tensor", "kind", "shape", "bits", "signed", "narrow", "scale", "zero point"),
        *("rounding", "integers", "range"),
    )
    rows = [
        (
            *(t.name, t.kind, "x".join(map(str, t.shape)), t.bits),
            *(_flag(t.signed), _flag(t.narrow), t.scale, t.zero_point or "-"),
            t.rounding or "-",
            "-" if t.distinct is None else str(t.distinct),
            "-" if t.lowest is None else f"{t.lowest}..{t.highest}",
        )
        for t in tensors
    ]
    return table(columns, rows)


def _flag(value: bool | None) -> str:
    return "-" if value is None else "yes" if value else "no"


def _print_ranges(out: Console, found: Inspection) -> None:
    from qonnx_hub.equivalence.reports.text import accumulator_table, table

    columns = ("tensor", "type", "values", "integers", "scale", "offset", "per", "exact")
    rows = [
        (
            *(one.name, one.datatype or "-", f"{one.low:.6g}..{one.high:.6g}"),
            "-" if one.integer_low is None else f"{one.integer_low}..{one.integer_high}",
            *(one.scale or "-", one.offset or "-"),
            "-" if one.axis is None else f"axis {one.axis}",
            one.fixed_point or ("yes" if one.exact else "no"),
        )
        for one in found.ranges
    ]
    out.print()
    out.print(table(columns, rows))
    if not found.accumulators:
        return
    out.print()
    out.print(accumulator_table(asdict(layer) for layer in found.accumulators))


def _weights(stored: list[IntegerWeight]) -> RenderableType:
    from qonnx_hub.equivalence.reports.text import table

    columns = ("weight", "shape", "bits", "signed", "integers", "range", "zeros", "scale")
    rows = [
        (
            *(data["name"], "x".join(map(str, data["shape"])), str(data["bits"])),
            *(_flag(data["signed"]), str(data["distinct"])),
            *(f"{data['lowest']}..{data['highest']}", str(data["zeros"]), data["scale"]),
        )
        for data in map(_weight_data, stored)
    ]
    return table(columns, rows)


def _weight_data(weight: IntegerWeight) -> dict[str, Any]:
    import numpy as np

    from qonnx_hub_ir.describe import describe_number

    used = np.unique(weight.integers)
    return {
        "name": weight.name,
        "shape": list(weight.integers.shape),
        "bits": weight.bits,
        "signed": weight.signed,
        "distinct": int(used.size),
        "lowest": int(used[0]) if used.size else None,
        "highest": int(used[-1]) if used.size else None,
        "zeros": weight.zeros,
        "scale": describe_number(weight.scale),
        "zero_point": describe_number(weight.zero_point),
    }
