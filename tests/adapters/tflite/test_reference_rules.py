"""What the reference kernels refuse is refused on reading; corners that they do compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qonnx_hub_adapters.tflite.interpreter import run_net
from qonnx_hub_adapters.tflite.net import CodeGrid, TfliteNet
from qonnx_hub_adapters.tflite.net_builder import NetBuilder, one_grid
from qonnx_hub_adapters.tflite.net_writer import write_net
from qonnx_hub_adapters.tflite.reader import read_net
from qonnx_hub_ir.errors import SourceError

FINE, COARSE, HERE = one_grid(1e-6), one_grid(20.0), one_grid(0.1, 3)


def net_of(
    name: str,
    given: list[tuple[str, tuple[int, ...], CodeGrid | None]],
    made: tuple[str, tuple[int, ...], CodeGrid | None],
    settings: Any = (),
    **options: Any,
) -> TfliteNet:
    net = NetBuilder()
    inputs = [net.tensor(f"x{i}", *one) for i, one in enumerate(given)]
    constants = [net.constant(numbers) for numbers in settings]
    out = net.tensor("y", *made)
    net.operate(name, (*inputs, *constants), (out,), **options)
    return net.net([(i, f"x{i}") for i in inputs], [(out, "y")])


def layer(name: str, weights: tuple[int, ...], axis: int, **options: Any) -> TfliteNet:
    net = NetBuilder()
    x = net.tensor("x", "INT8", (1, 4, 4, 2), HERE)
    grid = CodeGrid(np.full(1, 0.1, np.float32), np.zeros(1, np.int64), axis)
    w = net.tensor("w", "INT8", weights, grid, np.ones(weights, np.int8))
    y = net.tensor("y", "INT8", (1, 4, 4, 2), HERE)
    net.operate(name, (x, w), (y,), stride_h=1, stride_w=1, **options)
    return net.net([(x, "x")], [(y, "y")])


FOUR = (1, 2)
TWO = ("INT8", FOUR, HERE)
REFUSED = {
    "LOGISTIC .* steps of 1/256": net_of("LOGISTIC", [TWO], ("INT8", FOUR, one_grid(0.1))),
    "ADD .*output scale far below": net_of(
        "ADD", [("INT16", FOUR, COARSE), ("INT16", FOUR, FINE)], ("INT16", FOUR, FINE)
    ),
    "HARD_SWISH .*output scale far below": net_of(
        "HARD_SWISH", [("INT8", FOUR, COARSE)], ("INT8", FOUR, FINE)
    ),
    "RELU_N1_TO_1 .*do not take INT16": net_of(
        "RELU_N1_TO_1", [("INT16", FOUR, FINE)], ("INT16", FOUR, FINE)
    ),
    "QUANTIZE .*do not take INT16 to UINT8": net_of(
        "QUANTIZE", [("INT16", FOUR, FINE)], ("UINT8", FOUR, HERE)
    ),
    "MAXIMUM .*'x1' is INT4": net_of("MAXIMUM", [TWO, ("INT4", FOUR, HERE)], TWO),
    "MUL .*'y' is INT32": net_of("MUL", [TWO, TWO], ("INT32", FOUR, HERE)),
    "ADD .*'y' is INT32": net_of("ADD", [("INT32", FOUR, None)] * 2, ("INT32", FOUR, None)),
    "TANH .*16 bits and a zero point": net_of(
        "TANH", [("INT16", FOUR, one_grid(0.1, 5))], ("INT16", FOUR, one_grid(1 / 32768))
    ),
    "RESIZE_BILINEAR .*half pixels": net_of(
        "RESIZE_BILINEAR",
        [("INT8", (1, 2, 2, 1), HERE)],
        ("INT8", (1, 4, 4, 1), HERE),
        [[4, 4]],
        align_corners=True,
        half_pixel_centers=True,
    ),
    "CONV_2D .*has no bias": layer("CONV_2D", (2, 1, 1, 2), 0),
    "MUL .*no code of 32 bits for 6": net_of(
        "MUL", [TWO, TWO], ("INT8", FOUR, one_grid(1e-10)), fused_activation_function=3
    ),
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_no_reference_kernel_takes_is_refused_by_name(said: str):
    with pytest.raises(SourceError, match=said):
        read_net(write_net(REFUSED[said]))


def test_a_depthwise_layer_needs_no_bias():
    net = read_net(write_net(layer("DEPTHWISE_CONV_2D", (1, 1, 1, 2), 3, depth_multiplier=1)))
    x = np.full((1, 4, 4, 2), 13, dtype=np.int8)
    # ten steps of a tenth, times 0.1: a tenth, one step above the zero point
    assert run_net(net, {"x": x})[net.outputs[0]].reshape(-1).tolist() == [4] * 32


def test_an_open_begin_is_the_place_that_a_shrunk_axis_takes():
    masks = {"begin_mask": 1, "shrink_axis_mask": 1}
    net = net_of("STRIDED_SLICE", [TWO], ("INT8", (2,), HERE), [[5], [6], [1]], **masks)
    x = np.array([[7, 9]], dtype=np.int8)
    assert run_net(read_net(write_net(net)), {"x0": x})[net.outputs[0]].tolist() == [7, 9]


def test_a_shift_of_sixteen_bits_rounds_away_as_the_kernel_does():
    # 1.6e-5 / 128 / 0.7 is less than 2**-16: shifted by more than its bits, plus one is left
    net = net_of(
        "HARD_SWISH", [("UINT8", (1,), one_grid(1.6e-5))], ("UINT8", (1,), one_grid(0.7))
    )
    made = run_net(net, {"x0": np.array([34], dtype=np.uint8)})
    assert made[net.outputs[0]].tolist() == [1]
