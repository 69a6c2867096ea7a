"""Quantizers as counted thresholds, and back; the qonnx package counts as well."""

from __future__ import annotations

import warnings

import numpy as np
import onnx_ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

import qonnx_hub as qh
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.passes import MultithresholdToQuant, QuantToMultithreshold
from qonnx_hub_ir.quantizers import BipolarQuant, IntQuant, Rounding
from qonnx_hub_ir.thresholds import apply, channel_axis, find_thresholds, key_range, values_of
from qonnx_hub_ir.validity import verify
from tests.ir.graphs import (
    BARE,
    DOMAIN,
    f32,
    info,
    node_of,
    operators,
    proto,
    quant,
)
from tests.ir.pass_kit import around_ties, assert_equal, assert_left_alone, loaded, transformed

MODES = [str(mode) for mode in Rounding]


def activation(quantizer, shape=(1, 3, None), **weights):
    values = {"s": f32(0.5), "z": f32(0), "b": f32(3)} | weights
    return proto([quantizer], [info("x", shape)], [info("y", shape)], values)


def ties(scale: float, zero: float = 0.0) -> dict[str, np.ndarray]:
    values = around_ties(scale, -16, 16, zero)
    return {"x": np.broadcast_to(values, (1, 3, values.size)).copy()}


def on_qonnx(found: onnx_ir.Model, **feeds: np.ndarray) -> np.ndarray:
    """What the qonnx package computes."""
    pytest.importorskip("qonnx", reason="the qonnx package counts thresholds independently")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.core.onnx_exec import execute_onnx
        from qonnx.transformation.infer_shapes import InferShapes

        wrapped = ModelWrapper(onnx_ir.to_proto(found))
        for name, array in feeds.items():
            wrapped.set_tensor_shape(name, list(array.shape))
            wrapped.set_tensor_shape("y", list(array.shape))
        (output,) = execute_onnx(wrapped.transform(InferShapes()), dict(feeds)).values()
    return output


# The numbers


def test_the_thresholds_of_a_small_quantizer_are_its_ties():
    # 2 bits, scale 1, ties to even: -0.5 rounds to 0, so that 0 begins there; -1.5 rounds to
    # -2, so that -1 begins at the float behind it; 0.5 rounds to 0.
    quantizer = IntQuant(f32(1), f32(0), f32(2))
    found = find_thresholds(quantizer, -2, 3)
    above = np.nextafter(f32([-1.5, 0.5]), np.float32(np.inf))
    assert found.tolist() == [[above[0], -0.5, above[1]]]


def test_a_level_that_only_infinity_reaches_begins_there():
    quantizer = IntQuant(f32(2e38), f32(0), f32(3))
    found = find_thresholds(quantizer, -4, 7)
    assert found[0, -1] == np.inf
    assert np.all(np.diff(found[0]) >= 0)


@pytest.mark.parametrize("mode", MODES)
def test_a_threshold_is_the_smallest_float_of_its_level(mode):
    quantizer = IntQuant(f32(0.3), f32(0.4), f32(3), rounding=Rounding(mode))
    found = find_thresholds(quantizer, -4, 7)[0]
    before = np.nextafter(found, np.float32(-np.inf))
    codes = qh.ir.quantize_to_integers(np.stack([before, found]), quantizer)
    assert codes.tolist() == [list(range(-4, 3)), list(range(-3, 4))]


def test_the_keys_of_floats_span_all_of_them():
    low, high = key_range(np.float32)
    ends = values_of(np.array([low, -1, 0, 1, high], dtype=np.int64))
    smallest = np.float32(2.0**-149)
    assert ends.tolist() == [-np.inf, 0.0, 0.0, smallest, np.inf]
    assert np.signbit(ends).tolist() == [True, True, False, False, False]


def test_counting_takes_thresholds_in_any_order_and_nan_reaches_none():
    x = f32([[-1, 0, 0.5, 3, np.nan, np.inf]])
    found = apply(x, f32([[2, 0, np.inf]]), 1, 2.0, -1.0)
    assert found.tolist() == [[-1, 1, 1, 3, -1, 5]]
    assert found.dtype == np.float32


def test_thresholds_of_another_number_of_channels_are_refused():
    with pytest.raises(ValueError, match="2 channels of thresholds, 3 in the input"):
        apply(np.zeros((1, 3), np.float32), np.zeros((2, 4), np.float32), 1, 1.0, 0.0)


@pytest.mark.parametrize(
    ("layout", "rank", "axis"),
    [("", 2, 1), ("", 3, 2), ("", 4, 1), ("NHWC", 4, 3), ("NCHW", 4, 1), ("", 5, 1)],
)
def test_the_channels_are_where_the_qonnx_package_looks_for_them(layout, rank, axis):
    assert channel_axis(layout, rank) == axis


def test_a_layout_without_such_an_axis_is_refused():
    with pytest.raises(ValueError, match="no channels in an input of rank 2"):
        channel_axis("NHWC", 2)


def counting(shape, table, **attributes):
    node = helper.make_node(
        "MultiThreshold", ["x", "t"], ["y"], name="m", domain=DOMAIN, **attributes
    )
    return proto([node], [info("x", shape)], [info("y", None)], {"t": table})


@pytest.mark.parametrize("layout", ["", "NCHW", "NHWC"])
@pytest.mark.parametrize("rank", [2, 3, 4])
def test_the_executor_counts_as_the_qonnx_package_does(layout, rank):
    layout = layout if rank == 4 else ""
    rng = np.random.default_rng(rank)
    shape = (2, 3, 4, 5)[:rank]
    channels = shape[channel_axis(layout, rank)]
    table = np.sort(rng.normal(size=(channels, 6)).astype(np.float32), axis=1)
    x = np.concatenate([rng.normal(size=60), table.reshape(-1)]).astype(np.float32)
    x = np.resize(x, shape)
    given = {"data_layout": layout} if layout else {}
    given |= {"out_dtype": "INT4", "out_scale": 0.7, "out_bias": -2.1}
    found = loaded(counting(shape, table, **given))
    assert verify(found) == []
    np.testing.assert_array_equal(qh.run(found, {"x": x})["y"], on_qonnx(found, x=x))


# Quant -> MultiThreshold


CASES = [
    (quant(), {}),
    (quant(narrow=1), {}),
    (quant(signed=0), {"b": f32(4)}),
    (quant(signed=0, narrow=1), {}),
    (quant(), {"s": f32(0.3), "b": f32(8)}),
    (quant(signed=0), {"z": f32(3), "s": f32(0.3)}),
    (quant(), {"z": f32(0.4)}),
    (quant(), {"s": f32(1)}),
    (quant(signed=0), {"b": f32(1)}),
    (quant(), {"b": f32(1), "s": f32(3)}),
    (quant(op="BipolarQuant", inputs=("s",), **BARE), {}),
    (quant(), {"s": f32([0.5, 0.3, 1]).reshape(3, 1)}),
    (quant(signed=0), {"z": f32([0, 3, 1.5]).reshape(1, 3, 1), "s": f32(0.7)}),
    *[(quant(rounding_mode=mode), {"s": f32(0.3)}) for mode in MODES],
]


@pytest.mark.parametrize(("quantizer", "weights"), CASES)
def test_thresholds_give_the_very_same_function(quantizer, weights):
    before, after = transformed(activation(quantizer, **weights), QuantToMultithreshold())
    assert operators(after)[0] == "MultiThreshold"
    assert set(operators(after)[1:]) <= {"Sub", "Mul"}
    for scale in np.unique(weights.get("s", f32(0.5))):
        for zero in np.unique(weights.get("z", f32(0))):
            assert_equal(before, after, ties(float(scale), float(zero)))


@pytest.mark.parametrize(("quantizer", "weights"), CASES)
def test_a_quantizer_comes_back_as_it_was(quantizer, weights):
    steps = (QuantToMultithreshold(), MultithresholdToQuant())
    before, after = transformed(activation(quantizer, **weights), *steps)
    (old,), (new,) = list(before.graph), list(after.graph)
    found, given = dialect.read_quantizer(new), dialect.read_quantizer(old)
    if isinstance(given, BipolarQuant):
        assert isinstance(found, BipolarQuant)
        assert found.scale.tolist() == given.scale.tolist()
    else:
        assert _same_function(found, given)
    assert (new.name, new.outputs[0].name) == (old.name, "y")
    assert_equal(before, after, ties(float(np.max(weights.get("s", 0.5)))))


def _same_function(found: IntQuant, given: IntQuant) -> bool:
    """Equal parameters; another rounding mode only where these bits cannot tell."""
    for name in ("scale", "zero_point", "bits"):
        assert np.array_equal(getattr(found, name), getattr(given, name)), name
    assert (found.signed, found.narrow) == (given.signed, given.narrow)
    points = ties(float(np.max(given.scale)))["x"]
    assert np.array_equal(qh.ir.quantize(points, found), qh.ir.quantize(points, given))
    return True


def test_the_qonnx_package_computes_the_same_from_the_thresholds():
    source = activation(
        quant(), shape=(1, 3, 1, None), s=f32([0.5, 0.3, 1]).reshape(1, 3, 1, 1)
    )
    before, after = transformed(source, QuantToMultithreshold())
    values = around_ties(0.3, -8, 8)
    x = np.broadcast_to(values, (1, 3, 1, values.size)).copy()
    np.testing.assert_array_equal(on_qonnx(after, x=x), qh.run(before, {"x": x})["y"])


def test_the_attributes_are_those_that_the_qonnx_package_reads():
    _, after = transformed(activation(quant(), shape=(1, 3, 4, 4)), QuantToMultithreshold())
    node = node_of(after, "MultiThreshold")
    given = {name: attr.value for name, attr in node.attributes.items()}
    assert given == {
        "out_dtype": "INT3",
        "out_scale": 1.0,
        "out_bias": -4.0,
        "data_layout": "NCHW",
    }
    assert node.inputs[1].const_value.shape == (1, 7)


def test_channels_at_the_end_have_their_layout():
    source = activation(quant(), shape=(1, 4, 4, 3), s=f32([0.5, 0.25, 1]))
    before, after = transformed(source, QuantToMultithreshold())
    assert node_of(after, "MultiThreshold").attributes["data_layout"].value == "NHWC"
    x = np.random.default_rng(0).normal(size=(1, 4, 4, 3)).astype(np.float32)
    assert_equal(before, after, {"x": x})


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (activation(quant(), shape=(4,)), "no axis of channels"),
        (activation(quant(), b=f32(9)), "more than 8 bits"),
        (activation(quant(), shape=(1, 3, 2, 2), s=f32([1, 2]).reshape(2, 1)), "another axis"),
        (activation(quant(), b=f32([3, 3, 4]).reshape(3, 1)), "bits differ"),
        (
            proto(
                [quant("w")],
                weights={
                    "w": np.ones((2, 3), np.float32),
                    "s": f32(1),
                    "z": f32(0),
                    "b": f32(4),
                },
            ),
            "a constant",
        ),
        (
            proto(
                [quant()],
                [info("x", [2, 3]), info("s", [])],
                weights={"z": f32(0), "b": f32(4)},
            ),
            "a scale computed at run time",
        ),
    ],
)
def test_what_thresholds_cannot_say_stays(source, why):
    assert_left_alone(source, QuantToMultithreshold())


def test_more_bits_are_taken_where_they_are_asked_for():
    source = activation(quant(), b=f32(9))
    before, after = transformed(source, QuantToMultithreshold(max_bits=9))
    assert_equal(before, after, {"x": ties(0.5)["x"] * 16})


def test_a_table_that_nobody_can_store_is_refused():
    with pytest.raises(onnx_ir.passes.PreconditionError) as caught:
        QuantToMultithreshold(max_bits=40)(loaded(activation(quant())))
    assert isinstance(caught.value.__cause__, PassError)


# MultiThreshold -> Quant


def test_thresholds_beside_the_ties_are_no_quantizer():
    # What FINN computes: halves reached from below, where ties go to even.
    table = f32([np.arange(-3.5, 3.5)])
    table[0, 2] += 0.25
    source = counting((1, 3, 4), table, out_dtype="INT3", out_bias=-4.0)
    assert_left_alone(source, MultithresholdToQuant())


def test_thresholds_at_whole_numbers_round_down():
    # x >= k for k = 1 .. 7: the levels of 3 unsigned bits, each from its number on.
    source = counting((1, 3, 4), f32([np.arange(1, 8)]), out_dtype="UINT3")
    before, after = transformed(source, MultithresholdToQuant())
    found = dialect.read_quantizer(after.graph[0])
    assert isinstance(found, IntQuant)
    assert (found.signed, found.rounding, found.bits.tolist()) == (False, Rounding.FLOOR, 3)
    x = np.resize(around_ties(1.0, -1, 8), (1, 3, 40))
    assert_equal(before, after, {"x": x[..., :4]})
    assert_equal(before, after, {"x": x[..., 20:24]})


def test_a_scale_that_is_not_the_quantizers_stays_a_product():
    # The thresholds are those of scale 1; the factor behind belongs to something else.
    source = counting((1, 3, 4), f32([np.arange(1, 8)]), out_dtype="UINT3")
    source.graph.node[0].output[0] = "m"
    source.graph.node.append(helper.make_node("Mul", ["m", "f"], ["y"]))
    source.graph.initializer.append(numpy_helper.from_array(f32(0.3), "f"))
    before, after = transformed(source, MultithresholdToQuant())
    assert operators(after) == ["Quant", "Mul"]
    assert_equal(
        before, after, {"x": np.linspace(-1, 9, 12, dtype=np.float32).reshape(1, 3, 4)}
    )


def test_thresholds_with_a_fractional_bias_stay():
    table = f32([np.arange(0.5, 7.5)])
    source = counting((1, 3, 4), table, out_dtype="INT4", out_bias=0.5)
    assert_left_alone(source, MultithresholdToQuant())


@pytest.mark.parametrize(
    ("attributes", "table", "rule"),
    [
        ({}, f32([[1]]), "required attribute 'out_dtype' is missing"),
        ({"out_dtype": "INT2", "speed": 1}, f32([[1]]), "unknown attribute 'speed'"),
        ({"out_dtype": "INT2"}, f32([1]), "thresholds have shape (1,), not (channels, steps)"),
    ],
)
def test_a_malformed_node_breaks_a_rule(attributes, table, rule):
    found = onnx_ir.from_proto(counting((1, 3), table, **attributes))
    assert rule in [issue.rule for issue in verify(found)]


@settings(max_examples=100)
@given(
    st.floats(2.0**-20, 2.0**20, width=32),
    st.floats(-20, 20, width=32),
    st.integers(1, 6),
    st.booleans(),
    st.booleans(),
    st.sampled_from(list(Rounding)),
    st.integers(0, 2**32 - 1),
)
def test_counting_equals_quantizing_for_any_parameters(
    scale, zero, bits, signed, narrow, mode, seed
):
    narrow = narrow and bits > 1
    quantizer = IntQuant(f32(scale), f32(zero), f32(bits), signed, narrow, mode)
    low = -(2 ** (bits - 1)) + narrow if signed else 0
    steps = 2**bits - 1 - narrow
    table = find_thresholds(quantizer, -1 if signed and bits == 1 else low, steps)
    rng = np.random.default_rng(seed)
    anything = rng.integers(0, 2**32, size=200, dtype=np.uint32).view(np.float32)
    near = (rng.normal(0, 40, size=200) * scale).astype(np.float32)
    edges = np.concatenate([table[0], np.nextafter(table[0], np.float32(-np.inf))])
    x = np.concatenate([anything, near, edges, f32([-np.inf, np.inf, 0.0, -0.0])])
    x = x[~np.isnan(x)][np.newaxis]
    counted = apply(x, table, 1, 1.0, 0.0)
    codes = qh.ir.quantize_to_integers(x, quantizer)
    # One signed bit has the codes -1 and +1.
    first, width = (-1, 2) if signed and bits == 1 else (low, 1)
    np.testing.assert_array_equal(first + width * counted, codes)
