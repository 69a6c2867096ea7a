"""Ranges of dense layers: tight, as enumerating every input shows, and the accumulators."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from qonnx_hub_ir.analysis import accumulators, infer_values
from tests.ir.graphs import DOMAIN, f32, info, model, proto, quant

RANDOM = np.random.default_rng(7)


def weights_of(*shape: int) -> np.ndarray:
    return RANDOM.integers(-3, 4, shape).astype(np.float32)


def node(op_type: str, *inputs: str, **attributes: Any) -> Any:
    return helper.make_node(op_type, list(inputs), ["y"], name="layer", **attributes)


def every_output(
    layer: Any, shape: list[int], weights: dict[str, np.ndarray], codes: tuple[int, ...]
) -> np.ndarray:
    """All outputs over every input of these integers, by ONNX's reference implementation."""
    count = int(np.prod(shape))
    inputs = np.array(list(itertools.product(codes, repeat=count)), dtype=np.float32)
    graph = proto(
        [layer], [info("x", ["N", *shape[1:]])], [info("y", None)], weights, {"": 19}
    )
    feed = inputs.reshape(-1, *shape[1:])
    return np.asarray(ReferenceEvaluator(graph).run(None, {"x": feed})[0])


LAYERS = {
    "matmul": (node("MatMul", "x", "w"), [1, 4], {"w": weights_of(4, 3)}),
    "gemm": (
        node("Gemm", "x", "w", "b", transB=1),
        [1, 4],
        {"w": weights_of(3, 4), "b": f32([5, -2, 0])},
    ),
    "conv": (node("Conv", "x", "w"), [1, 2, 2, 2], {"w": weights_of(3, 2, 2, 2)}),
    "conv with bias": (
        node("Conv", "x", "w", "b"),
        [1, 1, 2, 3],
        {"w": weights_of(2, 1, 2, 2), "b": f32([4, -7])},
    ),
    "padded conv": (
        node("Conv", "x", "w", pads=[1, 1, 1, 1]),
        [1, 1, 2, 3],
        {"w": weights_of(2, 1, 3, 3)},
    ),
    "conv on one side padded": (
        node("Conv", "x", "w", pads=[0, 2], strides=[2]),
        [1, 1, 5],
        {"w": weights_of(2, 1, 3)},
    ),
    "same_upper conv": (
        node("Conv", "x", "w", auto_pad="SAME_UPPER", strides=[2, 2]),
        [1, 1, 3, 2],
        {"w": weights_of(2, 1, 2, 3)},
    ),
    "dilated conv": (
        node("Conv", "x", "w", dilations=[2], pads=[1, 1]),
        [1, 1, 5],
        {"w": weights_of(2, 1, 3)},
    ),
    "depthwise conv": (
        node("Conv", "x", "w", group=2),
        [1, 2, 1, 3],
        {"w": weights_of(2, 1, 1, 2)},
    ),
    "grouped conv": (
        node("Conv", "x", "w", group=2),
        [1, 4, 1, 1],
        {"w": weights_of(6, 2, 1, 1)},
    ),
    "transposed conv": (
        node("ConvTranspose", "x", "w", strides=[2], pads=[1, 0]),
        [1, 2, 3],
        {"w": weights_of(2, 3, 3)},
    ),
}


@pytest.mark.parametrize("codes", [(-2, 1), (0, 3), (1, 2), (-3, -1)])
@pytest.mark.parametrize("name", list(LAYERS))
def test_the_range_of_a_layer_is_that_of_all_its_outputs(name, codes):
    layer, shape, weights = LAYERS[name]
    # The extremes lie on the ends of the inputs: nothing between has to be tried.
    outputs = every_output(layer, shape, weights, codes)
    graph = model([layer], [info("x", shape)], [info("y", None)], weights, {"": 19})
    given = infer_values(
        model(
            [node("Clip", "x", "a", "b")],
            [info("x", shape)],
            [info("y", None)],
            {"a": f32(codes[0]), "b": f32(codes[1])},
            {"": 19},
        ),
        {"x": "INT5"},
    )["y"]
    found = infer_values(graph, {"x": given})["y"]
    axis = 1
    others = tuple(k for k in range(outputs.ndim) if k != axis)
    lows = np.broadcast_to(found.low.reshape(-1), (outputs.shape[axis],))
    highs = np.broadcast_to(found.high.reshape(-1), (outputs.shape[axis],))
    assert lows.tolist() == outputs.min(axis=others).tolist()
    assert highs.tolist() == outputs.max(axis=others).tolist()
    assert found.grid.exact


def test_groups_of_a_transposed_convolution_keep_to_their_own_channels():
    weights = {"w": f32([[[1, -2], [3, 0]], [[-4, 5], [0, 0]]])}
    layer = node("ConvTranspose", "x", "w", group=2, strides=[3], output_padding=[1])
    graph = model([layer], [info("x", [1, 2, 2])], [info("y", None)], weights)
    found = infer_values(graph, {"x": "UINT1"})["y"]
    # Taps lie three apart: each output is one weight of its channel times 0 or 1, or nothing.
    assert found.low.reshape(-1).tolist() == [-2.0, 0.0, -4.0, 0.0]
    assert found.high.reshape(-1).tolist() == [1.0, 3.0, 5.0, 0.0]


def test_a_constant_on_the_left_gives_a_range_per_row():
    layer = node("MatMul", "w", "x")
    graph = model(
        [layer], [info("x", [2, 3])], [info("y", None)], {"w": f32([[1, 2], [-3, 0]])}
    )
    found = infer_values(graph, {"x": "UINT1"})["y"]
    assert found.channel_axis == 0
    assert found.high.reshape(-1).tolist() == [3.0, 0.0]
    assert found.low.reshape(-1).tolist() == [0.0, -3.0]


def test_each_input_channel_counts_with_its_own_range():
    nodes = [helper.make_node("Mul", ["x", "g"], ["p"]), node("MatMul", "p", "w")]
    weights = {"g": f32([1, 4]), "w": f32([[3], [-1]])}
    graph = model(nodes, [info("x", [1, 2])], [info("y", None)], weights)
    found = infer_values(graph, {"x": "UINT1"})["y"]
    # 3 a - 4 b, with a and b 0 or 1; the integers are those of the common scale 1.
    assert (float(found.low), float(found.high)) == (-4.0, 3.0)
    assert float(found.scale) == 1.0


def test_scales_per_output_channel_stay_apart():
    nodes = [
        quant("w", "q", "qw", inputs=("sw", "z", "b"), narrow=1),
        node("MatMul", "x", "q"),
    ]
    weights = {"w": f32([[0.5, 3.0], [-0.5, 3.0]]), "sw": f32([[0.5, 1.0]])}
    weights |= {"z": f32(0), "b": f32(3)}
    graph = model(nodes, [info("x", [1, 2])], [info("y", None)], weights, {"": 19, DOMAIN: 2})
    found = infer_values(graph, {"x": "UINT2"})["y"]
    # Integers 1, -1 with scale 1/2, and 3, 3 with scale 1; x in 0..3.
    assert found.scale.reshape(-1).tolist() == [0.5, 1.0]
    assert found.integer_high.reshape(-1).tolist() == [3, 18]
    assert found.low.reshape(-1).tolist() == [-1.5, 0.0]


def test_a_bias_between_the_steps_is_an_offset():
    weights = {"w": f32([[2.0]]), "b": f32([0.3])}
    graph = model(
        [node("Gemm", "x", "w", "b")], [info("x", [1, 1])], [info("y", None)], weights
    )
    found = infer_values(graph, {"x": "UINT1"})["y"]
    assert (int(found.integer_low), int(found.integer_high)) == (0, 1)
    assert (float(found.scale), float(found.offset)) == (2.0, float(np.float32(0.3)))


def test_float_weights_have_a_range_but_no_integers():
    weights = {"w": RANDOM.normal(size=(5, 2)).astype(np.float32)}
    graph = model([node("MatMul", "x", "w")], [info("x", [1, 5])], [info("y", None)], weights)
    found = infer_values(graph, {"x": (0.0, 1.0)})["y"]
    exact = np.maximum(weights["w"].astype(np.float64), 0).sum(axis=0)
    assert np.allclose(found.high.reshape(-1), exact, rtol=1e-5, atol=0)
    assert np.all(found.high.reshape(-1) >= exact)
    assert found.grid is None


def test_an_unbounded_input_that_only_meets_zeros_does_no_harm():
    weights = {"w": f32([[1.0, 0.0]])}
    graph = model([node("MatMul", "x", "w")], [info("x", [2, 1])], [info("y", None)], weights)
    found = infer_values(graph)["y"]
    assert found.low.reshape(-1).tolist() == [-np.inf, 0.0]


def test_the_product_of_two_moving_matrices_is_bounded_by_its_length():
    graph = model(
        [node("MatMul", "x", "t")],
        [info("x", [2, 4]), info("t", [4, 3])],
        [info("y", None)],
        {},
    )
    found = infer_values(graph, {"x": "INT2", "t": "UINT3"})["y"]
    # Four products between -2 * 7 and 1 * 7.
    assert (int(found.integer_low), int(found.integer_high)) == (-56, 28)
    assert infer_values(graph, {"x": "INT2"})["y"].grid is None


def test_sums_beyond_the_digits_of_a_float_are_not_exact():
    weights = {"w": np.full((300, 1), 127, dtype=np.float32)}
    graph = model(
        [node("MatMul", "x", "w")], [info("x", [1, 300])], [info("y", None)], weights
    )
    # 300 * 127 * 255 is below 2^24, 300 * 127 * 1023 above.
    assert infer_values(graph, {"x": "UINT8"})["y"].grid.exact
    found = infer_values(graph, {"x": "UINT10"})["y"]
    assert not found.grid.exact
    assert int(found.integer_high) == 300 * 127 * 1023


# Accumulators


def quantized_layer(bits: float = 4.0) -> Any:
    nodes = [
        quant("x", "qx", "q1", inputs=("sx", "z", "b"), signed=0),
        quant("w", "qw", "q2", inputs=("sw", "z", "b"), narrow=1),
        node("MatMul", "qx", "qw"),
    ]
    weights = {"w": f32([[7], [-3], [1]]), "sx": f32(0.5), "sw": f32(1), "z": f32(0)}
    return model(nodes, [info("x", [1, 3])], [info("y", None)], {**weights, "b": f32(bits)})


def test_an_accumulator_says_what_hardware_needs():
    (found,) = accumulators(quantized_layer())
    # Inputs 0..15: from -45 to 120, in steps of 1/2; 120 needs eight signed bits.
    assert (found.low.tolist(), found.high.tolist()) == ([-45], [120])
    assert (found.bits, found.partial_bits, float(found.scale)) == (8, 8, 0.5)
    assert (str(found.input_type), str(found.weight_type)) == ("UINT4", "INT4")
    assert (found.node, found.output, found.exact) == ("MatMul 'layer'", "y", True)


def test_partial_sums_can_need_more_bits_than_the_sum():
    weights = {
        "w": f32([[3], [3], [-3]]),
        "one": f32(1),
        "z": f32(0),
        "b": f32(3),
        "two": f32(2),
    }
    nodes = [quant("w", "qw", inputs=("one", "z", "b")), node("MatMul", "x", "qw")]
    graph = model(nodes, [info("x", [1, 3])], [info("y", None)], weights)
    low, high = np.array([1, 1, 1]), np.array([2, 2, 2])
    assert (low.sum(), high.sum()) == (3, 6)
    given = infer_values(
        model([node("Add", "x", "one")], [info("x", [1, 3])], [info("y", None)], weights),
        {"x": "BINARY"},
    )["y"]
    (found,) = accumulators(graph, {"x": given})
    # Sums from 3 + 3 - 6 = 0 to 6 + 6 - 3 = 9; partial sums from -6 to 12.
    assert (found.low.tolist(), found.high.tolist()) == ([0], [9])
    assert (found.bits, found.partial_bits) == (5, 5)


def test_layers_without_integers_have_no_accumulator():
    weights = {"w": RANDOM.normal(size=(5, 2)).astype(np.float32)}
    graph = model([node("MatMul", "x", "w")], [info("x", [1, 5])], [info("y", None)], weights)
    assert accumulators(graph, {"x": "INT8"}) == []
