"""Layers that onnxruntime runs in integers, beside the graph that it writes itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from typer.testing import CliRunner

import qonnx_hub as qh
from qonnx_hub.cli import app
from qonnx_hub_ir.errors import UsageError
from tests.support import model_of, quant_node

ort = pytest.importorskip("onnxruntime")

QDQ_FILES = sorted((Path(__file__).parents[2] / ".." / "shared" / "qdq").glob("*.onnx"))
PRODUCTS = {"Conv", "Gemm", "MatMul"}
INTEGERS = {"QLinearConv", "QLinearMatMul", "QGemm", "QLinearAdd", "QLinearMul"}
INTEGERS |= {"QLinearConcat", "QLinearAveragePool", "QLinearGlobalAveragePool"}
INTEGERS |= {"QLinearSigmoid", "QLinearSoftmax", "QLinearLeakyRelu", "DynamicQuantizeMatMul"}


def layer(kind=np.uint8, zero=0, relu=True, weight=np.int8, quantized=True) -> onnx.ModelProto:
    """A quantized product, with a Relu behind it, and a quantizer behind that."""
    codes = np.arange(12, dtype=weight).reshape(4, 3)
    arrays = {"s": np.float32(0.1), "z": kind(zero), "w": codes, "wz": weight(0)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "s", "wz"], ["wd"]),
        helper.make_node("MatMul", ["d", "wd"], ["h"], "layer"),
    ]
    result = "h"
    if relu:
        nodes.append(helper.make_node("Relu", ["h"], ["r"], "relu"))
        result = "r"
    if quantized:
        nodes.append(helper.make_node("QuantizeLinear", [result, "s", "z"], ["p"]))
        nodes.append(helper.make_node("DequantizeLinear", ["p", "s", "z"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, [1, 4])],
        [helper.make_tensor_value_info("y" if quantized else result, 1, [1, 3])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


def optimized(path: Path, folder: Path) -> onnx.ModelProto:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimized.onnx")


@pytest.mark.parametrize("path", QDQ_FILES, ids=lambda path: path.stem)
def test_the_integer_layers_are_those_of_onnxruntimes_own_graph(path, tmp_path):
    model = onnx.load(path)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"unnamed_{number}"
    onnx.save(model, tmp_path / "named.onnx")
    report = qh.lint(tmp_path / "named.onnx", "ort", fused=True)
    try:
        graph = optimized(tmp_path / "named.onnx", tmp_path).graph
    except Exception:  # an operator that this version does not run
        assert report.errors
        assert report.fused == ()
        return
    shown = {node.name.split("_token_")[0]: node.op_type for node in graph.node}
    wanted = {name: op for name, op in shown.items() if op in INTEGERS}
    found = {one.node: one.runs_as for one in report.fused if one.runs_as in INTEGERS}
    assert found == wanted
    floats = {one.node for one in report.fused if one.op in PRODUCTS and not one.runs_as}
    assert not floats & set(wanted)
    # Blocked convolutions of floats are called after what they make.
    plain = {n for n, op in shown.items() if op in PRODUCTS and not n.endswith("_nchwc")}
    assert plain <= floats


@pytest.mark.parametrize(
    ("given", "runs_as", "reason"),
    [
        ({}, "QLinearMatMul", ""),
        ({"relu": False, "zero": 7}, "QLinearMatMul", ""),
        # A zero point above the lowest code leaves values below zero, which a Relu cuts off.
        ({"zero": 7}, "", "the Relu between it and its quantizer is not taken into it"),
        ({"kind": np.int8}, "", "the Relu between it and its quantizer is not taken into it"),
        ({"quantized": False}, "MatMulIntegerToFloat", ""),
    ],
)
def test_a_layer_and_what_keeps_it_in_float(given, runs_as, reason):
    (found, *_) = qh.lint(layer(**given), "ort", fused=True).fused
    assert (found.node, found.op) == ("layer", "MatMul")
    assert (found.runs_as, found.reason) == (runs_as, reason)


def test_a_file_that_onnxruntime_does_not_load_has_no_layers():
    nodes = [quant_node("x", "y")]
    report = qh.lint(
        model_of(nodes, {"x": (1, 3)}, ["y"], {"s": 0.5, "z": 0.0, "b": 4.0}),
        "ort",
        fused=True,
    )
    assert report.fused == ()
    assert report.errors


def test_layers_are_asked_of_onnxruntime_only():
    with pytest.raises(UsageError, match="target 'ort', not 'finn'"):
        qh.lint(layer(), "finn", fused=True)
    assert qh.lint(layer(), "ort").fused is None


def test_the_command_line_lists_them(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(layer(), path)
    done = CliRunner().invoke(app, ["lint", str(path), "--target", "ort", "--fused"])
    assert done.exit_code == 0
    assert "QLinearMatMul" in done.stdout
    assert "1 of 1 nodes run in integers" in done.stdout
    call = ["lint", str(path), "--target", "ort", "--fused", "--json", "-"]
    data = json.loads(CliRunner().invoke(app, call).stdout)
    assert data["fused"] == [
        {"node": "layer", "op": "MatMul", "runs_as": "QLinearMatMul", "reason": ""}
    ]
