from __future__ import annotations

import itertools

import numpy as np
import pytest

from qonnx_hub_ir.analysis.integer_sums import (
    largest_safe_weight,
    odd_part,
    saturates_in_16_bits,
    sum_range,
)
from qonnx_hub_ir.quantizers import bits_of_bounds, bits_of_range, integer_bounds, signed_bits


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


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 0, (1, False)), (0, 255, (8, False)), (3, 256, (9, False)), (-1, 0, (1, True))],
)
def test_what_is_not_below_zero_needs_no_sign(
    low: int, high: int, expected: tuple[int, bool]
) -> None:
    assert bits_of_range(low, high) == expected


def test_a_quantizer_with_signed_codes_has_two_bits_at_least() -> None:
    assert bits_of_range(-1, 0, least_signed=2) == (2, True)


@pytest.mark.parametrize("bits", [1, 2, 3, 8, 24])
@pytest.mark.parametrize(("signed", "narrow"), [(False, False), (True, False), (True, True)])
def test_bounds_of_a_quantizer_lead_back_to_its_bits(
    bits: int, signed: bool, narrow: bool
) -> None:
    low, high = integer_bounds(bits, signed=signed, narrow=narrow)
    # One signed bit means two levels, which have no range.
    expected = None if signed and bits == 1 else (bits, signed, narrow)
    assert bits_of_bounds(int(low), int(high)) == expected


@pytest.mark.parametrize(("low", "high"), [(0, 0), (1, 7), (0, 5), (-3, 4), (-4, 0), (-2, -1)])
def test_other_bounds_are_those_of_no_quantizer(low: int, high: int) -> None:
    assert bits_of_bounds(low, high) is None


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
