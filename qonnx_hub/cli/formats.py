"""``qonnx-hub formats``."""

from __future__ import annotations

from typing import Any

from qonnx_hub.cli.options import Json, console, write_json


def command(json: Json = None) -> None:
    """Show the formats that can be read and written, and what each can express."""
    from qonnx_hub.reporting.tables import Table

    rows = _rows()
    out = console(json)
    flags = ("reads", "writes", "installed")
    cells = [
        (row["name"], *("yes" if row[flag] else "no" for flag in flags), row["summary"])
        for row in rows
    ]
    out.print(Table(("format", *flags, "what"), cells))
    writers = [row for row in rows if row["support"]]
    features = list(dict.fromkeys(name for row in writers for name in row["support"]))
    matrix = [
        (feature, *(row["support"].get(feature, "unknown") for row in writers))
        for feature in features
    ]
    out.print()
    out.print(Table(("how exactly", *(row["name"] for row in writers)), matrix))
    write_json(rows, json)


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
