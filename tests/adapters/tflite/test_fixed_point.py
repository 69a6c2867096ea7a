"""The fixed-point multiplier against exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qonnx_hub_adapters.tflite.kernels.fixed_point import (
    factor,
    rescale,
    rescale_wide,
    round_away,
    shift_right,
)

SUMS = st.integers(-(2**24), 2**24)
REALS = st.floats(1e-6, 1.0, exclude_max=True)


def half_up(x: Fraction) -> int:
    return math.floor(x + Fraction(1, 2))


def parts(real: float) -> tuple[int, int]:
    """Return multiplier and exponent of a real factor."""
    mantissa, exponent = math.frexp(real)
    multiplier = half_away(Fraction(mantissa) * 2**31)
    return (multiplier // 2, exponent + 1) if multiplier == 2**31 else (multiplier, exponent)


def half_away(x: Fraction) -> int:
    return half_up(x) if x >= 0 else -half_up(-x)


@given(SUMS, REALS)
def test_a_sum_is_rounded_half_up_and_then_half_away(total: int, real: float):
    multiplier, exponent = parts(real)
    shifted = total * 2 ** max(exponent, 0)
    first = half_up(Fraction(shifted * multiplier, 2**31))
    expected = half_away(Fraction(first, 2 ** max(-exponent, 0)))
    assert int(rescale(np.int64(total), factor(real))) == expected


@given(st.integers(-(2**40), 2**40), REALS)
def test_a_wide_sum_is_rounded_once_with_a_factor_of_15_bits(total: int, real: float):
    multiplier, exponent = parts(real)
    short = 0x7FFF if multiplier >= 0x7FFF0000 else (multiplier + 2**15) >> 16
    expected = half_up(Fraction(total * short) / 2 ** (15 - exponent))
    if -(2**31) <= expected < 2**31:
        assert int(rescale_wide(np.int64(total), factor(real))) == expected


@given(st.integers(-(2**31), 2**31 - 1), st.integers(0, 30))
def test_a_shift_rounds_half_away_from_zero(x: int, by: int):
    assert int(shift_right(x, by)) == half_away(Fraction(x, 2**by))


def test_a_factor_above_one_shifts_left_first():
    by = factor(3.0)
    assert (int(by.multiplier), int(by.exponent)) == (3 << 29, 2)
    assert int(rescale(np.int64(-7), by)) == -21


@pytest.mark.parametrize(("x", "expected"), [(0.5, 1), (-0.5, -1), (2.5, 3), (0.49999999, 0)])
def test_floats_round_half_away_from_zero(x: float, expected: int):
    assert round_away(x) == expected
