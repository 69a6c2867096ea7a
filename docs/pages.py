"""Runs what a page of the site says, and keeps what it printed beside the page.

A page is run from its first block to its last in a folder of its own::

    python docs/pages.py docs/index.md docs/tutorials/from-qkeras.md

Python blocks run here, one after the other with the same names. A Python block with a title is
a file of that name. Lines of console blocks are commands; ``# exit N`` behind one is the code
that it ends with. What a block prints goes to ``docs/outputs``, with a hash of all code: the
site is not built, and the tests fail, where a page's code is newer than its output.

The first lines of a page may name the environment that has its frameworks, and the pages whose
blocks come before its own::

    ---
    environment: qkeras
    after: index.md
    ---
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
OUTPUTS = DOCS / "outputs"
COLUMNS = "96"
"""Width of the tables that commands print."""

_BLOCK = re.compile(
    r'^```(python|console)(?: title="([^"]+)")?\n(.*?)^```\n', re.DOTALL | re.MULTILINE
)
_HEAD = re.compile(r"^(environment|after): (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """One block of code: its kind, the name of its file where it is one, and its text."""

    kind: str
    title: str
    text: str


def blocks_of(text: str) -> list[Block]:
    """Return the blocks of a page that run, in order."""
    return [Block(*found) for found in _BLOCK.findall(text)]


def head_of(text: str) -> dict[str, str]:
    """Return what the first lines of a page say: its environment, and what runs before."""
    if not text.startswith("---\n"):
        return {}
    return dict(_HEAD.findall(text.split("---\n", 2)[1]))


def hash_of(text: str) -> str:
    """Return a hash of all code of a page."""
    code = "\0".join(f"{b.kind} {b.title}\n{b.text}" for b in blocks_of(text))
    return hashlib.sha256(code.encode()).hexdigest()


def output_of(page: Path) -> Path:
    """Return where the output of a page is kept."""
    return OUTPUTS / f"{page.stem}.json"


def run(page: Path) -> list[str]:
    """Return what each block of a page prints, run in the present folder.

    Raises:
        AssertionError: A command ends with another code than the page says.
    """
    text = page.read_text(encoding="utf-8")
    if before := head_of(text).get("after"):
        run(DOCS / before)
    names: dict[str, Any] = {"__name__": "__main__"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what frameworks say of themselves
        return [_printed(block, names, page) for block in blocks_of(text)]


def _printed(block: Block, names: dict[str, Any], page: Path) -> str:
    if block.title:
        Path(block.title).write_text(block.text, encoding="utf-8")
        return ""
    if block.kind == "console":
        lines = block.text.splitlines()
        shown = [_commanded(line, page).rstrip() for line in lines]
        if len(lines) == 1:
            return shown[0]
        # Of several commands, each stands above what it prints.
        parts = zip(lines, shown, strict=True)
        return "\n\n".join(f"{line}\n{text}".rstrip() for line, text in parts)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block.text, str(page), "exec"), names)  # the text is our own page
    return printed.getvalue()


def _commanded(line: str, page: Path) -> str:
    command, _, expected = line.removeprefix("$ ").partition("   # exit ")
    words = shlex.split(command)
    if words[0] == "qonnx-hub":
        code, shown = call(words)
    else:
        interpreters = {"python": sys.executable, "finn-python": os.environ.get("FINN_PYTHON")}
        done = subprocess.run(
            [interpreters[words[0]] or words[0], *words[1:]],
            capture_output=True,
            text=True,
            check=False,
        )
        code, shown = done.returncode, done.stdout + (done.stderr if done.returncode else "")
    assert code == int(expected or 0), f"{page.name}: {command}: exit {code}\n{shown}"
    return shown


def call(words: list[str]) -> tuple[int, str]:
    """Return the exit code of our command line in this process, and all that it prints."""
    from qonnx_hub.cli import main

    shown, argv = io.StringIO(), sys.argv
    sys.argv = words
    try:
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            main()
    except SystemExit as stop:
        # A text that a process ends with is its last line, and the code 1.
        code = stop.code or 0
        return (code if isinstance(code, int) else 1), shown.getvalue()
    finally:
        sys.argv = argv
    return 0, shown.getvalue()


def require_fresh(page: Path, text: str) -> list[str]:
    """Return the kept output of a page, a text for each block.

    Raises:
        ValueError: There is none, or the page's code is newer.
    """
    kept = output_of(page)
    hint = f"run `python docs/pages.py docs/{page.relative_to(DOCS)}`"
    if environment := head_of(text).get("environment"):
        hint += f" in the environment '{environment}'"
    if not kept.is_file():
        raise ValueError(f"{page.name} has no output: {hint}")
    found = json.loads(kept.read_text(encoding="utf-8"))
    if found["hash"] != hash_of(text):
        raise ValueError(f"{page.name}: its code is newer than its output: {hint}")
    return [str(one) for one in found["outputs"]]


def with_outputs(page: Path, text: str) -> str:
    """Return a page with the output of each block behind it."""
    outputs = iter(require_fresh(page, text))  # the head of a page holds no code

    def extended(found: re.Match[str]) -> str:
        output = next(outputs).rstrip()
        return found[0] + (f"\n```text\n{output}\n```\n" if output else "")

    return _BLOCK.sub(extended, text)


def pages() -> Iterator[Path]:
    """Give every page that has code to run."""
    for page in sorted(DOCS.rglob("*.md")):
        if blocks_of(page.read_text(encoding="utf-8")):
            yield page


@contextlib.contextmanager
def in_folder(folder: str | Path) -> Iterator[None]:
    """Work in a folder; Python 3.10 has no ``contextlib.chdir``."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def main(names: list[str]) -> None:
    """Run the named pages, and keep what they print."""
    os.environ["COLUMNS"] = COLUMNS
    OUTPUTS.mkdir(exist_ok=True)
    for name in names:
        page = Path(name).resolve()
        with tempfile.TemporaryDirectory() as folder, in_folder(folder):
            outputs = run(page)
        kept = {"hash": hash_of(page.read_text(encoding="utf-8")), "outputs": outputs}
        output_of(page).write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        print(f"{output_of(page).relative_to(DOCS.parent)}: {len(outputs)} blocks")


if __name__ == "__main__":
    main(sys.argv[1:])
