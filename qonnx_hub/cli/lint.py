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
    baseline: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Leave out findings that this file knows."),
    ] = None,
    write_baseline: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Write the findings as known; exit code 0."),
    ] = None,
    sarif: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write the findings as SARIF 2.1.0.")
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
    from qonnx_hub.analysis import lint_output

    report = api.lint(source, target, from_, fused=fused, config=config)
    if baseline is not None:
        report = lint_output.without_known(report, baseline)
    report.show(console(json))
    write_json(report.document(), json)
    if sarif is not None:
        write_json(lint_output.sarif(report), str(sarif))
    if write_baseline is not None:
        lint_output.write_baseline(report, write_baseline)
        return
    if save_failing is not None and report.shown:
        from qonnx_hub.io.arrays import write_arrays

        write_arrays(save_failing, report.shown)
    if not report:
        raise typer.Exit(1)
