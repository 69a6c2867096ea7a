"""The integer form: standard operators that give the reference kernels' codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import qonnx_hub as qh
from qonnx_hub_adapters.tflite.net_builder import NetBuilder, one_grid
from qonnx_hub_adapters.tflite.net_writer import write_net
from qonnx_hub_ir.errors import NotExactError
from tests.adapters.tflite.shared_files import path_of, recorded, rows

SAID = [row["file"] for row in rows("exact") if row["integer_form"].startswith("0/")]
SMALL = [name for name in SAID if not name.startswith("mlperf")] or ["absent"]


@pytest.mark.parametrize("name", SMALL)
def test_onnxruntime_gives_the_codes_of_the_reference_kernels(name: str, tmp_path: Path):
    ort = pytest.importorskip("onnxruntime")
    out, (given, expected) = tmp_path / "out.onnx", codes_of(name)
    qh.convert(str(path_of(name)), out, to="qcdq", encoding="integer", check=False)
    session = ort.InferenceSession(out)
    names = [value.name for value in session.get_inputs()]
    made = session.run(None, {n: x[0] for n, x in zip(names, given, strict=True)})
    for value, codes in zip(made, expected, strict=True):
        np.testing.assert_array_equal(value, codes[0])


def codes_of(name: str):
    path_of(name)
    return recorded(name)


def test_a_conversion_is_checked_against_the_source_as_it_is_written(tmp_path: Path):
    out = tmp_path / "out.onnx"
    report = qh.convert(
        str(path_of("made_acts1_int8")), out, to="qcdq", encoding="integer", samples=8
    )
    assert report.check is not None
    assert report.check.verdict.name == "EQUAL"
    assert any("reference kernels" in note for note in report.notes)
    message = onnx.load(out)
    assert {node.domain for node in message.graph.node} == {""}
    assert message.opset_import[0].version == 13


def test_wide_codes_have_no_integer_form():
    with pytest.raises(NotExactError, match=r"CONV_2D.*INT16"):
        qh.convert(str(path_of("op_conv_2d_int16_11")), to="qcdq", encoding="integer")


def test_a_model_with_other_nodes_has_no_integer_form():
    model = qh.load(str(path_of("op_add_int8_11")))
    next(iter(model.graph)).op_type = "QuantizeLinear"
    with pytest.raises(NotExactError, match="other nodes since"):
        qh.save(model, "unwritten.onnx", "qcdq", encoding="integer")


def test_a_model_of_another_source_has_no_integer_form():
    from qonnx_hub.testing_models import feature_models

    message = next(iter(feature_models().values()))
    with pytest.raises(NotExactError, match="not read from one"):
        qh.convert(message, to="qcdq", encoding="integer")


def test_sums_wrap_at_32_bits_as_in_the_kernel(tmp_path: Path):
    ort = pytest.importorskip("onnxruntime")
    net, path, out = NetBuilder(), tmp_path / "net.tflite", tmp_path / "out.onnx"
    x = net.tensor("x", "INT8", (2, 4), one_grid(0.1))
    w = net.tensor("w", "INT8", (1, 4), one_grid(0.01), np.full((1, 4), 127, dtype=np.int8))
    b = net.tensor("b", "INT32", (1,), one_grid(0.001), np.array([2**31 - 1], dtype=np.int32))
    y = net.tensor("y", "INT8", (2, 1), one_grid(1e5))
    net.operate("FULLY_CONNECTED", (x, w, b), (y,))
    path.write_bytes(write_net(net.net([(x, "x")], [(y, "y")])))
    qh.convert(path, out, to="qcdq", encoding="integer", check=False)
    codes = np.array([[127] * 4, [-128] * 4], dtype=np.int8)
    (made,) = ort.InferenceSession(out).run(None, {"x": codes})
    # 508 * 127 + 2**31 - 1 is -2,147,419,133 in 32 bits; -512 * 127 + 2**31 - 1 fits
    assert made.reshape(-1).tolist() == [-21, 21]


def test_sums_that_are_shifted_left_wrap_as_in_the_kernel(tmp_path: Path):
    ort = pytest.importorskip("onnxruntime")
    net, path, out, count = NetBuilder(), tmp_path / "net.tflite", tmp_path / "out.onnx", 9000
    weights = np.full((1, 1, 1, count), 127, dtype=np.int8)
    x = net.tensor("x", "INT8", (1, 2, 1, count), one_grid(0.1))
    w = net.tensor("w", "INT8", weights.shape, one_grid(0.1), weights)
    b = net.tensor("b", "INT32", (1,), one_grid(0.01), np.zeros(1, dtype=np.int32))
    y = net.tensor("y", "INT8", (1, 2, 1, 1), one_grid(0.0005))
    net.operate("CONV_2D", (x, w, b), (y,), padding=1, stride_h=1, stride_w=1)
    path.write_bytes(write_net(net.net([(x, "x")], [(y, "y")])))
    qh.convert(path, out, to="qcdq", encoding="integer", check=False)
    codes = np.ones((1, 2, 1, count), dtype=np.int8)
    codes[:, 1] = 82
    (made,) = ort.InferenceSession(out).run(None, {"x": codes})
    # a factor of 20 shifts left by 5: 9000 * 127 * 82 * 32 is negative in 32 bits
    assert made.reshape(-1).tolist() == [127, -128]
