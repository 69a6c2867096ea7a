"""Whatever happens, a user reads a sentence and a script a documented exit code."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from qonnx_hub.io.terminal import visible
from tests.support import model_of, quant_node

CONSTANTS = {"s": 0.25, "z": 0.0, "b": 4.0}


def _net(path: Path, name: str = "q") -> Path:
    quant = quant_node("x", "y")
    quant.name = name
    path.write_bytes(model_of([quant], {"x": (1, 4)}, ["y"], CONSTANTS).SerializeToString())
    return path


def _limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))


def _run(
    *words: object,
    code: int = 0,
    before: Callable[[], None] | None = None,
    python: str = "",
    **environment: str,
) -> tuple[str, str]:
    """Run the command line as a process; ``python`` is run before it."""
    program = f"import sys; {python}\nfrom qonnx_hub.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-B", "-c", program, *map(os.fspath, map(str, words))],
        capture_output=True,
        check=False,
        preexec_fn=before,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            **environment,
        },
    )
    out, err = (
        text.decode("utf-8", "backslashreplace") for text in (done.stdout, done.stderr)
    )
    assert done.returncode == code, out + err
    assert "Traceback" not in err or "--traceback" in words
    return out, err


BROKEN = "import qonnx_hub.api as a; a.inspect = lambda *_, **__: [][3]"


def test_a_defect_ends_in_70_and_two_lines(tmp_path: Path) -> None:
    _, err = _run("inspect", _net(tmp_path / "a.onnx"), code=70, python=BROKEN)
    what, report = err.splitlines()
    assert "IndexError: list index out of range" in what
    assert "please report it" in report


def test_the_traceback_of_a_defect_is_printed_on_request(tmp_path: Path) -> None:
    model = _net(tmp_path / "a.onnx")
    _, err = _run("inspect", model, "--traceback", code=70, python=BROKEN)
    assert "Traceback (most recent call last)" in err


def test_memory_that_runs_out_is_no_verdict(tmp_path: Path) -> None:
    python = (
        "import qonnx_hub.api as a\ndef no(*_, **__): raise MemoryError('16 TiB')\n"
        "a.inspect = no"
    )
    _, err = _run("inspect", _net(tmp_path / "a.onnx"), code=3, python=python)
    assert "memory ran out: 16 TiB" in err


@pytest.mark.parametrize("limited", ["convert", "report"])
def test_a_file_that_cannot_be_finished_is_named(tmp_path: Path, limited: str) -> None:
    model, out = _net(tmp_path / "a.onnx"), tmp_path / "out"
    words = {
        "convert": ("convert", model, "-o", out),
        "report": ("check", model, model, "--report", out),
    }
    _, err = _run(*words[limited], code=2, before=_limit_files)
    assert f"'{out}' cannot be written: File too large" in err
    assert list(tmp_path.iterdir()) == [model]


@pytest.mark.parametrize("verb", ["read", "written"])
def test_a_path_that_is_too_long_is_wrong_usage(tmp_path: Path, verb: str) -> None:
    long = tmp_path / ("n" * 300 + ".onnx")
    words = (
        ("inspect", long) if verb == "read" else ("convert", tmp_path / "a.onnx", "-o", long)
    )
    _net(tmp_path / "a.onnx")
    _, err = _run(*words, code=2)
    assert "File name too long" in err
    assert str(long) in err


@pytest.mark.parametrize("buffered", [True, False])
def test_a_full_disk_below_standard_output_is_no_verdict(
    tmp_path: Path, buffered: bool
) -> None:
    model = _net(tmp_path / "a.onnx")
    program = "from qonnx_hub.cli import main; main()"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program, "inspect", str(model)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
                "PYTHONUNBUFFERED": "" if buffered else "1",
            },
        )
    assert done.returncode == 2
    assert "the output cannot be read or written: No space left on device" in done.stderr


def test_names_are_shown_as_they_are_spelled(tmp_path: Path) -> None:
    model = _net(tmp_path / "a[.onnx", "blk[/foo] [bold]x :smile:")
    out, _ = _run("convert", model, "-o", tmp_path / "b.onnx", "--to", "qcdq")
    assert "blk[/foo] [bold]x :smile:" in out
    out, _ = _run("lint", model, "--target", "ort", code=1)
    assert "blk[/foo] [bold]x :smile:" in out


@pytest.mark.parametrize("verb", ["inspect", "lint", "convert", "run"])
def test_control_characters_of_names_never_reach_a_terminal(tmp_path: Path, verb: str) -> None:
    quant = quant_node("x\x1b[2J", "y\x1b[2J")
    quant.name = "a\x1b[31m\x1b]0;t\x07"
    model = tmp_path / "a.onnx"
    shape = {"x\x1b[2J": (1, 4)}
    made = model_of([quant], shape, ["y\x1b[2J"], CONSTANTS)
    model.write_bytes(made.SerializeToString())
    np.savez(tmp_path / "x.npz", **{"x\x1b[2J": np.zeros((1, 4), dtype=np.float32)})
    words: dict[str, tuple[object, ...]] = {
        "inspect": (),
        "lint": ("--target", "ort"),
        "convert": ("-o", tmp_path / "b.onnx", "--to", "qcdq"),
        "run": ("--inputs", tmp_path / "x.npz", "-o", tmp_path / "y.npz"),
    }
    out, err = _run(verb, model, *words[verb], code=int(verb == "lint"))
    assert "\x1b" not in out + err
    assert "\\x1b[" in out


def test_control_characters_of_an_error_are_spelled_out(tmp_path: Path) -> None:
    quant = quant_node("x", "y\x1b[31m")
    model = tmp_path / "a.onnx"
    constants = {**CONSTANTS, "s": -1.0}
    onnx.save(model_of([quant], {"x": (1, 4)}, ["y\x1b[31m"], constants), model)
    _, err = _run("inspect", model, code=3)
    assert "\x1b" not in err
    assert "Quant 'y\\x1b[31m': scale must be above zero" in err


def test_line_breaks_stay_and_whatever_steers_is_spelled() -> None:
    assert visible("a\nb\tc\x1b\x9b\u202e") == "a\nb\tc\\x1b\\x9b\\u202e"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_names_outside_the_encoding_of_the_terminal_are_spelled(
    tmp_path: Path, encoding: str
) -> None:
    model = _net(tmp_path / "a.onnx", "\u8282\u2192")
    words = ("convert", model, "-o", tmp_path / "b.onnx", "--to", "qcdq")
    out, _ = _run(*words, PYTHONIOENCODING=encoding)
    assert "\\u8282\\u2192" in out


def test_a_path_that_is_no_text_is_written_into_a_page(tmp_path: Path) -> None:
    model = _net(tmp_path / os.fsdecode(b"a\xff.onnx"))
    page = tmp_path / "page.html"
    _run("check", model, model, "--report", page)
    assert "a\\udcff.onnx" in page.read_text(encoding="utf-8")


def test_json_holds_every_reason_of_a_refusal(tmp_path: Path) -> None:
    nodes = [quant_node("x", f"y{k}") for k in range(25)]
    model = tmp_path / "a.onnx"
    names = [f"y{k}" for k in range(25)]
    onnx.save(model_of(nodes, {"x": (1, 4)}, names, {**CONSTANTS, "s": -1.0}), model)
    out, err = _run("inspect", model, "--json", "-", code=3)
    error = json.loads(out)["error"]
    assert error["exit_code"] == 3
    assert len(error["reasons"]) == 25
    assert err.splitlines()[-1] == "  - and 5 more nodes"


@pytest.mark.parametrize("words", [("inspect",), ("inspect", "--json", "-"), ("--help",)])
def test_a_reader_that_goes_away_leaves_no_verdict(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    model = [] if words == ("--help",) else [_net(tmp_path / "a.onnx")]
    close = "import os; r, w = os.pipe(); os.close(r); os.dup2(w, 1)"
    _, err = _run(*words, *model, code=141, python=close)
    assert err == ""


def test_no_output_at_all_is_no_defect(tmp_path: Path) -> None:
    _, err = _run("inspect", _net(tmp_path / "a.onnx"), python="sys.stdout = None")
    assert err == ""
