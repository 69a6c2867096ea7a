"""``qonnx-hub report``: what a bug report needs, in one archive."""

from __future__ import annotations

import itertools
import json
import platform
import shlex
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from qonnx_hub._version import __version__
from qonnx_hub.cli.loudness import say

LARGEST = 50_000_000
"""Bytes of a file that is packed; of larger ones, name and size."""

SETTINGS = {"allow_interspersed_args": False, "ignore_unknown_options": True}
"""Options behind the verb are the command's own."""


def command(
    archive: Annotated[Path, typer.Argument(help="Archive to write.", metavar="OUT.zip")],
    words: Annotated[
        list[str],
        typer.Argument(
            help="The command that goes wrong, without qonnx-hub.", metavar="VERB ..."
        ),
    ],
) -> None:
    """Run a command again, and pack its output, versions and files for a bug report.

    Of a check that finds a difference, the smallest parts that still differ are packed too.
    Look into the archive before you send it: it holds the files that the command names.
    """
    from qonnx_hub.io.atomic import replacing

    line = [sys.executable, "-m", "qonnx_hub", "--traceback", *words]
    done = subprocess.run(line, capture_output=True, text=True, errors="replace", check=False)
    told = (
        f"$ qonnx-hub {shlex.join(words)}\n{done.stdout}{done.stderr}exit {done.returncode}\n"
    )
    notes = []
    with (
        replacing(archive) as place,
        tempfile.TemporaryDirectory() as folder,
        zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        packed.writestr("output.txt", told)
        packed.writestr("versions.json", json.dumps(versions(), indent=1))
        for number, path in enumerate(named_files(words)):
            if path.stat().st_size > LARGEST:
                notes.append(f"{path}: {path.stat().st_size} bytes are left out")
            else:
                packed.write(path, f"files/{number}_{path.name}")
        if words[0] == "check" and done.returncode == 1:
            smallest = Path(folder, "smallest")
            files = (
                path for path in named_files(words) if path.suffix not in {".npz", ".npy"}
            )
            sides = [str(path) for path in files][:2]
            cut = [*line[:3], "reduce", *sides, "-o", str(smallest), *_inputs_of(words)]
            tried = subprocess.run(cut, capture_output=True, text=True, check=False)
            packed.writestr("reduce.txt", tried.stdout + tried.stderr)
            for path in sorted(smallest.glob("*")) if smallest.is_dir() else ():
                packed.write(path, f"smallest/{path.name}")
        packed.writestr("notes.txt", "".join(f"{note}\n" for note in notes))
        names = packed.namelist()
    say(f"{archive}: the command ended with {done.returncode}; packed: {', '.join(names)}")
    for note in notes:
        say(f"note: {note}")


def versions() -> dict[str, str]:
    """Return the versions of everything that is installed, and on what it runs.

    Example:
        >>> "numpy" in versions()
        True
    """
    found = {"python": platform.python_version(), "system": platform.platform()}
    found["qonnx_hub"] = __version__  # of what runs, installed or not
    installed = sorted(metadata.distributions(), key=lambda one: one.name.lower())
    return found | {one.name: one.version for one in installed}


def _inputs_of(words: Sequence[str]) -> Iterator[str]:
    """Give the options of a check that decide on its inputs, and where it runs."""
    known = ("--inputs", "--data", "--samples", "--seed", "--backend")
    for word, value in itertools.zip_longest(words, words[1:], fillvalue=""):
        name, _, joined = word.partition("=")
        if name in known:
            # What is called data there is inputs to reduce.
            yield from ("--inputs" if name == "--data" else name, joined or value)


def named_files(words: Sequence[str]) -> Iterator[Path]:
    """Give the files that a command names; ``--option=PATH`` names one too."""
    for word in words:
        path = Path(word.partition("=")[2] if word.startswith("--") and "=" in word else word)
        if path.is_file():
            yield path
