"""What tools refuse or miscompute is found in small models that hold one such thing each."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import helper
from typer.testing import CliRunner

import qonnx_hub as qh
from qonnx_hub.cli import app
from qonnx_hub_ir.errors import InvalidModelError, NotExactError, SourceError, UsageError
from tests.support import DOMAIN, model_of, quant_node

W = (np.arange(64, dtype=np.float32).reshape(8, 8) - 32) / 16
CONSTANTS = {
    "s": 0.25,
    "odd": 0.3,
    "z": 0.0,
    "b": 4.0,
    "one": 1.0,
    "half": 0.5,
    "bits": 3.5,
    "w": W,
    "rows": np.ldexp(np.float32(1), -np.arange(8)[:, None] // 3),
    "square": np.full((1, 1), 0.25),
    **{n: np.full(8, v, np.float32) for n, v in zip("gdmv", (-1, 0.5, 0, 1), strict=True)},
}
INPUT = quant_node("x", "q", "s", "z", "b")
WEIGHT = quant_node("w", "wq", "s", "z", "b")


def _norm(source: str, target: str) -> onnx.NodeProto:
    return helper.make_node("BatchNormalization", [source, *"gdmv"], [target], "norm")


def _matmul(a: str, b: str, y: str) -> onnx.NodeProto:
    return helper.make_node("MatMul", [a, b], [y], y)


def _bipolar(x: str, y: str) -> onnx.NodeProto:
    return helper.make_node("BipolarQuant", [x, "one"], [y], "sign", domain=DOMAIN)


def _model(nodes: list[onnx.NodeProto], shape: tuple[int, ...] = (1, 8)) -> onnx.ModelProto:
    arrays = {n: np.asarray(v, dtype=np.float32) for n, v in CONSTANTS.items()}
    return model_of(nodes, {"x": shape}, ["y"], arrays)


# Each construct: the nodes, the shape of x, what lint says of which operator.
HLS4ML: dict[str, tuple[list[onnx.NodeProto], tuple[int, ...], str, str, str]] = {
    "zero point, power of two": (
        *([quant_node("x", "y", "s", "one", "b")], (1, 8)),
        *("wrong", "Quant", "zero point is dropped"),
    ),
    "odd scale, zero point after rounding": (
        [quant_node(*("x", "y", "odd", "one", "b"), signed=0, zero_point_after_rounding=1)],
        (1, 8),
        *("wrong", "Quant", "ties fall to other codes"),
    ),
    "odd scale on a fork": (
        [
            INPUT,
            quant_node("q", "a", "odd", "z", "b"),
            helper.make_node("Add", ["q", "a"], ["y"], "sum"),
        ],
        (1, 8),
        *("wrong", "Quant", "other branch"),
    ),
    "negative scale before a sign": (
        [INPUT, _norm("q", "n"), _bipolar("n", "t"), helper.make_node("Relu", ["t"], ["y"])],
        (1, 8),
        *("wrong", "BatchNormalization", "forgets the sign"),
    ),
    "shared weight": (
        [INPUT, WEIGHT, _matmul("q", "wq", "h"), _matmul("h", "wq", "y")],
        (1, 8),
        *("wrong", "Quant", "emits no code"),
    ),
    "positive scale before a sign": (
        [
            INPUT,
            helper.make_node("BatchNormalization", ["q", "v", "d", "m", "v"], ["n"], "norm"),
            _bipolar("n", "t"),
            helper.make_node("Relu", ["t"], ["y"]),
        ],
        (1, 8),
        *("wrong", "BatchNormalization", "rounded down"),
    ),
    "odd scale read twice": (
        [
            quant_node("x", "q", "odd", "z", "b"),
            WEIGHT,
            _matmul("q", "wq", "h"),
            helper.make_node("Add", ["q", "h"], ["y"], "sum"),
        ],
        (1, 8),
        *("wrong", "Quant", "first reader only"),
    ),
    "padded unsigned pool": (
        [
            quant_node("x", "q", "s", "z", "b", signed=0),
            helper.make_node(
                "MaxPool", ["q"], ["y"], "p", kernel_shape=[2, 2], pads=[1, 1, 0, 0]
            ),
        ],
        (1, 8, 4, 4),
        *("wrong", "MaxPool", "wins against every pixel"),
    ),
    "pool of one axis": (
        [INPUT, helper.make_node("MaxPool", ["q"], ["y"], "p", kernel_shape=[2])],
        (1, 8, 4),
        *("wrong", "MaxPool", "swapped"),
    ),
    "two activations": (
        [INPUT, _matmul("q", "q", "y")],
        (8, 8),
        *("wrong", "MatMul", "emits no code"),
    ),
    "rank 3": (
        [INPUT, WEIGHT, _matmul("q", "wq", "y")],
        (1, 3, 8),
        *("wrong", "MatMul", "product of all axes"),
    ),
    "global average": (
        [INPUT, helper.make_node("GlobalAveragePool", ["q"], ["y"], "pool")],
        (1, 8, 4, 4),
        *("wrong", "GlobalAveragePool", "channels-last"),
    ),
    "one signed bit": (
        *([quant_node("x", "y", "s", "z", "one")], (1, 8)),
        *("wrong", "Quant", "-1 and 0"),
    ),
    "softmax": (
        [INPUT, helper.make_node("Softmax", ["q"], ["y"], "soft", axis=-1)],
        (1, 8),
        *("wrong", "Softmax", "tables"),
    ),
    "rows of scales": (
        [
            INPUT,
            quant_node("w", "wq", "rows", "z", "b"),
            _matmul("q", "wq", "y"),
        ],
        (1, 8),
        *("refused", "Quant", "IndexError"),
    ),
    "mul before a product": (
        [
            INPUT,
            helper.make_node("Mul", ["q", "half"], ["h"]),
            WEIGHT,
            _matmul("h", "wq", "y"),
        ],
        (1, 8),
        *("refused", "MatMul", "NamedType"),
    ),
    "rounding": (
        *([quant_node("x", "y", "s", "z", "b", rounding_mode="CEIL")], (1, 8)),
        *("refused", "Quant", "NotImplementedError"),
    ),
    "square scale": (
        *([quant_node("x", "y", "square", "z", "b")], (1, 8)),
        *("refused", "Quant", "TypeError"),
    ),
    "gemm": (
        [INPUT, helper.make_node("Gemm", ["q", "w"], ["y"], "g")],
        (1, 8),
        *("refused", "Gemm", "Unsupported operation type"),
    ),
    "channels first": (
        [INPUT, helper.make_node("MaxPool", ["q"], ["y"], "p", kernel_shape=[2, 2])],
        (1, 8, 4, 4),
        *("refused", "MaxPool", "channels-last"),
    ),
}


@pytest.mark.parametrize("name", sorted(HLS4ML))
def test_hls4ml_constructs_are_found(name) -> None:
    nodes, shape, severity, op, words = HLS4ML[name]
    report = qh.lint(_model(nodes, shape), "hls4ml")
    assert not report
    said = [f for f in report.errors if f.op == op and words in f.effect]
    assert [f.severity.value for f in said] == [severity] * len(said)
    assert said, [str(f) for f in report.findings]
    assert all(f.remedy for f in said)


@pytest.mark.parametrize("name", sorted(HLS4ML))
def test_hls4ml_export_mends_or_refuses_each_of_them(name, tmp_path) -> None:
    nodes, shape, *_ = HLS4ML[name]
    folder = tmp_path / "out"
    try:
        report = qh.convert(_model(nodes, shape), folder, to="hls4ml")
    except NotExactError:
        assert not folder.exists()
        return
    assert report.check is not None
    # Scales that are no powers of two are multiplied behind the sums: float32 rounds there.
    assert report.check.outputs[0].max_abs <= (1e-5 if name.startswith("odd") else 0)
    again = qh.lint(str(folder / "model.onnx"), "hls4ml")
    assert [str(f) for f in again.errors if f.op != "Softmax"] == []


def test_a_model_that_hls4ml_takes_has_no_errors() -> None:
    nodes = [INPUT, WEIGHT, _matmul("q", "wq", "h"), helper.make_node("Relu", ["h"], ["y"])]
    assert qh.lint(_model(nodes), "hls4ml")


@pytest.mark.parametrize(
    ("nodes", "shape", "op", "words"),
    [
        ([quant_node("x", "y", "s", "one", "b")], (1, 8), "Quant", "zero-point == 0"),
        ([quant_node("x", "y", "s", "z", "b", signed=0)], (1, 8), "Quant", "signed must be 1"),
        (
            [helper.make_node("Relu", ["x"], ["r"]), quant_node("r", "y", "s", "z", "b")],
            *((1, 8), "Quant", "unsigned, not narrow"),
        ),
        (
            [quant_node("x", "y", "s", "z", "b", rounding_mode="FLOOR")],
            *((1, 8), "Quant", "never reads rounding_mode"),
        ),
        (
            [INPUT, WEIGHT, _matmul("q", "wq", "h"), _matmul("h", "wq", "y")],
            *((1, 8), "Quant", "one consumer"),
        ),
        (
            [INPUT, WEIGHT, _matmul("q", "wq", "y")],
            (1, 1, 2, 3, 8),
            "MatMul",
            "number of dims",
        ),
        ([INPUT, helper.make_node("Relu", ["q"], ["y"])], (4, 8), "input", "one sample"),
    ],
)
def test_finn_constructs_are_found(nodes, shape, op, words) -> None:
    report = qh.lint(_model(nodes, shape), "finn")
    assert any(f.op == op and words in f.effect for f in report.errors), report.findings


@pytest.mark.parametrize(("pads", "said"), [([1, 1, 1, 1], True), ([0, 0, 0, 0], False)])
def test_finn_leaves_a_zero_point_in_front_of_a_padded_layer(tmp_path, pads, said) -> None:
    kernel = np.ones((1, 1, 3, 3), dtype=np.float32)
    nodes = [
        quant_node("x", "q", "s", "one", "b", signed=0, zero_point_after_rounding=1),
        quant_node("k", "kq", "s", "z", "b"),
        helper.make_node("Conv", ["q", "kq"], ["y"], "conv", pads=pads),
    ]
    model = model_of(nodes, {"x": (1, 1, 5, 5)}, ["y"], {**CONSTANTS, "k": kernel})
    qh.convert(model, tmp_path / "finn.onnx", profile="finn")
    # Of the source, and of what was written for FINN.
    for file in (model, tmp_path / "finn.onnx"):
        notes = [f for f in qh.lint(file, "finn").findings if f.node == "conv"]
        assert ["does not become hardware" in f.effect for f in notes] == [True] * said
        assert all("symmetrize" in f.remedy and not f.is_error for f in notes)


def test_finn_does_not_know_the_name_int_quant(tmp_path) -> None:
    node = helper.make_node(
        "IntQuant",
        ["x", "s", "z", "b"],
        ["y"],
        "named",
        domain=DOMAIN,
        signed=1,
        narrow=0,
        rounding_mode="ROUND",
    )
    path = tmp_path / "m.onnx"
    onnx.save(_model([node]), path)
    (said,) = qh.lint(str(path), "finn").errors
    assert (said.op, said.node) == ("IntQuant", "named")


def test_onnxruntime_knows_no_foreign_operator() -> None:
    report = qh.lint(_model([INPUT, helper.make_node("Relu", ["q"], ["y"])]), "ort")
    (said,) = report.errors
    assert "not a registered function/op" in said.effect


def test_a_qcdq_file_runs_in_onnxruntime(tmp_path) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "q.onnx"
    nodes = [INPUT, WEIGHT, _matmul("q", "wq", "y")]
    qh.convert(_model(nodes), path, to="qcdq")
    report = qh.lint(str(path), "ort")
    assert report
    assert "a step away" in report.findings[0].effect


def test_a_fractional_bit_width_is_no_model_at_all() -> None:
    with pytest.raises(
        InvalidModelError, match=r"Quant 'y': bit width must be a whole number"
    ):
        qh.lint(_model([quant_node("x", "y", "s", "z", "bits")]), "hls4ml")


def test_an_unknown_target_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="unknown target 'vitis'; there are: hls4ml"):
        qh.lint(_model([INPUT, helper.make_node("Relu", ["q"], ["y"])]), "vitis")


def test_the_command_exits_with_one_where_there_are_errors(tmp_path) -> None:
    good, bad = tmp_path / "good.onnx", tmp_path / "bad.onnx"
    onnx.save(_model([INPUT, helper.make_node("Relu", ["q"], ["y"])]), good)
    onnx.save(_model([quant_node("x", "y", "s", "one", "b")]), bad)
    runner = CliRunner()
    assert runner.invoke(app, ["lint", str(good), "--target", "hls4ml"]).exit_code == 0
    result = runner.invoke(app, ["lint", str(bad), "--target", "hls4ml", "--json", "-"])
    assert result.exit_code == 1
    rows = json.loads(result.stdout)["findings"]
    assert any(row["severity"] == "wrong" and row["node"] == "y" for row in rows)


def test_findings_that_differ_in_their_node_alone_are_one_row_and_all_are_data() -> None:
    nodes = [quant_node("x", "q0")] + [quant_node(f"q{k}", f"q{k + 1}") for k in range(8)]
    constants = {"s": 0.25, "z": 0.0, "b": 4.0}
    report = qh.lint(model_of(nodes, {"x": ("N", 3)}, ["q8"], constants), "ort")
    refused = [row for row in report.rows() if row["op"] == "Quant"]
    assert len(refused) >= 8
    lines = [line for line in report.table(300).splitlines() if "Quant:" in line]
    assert len(lines) == 1
    assert f"and {len(refused) - 4} more" in lines[0]


def test_a_broken_node_without_effect_is_named():
    # The rules look at the file as it lies, where it cannot be read.
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": (2,)}, ["y"])
    model.graph.node.add(op_type="QuantizeLinear", input=["x"], output=["d"], name="broken")
    with pytest.raises(SourceError, match=r"QuantizeLinear 'broken': .* input size 1"):
        qh.lint(model, "ort")


@pytest.mark.parametrize("pads", [1, "text", [1, 1]])
def test_an_unknown_operator_may_give_the_name_of_an_attribute_another_meaning(pads):
    foreign = helper.make_node("Pool", ["x"], ["y"], name="p", domain="acme", pads=pads)
    model = model_of([foreign], {"x": (2,)}, ["y"])
    model.opset_import.append(helper.make_opsetid("acme", 1))
    assert any(one.op == "Pool" for one in qh.lint(model, "finn").findings)
