"""When a Quant node is torch's quantizer: the proof, and what is said in its place."""

import numpy as np
import pytest

from qonnx_hub_adapters.pytorch.affine import (
    Affine,
    codes,
    integer_quant_of,
    is_same,
    quant_of,
    values,
)
from qonnx_hub_ir.semantics import quantize

RANGES = [(-127, 127), (-8, 7), (0, 15), (0, 127), (0, 3), (-2, 1), (-1, 1), (0, 254)]


def affine(scale, low, high, zero=0):
    s = np.asarray(scale, dtype=np.float32)
    return Affine(s, np.float32(1) / s, np.asarray(zero, dtype=np.float64), low, high)


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_a_power_of_two_is_proven_in_every_range_that_bits_say(low, high):
    quantizer = affine(0.25, low, high)
    said = quant_of(quantizer)
    assert said.limits is None
    assert is_same(quantizer, said)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_proven_agrees_at_every_threshold_and_what_is_not_differs_at_one(seed):
    # Whoever proves looks at thresholds; this looks at all floats of whole intervals instead.
    rng = np.random.default_rng(seed)
    scale = np.float32(rng.uniform(0.01, 1.0))
    quantizer = affine(scale, -8, 7)
    said = quant_of(quantizer)
    middle = ((np.arange(-9, 9) + 0.5) * float(scale)).astype(np.float32)
    bits = middle.view(np.int32)[:, None] + np.arange(-500, 501, dtype=np.int32)
    x = bits.view(np.float32)
    same = np.array_equal(quantize(x, said.quant), values(codes(x, quantizer), quantizer))
    assert is_same(quantizer, said) == same


def test_both_verdicts_occur_among_few_bit_scales():
    rng = np.random.default_rng(0)
    scales = rng.uniform(0.01, 1.0, 40).astype(np.float32)
    verdicts = {is_same(q, quant_of(q)) for q in (affine(s, -8, 7) for s in scales)}
    assert verdicts == {True, False}


def test_an_odd_zero_point_is_not_said_by_a_quant_node_alone():
    # x / s = 0.5: torch rounds to 0 and adds 3; a Quant node rounds 3.5 to 4.
    quantizer = affine(1.0, 0, 15, zero=3)
    said = quant_of(quantizer)
    half = np.array([0.5], dtype=np.float32)
    assert values(codes(half, quantizer), quantizer)[0] == 0.0
    assert quantize(half, said.quant)[0] == 1.0
    assert not is_same(quantizer, said)


def test_an_even_zero_point_swallows_what_lies_beside_a_tie():
    # 0.5 + 2^-24 rounds to 1; with 128 added in float32 it is the tie 128.5, which goes down.
    quantizer = affine(1.0, 0, 254, zero=128)
    x = np.array([np.nextafter(np.float32(0.5), np.float32(1))])
    assert values(codes(x, quantizer), quantizer)[0] == 1.0
    assert not is_same(quantizer, quant_of(quantizer))


@pytest.mark.parametrize(
    ("low", "high", "zero", "bits", "signed"),
    [(0, 255, 128, 8, True), (-128, 127, -128, 8, False), (0, 15, 8, 4, True)],
)
def test_codes_are_shifted_where_that_leaves_no_zero_point(low, high, zero, bits, signed):
    said = quant_of(affine(0.5, low, high, zero))
    assert (said.quant.bits, said.quant.signed) == (bits, signed)
    assert said.quant.zero_point == 0
    assert said.limits is None


def test_a_range_that_no_bit_width_says_gets_limits():
    said = quant_of(affine(0.5, -5, 9))
    assert (said.quant.bits, said.quant.signed, said.quant.narrow) == (5, True, False)
    assert said.limits is not None
    assert [float(end) for end in said.limits] == [-2.5, 4.5]


def test_one_signed_bit_is_no_range():
    # A Quant node of one signed bit means the levels -1 and +1; this one has -1 and 0.
    said = quant_of(affine(1.0, -1, 0))
    assert said.quant.bits == 2
    assert said.limits is not None


def test_more_steps_than_are_gone_through_are_not_proven():
    quantizer = affine(0.1, -(2**20), 2**20 - 1)
    assert not is_same(quantizer, quant_of(quantizer))


def test_a_range_on_integers_is_the_range_without_its_zero_point():
    said = integer_quant_of(affine(0.1, 0, 100, zero=30))
    assert said.quant.scale == 1
    assert said.limits is not None
    assert [float(end) for end in said.limits] == [-30.0, 70.0]


def test_one_channel_that_differs_makes_the_whole_unproven():
    scales = np.array([0.25, 0.1, 1 / 3], dtype=np.float32)
    alone = [is_same(q, quant_of(q)) for q in (affine(s, -8, 7) for s in scales)]
    assert alone == [True, True, False]
    together = affine(scales, -8, 7)
    assert not is_same(together, quant_of(together))
    without = affine(scales[:2], -8, 7)
    assert is_same(without, quant_of(without))
