"""Brevitas modules on the command line, and the example."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import qonnx_hub as qh
from qonnx_hub.cli import main

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "brevitas_cnv.py"
SOURCE = """
import torch
import brevitas.nn as qnn

def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        qnn.QuantIdentity(bit_width=4),
        qnn.QuantLinear(16, 4, weight_bit_width=3),
    )

def fails():
    return torch.nn.Sequential(qnn.QuantLinear(3, 4))
"""


def command(*words: object, code: int = 0) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    argv, sys.argv = sys.argv, ["qonnx-hub", *map(str, words)]
    given = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stop:
        given = int(stop.code or 0)
    finally:
        sys.argv = argv
    assert given == code, f"{out.getvalue()}\n{err.getvalue()}"
    return out.getvalue(), err.getvalue()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "brevitas_net.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("brevitas_net", None)


def own_answer(x, weights=None):
    import brevitas_net

    module = brevitas_net.build()
    if weights is not None:
        module.load_state_dict(weights)
    with torch.no_grad():
        return module.eval()(torch.from_numpy(x)).numpy()


def answer(path, x):
    (found,) = qh.run(str(path), {"input": x}).values()
    return found


X = np.random.default_rng(0).normal(size=(2, 16)).astype(np.float32)


@pytest.mark.parametrize("words", [[], ["--from", "brevitas"], ["--option", "dynamo=true"]])
def test_what_a_callable_builds_becomes_a_file(words, folder):
    text, _ = command(
        "convert", "brevitas_net:build", "-o", "out.onnx", "--input-shape", "2,16", *words
    )
    assert "2 of 2 quantizers exact" in text
    assert "the source:  " in text
    np.testing.assert_allclose(answer("out.onnx", X), own_answer(X), rtol=0, atol=1e-6)
    # Nothing else is left behind.
    assert {p.name for p in folder.iterdir()} <= {"brevitas_net.py", "out.onnx", "__pycache__"}


def test_weights_are_put_into_what_a_callable_builds(folder):
    command("convert", "brevitas_net:build", "-o", "plain.onnx", "--input-shape", "2,16")
    import brevitas_net

    other = brevitas_net.build().train()
    with torch.no_grad():
        other(torch.from_numpy(X))
        other[1].weight.mul_(-0.5)
    torch.save({"state_dict": other.state_dict()}, "w.pt")
    command("convert", "brevitas_net:build", "-o", "out.onnx", "--input-shape", "2,16",
            "--weights", "w.pt")  # fmt: skip
    expected = own_answer(X, other.state_dict())
    np.testing.assert_allclose(answer("out.onnx", X), expected, rtol=0, atol=1e-6)
    assert not np.allclose(answer("plain.onnx", X), expected)


def test_a_file_is_checked_against_what_a_callable_builds(folder):
    command("convert", "brevitas_net:build", "-o", "out.onnx", "--input-shape", "2,16")
    check = ["check", "brevitas_net:build", "out.onnx", "--input-shape", "2,16"]
    text, _ = command(*check, "--atol", "1e-5")
    assert "WITHIN" in text or "EQUAL" in text
    message = onnx.load("out.onnx")
    for tensor in message.graph.initializer:
        if tensor.name == "1.weight_quant_scale":
            scale = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(scale * np.float32(2), tensor.name))
    onnx.save(message, "out.onnx")
    command(*check, "--atol", "1e-5", code=1)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["brevitas_net:build"], 3, "its shape with --input-shape"),
        (["brevitas_net:fails", "--input-shape", "2,16"], 3, "fails on the sample"),
        (
            ["brevitas_net:build", "--input-shape", "2,16", "--weights", "no.pt"],
            3,
            "cannot be read: No such file",
        ),
        (["brevitas_net:build", "--input-shape", "2,16", "--option", "x=1"], 2, "no option x"),
    ],
)
def test_a_mistake_ends_in_one_line_and_no_file(words, code, message, folder):
    _, err = command("convert", *words, "-o", "out.onnx", code=code)
    assert message in err
    assert "Traceback" not in err
    assert not (folder / "out.onnx").exists()


def test_the_example_converts_and_checks_its_net(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("brevitas_cnv", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    assert example.main(str(tmp_path)) == 0
    text = capsys.readouterr().out
    assert "conv_features.1.weight_quant" in text
    assert {path.name for path in tmp_path.iterdir()} == {"cnv_qonnx.onnx", "cnv_qcdq.onnx"}
