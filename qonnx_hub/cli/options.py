"""Options that several verbs share, spelled once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

Source = Annotated[
    str, typer.Argument(help="A model file, or package.module:callable.", metavar="MODEL")
]
Json = Annotated[
    str | None,
    typer.Option(
        "--json", metavar="PATH", help="Write the report as JSON; - is standard output."
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(min=1, help="Processes to spread several models over.", show_default="1"),
]
Dask = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS",
        help="dask scheduler whose workers do the work; they must see the same files.",
    ),
]
Page = Annotated[
    Path | None,
    typer.Option("--report", metavar="PATH", help="Write a page for the browser."),
]
From = Annotated[
    str | None, typer.Option("--from", metavar="FORMAT", help="Format of the input.")
]
Samples = Annotated[
    int | None, typer.Option(min=1, help="Samples to generate.", show_default="fits the model")
]
Seed = Annotated[int, typer.Option(help="Seed of the generated inputs.")]
To = Annotated[
    str, typer.Option("--to", metavar="FORMAT", help="Form to write; see 'formats'.")
]
InputShapes = Annotated[
    list[str] | None,
    typer.Option(
        "--input-shape",
        metavar="N,C,...",
        help="Shape of a sample input, for sources that are traced.",
    ),
]
OpenShapes = Annotated[
    list[str] | None,
    typer.Option(
        "--input-shape",
        metavar="N,C,...",
        help="Sizes of an input, where the model leaves them open; one per input, in order.",
    ),
]
AllowCode = Annotated[
    bool,
    typer.Option(
        "--allow-code", help="Run code that a file holds: Lambda layers, pickles, SavedModel."
    ),
]
Python = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="An interpreter that has hls4ml, for folders of hls4ml.",
        show_default="this one",
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Write over a file that the command reads.")
]
AllowExternal = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-external",
        metavar="DIR",
        help="Let ONNX files read weights below a folder that is not theirs; for any verb.",
    ),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        "--max-memory",
        metavar="BYTES",
        help="Largest file, with its weights and unpacked, such as 8G; for any verb.",
        show_default="the machine's memory",
    ),
]
MaxNodes = Annotated[
    str | None,
    typer.Option(
        "--max-nodes",
        metavar="N",
        help="Most nodes of a model, with called functions; for any verb.",
        show_default="524288",
    ),
]
Operators = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODULE",
        help="Import a module whose operators shall run: qonnx, finn.custom_op.general, ...",
    ),
]
InputTypes = Annotated[
    list[str] | None,
    typer.Option(
        "--input-dtype",
        metavar="[NAME=]TYPE",
        help="Type of an input, such as UINT8; of all without a name.",
    ),
]


def console(json_target: str | None) -> Console:
    """Return the console of the report; quiet if asked, or while JSON takes its place."""
    from qonnx_hub.cli.loudness import is_quiet
    from qonnx_hub.io.terminal import ReportConsole
    from qonnx_hub.reporting import progress

    progress.clear()
    out = ReportConsole(quiet=json_target == "-" or is_quiet(), soft_wrap=True)
    if not out.is_terminal:
        # A file or a pipe has no width to fit: nothing is cut off.
        out.width = 220
    return out


def write_json(data: Any, target: str | None) -> None:
    """Write plain data as JSON to the option's path; nothing without the option."""
    if target is None:
        return
    import json

    text = json.dumps(data, indent=2)
    if target == "-":
        typer.echo(text)
        return
    from qonnx_hub.io.atomic import write_text

    write_text(target, text + "\n")


def read_shapes(texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the shapes that texts such as "1,3,32,32" say.

    Raises:
        UsageError: A text that says none.
    """
    from qonnx_hub_ir.errors import UsageError

    shapes = []
    for text in texts:
        sizes = [part.strip() for part in text.split(",")]
        if not all(size.isdigit() and int(size) > 0 for size in sizes):
            raise UsageError(f"'{text}' is no shape; write it like 1,3,32,32")
        shapes.append(tuple(int(size) for size in sizes))
    return shapes


def sample_inputs(shapes: Sequence[str], seed: int) -> tuple[Any, ...]:
    """Return one float32 array of normal numbers per shape, such as "1,3,32,32".

    Raises:
        UsageError: A shape that is none.
    """
    if not shapes:
        return ()
    import numpy as np

    rng = np.random.default_rng(seed)
    sizes = read_shapes(shapes)
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in sizes)


def named_values(texts: Sequence[str]) -> dict[str, Any]:
    """Return "name=value" texts as a dict; a value is JSON where it can be, else the text.

    Raises:
        UsageError: A text without a name.
    """
    import json

    from qonnx_hub_ir.errors import UsageError

    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise UsageError(f"'{text}' is no option; write it like mode=quant")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    return values


def named_types(texts: Sequence[str]) -> dict[str, str]:
    """Return "[NAME=]TYPE" texts as name -> type; the name "" stands for all inputs."""
    pairs = (text.rpartition("=") for text in texts)
    return {name: kind for name, _, kind in pairs}


def name_and_rest(text: str) -> tuple[str, str]:
    """Return the parts of "NAME=REST", or "NAME:REST"; REST alone has the name ""."""
    place = max(text.rfind("="), text.rfind(":"))
    return text[: max(place, 0)], text[place + 1 :]


def named_ranges(texts: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return "NAME=LO,HI" texts as name -> (lowest, highest).

    Raises:
        UsageError: A text of another form.
    """
    from qonnx_hub_ir.errors import UsageError

    ranges: dict[str, tuple[float, float]] = {}
    for text in texts:
        name, ends = name_and_rest(text)
        try:
            low, high = (float(end) for end in ends.split(","))
        except ValueError:
            name = ""
        if not name:
            raise UsageError(f"--range takes NAME=LO,HI, not '{text}'")
        ranges[name] = (low, high)
    return ranges
