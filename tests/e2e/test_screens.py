"""A first day: sixty commands and forty lines, in a pipe, in a terminal and in a notebook."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qonnx_hub as qh
from tests.e2e.screens import COMMANDS, LINES, MARKUP, make_files
from tests.e2e.test_help import run

ROOT = Path(__file__).resolve().parents[2]
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\]8;[^\x1b]*\x1b\\")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("day")
    make_files(found)
    return found


def test_there_are_sixty_commands_and_forty_lines() -> None:
    assert (len(COMMANDS) >= 60, len(LINES) >= 40) == (True, True)


def test_every_command_answers_in_a_pipe(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    wrong = []
    for command, code, words in COMMANDS:
        found, text = run(*shlex.split(command))
        shown = " ".join(text.split())
        if found != code or words not in shown or "Traceback" in text or "\x1b" in text:
            wrong.append((command, found, text[-400:]))
        if words == "" and text:
            wrong.append((command, "said something", text))
    assert wrong == []


def caught(call: Callable[..., Any], *args: Any, **options: Any) -> Exception | None:
    try:
        call(*args, **options)
    except (AssertionError, qh.HubError) as error:
        return error
    return None


def test_every_line_comes_to_what_stands_beside_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {
        "qh": qh,
        "json": json,
        "Path": Path,
        "caught": caught,
        "x": np.load("x.npy"),
        "bytes_": np.load("bytes.npy"),
    }
    for line, truth in LINES:
        exec(line, names)  # the text is our own
        assert eval(truth, names), f"{line}   # {truth}"


def _in_terminal(folder: Path, words: str, *, columns: int, encoding: str) -> tuple[int, str]:
    """Run a command in a pseudo terminal; return its exit code and its screen."""
    pty, fcntl, termios, struct = (
        pytest.importorskip(name) for name in ("pty", "fcntl", "termios", "struct")
    )
    child, master = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.environ |= {
            "TERM": "xterm-256color",
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "PYTHONIOENCODING": encoding,
            "COLUMNS": str(columns),
        }
        os.execv(sys.executable, [sys.executable, "-m", "qonnx_hub", *shlex.split(words)])
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    shown = io.BytesIO()
    with contextlib.suppress(OSError):  # the terminal is closed with its last process
        while part := os.read(master, 65536):
            shown.write(part)
    os.close(master)
    status = os.waitpid(child, 0)[1]
    text = shown.getvalue().decode(encoding, errors="replace")
    return os.waitstatus_to_exitcode(status), text


@pytest.mark.parametrize(("columns", "encoding"), [(60, "utf-8"), (120, "ascii")])
def test_in_terminals_names_are_no_markup_and_never_cut(
    folder: Path, columns: int, encoding: str
) -> None:
    code, text = _in_terminal(folder, "inspect names.onnx", columns=columns, encoding=encoding)
    shown = ESCAPES.sub("", text)
    assert code == 0, text
    # Where there is no room, a name goes on below itself.
    assert "\u2026" not in shown
    assert "\\u2026" not in shown
    if columns > 60:
        assert (MARKUP if encoding == "utf-8" else "w[/red]\\xe9") in shown


def test_in_a_terminal_a_report_is_coloured_and_no_bar_stays(folder: Path) -> None:
    code, text = _in_terminal(folder, "check a.onnx b.onnx", columns=100, encoding="utf-8")
    assert code == 1
    assert "\x1b[31m" in text
    assert "comparing samples" not in ESCAPES.sub("", text.split("\x1b[2K")[-1])
    assert "Traceback" not in text


def test_names_that_a_command_needs_are_never_cut(folder: Path) -> None:
    _, text = _in_terminal(folder, "zoo list", columns=80, encoding="utf-8")
    shown = "".join(ESCAPES.sub("", text).split())
    assert "…" not in text
    for entry in qh.zoo.entries():
        # Where a name is broken, its parts stand below each other.
        assert entry.name in shown or entry.name[:8] in text


@pytest.mark.skipif(
    "QONNX_HUB_NOTEBOOKS" not in os.environ, reason="tox run -e notebooks executes notebooks"
)
def test_the_lines_run_in_a_notebook_and_reports_show_themselves(folder: Path) -> None:
    import nbclient
    import nbformat

    names = (
        f"import json\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\nimport numpy as np\n"
        "import qonnx_hub as qh\nfrom tests.e2e.test_screens import caught\n"
        "x, bytes_ = np.load('x.npy'), np.load('bytes.npy')"
    )
    cells = [names, *(f"{line}\nassert {truth}" for line, truth in LINES), "r", "c"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    client = nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    outputs = [out for cell in notebook.cells for out in cell.outputs]
    assert [out for out in outputs if out.output_type in {"error", "stream"}] == []
    pages = [out for out in outputs if "text/html" in out.get("data", {})]
    assert len(pages) >= 2
    assert all("text/plain" in page["data"] for page in pages)
