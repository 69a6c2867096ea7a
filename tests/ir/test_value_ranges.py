"""Ranges and grids, operator by operator: what is expected is worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper

from qonnx_hub_ir.analysis import IntegerType, ValueInfo, infer_values
from qonnx_hub_ir.analysis.value_info import of_integers
from qonnx_hub_ir.errors import UsageError
from tests.ir.graphs import CHANNELS_LAST, DOMAIN, f32, i64, info, model, proto, quant

IMPORTS = {"": 19, DOMAIN: 2}


def inferred(
    nodes: list[Any],
    shape: list[Any],
    weights: dict[str, np.ndarray] | None = None,
    given: Any = "INT4",
    imports: dict[str, int] | None = None,
) -> ValueInfo:
    """What is known about "y", computed from "x" of this shape and type."""
    graph = model(
        nodes, [info("x", shape)], [info("y", None)], weights or {}, imports or IMPORTS
    )
    return infer_values(graph, {"x": given})["y"]


def node(op_type: str, *inputs: str, domain: str = "", **attributes: Any) -> Any:
    return helper.make_node(op_type, [*inputs], ["y"], name="n", domain=domain, **attributes)


def ends(found: ValueInfo) -> tuple[float, float]:
    return float(found.low.min()), float(found.high.max())


def channels(found: ValueInfo) -> list[tuple[float, float]]:
    low, high = np.broadcast_arrays(found.low, found.high)
    return list(zip(low.reshape(-1).tolist(), high.reshape(-1).tolist(), strict=True))


# Inputs


def test_an_input_about_which_nothing_is_said_is_unbounded():
    found = infer_values(model([node("Relu", "x")], outputs=[info("y", None)]))
    assert (found["x"].low, found["x"].high) == (-math.inf, math.inf)
    assert ends(found["y"]) == (0.0, math.inf)
    assert found["x"].grid is None


@pytest.mark.parametrize(
    ("given", "expected", "name"),
    [
        ("INT4", (-8, 7), "INT4"),
        ("uint3", (0, 7), "UINT3"),
        ("BIPOLAR", (-1, 1), "BIPOLAR"),
        ("BINARY", (0, 1), "UINT1"),
        ("TERNARY", (-1, 1), "INT2"),
        (IntegerType(5, signed=True), (-16, 15), "INT5"),
    ],
)
def test_a_type_of_an_input_is_its_range(given, expected, name):
    found = inferred([node("Identity", "x")], [2, 3], given=given)
    assert ends(found) == expected
    assert str(found.datatype) == name


def test_the_ends_of_an_input_are_moved_outward_to_floats():
    # float32(0.1) lies above 0.1 and float32(0.3) above 0.3; both can be fed.
    found = inferred([node("Identity", "x")], [2, 3], given=(0.1, 0.3))
    assert found.low <= 0.1
    assert found.high >= float(np.float32(0.3))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"z": "INT4"}, "'z' is no input"),
        ({"x": "INT0"}, "'INT0' is no type"),
        ({"x": "INT99"}, "'INT99' has more than 53 bits"),
        ({"x": (2.0, 1.0)}, "is no range"),
        ({"x": (math.nan, 1.0)}, "is no range"),
    ],
)
def test_what_is_no_input_or_no_range_is_refused(inputs, message):
    graph = model([node("Relu", "x")], outputs=[info("y", None)])
    with pytest.raises(UsageError, match=message):
        infer_values(graph, inputs)


def test_the_model_is_not_changed():
    graph = model([node("Relu", "x")], outputs=[info("y", None)])
    before = onnx_ir.to_proto(graph).SerializeToString()
    infer_values(graph, {"x": "INT4"})
    assert onnx_ir.to_proto(graph).SerializeToString() == before


# Quantizers


def test_a_quantizer_gives_the_grid():
    weights = {"s": f32(0.25), "z": f32(0), "b": f32(4)}
    found = inferred([quant()], [2, 3], weights, given="FLOAT32")
    assert ends(found) == (-2.0, 1.75)
    assert (found.integer_low, found.integer_high) == (-8, 7)
    assert (float(found.scale), str(found.datatype)) == (0.25, "INT4")
    assert found.grid.exact


def test_a_quantizer_of_a_small_range_does_not_reach_its_limits():
    weights = {"s": f32(0.5), "z": f32(0), "b": f32(8)}
    found = inferred([quant()], [2, 3], weights, given=(-1.2, 3.1))
    # -2.4 and 6.2 steps: -2 and 6; the type stays the declared one.
    assert (found.integer_low, found.integer_high) == (-2, 6)
    assert str(found.datatype) == "INT8"
    assert (found.bits, found.signed) == (4, True)


def test_a_zero_point_moves_the_integers():
    weights = {"s": f32(2), "z": f32(3), "b": f32(4)}
    found = inferred([quant(signed=0)], [2, 3], weights, given="FLOAT32")
    assert (found.integer_low, found.integer_high) == (-3, 12)
    assert ends(found) == (-6.0, 24.0)


def test_a_fractional_zero_point_is_an_offset():
    weights = {"s": f32(2), "z": f32(0.5), "b": f32(2)}
    found = inferred([quant(signed=0)], [2, 3], weights, given="FLOAT32")
    # Codes 0..3 stand for (code - 0.5) * 2.
    assert (found.integer_low, found.integer_high, float(found.offset)) == (0, 3, -1.0)
    assert ends(found) == (-1.0, 5.0)


def test_scales_per_channel_stay_apart():
    weights = {"s": f32([[0.5], [2.0]]), "z": f32(0), "b": f32(3)}
    found = inferred([quant()], [1, 2, 4], weights, given="FLOAT32")
    assert found.channel_axis == 1
    assert channels(found) == [(-2.0, 1.5), (-8.0, 6.0)]
    assert found.scale.reshape(-1).tolist() == [0.5, 2.0]


def test_a_scale_that_is_no_power_of_two_is_not_exact():
    weights = {"s": f32(0.1), "z": f32(0), "b": f32(8)}
    found = inferred([quant()], [2, 3], weights, given="FLOAT32")
    assert not found.grid.exact
    # The float32 products themselves, as the operator computes them.
    assert ends(found) == (
        float(np.float32(-128) * f32(0.1)),
        float(np.float32(127) * f32(0.1)),
    )


def test_a_bipolar_quantizer_has_one_bit():
    nodes = [
        quant(op="BipolarQuant", inputs=["s"], signed=None, narrow=None, rounding_mode=None)
    ]
    found = inferred(nodes, [2, 3], {"s": f32(0.5)}, given="FLOAT32")
    assert str(found.datatype) == "BIPOLAR"
    assert (found.bits, ends(found)) == (1, (-0.5, 0.5))


def test_a_minifloat_saturates_at_its_largest_value():
    # e4m3 with bias 7 and max 448, as in FP8 formats.
    weights = {"s": f32(1), "e": f32(4), "m": f32(3), "bias": f32(7), "top": f32(448)}
    nodes = [
        quant(op="FloatQuant", inputs=["s", "e", "m", "bias", "top"], signed=None, narrow=None)
    ]
    assert ends(inferred(nodes, [2, 3], weights, given="FLOAT32")) == (-448.0, 448.0)
    assert float(inferred(nodes, [2, 3], weights, given=(0.0, 1.0)).low) == 0.0


def test_a_truncation_shifts_the_integers():
    weights = {"s": f32(1), "z": f32(0), "i": f32(8), "os": f32(16), "o": f32(4)}
    nodes = [
        quant(op="Trunc", inputs=["s", "z", "i", "os", "o"], signed=0, rounding_mode="FLOOR")
    ]
    found = inferred(nodes, [2, 3], weights, given="UINT8")
    assert (found.integer_low, found.integer_high, float(found.scale)) == (0, 15, 16.0)
    assert str(found.datatype) == "UINT4"


def test_thresholds_are_counted_per_channel():
    weights = {"t": f32([[-9, 0, 3], [-2, 100, 200]])}
    nodes = [node("MultiThreshold", "x", "t", domain=DOMAIN, out_dtype="UINT2")]
    found = inferred(nodes, [1, 2, 4], weights)
    # x in -8..7: one to three thresholds reached, none to one.
    assert channels(found) == [(1.0, 3.0), (0.0, 1.0)]


def test_stored_integers_are_read_through_dequantization():
    weights = {"c": np.array([-3, 5], dtype=np.int8), "s": f32(0.5), "z": np.int8(1)}
    nodes = [
        helper.make_node("DequantizeLinear", ["c", "s", "z"], ["w"]),
        node("Mul", "x", "w"),
    ]
    found = inferred(nodes, [1, 2], {k: np.asarray(v) for k, v in weights.items()})
    # Weights -2 and 2, x in -8..7.
    assert ends(found) == (-16.0, 16.0)


def test_packed_integers_are_read_as_well():
    codes = onnx.helper.make_tensor("c", TensorProto.INT4, [2], [-8, 5])
    nodes = [helper.make_node("DequantizeLinear", ["c", "s"], ["w"]), node("Mul", "x", "w")]
    message = proto(nodes, [info("x", [1, 2])], [info("y", None)], {"s": f32(0.5)}, {"": 21})
    message.graph.initializer.append(codes)
    found = infer_values(onnx_ir.from_proto(message), {"x": "BINARY"})["y"]
    assert channels(found) == [(-4.0, 0.0), (0.0, 2.5)]


@pytest.mark.parametrize(
    ("kind", "exact"),
    [(TensorProto.FLOAT16, False), (TensorProto.FLOAT, True), (TensorProto.DOUBLE, True)],
)
def test_exactness_depends_on_the_digits_of_the_type(kind, exact):
    # 7 * 255 * 3 = 5355 needs 13 binary digits; half precision has 11.
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weights = {"c": np.array(765, dtype=dtype)}
    message = proto(
        [node("Mul", "x", "c")],
        [info("x", [1, 2], kind)],
        [info("y", [1, 2], kind)],
        weights,
        {"": 19},
    )
    found = infer_values(onnx_ir.from_proto(message), {"x": "UINT3"})["y"]
    assert found.grid.exact is exact
    expected = float(dtype.type(7) * dtype.type(765))
    assert ends(found) == (0.0, expected)


def test_what_overflows_is_unbounded():
    found = inferred([node("Exp", "x")], [2, 3], given=(0.0, 100.0))
    # The largest float32 is about e**88.7.
    assert float(found.high) == math.inf
    weights = {"w": np.full((2, 1), 3e38, dtype=np.float32)}
    found = inferred([node("MatMul", "x", "w")], [1, 2], weights, given="BIPOLAR")
    assert not found.is_bounded


def test_quantize_linear_saturates_at_its_type():
    weights = {"s": f32(0.5), "z": np.array(10, dtype=np.uint8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    # -8 is 16 steps below zero, of which ten fit below the zero point; 7 is 14 steps.
    assert ends(inferred(nodes, [2, 3], weights)) == (-5.0, 7.0)


# Arithmetic


def test_adding_a_multiple_of_the_step_moves_the_integers():
    found = inferred([node("Add", "x", "c")], [2, 3], {"c": f32(3)})
    assert (found.integer_low, found.integer_high) == (-5, 10)
    assert not found.grid.has_offset


def test_adding_anything_else_is_an_offset():
    found = inferred([node("Add", "x", "c")], [2, 3], {"c": f32(0.3)})
    assert (found.integer_low, found.integer_high) == (-8, 7)
    assert float(found.offset) == float(np.float32(0.3))
    assert not found.grid.exact


def test_two_scales_meet_on_their_common_one():
    # Steps 3/4 and 1/2 are three and two quarters.
    nodes = [
        helper.make_node("Mul", ["x", "a"], ["p"]),
        helper.make_node("Mul", ["x", "b"], ["q"]),
        node("Add", "p", "q"),
    ]
    found = inferred(nodes, [2, 3], {"a": f32(0.75), "b": f32(0.5)})
    assert float(found.scale) == 0.25
    assert (found.integer_low, found.integer_high) == (-40, 35)


def test_sums_of_three_are_exact_only_if_they_are_in_every_order():
    high = 2**24 - 1
    inputs = {"a": of_integers(high - 9, high), "c": of_integers(-high, -high)}
    inputs["b"] = inputs["a"]
    # (a + c) + b fits 24 bits at each step; a + b does not, and is rounded.
    graph = model(
        [node("Sum", "a", "c", "b")],
        [info(name, [1]) for name in inputs],
        [info("y", None)],
        {},
    )
    assert not infer_values(graph, inputs)["y"].grid.exact
    small = {name: of_integers(-9, 9) for name in inputs}
    assert infer_values(graph, small)["y"].grid.exact


def test_a_negative_factor_turns_the_range():
    found = inferred([node("Mul", "x", "c")], [2, 3], {"c": f32(-0.5)})
    assert ends(found) == (-3.5, 4.0)
    assert (found.integer_low, found.integer_high, float(found.scale)) == (-7, 8, 0.5)


def test_factors_per_channel_give_scales_per_channel():
    found = inferred([node("Mul", "x", "c")], [1, 2, 3], {"c": f32([[2], [0]])})
    assert channels(found) == [(-16.0, 14.0), (0.0, 0.0)]


def test_the_product_of_two_ranges_is_that_of_the_corners():
    found = inferred([node("Mul", "x", "x")], [2, 3])
    # As any two numbers of the range: -8 * 7 and -8 * -8.
    assert ends(found) == (-56.0, 64.0)


def test_a_divisor_that_may_be_zero_leaves_nothing_known():
    found = inferred([node("Div", "c", "x")], [2, 3], {"c": f32(1)})
    assert ends(found) == (-math.inf, math.inf)


def test_dividing_by_a_power_of_two_is_exact():
    found = inferred([node("Div", "x", "c")], [2, 3], {"c": f32(4)})
    assert (ends(found), found.grid.exact) == ((-2.0, 1.75), True)
    assert found.fixed_point() == (4, 2, True)


def test_a_batch_normalization_scales_and_moves_each_channel():
    weights = {
        "gain": f32([2, -3]),
        "shift": f32([1, 0.5]),
        "mean": f32([1, 0]),
        "variance": f32([3, 0]),
    }
    found = inferred(
        [node("BatchNormalization", "x", "gain", "shift", "mean", "variance", epsilon=1.0)],
        [1, 2, 4],
        weights,
    )
    # (x - 1) * 2 / 2 + 1 and -3 x + 0.5, to within float rounding.
    expected = [(-8.0, 7.0), (-20.5, 24.5)]
    assert np.allclose(channels(found), expected, rtol=0, atol=1e-3)
    for (low, high), (least, most) in zip(channels(found), expected, strict=True):
        assert low <= least
        assert high >= most
    assert found.scale.reshape(-1).tolist() == [1.0, 3.0]


# Functions of one element


@pytest.mark.parametrize(
    ("op_type", "attributes", "expected"),
    [
        ("Relu", {}, (0.0, 7.0)),
        ("Abs", {}, (0.0, 8.0)),
        ("Neg", {}, (-7.0, 8.0)),
        ("Floor", {}, (-8.0, 7.0)),
        ("Sign", {}, (-1.0, 1.0)),
        ("LeakyRelu", {"alpha": 0.5}, (-4.0, 7.0)),
        ("Softmax", {}, (0.0, 1.0)),
    ],
)
def test_functions_with_exact_ranges(op_type, attributes, expected):
    assert ends(inferred([node(op_type, "x", **attributes)], [2, 3], given="INT4")) == expected


@pytest.mark.parametrize(
    ("op_type", "expected"),
    [
        ("Sigmoid", (1 / (1 + math.exp(2)), 1 / (1 + math.exp(-1)))),
        ("Tanh", (math.tanh(-2), math.tanh(1))),
        ("Exp", (math.exp(-2), math.exp(1))),
        ("HardSigmoid", (0.1, 0.7)),
        ("Elu", (math.expm1(-2), 1.0)),
        ("Softplus", (math.log1p(math.exp(-2)), math.log1p(math.e))),
        ("HardSwish", (-0.375, 2 / 3)),
    ],
)
def test_functions_with_a_margin_hold_their_ends(op_type, expected):
    low, high = ends(inferred([node(op_type, "x")], [2, 3], given=(-2.0, 1.0)))
    assert low <= expected[0]
    assert high >= expected[1]
    assert np.allclose((low, high), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("op_type", "expected"),
    [("Sin", (-1.0, 1.0)), ("Erf", (-1.0, 1.0)), ("Cosh", (1.0, math.inf))],
)
def test_a_function_without_a_rule_stays_in_its_bounds(op_type, expected):
    assert ends(inferred([node(op_type, "x")], [2, 3], given="FLOAT32")) == expected


@pytest.mark.parametrize(("op_type", "at"), [("Atan", np.inf), ("Asin", 1.0), ("Acos", -1.0)])
def test_a_bound_that_is_no_float_has_a_margin(op_type, at):
    # Half of pi, rounded to float32, lies above half of pi.
    largest = {"Atan": np.arctan, "Asin": np.arcsin, "Acos": np.arccos}[op_type]
    value = float(largest(np.float32(at)))
    assert value > (math.pi if op_type == "Acos" else math.pi / 2)
    low, high = ends(inferred([node(op_type, "x")], [2, 3], given="FLOAT32"))
    assert high >= value
    assert low <= (0.0 if op_type == "Acos" else -value)


def test_a_limit_on_the_grid_cuts_the_integers():
    found = inferred([node("Clip", "x", "a", "b")], [2, 3], {"a": f32(-2), "b": f32(3)})
    assert (found.integer_low, found.integer_high) == (-2, 3)


def test_a_limit_between_two_integers_leaves_no_grid():
    found = inferred([node("Clip", "x", "a", "b")], [2, 3], {"a": f32(-2.5), "b": f32(3)})
    assert (ends(found), found.grid) == ((-2.5, 3.0), None)


def test_a_leaky_slope_refines_the_grid():
    found = inferred([node("LeakyRelu", "x", alpha=0.25)], [2, 3])
    assert (float(found.scale), found.integer_low, found.integer_high) == (0.25, -8, 28)


def test_an_unknown_operator_leaves_nothing_known():
    found = inferred(
        [node("Mystery", "x", domain="some.where")],
        [2, 3],
        imports={"": 19, DOMAIN: 2, "some.where": 1},
    )
    assert ends(found) == (-math.inf, math.inf)


# Moving elements


def per_channel(nodes: list[Any], shape: list[Any], weights: dict[str, Any]) -> ValueInfo:
    """What becomes of x * [1, 2, ...] along axis 1, by the node that reads "p"."""
    count = shape[1]
    gains = f32(np.arange(1, count + 1).reshape(count, *[1] * (len(shape) - 2)))
    mul = helper.make_node("Mul", ["x", "gains"], ["p"])
    return inferred([mul, *nodes], shape, {"gains": gains, **weights}, given="BINARY")


def test_flattening_repeats_each_channel():
    found = per_channel([node("Flatten", "p")], [1, 2, 2, 2], {})
    assert found.channel_axis == 1
    assert found.high.reshape(-1).tolist() == [1, 1, 1, 1, 2, 2, 2, 2]


def test_a_reshape_that_mixes_channels_forgets_them():
    found = per_channel([node("Reshape", "p", "s")], [1, 6, 2], {"s": i64([1, 3, 4])})
    assert (found.channel_axis, ends(found)) == (None, (0.0, 6.0))


def test_transposing_moves_the_channels():
    found = per_channel([node("Transpose", "p", perm=[0, 2, 3, 1])], [1, 3, 2, 2], {})
    assert found.channel_axis == 3
    assert found.high.reshape(-1).tolist() == [1, 2, 3]


def test_joining_channels_keeps_them_apart():
    found = per_channel([node("Concat", "p", "x", axis=1)], [1, 2, 4], {})
    assert found.high.reshape(-1).tolist() == [1, 2, 1, 1]


def test_joining_along_another_axis_takes_the_wider_range():
    found = per_channel([node("Concat", "p", "x", axis=2)], [1, 2, 4], {})
    assert found.high.reshape(-1).tolist() == [1, 2]
    assert ends(found) == (0.0, 2.0)


def test_a_slice_takes_its_channels():
    weights = {"a": i64([1]), "b": i64([3]), "axes": i64([1])}
    found = per_channel([node("Slice", "p", "a", "b", "axes")], [1, 4, 2], weights)
    assert found.high.reshape(-1).tolist() == [2, 3]


def test_a_slice_can_run_backward():
    lowest = np.iinfo(np.int64).min
    weights = {"a": i64([-1]), "b": i64([lowest]), "axes": i64([1]), "steps": i64([-2])}
    found = per_channel([node("Slice", "p", "a", "b", "axes", "steps")], [1, 4, 2], weights)
    assert found.high.reshape(-1).tolist() == [4, 2]


def test_gathered_channels_come_in_the_order_of_the_indices():
    weights = {"index": i64([2, 0])}
    found = per_channel([node("Gather", "p", "index", axis=1)], [1, 3, 2], weights)
    assert found.high.reshape(-1).tolist() == [3, 1]


def test_split_parts_have_their_own_channels():
    nodes = [helper.make_node("Split", ["p", "sizes"], ["first", "y"], axis=1)]
    found = per_channel(nodes, [1, 3, 2], {"sizes": i64([1, 2])})
    assert found.high.reshape(-1).tolist() == [2, 3]


def test_padding_adds_its_value():
    weights = {"pads": i64([0, 0, 1, 0, 0, 0]), "v": f32(-5)}
    found = per_channel([node("Pad", "p", "pads", "v")], [1, 2, 3], weights)
    assert channels(found) == [(-5.0, 1.0), (-5.0, 2.0)]


def test_nearest_neighbours_keep_the_grid():
    weights = {"r": f32([]), "f": f32([1, 1, 2, 2])}
    nodes = [node("Resize", "p", "r", "f", mode="nearest")]
    found = per_channel(nodes, [1, 2, 2, 2], weights)
    assert found.high.reshape(-1).tolist() == [1, 2]
    assert found.grid is not None


# Pooling


def test_an_average_lies_on_a_finer_grid():
    nodes = [node("AveragePool", "x", kernel_shape=[2, 2])]
    found = inferred(nodes, [1, 1, 4, 4], given="UINT4")
    assert (float(found.scale), found.integer_low, found.integer_high) == (0.25, 0, 60)
    assert (ends(found), found.grid.exact) == ((0.0, 15.0), True)


def test_an_average_over_padding_reaches_zero():
    nodes = [node("AveragePool", "x", kernel_shape=[2, 2], pads=[1, 1, 1, 1])]
    low, high = ends(inferred(nodes, [1, 1, 4, 4], given=(2.0, 3.0)))
    assert low <= 0.5
    assert high >= 3.0


@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool"])
def test_a_window_mixes_what_lies_side_by_side(op_type):
    # Columns times 1, 2, 3: windows of two hold two of them.
    nodes = [
        helper.make_node("Mul", ["x", "row"], ["p"]),
        node(op_type, "p", kernel_shape=[1, 2]),
    ]
    found = inferred(nodes, [1, 2, 4, 3], {"row": f32([1, 2, 3])}, given="BINARY")
    assert found.channel_axis is None
    assert found.high >= 3.0


def test_a_sum_has_as_many_times_the_range():
    found = inferred([node("ReduceSum", "x", "axes")], [2, 5], {"axes": i64([1])})
    assert (ends(found), found.bits) == ((-40.0, 35.0), 7)


def test_a_global_average_needs_the_size():
    assert inferred([node("GlobalAveragePool", "x")], [1, 2, "H", 4]).grid is None


def test_the_index_of_the_largest_is_an_index():
    nodes = [
        helper.make_node("ArgMax", ["x"], ["index"], axis=1),
        helper.make_node("Cast", ["index"], ["y"], to=TensorProto.FLOAT),
    ]
    found = inferred(nodes, [2, 5])
    assert (ends(found), str(found.datatype)) == ((0.0, 4.0), "UINT3")


# Layouts


def test_channels_last_operators_are_read_as_their_standard_twins():
    # Kernel of one tap, stored with the channels last: weights 1 and -2.
    weights = {"w": f32([1, -2]).reshape(2, 1, 1, 1)}
    nodes = [node("Conv", "x", "w", domain=CHANNELS_LAST, kernel_shape=[1, 1])]
    graph = model(
        nodes,
        [info("x", [1, 3, 3, 1])],
        [info("y", [1, 3, 3, 2], TensorProto.FLOAT)],
        weights,
        {**IMPORTS, CHANNELS_LAST: 1},
    )
    found = infer_values(graph, {"x": "UINT2"})["y"]
    assert found.channel_axis == 3
    assert channels(found) == [(0.0, 3.0), (-6.0, 0.0)]


# Fixed point


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        (1.0, (4, 4, True)),  # -8 to 7: ap_fixed<4, 4>
        (0.125, (4, 1, True)),  # -1 to 7/8: ap_fixed<4, 1>
        (4.0, (4, 6, True)),  # multiples of 4 up to 28: ap_fixed<4, 6>
        (0.75, (6, 4, True)),  # -24 to 21 quarters: ap_fixed<6, 4>
    ],
)
def test_the_fixed_point_type_holds_every_value(factor, expected):
    found = inferred([node("Mul", "x", "c")], [2, 3], {"c": f32(factor)})
    assert found.fixed_point() == expected


def test_unbounded_values_have_no_fixed_point_type():
    assert inferred([node("Relu", "x")], [2, 3], given="FLOAT32").fixed_point() is None
