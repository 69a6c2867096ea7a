"""Words that say what to do, or what was meant: each stands for a question of a first day."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub import passes
from qonnx_hub_adapters.dependencies import is_installed
from tests.e2e.test_help import run
from tests.report_schemas import net
from tests.support import model_of, quant_node


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    onnx.save(net(), tmp_path / "a.onnx")
    return tmp_path


VERBS = (
    *(
        "convert",
        "build",
        "transform",
        "check",
        "reduce",
        "certify",
        "verify",
        "run",
        "inspect",
    ),
    *(
        "lint",
        "cost",
        "diff",
        "routes",
        "bench",
        "merge",
        "extract",
        "split",
        "view",
        "formats",
    ),
)


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_values_in_words_not_types_of_python(verb: str) -> None:
    code, text = run(verb, "-h")
    assert code == 0
    assert not re.search(r"<(list|int|bool|str|float|path|file)\b", text)
    assert "TEXT" not in text or verb != "verify"


def test_a_paragraph_of_help_is_as_wide_as_the_terminal() -> None:
    _, text = run("convert", "-h")
    (line,) = [line for line in text.splitlines() if "a model that fails" in line]
    assert "one line; a model that fails does not stop the others" in line


def test_passes_are_listed_by_what_they_are_about() -> None:
    _, text = run("transform", "--list")
    titles = re.findall(r"^([A-Z]+)$", text, re.MULTILINE)
    assert titles == sorted(titles, key=lambda t: t if t != "MODELS" else "PZ")
    for title, name in (("LAYOUT", "change_layout"), ("SCALES", "streamline")):
        start = text.index(f"\n{title}\n")
        end = min((text.find(f"\n{t}\n", start + 1) for t in titles if t > title), default=-1)
        assert f"\n{name}: {passes.describe(name).summary}" in text[start:end]


def test_inspect_and_convert_call_a_quantizer_by_one_name(folder: Path) -> None:
    report = qh.convert("a.onnx", to="qcdq", check=False)
    _, shown = run("inspect", "a.onnx")
    for record in report.quantizers:
        assert re.search(rf"^\S+ +{re.escape(record.node)} ", shown, re.MULTILINE), record


def test_diff_of_two_formats_says_how_both_were_read(folder: Path) -> None:
    qh.convert("a.onnx", "q.onnx", to="qcdq", check=False)
    _, text = run("diff", "a.onnx", "q.onnx")
    assert "read a.onnx as qonnx and q.onnx as qcdq" in text
    assert "read" not in run("diff", "a.onnx", "a.onnx")[1]


def test_equal_outputs_come_before_what_differs_inside() -> None:
    # Both layers are zero times something in the end: only inside they differ.
    def pair(weight: float) -> onnx.ModelProto:
        nodes = [
            helper.make_node("Mul", ["x", "w"], ["inner"], "inner"),
            helper.make_node("Mul", ["inner", "z"], ["y"], "last"),
        ]
        held = {"w": np.float32(weight), "z": np.float32(0.0)}
        return model_of(nodes, {"x": ("N", 2)}, ["y"], held)

    text = qh.check(pair(2.0), pair(3.0), samples=8, proof_seconds=0).table()
    assert "outputs equal; inside, first divergence: layer 'inner'" in text
    apart = qh.check(net(), net(0.5), samples=8).table()
    assert "\nfirst divergence" in apart
    assert "isolated: the layer's own" in apart


def test_lint_says_which_type_an_input_without_quantizer_gets_where() -> None:
    nodes = [quant_node("w", "wq"), helper.make_node("MatMul", ["x", "wq"], ["y"], "m")]
    constants = {"s": 0.25, "z": 0.0, "b": 4.0, "w": np.eye(3, dtype=np.float32)}
    model = model_of(nodes, {"x": (1, 3)}, ["y"], constants)
    (note,) = [f for f in qh.lint(model, "hls4ml").findings if "no quantizer" in f.reason]
    (told,) = [n for n in qh.convert(model, to="hls4ml").notes if "no quantizer" in n]
    assert "fixed<16,6>" in note.effect
    assert re.search(r"fixed<[^>]*>", told)[0] in note.effect


def test_a_qonnx_file_on_onnxruntime_is_refused_with_the_way_out(folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    code, text = run("check", "a.onnx", "a.onnx", "--backend", "ort")
    assert code == 3
    assert "convert the file with --to qcdq" in " ".join(text.split())


@pytest.mark.skipif(is_installed("hls4ml"), reason="hls4ml is here")
def test_a_folder_is_not_built_without_hls4ml_and_says_so(folder: Path) -> None:
    qh.convert("a.onnx", "project", to="hls4ml", check=False)
    done = subprocess.run(
        [sys.executable, "project/build.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert done.stderr == "build.py needs hls4ml, and g++: pip install 'hls4ml>=1.3'\n"


@pytest.mark.skipif(is_installed("matplotlib"), reason="matplotlib is here")
def test_what_is_missing_is_called_as_it_is_installed(folder: Path) -> None:
    code, text = run("cost", "a.onnx", "--plot", "p.png")
    assert code == 5
    assert "needs matplotlib, which is not installed" in " ".join(text.split())


def test_workers_without_a_guard_are_told_of_it(folder: Path) -> None:
    pytest.importorskip("onnxruntime")  # three interpreters start: once is enough
    script = folder / "script.py"
    script.write_text("import qonnx_hub as qh\nqh.check('a.onnx', 'a.onnx', workers=2)\n")
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode != 0
    assert "below 'if __name__ == \"__main__\":'" in done.stderr
