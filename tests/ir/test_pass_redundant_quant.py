"""RemoveRedundantQuant: only what is proven to change no value goes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import qonnx_hub as qh
from qonnx_hub_ir.passes import RemoveRedundantQuant
from tests.ir.graphs import BARE, DOMAIN, f32, i64, info, operators, proto, quant
from tests.ir.pass_kit import around_ties, assert_equal, assert_left_alone, loaded, transformed

WEIGHTS = {
    "s": f32(0.5),
    "z": f32(0),
    "b": f32(4),
    "b8": f32(8),
    "b2": f32(2),
    "third": f32(0.3),
}
X = around_ties(0.5, -8, 7)[np.newaxis]
SHAPE = list(X.shape)


def chain(*nodes, weights=None, shape=SHAPE):
    constants = WEIGHTS | (weights or {})
    return proto(list(nodes), [info("x", shape)], [info("y", None)], constants)


def first(**changes):
    return quant("x", "t", "first", **changes)


def second(x="t", **changes):
    return quant(x, "y", "second", **changes)


def test_the_same_quantizer_twice_is_one():
    before, after = transformed(chain(first(), second()), RemoveRedundantQuant())
    assert [node.name for node in after.graph] == ["first"]
    assert [value.name for value in after.graph.outputs] == ["y"]
    assert_equal(before, after, {"x": X})


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": ("s", "z", "b8")},
        {"inputs": ("half", "z", "b8")},
        {"rounding_mode": "FLOOR"},
    ],
)
def test_a_finer_or_wider_grid_that_holds_all_levels_changes_nothing(changes):
    source = chain(first(), second(**changes), weights={"half": f32(0.25)})
    before, after = transformed(source, RemoveRedundantQuant())
    assert operators(after) == ["Quant"]
    assert_equal(before, after, {"x": X})


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": ("s", "z", "b2")},
        {"inputs": ("third", "z", "b8")},
        {"signed": 0},
        {"narrow": 1},
        {"op": "BipolarQuant", "inputs": ("s",), **BARE},
    ],
)
def test_a_quantizer_that_moves_a_level_stays(changes):
    assert_left_alone(chain(first(), second(**changes)), RemoveRedundantQuant())


def test_equal_quantizers_are_not_always_idempotent():
    # float32: 0.1f * 3 / 0.1f is 3 rounded down at some level, and FLOOR takes the one below.
    scale = np.float32(0.1)
    levels = np.arange(-128, 128, dtype=np.float32) * scale
    again = np.floor(levels / scale) * scale
    assert np.count_nonzero(again != levels) > 0
    nodes = [first(rounding_mode="FLOOR"), second(rounding_mode="FLOOR")]
    source = chain(*nodes, weights={"s": f32(0.1), "b": f32(8)})
    assert_left_alone(source, RemoveRedundantQuant())


def test_rounding_to_nearest_with_any_scale_is_idempotent():
    source = chain(first(), second(), weights={"s": f32(0.1), "b": f32(8)})
    _, after = transformed(source, RemoveRedundantQuant())
    assert operators(after) == ["Quant"]


MOVES = {
    "Relu": (["Relu"], {}, {}),
    "Relu and Flatten": (["Relu", "Flatten"], {}, {}),
    "Reshape": (["Reshape"], {"shape": i64([-1])}, {}),
    "Transpose": (["Transpose"], {}, {"perm": [1, 0]}),
    "Flatten": (["Flatten"], {}, {"axis": 0}),
    "Clip": (["Clip"], {"low": f32(-1.5), "high": f32(2)}, {}),
}


@pytest.mark.parametrize("name", MOVES)
def test_levels_are_followed_through_what_chooses_and_moves_values(name):
    operators_between, weights, attributes = MOVES[name]
    nodes, value = [first()], "t"
    for place, op in enumerate(operators_between):
        extra = list(weights) if place == 0 else []
        kept = attributes if place == 0 else {}
        nodes.append(helper.make_node(op, [value, *extra], [f"v{place}"], **kept))
        value = f"v{place}"
    source = chain(*nodes, second(value), weights=weights)
    before, after = transformed(source, RemoveRedundantQuant())
    assert operators(after) == ["Quant", *operators_between]
    assert_equal(before, after, {"x": X})


def test_the_negative_of_the_lowest_level_is_out_of_range():
    nodes = [helper.make_node("Neg", ["t"], ["n"]), second("n")]
    assert_left_alone(chain(first(), *nodes), RemoveRedundantQuant())
    _, after = transformed(chain(first(narrow=1), *nodes), RemoveRedundantQuant())
    assert operators(after) == ["Quant", "Neg"]


def test_relu_makes_room_for_an_unsigned_quantizer():
    # -8 to 7 becomes 0 to 7, which 3 unsigned bits hold.
    nodes = [first(), helper.make_node("Relu", ["t"], ["r"])]
    last = second("r", signed=0, inputs=("s", "z", "three"))
    source = chain(*nodes, last, weights={"three": f32(3)})
    before, after = transformed(source, RemoveRedundantQuant())
    assert operators(after) == ["Quant", "Relu"]
    assert_equal(before, after, {"x": X})


def test_a_limit_beside_the_grid_keeps_the_quantizer():
    clip = helper.make_node("Clip", ["t", "low"], ["c"])
    source = chain(first(), clip, second("c"), weights={"low": f32(0.3)})
    assert_left_alone(source, RemoveRedundantQuant())


def images(*nodes, weights):
    return chain(*nodes, weights=weights, shape=[1, 3, 4, 4])


SCALES = {"s": f32([0.5, 0.25, 1]).reshape(1, 3, 1, 1), "b": f32(4), "z": f32(0)}
IMAGE = np.random.default_rng(0).normal(0, 4, size=(1, 3, 4, 4)).astype(np.float32)


def test_channels_keep_their_scales_through_pooling():
    pool = helper.make_node("MaxPool", ["t"], ["p"], kernel_shape=[2, 2])
    before, after = transformed(
        images(first(), pool, second("p"), weights=SCALES), RemoveRedundantQuant()
    )
    assert operators(after) == ["Quant", "MaxPool"]
    assert_equal(before, after, {"x": IMAGE})


def test_channels_that_change_places_do_not_keep_their_scales():
    turn = helper.make_node("Transpose", ["t"], ["p"], perm=[0, 2, 1, 3])
    weights = SCALES | {"s2": f32([0.5, 0.25, 1, 1]).reshape(1, 4, 1, 1)}
    source = images(first(), turn, second("p", inputs=("s2", "z", "b")), weights=weights)
    assert_left_alone(source, RemoveRedundantQuant())


def test_an_average_leaves_the_grid():
    pool = helper.make_node("AveragePool", ["t"], ["p"], kernel_shape=[2, 2])
    assert_left_alone(
        images(first(), pool, second("p"), weights=SCALES), RemoveRedundantQuant()
    )


def test_a_joined_tensor_needs_the_grids_of_all_parts():
    join = helper.make_node("Concat", ["t", "u"], ["c"], axis=1)
    fits = [first(), quant("x", "u", "other", inputs=("s", "z", "b2")), join, second("c")]
    before, after = transformed(chain(*fits), RemoveRedundantQuant())
    assert operators(after) == ["Quant", "Quant", "Concat"]
    assert_equal(before, after, {"x": X})
    apart = [first(), quant("x", "u", "other", inputs=("third", "z", "b2")), join, second("c")]
    assert_left_alone(chain(*apart), RemoveRedundantQuant())


def test_padding_adds_a_level():
    pad = helper.make_node("Pad", ["t", "pads", "number"], ["p"])
    pads = {"pads": i64([0, 1, 0, 1])}
    on_grid = chain(first(), pad, second("p"), weights=pads | {"number": f32(-1)})
    _, after = transformed(on_grid, RemoveRedundantQuant())
    assert operators(after) == ["Quant", "Pad"]
    beside = chain(first(), pad, second("p"), weights=pads | {"number": f32(0.2)})
    assert_left_alone(beside, RemoveRedundantQuant())


def test_the_quantizer_of_a_weight_stays():
    # It says what is stored, even where the floats lie on its grid.
    nodes = [quant("w", "wq", "weight"), helper.make_node("MatMul", ["x", "wq"], ["y"])]
    weights = WEIGHTS | {"w": f32([[0.5], [1.0]])}
    source = proto(nodes, [info("x", [1, 2])], [info("y", [1, 1])], weights)
    assert_left_alone(source, RemoveRedundantQuant())


def test_a_quantizer_of_unknown_values_stays():
    assert_left_alone(chain(second("x")), RemoveRedundantQuant())


def test_a_scale_computed_at_run_time_stays():
    source = proto(
        [first(), second(inputs=("scale", "z", "b"))],
        [info("x", SHAPE), info("scale", [])],
        [info("y", None)],
        WEIGHTS,
    )
    assert_left_alone(source, RemoveRedundantQuant())


def test_half_precision_is_left_alone():
    half = TensorProto.FLOAT16
    source = proto(
        [first(), second()], [info("x", [4], half)], [info("y", [4], half)], WEIGHTS
    )
    assert_left_alone(source, RemoveRedundantQuant())


def test_a_sign_behind_a_quantizer_with_two_levels_goes():
    signs = [
        quant("x", "t", "first", op="BipolarQuant", inputs=("s",), **BARE),
        quant("t", "y", "second", op="BipolarQuant", inputs=("s",), **BARE),
    ]
    assert all(node.domain == DOMAIN for node in signs)
    before, after = transformed(chain(*signs), RemoveRedundantQuant())
    assert operators(after) == ["BipolarQuant"]
    assert_equal(before, after, {"x": X})


def test_resized_channels_do_not_keep_their_scales():
    grow = helper.make_node("Resize", ["t", "", "factors"], ["p"], mode="nearest")
    scales = f32([0.5, 0.25, 1, 1, 1, 1]).reshape(1, 6, 1, 1)
    weights = SCALES | {"s2": scales, "factors": f32([1, 2, 1, 1])}
    last = second("p", inputs=("s2", "z", "b"))
    assert_left_alone(images(first(), grow, last, weights=weights), RemoveRedundantQuant())


def cropped(beyond):
    crop = helper.make_node(
        *("Resize", ["t", "roi", "", "sizes"], ["p"]),
        mode="nearest",
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=beyond,
    )
    weights = {"roi": f32([0, 0, 1, 2]), "sizes": i64([1, 4])}
    return chain(first(), crop, second("p"), weights=weights)


def test_a_crop_beyond_the_image_adds_a_level():
    _, after = transformed(cropped(1.0), RemoveRedundantQuant())
    assert operators(after) == ["Quant", "Resize"]
    assert_left_alone(cropped(0.3), RemoveRedundantQuant())


QUANTIZERS = st.tuples(
    st.sampled_from([0.1, 0.25, 0.3, 0.5, 0.75, 1.0]),
    st.sampled_from([0.0, 1.0, 0.5]),
    st.integers(1, 6),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["ROUND", "FLOOR", "CEIL", "UP", "DOWN", "HALF_UP", "HALF_DOWN"]),
)


@settings(max_examples=150)
@given(QUANTIZERS, QUANTIZERS)
def test_a_quantizer_that_goes_changed_no_level(one, other):
    nodes, weights = [], {}
    for name, x, y, drawn in (("first", "x", "t", one), ("second", "t", "y", other)):
        scale, zero, bits, signed, narrow, mode = drawn
        inputs = tuple(f"{name}_{part}" for part in "szb")
        weights |= dict(zip(inputs, map(f32, (scale, zero, bits)), strict=True))
        flags = {"signed": int(signed), "narrow": int(narrow and bits > 1)}
        nodes.append(quant(x, y, name, inputs=inputs, rounding_mode=mode, **flags))
    before = loaded(chain(*nodes, weights=weights, shape=[1, None]))
    after = before.clone()
    points = around_ties(one[0], -33, 64, one[1])[np.newaxis]
    wanted = qh.run(before, {"x": points})["y"]
    changed = RemoveRedundantQuant()(after).modified
    levels = qh.run(before, {"x": points}, all_tensors=True)["t"]
    # Every level of the first quantizer was met: the second one changes none, or it stays.
    assert changed == np.array_equal(levels, wanted)
    np.testing.assert_array_equal(qh.run(after, {"x": points})["y"], wanted)
