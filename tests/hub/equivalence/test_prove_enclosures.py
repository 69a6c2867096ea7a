"""Enclosures hold: no operator leaves them on any value that was tried inside."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, defs
from onnx.helper import make_node

from qonnx_hub.equivalence.proof.intervals import POINTWISE, Enclosure, enclose_step
from qonnx_hub.equivalence.proof.proof_model import ProofModel
from qonnx_hub.equivalence.proof.scalar_functions import ScalarFunction, layout_of
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_ir.thresholds import keys_of, values_of
from tests.support import DOMAIN, model_of, quant_node

FLOAT = np.float32

# Operator -> ways to call it: "box" is a float of unknown value, "bool" a truth value of
# unknown value, a number a constant, a mapping the attributes.
CALLS = {
    "Abs": [["box"]],
    "Add": [["box", 0.3], ["box", "box"]],
    "And": [["bool", "bool"]],
    "BatchNormalization": [
        ["box", [-1.5], [0.2], [0.1], [2.0]],
        ["box", [0.0], [0.2], [0.1], [2.0]],
        ["box", [1e30], [0.2], [0.1], [0.0], {"epsilon": 0.0}],
    ],
    "Cast": [
        ["box", {"to": TensorProto.INT32}],
        ["box", {"to": TensorProto.UINT8}],
        ["box", {"to": TensorProto.BOOL}],
        ["box", {"to": TensorProto.FLOAT16}],
        ["bool", {"to": TensorProto.FLOAT}],
    ],
    "Ceil": [["box"]],
    "Clip": [["box", -1.0, 2.0], ["box", 2.0, -1.0]],
    "Div": [["box", -0.3], [1.0, "box"], ["box", "box"]],
    "Dropout": [["box"]],
    "Equal": [["box", 0.5], ["box", "box"]],
    "Floor": [["box"]],
    "Greater": [["box", 0.0], ["box", "box"]],
    "GreaterOrEqual": [["box", 0.0]],
    "HardSigmoid": [["box"], ["box", {"alpha": -0.5}], ["box", {"beta": -0.5}]],
    "Identity": [["box"]],
    "LeakyRelu": [["box"], ["box", {"alpha": -0.5}], ["box", {"alpha": 0.0}]],
    "Less": [["box", 0.0]],
    "LessOrEqual": [["box", "box"]],
    "Log": [["box"]],
    "Max": [["box", "box"]],
    "Mean": [["box", "box"]],
    "Min": [["box", 1.0]],
    "Mul": [["box", -0.3], ["box", "box"], ["box", 0.0], ["box", np.inf]],
    "Neg": [["box"]],
    "Not": [["bool"]],
    "Or": [["bool", "bool"]],
    "PRelu": [["box", 0.1], ["box", -0.1]],
    "Pow": [[2.0, "box"]],
    "QuantizeLinear": [["box", 0.3], ["box", -0.3]],
    "Reciprocal": [["box"]],
    "Relu": [["box"]],
    "Round": [["box"]],
    "Shrink": [
        ["box"],
        ["box", {"bias": 1.0}],
        ["box", {"bias": -1.0, "lambd": 2.0}],
        ["box", {"lambd": -0.5}],
        ["box", {"bias": 0.25, "lambd": -0.5}],
        ["box", {"bias": -0.25, "lambd": -0.5}],
    ],
    "Sign": [["box"]],
    "Sqrt": [["box"]],
    "Sub": [["box", "box"]],
    "Sum": [["box", "box"]],
    "ThresholdedRelu": [["box", {"alpha": 0.5}], ["box", {"alpha": -0.5}]],
    "Where": [["bool", "box", "box"], ["bool", 1.0, np.nan]],
    "Xor": [["bool", "bool"]],
}

SIGNS = {
    (op_type, name)
    for op_type, calls in CALLS.items()
    for call in calls
    if isinstance(call[-1], dict)
    for name, value in call[-1].items()
    if value < 0
}
"""(operator, attribute) of what is tried below zero."""

FROM_INTEGERS = {"DequantizeLinear"}

numbers = st.one_of(
    st.floats(-4.0, 4.0, width=32),
    st.floats(width=32, allow_nan=False),
    st.sampled_from([0.0, -0.0, 0.5, -0.5, np.inf, -np.inf]),
)


def single_step(op_type, call):
    """Return node, kernel and inputs of a model with that one operator; boxes are None."""
    attributes = call[-1] if isinstance(call[-1], dict) else {}
    given_inputs = [item for item in call if not isinstance(item, dict)]
    nodes, inputs, constants, names = [], {}, {}, []
    for index, item in enumerate(given_inputs):
        name = f"i{index}"
        if isinstance(item, str):
            inputs[name] = (1,)
            if item == "bool":
                nodes.append(make_node("Greater", [name, "nil"], [f"{name}_true"]))
                constants["nil"] = 0.0
                name = f"{name}_true"
        else:
            constants[name] = np.asarray(item, dtype=FLOAT)
        names.append(name)
    nodes.append(make_node(op_type, names, ["y"], name="it", **attributes))
    side = ProofModel(onnx_ir.from_proto(model_of(nodes, inputs, ["y"], constants)))
    node = next(n for n in side.model.graph if n.name == "it")
    return node, side.step(node).run, [side.constants.get(v) for v in node.inputs]


def boxes_of(call, ends):
    """Return an enclosure for every box of the call, and values inside of them."""
    boxes, inside = [], []
    for index, item in enumerate(i for i in call if not isinstance(i, dict)):
        if not isinstance(item, str):
            boxes.append(None)
            inside.append(None)
            continue
        low, high = sorted(
            ends[2 * index : 2 * index + 2], key=lambda v: (v, not np.signbit(v))
        )
        pair = np.array([low, high], dtype=FLOAT)
        keys = keys_of(pair)
        picked = np.linspace(keys[0], keys[1], 33).astype(np.int64)
        values = values_of(np.clip(picked, *keys))
        if item == "bool":
            pair, values = pair > 0, values > 0
        boxes.append(Enclosure(pair[:1], pair[1:], np.ones(1, dtype=np.bool_)))
        inside.append(values)
    return boxes, inside


def grid(inside):
    """Return all combinations of the values inside, one array per box."""
    present = [values for values in inside if values is not None]
    meshes = iter(np.meshgrid(*present, indexing="ij"))
    return [None if values is None else next(meshes).reshape(-1) for values in inside]


def require_inside(enclosure, values):
    if not enclosure.known[0]:
        return
    low, high = enclosure.low[0], enclosure.high[0]
    if low != low:
        assert np.all(values != values)
        return
    assert np.all((values >= low) & (values <= high))


def test_every_operator_that_counts_as_pointwise_is_tried_here():
    assert set(CALLS) | FROM_INTEGERS == POINTWISE


def test_every_number_that_may_be_negative_is_tried_below_zero():
    of_floats = {
        (op_type, name)
        for op_type in POINTWISE
        for name, attribute in defs.get_schema(op_type).attributes.items()
        if attribute.type == defs.OpSchema.AttrType.FLOAT
    }
    no_signs = {("BatchNormalization", "epsilon"), ("BatchNormalization", "momentum")}
    assert of_floats - no_signs == SIGNS


@pytest.mark.parametrize(
    ("gain", "variance", "known"),
    [
        (1.0, 2e-30, True),
        (1.0, 5e-31, False),
        (9e19, 1.0, True),
        (-2e20, 1.0, False),
    ],
)
def test_a_normalization_of_hardly_any_variance_is_not_vouched_for(gain, variance, known):
    # Its factor comes near infinity, and infinity times zero is not a number.
    call = ["box", [gain], [0.0], [0.0], [variance], {"epsilon": 0.0}]
    node, run, constants = single_step("BatchNormalization", call)
    ends = [np.array([[end]], dtype=FLOAT) for end in (-1.0, 1.0)]
    box = Enclosure(*ends, np.ones((1, 1), dtype=np.bool_))
    assert bool(enclose_step(node, run, [box, *constants[1:]]).known[0, 0]) == known


@pytest.mark.parametrize("op_type", sorted(CALLS))
@settings(max_examples=20)
@given(ends=st.lists(numbers, min_size=6, max_size=6))
def test_no_value_leaves_its_enclosure(op_type, ends):
    for call in CALLS[op_type]:
        node, run, constants = single_step(op_type, call)
        boxes, inside = boxes_of(call, ends)
        arguments = [
            box if box is not None else constant
            for box, constant in zip(boxes, constants, strict=True)
        ]
        with np.errstate(all="ignore"):
            found = enclose_step(node, run, arguments)
            fed = [
                constant if values is None else values
                for values, constant in zip(grid(inside), constants, strict=True)
            ]
            answers = np.asarray(run(*(np.atleast_1d(f) for f in fed)))
        require_inside(found, answers)


def region_of(nodes, constants, shape=(1, 4)):
    side = ProofModel(read_model(model_of(nodes, {"x": shape}, ["y"], constants)))
    source, target = side.model.graph.inputs[0], side.model.graph.outputs[0]
    layout = layout_of([(side, source, target)])
    assert layout is not None
    return ScalarFunction(side, source, target, layout)


def test_a_point_is_what_the_operator_makes_of_it():
    region = region_of([quant_node("x", "y")], {"s": 0.5, "z": 0.0, "b": 3.0})
    points = np.array([[0.3, -9.0, 0.76]], dtype=FLOAT)
    found = region.enclose(points, points)
    assert found.low.tolist() == found.high.tolist() == [[0.5, -2.0, 1.0]]
    assert np.all(found.known)


def test_a_quantizer_is_enclosed_by_its_own_levels():
    region = region_of([quant_node("x", "y")], {"s": 0.5, "z": 0.0, "b": 3.0})
    found = region.enclose(
        np.array([[-0.2, -9.0]], dtype=FLOAT), np.array([[0.2, 0.3]], dtype=FLOAT)
    )
    assert found.low.tolist() == [[0.0, -2.0]]
    assert found.high.tolist() == [[0.0, 0.5]]


def test_a_sign_lost_and_given_back_is_followed():
    # Half up by magnitude: between two ties nothing but one level can come out.
    nodes = [
        make_node("Abs", ["x"], ["size"]),
        make_node("Add", ["size", "half"], ["more"]),
        make_node("Floor", ["more"], ["whole"]),
        make_node("Sign", ["x"], ["sign"]),
        make_node("Mul", ["whole", "sign"], ["y"]),
    ]
    region = region_of(nodes, {"half": 0.5})
    found = region.enclose(
        np.array([[-0.4, 0.5, -1.4]], dtype=FLOAT), np.array([[0.4, 1.4, -0.5]], dtype=FLOAT)
    )
    assert np.all(found.known)
    assert found.low.tolist() == found.high.tolist() == [[0.0, 1.0, -1.0]]


def test_an_overflow_that_could_become_nan_is_not_vouched_for():
    # 3e38 * 10 is infinite, and infinity minus infinity is not a number.
    nodes = [make_node("Mul", ["x", "ten"], ["big"]), make_node("Sub", ["big", "big"], ["y"])]
    region = region_of(nodes, {"ten": 10.0})
    found = region.enclose(np.array([[1.0]], dtype=FLOAT), np.array([[3e38]], dtype=FLOAT))
    assert not found.known[0, 0]


@pytest.mark.parametrize("factor", ["box", np.inf])
def test_zero_inside_times_infinity_is_not_vouched_for(factor):
    node, run, constants = single_step("Mul", ["box", factor])
    true = np.ones(1, dtype=np.bool_)
    around_zero = Enclosure(np.array([-1.0], dtype=FLOAT), np.array([1.0], dtype=FLOAT), true)
    endless = Enclosure(np.array([1.0], dtype=FLOAT), np.array([np.inf], dtype=FLOAT), true)
    second = endless if factor == "box" else constants[1]
    assert not enclose_step(node, run, [around_zero, second]).known[0]


@pytest.mark.parametrize(
    ("op_type", "attributes"),
    [
        ("LeakyRelu", {"alpha": -0.5}),
        ("ThresholdedRelu", {"alpha": -0.5}),
        ("Shrink", {"bias": 1.0}),
        ("Cast", {"to": TensorProto.INT8}),
    ],
)
def test_what_turns_back_inside_is_not_vouched_for(op_type, attributes):
    node, run, _ = single_step(op_type, ["box", attributes])
    true = np.ones(1, dtype=np.bool_)
    box = Enclosure(np.array([-1.0], dtype=FLOAT), np.array([300.0], dtype=FLOAT), true)
    assert not enclose_step(node, run, [box]).known[0]


@pytest.mark.parametrize(
    ("gain", "variance"), [(1.0, 1e-38), (1e30, 1.0)], ids=["tiny variance", "huge gain"]
)
def test_a_factor_that_may_overflow_is_not_vouched_for(gain, variance):
    # Zero times infinity is NaN, and no corner of the box meets it.
    call = ["box", [gain], [0.0], [0.0], [variance], {"epsilon": 0.0}]
    node, run, constants = single_step("BatchNormalization", call)
    true = np.ones(1, dtype=np.bool_)
    box = Enclosure(np.array([-1.0], dtype=FLOAT), np.array([1.0], dtype=FLOAT), true)
    assert not enclose_step(node, run, [box, *constants[1:]]).known[0]


def enclosed_by(op_type, parameters, ends=(-1.0, 1.0), **attributes):
    """Return what a quantizer makes of any value between two ends."""
    names = ["x", *parameters]
    quantizer = make_node(op_type, names, ["y"], "it", domain=DOMAIN, **attributes)
    constants = {name: FLOAT(value) for name, value in parameters.items()}
    model = onnx_ir.from_proto(model_of([quantizer], {"x": (1,)}, ["y"], constants))
    low, high = (np.array([end], dtype=FLOAT) for end in ends)
    box = Enclosure(low, high, np.ones(1, dtype=np.bool_))
    with np.errstate(all="ignore"):
        side = ProofModel(model)
        node = next(iter(side.model.graph))
        arguments = [box, *(side.constants[v] for v in node.inputs[1:])]
        return enclose_step(node, side.step(node).run, arguments)


@pytest.mark.parametrize("scale", [0.0, np.inf, np.nan])
def test_a_quantizer_without_a_scale_is_not_vouched_for(scale):
    # Both ends divided by zero are infinite and clamped; zero divided by zero is no number.
    given = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND"}
    assert not enclosed_by("Quant", {"s": scale, "z": 0.0, "b": 4.0}, **given).known[0]
    assert enclosed_by("Quant", {"s": 0.5, "z": 0.0, "b": 4.0}, **given).known[0]


@pytest.mark.parametrize(("bias", "known"), [(98.0, True), (99.0, False)])
def test_minifloats_near_the_smallest_floats_are_not_vouched_for(bias, known):
    # With three bits of mantissa, the smallest step is 2^(1 - bias - 3).
    parameters = {"s": 1.0, "e": 8.0, "m": 3.0, "bias": bias, "top": 1e30}
    given = {"has_inf": 0, "has_nan": 0, "has_subnormal": 1, "saturation": 1}
    found = enclosed_by("FloatQuant", parameters, rounding_mode="ROUND", **given)
    assert bool(found.known[0]) == known


def test_channels_keep_their_own_parameters():
    scale = np.array([[0.5, 1.0, 2.0, 4.0]], dtype=FLOAT)
    region = region_of([quant_node("x", "y")], {"s": scale, "z": 0.0, "b": 8.0})
    assert region.channels == 4
    rows = np.full((4, 2), 3.0, dtype=FLOAT)
    assert region(rows).tolist() == [[3.0, 3.0], [3.0, 3.0], [4.0, 4.0], [4.0, 4.0]]


def test_a_channel_axis_in_the_middle_is_found():
    nodes = [
        make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=1),
        make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=1),
    ]
    constants = {"s": np.array([1.0, 2.0], dtype=FLOAT), "z": np.zeros(2, dtype=np.int8)}
    region = region_of(nodes, constants, shape=(1, 2, 3, 3))
    assert region.channels == 2
    assert region(np.full((2, 1), 3.0, dtype=FLOAT)).tolist() == [[3.0], [4.0]]


def test_parameters_for_every_element_leave_no_axis_free():
    scale = np.array([[0.5, 1.0], [2.0, 4.0]], dtype=FLOAT)
    region = region_of([quant_node("x", "y")], {"s": scale, "z": 0.0, "b": 8.0}, shape=(2, 2))
    rows = np.array([[3.0, 1.0]] * 4, dtype=FLOAT)
    assert region(rows).tolist() == [[3.0, 1.0], [3.0, 1.0], [4.0, 0.0], [4.0, 0.0]]
    found = region.enclose(rows, rows)
    assert found.low.tolist() == region(rows).tolist()


FORMS = {
    "Quant": {"s": 0.3, "z": 1.5, "b": 4.0},
    "one signed bit": {"s": 3.0, "z": 0.5, "b": 1.0},
    "BipolarQuant": {"s": 0.3},
    "FloatQuant": {"s": 0.7, "e": 4.0, "m": 3.0, "bias": 7.0, "max": 448.0},
    "Trunc": {"s": 0.5, "z": 0.0, "b": 8.0, "os": 2.0, "ob": 4.0},
}


@pytest.mark.parametrize("form", sorted(FORMS))
@settings(max_examples=25)
@given(ends=st.tuples(numbers, numbers), mode=st.sampled_from(["ROUND", "UP", "HALF_DOWN"]))
def test_no_value_leaves_the_enclosure_of_a_quantizer(form, ends, mode):
    op_type = "Quant" if form == "one signed bit" else form
    attributes = {} if op_type == "BipolarQuant" else {"rounding_mode": mode}
    names = ["x", *FORMS[form]]
    node = make_node(op_type, names, ["y"], domain=DOMAIN, **attributes)
    region = region_of([node], FORMS[form])
    low, high = np.array(sorted(ends), dtype=FLOAT)
    keys = keys_of(np.array([low, high], dtype=FLOAT))
    inside = values_of(np.linspace(keys.min(), keys.max(), 99).astype(np.int64))
    found = region.enclose(np.full((1, 1), low), np.full((1, 1), high))
    assert found.known[0, 0]
    require_inside(
        Enclosure(*(part[0] for part in (found.low, found.high, found.known))),
        region(inside[np.newaxis])[0],
    )


def test_a_logarithm_is_enclosed_by_sixteen_units_in_the_last_place_at_both_ends():
    box = Enclosure(FLOAT([1.5]), FLOAT([2.5]), np.ones(1, dtype=np.bool_))
    log = onnx_ir.node("Log", [onnx_ir.Value(name="x")])
    found = enclose_step(log, np.log, [box])
    low, high = (int(keys_of(np.log(FLOAT(end)).reshape(1))[0]) for end in (1.5, 2.5))
    assert low - int(keys_of(found.low)[0]) == 16
    assert int(keys_of(found.high)[0]) - high == 16


def test_a_value_whose_ends_are_one_is_still_open_where_these_do_not_hold():
    ends = FLOAT([1.0, 1.0, 1.0]), FLOAT([1.0, 1.0, 2.0])
    found = Enclosure(*ends, np.array([True, False, True])).is_constant()
    assert found.tolist() == [True, False, False]
