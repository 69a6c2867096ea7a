"""``qonnx-hub formats``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from qonnx_hub.cli.options import Json, console, write_json


def command(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Show the options of this one.")
    ] = None,
    json: Json = None,
) -> None:
    """Show the formats that can be read and written, and what each can express.

    With NAME: its own options, for --option where it is read, --target-option where it is
    written, with their types and defaults.
    """
    from qonnx_hub.reporting.tables import Table

    rows = _rows()
    out = console(json)
    if name is not None:
        _show_one(name, rows, json)
        return
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


def _show_one(name: str, rows: list[dict[str, Any]], json: str | None) -> None:
    """Show one format with its options.

    Raises:
        UsageError: There is no such format.
    """
    from qonnx_hub.reporting.tables import Table
    from qonnx_hub_ir.choices import require_choice

    require_choice("format", name, [row["name"] for row in rows])
    row = next(one for one in rows if one["name"] == name)
    options = [*_options(name, reads=True), *_options(name, reads=False)]
    out = console(json)
    out.print(f"{name}: {row['summary']}")
    titles = ("given as", "option", "type", "default")
    if options:
        out.print(Table(titles, [tuple(map(str, one.values())) for one in options]))
    else:
        out.print("it has no options of its own")
    write_json({**row, "options": options}, json)


def _options(name: str, *, reads: bool) -> list[dict[str, Any]]:
    """Return the options that an importer, or an exporter, alone has."""
    from dataclasses import MISSING, fields

    from qonnx_hub.io import registry

    known = registry.importers() if reads else registry.exporters()
    if name not in known.locations:
        return []
    kind = known.get(name).info.options
    writers = registry.exporters()
    if reads and name in writers.locations and writers.get(name).info.options is kind:
        return []  # what a form is written with does not matter where it is read
    flag = "--option" if reads else "--target-option"
    found = []
    for one in () if kind is None else fields(kind):
        given = one.default if one.default is not MISSING else None
        if one.default_factory is not MISSING:
            given = one.default_factory()
        written = one.type if isinstance(one.type, str) else getattr(one.type, "__name__", "")
        found.append(
            {"given as": flag, "option": one.name, "type": written, "default": repr(given)}
        )
    return found


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
