"""FloatQuant against ml_dtypes, an independent implementation, and Trunc by hand."""

from __future__ import annotations

import dataclasses

import ml_dtypes
import numpy as np
import pytest

from qonnx_hub_ir.quantizers import FloatQuant, Rounding, Trunc
from qonnx_hub_ir.semantics import compile_quantizer, largest_float, quantize
from tests.ir.graphs import f32

# ml_dtypes type, exponent bits, mantissa bits, exponent bias.
FORMATS = {
    "e4m3": (ml_dtypes.float8_e4m3fn, 4, 3, 7),
    "e5m2": (ml_dtypes.float8_e5m2, 5, 2, 15),
    "e4m3fnuz": (ml_dtypes.float8_e4m3fnuz, 4, 3, 8),
    "e5m2fnuz": (ml_dtypes.float8_e5m2fnuz, 5, 2, 16),
    "e3m2": (ml_dtypes.float6_e3m2fn, 3, 2, 3),
    "e2m3": (ml_dtypes.float6_e2m3fn, 2, 3, 1),
    "e2m1": (ml_dtypes.float4_e2m1fn, 2, 1, 1),
    "bfloat16": (ml_dtypes.bfloat16, 8, 7, 127),
    "float16": (np.float16, 5, 10, 15),
}


def float_quant(name: str = "e4m3", scale=1.0, **changes) -> FloatQuant:
    kind, exponent, mantissa, bias = FORMATS[name]
    largest = float(ml_dtypes.finfo(kind).max)
    quant = FloatQuant(f32(scale), f32(exponent), f32(mantissa), f32(bias), f32(largest))
    return dataclasses.replace(quant, **changes)


def values_of(kind) -> np.ndarray:
    """Every finite value of a type of at most 16 bits, in order.

    Without the tiny ones of bfloat16: the operator adds float32's smallest normal number to a
    magnitude before it takes the exponent, and beside that number this is seen.
    """
    bits = 8 * np.dtype(kind).itemsize
    codes = np.arange(1 << bits, dtype=np.uint16 if bits == 16 else np.uint8)
    values = np.unique(codes.view(kind).astype(np.float32))
    return values[np.isfinite(values) & ((np.abs(values) > 2.0**-100) | (values == 0))]


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_represents_exactly_its_own_values(name):
    values = values_of(FORMATS[name][0])
    assert len(values) >= 15
    assert np.array_equal(quantize(values, float_quant(name)), values)


@pytest.mark.parametrize("name", FORMATS)
def test_ties_and_their_neighbours_round_as_ml_dtypes_casts(name):
    kind = FORMATS[name][0]
    values = values_of(kind)
    values = values[np.abs(values) < 1e37]
    ties = ((values[1:].astype(np.float64) + values[:-1]) / 2).astype(np.float32)
    up, down = np.nextafter(ties, f32(np.inf)), np.nextafter(ties, f32(-np.inf))
    x = np.concatenate([ties, up, down])
    x = x[np.abs(x) > 2.0**-100]
    assert np.array_equal(quantize(x, float_quant(name)), x.astype(kind).astype(np.float32))


@pytest.mark.parametrize("name", FORMATS)
def test_random_values_round_as_ml_dtypes_casts(name):
    kind, exponent, _, bias = FORMATS[name]
    random = np.random.default_rng(7)
    exponents = random.uniform(max(-bias - 3, -100), 2**exponent - 2 - bias, 20_000)
    x = (np.exp2(exponents) * random.choice([-1, 1], 20_000)).astype(np.float32)
    x = x[np.abs(x) <= values_of(kind).max()]
    assert len(x) > 10_000
    assert np.array_equal(quantize(x, float_quant(name)), x.astype(kind).astype(np.float32))


def test_subnormal_values_lie_on_the_lowest_step():
    # The smallest subnormal of e4m3 is 2**-9; half of it is a tie with zero.
    step = 2.0**-9
    x = f32([0.4, 0.5, 0.6, 1.4, 1.5, 2.5, 6.7]) * f32(step)
    assert (quantize(x, float_quant()) / f32(step)).tolist() == [0, 0, 1, 1, 2, 2, 7]


def test_subnormals_are_used_whatever_the_attribute_says():
    x = f32([2.0**-9])
    for flag in (False, True):
        assert quantize(x, float_quant(has_subnormal=flag)).tolist() == x.tolist()


@pytest.mark.parametrize(
    ("mode", "rounded"),
    [
        ("ROUND", [1.25, 1.125, -1.125]),
        ("CEIL", [1.25, 1.25, -1.125]),
        ("FLOOR", [1.125, 1.125, -1.25]),
        ("UP", [1.25, 1.25, -1.25]),
        ("DOWN", [1.125, 1.125, -1.125]),
        ("HALF_UP", [1.25, 1.125, -1.125]),
        ("HALF_DOWN", [1.125, 1.125, -1.125]),
    ],
)
def test_the_mantissa_is_rounded_in_the_given_mode(mode, rounded):
    # Between 1 and 2 the step of e4m3 is 1 / 8; 1.1875 is a tie.
    x = f32([1.1875, 1.15, -1.15])
    assert quantize(x, float_quant(rounding=Rounding(mode))).tolist() == rounded


def test_the_step_below_a_power_of_two_is_the_lower_one():
    # A float32 logarithm of the number next to 16 is 4; its exponent is 3 all the same.
    x = np.nextafter(f32([16, -16]), f32(0))
    assert quantize(x, float_quant(rounding=Rounding.DOWN)).tolist() == [15, -15]


def test_the_scale_is_divided_out_and_multiplied_back():
    # 1.3 / 0.5 = 2.6 lies between 2.5 and 2.75.
    assert quantize(f32([1.3, -1.3]), float_quant(scale=0.5)).tolist() == [1.25, -1.25]


def test_each_channel_has_its_own_scale_in_float_quant():
    y = quantize(f32([[1.3, 1.3], [1000, 1000]]), float_quant(scale=[1.0, 0.5]))
    assert y.tolist() == [[1.25, 1.25], [448, 224]]


def test_values_beyond_the_format_saturate():
    x = f32([449, 1e30, np.inf, -np.inf, -500])
    assert quantize(x, float_quant()).tolist() == [448, 448, 448, -448, -448]


def test_without_saturation_values_overflow_to_infinity_where_there_is_one():
    quant = float_quant("e5m2", saturation=False, has_inf=True, has_nan=True)
    x = f32([57344, 61440, 1e30, -1e30, np.inf])
    assert quantize(x, quant).tolist() == [57344, np.inf, np.inf, -np.inf, np.inf]


def test_without_saturation_and_infinity_values_overflow_to_nan():
    y = quantize(f32([448, 500, -np.inf]), float_quant(saturation=False, has_nan=True))
    assert y[0] == 448
    assert np.isnan(y[1:]).all()


def test_an_overflow_without_anything_to_become_is_refused():
    with pytest.raises(ValueError, match="needs has_inf or has_nan"):
        quantize(f32([1]), float_quant(saturation=False))


@pytest.mark.parametrize("flags", [{}, {"saturation": False, "has_inf": True}])
def test_float_quant_keeps_nan_and_zero(flags):
    y = quantize(f32([np.nan, 0.0, -0.0]), float_quant(**flags))
    assert np.isnan(y[0])
    assert y[1:].tolist() == [0, 0]


def test_the_smaller_of_max_val_and_the_formats_own_limit_holds():
    assert quantize(f32([1e9]), float_quant(max_val=f32(1e6))).tolist() == [480]
    assert quantize(f32([1e9]), float_quant(max_val=f32(100))).tolist() == [100]


@pytest.mark.parametrize(
    ("exponent", "mantissa", "bias", "largest"),
    [(4, 3, 7, 480), (5, 2, 15, 114688), (2, 1, 1, 6), (3, 0, 3, 16)],
)
def test_the_largest_float_uses_every_exponent_code(exponent, mantissa, bias, largest):
    assert largest_float(f32(exponent), f32(mantissa), f32(bias)) == largest


@pytest.mark.parametrize("changes", [{"exponent_bias": f32(7.5)}, {"mantissa_bits": f32(2.5)}])
def test_a_fractional_width_or_bias_is_refused(changes):
    with pytest.raises(ValueError, match="whole numbers"):
        quantize(f32([1]), float_quant(**changes))


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)])
def test_float_parameters_of_one_element_never_add_axes(shape):
    quant = float_quant()
    names = ("scale", "exponent_bits", "mantissa_bits", "exponent_bias", "max_val")
    shaped = {name: getattr(quant, name).reshape(shape) for name in names}
    y = quantize(f32([1.3, 0.3]), dataclasses.replace(quant, **shaped))
    assert y.tolist() == [1.25, 0.3125]


def trunc(version: int, **changes) -> Trunc:
    """From 8 bits in steps of 0.5 to 6 bits: two bits are dropped."""
    out_scale = f32(2) if version == 2 else None
    quant = Trunc(f32(0.5), f32(0), f32(8), out_scale, f32(6), version=version)
    return dataclasses.replace(quant, **changes)


def test_version_1_shifts_bits_out_and_keeps_the_scale():
    # 7.5 is 15 steps, 15 / 4 = 3.75, floor 3, times 0.5.
    x = f32([7.5, 0.5, -0.5, -7.5, 1.5])
    assert quantize(x, trunc(1)).tolist() == [1.5, 0, -0.5, -2.0, 0]


def test_version_2_shifts_bits_out_and_rescales():
    x = f32([7.5, 0.5, -0.5, -7.5, 1.5])
    assert quantize(x, trunc(2)).tolist() == [6, 0, -2, -8, 0]


@pytest.mark.parametrize(
    ("mode", "steps"),
    [
        # 3.75, 2.5, 0.25, -0.25, -2.5 and -3.75 after the shift.
        ("FLOOR", [3, 2, 0, -1, -3, -4]),
        ("CEIL", [4, 3, 1, 0, -2, -3]),
        ("ROUND", [4, 2, 0, 0, -2, -4]),
        ("UP", [4, 3, 1, -1, -3, -4]),
        ("DOWN", [3, 2, 0, 0, -2, -3]),
        ("HALF_UP", [4, 3, 0, 0, -3, -4]),
        ("HALF_DOWN", [4, 2, 0, 0, -2, -4]),
        ("DPU", [4, 2, 0, 0, -2, -4]),
    ],
)
def test_trunc_rounds_what_it_shifts_in_the_given_mode(mode, steps):
    x = f32([7.5, 5.0, 0.5, -0.5, -5.0, -7.5])
    rounding = Rounding(mode)
    assert (quantize(x, trunc(2, rounding=rounding)) / f32(2)).tolist() == steps
    assert (quantize(x, trunc(1, rounding=rounding)) / f32(0.5)).tolist() == steps


def test_trunc_first_puts_values_on_the_grid_of_the_input():
    # 1.9 is 3.8 steps, so 4, so 1 after the shift; truncated alone it would be 0.
    assert quantize(f32([1.9, 1.7]), trunc(2)).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("signed", "narrow", "low", "high"),
    [(True, False, -2, 1), (True, True, -1, 1), (False, False, 0, 3), (False, True, 0, 2)],
)
def test_version_2_clamps_to_the_output_bits(signed, narrow, low, high):
    quant = trunc(2, out_bits=f32(2), signed=signed, narrow=narrow)
    assert quantize(f32([-60, 60]), quant).tolist() == [2 * low, 2 * high]


def test_version_1_does_not_clamp():
    # 1000 is 2000 steps, and 6 bits hold 31 at most.
    assert quantize(f32([1000]), trunc(1)).tolist() == [250]


def test_version_1_takes_the_shift_from_the_bit_widths():
    quant = trunc(1, in_bits=f32(10), out_bits=f32(5))
    assert quantize(f32([40]), quant).tolist() == [1]  # 80 / 32 = 2.5


def test_version_2_takes_the_shift_from_the_scales_as_a_power_of_two():
    # 2.2 / 0.5 = 4.4 counts as 4: 16 steps become 4, in steps of 2.2.
    quant = trunc(2, out_scale=f32(2.2), in_bits=f32(31))
    assert quantize(f32([8]), quant).tolist() == [4 * f32(2.2)]


def test_the_zero_point_is_shifted_in_version_2_only():
    # 7.5 is 15 steps; with zero point 2 it is 17, and 17 / 4 is 4.
    assert quantize(f32([7.5]), trunc(2, zero_point=f32(2))).tolist() == [(4 - 0.5) * 2]
    assert quantize(f32([7.5]), trunc(1, zero_point=f32(2))).tolist() == [(4 - 2) * 0.5]


def test_trunc_keeps_nan():
    for version in (1, 2):
        assert np.isnan(quantize(f32([np.nan]), trunc(version))).all()


def test_each_channel_has_its_own_scales_in_trunc():
    quant = trunc(2, scale=f32([0.5, 1]), out_scale=f32([2, 8]))
    assert quantize(f32([7.5, 9]), quant).tolist() == [6, 8]


@pytest.mark.parametrize("quant", [trunc(1), trunc(2), float_quant(), float_quant(scale=0.3)])
@pytest.mark.parametrize("x", [f32([[7.3, -0.4]]), f32(5.1)])
def test_floats_and_truncs_are_quantized_in_place(quant, x):
    expected = quantize(x, quant).tolist()
    apply = compile_quantizer(quant)
    assert apply(x, x) is x
    assert x.tolist() == expected


@pytest.mark.parametrize("quant", [trunc(1), trunc(2), float_quant()])
@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_other_float_types_keep_theirs(quant, dtype):
    x = np.array([7.5, -0.5], dtype=dtype)
    y = quantize(x, quant)
    assert y.dtype == dtype
    assert y.tolist() == quantize(x.astype(np.float32), quant).tolist()


@pytest.mark.parametrize("quant", [trunc(1), trunc(2), float_quant()])
def test_no_parameter_may_be_missing(quant):
    for field in ("scale", "zero_point", "out_bits", "mantissa_bits", "exponent_bias"):
        if hasattr(quant, field):
            with pytest.raises(ValueError, match="computed at run time"):
                quantize(f32([1]), dataclasses.replace(quant, **{field: None}))
