"""``qonnx-hub lint``."""

from __future__ import annotations

from pathlib import Path
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
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="With hls4ml: a config whose types are held against the model's ranges.",
        ),
    ] = None,
    save_failing: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Write the inputs that show it as .npz."),
    ] = None,
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

    report = api.lint(source, target, from_, fused=fused, config=config)
    report.show(console(json))
    write_json(report.to_dict(), json)
    if save_failing is not None and report.shown:
        from qonnx_hub.io.arrays import write_arrays

        write_arrays(save_failing, report.shown)
    if not report:
        raise typer.Exit(1)
