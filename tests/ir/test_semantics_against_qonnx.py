"""The numbers, bit for bit, against the qonnx package: an independent implementation."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qonnx_hub_ir.quantizers import BipolarQuant, FloatQuant, IntQuant, Rounding, Trunc
from qonnx_hub_ir.semantics import quantize
from tests.ir.graphs import f32

pytest.importorskip("qonnx")
with warnings.catch_warnings():
    # What the oracle warns about at its own import is not ours to mend.
    warnings.simplefilter("ignore")
    from qonnx.custom_op.general.bipolar_quant import binary_quant
    from qonnx.custom_op.general.floatquant import float_quant
    from qonnx.custom_op.general.intquant import int_quant, max_int, min_int
    from qonnx.custom_op.general.trunc import trunc_v1, trunc_v2

MODES = [mode for mode in Rounding if mode is not Rounding.DPU]
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3e38, -3e38, 1e10, -1e10]
scales = st.floats(2**-40, 2**40, width=32) | st.sampled_from([1.0, 0.5, 0.1, 2.0**-8])
zeros = st.just(0.0) | st.integers(-200, 200).map(float) | st.floats(-9, 9, width=32)


def same(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether all values are equal; NaN equals NaN, -0.0 equals 0.0."""
    theirs = np.asarray(theirs)
    assert ours.size
    assert ours.dtype == theirs.dtype == np.float32
    return np.array_equal(ours, theirs, equal_nan=True)


def beside(values: np.ndarray) -> np.ndarray:
    """The values and their four float32 neighbours on either side."""
    found = [values]
    for direction in (np.inf, -np.inf):
        moved = values
        for _ in range(4):
            moved = np.nextafter(moved, f32(direction))
            found.append(moved)
    return np.concatenate(found)


def stress(scale, zero, low: float, high: float, seed: int, count: int = 24) -> np.ndarray:
    """Inputs on ties, whole steps and limits, their neighbours, and far outside."""
    random = np.random.default_rng(seed)
    steps = random.integers(max(low, -(2**24)), min(high, 2**24) + 1, count)
    half_steps = np.concatenate([steps / 2, steps + 0.5, [low - 0.5, low, high, high + 0.5]])
    with np.errstate(all="ignore"):
        points = ((half_steps - float(zero)) * float(scale)).astype(np.float32)
        spread = random.normal(size=count) * 2 * (high - low + 1) * float(scale)
        return np.concatenate([beside(points), spread.astype(np.float32), f32(SPECIAL)])


def check_int_quant(scale, zero, bits, signed, narrow, mode, x) -> None:
    bits = f32(bits)
    with np.errstate(all="ignore"):
        theirs = int_quant(x, f32(scale), f32(zero), bits, signed, narrow, str(mode))
    ours = quantize(x, IntQuant(f32(scale), f32(zero), bits, signed, narrow, mode))
    assert same(ours, theirs)


@settings(max_examples=200, deadline=None)
@given(
    scales,
    zeros,
    st.integers(1, 32),
    st.booleans(),
    st.booleans(),
    st.sampled_from(MODES),
    st.integers(0, 999),
)
def test_quant_equals_qonnx(scale, zero, bits, signed, narrow, mode, seed):
    low, high = (int(f(signed, narrow, bits)) for f in (min_int, max_int))
    x = stress(scale, zero, low, high, seed)
    check_int_quant(scale, zero, bits, signed, narrow, mode, x)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(width=32), min_size=1, max_size=20),
    st.floats(2**-149, 2**127, width=32),
    zeros,
    st.integers(1, 32),
    st.booleans(),
    st.booleans(),
    st.sampled_from(MODES),
)
def test_quant_equals_qonnx_on_any_float(x, scale, zero, bits, signed, narrow, mode):
    check_int_quant(scale, zero, bits, signed, narrow, mode, f32(x))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8, 16])
def test_a_seeded_sweep_of_quant_equals_qonnx(mode, bits):
    random = np.random.default_rng(bits)
    for signed in (True, False):
        for narrow in (True, False):
            for zero in (0.0, 3.0, -128.0, 0.3):
                scale = f32(np.exp2(random.uniform(-12, 6)))
                low, high = (int(f(signed, narrow, bits)) for f in (min_int, max_int))
                x = stress(scale, zero, low, high, bits, 200)
                check_int_quant(scale, zero, bits, signed, narrow, mode, x)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 3, 1, 1), (2, 1, 1, 1), (5,)])
def test_parameters_per_channel_equal_qonnx(mode, bits, shape):
    random = np.random.default_rng(1)
    scale = np.exp2(random.uniform(-4, 1, shape)).astype(np.float32)
    zero = random.integers(-3, 4, shape).astype(np.float32)
    grid = random.integers(-40, 40, (2, 3, 4, 5)) / 2
    x = ((grid - zero) * scale).astype(np.float32)
    for signed in (True, False):
        check_int_quant(scale, zero, bits, signed, False, mode, x)
        check_int_quant(scale, 0.0, bits, signed, True, mode, x)


@pytest.mark.parametrize("scale", [np.nan, np.inf])
def test_a_scale_that_is_no_number_equals_qonnx(scale):
    for bits in (1, 4):
        check_int_quant(scale, 0.0, bits, True, False, Rounding.ROUND, f32([1, *SPECIAL]))


def test_aliases_of_a_mode_are_the_same_mode_in_qonnx():
    x = stress(0.5, 0, -8, 7, 0)
    with np.errstate(all="ignore"):
        theirs = int_quant(x, f32(0.5), f32(0), f32(4), True, False, "half_even")
    assert same(quantize(x, IntQuant(f32(0.5), f32(0), f32(4))), theirs)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(width=32), min_size=1, max_size=20),
    st.lists(st.floats(2**-149, 2**127, width=32), min_size=1, max_size=1),
)
def test_bipolar_equals_qonnx(x, scale):
    values = f32([*x, *SPECIAL])
    with np.errstate(all="ignore"):
        theirs = binary_quant(values, f32(scale))
    assert same(quantize(values, BipolarQuant(f32(scale))), theirs)


@pytest.mark.parametrize("shape", [(3, 1), (1, 4), (3, 4), ()])
def test_bipolar_per_channel_equals_qonnx(shape):
    random = np.random.default_rng(2)
    x = random.normal(size=(2, 3, 4)).astype(np.float32)
    scale = np.exp2(random.uniform(-4, 4, shape)).astype(np.float32)
    assert same(quantize(x, BipolarQuant(scale)), binary_quant(x, scale))


@settings(max_examples=200, deadline=None)
@given(
    scales,
    zeros,
    st.integers(1, 32),
    st.integers(1, 32),
    st.sampled_from(MODES),
    st.integers(0, 999),
)
def test_trunc_version_1_equals_qonnx(scale, zero, in_bits, out_bits, mode, seed):
    x = stress(scale, zero, -(2.0 ** (in_bits - 1)), 2.0**in_bits - 1, seed)
    known = [f32(value) for value in (scale, zero, in_bits, out_bits)]
    with np.errstate(all="ignore"):
        theirs = trunc_v1(x, *known, str(mode))
    quant = Trunc(*known[:3], None, known[3], rounding=mode, version=1)
    assert same(quantize(x, quant), theirs)


@settings(max_examples=200, deadline=None)
@given(
    scales,
    zeros,
    st.integers(2, 32),
    st.integers(0, 24).map(lambda shift: 2.0**shift) | st.floats(0.25, 5000, width=32),
    st.integers(1, 32),
    st.booleans(),
    st.booleans(),
    st.sampled_from(MODES),
    st.integers(0, 999),
)
def test_trunc_version_2_equals_qonnx(
    scale, zero, in_bits, ratio, out_bits, signed, narrow, mode, seed
):
    out_scale = f32(scale) * f32(ratio)
    x = stress(scale, zero, -(2.0 ** (in_bits - 1)), 2.0**in_bits - 1, seed)
    known = [f32(value) for value in (scale, zero, in_bits, out_scale, out_bits)]
    with np.errstate(all="ignore"):
        theirs = trunc_v2(x, *known[:3], narrow, signed, *known[3:], str(mode))
    assert same(quantize(x, Trunc(*known, signed, narrow, mode)), theirs)


def qonnx_float(x: np.ndarray, quant: FloatQuant) -> np.ndarray:
    with np.errstate(all="ignore"):
        values = float_quant(
            x,
            quant.scale,
            quant.exponent_bits,
            quant.mantissa_bits,
            quant.exponent_bias,
            True,
            quant.max_val,
            quant.has_inf,
            quant.has_nan,
            quant.has_subnormal,
            str(quant.rounding),
            quant.saturation,
        )
        return np.asarray(values).astype(np.float32)  # as its node does


def logarithm_is_off(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Where a float32 logarithm names another exponent than the number has.

    This happens just below powers of two; qonnx then rounds to a step that is twice as wide.
    """
    with np.errstate(all="ignore"):
        t = np.abs(x / scale) + np.finfo(np.float32).tiny
        return np.isfinite(t) & (np.floor(np.log2(t)) != np.frexp(t)[1] - 1)


def float_stress(scale, exponent_bits: int, mantissa_bits: int, bias, seed: int):
    """Values on the format's ties and values, their neighbours, and outside."""
    random = np.random.default_rng(seed)
    exponents = random.uniform(-bias - mantissa_bits - 2, 2**exponent_bits - bias + 1, 60)
    steps = np.exp2(np.floor(exponents) - mantissa_bits)
    codes = np.rint(np.exp2(exponents) / steps) + random.choice([0, 0.5], 60)
    with np.errstate(all="ignore"):
        points = codes * steps * random.choice([-1, 1], 60) * float(scale)
        x = np.concatenate([beside(points.astype(np.float32)), f32([0.0, -0.0, np.nan])])
    return x[~np.isinf(x)]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([1.0, 0.5, 2.0**-7]) | st.floats(2**-10, 2**10, width=32),
    st.integers(1, 6),
    st.integers(0, 10),
    st.integers(0, 3),
    st.booleans(),
    st.sampled_from(["saturate", "inf", "nan"]),
    st.sampled_from(MODES),
    st.integers(0, 999),
)
def test_float_quant_equals_qonnx(
    scale, exponent_bits, mantissa_bits, more_bias, limited, overflow, mode, seed
):
    bias = 2 ** (exponent_bits - 1) - 1 + more_bias
    largest = 2.0 ** (2**exponent_bits - 1 - bias) * (1.5 if limited else 4)
    quant = FloatQuant(
        *(f32(v) for v in (scale, exponent_bits, mantissa_bits, bias, largest)),
        has_inf=overflow == "inf",
        has_nan=overflow == "nan",
        saturation=overflow == "saturate",
        rounding=mode,
    )
    x = float_stress(scale, exponent_bits, mantissa_bits, bias, seed)
    x = x[~logarithm_is_off(x, quant.scale)]
    assert same(quantize(x, quant), qonnx_float(x, quant))


@pytest.mark.parametrize("shape", [(3, 1), (4,), (3, 4)])
def test_float_quant_per_channel_equals_qonnx(shape):
    random = np.random.default_rng(3)
    scale = np.exp2(random.uniform(-4, 4, shape)).astype(np.float32)
    quant = FloatQuant(scale, *(f32(v) for v in (4, 3, 7, 448)))
    x = (random.normal(size=(2, 3, 4)) * 20).astype(np.float32)
    x = np.where(logarithm_is_off(x, scale), f32(1), x)
    assert same(quantize(x, quant), qonnx_float(x, quant))


def e4m3(**changes) -> FloatQuant:
    return FloatQuant(*(f32(v) for v in (1, 4, 3, 7, 448)), **changes)


def test_infinite_inputs_of_float_quant_saturate_where_qonnx_gives_nan():
    # A difference on purpose: the logarithm of infinity makes qonnx divide infinities.
    x = f32([np.inf, -np.inf])
    assert quantize(x, e4m3()).tolist() == [448, -448]
    assert np.isnan(qonnx_float(x, e4m3())).all()
    unsaturated = e4m3(saturation=False, has_inf=True)
    assert quantize(x, unsaturated).tolist() == [np.inf, -np.inf]


def test_the_exponent_below_a_power_of_two_is_exact_where_qonnx_takes_a_logarithm():
    # A difference on purpose: 15.999999 has exponent 3, but its float32 logarithm is 4.
    x = np.nextafter(f32([16]), f32(0))
    quant = e4m3(rounding=Rounding.FLOOR)
    assert logarithm_is_off(x, quant.scale).all()
    assert quantize(x, quant).tolist() == [15]
    assert qonnx_float(x, quant).tolist() == [14]


@pytest.mark.parametrize("exponent", range(-5, 9))
def test_rounding_to_nearest_hides_the_difference_in_the_exponent(exponent):
    x = beside(f32([2.0**exponent]))
    assert same(quantize(x, e4m3()), qonnx_float(x, e4m3()))
