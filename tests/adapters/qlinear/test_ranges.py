from __future__ import annotations

import itertools

import numpy as np
import pytest

from qonnx_hub_ir.analysis.integer_sums import (
    largest_safe_weight,
    odd_part,
    saturates_in_16_bits,
    signed_bits,
    sum_range,
)


@pytest.mark.parametrize(("low", "high"), [(-2, 1), (0, 3), (1, 2), (-3, -1)])
def test_the_range_of_sums_is_that_of_all_inputs(low: int, high: int) -> None:
    weights = np.array([[1, -2, 3], [0, 0, -1], [2, 2, 2]], dtype=np.int64)
    everything = np.array(list(itertools.product(range(low, high + 1), repeat=3)))
    sums = everything @ weights.T
    found = sum_range(weights, low, high)
    assert found.low.tolist() == sums.min(axis=0).tolist()
    assert found.high.tolist() == sums.max(axis=0).tolist()
    magnitudes = np.abs(everything) @ np.abs(weights.T)
    assert np.all(found.magnitude >= magnitudes.max(axis=0))


@pytest.mark.parametrize(
    ("low", "high", "bits"),
    [
        (0, 0, 1),
        (-1, 0, 1),
        (0, 1, 2),
        (-2, 1, 2),
        (-128, 127, 8),
        (-128, 128, 9),
        (-129, 0, 9),
    ],
)
def test_bits_are_those_of_twos_complement(low: int, high: int, bits: int) -> None:
    assert signed_bits(low, high) == bits


def test_odd_parts() -> None:
    scales = np.array([1.0, 0.25, 3.0, 0.75, 40.0], dtype=np.float32)
    assert odd_part(scales).tolist() == [1, 1, 3, 3, 5]


def test_full_bytes_saturate_and_seven_bits_on_either_side_do_not() -> None:
    assert saturates_in_16_bits(255, 127)
    assert not saturates_in_16_bits(255, 64)
    assert not saturates_in_16_bits(127, 128)
    for activation in (1, 3, 129, 255):
        weight = largest_safe_weight(activation)
        assert not saturates_in_16_bits(activation, weight)
        assert saturates_in_16_bits(activation, weight + 1)
