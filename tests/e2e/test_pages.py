"""What the pages of the site say runs: their Python, and their commands, in order."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qonnx_hub.cli import main

PAGES = Path(__file__).resolve().parents[2] / "docs"
ORDER = ("index.md", "concepts.md", "report.md", "cookbook.md")
"""The first page makes the model that the others use."""

_BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks_of(page: str) -> Iterator[tuple[str, str]]:
    yield from _BLOCK.findall((PAGES / page).read_text(encoding="utf-8"))


def run(command: str) -> tuple[int, str]:
    text, argv = io.StringIO(), sys.argv
    sys.argv = shlex.split(command)
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            main()
    except SystemExit as stop:
        return int(stop.code or 0), text.getvalue()
    finally:
        sys.argv = argv
    return 0, text.getvalue()


def test_every_block_of_the_pages_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    count = 0
    for page in ORDER:
        names: dict[str, Any] = {}
        for kind, text in blocks_of(page):
            count += 1
            if kind == "python":
                exec(text, names)  # the text is our own page
                continue
            for line in text.splitlines():
                command, _, comment = line.removeprefix("$ ").partition("   # exit ")
                code, shown = run(command)
                assert code == int(comment or 0), f"{page}: {command}\n{shown}"
    assert count > 15


def test_the_report_page_says_what_the_report_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for page in ("index.md", "report.md"):
        names: dict[str, Any] = {}
        for kind, text in blocks_of(page):
            if kind == "python":
                exec(text, names)
    code, shown = run("qonnx-hub check model.onnx changed.onnx")
    assert code == 1
    words = " ".join(shown.split())
    for told in (
        "DIFFERENT",
        "required tolerance",
        "smallest failing input",
        "cause",
        "isolated",
    ):
        assert told in words
    assert "first divergence: layer 'x_quant'" in words
