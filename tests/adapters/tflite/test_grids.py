"""Operators that never look at grids: codes are copied, and stand for other values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.tflite.float_rules import float_form
from qonnx_hub_adapters.tflite.interpreter import run_net
from qonnx_hub_adapters.tflite.net import TfliteNet
from qonnx_hub_adapters.tflite.net_builder import NetBuilder, one_grid
from qonnx_hub_adapters.tflite.net_writer import write_net
from qonnx_hub_adapters.tflite.reader import read_net
from qonnx_hub_ir.errors import SourceError

HERE, THERE = one_grid(0.05, 3), one_grid(0.02, -40)
SHAPE = (1, 4, 4, 2)


def net_of(name: str, sides: int, shape: Any, settings: Any = (), **options: Any) -> TfliteNet:
    net = NetBuilder()
    given = [net.tensor(f"x{i}", "INT8", SHAPE, HERE) for i in range(sides)]
    made = net.tensor("y", "INT8", shape, THERE)
    constants = [net.constant(numbers) for numbers in settings]
    net.operate(name, (*given, *constants), (made,), **options)
    return net.net([(i, f"x{i}") for i in given], [(made, "y")])


POOL = {"padding": 1, "stride_h": 1, "stride_w": 1, "filter_height": 2, "filter_width": 2}
COPYING = {
    "RESHAPE": net_of("RESHAPE", 1, (4, 8), [[4, 8]]),
    "TRANSPOSE": net_of("TRANSPOSE", 1, (1, 2, 4, 4), [[0, 3, 1, 2]]),
    "MAXIMUM": net_of("MAXIMUM", 2, SHAPE),
    "PAD": net_of("PAD", 1, (1, 6, 4, 2), [[[0, 0], [1, 1], [0, 0], [0, 0]]]),
    "MAX_POOL_2D": net_of("MAX_POOL_2D", 1, (1, 3, 3, 2), **POOL),
    "RESIZE_NEAREST_NEIGHBOR": net_of("RESIZE_NEAREST_NEIGHBOR", 1, (1, 6, 6, 2), [[6, 6]]),
}


@pytest.mark.parametrize("name", COPYING)
def test_float_layers_give_the_codes_that_the_kernel_copies(name: str):
    net = COPYING[name]
    rng = np.random.default_rng(0)
    feeds = {n: rng.integers(-128, 128, SHAPE).astype(np.int8) for n in net.input_names}
    expected = run_net(net, feeds)[net.outputs[0]]
    made = Session(read_model(float_form(net))).run(feeds)["y"]
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize(
    ("name", "sides", "shape", "settings", "options"),
    [
        ("PACK", 2, (2, *SHAPE), (), {"axis": 0, "values_count": 2}),
        ("REDUCE_MAX", 1, (1, 4, 2), [[1]], {}),
        ("EXPAND_DIMS", 1, (1, *SHAPE), [1], {}),
        ("CONCATENATION", 2, (1, 4, 4, 4), (), {"axis": 3}),
    ],
)
def test_what_the_reference_kernels_refuse_between_grids_is_not_read(
    name: str, sides: int, shape: Any, settings: Any, options: Any
):
    data = write_net(net_of(name, sides, shape, settings, **options))
    with pytest.raises(SourceError, match=rf"{name} .*another grid"):
        read_net(data)


def test_floats_times_integers_are_quantized_while_they_run_and_are_not_read():
    net = NetBuilder()
    x = net.tensor("x", "FLOAT32", (1, 2, 3))
    w = net.tensor("w", "INT8", (1, 3, 2), HERE, np.ones((1, 3, 2), dtype=np.int8))
    y = net.tensor("y", "FLOAT32", (1, 2, 2))
    net.operate("BATCH_MATMUL", (x, w), (y,))
    with pytest.raises(SourceError, match=r"BATCH_MATMUL .*while they run"):
        read_net(write_net(net.net([(x, "x")], [(y, "y")])))


def test_the_largest_float_of_each_window_is_taken():
    net = NetBuilder()
    x = net.tensor("x", "FLOAT32", (1, 2, 2, 1))
    y = net.tensor("y", "FLOAT32", (1, 1, 1, 1))
    net.operate("MAX_POOL_2D", (x,), (y,), **POOL)
    made = net.net([(x, "x")], [(y, "y")])
    values = np.array([-3, -1.5, -2, -7], dtype=np.float32).reshape(1, 2, 2, 1)
    assert run_net(made, {"x": values})[y].tolist() == [[[[-1.5]]]]


def test_codes_are_padded_with_codes_only():
    net = NetBuilder()
    x = net.tensor("x", "INT8", (1, 2), HERE)
    y = net.tensor("y", "INT8", (1, 4), HERE)
    pads = net.constant([[0, 0], [1, 1]])
    net.operate("PADV2", (x, pads, net.constant(0.5, np.float32)), (y,))
    with pytest.raises(SourceError, match=r"PADV2 .*is FLOAT32"):
        read_net(write_net(net.net([(x, "x")], [(y, "y")])))


@pytest.mark.parametrize(
    ("name", "type_", "scale", "zero"),
    [
        ("SOFTMAX", "INT8", 1 / 200, -128),
        ("SOFTMAX", "INT8", 1 / 256, 0),
        ("SOFTMAX", "INT16", 1e-4, 0),
        ("LOGISTIC", "INT16", 5e-5, 0),
        ("TANH", "INT16", 5e-5, 0),
    ],
)
def test_functions_of_one_grid_are_not_read_on_another(
    name: str, type_: str, scale: float, zero: int
):
    net = NetBuilder()
    x = net.tensor("x", type_, (2, 4), one_grid(0.001))
    y = net.tensor("y", type_, (2, 4), one_grid(scale, zero))
    net.operate(name, (x,), (y,))
    with pytest.raises(SourceError, match=rf"{name} .*makes steps of 1/"):
        read_net(write_net(net.net([(x, "x")], [(y, "y")])))


def test_a_bias_of_32_bits_beside_16_bit_data_is_read_where_the_layer_says_so():
    def written(**options: int) -> bytes:
        net = NetBuilder()
        x = net.tensor("x", "INT16", (1, 2), one_grid(0.001))
        w = net.tensor("w", "INT8", (1, 2), one_grid(0.01), np.ones((1, 2), dtype=np.int8))
        b = net.tensor("b", "INT32", (1,), one_grid(1e-5), np.zeros(1, dtype=np.int32))
        y = net.tensor("y", "INT16", (1, 1), one_grid(0.001))
        net.operate("FULLY_CONNECTED", (x, w, b), (y,), **options)
        return write_net(net.net([(x, "x")], [(y, "y")]))

    assert read_net(written(quantized_bias_type=2)).operations
    with pytest.raises(SourceError, match=r"FULLY_CONNECTED .*read it as INT64"):
        read_net(written())
