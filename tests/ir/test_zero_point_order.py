"""Zero points that are added after rounding; onnxruntime says what is right."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper

from qonnx_hub_ir import dialect
from qonnx_hub_ir.describe import describe_quantizer
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.lowering.quantizer_operators import lower
from qonnx_hub_ir.passes import (
    ExtractScale,
    MultithresholdToQuant,
    NormalizeDialect,
    QuantToMultithreshold,
    SpellOutRounding,
)
from qonnx_hub_ir.quantizers import IntQuant, Rounding
from qonnx_hub_ir.semantics import quantize, quantize_to_integers
from qonnx_hub_ir.validity import verify
from tests.ir.graphs import attributes, f32, info, model, node_of, operators, proto, quant
from tests.ir.pass_kit import assert_equal, loaded, transformed

RANDOM = np.random.default_rng(11)
TYPES = {
    TensorProto.UINT8: (8, False),
    TensorProto.INT8: (8, True),
    TensorProto.UINT16: (16, False),
    TensorProto.INT16: (16, True),
    TensorProto.UINT4: (4, False),
    TensorProto.INT4: (4, True),
}
ORDER = dialect.ORDER


def on_onnxruntime(found: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        found.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x})[0]


def pair(kind: int, scale: float, zero: int) -> onnx.ModelProto:
    """QuantizeLinear and DequantizeLinear with this scale and zero point."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    found = proto(nodes, [info("x", [None])], [info("y", [None])], {"s": f32(scale)})
    found.graph.initializer.append(helper.make_tensor("z", kind, [], [zero]))
    found.opset_import[0].version = 21
    found.ir_version = 10
    return found


def beside_ties(scale: float, zero: int, bits: int, signed: bool) -> np.ndarray:
    """Ties of a quantizer, the floats on both sides of them, zeros and far values."""
    low = -(1 << (bits - 1)) if signed else 0
    codes = np.arange(low, low + (1 << bits) + 1)
    halves = RANDOM.permutation(codes)[:300] - zero - 0.5
    points = [(halves * scale).astype(np.float32)]
    for away in (-np.inf, np.inf):
        beside = points[0]
        for _ in range(4):
            beside = np.nextafter(beside, np.float32(away))
            points.append(beside)
    points.append(f32([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3e38, -3e38]))
    return np.concatenate(points)


def after(scale: float, zero: float, bits: int, signed: bool, **changes) -> IntQuant:
    return IntQuant(
        f32(scale), f32(zero), f32(bits), signed, zero_point_after_rounding=True, **changes
    )


@pytest.mark.parametrize("scale", [0.25, 0.0173, 1.0, 3.7])
@pytest.mark.parametrize("kind", TYPES)
def test_values_are_those_of_quantizelinear_beside_every_tie_and_for_nan(kind, scale):
    bits, signed = TYPES[kind]
    low = -(1 << (bits - 1)) if signed else 0
    for zero in {low + 1, low + 2, low + (1 << bits) - 1, low + (1 << (bits - 1)) + 1} - {0}:
        x = beside_ties(scale, zero, bits, signed)
        wanted = on_onnxruntime(pair(kind, scale, zero), x)
        found = quantize(x, after(scale, zero, bits, signed))
        np.testing.assert_array_equal(found, wanted, err_msg=f"zero point {zero}")
        assert not np.signbit(found[found == 0]).any()


@pytest.mark.parametrize(("zero", "kind"), [(3, TensorProto.UINT8), (-7, TensorProto.INT8)])
def test_standard_operators_compute_the_same_on_onnxruntime(zero, kind):
    bits, signed = TYPES[kind]
    weights = {"s": f32(0.3), "z": f32(zero), "b": f32(bits)}
    node = quant(signed=int(signed), zero_point_after_rounding=1)
    found = loaded(proto([node], [info("x", [None])], [info("y", [None])], weights))
    emit = Emitter(node_of(found, "Quant"))
    emit.replace_with(lower(emit, dialect.read_quantizer(emit.node)))
    found.opset_imports.pop(dialect.DOMAIN)
    x = beside_ties(0.3, zero, bits, signed)
    wanted = on_onnxruntime(pair(kind, 0.3, zero), x)
    np.testing.assert_array_equal(on_onnxruntime(onnx_ir.to_proto(found), x), wanted)


def test_the_two_orders_differ_at_a_tie_of_an_odd_zero_point():
    x, quantizer = f32([0.5, 1.5]), after(1, 3, 8, False)
    assert quantize_to_integers(x, quantizer).tolist() == [3, 5]
    first = IntQuant(f32(1), f32(3), f32(8), False)
    assert quantize_to_integers(x, first).tolist() == [4, 4]


def test_a_zero_point_of_zero_has_one_order():
    assert not after(1, 0, 8, True).zero_point_after_rounding
    assert after(1, 0, 8, True) == IntQuant(f32(1), f32(0), f32(8), True)


@pytest.mark.parametrize(
    ("zero", "given", "kept"), [(3, 1, True), (3, 0, False), (0, 1, False)]
)
def test_a_file_keeps_the_order_only_where_it_says_something(zero, given, kept):
    weights = {"s": f32(0.5), "z": f32(zero), "b": f32(8)}
    found = model([quant(zero_point_after_rounding=given)], weights=weights)
    assert NormalizeDialect()(found).modified != kept
    assert (ORDER in attributes(node_of(found, "Quant"))) == kept


def test_the_order_is_part_of_the_description():
    assert describe_quantizer(after(1, 3, 8, False)) == "uint8, zero point 3 after rounding"


def test_a_broken_zero_point_cannot_be_added_after_rounding():
    weights = {"s": f32(0.5), "z": f32(0.5), "b": f32(8)}
    (issue,) = verify(loaded(proto([quant(zero_point_after_rounding=1)], weights=weights)))
    assert issue.rule == f"'{ORDER}' needs whole zero points"


def test_two_levels_have_no_order():
    weights = {"s": f32(0.5), "z": f32(1), "b": f32(1)}
    (issue,) = verify(loaded(proto([quant(zero_point_after_rounding=1)], weights=weights)))
    assert issue.rule == f"one signed bit is not rounded; remove '{ORDER}'"


def ordered(scale: float, zero: float, **changes) -> onnx.ModelProto:
    node = quant(signed=0, zero_point_after_rounding=1, **changes)
    weights = {"s": f32(scale), "z": f32(zero), "b": f32(8)}
    return proto([node], [info("x", [1, 3, None])], [info("y", [1, 3, None])], weights)


def ordered_feeds(scale: float, zero: int) -> dict[str, np.ndarray]:
    x = beside_ties(scale, zero, 8, False)
    return {"x": np.broadcast_to(x, (1, 3, x.size)).copy()}


def test_extract_scale_leaves_the_zero_point_in_the_quantizer():
    before, changed = transformed(ordered(0.3, 5), ExtractScale())
    assert operators(changed) == ["Div", "Quant", "Mul"]
    assert_equal(before, changed, ordered_feeds(0.3, 5))


def test_spelled_out_rounding_does_not_add_the_zero_point_first():
    before, changed = transformed(ordered(0.25, 5, rounding_mode="DPU"), SpellOutRounding())
    assert "Add" not in operators(changed)
    assert_equal(before, changed, ordered_feeds(0.25, 5))


@pytest.mark.parametrize("zero", [4, 5])
def test_thresholds_hold_the_order_and_give_it_back(zero):
    before, counted = transformed(ordered(0.3, zero), QuantToMultithreshold())
    assert_equal(before, counted, ordered_feeds(0.3, zero))
    _, again = transformed(counted, MultithresholdToQuant())
    read = dialect.read_quantizer(node_of(again, "Quant"))
    assert isinstance(read, IntQuant)
    assert read.zero_point_after_rounding
    assert read.rounding is Rounding.ROUND
