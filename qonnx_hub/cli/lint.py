"""``qonnx-hub lint``."""

from __future__ import annotations

from typing import Annotated

import typer

from qonnx_hub.cli.options import From, Json, Source, console, write_json


def _list_rules(asked: bool) -> None:
    """Print every rule and end."""
    if not asked:
        return
    from qonnx_hub.analysis.lint import lint_rules

    for target, rule in lint_rules():
        texts = f"{rule.reason}: {rule.effect}; {rule.remedy}"
        typer.echo(f"{target}: {rule.severity.value}: {rule.scope.name}: {texts}")
    raise typer.Exit


def command(
    source: Source,
    target: Annotated[
        str,
        typer.Option("--target", metavar="TOOL", help="hls4ml, finn, qonnx, ort, ..."),
    ],
    from_: From = None,
    fused: Annotated[
        bool,
        typer.Option("--fused", help="With ort: the layers that it runs in integers."),
    ] = False,
    json: Json = None,
    list_: Annotated[
        bool,
        typer.Option(
            "--list",
            callback=_list_rules,
            is_eager=True,
            help="List the rules of every tool.",
        ),
    ] = False,
) -> None:
    """List what a tool would refuse or compute wrongly, and what to do about it."""
    from qonnx_hub import api
    from qonnx_hub.equivalence.reports.text import table

    report = api.lint(source, target, from_, fused=fused)
    out = console(json)
    if report.findings:
        rows = [
            (
                *(one.severity.value, f"{one.op} {one.node}".strip()),
                *(one.reason, one.effect, one.remedy),
            )
            for one in report.findings
        ]
        out.print(table(("", "node", "what", "effect", "remedy"), rows))
    if report.fused:
        layers = [
            (one.node, one.op, one.runs_as or "floats", one.reason) for one in report.fused
        ]
        out.print(table(("node", "operator", "runs as", "why"), layers))
        whole = sum(1 for one in report.fused if one.runs_as)
        out.print(f"{whole} of {len(layers)} nodes run in integers")
    errors, notes = len(report.errors), len(report.findings) - len(report.errors)
    verdict = f"{errors} errors" if errors else "takes it as it is"
    out.print(f"{report.source}: {target}: {verdict}{f', {notes} notes' if notes else ''}")
    write_json(report.to_dict(), json)
    if errors:
        raise typer.Exit(1)
