"""A check against a folder compiles it, and says what hls4ml itself computes."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from onnx import helper
from typer.testing import CliRunner

import qonnx_hub as qh
from qonnx_hub.cli import app
from qonnx_hub.equivalence.diagnosis.quantizer_causes import Cause
from tests.adapters.hls4ml import nets
from tests.adapters.hls4ml.harness import export
from tests.support import model_of, quant_node


def net_with_softmax():
    nodes = [
        quant_node("x", "q"),
        helper.make_node("MatMul", ["q", "w"], ["y"], "product"),
        helper.make_node("Softmax", ["y"], ["p"], "softmax", axis=-1),
    ]
    weights = np.random.default_rng(0).integers(-4, 5, (6, 3)).astype(np.float32) / 4
    constants = {"s": 0.125, "z": 0, "b": 6, "w": weights}
    return model_of(nodes, {"x": (1, 6)}, ["p"], constants)


def test_a_softmax_that_is_left_to_the_host_is_computed_there(tmp_path):
    source = net_with_softmax()
    folder = export(source, tmp_path / "out", softmax="skip")
    result = qh.check(source, folder, samples=20)
    assert result, result.table()
    assert any("leaves the trailing Softmax to the host" in note for note in result.notes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return export(nets.qkeras_cnn(), tmp_path_factory.mktemp("side") / "out")


def test_generated_inputs_are_compared_layer_by_layer(folder):
    result = qh.check(nets.qkeras_cnn(), folder, samples=24)
    assert result.verdict.name == "EQUAL"
    assert result.layers == 12
    assert result.first_divergence is None
    assert "compiled by hls4ml" in result.b


def test_a_second_check_compiles_nothing(folder):
    built = folder / "hls4ml_check" / "built.json"
    qh.check(nets.qkeras_cnn(), folder, samples=4, boundary=False)
    before = built.stat().st_mtime_ns
    qh.check(nets.qkeras_cnn(), folder, samples=5, boundary=False)
    assert built.stat().st_mtime_ns == before


def test_a_type_that_is_too_narrow_is_compiled_anew_and_named(folder, tmp_path):
    source, config = nets.qkeras_cnn(), folder / "hls4ml_config.yml"
    text = config.read_text()
    part = text[text.index("Conv_1:\n") : text.index("BatchNormalization_1:\n")]
    bits, whole = map(int, re.search(r'accum: "fixed<(\d+),(\d+)>"', part).groups())
    narrow = part.replace(f"fixed<{bits},{whole}>", f"fixed<{bits - 4},{whole - 4}>")
    config.write_text(text.replace(part, narrow))
    try:
        result = qh.check(source, folder, samples=12, boundary=False)
    finally:
        config.write_text(text)
    second = [node for node in source.graph.node if node.op_type == "Conv"][1]
    assert not result
    assert result.first_divergence.source == second.output[0]
    found = result.findings[0]
    assert found.cause is Cause.WRAPPED
    assert f"'accum', fixed<{bits - 4},{whole - 4}" in found.words


def test_the_verb_builds_the_folder(folder):
    ran = CliRunner().invoke(app, ["build", str(folder)])
    assert ran.exit_code == 0, ran.output
    assert list((folder / "hls4ml_prj" / "firmware").glob("*.so"))
    told = json.loads((folder / "report.json").read_text())
    assert told["inputs"][0]["source"] == "x"
