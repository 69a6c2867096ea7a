"""QuantizeFixedPoint: the numbers of fixed<W, I>, and what gets a quantizer."""

from __future__ import annotations

import warnings

import numpy as np
import onnx_ir
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.passes import QuantizeFixedPoint
from qonnx_hub_ir.passes.quantizers.quantize_fixed_point import fixed_point
from qonnx_hub_ir.quantizers import Rounding
from tests.ir.graphs import f32, info, model, operators, proto, quant
from tests.ir.pass_kit import assert_left_alone, loaded, transformed

rng = np.random.default_rng(0)
WEIGHTS = {
    "w1": rng.normal(size=(4, 3)).astype(np.float32),
    "b1": rng.normal(size=4).astype(np.float32),
    "w2": rng.normal(size=(4, 2)).astype(np.float32),
}
NODES = [
    helper.make_node("Gemm", ["x", "w1", "b1"], ["t"], name="fc1", transB=1),
    helper.make_node("Relu", ["t"], ["r"], name="relu"),
    helper.make_node("MatMul", ["r", "w2"], ["y"], name="fc2"),
]
X = rng.normal(0, 2, size=(5, 3)).astype(np.float32)


def net():
    return proto(NODES, [info("x", [5, 3])], [info("y", [5, 2])], WEIGHTS)


def fixed(values: np.ndarray, bits: int, integer_bits: int) -> np.ndarray:
    """Round to nearest even at W - I binary places, saturate at the ends of W bits."""
    step = 2.0 ** (integer_bits - bits)
    codes = np.clip(
        np.rint(values.astype(np.float64) / step), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    )
    return (codes * step).astype(np.float32)


def test_weights_inputs_and_results_are_rounded_and_saturated():
    _, after = transformed(net(), QuantizeFixedPoint(bits=8, integer_bits=3))
    found = qh.run(after, {"x": X})["y"]
    # By hand in float64: all numbers have at most 8 bits, so that every sum is exact.
    x, w1, b1, w2 = (fixed(a, 8, 3) for a in (X, *WEIGHTS.values()))
    hidden = np.maximum(fixed(x.astype(np.float64) @ w1.T.astype(np.float64) + b1, 8, 3), 0)
    wanted = fixed(hidden.astype(np.float64) @ w2.astype(np.float64), 8, 3)
    np.testing.assert_array_equal(found, wanted)
    assert np.any(found != qh.run(loaded(net()), {"x": X})["y"])


def test_a_model_of_standard_operators_imports_the_quantizers_domain():
    shapes = [info("x", [5, 3])], [info("y", [5, 2])]
    source = proto(NODES, *shapes, WEIGHTS, {"": 19})
    _, after = transformed(source, QuantizeFixedPoint())
    assert dict(after.opset_imports) == {"": 19, "qonnx.custom_op.general": 2}


def test_new_nodes_are_called_after_node_and_part():
    _, after = transformed(net(), QuantizeFixedPoint(8, 3))
    quantizers = [node.name for node in after.graph if node.op_type == "Quant"]
    assert quantizers == [
        "x_quant",
        "fc1_weight_quant",
        "fc1_bias_quant",
        "fc1_result_quant",
        "fc2_weight_quant",
        "fc2_result_quant",
    ]
    assert [value.name for value in after.graph.outputs] == ["y"]


@pytest.mark.parametrize(
    ("bits", "integer_bits"), [(8, 3), (16, 6), (4, 3), (6, 0), (8, 7), (24, 1)]
)
def test_the_numbers_are_those_of_the_qonnx_package(bits, integer_bits):
    pytest.importorskip("qonnx", reason="the qonnx package rounds independently")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from qonnx.core.datatype import DataType

        kind = DataType[f"FIXED<{bits},{integer_bits}>"]
    step, low, high = kind.scale_factor(), kind.min(), kind.max()
    values = rng.normal(0, 2.0**integer_bits, size=400).astype(np.float32)
    wanted = np.clip(np.round(values / step) * step, low, high)
    found = qh.ir.quantize(values, fixed_point(bits, integer_bits))
    np.testing.assert_array_equal(found, wanted.astype(np.float32))


def test_layers_have_formats_of_their_own():
    formats = {"fc1": (6, 2), "fc1:bias": (10, 4), "fc2:result": (12, 6), "x": (7, 1)}
    _, after = transformed(net(), QuantizeFixedPoint(8, 3, layers=formats))
    found = {n.name: n for n in after.graph if n.op_type == "Quant"}

    def bits_and_scale(name: str) -> tuple[float, float]:
        _, scale, _, bits = (v.const_value for v in found[name].inputs)
        return float(bits.numpy()), float(scale.numpy())

    assert bits_and_scale("fc1_weight_quant") == (6, 2.0**-4)
    assert bits_and_scale("fc1_bias_quant") == (10, 2.0**-6)
    assert bits_and_scale("fc1_result_quant") == (6, 2.0**-4)
    assert bits_and_scale("fc2_weight_quant") == (8, 2.0**-5)
    assert bits_and_scale("fc2_result_quant") == (12, 2.0**-6)
    assert bits_and_scale("x_quant") == (7, 2.0**-6)


def test_what_is_skipped_stays_float():
    _, after = transformed(net(), QuantizeFixedPoint(8, 3, skip=("fc1", "x")))
    names = [node.name for node in after.graph if node.op_type == "Quant"]
    assert names == ["fc2_weight_quant", "fc2_result_quant"]


def test_the_rounding_mode_is_that_of_all_quantizers():
    _, after = transformed(net(), QuantizeFixedPoint(8, 3, rounding="floor"))
    modes = {n.attributes["rounding_mode"].value for n in after.graph if n.op_type == "Quant"}
    assert modes == {"FLOOR"}
    assert fixed_point(8, 3, Rounding.FLOOR).rounding is Rounding.FLOOR


def test_values_that_stay_on_the_grid_get_no_second_quantizer():
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Reshape", ["a", "shape"], ["c"]),
        helper.make_node("Concat", ["c", "c"], ["y"], axis=0),
    ]
    shape = {"shape": np.array([3, 2], dtype=np.int64)}
    _, after = transformed(
        proto(nodes, outputs=[info("y", [6, 2])], weights=shape), QuantizeFixedPoint()
    )
    assert operators(after) == ["Quant", "Relu", "Reshape", "Concat"]


def test_what_is_quantized_already_is_left_alone():
    weights = {"s": f32(0.5), "z": f32(0), "b": f32(4), "w": np.ones((3, 3), np.float32)}
    nodes = [
        quant("x", "xq", "qx"),
        quant("w", "wq", "qw"),
        helper.make_node("MatMul", ["xq", "wq"], ["m"], name="m"),
        quant("m", "y", "qy"),
    ]
    assert_left_alone(proto(nodes, weights=weights), QuantizeFixedPoint())


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (QuantizeFixedPoint(layers={"fc9": (8, 3)}), "no node or input is called fc9"),
        (QuantizeFixedPoint(skip=("fc9",)), "no node or input is called fc9"),
        (QuantizeFixedPoint(bits=25), "the format of all others is (25, 6)"),
        (QuantizeFixedPoint(layers={"fc1": (0, 0)}), "the format of fc1 is (0, 0)"),
        (QuantizeFixedPoint(layers={"fc1": (8,)}), "the format of fc1 is (8,)"),
        (QuantizeFixedPoint(rounding="up-ish"), "unknown rounding mode 'up-ish'"),
    ],
)
def test_what_cannot_be_is_refused(step, reason):
    with pytest.raises(onnx_ir.passes.PreconditionError) as caught:
        step(model(NODES, [info("x", [5, 3])], [info("y", [5, 2])], WEIGHTS))
    assert isinstance(caught.value.__cause__, PassError)
    assert reason in str(caught.value.__cause__)
