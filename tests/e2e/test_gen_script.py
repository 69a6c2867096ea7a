"""Scripts that --gen-script writes do what their commands do."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import runpy
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.e2e.test_help import run
from tests.report_schemas import net

COMMANDS = (
    "check a.onnx b.onnx --samples 8 --json out.json",
    "check a.onnx a.onnx --level output --lsb 1 --lsb y:2",
    "check a.onnx b.onnx --data x.npy --labels labels.npy --min-agreement 0 --json out.json",
    "check a.onnx b.onnx --range x:-1,1 --samples 8 --save-failing f.npz --report p.html",
    "check a.onnx a.onnx b.onnx --samples 8 --json out.json",
    "reduce a.onnx b.onnx -o out --samples 16",
    "convert a.onnx -o out.onnx --to qcdq --encoding qdq --samples 8 --json out.json",
    "convert a.onnx out.onnx --to qcdq --no-check --weights int8",
    "convert a.onnx b.onnx -o out --to qcdq --jobs 1 --samples 4",
    "transform a.onnx -p cleanup -p change_batch:batch=4 -o out.onnx --json out.json",
    "inspect a.onnx --ranges --range x:-1,1 --json out.json",
    "inspect a.onnx --export-ints out.npz",
    "lint a.onnx --target hls4ml --json out.json",
    "lint a.onnx --target ort --sarif out.json",
    "cost a.onnx --convention qonnx --json out.json",
    "diff a.onnx b.onnx --json out.json",
    "diff a.onnx a.onnx",
    "run a.onnx --inputs x.npz -o out.npz",
    "extract a.onnx -o out.onnx --to m",
    "formats --json out.json",
)


def results(folder: Path) -> dict[str, object]:
    """Return what a command left behind, without times and places."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".npz":
            arrays = np.load(path)
            found[name] = {key: arrays[key].tolist() for key in arrays.files}
        elif path.suffix == ".json":
            found[name] = re.sub(r'"seconds": [-+.e0-9]+', "", path.read_text())
        elif path.is_file() and path.suffix != ".html":
            found[name] = path.read_bytes()
    return found


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    pair = tmp_path / "command", tmp_path / "script"
    for folder in pair:
        folder.mkdir()
        onnx.save(net(), folder / "a.onnx")
        onnx.save(net(0.5), folder / "b.onnx")
        x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(8, 3)
        np.save(folder / "x.npy", x)
        np.savez(folder / "x.npz", x=x)
        np.save(folder / "labels.npy", np.arange(8) % 4)
    return pair


@pytest.mark.parametrize("command", COMMANDS)
def test_a_script_leaves_the_same_files_and_the_same_code(
    folders: tuple[Path, Path],
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = shlex.split(command)
    monkeypatch.chdir(folders[0])
    code, shown = run(*words)
    monkeypatch.chdir(folders[1])
    before = results(folders[1])
    assert run(*words, "--gen-script", str(tmp_path / "made.py"))[0] == 0
    # The command itself is not run.
    assert results(folders[1]) == before
    found = 0
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(KeyError):
        try:
            runpy.run_path(str(tmp_path / "made.py"), run_name="__main__")
        except SystemExit as stop:
            found = int(stop.code or 0)
    assert found == code, shown
    assert results(folders[1]) == results(folders[0])


def test_scripts_call_the_api_where_it_has_the_call(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folders[0])
    text = run("check", "a.onnx", "b'.onnx", "--atol", "0.5", "--gen-script", "-")[1]
    ast.parse(text)
    assert "qh.check(" in text
    assert "atol=0.5" in text
    text = run("merge", "a.onnx", "b.onnx", "-o", "c.onnx", "--gen-script=-")[1]
    assert "main()" in text
    assert "gen-script" not in text


def test_a_script_keeps_what_stands_anywhere_on_the_command_line(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folders[0])
    for words in (
        ("check", "a.onnx", "b.onnx", "--max-nodes", "1"),
        ("--max-nodes=1", "check", "a.onnx", "b.onnx"),
        ("-q", "check", "a.onnx", "b.onnx"),
    ):
        text = run(*words, "--gen-script", "-")[1]
        assert f'sys.argv = ["qonnx-hub", *{list(words)!r}]' in text
