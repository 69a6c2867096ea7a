"""Layers that are written in another way are proven equal; near misses are not."""

from __future__ import annotations

import numpy as np
import pytest
from onnx.helper import make_node

from qonnx_hub.equivalence.proof.prove import prove_models
from qonnx_hub_adapters.onnx_reader import read_model
from tests.support import DOMAIN, model_of, quant_node

FLOAT = np.float32
RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(4, 3, 3, 3)).astype(FLOAT)
BIAS = np.array([1.0, -2.0, 0.5, 3.0], dtype=FLOAT)


def model(nodes, shape, arrays=None):
    return read_model(model_of(nodes, {"x": shape}, ["y"], arrays or {}))


def is_proven(nodes, others, shape, arrays=None, theirs=None):
    first = model(nodes, shape, arrays)
    second = model(others, shape, arrays if theirs is None else theirs)
    found = prove_models(first, second, search=False)
    assert prove_models(second, first, search=False).proven == found.proven
    return found.proven


def conv(*inputs, to="y", **attributes):
    return make_node("Conv", list(inputs), [to], pads=[1, 1, 1, 1], **attributes)


def add(x="c", bias="b"):
    return make_node("Add", [x, bias], ["y"])


BESIDE = {"w": WEIGHT, "b": BIAS}
BEHIND = {"w": WEIGHT, "b": BIAS.reshape(1, 4, 1, 1)}
IMAGE = (1, 3, 5, 5)


def test_a_bias_of_a_convolution_is_an_addition_behind_it():
    pair = [conv("x", "w", "b")], [conv("x", "w", to="c"), add()]
    assert is_proven(*pair, IMAGE, BESIDE, BEHIND)


def test_a_bias_of_zeros_is_no_bias():
    held = BESIDE | {"b": np.zeros(4, dtype=FLOAT)}
    assert is_proven([conv("x", "w", "b")], [conv("x", "w")], IMAGE, held, {"w": WEIGHT})


def test_another_bias_behind_is_not_proven():
    moved = {"w": WEIGHT, "b": (BIAS + FLOAT(1)).reshape(1, 4, 1, 1)}
    pair = [conv("x", "w", "b")], [conv("x", "w", to="c"), add()]
    assert not is_proven(*pair, IMAGE, BESIDE, moved)


def test_a_bias_along_another_axis_is_not_proven():
    nodes = [conv("x", "w", "b", dilations=[1, 1])]
    others = [conv("x", "w", to="c"), add()]
    wrong = {"w": WEIGHT, "b": BIAS.reshape(1, 1, 1, 4)}
    assert not is_proven(nodes, others, (1, 3, 4, 4), BESIDE, wrong)


NEUTRAL = [("Mul", 1.0, True), ("Div", 1.0, True), ("Add", 0.0, True), ("Sub", 0.0, True)]
NEUTRAL += [("Mul", 0.0, False), ("Div", 2.0, False), ("Add", 1e-30, False)]


@pytest.mark.parametrize(("operator", "number", "same"), NEUTRAL)
def test_only_a_neutral_operand_changes_nothing(operator, number, same):
    nodes = [make_node(operator, ["x", "c"], ["t"]), make_node("Softmax", ["t"], ["y"])]
    others = [make_node("Softmax", ["x"], ["y"])]
    held = {"c": np.full((1, 3), number, dtype=FLOAT)}
    assert is_proven(nodes, others, (2, 3), held, {}) is same


@pytest.mark.parametrize("operator", ["Sub", "Div"])
def test_a_neutral_number_on_the_left_is_not_neutral(operator):
    number = FLOAT(0 if operator == "Sub" else 1)
    nodes = [make_node(operator, ["c", "x"], ["t"]), make_node("Softmax", ["t"], ["y"])]
    others = [make_node("Softmax", ["x"], ["y"])]
    assert not is_proven(nodes, others, (2, 3), {"c": number}, {})


def test_ones_that_enlarge_are_not_neutral():
    nodes = [make_node("Mul", ["x", "c"], ["t"]), make_node("ReduceSum", ["t"], ["y"])]
    others = [make_node("ReduceSum", ["x"], ["y"])]
    assert not is_proven(nodes, others, (1, 3), {"c": np.ones((2, 3), dtype=FLOAT)}, {})


MOVES = [
    ("Transpose", {}, {"perm": [0, 1]}, True),
    ("Transpose", {}, {"perm": [1, 0]}, False),
    ("Slice", {"starts": [0, 0], "ends": [3, 3], "axes": [0, 1], "steps": [1, 1]}, {}, True),
    (
        "Slice",
        {"starts": [2, 0], "ends": [-9, 3], "axes": [0, 1], "steps": [-1, 1]},
        {},
        False,
    ),
    ("Expand", {"shape": [3, 3]}, {}, True),
    ("Expand", {"shape": [1, 3, 3]}, {}, False),
    ("Pad", {"pads": [0, 0, 0, 0]}, {}, True),
    ("Pad", {"pads": [1, 0, -1, 0]}, {}, False),
]


@pytest.mark.parametrize(("operator", "given", "attributes", "same"), MOVES)
def test_a_movement_that_keeps_every_element_is_nothing(operator, given, attributes, same):
    held = {name: np.array(values, dtype=np.int64) for name, values in given.items()}
    nodes = [
        make_node(operator, ["x", *held], ["t"], **attributes),
        make_node("Softmax", ["t"], ["y"]),
    ]
    others = [make_node("Softmax", ["x"], ["y"])]
    assert is_proven(nodes, others, (3, 3), held, {}) is same


@pytest.mark.parametrize(("axes", "same"), [([-1], True), ([2], True), ([0, 2], False)])
def test_a_reduction_is_known_by_its_axes(axes, same):
    nodes = [make_node("ReduceSum", ["x", "axes"], ["y"])]
    held = {"axes": np.array(axes, dtype=np.int64)}
    theirs = {"axes": np.array([2], dtype=np.int64)}
    assert is_proven(nodes, nodes, (2, 3, 4), held, theirs) is same


@pytest.mark.parametrize(("keep", "same"), [(1, True), (0, False)])
def test_a_reduction_that_drops_its_axes_is_another(keep, same):
    nodes = [make_node("ReduceSum", ["x"], ["y"])]
    others = [make_node("ReduceSum", ["x"], ["y"], keepdims=keep)]
    assert is_proven(nodes, others, (2, 3)) is same


def test_no_axes_are_all_axes_unless_they_mean_nothing():
    every = {"axes": np.array([0, 1], dtype=np.int64)}
    named = [make_node("ReduceSum", ["x", "axes"], ["y"])]
    nothing = [make_node("ReduceSum", ["x"], ["y"], noop_with_empty_axes=1)]
    assert is_proven([make_node("ReduceSum", ["x"], ["y"])], named, (2, 3), {}, every)
    assert not is_proven(nothing, named, (2, 3), {}, every)


@pytest.mark.parametrize(("alpha", "same"), [(1 / 6, True), (0.2, False)])
def test_hard_swish_is_a_product_with_a_hard_sigmoid(alpha, same):
    others = [
        make_node("HardSigmoid", ["x"], ["t"], alpha=alpha, beta=0.5),
        make_node("Mul", ["x", "t"], ["y"]),
    ]
    assert is_proven([make_node("HardSwish", ["x"], ["y"])], others, (2, 3)) is same


def thresholds(**attributes):
    given = {"out_dtype": "INT4", "out_scale": 0.5, "out_bias": -4.0, **attributes}
    return make_node("MultiThreshold", ["x", "t"], ["y"], domain=DOMAIN, **given)


QUANT = {"s": FLOAT(0.5), "z": FLOAT(0), "b": FLOAT(4)}
# Round half to even: code n begins at n - 1/2 for even n, right behind it for odd n.
STEPS = np.array(
    [
        FLOAT(0.5 * (code - 0.5))
        if code % 2 == 0
        else np.nextafter(FLOAT(0.5 * (code - 0.5)), FLOAT(np.inf))
        for code in range(-7, 8)
    ],
    dtype=FLOAT,
).reshape(1, -1)


def test_thresholds_of_a_quantizer_are_the_quantizer_but_for_nan():
    first = model([quant_node("x", "y")], (1, 3), QUANT)
    second = model([thresholds()], (1, 3), {"t": STEPS})
    found = prove_models(first, second, search=False)
    assert found.proven
    assert found.inputs.startswith("every input on which no NaN reaches")


def test_one_threshold_an_ulp_off_is_refuted():
    moved = STEPS.copy()
    moved[0, 3] = np.nextafter(moved[0, 3], FLOAT(np.inf))
    nodes = [quant_node("x", "y")], [thresholds()]
    assert not is_proven(*nodes, (1, 3), QUANT, {"t": moved})


@pytest.mark.parametrize(("layout", "same"), [("NCHW", True), ("NHWC", False)])
def test_thresholds_of_channels_lie_along_their_layouts_axis(layout, same):
    scales = np.array([0.5, 0.5, 1.0], dtype=FLOAT)
    rows = np.concatenate([STEPS * FLOAT(scale / 0.5) for scale in scales])
    divide = make_node("Div", ["x", "r"], ["u"])
    held = {"r": scales.reshape(1, 3, 1, 1), "t": STEPS}
    counted = make_node(
        "MultiThreshold", ["u", "t"], ["y"], domain=DOMAIN, out_dtype="INT4", out_scale=0.5
    )
    others = [thresholds(data_layout=layout, out_bias=0.0)]
    halved = held | {"r": held["r"] * FLOAT(2)}
    assert is_proven([divide, counted], others, (1, 3, 2, 3), halved, {"t": rows}) is same


ONE = {"s": FLOAT(0.5), "z": FLOAT(0), "b": FLOAT(4), "ones": np.full((1, 1, 1), 0.5, FLOAT)}
MOVES = [("Flatten", {"axis": 1}), ("Transpose", {"perm": [0, 2, 1]})]


@pytest.mark.parametrize(("mover", "attributes"), MOVES)
@pytest.mark.parametrize("scale", ["s", "ones"])
def test_one_quantizer_of_all_elements_may_change_places_with_what_moves_them(
    mover, attributes, scale
):
    nodes = [
        quant_node("x", "q", scale, "z", "b"),
        make_node("Relu", ["q"], ["r"]),
        make_node(mover, ["r"], ["t"], **attributes),
        make_node("Softmax", ["t"], ["y"]),
    ]
    others = [
        make_node(mover, ["x"], ["t"], **attributes),
        quant_node("t", "q", "s", "z", "b"),
        make_node("Relu", ["q"], ["r"]),
        make_node("Softmax", ["r"], ["y"]),
    ]
    assert is_proven(nodes, others, (2, 3, 4), ONE)
    assert not is_proven(nodes, others, (2, 3, 4), ONE, ONE | {"s": FLOAT(0.25)})


def test_a_quantizer_of_channels_stays_on_its_side_of_a_transpose():
    channels = ONE | {"s": np.array([0.5, 0.25, 0.125], FLOAT)}
    turn = {"perm": [0, 2, 1]}
    nodes = [
        quant_node("x", "q", "s", "z", "b"),
        make_node("Transpose", ["q"], ["t"], **turn),
        make_node("Softmax", ["t"], ["y"]),
    ]
    others = [
        make_node("Transpose", ["x"], ["t"], **turn),
        quant_node("t", "q", "s", "z", "b"),
        make_node("Softmax", ["q"], ["y"]),
    ]
    assert not is_proven(nodes, others, (1, 3, 3), channels)


@pytest.mark.parametrize(
    ("name", "same"), [("Relu", True), ("Round", True), ("Sigmoid", False), ("Neg", False)]
)
def test_only_some_functions_change_nothing_the_second_time(name, same):
    nodes = [make_node(name, ["x"], ["t"]), make_node("Softmax", ["t"], ["y"])]
    others = [make_node(name, ["x"], ["u"]), make_node(name, ["u"], ["t"]), nodes[1]]
    assert is_proven(nodes, others, (1, 3)) is same
