"""Rounding, Quant and BipolarQuant against numbers worked out by hand."""

from __future__ import annotations

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qonnx_hub_ir.quantizers import BipolarQuant, IntQuant, Rounding
from qonnx_hub_ir.semantics import compile_quantizer, compute_dtype, quantize, round_values
from tests.ir.graphs import f32

# The table of the QONNX operator documents, for the modes that they name.
NUMBERS = [5.5, 2.5, 1.6, 1.1, 1.0, -1.0, -1.1, -1.6, -2.5, -5.5]
TABLE = {
    "ROUND": [6, 2, 2, 1, 1, -1, -1, -2, -2, -6],
    "CEIL": [6, 3, 2, 2, 1, -1, -1, -1, -2, -5],
    "FLOOR": [5, 2, 1, 1, 1, -1, -2, -2, -3, -6],
    "UP": [6, 3, 2, 2, 1, -1, -2, -2, -3, -6],
    "DOWN": [5, 2, 1, 1, 1, -1, -1, -1, -2, -5],
    "HALF_UP": [6, 3, 2, 1, 1, -1, -1, -2, -3, -6],
    "HALF_DOWN": [5, 2, 2, 1, 1, -1, -1, -2, -2, -5],
}
MODES = list(Rounding)


def int_quant(scale=1.0, zero=0.0, bits=4.0, **changes) -> IntQuant:
    return IntQuant(f32(scale), f32(zero), f32(bits), **changes)


@pytest.mark.parametrize("mode", TABLE)
def test_a_mode_rounds_as_its_document_says(mode):
    assert round_values(f32(NUMBERS), Rounding(mode)).tolist() == TABLE[mode]


def test_every_mode_of_the_documents_is_in_the_table():
    assert {*TABLE, "DPU"} == {str(mode) for mode in Rounding}


@pytest.mark.parametrize(
    ("number", "rounded"),
    [
        # Measured with Brevitas: its DPU rounding of these ties.
        *[(-2.5, -2), (-1.5, -1), (-0.5, 0), (0.5, 0), (1.5, 2), (2.5, 2)],
        # What is no tie goes to the nearest.
        *[(-2.6, -3), (-2.4, -2), (-0.6, -1), (2.6, 3), (2.4, 2), (0.0, 0)],
    ],
)
def test_dpu_rounds_negative_ties_up_and_other_ties_to_even(number, rounded):
    assert round_values(f32(number), Rounding.DPU) == rounded


def test_half_up_adds_its_half_in_float32():
    # 0.49999997 + 0.5 is 1.0 in float32: the reference implementation rounds it up as well.
    below = np.nextafter(f32(0.5), f32(0))
    assert round_values(f32([below, -below]), Rounding.HALF_UP).tolist() == [1, -1]
    wide = np.array([below], dtype=np.float64)
    assert round_values(wide, Rounding.HALF_UP).tolist() == [0]


@given(st.sampled_from(MODES), st.integers(-(2**22), 2**22))
def test_a_whole_number_stays_in_every_mode(mode, number):
    assert round_values(f32(number), mode) == number


@given(st.sampled_from(MODES), st.floats(-(2**21), 2**21, width=32, allow_subnormal=False))
def test_a_mode_moves_a_number_by_less_than_one(mode, number):
    rounded = float(round_values(f32(number), mode))
    assert rounded == np.rint(rounded)
    # As fractions: in floats the distance of 1 to a tiny number is 1.
    assert abs(Fraction(rounded) - Fraction(number)) < 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_in_place_gives_the_same_numbers(mode, dtype):
    t = np.array([*NUMBERS, 0.5, -0.5], dtype=dtype)
    expected = round_values(t.copy(), mode)
    result = round_values(t, mode, out=t)
    assert result is t
    assert result.dtype == dtype
    assert result.tolist() == expected.tolist()


def test_a_tie_rounds_to_even_on_the_grid_of_the_scale():
    # Ties lie at odd multiples of scale / 2 = 0.125.
    x = f32([0.125, 0.375, 0.625, -0.125, -0.375])
    assert quantize(x, int_quant(0.25)).tolist() == [0, 0.5, 0.5, 0, -0.5]


@pytest.mark.parametrize(
    ("signed", "narrow", "low", "high"),
    [(True, False, -8, 7), (True, True, -7, 7), (False, False, 0, 15), (False, True, 0, 14)],
)
def test_values_saturate_at_the_ends_of_the_range(signed, narrow, low, high):
    quant = int_quant(0.5, signed=signed, narrow=narrow)
    x = f32([-100, low / 2 - 0.5, low / 2, high / 2, high / 2 + 0.5, 100])
    expected = [low / 2, low / 2, low / 2, high / 2, high / 2, high / 2]
    assert quantize(x, quant).tolist() == expected


def test_the_clamp_comes_before_the_rounding():
    # Rounding 7.4 up would give 8, outside the range; clamped first, it is 7.
    assert quantize(f32([7.4, -8.4]), int_quant(rounding=Rounding.UP)).tolist() == [7, -8]


def test_one_unsigned_bit_is_zero_or_one_step():
    quant = int_quant(2.0, bits=1.0, signed=False)
    assert quantize(f32([-3, 0.9, 1.0, 1.1, 9]), quant).tolist() == [0, 0, 0, 2, 2]


def test_one_unsigned_narrow_bit_is_zero():
    assert quantize(f32([-1, 5]), int_quant(bits=1.0, signed=False, narrow=True)).tolist() == [
        0,
        0,
    ]


ONE_SIGNED_BIT = [int_quant(0.5, bits=1.0), BipolarQuant(f32(0.5))]


@pytest.mark.parametrize("quant", ONE_SIGNED_BIT)
def test_two_levels_have_the_sign_of_the_value(quant):
    assert quantize(f32([-7, -0.01, 0.01, 7]), quant).tolist() == [-0.5, -0.5, 0.5, 0.5]


@pytest.mark.parametrize("quant", ONE_SIGNED_BIT)
def test_two_levels_take_zero_of_either_sign_to_the_upper_one(quant):
    assert quantize(f32([0.0, -0.0]), quant).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("quant", ONE_SIGNED_BIT)
def test_two_levels_take_a_nan_to_the_lower_one(quant):
    assert quantize(f32([np.nan]), quant).tolist() == [-0.5]


def test_one_signed_bit_looks_at_the_value_with_zero_point():
    # x + 0.5 >= 0 chooses between (1 - 0.5) and (-1 - 0.5).
    quant = int_quant(zero=0.5, bits=1.0)
    assert quantize(f32([-0.4, -0.5, -0.6]), quant).tolist() == [0.5, 0.5, -1.5]


def test_one_signed_bit_compares_the_quotient_which_may_underflow():
    # -1e-45 / 4 is -0.0 in float32, and that is not below zero.
    assert quantize(f32([-1e-45, -1e-40]), int_quant(4.0, bits=1.0)).tolist() == [4, -4]


def test_bipolar_compares_the_value_itself():
    assert quantize(f32([-1e-45]), BipolarQuant(f32(4))).tolist() == [-4]


@pytest.mark.parametrize(
    ("zero", "x", "y"),
    [
        (1.0, 0.5, 1.0),  # 1.5 rounds to 2; rounding first would give 0
        (3.0, 0.5, 1.0),  # 3.5 rounds to 4
        (2.0, 0.5, 0.0),  # 2.5 rounds to 2
        (-1.0, 2.5, 3.0),  # 1.5 rounds to 2
        (0.25, 1.2, 0.75),  # 1.45 rounds to 1
        (0.5, 0.5, 0.5),  # 1.0 is 1
        (1.0, 9.0, 6.0),  # 10 is clamped to 7
        (1.0, -20.0, -9.0),  # -19 is clamped to -8
    ],
)
def test_rounding_happens_after_the_zero_point_is_added(zero, x, y):
    assert quantize(f32([x]), int_quant(zero=zero)).tolist() == [y]


def test_an_unsigned_range_with_zero_point_reaches_below_zero():
    quant = int_quant(0.5, zero=128.0, bits=8.0, signed=False)
    assert quantize(f32([-100, -64, 0.3, 63.5, 90]), quant).tolist() == [
        -64,
        -64,
        0.5,
        63.5,
        63.5,
    ]


@given(
    st.floats(-1000, 1000, width=32),
    st.floats(2**-10, 2**10, width=32),
    st.sampled_from([6.0, 8.0, 12.0]),
)
def test_the_quotient_is_the_true_one_rounded_once(x, scale, bits):
    # A float64 quotient of float32 numbers, rounded to float32, is the correctly rounded one.
    quotient = float(np.float32(np.float64(x) / np.float64(scale)))
    code = round(min(max(quotient, -(2 ** (bits - 1))), 2 ** (bits - 1) - 1))
    expected = np.float32(code * float(f32(scale)))
    assert quantize(f32([x]), int_quant(scale, bits=bits)).tolist() == [expected]


@pytest.mark.parametrize(("x", "code"), [(0.75000006, 2), (1.65, 5), (2.25, 7)])
def test_dividing_is_not_multiplying_by_the_reciprocal(x, code):
    # x / 0.3 is 2.5 (a tie), 5.4999995 and 7.4999995; x * (1 / 0.3) rounds to 3, 6 and 8.
    scale = f32(0.3)
    assert np.round(f32(x) * (f32(1) / scale)) == code + 1
    assert quantize(f32([x]), int_quant(0.3, bits=8.0)).tolist() == [f32(code) * scale]


@pytest.mark.parametrize(
    ("shape", "axis"), [((3, 1, 1), 1), ((1, 3, 1, 1), 1), ((2, 1, 1, 1), 0), ((4,), 3)]
)
def test_each_channel_has_its_own_scale_and_zero_point(shape, axis):
    x = np.arange(2 * 3 * 2 * 4, dtype=np.float32).reshape(2, 3, 2, 4) - f32(20)
    scales = f32([0.5, 1.0, 4.0, 8.0])[: x.shape[axis]]
    zeros = f32([0.0, 1.0, 2.0, -3.0])[: x.shape[axis]]
    quant = IntQuant(scales.reshape(shape), zeros.reshape(shape), f32(4))
    y = quantize(x, quant)
    for index, (scale, zero) in enumerate(zip(scales, zeros, strict=True)):
        alone = quantize(np.take(x, index, axis), int_quant(scale, zero))
        assert np.take(y, index, axis).tolist() == alone.tolist()


def test_each_channel_has_its_own_bit_width():
    quant = int_quant(bits=[2.0, 3.0, 8.0])
    assert quantize(f32([[9, 9, 9], [-9, -9, -9]]), quant).tolist() == [
        [1, 3, 9],
        [-2, -4, -9],
    ]


@pytest.mark.parametrize("shape", [(1,), (1, 1), (1, 1, 1, 1)])
@pytest.mark.parametrize("x", [f32(0.3), f32([0.3]), f32([[0.3], [0.9]])])
def test_a_single_parameter_never_adds_axes_to_the_input(shape, x):
    one = np.full(shape, 0.5, dtype=np.float32)
    zero, bits = np.zeros(shape, dtype=np.float32), np.full(shape, 4, dtype=np.float32)
    y = quantize(x, IntQuant(one, zero, bits))
    assert y.shape == x.shape
    assert y.tolist() == (np.round(x / f32(0.5)) * f32(0.5)).tolist()
    assert quantize(x, BipolarQuant(one)).shape == x.shape


@pytest.mark.parametrize("scale", [[1.0, 1.0, 1.0], [1.0, 2.0, 3.0]])
@pytest.mark.parametrize("x", [f32([[1.0], [2.0]]), f32([1.0, 2.0]), f32(1.0)])
def test_parameters_that_would_enlarge_the_input_are_refused(scale, x):
    with pytest.raises(ValueError, match="shape"):
        quantize(x, int_quant(scale))
    with pytest.raises(ValueError, match="shape"):
        quantize(x, BipolarQuant(f32(scale)))


def test_float64_is_computed_and_returned_in_float64():
    x = np.array([0.1, 1 + 1e-12, -0.05], dtype=np.float64)
    y = quantize(x, int_quant(0.1, bits=8.0))
    step = np.float64(np.float32(0.1))
    assert y.dtype == np.float64
    assert y.tolist() == [step, 10 * step, 0]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_computes_in_float32_and_rounds_once(dtype):
    bits = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    x = bits[np.isfinite(bits.astype(np.float32))]
    y = quantize(x, int_quant(0.1, bits=8.0))
    with np.errstate(over="ignore"):
        wide = x.astype(np.float32) / f32(0.1)
    expected = (np.round(np.clip(wide, -128, 127)) * f32(0.1)).astype(dtype)
    assert y.dtype == dtype
    assert np.array_equal(y.astype(np.float32), expected.astype(np.float32))


def test_half_precision_arithmetic_would_give_other_codes():
    x = np.arange(1 << 15, dtype=np.uint16).view(np.float16)
    x = x[(x > 0) & (x < 12)]
    narrow = np.round(x / np.float16(0.1)) * np.float16(0.1)
    assert not np.array_equal(quantize(x, int_quant(0.1, bits=8.0)), narrow)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.bool_, np.complex64])
def test_a_value_that_is_no_float_is_refused(dtype):
    with pytest.raises(TypeError, match="takes float values"):
        quantize(np.zeros(3, dtype=dtype), int_quant())
    with pytest.raises(TypeError, match=np.dtype(dtype).name):
        compute_dtype(np.zeros(3, dtype=dtype))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("zero", [0.0, 1.0, 0.5])
def test_infinities_saturate_and_a_nan_stays_one(mode, zero):
    y = quantize(f32([np.inf, -np.inf, np.nan]), int_quant(0.5, zero, rounding=mode))
    assert y[:2].tolist() == [(7 - zero) / 2, (-8 - zero) / 2]
    assert np.isnan(y[2])


def test_limits_beyond_float32_are_rounded_once():
    # 2**31 - 1 is no float32; the nearest one is 2**31.
    y = quantize(f32([1e20, -1e20]), int_quant(bits=32.0))
    assert y.tolist() == [2.0**31, -(2.0**31)]


def test_a_unit_scale_without_zero_point_is_no_special_case():
    x = f32([0.5, 1.5, -0.5, 9, -9, 2.4])
    assert quantize(x, int_quant()).tolist() == [0, 2, 0, 7, -8, 2]
    assert quantize(x, int_quant(zero=1.0)).tolist() == [1, 1, -1, 6, -9, 2]


def test_an_infinite_scale_gives_nan():
    # x / inf is 0 and 0 * inf is NaN, as in the reference implementation.
    assert np.isnan(quantize(f32([1.0, np.inf]), int_quant(np.inf))).all()


@pytest.mark.parametrize(
    "quant",
    [
        int_quant(0.5),
        int_quant(0.5, 1.0),
        int_quant(),
        int_quant(zero=2.0),
        int_quant(0.5, 0.5, 1.0),
        int_quant(0.5, rounding=Rounding.DPU),
        BipolarQuant(f32(2)),
    ],
)
@pytest.mark.parametrize("x", [f32([[-3.3, 0.2], [0.75, 9.0]]), f32(3.3), f32([])])
def test_quantizing_in_place_gives_the_same_numbers(quant, x):
    apply = compile_quantizer(quant)
    expected = quantize(x, quant).tolist()
    own, target = x.copy(), np.full_like(x, 77)
    assert apply(own, own) is own
    assert own.tolist() == expected
    assert apply(x, target) is target
    assert target.tolist() == expected


def test_the_input_is_left_alone():
    x = f32([0.3, 9.0])
    quantize(x, int_quant(0.5))
    assert x.tolist() == f32([0.3, 9.0]).tolist()


def test_a_compiled_quantizer_takes_one_float_type_after_the_other():
    apply = compile_quantizer(int_quant(0.5))
    for dtype in (np.float32, np.float64, np.float16, np.float32):
        y = apply(np.array([0.8, -9], dtype=dtype))
        assert (y.dtype, y.tolist()) == (dtype, [1.0, -4.0])


@pytest.mark.parametrize("missing", ["scale", "zero_point", "bits"])
def test_a_parameter_computed_at_run_time_must_be_given_first(missing):
    known = {"scale": f32(1), "zero_point": f32(0), "bits": f32(4)} | {missing: None}
    with pytest.raises(ValueError, match="computed at run time"):
        compile_quantizer(IntQuant(**known))


def test_one_signed_bit_beside_larger_widths_has_no_meaning():
    with pytest.raises(ValueError, match="mixes bit width 1"):
        quantize(f32([0.1, 0.2]), int_quant(bits=[1.0, 2.0]))
    unsigned = int_quant(bits=[1.0, 2.0], signed=False)
    assert quantize(f32([9, 9]), unsigned).tolist() == [1, 3]
