"""How far float layers are from kernels: what is proven holds, and is not more than needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import qonnx_hub as qh
from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.tflite.distances import distances_of
from qonnx_hub_adapters.tflite.float_rules import float_form
from qonnx_hub_adapters.tflite.interpreter import run_net
from qonnx_hub_adapters.tflite.net import CodeGrid, TfliteNet
from qonnx_hub_adapters.tflite.net_builder import NetBuilder, one_grid
from qonnx_hub_adapters.tflite.net_writer import write_net
from tests.adapters.tflite.random_nets import TRIED, Case

WIDE_AND_UNPROVEN = {("SOFTMAX", "INT16")}


@pytest.mark.parametrize(("write", "name", "type_"), TRIED)
def test_no_code_differs_further_than_was_proven(
    write: Callable[[Case, str], None], name: str, type_: str
):
    for seed in range(4):
        case = Case(type_, [seed, len(name), len(type_), 7])
        write(case, name)
        net, codes = case.finished()
        found = distances_of(net)
        if (name, type_) in WIDE_AND_UNPROVEN:
            assert found.outputs is None
            continue
        assert found.outputs is not None
        if type_ != "INT16":
            assert found.outputs <= (3 if name == "RESIZE_BILINEAR" else 1)
        feeds = {f"x{i}": values for i, values in enumerate(codes)}
        expected = run_net(net, feeds)[net.outputs[0]].astype(np.int64)
        made = Session(read_model(float_form(net))).run(feeds)["y"].astype(np.int64)
        assert np.abs(made - expected).max() <= found.outputs


def test_a_requantization_that_rounds_twice_is_counted_exactly():
    net = NetBuilder()
    x = net.tensor("x", "INT8", (256,), one_grid(0.05, 5))
    y = net.tensor("y", "INT8", (256,), one_grid(0.23, -3))
    net.operate("QUANTIZE", (x,), (y,))
    made = net.net([(x, "x")], [(y, "y")])
    (layer,) = distances_of(made).layers
    codes = np.arange(-128, 128, dtype=np.int8)
    kernel = run_net(made, {"x": codes})[y].astype(np.int64)
    floats = Session(read_model(float_form(made))).run({"x": codes})["y"].astype(np.int64)
    assert layer.share == np.mean(kernel != floats)
    assert layer.steps == np.abs(kernel - floats).max() == 1


def test_a_conversion_of_one_layer_is_proven_within_a_step(tmp_path: Path):
    net = NetBuilder()
    x = net.tensor("x", "INT8", (1, 4), one_grid(0.05, 5))
    y = net.tensor("y", "INT8", (1, 4), one_grid(0.23, -3))
    net.operate("QUANTIZE", (x,), (y,))
    path = tmp_path / "net.tflite"
    path.write_bytes(write_net(net.net([(x, "x")], [(y, "y")])))
    report = qh.convert(path, tmp_path / "net.onnx", to="qcdq", allow_lossy=True)
    assert report.own is not None
    assert report.own.verdict == report.verdict == "PROVEN_WITHIN"
    assert "outputs within 1 step" in report.conclusion()


def test_layers_behind_layers_that_differ_have_no_bound_as_a_whole():
    net = NetBuilder()
    x = net.tensor("x", "INT8", (4,), one_grid(0.05, 5))
    y = net.tensor("y", "INT8", (4,), one_grid(0.23, -3))
    z = net.tensor("z", "INT8", (4,), one_grid(0.93, 7))
    net.operate("QUANTIZE", (x,), (y,))
    net.operate("QUANTIZE", (y,), (z,))
    found = distances_of(net.net([(x, "x")], [(z, "z")]))
    assert found.steps == 1
    assert found.outputs is None


def test_sums_that_leave_32_bits_have_no_bound():
    net = NetBuilder()
    x = net.tensor("x", "INT8", (1, 4), one_grid(0.1))
    weights = np.full((1, 1, 1, 4), 127, dtype=np.int8)
    bias = np.array([2**31 - 1], dtype=np.int32)
    shaped = net.moved("RESHAPE", x, (1, 1, 1, 4), (net.constant([1, 1, 1, 4]),))
    w = net.tensor("w", "INT8", weights.shape, one_grid(0.01), weights)
    b = net.tensor("b", "INT32", (1,), one_grid(0.001), bias)
    y = net.tensor("y", "INT8", (1, 1, 1, 1), one_grid(1e5))
    net.operate("CONV_2D", (shaped, w, b), (y,), padding=1, stride_h=1, stride_w=1)
    found = distances_of(net.net([(x, "x")], [(y, "y")]))
    assert [one.operator for one in found.unknown] == ["CONV_2D"]


def connected(type_: str, x: list[int], bias: int, scale: float) -> TfliteNet:
    """Return a fully connected layer of weights 127, whose sums take steps of 1e-3."""
    net = NetBuilder()
    given = net.tensor("x", type_, (2, len(x)), one_grid(0.1))
    weights = np.full((1, len(x)), 127, dtype=np.int8)
    w = net.tensor("w", "INT8", weights.shape, one_grid(0.01), weights)
    b = net.tensor("b", "INT32", (1,), one_grid(0.001), np.array([bias], dtype=np.int32))
    y = net.tensor("y", type_, (2, 1), one_grid(scale))
    net.operate("FULLY_CONNECTED", (given, w, b), (y,), quantized_bias_type=2)
    return net.net([(given, "x")], [(y, "y")])


@pytest.mark.parametrize(
    ("type_", "most", "count", "bias", "scale", "expected"),
    [
        # 508 * 127 + 2**31 - 1 is 2,147,548,163, and -2,147,419,133 in 32 bits
        ("INT8", 127, 4, 2**31 - 1, 1e5, [-21, 21]),
        # 600 * 32,767 * 127 is 2,496,845,400, and -1,798,121,896 in 32 bits
        ("INT16", 32767, 600, 0, 1e3, [-1798, 1798]),
    ],
)
def test_connected_layers_sum_in_32_bits_which_wrap(
    type_: str, most: int, count: int, bias: int, scale: float, expected: list[int]
):
    net = connected(type_, [0] * count, bias, scale)
    dtype = net.tensors[0].dtype
    codes = np.array([[most] * count, [-most - 1] * count], dtype=dtype)
    assert run_net(net, {"x": codes})[net.outputs[0]].reshape(-1).tolist() == expected
    assert distances_of(net).outputs is None


def single(name: str, type_: str, given: CodeGrid, made: CodeGrid) -> TfliteNet:
    net = NetBuilder()
    x = net.tensor("x", type_, (16, 16), given)
    y = net.tensor("y", type_, (16, 16), made)
    net.operate(name, (x,), (y,), **({"beta": 1.0} if name == "SOFTMAX" else {}))
    return net.net([(x, "x")], [(y, "y")])


@pytest.mark.parametrize(
    ("name", "type_", "given", "made"),
    [
        # the unsigned kernel gives steps of 1/256 from 0, whatever its output says
        ("SOFTMAX", "UINT8", one_grid(0.1), one_grid(0.005, 3)),
        # levels times such scales leave float32
        ("RELU", "INT8", one_grid(1e37, 3), one_grid(1e37, 3)),
        ("SQUEEZE", "INT8", one_grid(1e37, 3), one_grid(1e37, 3)),
        ("QUANTIZE", "INT8", one_grid(1e37, 3), one_grid(1.7e37, -5)),
    ],
)
def test_codes_far_apart_are_not_said_to_be_near(
    name: str, type_: str, given: CodeGrid, made: CodeGrid
):
    net = single(name, type_, given, made)
    low = 0 if type_ == "UINT8" else -128
    codes = np.arange(low, low + 256).reshape(16, 16).astype(net.tensors[0].dtype)
    kernel = run_net(net, {"x": codes})[net.outputs[0]].astype(np.int64)
    floats = Session(read_model(float_form(net))).run({"x": codes})["y"].astype(np.int64)
    apart, said = int(np.abs(kernel - floats).max()), distances_of(net).outputs
    assert apart > 1
    assert said is None or said >= apart
