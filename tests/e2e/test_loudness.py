"""How much is said: nothing, a report, or every step; a bar on terminals and in notebooks."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

import qonnx_hub as qh
from qonnx_hub.cli import main
from qonnx_hub.reporting import progress
from tests.support import model_of, quant_node

CONSTANTS = {"s": 0.25, "z": 0.0, "b": 4.0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, bits in (("a", 4.0), ("b", 3.0)):
        nodes = [quant_node("x", "y")]
        model = model_of(nodes, {"x": ("N", 3)}, ["y"], {**CONSTANTS, "b": bits})
        onnx.save(model, tmp_path / f"{name}.onnx")
    return tmp_path


def run(folder: Path, *words: str) -> Any:
    """Run the command line in this process; return code, standard output and error."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["qonnx-hub", *words])
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


def run_process(folder: Path, *words: str) -> Any:
    places = [str(folder), *(p for p in sys.path if p)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    return subprocess.run(
        [sys.executable, "-m", "qonnx_hub", *words],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=folder,
    )


@pytest.mark.parametrize("words", [("check", "-q"), ("-q", "check")])
def test_quiet_verbs_answer_by_their_exit_code_alone(folder: Path, words: Any) -> None:
    done = run(folder, *words, "a.onnx", "b.onnx")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_quiet_verbs_still_write_json_and_errors(folder: Path) -> None:
    done = run(folder, "inspect", "-q", "a.onnx", "--json", "-")
    assert done.stdout.startswith("{")
    done = run(folder, "inspect", "-q", "missing.onnx")
    assert (done.returncode, done.stdout) == (3, "")
    assert "does not exist" in done.stderr


def test_verbose_verbs_say_their_steps_on_standard_error(folder: Path) -> None:
    done = run(folder, "convert", "-v", "a.onnx", "-o", "c.onnx")
    steps = [line.partition(" s: ")[2] for line in done.stderr.splitlines()]
    assert steps[0] == "reading a.onnx"
    assert steps[-1] == "writing c.onnx"
    assert "looking for a proof" in steps
    assert "reading a.onnx" not in done.stdout


def test_both_at_once_are_wrong_usage(folder: Path) -> None:
    done = run(folder, "inspect", "-q", "-v", "a.onnx")
    assert done.returncode == 2
    assert "exclude each other" in done.stderr


def test_in_pipes_no_bar_is_drawn(folder: Path) -> None:
    done = run_process(folder, "check", "a.onnx", "a.onnx")
    assert done.stderr == ""


NOISE = """WARNING: All log messages before absl::InitializeLog() is called go to STDERR
I0000 00:00:1796078099.780848   18238 cudart_stub.cc:31] Could not find cuda drivers.
E0000 00:00:1796078107.736113   18238 cuda_platform.cc:52] failed call to cuInit: INTERNAL
2026-11-30 22:00:01.123456: I tensorflow/core/util/port.cc:153] oneDNN operations are on.
To enable the following instructions: AVX2 FMA, rebuild TensorFlow.
F0000 00:00:1796078107.736113   18238 tensor.cc:1] Check failed
a line of somebody else
"""
"""What TensorFlow 2.21 writes past Python; the last two lines are to be seen."""


def test_what_tensorflow_says_of_itself_is_left_out_and_other_lines_are_kept(
    folder: Path,
) -> None:
    (folder / "tensorflow.py").write_text(f"import os\nos.write(2, {NOISE.encode()!r})\n")
    (folder / "made.py").write_text(
        "import tensorflow, onnx, sys\n"
        "def model():\n    print('seen', file=sys.stderr)\n    return onnx.load('a.onnx')\n"
    )
    done = run_process(folder, "inspect", "made:model")
    assert done.returncode == 0, done.stderr
    wanted = {*NOISE.splitlines()[-2:], "seen"}
    assert set(done.stderr.splitlines()) == wanted
    done = run_process(folder, "inspect", "-v", "made:model")
    assert set(NOISE.splitlines()) < set(done.stderr.splitlines())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _call_of_some_steps() -> None:
    progress.stage("first step")
    time.sleep(0.05)
    progress.advance("second step", 3, 4)
    time.sleep(0.05)


@pytest.mark.parametrize(("asked", "shown"), [(None, True), (True, True), (False, False)])
def test_a_long_call_shows_a_bar_on_a_terminal_unless_told_not_to(
    asked: bool | None, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_DELAY", 0.0)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with progress.watched(asked):
        _call_of_some_steps()
    assert ("second step" in terminal.getvalue()) is shown
    if shown:
        # The line is wiped, and the cursor shown again.
        assert terminal.getvalue().rstrip().endswith("\x1b[2K")
        assert "\x1b[?25h" in terminal.getvalue()


def test_a_notebook_shows_a_bar_that_is_emptied_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pages: list[str] = []
    handle = SimpleNamespace(update=pages.append)

    def display(page: str, display_id: bool) -> Any:
        pages.append(page)
        return handle

    shown = SimpleNamespace(HTML=str, display=display)
    for name, module in (("ipykernel", None), ("IPython", None), ("IPython.display", shown)):
        monkeypatch.setitem(sys.modules, name, module)  # type: ignore[arg-type]
    monkeypatch.setattr(progress, "_DELAY", 0.0)
    monkeypatch.setattr(progress, "_BETWEEN", 0.0)
    with progress.watched():
        _call_of_some_steps()
    assert pages == [
        "<progress></progress> first step",
        '<progress value="3" max="4"></progress> second step',
        "",
    ]


def test_a_function_hears_of_the_samples_of_any_long_call(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    qh.convert(folder / "a.onnx", progress=lambda done, total: seen.append((done, total)))
    assert seen
    assert all(0 < done <= total for done, total in seen)
