"""Quantizers as data, their integer ranges, and the codes that hardware stores."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qonnx_hub_ir.quantizers import (
    BipolarQuant,
    FloatQuant,
    IntQuant,
    Rounding,
    Trunc,
    integer_bounds,
    is_bipolar,
    is_power_of_two,
    single_value,
)
from qonnx_hub_ir.semantics import quantize, quantize_to_integers
from tests.ir.graphs import f32


def int_quant(scale=1.0, zero=0.0, bits=4.0, **changes) -> IntQuant:
    return IntQuant(f32(scale), f32(zero), f32(bits), **changes)


@pytest.mark.parametrize(
    ("bits", "signed", "narrow", "low", "high"),
    [
        # The examples of the operator document's own functions for 8 bits, and the edges.
        (8, True, True, -127, 127),
        (8, False, True, 0, 254),
        (8, True, False, -128, 127),
        (8, False, False, 0, 255),
        (2, True, False, -2, 1),
        (2, True, True, -1, 1),
        (1, False, False, 0, 1),
        (1, False, True, 0, 0),
        (32, True, False, -2147483648, 2147483647),
        (63, False, False, 0, 9223372036854775807),
    ],
)
def test_a_bit_width_has_a_range_of_integers(bits, signed, narrow, low, high):
    assert integer_bounds(bits, signed=signed, narrow=narrow) == (low, high)


@pytest.mark.parametrize(
    ("values", "answer"),
    [
        ([1.0, 0.5, 4.0], True),
        ([2.0**-149], True),
        ([0.5, 0.3], False),
        ([0.0], False),
        ([-2.0], False),
        ([np.inf], False),
        ([np.nan], False),
        ([], False),
        (None, False),
    ],
)
def test_a_power_of_two_is_told_from_other_numbers(values, answer):
    assert is_power_of_two(None if values is None else f32(values)) is answer


@pytest.mark.parametrize(
    ("values", "answer"), [(f32(3), 3.0), (f32([[2, 2]]), 2.0), (f32([2, 3]), None)]
)
def test_the_value_that_all_elements_share_is_found(values, answer):
    assert single_value(values) == answer
    assert single_value(None) is None
    assert single_value(f32([])) is None


@pytest.mark.parametrize(
    ("quant", "answer"),
    [
        (BipolarQuant(None), True),
        (int_quant(bits=1.0), True),
        (int_quant(bits=[1.0, 1.0]), True),
        (int_quant(bits=1.0, signed=False), False),
        (int_quant(bits=2.0, narrow=True), False),
        (dataclasses.replace(int_quant(), bits=None), False),
        (Trunc(f32(1), f32(0), f32(8), f32(2), f32(1)), False),
    ],
)
def test_only_one_signed_bit_and_bipolar_have_two_levels(quant, answer):
    assert is_bipolar(quant) is answer


def test_quantizers_are_equal_when_every_bit_is():
    assert int_quant(0.5) == int_quant(0.5)
    assert hash(int_quant(0.5)) == hash(int_quant(0.5))
    assert int_quant(np.nan) == int_quant(np.nan)
    assert len({int_quant(0.5), int_quant(0.5), int_quant(0.25)}) == 2


@pytest.mark.parametrize(
    "other",
    [
        int_quant(0.25),
        int_quant([0.5]),
        int_quant(0.5, -0.0),
        int_quant(0.5, signed=False),
        int_quant(0.5, narrow=True),
        int_quant(0.5, rounding=Rounding.FLOOR),
        IntQuant(np.array(0.5, dtype=np.float64), f32(0), f32(4)),
        IntQuant(None, f32(0), f32(4)),
        BipolarQuant(f32(0.5)),
        0.5,
    ],
)
def test_a_quantizer_differs_when_anything_does(other):
    assert int_quant(0.5) != other


def test_a_quantizer_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        int_quant().signed = False  # type: ignore[misc]


def test_a_rounding_mode_is_written_as_onnx_spells_it():
    assert [str(mode) for mode in Rounding][:3] == ["ROUND", "CEIL", "FLOOR"]
    assert f"{Rounding.HALF_UP!s}" == "HALF_UP"


def test_codes_are_the_integers_before_scaling_back():
    x = f32([-9, -0.3, 0.3, 0.8, 9])
    assert quantize_to_integers(x, int_quant(0.5)).tolist() == [-8, -1, 1, 2, 7]
    assert quantize_to_integers(x, int_quant(0.5)).dtype == np.int64


def test_codes_contain_the_zero_point():
    quant = int_quant(0.5, 3.0, 8.0, signed=False)
    assert quantize_to_integers(f32([-9, 0, 1, 900]), quant).tolist() == [0, 3, 5, 255]


def test_codes_are_rounded_in_the_quantizers_mode():
    x = f32([1.5, -1.5])
    for mode, codes in {"FLOOR": [1, -2], "UP": [2, -2], "DPU": [2, -1]}.items():
        quant = int_quant(rounding=Rounding(mode))
        assert quantize_to_integers(x, quant).tolist() == codes


@pytest.mark.parametrize(
    "quant",
    [BipolarQuant(f32(0.5)), int_quant(0.5, bits=1.0), int_quant(0.5, bits=[1.0, 1.0, 1.0])],
)
def test_codes_of_two_levels_are_minus_and_plus_one(quant):
    assert quantize_to_integers(f32([-3, 0, 3]), quant).tolist() == [-1, 1, 1]


def test_codes_have_the_shape_of_the_input():
    x = np.zeros((2, 3), dtype=np.float32)
    assert quantize_to_integers(x, int_quant([[0.5], [0.25]])).shape == (2, 3)
    assert quantize_to_integers(f32(1), int_quant([[0.5]])).shape == ()
    with pytest.raises(ValueError, match="scale has shape"):
        quantize_to_integers(f32([[1.0]]), int_quant([0.5, 0.25]))


@pytest.mark.parametrize(
    ("bits", "signed", "narrow", "low", "high"),
    [
        # float32 knows neither 2**31 - 1 nor 2**63 - 1: its nearest values are one too high.
        (32, True, False, -(2**31), 2**31 - 1),
        (32, True, True, -(2**31) + 1, 2**31 - 1),
        (32, False, False, 0, 2**32 - 1),
        (25, False, True, 0, 2**25 - 2),
        (64, True, False, -(2**63), 2**63 - 1),
        (63, False, False, 0, 2**63 - 1),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_code_never_leaves_the_integer_range(bits, signed, narrow, low, high, dtype):
    x = np.array([-np.inf, -3e38, 3e38, np.inf], dtype=dtype)
    quant = int_quant(bits=bits, signed=signed, narrow=narrow)
    assert quantize_to_integers(x, quant).tolist() == [low, low, high, high]


def test_codes_that_need_more_than_int64_are_refused():
    with pytest.raises(ValueError, match="do not fit into int64"):
        quantize_to_integers(f32([1]), int_quant(bits=64.0, signed=False))


def test_a_fractional_bit_width_has_no_codes():
    with pytest.raises(ValueError, match="do not fit into int64"):
        quantize_to_integers(f32([1]), int_quant(bits=3.5))


@pytest.mark.parametrize("quant", [int_quant(), int_quant(bits=1.0), BipolarQuant(f32(1))])
def test_a_nan_has_no_code(quant):
    with pytest.raises(ValueError, match="NaN has no integer code"):
        quantize_to_integers(f32([0, np.nan]), quant)


@pytest.mark.parametrize("scale", [np.nan, np.inf])
def test_a_value_that_becomes_nan_has_no_code(scale):
    with pytest.raises(ValueError, match="NaN has no integer code"):
        quantize_to_integers(f32([np.inf]), int_quant(scale))


def test_codes_need_every_parameter():
    with pytest.raises(ValueError, match="computed at run time"):
        quantize_to_integers(f32([1]), IntQuant(None, f32(0), f32(4)))


def test_integers_have_no_codes():
    with pytest.raises(TypeError, match="takes float values"):
        quantize_to_integers(np.array([1], dtype=np.int8), int_quant())


@given(
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=8),
    st.floats(2**-20, 2**20, width=32),
    st.sampled_from([0.0, 1.0, -3.0, 0.5]),
    st.integers(1, 32),
    st.booleans(),
    st.sampled_from(list(Rounding)),
)
def test_scaling_a_code_back_gives_the_quantized_value(x, scale, zero, bits, signed, mode):
    quant = int_quant(scale, zero, bits, signed=signed, rounding=mode)
    codes = quantize_to_integers(f32(x), quant)
    with np.errstate(over="ignore"):
        back = (codes.astype(np.float32) - f32(zero)) * f32(scale)
    assert np.array_equal(back, quantize(f32(x), quant))


def test_a_float_quant_says_what_overflow_becomes():
    quant = FloatQuant(f32(1), f32(4), f32(3), f32(7), f32(448))
    assert (quant.saturation, quant.has_inf, quant.has_nan) == (True, False, False)
