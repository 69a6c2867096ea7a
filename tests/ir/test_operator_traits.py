"""Traits of the table of operators against ONNX's reference evaluator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import defs

from qonnx_hub_ir import operators
from qonnx_hub_ir.operators import Batch, Moves, Operator
from tests.ir.operator_cases import (
    EVALUATED,
    FUNCTIONS,
    OPSET,
    Case,
    images,
    make_node,
    name_of,
    vectors,
)


@pytest.mark.parametrize("row", EVALUATED, ids=name_of)
def test_elementwise_operators_treat_every_place_alike(row):
    data = vectors(row)
    case = Case(row, data)
    order = np.random.default_rng(1).permutation(12)
    before, after = case.run(), case.run([x[order] for x in data])
    assert before.shape == (12,)
    np.testing.assert_array_equal(before[order], after)


@pytest.mark.parametrize(
    "row", [row for row in EVALUATED if row.in_numpy is not None], ids=name_of
)
def test_numpy_has_the_function_that_a_row_names(row):
    data = vectors(row)
    with np.errstate(invalid="ignore"):
        computed = row.in_numpy(*data)
        np.testing.assert_array_equal(computed, Case(row, data).run())


@pytest.mark.parametrize(
    "row",
    # Of Mean, the reference broadcasts to the shape of the first operand only.
    [
        r
        for r in EVALUATED
        if len(r.inputs.roles) + r.inputs.is_variadic > 1 and r.name != "Mean"
    ],
    ids=name_of,
)
def test_elementwise_operators_broadcast_their_operands(row):
    data = vectors(row)
    grid = [data[0].reshape(12, 1), *(x.reshape(1, 12) for x in data[1:])]
    whole = Case(row, grid).run()
    assert whole.shape == (12, 12)
    single = Case(row, [data[0][3:4], *(x[5:6] for x in data[1:])]).run()
    np.testing.assert_array_equal(whole[3, 5], single[0])


MOVERS = [
    row
    for row in operators.where(lambda row: row.moves is not None)
    if row.name
    not in {"Dropout", "Where", "Scatter", "ScatterElements", "ScatterND", "TensorScatter"}
    | {"MaxUnpool", "Unique", "Upsample", "Trilu"}
]


def _moved(row: Operator) -> tuple[Case, np.ndarray, np.ndarray]:
    count = 2 if row.inputs.is_variadic else 1
    data = images(count=count)
    if row.name == "ReverseSequence":
        data = [data[0].reshape(8, 4, 4)[:4]]
    if row.name == "Squeeze":
        data = [data[0][..., np.newaxis]]
    case = Case(row, data)
    parts = [case.run(output=i) for i in range(2 if row.all_outputs else 1)]
    return (
        case,
        np.concatenate([x.ravel() for x in data]),
        np.concatenate([p.ravel() for p in parts]),
    )


@pytest.mark.parametrize("row", MOVERS, ids=name_of)
def test_what_moves_values_does_no_more_to_elements_than_its_row_says(row):
    case, before, after = _moved(row)
    moves = operators.moves(case.node())
    assert moves is not None
    inserted = set(after) - set(before)
    assert not inserted or (Moves.INSERTS in moves and inserted == {np.float32(0)})
    kept = after[np.isin(after, before)]
    if not moves & Moves.REPEATS:
        assert len(set(kept)) == len(kept)
    if not moves & Moves.SELECTS:
        assert set(before) <= set(after)
    if not moves & ~Moves.INSERTS:
        places = {value: place for place, value in enumerate(before)}
        assert np.all(np.diff([places[value] for value in kept]) > 0)


@pytest.mark.parametrize("row", MOVERS, ids=name_of)
def test_what_moves_values_is_said_to_do_nothing_that_it_does_not(row):
    case, before, after = _moved(row)
    moves = operators.moves(case.node())
    assert moves is not None
    kept = after[np.isin(after, before)]
    if Moves.INSERTS in moves:
        assert len(kept) < len(after)
    if moves == Moves.PERMUTES:
        assert not np.array_equal(before, after)
    if moves == Moves.REPEATS:
        assert len(set(kept)) < len(kept)
    if moves == Moves.SELECTS and not row.all_outputs:
        assert set(kept) < set(before)


def test_a_pad_may_insert_its_constant_or_repeat_elements_by_its_mode():
    pads = np.array([1, 1])
    x = np.ones(3, np.float32)
    plain = make_node("Pad", [x, pads], fed=[0])
    valued = make_node("Pad", [x, pads, np.float32(2)], fed=[0])
    hidden = make_node("Pad", [x, pads, np.float32(2)], fed=[0, 2])
    reflected = make_node("Pad", [x, pads], fed=[0], mode="reflect")
    cut = make_node("Pad", [x, -pads], fed=[0])
    assert operators.moves(plain) == Moves.INSERTS
    assert operators.inserted_constant(plain) == 0
    assert operators.inserted_constant(valued) == 2
    assert operators.inserted_constant(hidden) is None
    assert operators.moves(cut) == Moves.INSERTS | Moves.SELECTS
    assert operators.moves_values(reflected)
    assert not operators.moves_values(plain)
    assert operators.keeps_step(plain)
    assert not operators.keeps_step(valued)
    assert not operators.keeps_step(hidden)


def test_a_resize_moves_values_with_nearest_pixels_only():
    scales = [np.ones((1, 1, 4), np.float32), None, np.ones(3, np.float32)]
    assert operators.moves_values(make_node("Resize", scales, fed=[0]))
    assert operators.moves(make_node("Resize", scales, fed=[0], mode="linear")) is None
    crop = "tf_crop_and_resize"
    outside = make_node("Resize", scales, fed=[0], coordinate_transformation_mode=crop)
    assert operators.inserts(outside)


def test_a_scatter_with_a_reduction_computes():
    given = [np.zeros(3, np.float32), np.array([0]), np.ones(1, np.float32)]
    assert operators.moves_values(make_node("ScatterElements", given, fed=[0]))
    assert (
        operators.moves(make_node("ScatterElements", given, fed=[0], reduction="add")) is None
    )


@pytest.mark.parametrize(
    ("given", "attributes", "version", "passes"),
    [
        ([1], {}, 13, True),
        ([1, np.float32(0.5)], {}, 13, True),
        ([1, np.float32(0.5), np.bool_(False)], {}, 13, True),
        ([1, np.float32(0.5), np.bool_(True)], {}, 13, False),
        ([1], {}, 7, True),
        ([1], {}, 6, False),
        ([1], {"is_test": 1}, 6, True),
    ],
)
def test_a_dropout_passes_values_at_inference_only(given, attributes, version, passes):
    node = make_node(
        "Dropout", [np.float32(1), *given[1:]], fed=[0], version=version, **attributes
    )
    assert operators.is_identity(node) == passes
    assert operators.keeps_memory_order(node) == passes
    assert operators.is_elementwise(node) == passes
    assert operators.is_random(node) != passes


def test_a_dropout_whose_mode_is_computed_may_be_random():
    node = make_node("Dropout", [np.float32(1), np.float32(0.5), np.bool_(False)], fed=[0, 2])
    assert operators.is_random(node)
    assert not operators.is_identity(node)


ORDERED = [row for row in operators.where(selects_by_order=True) if row.name != "TopK"]


@pytest.mark.parametrize("row", ORDERED, ids=name_of)
def test_what_selects_by_order_commutes_with_every_function_that_never_falls(row):
    data = images(count=2 if row.inputs.is_variadic else 1)
    case = Case(row, data)
    after = case.run()
    assert set(after.ravel()) <= {value for x in data for value in x.ravel()}
    for function in (np.cbrt, np.floor, lambda x: np.clip(x, -0.4, 0.3)):
        changed = case.run([function(x).astype(np.float32) for x in data])
        np.testing.assert_array_equal(changed, function(after).astype(np.float32))


@pytest.mark.parametrize(
    "row",
    [row for row in EVALUATED if row.commutative is not False],
    ids=name_of,
)
def test_the_operands_of_commutative_operators_may_change_places(row):
    data = vectors(row)
    case = Case(row, data[:2])
    np.testing.assert_array_equal(case.run(), case.run(data[1::-1]))


@pytest.mark.parametrize(
    "row",
    [
        row
        for row in EVALUATED
        if row.commutative is False and len(row.inputs.data) + len(row.inputs.roles) > 3
    ],
    ids=name_of,
)
def test_the_operands_of_the_others_may_not(row):
    data = vectors(row)
    case = Case(row, data[:2])
    if row.name == "Where":
        return
    assert not np.array_equal(case.run(), case.run(data[1::-1]), equal_nan=True)


def test_sums_of_three_may_not_change_places_as_floats_round():
    large, small = np.float32(2**24), np.float32(1)
    node = make_node("Sum", [small, small, large])
    assert (small + small) + large != (large + small) + small
    assert not operators.is_commutative(node)
    assert operators.is_commutative(make_node("Sum", [small, large]))


@pytest.mark.parametrize("row", [row for row in EVALUATED if row.associative], ids=name_of)
def test_the_operands_of_associative_operators_combine_in_any_order(row):
    a, b = (vectors(row, seed) for seed in range(2))
    x, y, z = a[0], a[1], b[0]
    run = Case(row, [x, y]).run
    np.testing.assert_array_equal(run([run([x, y]), z]), run([x, run([y, z])]))


SIGNS = [{}, {"alpha": 0.5}, {"alpha": -0.5}, {"alpha": 0.0}, {"gamma": -1.0}]
SHRINKS = [{"bias": 2.0}, {"bias": 0.25}, {"lambd": -1.0}, {"bias": -1.0}]


def _accepted(row: Operator) -> list[dict[str, Any]]:
    known = defs.get_schema(row.name, OPSET, "").attributes
    return [one for one in (*SIGNS, *SHRINKS) if all(name in known for name in one)]


@pytest.mark.parametrize("row", FUNCTIONS, ids=name_of)
def test_functions_rise_or_fall_where_and_only_where_their_row_says_so(row):
    if row.name in {"Cast", "BitCast", "Acosh"}:
        return
    low, high = (-0.999, 0.999) if row.name in {"Asin", "Acos", "Atanh"} else (-8.0, 8.0)
    low = 0.01 if row.name in {"Log", "Sqrt"} else low
    x = np.linspace(low, high, 20001, dtype=np.float32)
    for attributes in _accepted(row):
        if row.name == "Celu" and attributes.get("alpha") == 0:
            continue
        case = Case(row, [x], **attributes)
        steps = np.diff(case.run().astype(np.float64))
        # Rounding may step back where the order is not said to be exact.
        slack = 0.0 if row.order_is_exact else 4e-7 * max(1.0, float(np.abs(case.run()).max()))
        known = operators.direction(case.node())
        if known:
            assert np.all(steps * known >= -slack), attributes
        elif not attributes and row.name != "Reciprocal":
            assert np.any(steps > slack), attributes
            assert np.any(steps < -slack), attributes


@pytest.mark.parametrize(
    ("op_type", "constant", "index", "expected"),
    [
        ("Mul", 2.0, 0, 1),
        ("Mul", -2.0, 0, -1),
        ("Mul", 0.0, 0, 0),
        ("Mul", np.inf, 0, 0),
        ("Div", 2.0, 0, 1),
        ("Div", -0.5, 0, -1),
        ("Add", -2.0, 0, 1),
        ("Sub", -2.0, 0, 1),
        ("Max", -2.0, 0, 1),
        ("PRelu", 0.25, 0, 1),
        ("PRelu", -0.25, 0, 0),
        ("QuantizeLinear", 0.5, 0, 1),
        ("DequantizeLinear", -0.5, 0, 0),
        ("Greater", 0.5, 0, 1),
        ("Less", 0.5, 0, -1),
        ("LessOrEqual", 0.5, 1, 1),
        ("Sub", 0.5, 1, -1),
        ("Pow", 2.0, 0, 0),
        ("Mod", 2.0, 0, 0),
    ],
)
def test_the_direction_of_a_node_follows_from_its_constants(
    op_type, constant, index, expected
):
    given = [np.float32(1), np.asarray(constant, dtype=np.float32)]
    node = make_node(op_type, given, fed=[0])
    assert operators.direction(node, index) == expected


def test_a_factor_that_is_computed_gives_no_direction():
    given = [np.float32(1), np.float32(2)]
    for op_type in ("Mul", "Div", "PRelu", "QuantizeLinear"):
        assert not operators.direction(make_node(op_type, given, fed=[0, 1]))


def test_arithmetic_of_integers_wraps_and_has_no_direction():
    given = [np.int8(100), np.int8(100)]
    for op_type in ("Add", "Sub", "Mul", "Sum"):
        assert not operators.direction(make_node(op_type, given, fed=[0]))


@pytest.mark.parametrize(
    "row", [row for row in FUNCTIONS if row.bounds and row.name != "Acosh"], ids=name_of
)
def test_results_lie_within_the_bounds_of_their_row(row):
    assert row.bounds is not None
    x = np.linspace(-1, 1, 1001, dtype=np.float32)
    for scale in (1, 10, 1000):
        found = Case(row, [x * np.float32(scale)]).run()
        found = found[~np.isnan(found)]
        assert found.size
        assert np.all(
            (found >= np.float32(row.bounds[0])) & (found <= np.float32(row.bounds[1]))
        )


@pytest.mark.parametrize(
    "row", [row for row in FUNCTIONS if row.name not in {"Cast", "BitCast"}], ids=name_of
)
def test_only_marked_functions_tell_zero_from_minus_zero(row):
    plain, negative = (Case(row, [np.array([z], np.float32)]).run() for z in (0.0, -0.0))
    same = np.array_equal(plain, negative, equal_nan=True)
    assert same != row.tells_zeros_apart


@pytest.mark.parametrize("row", FUNCTIONS, ids=name_of)
def test_whole_results_and_steps_are_those_of_the_row(row):
    if row.name in {"Cast", "BitCast"}:
        return
    x = np.linspace(-4, 4, 4001, dtype=np.float32)
    found = Case(row, [x]).run().astype(np.float64)
    found = found[np.isfinite(found)]
    assert row.is_whole == bool(np.all(found == np.rint(found)))
    assert (row.piecewise_constant is True) == (len(np.unique(found)) < 50)


@pytest.mark.parametrize("row", FUNCTIONS, ids=name_of)
def test_what_keeps_a_step_maps_multiples_of_it_to_multiples(row):
    if row.name in {"Cast", "BitCast"}:
        return
    x = (np.arange(-64, 65) * 0.125).astype(np.float32)
    with np.errstate(all="ignore"):
        found = Case(row, [x]).run().astype(np.float64) / 0.125
    on_grid = bool(np.all(np.isfinite(found)) and np.all(found == np.rint(found)))
    node = Case(row, [x]).node()
    assert on_grid or not operators.keeps_step(node)


@pytest.mark.parametrize("row", FUNCTIONS, ids=name_of)
def test_what_is_marked_idempotent_does_nothing_the_second_time(row):
    if not row.idempotent:
        return
    special = np.array([0.0, np.inf, -np.inf, np.nan, 3e38, 1e-45], np.float32)
    x = np.concatenate([np.linspace(-4, 4, 4001, dtype=np.float32), special])
    once = Case(row, [x]).run()
    assert np.array_equal(Case(row, [once]).run(), once, equal_nan=True)


NOT_SAMPLED = {
    *("ConvInteger", "QLinearConv", "DeformConv", "Split", "TopK"),
    # What the reference lacks, or gets wrong: its LRN adds up the samples.
    *("GlobalLpPool", "GroupNormalization", "LRN"),
}


def _apart(row: Operator) -> Any:
    shape_of: dict[str, list[np.ndarray]] = {
        "Conv": [np.ones((3, 4, 2, 2), np.float32)],
        "ConvTranspose": [np.ones((4, 3, 2, 2), np.float32)],
        "BatchNormalization": [np.full(4, 2, np.float32)] * 4,
        "InstanceNormalization": [np.full(4, 2, np.float32)] * 2,
        "GroupNormalization": [np.full(4, 2, np.float32)] * 2,
        "LayerNormalization": [np.full(4, 2, np.float32)],
        "RMSNormalization": [np.full(4, 2, np.float32)],
        "Squeeze": [],
    }
    extra = shape_of.get(row.name, [])
    attributes = {"num_groups": 2} if row.name == "GroupNormalization" else {}
    attributes |= {"size": 3} if row.name == "LRN" else {}
    attributes |= {"axis": 1} if row.name in {"ArgMax", "ArgMin"} else {}

    def run(x: np.ndarray) -> np.ndarray:
        return Case(row, [x, *extra], **attributes).run()

    return run


@pytest.mark.parametrize(
    "row",
    [
        row
        for row in operators.where(
            lambda row: (
                row.batch in {Batch.FIRST_INPUT, Batch.OTHER_AXIS} or callable(row.batch)
            )
        )
        if row.name not in NOT_SAMPLED
    ],
    ids=name_of,
)
def test_samples_that_a_row_says_stay_apart_are_computed_alone_as_in_a_batch(row):
    (x,) = images()
    run = _apart(row)
    together = run(x)
    for index in (0, 1):
        one = slice(index, index + 1)
        np.testing.assert_allclose(together[one], run(x[one]), 1e-6)


def test_a_batch_normalization_that_trains_mixes_samples():
    given = [np.ones((2, 3), np.float32), *4 * [np.ones(3, np.float32)]]
    node = make_node("BatchNormalization", given, fed=[0], training_mode=1)
    assert operators.batch_rule(node) is Batch.UNKNOWN
    assert not operators.direction(node)
