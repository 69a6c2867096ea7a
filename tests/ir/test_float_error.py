"""How far another order of adding can move float sums."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from qonnx_hub_ir.analysis.float_error import (
    FLOAT32_UNIT,
    REORDERED,
    likely_sum_error,
    reordering_error,
    sum_deviation,
    sum_error,
    sum_margin,
)


def _exact(terms: np.ndarray) -> Fraction:
    return sum((Fraction(float(t)) for t in terms), Fraction(0))


def _one_by_one(terms: np.ndarray) -> float:
    total = np.float32(0)
    for term in terms:
        total = np.float32(total + term)
    return float(total)


@pytest.mark.parametrize("seed", range(20))
def test_no_order_of_adding_is_off_by_more_than_the_bound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    terms = (rng.standard_normal(200) * 10.0 ** rng.integers(-6, 6, 200)).astype(np.float32)
    bound = sum_error(len(terms), float(np.abs(terms).astype(np.float64).sum()))
    for order in (terms, terms[::-1], np.sort(terms), rng.permutation(terms)):
        assert abs(Fraction(_one_by_one(order)) - _exact(terms)) <= Fraction(bound)


def test_the_bound_is_nearly_reached_where_every_addition_rounds_down() -> None:
    # One plus n halves of a unit, each of which is a tie that falls to one: all are lost.
    terms = np.array([1.0] + [FLOAT32_UNIT] * 1000, dtype=np.float32)
    lost = 1000 * FLOAT32_UNIT
    assert _one_by_one(terms) == 1.0
    assert lost <= sum_error(len(terms), 1.0 + lost) <= 1.01 * lost


def test_a_likely_error_holds_for_random_sums_and_is_far_below_the_bound() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        terms = rng.standard_normal(1000).astype(np.float32)
        size = float(np.abs(terms).sum())
        error = abs(Fraction(_one_by_one(terms)) - _exact(terms))
        assert error <= Fraction(likely_sum_error(1000, size))
    assert likely_sum_error(1000, 1.0) < sum_error(1000, 1.0)


def test_a_margin_covers_the_bound_and_ends_where_half_of_a_sum_may_be_lost() -> None:
    assert sum_margin(1000, FLOAT32_UNIT) >= 2 * sum_error(1000, 1.0)
    assert sum_margin(1023, 2.0**-11) < 2.0
    assert sum_margin(1024, 2.0**-11) == float("inf")


def test_reordering_is_measured_by_the_largest_finite_output() -> None:
    outputs = [
        np.array([1.0, -4.0, np.inf, np.nan], dtype=np.float32),
        np.array([100], dtype=np.int64),
        np.zeros(0, dtype=np.float32),
    ]
    assert reordering_error(outputs) == 4.0 * REORDERED
    assert reordering_error([]) == 0.0


def test_the_deviation_is_that_of_sums_in_float32() -> None:
    rng = np.random.default_rng(2)
    weights = rng.integers(-127, 128, (1, 256))
    x = rng.integers(0, 256, (4000, 256))
    scale = np.float32(0.1)
    sums = x @ weights[0]
    products = (x * scale).astype(np.float32) * weights[0].astype(np.float32)
    # Four partial sums side by side, as float libraries add.
    lanes = np.add.accumulate(products.reshape(4000, 64, 4), axis=1, dtype=np.float32)[:, -1]
    total = (lanes[:, 0] + lanes[:, 1]) + (lanes[:, 2] + lanes[:, 3])
    error = total.astype(np.float64) / float(scale) - sums
    mean = np.array([[sums.mean()]], dtype=np.float64)
    deviation = np.array([[sums.std()]], dtype=np.float64)
    predicted = float(sum_deviation(weights, mean, deviation, 0, 255)[0, 0])
    assert 0.3 * predicted < float(error.std()) < 3.0 * predicted
