"""Keras sources on the command line, and the example."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import qonnx_hub as qh
from qonnx_hub.cli import main
from qonnx_hub_adapters.qkeras.importer import QkerasImporter
from tests.adapters.qkeras.helpers import ask_keras
from tests.adapters.qkeras.kit import Case, inputs_for, set_weights
from tests.adapters.qkeras.model_cases import cnn, residual, several_outputs

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "qkeras_jet_tagger.py"


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
def saved(kit, tmp_path):
    """A residual model, as architecture and weights."""
    model = residual(kit)
    set_weights(model)
    (tmp_path / "arch.json").write_text(model.to_json())
    model.save_weights(str(tmp_path / "w.weights.h5"))
    return model, inputs_for(model, Case("command line", residual, 8))


def test_an_architecture_and_its_weights_become_a_file(saved, tmp_path) -> None:
    model, feeds = saved
    weights, path = tmp_path / "w.weights.h5", tmp_path / "out.onnx"
    text, _ = command("convert", tmp_path / "arch.json", "--weights", weights, "-o", path)
    assert "8 of 8 quantizers exact" in text
    name = onnx.load(path).graph.input[0].name
    answer = next(iter(qh.run(str(path), {name: feeds[0]}).values()))
    assert np.array_equal(answer, ask_keras(model, feeds)[0])


def test_images_are_taken_channels_first_where_that_is_asked_for(saved, tmp_path) -> None:
    model, feeds = saved
    weights, path = tmp_path / "w.weights.h5", tmp_path / "out.onnx"
    arch = tmp_path / "arch.json"
    command("convert", arch, "--weights", weights, "-o", path, "--layout", "nchw")
    proto = onnx.load(path)
    assert "Transpose" not in {node.op_type for node in proto.graph.node}
    turned = np.ascontiguousarray(np.moveaxis(feeds[0], -1, 1))
    answer = next(iter(qh.run(str(path), {proto.graph.input[0].name: turned}).values()))
    assert np.array_equal(np.moveaxis(answer, 1, -1), ask_keras(model, feeds)[0])


def test_missing_weights_end_in_one_sentence_and_code_3(saved, tmp_path) -> None:
    path = tmp_path / "out.onnx"
    out, err = command("convert", tmp_path / "arch.json", "-o", path, code=3)
    assert out == ""
    assert "--weights" in err
    assert not path.exists()


def test_a_refused_quantizer_ends_in_code_3_and_names_the_layer(
    kit, tmp_path, monkeypatch
) -> None:
    (tmp_path / "refused_model_of_this_test.py").write_text(
        "import qkeras\n"
        f"import {kit.keras.__name__} as keras\n"
        "def net():\n"
        "    x = keras.Input((4,))\n"
        "    act = qkeras.QActivation('binary(alpha=\"auto\")', name='odd')\n"
        "    return keras.Model(x, act(x))\n"
    )
    monkeypatch.chdir(tmp_path)
    _, err = command("convert", "refused_model_of_this_test:net", "-o", "x.onnx", code=3)
    assert "'odd'" in err
    assert "binary" in err


def test_the_example_trains_converts_and_checks(kit, tmp_path, capsys) -> None:
    spec = importlib.util.spec_from_file_location("jet_tagger_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main(str(tmp_path / "jets.onnx")) == 0
    printed = capsys.readouterr().out
    assert "100.00% of the classes agree with Keras" in printed
    assert printed.count("int6") == 11


@pytest.mark.parametrize("build", [cnn, several_outputs])
def test_the_original_is_run_under_the_names_of_the_ir(kit, build) -> None:
    model = build(kit)
    set_weights(model)
    feeds = inputs_for(model, Case("original", build, 0))
    ir = qh.load(model)
    named = dict(zip([str(v.name) for v in ir.graph.inputs], feeds, strict=True))
    original = QkerasImporter().run_source(model, named)
    ours = qh.run(ir, named)
    assert original is not None
    assert list(original) == list(ours)
    assert all(np.array_equal(original[name], ours[name]) for name in ours)
