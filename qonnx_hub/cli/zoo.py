"""``qonnx-hub zoo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qonnx_hub.cli.every_verb import verb
from qonnx_hub.cli.loudness import say
from qonnx_hub.cli.options import Json, console, write_json

if TYPE_CHECKING:
    from rich.console import Console

    from qonnx_hub.zoo import Entry, ZooCheck

app = typer.Typer(help="Find, fetch and check published models.", no_args_is_help=True)

Mirror = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Folder that holds the zoo's files.",
        show_default="the variable QONNX_HUB_ZOO",
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a model.")]


def list_models(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Models to show in full.")
    ] = None,
    json: Json = None,
) -> None:
    """List published models, or show some of them in full."""
    from qonnx_hub import zoo
    from qonnx_hub.reporting.tables import Table

    found = [zoo.find(name) for name in names] if names else list(zoo.entries())
    out = console(json)
    if names:
        for entry in found:
            _print_entry(out, entry)
    else:
        columns = ("name", "data set", "topology", "input", "weights", "activations")
        rows = [
            (
                *(one.name, one.dataset, one.topology, one.input_bits, one.weight_bits),
                *(one.activation_bits, one.accuracy),
                "recorded" if one.sha256 else "not recorded",
            )
            for one in found
        ]
        out.print(Table((*columns, "accuracy", "hash"), rows))
    write_json([entry.to_dict() for entry in found], json)


def _print_entry(out: Console, entry: Entry) -> None:
    out.print(f"{entry.name}: {entry.topology}, {entry.dataset}")
    out.print(
        f"  bits: input {entry.input_bits}, weights {entry.weight_bits}, "
        f"activations {entry.activation_bits}"
    )
    out.print(f"  published accuracy: {entry.accuracy or 'none'}")
    out.print(f"  input: {entry.preprocessing}")
    if entry.note:
        out.print(f"  note: {entry.note}")
    out.print(f"  sha256: {entry.sha256 or 'not recorded'}")
    out.print(f"  from: {entry.url}")


def get(
    name: Name,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PATH", help="A copy there."),
    ] = None,
    mirror: Mirror = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where downloads are kept.",
            show_default="the system's cache folder",
        ),
    ] = None,
    allow_unverified: Annotated[
        bool,
        typer.Option("--allow-unverified", help="Take files of which no hash is recorded."),
    ] = False,
) -> None:
    """Fetch a model, verify it, and print where it lies."""
    from qonnx_hub import zoo
    from qonnx_hub.io.atomic import replacing

    path = zoo.get(name, mirror=mirror, cache_folder=cache, allow_unverified=allow_unverified)
    if output is not None:
        with replacing(output) as temporary:
            temporary.write_bytes(path.read_bytes())
        path = output
    entry = zoo.find(name)
    say(str(path))
    if not entry.sha256:
        typer.echo("note: no hash is recorded for it; the file was not verified", err=True)


def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Models; all that the mirror holds."),
    ] = None,
    mirror: Mirror = None,
    json: Json = None,
) -> None:
    """Verify files, and run them on recorded inputs where NAME.io.npz lies beside.

    Exit code 1 if a file is not the published one or computes something else.
    """
    from qonnx_hub import zoo
    from qonnx_hub_ir.errors import UsageError

    wanted = names or zoo.available(mirror)
    if not wanted:
        raise UsageError("name models to check, or a mirror that holds some (--mirror)")
    found = [zoo.check(name, mirror=mirror) for name in wanted]
    _print_checks(console(json), found)
    write_json([one.to_dict() for one in found], json)
    if not all(found):
        raise typer.Exit(1)


def _print_checks(out: Console, found: list[ZooCheck]) -> None:
    from qonnx_hub.reporting.tables import Table

    rows = []
    files = {True: "as published", False: "NOT the published file", None: "no hash recorded"}
    for one in found:
        outputs, largest = "nothing recorded", "-"
        if one.samples:
            verdict = "equal" if one.different == 0 else "close" if one.equal else "DIFFERENT"
            outputs = f"{verdict}: {one.different} of {one.values} differ"
            largest = f"{one.largest:g}"
        rows.append((one.name, files[one.published], outputs, largest))
    out.print(Table(("name", "file", "outputs", "largest difference"), rows))


for name, command in (("list", list_models), ("get", get), ("check", check)):
    app.command(name=name)(verb(command))
