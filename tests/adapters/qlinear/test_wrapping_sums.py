"""Sums that leave int32 wrap, as an accumulator does: no float says that."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import qonnx_hub as qh
from qonnx_hub.equivalence.verdicts import Verdict

INT8, UINT8 = np.int8, np.uint8


def integer_net(op, x_shape, y_shape, w, *, y_scale, bias=None):
    """Return one product of whole numbers of scale 1, with 128 as the output's zero point."""
    known = {"one": np.float32(1), "xz": UINT8(0), "w": w, "wz": INT8(0)}
    known |= {"ys": np.float32(y_scale), "yz": UINT8(128)}
    reads = ["x", "one", "xz", "w", "one", "wz", "ys", "yz"]
    if bias is not None:
        known["b"] = np.array([bias], dtype=np.int32)
        reads.append("b")
    graph = helper.make_graph(
        [helper.make_node(op, reads, ["y"], name="layer")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, x_shape)],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, y_shape)],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in known.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def convolution(bias, weight=127):
    w = np.full((1, 1, 1, 1), weight, dtype=INT8)
    shape = [1, 1, 2, 2]
    return integer_net("QLinearConv", shape, shape, w, y_scale=2.0**24, bias=bias)


PIXELS = np.array([0, 1, 100, 255], dtype=UINT8).reshape(1, 1, 2, 2)


@pytest.mark.parametrize(
    ("bias", "weight", "codes"),
    [
        # 2147483647 is 128 steps of 2^24; with 127 more it is -2147483522.
        (2**31 - 1, 127, [255, 0, 0, 0]),
        (-(2**31), -127, [0, 255, 255, 255]),
        (2**31 - 20000, 127, [255, 255, 255, 0]),
        (2**24, 127, [129, 129, 129, 129]),
    ],
)
def test_a_bias_that_carries_a_sum_out_of_int32_wraps(bias, weight, codes):
    made = qh.run(convolution(bias, weight), {"x": PIXELS})["y"]
    assert made.reshape(-1).tolist() == codes


def test_a_long_sum_wraps():
    # 255 * 127 * 70000 = 2266950000, less 2^32: -2028017296, or -120.9 steps of 2^24.
    w = np.full((70000, 1), 127, dtype=INT8)
    net = integer_net("QLinearMatMul", [1, 70000], [1, 1], w, y_scale=2.0**24)
    made = qh.run(net, {"x": np.full((1, 70000), 255, dtype=UINT8)})["y"]
    assert made.item() == 128 - 121


@pytest.mark.parametrize(("channels", "kept"), [(66_311, False), (66_312, True)])
def test_a_sum_without_a_bias_may_wrap_as_well(channels, kept):
    # 255 * 127 * 66311 is the largest that int32 holds.
    w = np.full((1, channels, 1, 1), 127, dtype=INT8)
    net = integer_net("QLinearConv", [1, channels, 1, 1], [1, 1, 1, 1], w, y_scale=2.0**24)
    operators = {node.op_type for node in qh.load(net).graph}
    assert ("QLinearConv" in operators) is kept


@pytest.mark.parametrize(("bias", "kept"), [(2**31 - 1 - 255 * 127, False), (2**31 - 1, True)])
def test_what_may_wrap_stays_an_operator_of_integers(bias, kept):
    operators = {node.op_type for node in qh.load(convolution(bias)).graph}
    assert ("QLinearConv" in operators) is kept


def test_what_wraps_is_what_onnxruntime_makes():
    pytest.importorskip("onnxruntime")
    net = convolution(2**31 - 20000)
    found = qh.check(net, net, {"x": PIXELS}, backend="ort")
    assert found.verdict in {Verdict.PROVEN, Verdict.EQUAL}, found.reason


@pytest.mark.parametrize("form", ["qcdq", "qlinear", "qonnx"])
def test_what_wraps_is_written_as_it_was(form, tmp_path):
    report = qh.convert(convolution(2**31 - 1), tmp_path / "made.onnx", to=form)
    assert report.verdict is Verdict.PROVEN
    made = qh.run(tmp_path / "made.onnx", {"x": PIXELS})["y"]
    assert made.reshape(-1).tolist() == [255, 0, 0, 0]
