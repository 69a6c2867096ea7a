"""Help that helps: examples that run, choices that are listed, names that may be meant."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from docs.pages import call
from qonnx_hub.cli.examples import EXAMPLES
from tests.support import model_of, quant_node

OFFLINE = {"view"}
"""Verbs whose examples serve until they are interrupted."""


def run(*args: str) -> tuple[int, str]:
    return call(["qonnx-hub", *args])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the examples name."""
    weight = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    nodes = [
        quant_node("x", "xq"),
        quant_node("w", "wq", narrow=1),
        helper.make_node("MatMul", ["xq", "wq"], ["TENSOR"], "product"),
        helper.make_node("Relu", ["TENSOR"], ["y"], "act"),
    ]
    constants = {"s": 0.25, "z": 0.0, "b": 4.0, "w": weight}
    model = model_of(nodes, {"x": ("N", 3)}, ["y"], constants)
    onnx.save(model, tmp_path / "model.onnx")
    changed = model_of(nodes, {"x": ("N", 3)}, ["y"], {**constants, "w": weight + 0.25})
    onnx.save(changed, tmp_path / "changed.onnx")
    onnx.save(model_of([nodes[3]], {"TENSOR": ("N", 4)}, ["y"], {}), tmp_path / "second.onnx")
    head = model_of(nodes[:3], {"x": ("N", 3)}, ["TENSOR"], constants)
    onnx.save(head, tmp_path / "first.onnx")
    np.savez(tmp_path / "inputs.npz", x=np.zeros((2, 3), np.float32))
    np.save(tmp_path / "pixels.npy", np.arange(24, dtype=np.uint8).reshape(8, 3) * 10)
    np.save(tmp_path / "labels.npy", np.arange(8) % 4)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_example_runs(folder: Path) -> None:
    order = ["convert", *(verb for verb in EXAMPLES if verb != "convert")]
    for verb in order:
        for command in EXAMPLES[verb]:
            program, *arguments = shlex.split(command)
            assert (program, arguments[0]) == ("qonnx-hub", verb)
            if verb in OFFLINE:
                continue
            code, text = run(*arguments)
            # What lint and diff find is an answer as well.
            assert code in {0, 1} if verb in {"lint", "diff"} else code == 0, text


@pytest.mark.parametrize("verb", EXAMPLES)
def test_help_shows_the_examples_under_both_names(verb: str) -> None:
    for name in ("-h", "--help"):
        code, text = run(verb, name)
        assert code == 0
        joined = "".join(text.split())
        assert all("".join(line.split()) in joined for line in EXAMPLES[verb])


def test_help_announces_no_examples_where_there_are_none() -> None:
    assert "build" not in EXAMPLES
    assert "Examples:" not in run("build", "-h")[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["convert", "model.onnx", "-o", "o.onnx", "--to", "qcqd"], "did you mean 'qcdq'?"),
        (["convert", "model.onnx", "-o", "o.onnx", "--to", "QCDQ"], "did you mean 'qcdq'?"),
        (["convert", "model.onnx", "-o", "o.onnx", "--to", "finn"], "--profile finn"),
        (["convert", "model.onnx", "-o", "o.onnx", "--from", "qdq"], "did you mean 'qcdq'?"),
        (["convert", "model.onnx", "-o", "o.onnx", "--profile", "hls4ml"], "--to hls4ml"),
        (["convert", "model.onnx", "-o", "o.onnx", "--layout", "nhwcc"], "'nhwc'"),
        (["convert", "model.onnx", "-o", "o.onnx", "--option", "foo=1"], "has no option foo"),
        (["transform", "model.onnx", "-p", "foldbatchnorm"], "did you mean 'fold_batchnorm'?"),
        (["lint", "model.onnx", "--target", "hls"], "did you mean 'hls4ml'?"),
        (["check", "model.onnx", "model.onnx", "--level", "prof"], "'proof'"),
        (["convert", "model.onnx"], "-o PATH"),
        (["convert", "model.onnx", "second.onnx"], "'second.onnx' exists"),
        (["convert", "a.onnx", "b.onnx", "c.onnx"], "-o PATH"),
        (["convert", "model.onnx", "typo.onnx", "--jobs", "2"], "-o PATH"),
    ],
)
def test_what_is_mistyped_is_answered_with_what_may_be_meant(
    folder: Path, arguments: list[str], words: str
) -> None:
    before = sorted(path.name for path in folder.iterdir())
    code, text = run(*arguments)
    assert code == 2, text
    assert words in " ".join(text.split())
    assert sorted(path.name for path in folder.iterdir()) == before


def test_two_arguments_are_in_and_out(folder: Path) -> None:
    assert run("convert", "model.onnx", "new.onnx", "--to", "qcdq")[0] == 0
    assert {n.op_type for n in onnx.load(folder / "new.onnx").graph.node} >= {"QuantizeLinear"}
    assert run("convert", "model.onnx", "new.onnx")[0] == 2
    assert run("convert", "model.onnx", "new.onnx", "--force")[0] == 0


@pytest.mark.parametrize("written", ["first.onnx", "second.onnx"])
def test_a_merger_is_not_written_over_its_parts(folder: Path, written: str) -> None:
    before = (folder / written).read_bytes()
    code, text = run("merge", "first.onnx", "second.onnx", "-o", written)
    assert code == 2
    assert "would write over it" in " ".join(text.split())
    assert (folder / written).read_bytes() == before


@pytest.mark.parametrize("parts", [("model.onnx", "b.onnx"), ("a.onnx", "./model.onnx")])
def test_a_part_is_not_written_over_the_model(folder: Path, parts: tuple[str, str]) -> None:
    before = (folder / "model.onnx").read_bytes()
    code, text = run("split", "model.onnx", *parts, "--at", "TENSOR")
    assert code == 2
    assert "would write over it" in " ".join(text.split())
    assert (folder / "model.onnx").read_bytes() == before


def test_saved_inputs_give_the_outputs_again(folder: Path) -> None:
    words = ("run", "model.onnx", "--samples", "4")
    assert run(*words, "--save-inputs", "x.npz", "-o", "y.npz")[0] == 0
    inputs, outputs = np.load("x.npz"), np.load("y.npz")
    assert inputs.files == ["x"]
    # By hand: the input's codes of four bits in quarters, times the weights', above zero.
    codes = np.clip(np.rint(inputs["x"] * 4), -8, 7) / 4
    weight = np.clip(np.rint(np.linspace(-1, 1, 12, dtype=np.float32) * 4), -7, 7) / 4
    assert np.array_equal(outputs["y"], np.maximum(codes @ weight.reshape(3, 4), 0))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_verbs_are_completed(shell: str) -> None:
    asked = {
        "bash": {"COMP_WORDS": "qonnx-hub conv", "COMP_CWORD": "1"},
        "zsh": {"_TYPER_COMPLETE_ARGS": "qonnx-hub conv"},
        "fish": {
            "_TYPER_COMPLETE_ARGS": "qonnx-hub conv",
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        },
    }[shell]
    program = "import sys; sys.argv[0] = 'qonnx-hub'; from qonnx_hub.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "_QONNX_HUB_COMPLETE": f"complete_{shell}",
            **asked,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert "convert" in done.stdout, done.stderr


def test_weights_of_their_own_are_refused_where_the_file_holds_them(folder: Path) -> None:
    for verb in (
        ["convert", "model.onnx", "-o", "o.onnx"],
        ["check", "model.onnx", "model.onnx"],
    ):
        code, text = run(*verb, "--weights", "w.h5")
        assert code == 2
        assert "leave out 'w.h5'" in " ".join(text.split())
