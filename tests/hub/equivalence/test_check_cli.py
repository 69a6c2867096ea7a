from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import typer
from typer.testing import CliRunner

from qonnx_hub.cli import app
from qonnx_hub.cli.errors import exit_code


@pytest.fixture
def files(nets, surgery, tmp_path, monkeypatch):
    """``a.onnx`` and ``same.onnx`` are equal, ``other.onnx`` is not; inputs are there."""
    monkeypatch.chdir(tmp_path)
    model = nets["mlp"]()
    other = surgery.copied(model)
    surgery.change_constant(other, "act2.scale", lambda s: s * np.float32(1.003))
    onnx.save(model, "a.onnx")
    onnx.save(model, "same.onnx")
    onnx.save(other, "other.onnx")
    x = np.random.default_rng(0).uniform(-2, 2, (30, 12)).astype(np.float32)
    np.savez("x.npz", x=x)
    np.save("x.npy", x)
    np.save("labels.npy", np.arange(30) % 5)
    return tmp_path


CALL_ERROR = typer.BadParameter.__mro__[2]
"""What a call that is wrong raises."""


def run(*arguments):
    """Return (exit code, standard output) of a check, as the shell would see them."""
    done = CliRunner().invoke(app, ["check", *arguments], standalone_mode=False)
    if isinstance(done.exception, CALL_ERROR):
        return done.exception.exit_code, done.exception.format_message()
    if done.exception is None or isinstance(done.exception, SystemExit):
        return done.return_value or done.exit_code, done.output
    code = exit_code(done.exception)
    assert code is not None, repr(done.exception)
    return code, str(done.exception)


def test_equal_files_end_in_0(files):
    code, out = run("a.onnx", "same.onnx")
    last = out.strip().splitlines()[-1]
    assert (code, last.startswith("PROVEN: 0 of")) == (0, True)


def test_other_files_end_in_1_and_say_where_and_why(files):
    code, out = run("a.onnx", "other.onnx")
    assert code == 1
    assert "first divergence: layer 'act2'" in out
    assert "cause: scale re-rounded in 'act2'" in out


def test_tolerances_make_a_difference_pass(files):
    assert run("a.onnx", "other.onnx", "--atol", "10")[0] == 0
    assert run("a.onnx", "other.onnx", "--atol", "y:10")[0] == 0
    assert run("a.onnx", "other.onnx", "--atol", "act1:10")[0] == 1


def test_json_alone_is_on_standard_output(files):
    code, out = run("a.onnx", "other.onnx", "--json", "-")
    assert (code, json.loads(out)["verdict"]) == (1, "DIFFERENT")


def test_a_page_and_the_failing_input_are_written(files):
    run("a.onnx", "other.onnx", "--report", "r.html", "--save-failing", "f.npz")
    assert (files / "r.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    with np.load(files / "f.npz") as saved:
        assert saved["x"].shape == (1, 12)


def test_data_and_labels_give_accuracy(files):
    _, out = run("a.onnx", "other.onnx", "--data", "x.npy", "--labels", "labels.npy")
    assert "accuracy" in out
    assert "of 30 changed" in out


def test_a_golden_is_made_and_used(files):
    assert run("a.onnx", "same.onnx", "--save-golden", "gold", "--samples", "8")[0] == 0
    assert run("gold", "same.onnx")[0] == 0
    assert run("gold", "other.onnx")[0] == 1


def test_recorded_tensors_are_a_side(files):
    import qonnx_hub as qh

    with np.load("x.npz") as inputs:
        np.savez("trace.npz", last=qh.run("a.onnx", dict(inputs))["y"])
    (files / "map.json").write_text(json.dumps({"y": "last"}))
    assert run("a.onnx", "trace.npz", "--inputs", "x.npz", "--map", "map.json")[0] == 0
    assert run("other.onnx", "trace.npz", "--inputs", "x.npz", "--map", "map.json")[0] == 1


def test_both_optimizations_of_onnxruntime_are_reported(files):
    pytest.importorskip("onnxruntime")
    import qonnx_hub as qh

    qh.convert("a.onnx", "q.onnx", to="qcdq")
    options = ["--backend", "ort", "--ort-opt", "both", "--atol", "10", "--json", "-"]
    code, out = run("a.onnx", "q.onnx", *options)
    assert (code, set(json.loads(out))) == (0, {"off", "all"})


def test_a_proof_is_printed(files):
    code, out = run("a.onnx", "same.onnx", "--level", "proof", "--samples", "4")
    assert (code, "PROVEN: 0 of" in out, "proof: complete" in out) == (0, True, True)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["a.onnx", "nowhere.onnx"], 3, "'nowhere.onnx' does not exist"),
        (["a.onnx", "x.npz"], 2, "inputs that they were recorded with"),
        (["a.onnx", "x.npz", "--inputs", "x.npz"], 2, "nothing would be compared"),
        (["a.onnx", "same.onnx", "--inputs", "nowhere.npz"], 2, "does not exist"),
        (["a.onnx", "same.onnx", "--inputs", "a.onnx"], 2, "is not an .npz or .npy file"),
        (["a.onnx", "same.onnx", "--inputs", "flat.npz"], 2, "'x' has shape"),
        (["a.onnx", "same.onnx", "--inputs", "empty.npz"], 2, "'x' is empty"),
        (["a.onnx", "same.onnx", "--inputs", "nan.npz"], 2, "'x' holds NaN"),
        (
            ["a.onnx", "same.onnx", "--inputs", "double.npz"],
            2,
            "takes float32, float64 is given",
        ),
        (["a.onnx", "same.onnx", "--range", "x:1"], 2, "--range takes NAME=LO,HI"),
        (["a.onnx", "same.onnx", "--range", "z:0,1"], 2, "no input"),
        (["a.onnx", "same.onnx", "--atol", "y:lots"], 2, "--atol takes a number"),
        (
            ["a.onnx", "same.onnx", "--level", "deep"],
            2,
            "'deep' is not one of 'output', 'layer', 'proof'",
        ),
        (["a.onnx", "same.onnx", "--backend", "gpu"], 2, "unknown backend 'gpu'"),
        (["a.onnx", "same.onnx", "--ort-opt", "all"], 2, "--ort-opt needs --backend ort"),
        (["a.onnx", "same.onnx", "--map", "x.npz"], 2, "cannot be read as JSON"),
        (["a.onnx", "same.onnx", "--labels", "labels.npy"], 2, "--labels needs"),
        (["a.onnx", "same.onnx", "--data", "two.npz"], 2, "--inputs takes .npz files"),
        (["a.onnx", "same.onnx", "--data", "x.npy", "--inputs", "x.npz"], 2, "leave one out"),
    ],
    ids=lambda value: " ".join(value[2:]) or "sides" if isinstance(value, list) else "",
)
def test_a_mistake_is_one_clear_line(files, arguments, code, words):
    np.savez("two.npz", x=np.zeros((3, 12)), y=np.zeros(3))
    np.savez("flat.npz", x=np.zeros((3, 7), dtype=np.float32))
    np.savez("empty.npz", x=np.zeros((0, 12), dtype=np.float32))
    np.savez("nan.npz", x=np.full((2, 12), np.nan, dtype=np.float32))
    np.savez("double.npz", x=np.zeros((2, 12), dtype=np.float64))
    found, text = run(*arguments)
    assert (found, words in text) == (code, True), text
    assert len(text.strip().splitlines()) == 1
