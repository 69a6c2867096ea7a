"""Models that are one function of reals: proven equal, or within bounds that are carried."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from onnx.helper import make_node

import qonnx_hub as qh
from qonnx_hub.equivalence.proof.bounds import ModelBounds, OutputBound
from qonnx_hub.equivalence.proof.certificate import ProofOutcome
from qonnx_hub.equivalence.proof.linear_segments import (
    MOST_ELEMENTS,
    Segment,
    input_shape,
    run,
    segment_to,
)
from qonnx_hub.equivalence.proof.proof_model import ProofModel
from qonnx_hub.equivalence.proof.prove import prove_models
from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.onnx_reader import read_model
from tests.support import model_of, quant_node

FLOAT = np.float32
RNG = np.random.default_rng(11)


def weights(count=1, size=3):
    return [RNG.integers(-7, 8, size=(size, size)).astype(FLOAT) for _ in range(count)]


def parameters(scale, step, width):
    held = {"s": FLOAT(scale), "t": FLOAT(step), "v": FLOAT(width)}
    return held | {"z": FLOAT(0), "b": FLOAT(4)}


def as_products(matrices, scale, step, width, shape=(2, 3)):
    """Return layers of matrix products and quantizers."""
    nodes, held = [quant_node("x", "q0")], parameters(scale, step, width)
    for n, matrix in enumerate(matrices):
        held[f"w{n}"] = matrix * FLOAT(width)
        nodes += [
            quant_node(f"w{n}", f"v{n}", "v"),
            make_node("MatMul", [f"q{n}", f"v{n}"], [f"m{n}"]),
            quant_node(f"m{n}", f"q{n + 1}", "t"),
        ]
    return read_model(model_of(nodes, {"x": shape}, [f"q{len(matrices)}"], held))


def as_convolutions(matrices, scale, step, width, shape=(2, 3)):
    """Return the same layers as convolutions of one tap, with factors taken out in front."""
    nodes, held = [quant_node("x", "q0")], parameters(scale, step, width)
    held["axes"] = np.array([2], dtype=np.int64)
    for n, matrix in enumerate(matrices):
        held[f"w{n}"] = (matrix.T * FLOAT(width))[:, :, np.newaxis]
        nodes += [
            quant_node(f"w{n}", f"v{n}", "v"),
            make_node("Unsqueeze", [f"q{n}", "axes"], [f"u{n}"]),
            make_node("Conv", [f"u{n}", f"v{n}"], [f"c{n}"]),
            quant_node(f"c{n}", f"p{n}", "t"),
            make_node("Squeeze", [f"p{n}", "axes"], [f"q{n + 1}"]),
        ]
    return read_model(model_of(nodes, {"x": shape}, [f"q{len(matrices)}"], held))


def test_sums_on_a_grid_of_powers_of_two_are_proven_equal():
    given = weights(2), 0.5, 0.25, 0.125
    found = prove_models(as_products(*given), as_convolutions(*given), search=False)
    assert found.outcome is ProofOutcome.PROVEN
    assert "sums of whole numbers on a grid are exact" in found.assumptions


def test_sums_that_round_are_within_a_step_of_the_quantizer_behind_them():
    # A step of 0.3 * 0.7 * 2: every second sum lies on a tie.
    given = weights(), 0.3, 0.42, 0.7
    first, second = as_products(*given), as_convolutions(*given)
    found = prove_models(first, second, search=False)
    assert found.outcome is ProofOutcome.WITHIN
    assert [output.steps for output in found.bounds.outputs] == [1]
    assert found.bounds.words() == "outputs differ by at most 0.42 (1 step)"
    # Whatever the executor makes of either is within.
    x = RNG.normal(0, 3, size=(2, 3)).astype(FLOAT)
    one, other = (next(iter(Session(m).run({"x": x}).values())) for m in (first, second))
    assert np.max(np.abs(one - other)) <= found.bounds.outputs[0].bound


def test_sums_that_round_far_from_every_tie_are_proven_equal():
    # 0.21 n against 0.29 (m + 1 / 2): equal for no whole numbers in reach.
    given = weights(), 0.3, 0.29, 0.7
    found = prove_models(as_products(*given), as_convolutions(*given), search=False)
    assert found.outcome is ProofOutcome.PROVEN


def test_three_layers_each_a_step_off_at_a_tie_are_listed_and_not_proven():
    given = weights(3), 0.42, 0.42, 0.5
    found = prove_models(as_products(*given), as_convolutions(*given), search=False)
    assert found.outcome is not ProofOutcome.WITHIN
    assert not found.proven
    assert not found.bounds.holds
    assert [name for name, _ in found.bounds.layers] == ["c0", "c1", "c2"]
    assert found.bounds.words().startswith("bounds per layer")


def test_another_weight_is_not_within():
    given = weights(), 0.3, 0.42, 0.7
    other = [given[0][0] + np.eye(3, dtype=FLOAT)]
    found = prove_models(as_products(*given), as_convolutions(other, *given[1:]), search=False)
    assert found.bounds is None
    assert not found.proven


def test_a_weight_an_ulp_away_is_another_function():
    given = weights(), 0.3, 0.42, 0.7
    width = np.nextafter(FLOAT(0.7), FLOAT(1), dtype=FLOAT)
    other = as_convolutions(*given[:3], width)
    found = prove_models(as_products(*given), other, search=False)
    assert found.bounds is not None
    assert not found.bounds.same_function
    assert found.outcome is not ProofOutcome.WITHIN


def test_another_quantizer_behind_the_same_layer_is_not_within():
    given = weights(), 0.3
    found = prove_models(
        as_products(*given, 0.42, 0.7), as_convolutions(*given, 0.43, 0.7), search=False
    )
    assert found.bounds is None
    assert not found.proven


@pytest.mark.parametrize(
    ("count", "known"), [(MOST_ELEMENTS, True), (MOST_ELEMENTS + 1, False)]
)
def test_matrices_are_computed_of_so_many_elements(count, known):
    nodes = [make_node("Relu", ["x"], ["y"])]
    side = ProofModel(read_model(model_of(nodes, {"x": (1, count)}, ["y"])))
    value = side.model.graph.inputs[0]
    assert (input_shape(Segment(side, value, value, ())) is not None) is known


@pytest.mark.parametrize(
    ("bound", "width", "says"),
    [(0.9, 1.0, True), (1.0, 1.0, False), (2.0, 1.0, False), (np.inf, np.inf, False)],
)
def test_a_bound_as_wide_as_the_range_says_nothing(bound, width, says):
    output = OutputBound("y", bound, None, width)
    assert output.says_something is says
    assert ModelBounds((output,), True, ()).holds is says


def test_random_orders_of_the_sums_stay_within_what_is_proven():
    matrix = weights()[0]
    given = [matrix], 0.3, 0.42, 0.7
    found = prove_models(as_products(*given), as_convolutions(*given), search=False)
    codes = RNG.integers(-8, 8, size=(200, 3)).astype(FLOAT) * FLOAT(0.3)
    worst = 0.0
    for column in (matrix * FLOAT(0.7)).T:
        sums = []
        for order in itertools.permutations(range(3)):
            total = np.zeros(200, dtype=FLOAT)
            for k in order:
                total = total + codes[:, k] * column[k]
            sums.append(np.clip(np.rint(total / FLOAT(0.42)), -8, 7) * FLOAT(0.42))
        worst = max(worst, float(np.max(np.ptp(np.array(sums), axis=0))))
    assert worst <= found.bounds.outputs[0].bound * (1 + 1e-6)


def balanced(alpha, factor):
    """Return a layer whose weights add up to nothing: its sums of magnitudes do not."""
    half = np.round(np.random.default_rng(0).normal(size=(4, 4)) * 1000) / 1024
    held = parameters(0.1, 1, 1) | {"w": np.concatenate([half, -half]).astype(FLOAT) * factor}
    nodes = [quant_node("x", "q"), make_node("Gemm", ["q", "w"], ["y"], alpha=alpha)]
    return read_model(model_of(nodes, {"x": (2, 8)}, ["y"], held | {"b": FLOAT(8)}))


def test_weights_that_cancel_one_another_round_all_the_same():
    first, second = balanced(-3.0, FLOAT(1)), balanced(-1.0, FLOAT(3))
    found = prove_models(first, second, search=False)
    assert not found.proven
    x = np.random.default_rng(1).normal(size=(100, 2, 8)).astype(FLOAT)
    sessions = Session(first), Session(second)
    answers = [[next(iter(s.run({"x": one}).values())) for one in x] for s in sessions]
    apart = np.max(np.abs(np.array(answers[0]) - np.array(answers[1])))
    assert 0 < apart <= found.bounds.outputs[0].bound


ROWS = np.array([[1, -2], [-3, 4], [5, -6]], dtype=FLOAT)
MAGNITUDES = np.array([[9.0, 12.0]])
"""Of the columns: 1 + 3 + 5 and 2 + 4 + 6."""


@pytest.mark.parametrize(
    ("nodes", "held", "wanted"),
    [
        ([make_node("MatMul", ["x", "w"], ["y"])], {"w": ROWS}, MAGNITUDES),
        (
            [make_node("Gemm", ["x", "w", "c"], ["y"], alpha=-2.0, beta=-3.0, transB=1)],
            {"w": ROWS.T, "c": np.array([-1, 1], dtype=FLOAT)},
            2 * MAGNITUDES + 3,
        ),
        (
            [
                make_node("MatMul", ["x", "w"], ["m"]),
                make_node("Sub", ["m", "c"], ["d"]),
                make_node("Div", ["d", "f"], ["y"]),
            ],
            {"w": ROWS, "c": np.array([1, -1], dtype=FLOAT), "f": np.array(-0.5, dtype=FLOAT)},
            (MAGNITUDES + 1) / 0.5,
        ),
        (
            [
                make_node("Unsqueeze", ["x", "axes"], ["u"]),
                make_node("Conv", ["u", "w"], ["y"]),
            ],
            {"w": ROWS.T[:, :, np.newaxis], "axes": np.array([2], dtype=np.int64)},
            MAGNITUDES[:, :, np.newaxis],
        ),
    ],
    ids=["MatMul", "Gemm", "Sub and Div", "Conv"],
)
def test_sums_of_magnitudes_are_those_of_every_term(nodes, held, wanted):
    side = ProofModel(read_model(model_of(nodes, {"x": (1, 3)}, ["y"], held)))
    [x], [y] = side.model.graph.inputs, side.model.graph.outputs
    part = segment_to(side, y, lambda value: value is x)
    ones = np.ones((1, 3))
    np.testing.assert_array_equal(run(part, ones, magnitudes=True), wanted)


def test_a_check_says_that_a_bound_is_proven():
    given = weights(), 0.3, 0.42, 0.7
    result = qh.check(as_products(*given), as_convolutions(*given))
    assert str(result.verdict) == "PROVEN_WITHIN"
    assert result
    assert result.reason == "outputs differ by at most 0.42 (1 step)"


@pytest.mark.parametrize(("lsb", "holds"), [(None, False), (0, False), (1, True)])
def test_a_bound_on_two_functions_holds_where_the_caller_allows_it(lsb, holds):
    given = weights(), 0.3, 0.42
    width = np.nextafter(FLOAT(0.7), FLOAT(1), dtype=FLOAT)
    allowed = {} if lsb is None else {"lsb": lsb}
    result = qh.check(as_products(*given, 0.7), as_convolutions(*given, width), **allowed)
    assert (str(result.verdict) == "PROVEN_WITHIN") is holds


def test_bounds_per_layer_are_noted_where_none_is_proven_of_the_outputs():
    given = weights(3), 0.42, 0.42, 0.5
    result = qh.check(as_products(*given), as_convolutions(*given))
    assert str(result.verdict) != "PROVEN_WITHIN"
    assert any("bounds per layer" in note for note in result.notes)


def test_weights_apart_count_with_the_largest_input():
    # Codes up to 15 of 16: a weight 2^-12 away moves the sum by 240 * 2^-12.
    def product(weight):
        held = {
            "s": FLOAT(16),
            "z": FLOAT(0),
            "b": FLOAT(4),
            "w": np.array([[weight], [2]], FLOAT),
        }
        nodes = [quant_node("x", "q", signed=0), make_node("MatMul", ["q", "w"], ["y"])]
        return read_model(model_of(nodes, {"x": (1, 2)}, ["y"], held))

    bounds = prove_models(product(1.0), product(1.0 + 2.0**-12)).bounds
    assert not bounds.same_function
    assert bounds.outputs[0].bound == pytest.approx(240 * 2.0**-12, rel=0.01)
