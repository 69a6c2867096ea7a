"""``qonnx-hub formats``."""

from __future__ import annotations

import json as json_module
from typing import Any

from qonnx_hub.cli.options import Json, console, write_json


def command(json: Json = None) -> None:
    """Show the formats that can be read and written, and what each can express."""
    from rich.table import Table

    rows = _rows()
    out = console(json)
    table = Table("format", "reads", "writes", "installed", "what", box=None, pad_edge=False)
    for row in rows:
        flags = [("yes" if row[key] else "no") for key in ("reads", "writes", "installed")]
        table.add_row(row["name"], *flags, row["summary"])
    out.print(table)
    writers = [row for row in rows if row["support"]]
    features = list(dict.fromkeys(name for row in writers for name in row["support"]))
    matrix = Table("how exactly", *[row["name"] for row in writers], box=None, pad_edge=False)
    for feature in features:
        matrix.add_row(feature, *[row["support"].get(feature, "unknown") for row in writers])
    out.print()
    out.print(matrix)
    write_json(json_module.dumps(rows, indent=2), json)


def _rows() -> list[dict[str, Any]]:
    from qonnx_hub.io import registry
    from qonnx_hub_adapters.dependencies import is_installed

    readers, writers = registry.importers(), registry.exporters()
    rows = []
    for name in dict.fromkeys((*readers.names(), *writers.names())):
        reads, writes = name in readers.locations, name in writers.locations
        info = (writers.get(name) if writes else readers.get(name)).info
        rows.append(
            {
                "name": name,
                "summary": info.summary,
                "reads": reads,
                "writes": writes,
                "installed": all(is_installed(module) for module in info.requires),
                "extra": info.extra,
                "support": {f.value: s.value for f, s in info.support.items()},
            }
        )
    return rows
