"""A form that is a folder: written whole, and never over what others wrote."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import qonnx_hub as qh
from qonnx_hub.io.atomic import write_folder
from qonnx_hub_adapters.hls4ml import lowering
from qonnx_hub_ir.errors import ConversionError, UsageError
from tests.adapters.hls4ml import nets

FILES = {"model.onnx", "hls4ml_config.yml", "report.json", "tensors.json", "build.py"}


def names(folder):
    return {entry.name for entry in folder.iterdir() if entry.name != ".qonnx_hub"}


def test_a_conversion_writes_model_config_report_and_script(tmp_path):
    qh.convert(nets.residual_net(), tmp_path / "out", to="hls4ml")
    assert names(tmp_path / "out") == FILES
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]
    compile((tmp_path / "out" / "build.py").read_text(), "build.py", "exec")


def test_saving_writes_the_folder_too(tmp_path):
    artifact = qh.save(qh.load(nets.residual_net()), tmp_path / "out", "hls4ml")
    assert names(tmp_path / "out") == FILES
    assert (tmp_path / "out" / "report.json").read_bytes() == artifact.files["report.json"]


def test_the_same_source_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        qh.convert(nets.brevitas_cnn(), tmp_path / name, to="hls4ml")
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_written_model_is_a_qonnx_file(tmp_path):
    qh.convert(nets.qkeras_cnn(), tmp_path / "out", to="hls4ml")
    model = qh.load(tmp_path / "out" / "model.onnx")
    assert [value.name for value in model.graph.inputs] == ["global_in"]


def test_the_report_says_how_inputs_are_fed(tmp_path):
    qh.convert(nets.qkeras_cnn(), tmp_path / "out", to="hls4ml")
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    assert told["inputs"] == [
        {
            "source": "x",
            "source_shape": [1, 2, 8, 8],
            "name": "global_in",
            "shape": [1, 8, 8, 2],
            "axes": [0, 3, 1, 2],
            "type": "fixed<8,2,RND_CONV,SAT>",
        }
    ]
    assert told["outputs"][0]["result"] == 0


def test_a_folder_that_was_written_before_is_replaced(tmp_path):
    qh.convert(nets.residual_net(), tmp_path / "out", to="hls4ml")
    before = (tmp_path / "out" / "model.onnx").read_bytes()
    qh.convert(nets.qkeras_cnn(), tmp_path / "out", to="hls4ml")
    assert (tmp_path / "out" / "model.onnx").read_bytes() != before
    assert names(tmp_path / "out") == FILES


def test_what_others_put_into_the_folder_stays(tmp_path):
    write_folder(tmp_path / "out", {"a": b"1", "b": b"2"})
    (tmp_path / "out" / "project").mkdir()
    (tmp_path / "out" / "project" / "x").write_text("theirs")
    write_folder(tmp_path / "out", {"a": b"3"})
    assert names(tmp_path / "out") == {"a", "project"}
    assert (tmp_path / "out" / "a").read_bytes() == b"3"
    assert (tmp_path / "out" / "project" / "x").read_text() == "theirs"


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    write_folder(tmp_path / "out", {"a": b"1"})
    assert names(tmp_path / "out") == {"a"}


def test_a_folder_of_others_is_not_touched(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("theirs")
    with pytest.raises(UsageError, match="thesis"):
        qh.convert(nets.residual_net(), tmp_path / "out", to="hls4ml")
    assert names(tmp_path / "out") == {"thesis.tex"}


def test_a_file_is_not_replaced_by_a_folder(tmp_path):
    (tmp_path / "out").write_text("theirs")
    with pytest.raises(UsageError, match="is a file"):
        write_folder(tmp_path / "out", {"a": b"1"})


def test_a_missing_parent_is_one_clear_sentence(tmp_path):
    with pytest.raises(UsageError, match="cannot be written"):
        write_folder(tmp_path / "no" / "out", {"a": b"1"})


def test_a_failure_leaves_nothing_behind(tmp_path):
    with pytest.raises(TypeError):
        write_folder(tmp_path / "out", {"a": b"1", "b": None})
    assert list(tmp_path.iterdir()) == []


def test_a_lowering_that_computes_something_else_is_not_written(tmp_path, monkeypatch):
    rules = {**lowering.RULES, "Add": lambda context, node: context.data(node)}
    monkeypatch.setattr(lowering, "RULES", rules)
    with pytest.raises(ConversionError, match="nothing was written"):
        qh.convert(nets.residual_net(), tmp_path / "out", to="hls4ml")
    assert list(tmp_path.iterdir()) == []


def test_the_script_shows_its_options_and_refuses_others(tmp_path):
    qh.convert(nets.residual_net(), tmp_path / "out", to="hls4ml", check=False)
    script = [sys.executable, str(tmp_path / "out" / "build.py")]
    shown = subprocess.run([*script, "-h"], capture_output=True, text=True, check=True)
    assert "--synthesize" in shown.stdout
    wrong = [*script, "--synthesise"]
    done = subprocess.run(wrong, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "--synthesise is no option: -h shows them\n"
