"""FoldQuantizedConstants and ExtractScale: what quantizers are made of, as operators."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest
from onnx import TensorProto, helper

from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.passes import ExtractScale, FoldQuantizedConstants
from tests.ir.graphs import BARE, constants, f32, info, node_of, operators, proto, quant
from tests.ir.pass_kit import around_ties, assert_equal, assert_left_alone, transformed

W = f32([[-9, -0.76], [0.26, 0.25], [0.75, 30]])


def layer(quantizer, **weights):
    values = {"w": W, "s": f32(0.5), "z": f32(0), "b": f32(4)} | weights
    nodes = [quantizer, helper.make_node("MatMul", ["x", "q"], ["y"])]
    return proto(nodes, [info("x", [2, 3])], [info("y", [2, 2])], values)


X = {"x": np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)}


def test_a_weight_becomes_its_integers_and_a_scale():
    before, after = transformed(layer(quant("w", "q", "wq")), FoldQuantizedConstants())
    assert operators(after) == ["Mul", "MatMul"]
    # By hand: w / 0.5, clipped to -8 .. 7, ties to even.
    assert constants(after)["wq_integers"].tolist() == [[-8, -2], [1, 0], [2, 7]]
    assert constants(after)["wq_scale"].tolist() == 0.5
    assert_equal(before, after, X)


def test_the_integers_carry_their_type_for_the_qonnx_package():
    _, after = transformed(layer(quant("w", "q", "wq")), FoldQuantizedConstants())
    (note,) = onnx_ir.to_proto(after).graph.quantization_annotation
    assert note.tensor_name == "wq_integers"
    (entry,) = note.quant_parameter_tensor_names
    assert (entry.key, entry.value) == ("finn_datatype", "INT4")


@pytest.mark.parametrize(
    ("quantizer", "weights", "nodes"),
    [
        (quant("w", "q", "wq"), {"s": f32([0.5, 0.3])}, ["Mul"]),
        (quant("w", "q", "wq"), {"s": f32(1)}, []),
        (quant("w", "q", "wq", signed=0), {"z": f32(3)}, ["Sub", "Mul"]),
        (quant("w", "q", "wq"), {"z": f32(0.4), "s": f32([[0.1, 0.7]])}, ["Sub", "Mul"]),
        (quant("w", "q", "wq", narrow=1, rounding_mode="FLOOR"), {"b": f32(2)}, ["Mul"]),
        (quant("w", "q", "wq"), {"b": f32(1)}, ["Mul"]),
        (quant("w", "q", "wq", signed=0), {"b": f32(1)}, ["Mul"]),
        (quant("w", "q", "wq", op="BipolarQuant", inputs=("s",), **BARE), {}, ["Mul"]),
    ],
)
def test_every_integer_quantizer_is_folded_exactly(quantizer, weights, nodes):
    before, after = transformed(layer(quantizer, **weights), FoldQuantizedConstants())
    assert operators(after) == [*nodes, "MatMul"]
    assert_equal(before, after, X)


def test_a_weight_becomes_floats_on_the_grid():
    before, after = transformed(layer(quant("w", "q", "wq")), FoldQuantizedConstants("floats"))
    assert operators(after) == ["MatMul"]
    assert constants(after)["wq_quantized"].tolist() == [[-4, -1], [0.5, 0], [1, 3.5]]
    assert_equal(before, after, X)


def minifloat(x: str, y: str):
    return quant(x, y, "wq", op="FloatQuant", inputs=("s", "e", "m", "bias", "top"), **BARE)


MINIFLOAT = {"e": f32(4), "m": f32(3), "bias": f32(7), "top": f32(240)}


def test_a_minifloat_has_no_integers_but_a_grid():
    source = layer(minifloat("w", "q"), **MINIFLOAT)
    assert_left_alone(source, FoldQuantizedConstants())
    before, after = transformed(source, FoldQuantizedConstants("floats"))
    assert operators(after) == ["MatMul"]
    assert_equal(before, after, X)


def test_a_constant_output_keeps_its_name():
    source = proto(
        [quant("w", "y", "wq")],
        outputs=[info("y", [3, 2])],
        weights={"w": W, "s": f32(1), "z": f32(0), "b": f32(4)},
    )
    before, after = transformed(source, FoldQuantizedConstants())
    assert operators(after) == ["Identity"]
    assert_equal(before, after, {"x": np.zeros((2, 3), np.float32)})


@pytest.mark.parametrize(
    "weights", [{"b": f32(26)}, {"w": f32([[np.nan, 1], [1, 1], [1, 1]])}]
)
def test_integers_that_float32_cannot_hold_stay_floats(weights):
    assert_left_alone(layer(quant("w", "q", "wq"), **weights), FoldQuantizedConstants())


def test_activations_are_not_folded():
    assert_left_alone(proto([quant()]), FoldQuantizedConstants())


def test_an_unknown_form_is_refused():
    found = onnx_ir.from_proto(proto([quant()]))
    with pytest.raises(onnx_ir.passes.PreconditionError) as caught:
        FoldQuantizedConstants("bits")(found)
    assert isinstance(caught.value.__cause__, PassError)
    assert "unknown form 'bits'; there are: integers, floats" in str(caught.value.__cause__)


# ExtractScale


def activation(quantizer, shape=None, **weights):
    values = {"s": f32(0.5), "z": f32(0), "b": f32(4)} | weights
    sizes = shape or [1, 3, None]
    return proto([quantizer], [info("x", sizes)], [info("y", sizes)], values)


def ties(scale: float, zero: float = 0.0) -> dict[str, np.ndarray]:
    values = around_ties(scale, -16, 16, zero)
    return {"x": np.broadcast_to(values, (1, 3, values.size)).copy()}


@pytest.mark.parametrize(
    ("quantizer", "weights", "nodes"),
    [
        (quant(), {}, ["Div", "Quant", "Mul"]),
        (quant(), {"s": f32(0.3)}, ["Div", "Quant", "Mul"]),
        (quant(signed=0), {"z": f32(3), "s": f32(0.3)}, ["Div", "Add", "Quant", "Sub", "Mul"]),
        (quant(), {"z": f32(0.4), "s": f32(1)}, ["Add", "Quant", "Sub"]),
        (quant(rounding_mode="HALF_UP"), {"s": f32(0.7)}, ["Div", "Quant", "Mul"]),
        (quant(), {"b": f32(1), "s": f32(3)}, ["Div", "Quant", "Mul"]),
        (quant(op="BipolarQuant", inputs=("s",), **BARE), {}, ["BipolarQuant", "Mul"]),
        (minifloat("x", "y"), MINIFLOAT, ["Div", "FloatQuant", "Mul"]),
        (quant(), {"s": f32([0.5, 0.3, 2]).reshape(3, 1)}, ["Div", "Quant", "Mul"]),
    ],
)
def test_scale_and_zero_point_leave_the_quantizer_exactly(quantizer, weights, nodes):
    before, after = transformed(activation(quantizer, **weights), ExtractScale())
    assert operators(after) == nodes
    inner = node_of(after, quantizer.op_type)
    assert inner.inputs[1].const_value.numpy().tolist() == 1
    for scale in np.unique(weights.get("s", f32(0.5))):
        feeds = ties(float(scale), float(weights.get("z", 0)))
        assert_equal(before, after, feeds)
        assert_equal(before, after, {"x": np.where(feeds["x"] > 2, np.nan, feeds["x"])})


def test_a_scale_with_more_axes_than_the_input_adds_none():
    source = activation(quant(), [7], s=f32(0.5).reshape(1, 1, 1))
    before, after = transformed(source, ExtractScale())
    assert_equal(before, after, {"x": np.linspace(-4, 4, 7).astype(np.float32)})


def test_a_quantizer_of_scale_one_is_left_alone():
    assert_left_alone(activation(quant(), s=f32(1)), ExtractScale())


def test_half_precision_is_left_alone():
    # The steps between would be rounded to half precision; inside the operator none is.
    half = TensorProto.FLOAT16
    values = {"s": f32(0.3), "z": f32(0), "b": f32(4)}
    source = proto([quant()], [info("x", [4], half)], [info("y", [4], half)], values)
    assert_left_alone(source, ExtractScale())


def test_a_trunc_is_left_alone():
    trunc = quant(op="Trunc", inputs=("s", "z", "b", "s2", "b2"), rounding_mode="FLOOR")
    source = activation(trunc, s2=f32(2), b2=f32(2))
    assert_left_alone(source, ExtractScale())
