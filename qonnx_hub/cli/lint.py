"""``qonnx-hub lint``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from qonnx_hub.cli.options import From, Json, Source, console, write_json

if TYPE_CHECKING:
    from rich.table import Table


def command(
    source: Source,
    target: Annotated[
        str, typer.Option("--target", metavar="TOOL", help="hls4ml, finn, ort or qonnx.")
    ],
    from_: From = None,
    json: Json = None,
) -> None:
    """List what a tool would refuse or compute wrongly, and what to do about it."""
    from qonnx_hub import api

    report = api.lint(source, target, from_)
    out = console(json)
    if report.findings:
        out.print(_table(report.findings))
    errors, notes = len(report.errors), len(report.findings) - len(report.errors)
    verdict = f"{errors} errors" if errors else "takes it as it is"
    out.print(f"{report.source}: {target}: {verdict}{f', {notes} notes' if notes else ''}")
    write_json(report.to_json(), json)
    if errors:
        raise typer.Exit(1)


def _table(findings: Any) -> Table:
    from rich.table import Table

    table = Table("", "node", "what", "effect", "remedy", box=None, pad_edge=False)
    for one in findings:
        where = f"{one.op} {one.node}".strip()
        table.add_row(one.severity.value, where, one.reason, one.effect, one.remedy)
    return table
