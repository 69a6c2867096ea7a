"""``qonnx-hub transform``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from qonnx_hub.cli.data import (
    Data,
    Inputs,
    Labels,
    MaxAccuracyDrop,
    MetricName,
    MinAgreement,
    Preprocess,
    Threshold,
    TopK,
    read_feeds,
)
from qonnx_hub.cli.options import Force, From, Json, Samples, Seed, To, console, write_json

if TYPE_CHECKING:
    from rich.console import Console


def command(
    source: Annotated[
        str | None,
        typer.Argument(help="A model file, or package.module:callable.", metavar="MODEL"),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="PATH", help="File to write.", show_default="none"
        ),
    ] = None,
    passes: Annotated[
        list[str] | None,
        typer.Option(
            "--pass",
            "-p",
            metavar="NAME[:OPTION=VALUE,...]",
            help="A pass or a pipeline; repeat for several, in order.",
        ),
    ] = None,
    list_: Annotated[
        bool,
        typer.Option(
            "--list", help="Show the passes and pipelines, or the one named, and stop."
        ),
    ] = False,
    from_: From = None,
    to: To = "qonnx",
    opset: Annotated[
        int | None, typer.Option(help="Standard opset.", show_default="the model's own")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Compare before and after.")
    ] = True,
    inputs: Inputs = None,
    data: Data = None,
    labels: Labels = None,
    preprocess: Preprocess = None,
    max_accuracy_drop: MaxAccuracyDrop = None,
    min_agreement: MinAgreement = None,
    metric: MetricName = "accuracy",
    top_k: TopK = 1,
    threshold: Threshold = None,
    samples: Samples = None,
    seed: Seed = 0,
    json: Json = None,
    force: Force = False,
) -> None:
    """Run passes over a model, compare before and after, and write the result."""
    out = console(json)
    if list_:
        _list(out, json, source)
        return
    if source is None or not passes:
        missing = "MODEL" if source is None else "--pass"
        raise typer.BadParameter(f"{missing} is needed; --list shows the passes")
    from qonnx_hub import api
    from qonnx_hub.cli.errors import DIFFERENT
    from qonnx_hub.equivalence.acceptance import Acceptance
    from qonnx_hub.io.preprocessing import parse_preprocessing
    from qonnx_hub.transformation.transform import TransformOptions, transform_model

    model = api.load(source, from_)
    names = [str(value.name) for value in model.graph.inputs]
    feeds, right = read_feeds(inputs, data, labels, names)
    options = TransformOptions(
        to=to,
        opset=opset,
        check=check,
        samples=samples,
        seed=seed,
        inputs=feeds,
        labels=right,
        acceptance=Acceptance(max_accuracy_drop, min_agreement, metric, top_k, threshold),
        preprocess=None if preprocess is None else parse_preprocessing(preprocess),
    )
    report = transform_model(model, passes, output, source, options)
    report.show(out)
    write_json(report.document(), json)
    if report.check is not None and not report.check and not report.intended:
        raise typer.Exit(DIFFERENT)


def _list(out: Console, json: str | None, only: str | None) -> None:
    from rich.padding import Padding
    from rich.text import Text

    from qonnx_hub import passes
    from qonnx_hub_ir.choices import require_choice

    names = [*passes.names(), *passes.PIPELINES]
    if only is not None:
        require_choice("pass", only, names)
    infos = [passes.describe(name) for name in passes.names() if only in (None, name)]
    pipelines = {n: line for n, line in passes.PIPELINES.items() if only in (None, n)}
    groups: dict[str, list[passes.PassInfo]] = {}
    for info in infos:
        # Passes of one kind lie in one folder; others are on models as a whole.
        place = info.location.partition(":")[0].rpartition(".")[0]
        groups.setdefault(place.removeprefix("qonnx_hub_ir.passes."), []).append(info)
    for place in sorted(groups):
        title = "models" if place.startswith("qonnx_hub.") else place
        out.print(Text(title.upper(), "bold"))
        for info in groups[place]:
            out.print(Text(f"{info.name}: {info.summary}"))
            for line in (*info.change, *(f"option {option}" for option in info.options)):
                out.print(Padding(Text(line), (0, 0, 0, 4), expand=False))
        out.print()
    for name, pipeline in pipelines.items():
        out.print(Text(f"pipeline {name}: {pipeline.summary}"))
        for stage in pipeline.stages:
            words = Text(f"{stage.step}: {stage.reason}")
            out.print(Padding(words, (0, 0, 0, 4), expand=False))
    data = {
        "passes": [asdict(info) for info in infos],
        "pipelines": {name: asdict(line) for name, line in pipelines.items()},
    }
    write_json(data, json)
