"""Tables of quantizers, against every float of long stretches and against hand calculation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qonnx_hub.equivalence.proof.step_functions import (
    find_steps,
    first_difference,
)
from qonnx_hub_ir.errors import TooManyLevelsError
from qonnx_hub_ir.quantizers import BipolarQuant, IntQuant, Rounding, integer_bounds
from qonnx_hub_ir.semantics import quantize
from qonnx_hub_ir.thresholds import key_range, keys_of, values_of

STRETCH = 1 << 20
FLOAT = np.float32


def int_quant(scale, zero=0.0, bits=4, *, signed=True, narrow=False, rounding=Rounding.ROUND):
    numbers = (np.asarray(value, dtype=FLOAT) for value in (scale, zero, bits))
    return IntQuant(*numbers, signed=signed, narrow=narrow, rounding=rounding)


def table_of(quant, channels=1, **options):
    return find_steps(lambda rows: quantize(rows, quant), channels, **options)


def looked_up(table, values, channel=0):
    """Return what the table says of values, by a plain search over its segments."""
    segments = np.flatnonzero(table.channel == channel)
    place = np.searchsorted(table.start[segments], keys_of(values), side="right") - 1
    return table.level[segments][place]


def stretch_around(value):
    """Return 2**20 neighbouring floats with the given one in their middle."""
    lowest, highest = key_range()
    centre = int(keys_of(np.array([value], dtype=FLOAT))[0])
    start = min(max(centre - STRETCH // 2, lowest), highest - STRETCH)
    return values_of(np.arange(start, start + STRETCH, dtype=np.int64))


quantizers = st.builds(
    int_quant,
    scale=st.floats(2.0**-10, 8.0, width=32),
    zero=st.sampled_from([0.0, 0.0, 1.0, -3.0, 7.0, 0.5]),
    bits=st.integers(1, 8),
    signed=st.booleans(),
    narrow=st.booleans(),
    rounding=st.sampled_from(list(Rounding)),
).filter(lambda quant: not (quant.narrow and float(quant.bits) == 1))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_keys_are_in_the_order_of_the_values(dtype):
    values = np.array([-np.inf, -2.5, -1e-7, -0.0, 0.0, 1e-7, 2.5, np.inf], dtype=dtype)
    keys = keys_of(values)
    assert np.all(np.diff(keys) > 0)
    assert values_of(keys, dtype).tobytes() == values.tobytes()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_next_key_is_the_next_float(dtype):
    values = np.array([-3.0, 1e-30, 1.0, 65000.0], dtype=dtype)
    following = np.nextafter(values, np.asarray(np.inf, dtype=dtype))
    assert np.array_equal(keys_of(following), keys_of(values) + 1)


def test_the_two_zeros_are_neighbours():
    assert keys_of(np.array([-0.0, 0.0], dtype=FLOAT)).tolist() == [-1, 0]


def test_two_bits_have_the_thresholds_of_half_even_rounding():
    # -0.5 and 0.5 round to zero, so that one begins right behind 0.5 and zero on -0.5.
    table = table_of(int_quant(1.0, bits=2, narrow=True))
    assert table.thresholds().tolist() == [-0.5, float(np.nextafter(FLOAT(0.5), FLOAT(1)))]
    assert table.levels().tolist() == [-1.0, 0.0, 1.0]
    assert table.count == 2


def test_a_sign_quantizer_turns_at_minus_zero():
    table = table_of(BipolarQuant(np.asarray(0.25, dtype=FLOAT)))
    assert table.thresholds().tolist() == [0.0]
    assert bool(np.signbit(table.thresholds()[0]))
    assert table.levels().tolist() == [-0.25, 0.25]


def test_nan_is_asked_for_by_itself():
    assert np.isnan(table_of(int_quant(1.0)).at_nan[0])
    assert table_of(BipolarQuant(np.asarray(2.0, dtype=FLOAT))).at_nan.tolist() == [-2.0]


def test_both_zeros_are_answered():
    table = table_of(int_quant(1.0))
    assert looked_up(table, np.array([-0.0, 0.0], dtype=FLOAT)).tolist() == [0.0, 0.0]


def test_infinities_reach_the_outermost_levels():
    table = table_of(int_quant(0.5, bits=3))
    assert looked_up(table, np.array([-np.inf, np.inf], dtype=FLOAT)).tolist() == [-2.0, 1.5]


def test_every_channel_has_its_own_thresholds():
    table = table_of(int_quant([[1.0], [0.5]], bits=2, narrow=True), channels=2)
    assert table.thresholds(0).tolist()[0] == -0.5
    assert table.thresholds(1).tolist()[0] == -0.25
    assert table.count == 4


def test_eight_bits_have_255_thresholds():
    assert table_of(int_quant(0.1, bits=8)).count == 255


@settings(max_examples=25)
@given(quantizers, st.data())
def test_a_table_agrees_with_the_quantizer_on_every_float_of_a_stretch(quant, data):
    table = table_of(quant)
    thresholds = table.thresholds()
    centre = data.draw(st.sampled_from([0.0, *thresholds[:: max(len(thresholds) // 7, 1)]]))
    values = stretch_around(centre)
    assert np.array_equal(looked_up(table, values), quantize(values, quant))


def test_a_table_of_half_floats_agrees_with_all_of_them():
    quant = int_quant(0.3, zero=1.0, bits=5, rounding=Rounding.HALF_UP)
    table = table_of(quant, dtype=np.float16)
    low, high = key_range(np.float16)
    values = values_of(np.arange(low, high + 1, dtype=np.int64), np.float16)
    assert values.size == 2 * (1 + 0x7C00)
    assert np.array_equal(looked_up(table, values), quantize(values, quant))


def siblings(quant):
    """Return quantizers that a careless conversion could make of this one."""
    scale, zero, bits = quant.scale, quant.zero_point, quant.bits
    flags = {"signed": quant.signed, "narrow": quant.narrow, "rounding": quant.rounding}
    other_mode = Rounding.HALF_UP if quant.rounding is not Rounding.HALF_UP else Rounding.ROUND
    yield lambda x: quantize(
        x, IntQuant(scale, zero, bits, **{**flags, "narrow": not quant.narrow})
    )
    yield lambda x: quantize(
        x, IntQuant(scale, zero, bits, **{**flags, "rounding": other_mode})
    )
    up = np.nextafter(scale, FLOAT(np.inf))
    yield lambda x: quantize(x, IntQuant(np.asarray(up), zero, bits, **flags))
    low, high = (
        FLOAT(end)
        for end in integer_bounds(float(bits), signed=quant.signed, narrow=quant.narrow)
    )

    def rounded_first(x):
        # QuantizeLinear's order: the zero point is added after rounding.
        with np.errstate(all="ignore"):
            return (np.clip(np.rint(x / scale) + zero, low, high) - zero) * scale

    yield rounded_first


@settings(max_examples=12)
@given(quantizers.filter(lambda quant: float(quant.bits) > 1))
def test_a_sibling_is_told_apart_exactly_when_some_float_does(quant):
    table = table_of(quant)
    for sibling in siblings(quant):
        other = find_steps(sibling)
        found = first_difference(table, other)
        if found is None:
            # No false peace: not one float around the middle tells them apart.
            values = stretch_around(table.thresholds()[table.count // 2])
            assert np.array_equal(quantize(values, quant), sibling(values))
            continue
        # No false alarm: the input that is named does.
        value = np.array([found.input], dtype=FLOAT)
        assert quantize(value, quant)[0] == FLOAT(found.value_a)
        assert sibling(value)[0] == FLOAT(found.value_b)
        assert found.value_a != found.value_b


def test_one_ulp_of_scale_is_found_in_the_channel_that_has_it():
    scale = np.linspace(0.1, 0.9, 16, dtype=FLOAT).reshape(16, 1)
    moved = scale.copy()
    moved[11] = np.nextafter(moved[11], FLOAT(1))
    tables = [table_of(int_quant(s, bits=8), channels=16) for s in (scale, moved)]
    found = first_difference(*tables)
    assert found is not None
    assert found.channel == 11


def test_equal_tables_have_no_difference():
    tables = [table_of(int_quant(0.1, bits=8)) for _ in range(2)]
    assert first_difference(*tables) is None


def test_the_difference_is_the_one_nearest_to_zero():
    # One code more at the low end: -7.5 rounds to the even -8, nothing above it does.
    found = first_difference(*(table_of(int_quant(1.0, narrow=n)) for n in (False, True)))
    assert found is not None
    assert found.input == -7.5
    assert (found.value_a, found.value_b) == (-8.0, -7.0)


def test_too_many_levels_are_refused():
    with pytest.raises(TooManyLevelsError, match="more than 1000 thresholds"):
        table_of(int_quant(1.0, bits=16), limit=1000)


def test_tables_of_different_channels_are_not_compared():
    one = table_of(int_quant(1.0))
    two = table_of(int_quant([[1.0], [2.0]]), channels=2)
    with pytest.raises(ValueError, match="1 channels"):
        first_difference(one, two)
