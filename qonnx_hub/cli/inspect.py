"""``qonnx-hub inspect``."""

from __future__ import annotations

import json as json_module
from typing import TYPE_CHECKING, Any

from qonnx_hub.cli.options import From, Json, Source, console, write_json

if TYPE_CHECKING:
    from rich.table import Table


def command(source: Source, from_: From = None, json: Json = None) -> None:
    """Show what is quantized in a model, tensor by tensor, with totals."""
    from qonnx_hub import api

    found = api.inspect(api.load(source, from_))
    out = console(json)
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
    write_json(json_module.dumps(found.to_dict(), indent=2), json)


def _table(tensors: Any) -> Table:
    from rich.table import Table

    columns = (
        *("tensor", "kind", "shape", "bits", "signed", "narrow", "scale", "zero point"),
        *("rounding", "integers", "range"),
    )
    table = Table(*columns, box=None, pad_edge=False)
    for t in tensors:
        table.add_row(
            t.name,
            t.kind,
            "x".join(map(str, t.shape)),
            t.bits,
            _flag(t.signed),
            _flag(t.narrow),
            t.scale,
            t.zero_point or "-",
            t.rounding or "-",
            "-" if t.distinct is None else str(t.distinct),
            "-" if t.lowest is None else f"{t.lowest}..{t.highest}",
        )
    return table


def _flag(value: bool | None) -> str:
    return "-" if value is None else "yes" if value else "no"
