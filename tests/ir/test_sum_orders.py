"""What another order of float sums can change: bounds by hand, and by trying orders."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx import TensorProto
from onnx.helper import make_graph, make_node, make_tensor_value_info

from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_ir.analysis.sum_orders import sum_orders
from qonnx_hub_ir.analysis.value_ranges import infer_values
from tests.support import model_of, quant_node

FLOAT = np.float32
UNIT = 2.0**-24
RNG = np.random.default_rng(3)


def held(**more):
    return {"s": FLOAT(0.5), "z": FLOAT(0), "b": FLOAT(4), **more}


def layer(weights, scale=0.5, bits=4.0, behind=(), **more):
    """Return a quantized input times weights, and more nodes behind ``m``."""
    nodes = [quant_node("x", "q"), make_node("MatMul", ["q", "w"], ["m"]), *behind]
    arrays = held(w=np.asarray(weights, dtype=FLOAT), **more)
    arrays |= {"s": FLOAT(scale), "b": FLOAT(bits)}
    shape = (1, arrays["w"].shape[0])
    last = behind[-1].output[0] if behind else "m"
    return read_model(model_of(nodes, {"x": shape}, [last], arrays))


def test_the_bound_of_a_sum_is_that_of_either_run():
    weights = RNG.normal(size=(6, 1)).astype(FLOAT)
    found = sum_orders(layer(weights))
    # Largest input: -8 steps of a half.
    magnitude = float(np.abs(weights.astype(np.float64)).sum()) * 4.0
    assert found.deviations["m"] == pytest.approx(2 * 7 * UNIT * magnitude, rel=1e-6)
    assert not found.exact
    assert found.statement() == "the order of sums can change MatMul 'MatMul_0'"


def test_no_order_goes_beyond_the_bound():
    weights = RNG.normal(size=(40, 1)).astype(FLOAT)
    bound = sum_orders(layer(weights, scale=0.37)).deviations["m"]
    codes = RNG.integers(-8, 8, size=40)
    products = (codes.astype(FLOAT) * FLOAT(0.37)) * weights[:, 0]
    sums = []
    for _ in range(300):
        total = FLOAT(0)
        for product in RNG.permutation(products):
            total = FLOAT(total + product)
        sums.append(float(total))
    assert 0 < max(sums) - min(sums) <= bound


def test_an_unbounded_input_has_no_bound():
    nodes = [make_node("MatMul", ["x", "w"], ["y"])]
    model = read_model(
        model_of(nodes, {"x": (1, 3)}, ["y"], {"w": np.ones((3, 2), FLOAT) / 3})
    )
    assert math.isinf(sum_orders(model).deviations["y"])
    assert sum_orders(model, {"x": (-1.0, 1.0)}).deviations["y"] < 1e-5


# 255 * 65793 = 2^24 - 1, and one weight more goes beyond.
@pytest.mark.parametrize(("total", "exact"), [(65793, True), (65794, False)])
def test_whole_sums_are_exact_up_to_2_to_the_24(total, exact):
    nodes = [
        quant_node("x", "q", signed=0),
        make_node("MatMul", ["q", "w"], ["m"]),
    ]
    weights = np.array([[32001.0], [32001.0], [total - 64002.0]], dtype=FLOAT)
    arrays = held(w=weights) | {"s": FLOAT(1), "b": FLOAT(8)}
    found = sum_orders(read_model(model_of(nodes, {"x": (1, 3)}, ["m"], arrays)))
    assert found.exact is exact
    assert (found.deviations["m"] == 0) is exact
    if exact:
        assert found.statement() == "exact in any order of sums, on any backend"


@pytest.mark.parametrize(("scale", "exact"), [(0.5, True), (0.3, False)])
def test_a_grid_of_a_power_of_two_is_exact(scale, exact):
    assert sum_orders(layer([[1.0], [-2.0], [0.5]], scale=scale)).exact is exact


def test_batch_normalization_is_named_and_not_called_exact():
    behind = [make_node("BatchNormalization", ["m", "g", "h", "mean", "var"], ["y"])]
    ones = np.ones(1, dtype=FLOAT)
    model = layer([[1.0], [2.0]], behind=behind, g=ones, h=ones, mean=ones, var=ones)
    found = sum_orders(model)
    assert not found.exact
    assert "libraries may differ on BatchNormalization" in found.statement()


@pytest.mark.parametrize(
    ("change", "exact"),
    [
        ({}, True),
        ({"h": 0.25}, True),
        ({"h": 1 / 3}, False),
        ({"mean": 1}, False),
        ({"v": 4}, False),
    ],
)
def test_a_batch_normalization_is_exact_where_it_is_one_product_and_one_sum(change, exact):
    names = ["m", "g", "h", "mean", "v"]
    behind = [make_node("BatchNormalization", names, ["y"], epsilon=0.0)]
    given = {"g": 0.25, "h": 0, "mean": 0, "v": 1} | change
    arrays = {name: np.full(1, value, dtype=FLOAT) for name, value in given.items()}
    found = infer_values(layer([[1.0], [2.0]], behind=behind, **arrays))
    assert found["y"].grid.exact is exact


SLOPES = [
    ([make_node("Relu", ["m"], ["y"])], 1.0),
    ([make_node("Neg", ["m"], ["y"])], 1.0),
    ([make_node("Tanh", ["m"], ["y"])], 1.0),
    ([make_node("Mul", ["m", "c"], ["y"])], 3.0),
    ([make_node("Div", ["m", "c"], ["y"])], 1 / 3),
    ([make_node("Add", ["m", "m"], ["y"])], 2.0),
    ([make_node("LeakyRelu", ["m"], ["y"], alpha=2.0)], 2.0),
    ([make_node("Floor", ["m"], ["y"])], math.inf),
]


@pytest.mark.parametrize(("behind", "slope"), SLOPES, ids=lambda x: getattr(x, "op_type", ""))
def test_a_difference_grows_by_the_slope_of_what_follows(behind, slope):
    weights = RNG.normal(size=(3, 1)).astype(FLOAT)
    model = layer(weights, behind=behind, c=FLOAT(3))
    found = sum_orders(model, extra={"m": 0.01})
    made, before = found.deviations["y"], found.deviations["m"]
    assert before == pytest.approx(0.01, rel=0.01)
    if math.isinf(slope):
        # What may go anywhere stays in its range.
        assert made > 1
    else:
        assert slope * before <= made <= slope * before * 1.01 + 1e-5


def quantizers(count, weight=1.3):
    """Return layers one behind another, each a product and a quantizer."""
    nodes, arrays = [quant_node("x", "q0")], held()
    arrays["s"] = FLOAT(0.3)
    for n in range(count):
        arrays[f"w{n}"] = np.full((2, 2), weight, dtype=FLOAT)
        nodes += [
            make_node("MatMul", [f"q{n}", f"w{n}"], [f"m{n}"]),
            quant_node(f"m{n}", f"q{n + 1}"),
        ]
    return read_model(model_of(nodes, {"x": (1, 2)}, [f"q{count}"], arrays))


def test_three_layers_each_a_step_off_are_more_than_one_step():
    found = sum_orders(quantizers(3), extra={f"m{n}": 1e-3 for n in range(3)})
    # One step at the first; then 2 * 1.3 steps in front of the next, and so on.
    assert [found.steps[f"q{n}"] for n in (1, 2, 3)] == [1, 3, 8]
    assert found.deviations["q3"] == pytest.approx(8 * 0.3, rel=1e-6)


def test_a_deviation_is_never_wider_than_the_values_range():
    found = sum_orders(quantizers(6), extra={"m0": 1e-3})
    assert found.deviations["q6"] == pytest.approx(15 * 0.3, rel=1e-6)
    assert found.steps["q6"] == 15


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize(("extra", "steps"), [(0.04, {}), (0.06, {"y": 1})])
def test_a_difference_that_reaches_no_tie_ends_at_the_quantizer(extra, steps, shape):
    # Sums lie on multiples of 0.2, thresholds of the second quantizer at 0.05 beside them:
    # 0.3 * (n + 1 / 2) is 0.15, 0.45, ...
    behind = [quant_node("m", "y", "s2")]
    stored = np.full(shape, 0.3, dtype=np.float32)
    model = layer([[0.5], [0.5]], scale=0.4, behind=behind, s2=stored)
    found = sum_orders(model, extra={"m": extra})
    assert dict(found.steps) == steps
    assert (found.deviations["y"] > 0) is bool(steps)


def test_a_quantizer_that_is_constant_on_the_range_ends_a_difference():
    behind = [quant_node("m", "y", "s2")]
    model = layer([[0.1]], scale=0.3, behind=behind, s2=FLOAT(100))
    assert sum_orders(model, extra={"m": 1e-3}).deviations["y"] == 0
    assert sum_orders(model, extra={"m": 60.0}).deviations["y"] > 0


def test_the_output_of_a_softmax_moves_by_half_of_what_its_input_does():
    # p = 1 / (1 + exp(-t)) of two logits is steepest, 1 / 4 per logit, in the middle.
    behind = [make_node("Softmax", ["m"], ["y"])]
    model = layer(np.eye(2), behind=behind)
    assert sum_orders(model, extra={"m": 0.01}).deviations["y"] == pytest.approx(
        0.005, rel=0.01
    )


@pytest.mark.parametrize(("bits", "reached"), [(2.0, False), (4.0, True)])
def test_thresholds_beyond_the_last_code_are_none(bits, reached):
    # Sums are 2 n; codes begin at 0.8 * (m + 1 / 2): within 0.05 of each other only at 2 and
    # beyond (2.0 and -2.0), where two bits have no thresholds any more.
    behind = [quant_node("m", "y", "s2", "z", "b2")]
    model = layer([[2.0]], scale=1.0, bits=3.0, behind=behind, s2=FLOAT(0.8), b2=FLOAT(bits))
    assert bool(sum_orders(model, extra={"m": 0.05}).steps) is reached


# Where a difference enters beside the first input. ``m`` is 2 wide, ``k`` is 2 x 2.
SIDE_DOORS = [
    # By hand: 3 * the difference of the last input; 5 * 2 products of at most 1 * difference.
    ([make_node("Gemm", ["u", "k", "m"], ["y"], beta=3.0)], 0.03),
    ([make_node("Gemm", ["m", "v"], ["y"], alpha=5.0)], 0.1),
    ([make_node("ReduceSum", ["m"], ["y"])], 0.02),
    (
        [
            make_node("Reshape", ["m", "two"], ["b"]),
            make_node("Conv", ["image", "kernel", "b"], ["y"]),
        ],
        0.01,
    ),
    (
        [
            make_node("Reshape", ["m", "two"], ["b"]),
            make_node("BatchNormalization", ["image", "g", "b", "g", "g"], ["y"]),
        ],
        math.inf,
    ),
    (
        [
            make_node("ArgMax", ["m"], ["i"], axis=1),
            make_node("Gather", ["g", "i"], ["y"]),
        ],
        math.inf,
    ),
]
SIDE_DOORS += [
    # Places of the largest: near a tie, any other.
    (
        [
            make_node("TopK", ["m", "one"], ["values", "i"]),
            make_node("Cast", ["i"], ["y"], to=1),
        ],
        math.inf,
    ),
    # Mean and variance of its own data.
    (
        [
            make_node("Unsqueeze", ["m", "two"], ["b"]),
            make_node(
                "BatchNormalization",
                ["b", "g", "g", "g", "g"],
                ["y", "mean", "var"],
                training_mode=1,
            ),
        ],
        math.inf,
    ),
]
SIDE_INPUTS = {"x": (1, 2), "u": (1, 2), "v": (2, 2), "image": (1, 2, 3, 3)}
SIDE_ARRAYS = {
    "k": np.eye(2, dtype=FLOAT),
    "kernel": np.ones((2, 2, 1, 1), FLOAT),
    "g": np.ones(2, FLOAT),
    "two": np.array([2], np.int64),
    "one": np.array([1], np.int64),
}


def side_door(nodes, **more):
    """Return ``m`` in front of nodes that make ``y``, and the inputs' ranges."""
    nodes = [make_node("MatMul", ["x", "k"], ["m"]), *nodes]
    read = {name for node in nodes for name in node.input}
    inputs = {name: shape for name, shape in SIDE_INPUTS.items() if name in read}
    arrays = {n: a for n, a in (SIDE_ARRAYS | more).items() if n in read}
    return read_model(model_of(nodes, inputs, ["y"], arrays)), dict.fromkeys(
        inputs, (-1.0, 1.0)
    )


@pytest.mark.parametrize(("behind", "bound"), SIDE_DOORS)
def test_a_difference_is_carried_from_every_input(behind, bound):
    model, ranges = side_door(behind)
    found = sum_orders(model, ranges, extra={"m": 0.01}, own=False)
    assert found.deviations["y"] == pytest.approx(bound, rel=0.01)


def test_a_difference_that_a_body_reads_is_carried():
    def body(name):
        node = make_node("Neg", ["m"], [name])
        return make_graph([node], name, [], [make_tensor_value_info(name, 1, None)])

    nodes = [
        make_node("ReduceMax", ["u"], ["largest"], keepdims=0),
        make_node("Cast", ["largest"], ["c"], to=TensorProto.BOOL),
        make_node("If", ["c"], ["y"], then_branch=body("t"), else_branch=body("e")),
    ]
    model, ranges = side_door(nodes)
    found = sum_orders(model, ranges, extra={"m": 0.01}, own=False)
    assert found.deviations["y"] == math.inf


def test_what_is_picked_by_an_index_can_be_any_element():
    nodes = [
        make_node("ArgMax", ["m"], ["i"], axis=1),
        make_node("Gather", ["table", "i"], ["y"]),
    ]
    third = np.full((2, 2), 1 / 3, FLOAT)
    model, ranges = side_door(nodes, k=third, table=np.array([0, 1000], FLOAT))
    assert sum_orders(model, ranges).deviations["y"] == 1000


@pytest.mark.parametrize(("axis", "bound"), [(1, 0.02), (0, math.inf)])
def test_a_reduction_over_an_open_axis_has_no_bound(axis, bound):
    nodes = [
        make_node("MatMul", ["x", "k"], ["m"]),
        make_node("ReduceSum", ["m", "axes"], ["y"]),
    ]
    arrays = {"k": SIDE_ARRAYS["k"], "axes": np.array([axis])}
    model = read_model(model_of(nodes, {"x": ("samples", 2)}, ["y"], arrays))
    found = sum_orders(model, {"x": (-1.0, 1.0)}, extra={"m": 0.01}, own=False)
    assert found.deviations["y"] == pytest.approx(bound, rel=0.01)


@pytest.mark.parametrize("op_type", ["ReduceL2", "ReduceSumSquare", "ReduceProd", "Det"])
def test_formulas_that_nobody_looked_into_are_not_called_exact(op_type):
    model, ranges = side_door([make_node(op_type, ["v"], ["y"])])
    found = sum_orders(model, ranges)
    assert not found.exact
    assert f"libraries may differ on {op_type}" in found.statement()


@pytest.mark.parametrize("op_type", ["Sum", "Mean"])
def test_three_operands_can_be_added_in_several_orders(op_type):
    model, ranges = side_door([make_node(op_type, ["u", "k", "v"], ["y"])])
    assert not sum_orders(model, ranges).exact
    model, ranges = side_door([make_node(op_type, ["u", "v"], ["y"])])
    assert sum_orders(model, ranges).layers == ()


def test_a_foreign_operator_of_a_known_name_is_not_read_as_it():
    node = make_node("MatMul", ["v", "k"], ["y"], domain="foreign")
    found = model_of(
        [node], {"v": (2, 2)}, ["y"], {"k": SIDE_ARRAYS["k"]}, domains=("foreign",)
    )
    found.graph.output[0].CopyFrom(make_tensor_value_info("y", TensorProto.FLOAT, [2, 2]))
    found = sum_orders(read_model(found), {"v": (-1.0, 1.0)})
    assert not found.exact
    assert "libraries may differ on MatMul" in found.statement()


def test_sums_behind_a_difference_are_rounded_anew_in_both_runs():
    weights = np.full((2000, 1), 1 / 3, dtype=FLOAT)
    nodes = [make_node("Neg", ["x"], ["m"]), make_node("MatMul", ["m", "w"], ["y"])]
    model = read_model(model_of(nodes, {"x": (1, 2000)}, ["y"], {"w": weights}))
    ranges = {"x": (-1.0, 1.0)}
    assert sum_orders(model, ranges, own=False).deviations["y"] == 0
    found = sum_orders(model, ranges, extra={"m": 1e-9}, own=False)
    # Two runs of 2000 products, whose magnitudes are 2000 / 3 together.
    assert found.deviations["y"] >= 2 * 2000 * UNIT * 2000 / 3


def test_one_range_stands_for_channels_with_scales_of_their_own():
    weights = RNG.normal(size=(3, 3)).astype(FLOAT)
    behind = [
        make_node("Softmax", ["m"], ["p"], axis=-1),
        make_node("Mul", ["p", "m"], ["h"]),
        quant_node("h", "y", "scales"),
    ]
    scales = np.array([[0.5, 0.25, 1.0]], dtype=FLOAT)
    found = sum_orders(layer(weights, scale=0.37, behind=behind, scales=scales))
    assert 0 < found.deviations["y"] < math.inf


@pytest.mark.parametrize("rounding", ["ROUND", "FLOOR", "CEIL", "UP", "DOWN", "HALF_UP"])
@pytest.mark.parametrize("zero", [-2.0, 0.0, 1.0])
def test_a_difference_of_many_steps_meets_thresholds_that_are_not_the_nearest(rounding, zero):
    nodes = [
        quant_node("x", "q", "six", "none", "eight", signed=1),
        quant_node("q", "y", "s", "z", "two", signed=1, rounding_mode=rounding),
    ]
    numbers = {"six": 6.0, "none": 0.0, "eight": 8.0, "s": 0.125, "z": zero, "two": 2.0}
    model = read_model(model_of(nodes, {"x": (1, 2)}, ["y"], numbers))
    found = sum_orders(model, {}, extra={"q": 6.0}, own=False)
    # Codes of 0 and of 6, which is clamped: 1 is the largest.
    codes = [np.clip(round(value / 0.125) + zero, -2, 1) for value in (0.0, 6.0)]
    assert found.deviations["y"] >= (codes[1] - codes[0]) * 0.125


def test_what_has_no_bound_has_none_behind_a_factor_and_a_choice():
    behind = [
        make_node("Elu", ["m"], ["e"], alpha=0.5),
        make_node("Mul", ["e", "k"], ["p"]),
        make_node("Where", ["c", "m", "p"], ["y"]),
    ]
    mask = np.array([[True]], dtype=np.bool_)
    net = layer(np.ones((4, 1), dtype=FLOAT), behind=behind, k=FLOAT(0.04), c=mask)
    found = sum_orders(net, extra={"q": 0.5}, own=False)
    assert math.isinf(found.deviations["p"])
    assert math.isinf(found.deviations["y"])
