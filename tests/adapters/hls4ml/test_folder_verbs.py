"""What the verbs make of a folder where hls4ml need not be installed."""

from __future__ import annotations

import importlib
import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

import qonnx_hub as qh
from qonnx_hub.cli import app
from qonnx_hub.cli.errors import exit_code
from qonnx_hub.equivalence.diagnosis.quantizer_causes import Cause
from qonnx_hub_adapters.hls4ml import yaml_text
from tests.adapters.hls4ml import nets
from tests.adapters.hls4ml.harness import stored


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("verbs") / "out"
    qh.convert(nets.brevitas_cnn(), path, to="hls4ml")
    return path


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize("verb", [["inspect"], ["cost"], ["lint", "--target", "hls4ml"]])
def test_a_verb_takes_a_folder_for_the_model_in_it(folder, verb, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    of_folder, of_model = (invoke(*verb, path) for path in (folder, folder / "model.onnx"))
    assert of_folder.exit_code == 0, of_folder.output
    assert of_folder.output == of_model.output.replace(f"{folder}/model.onnx", str(folder))


def test_a_folder_that_is_not_whole_names_what_is_missing(folder, tmp_path):
    for name in ("model.onnx", "hls4ml_config.yml"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    ran = invoke("check", folder / "model.onnx", tmp_path)
    assert exit_code(ran.exception) == 3
    assert "report.json" in str(ran.exception)


@pytest.mark.parametrize("words", [["build"], ["check", "SOURCE"]])
def test_no_hls4ml_is_said_with_its_own_exit_code(folder, words):
    # This interpreter starts isolated: no environment of ours is seen.
    bare = folder.parent / "python"
    bare.write_text("#!/bin/sh\nexit 1\n" if words == ["build"] else MISSING)
    bare.chmod(0o755)
    given = [folder / "model.onnx" if word == "SOURCE" else word for word in words]
    ran = invoke(*given, folder, "--python", bare)
    assert exit_code(ran.exception) == 5
    assert "hls4ml is installed with: pip install 'qonnx-hub[hls4ml]'" in str(ran.exception)


MISSING = """#!/bin/sh
echo '{"missing": "there is no hls4ml"}'
"""


def test_a_script_that_was_changed_is_not_run_unasked(folder, tmp_path):
    for path in folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "build.py").write_text("print('something else')\n")
    ran = invoke("build", tmp_path)
    assert exit_code(ran.exception) == 2
    assert "--allow-code" in str(ran.exception)


def test_configs_are_read_with_and_without_pyyaml(folder, monkeypatch):
    yaml = pytest.importorskip("yaml")
    text = "# by hand\n" + (folder / "hls4ml_config.yml").read_text()
    wanted = yaml.safe_load(text)
    assert yaml_text.from_yaml(text) == wanted

    def refuse(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    assert yaml_text.from_yaml(text) == wanted
    with pytest.raises(ValueError, match="line 2"):
        yaml_text.from_yaml("a: 1\n- b\n")


def test_a_trace_that_wraps_is_explained_by_the_type_in_the_config(folder, tmp_path):
    model = qh.load(folder / "model.onnx")
    told = json.loads((folder / "report.json").read_text())
    (port,) = told["inputs"]
    x = np.random.default_rng(0).uniform(-2, 2, (8, *port["source_shape"][1:]))
    feeds = {"global_in": stored(port, x.astype(np.float32))}
    tensors = qh.Session(model).run(feeds, all_tensors=True)
    values = tensors["Conv_0_out0"]
    # By hand: a signed type of which two bits stand before the point turns every 4.
    wrapped = (values + 2) % 4 - 2
    assert np.abs(values).max() > 2
    for name in ("model.onnx", "tensors.json", "report.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    text = (folder / "hls4ml_config.yml").read_text()
    at = text.index("Conv_0:\n")
    narrow = re.sub(r'accum: "fixed<\d+,\d+>"', 'accum: "fixed<40,2>"', text[at:], count=1)
    (tmp_path / "hls4ml_config.yml").write_text(text[:at] + narrow)
    trace = {node.name: tensors[node.outputs[0].name] for node in model.graph}
    np.savez(tmp_path / "trace.npz", **{**trace, "Conv_0": wrapped})
    result = qh.check(folder / "model.onnx", tmp_path / "trace.npz", feeds, rtol=1e-5)
    assert result.findings[0].cause is Cause.WRAPPED
    assert "holds -2 to 2" in result.findings[0].words
