from __future__ import annotations

import numpy as np
import pytest

from qonnx_hub.equivalence.comparison.compare import (
    Tolerance,
    aligned,
    make_tolerance,
    summarize,
    tally,
)
from qonnx_hub.equivalence.verdicts import Verdict
from qonnx_hub_ir.errors import UsageError


def f32(*values):
    return np.array(values, dtype=np.float32)


def compare(a, b, tolerance=None, step=None):
    found = tally(a, b, tolerance=tolerance or Tolerance(), step=step)
    return summarize(found, "t", "u", step)


def test_equal_values_are_exact():
    assert compare(f32(1, 2), f32(1, 2)).verdict is Verdict.EQUAL
    assert compare(f32(1, 2), f32(1, 2)).words() == "exact"


def test_zeros_of_both_signs_are_equal():
    assert compare(f32(0.0), f32(-0.0)).differing == 0


def test_nan_equals_nan_and_nothing_else():
    assert compare(f32(np.nan, 1), f32(np.nan, 1)).differing == 0
    apart = compare(f32(np.nan, 1), f32(1, 1))
    assert (apart.differing, apart.max_abs) == (1, np.inf)


def test_infinities_of_one_sign_are_equal_and_others_are_not():
    assert compare(f32(np.inf), f32(np.inf)).verdict is Verdict.EQUAL
    assert compare(f32(np.inf), f32(-np.inf)).max_abs == np.inf


@pytest.mark.parametrize(
    "tolerance", [Tolerance(rtol=1e-5), Tolerance(atol=1e9), Tolerance(lsb=1)]
)
@pytest.mark.parametrize("other", [5.0, -np.inf, np.nan])
def test_no_tolerance_makes_a_number_of_infinity(tolerance, other):
    # A share of infinity is infinity: as a bound, it lets everything pass.
    for a, b in ((np.inf, other), (other, np.inf)):
        assert compare(f32(a, 1), f32(b, 1), tolerance, f32(1.0)).beyond == 1


def test_an_infinite_step_is_none():
    found = compare(f32(1), f32(5), Tolerance(lsb=1), f32(np.inf))
    assert (found.verdict, found.max_lsb) == (Verdict.DIFFERENT, None)


def test_integers_are_told_apart_where_float64_has_one_number_for_both():
    a, b = np.array([2**53, -(2**62), 7]), np.array([2**53 + 1, -(2**62) + 1, 7])
    found = compare(a, b)
    assert (found.differing, found.max_abs, found.verdict) == (2, 1.0, Verdict.DIFFERENT)
    assert compare(a, b, Tolerance(atol=1)).verdict is Verdict.WITHIN
    assert compare(a.astype(np.uint64), a, None).differing == 1


def test_differences_are_counted_in_steps():
    found = compare(f32(0, 0.5, 1, 1.5), f32(0, 1, 1, 0.5), step=f32(0.5))
    assert (found.max_lsb, found.differing) == (2.0, 2)
    assert found.histogram == {0: 2, 1: 1, 2: 1}
    assert found.words() == "within 2 LSB at 2 of 4"


def test_steps_of_channels_are_their_own():
    a, b = np.zeros((1, 2), dtype=np.float32), f32(0.5, 0.5)[None]
    found = compare(a, b, step=f32(0.5, 0.25)[None])
    assert found.histogram == {1: 1, 2: 1}


def test_less_than_half_a_step_counts_as_one():
    assert compare(f32(0), f32(0.001), step=f32(1)).histogram == {1: 1}


def test_large_differences_are_counted_in_powers_of_two():
    assert compare(f32(0, 0), f32(9, 100), step=f32(1)).histogram == {8: 1, 64: 1}


@pytest.mark.parametrize(
    ("tolerance", "verdict"),
    [
        (Tolerance(), Verdict.DIFFERENT),
        (Tolerance(atol=0.5), Verdict.WITHIN),
        (Tolerance(atol=0.25), Verdict.DIFFERENT),
        (Tolerance(rtol=0.25), Verdict.WITHIN),
        (Tolerance(rtol=0.2), Verdict.DIFFERENT),
        (Tolerance(lsb=1), Verdict.WITHIN),
        (Tolerance(lsb=0.5), Verdict.DIFFERENT),
    ],
)
def test_tolerances_decide_the_verdict(tolerance, verdict):
    assert compare(f32(2, 4), f32(2.5, 4), tolerance, step=f32(0.5)).verdict is verdict


def test_a_named_tolerance_holds_for_its_tensor_only():
    tolerance = make_tolerance(atol={"t": 1.0}, lsb={"": 3})
    assert tolerance.of("t").atol == 1.0
    assert (tolerance.of("other").atol, tolerance.of("other").lsb) == (0.0, 3)


def test_a_negative_tolerance_is_refused():
    with pytest.raises(UsageError, match="from zero on"):
        make_tolerance(atol=-1.0)


def test_the_required_tolerance_passes_and_less_does_not():
    a, b = f32(1, -2, 3), f32(1.25, -2, 3.5)
    found = compare(a, b)
    assert compare(a, b, Tolerance(atol=found.max_abs)).verdict is Verdict.WITHIN
    assert compare(a, b, Tolerance(rtol=found.required_rtol)).verdict is Verdict.WITHIN
    less = np.nextafter(found.max_abs, 0)
    assert compare(a, b, Tolerance(atol=less)).verdict is Verdict.DIFFERENT


def test_batches_add_up_to_the_whole():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 5, (40, 3)).astype(np.float32)
    b = rng.integers(0, 5, (40, 3)).astype(np.float32)
    kind = {"tolerance": Tolerance(atol=1), "step": f32(0.5)}
    whole = tally(a, b, **kind)
    parts = [
        tally(a[k : k + 8], b[k : k + 8], **kind, batch=k // 8, start=k)
        for k in range(0, 40, 8)
    ]
    summed = parts[0] + parts[1] + (parts[2] + (parts[3] + parts[4]))
    assert summarize(summed, "t", "u", None) == summarize(whole, "t", "u", None)


def test_a_step_that_does_not_fit_counts_nothing_in_steps():
    found = compare(f32(0, 1), f32(1, 1), step=f32(1, 1, 1))
    assert (found.max_lsb, found.histogram, found.differing) == (None, {}, 1)


def test_channels_last_is_turned_to_channels_first():
    a = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    assert np.array_equal(aligned(a, a.transpose(0, 2, 3, 1)), a)
    assert np.array_equal(aligned(a.transpose(0, 2, 3, 1), a), a.transpose(0, 2, 3, 1))


def test_axes_of_length_one_do_not_matter():
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(aligned(a, a.reshape(2, 3, 1, 1)), a)


def test_other_things_are_not_aligned():
    assert (
        aligned(np.zeros((2, 3), dtype=np.float32), np.zeros((3, 3), dtype=np.float32)) is None
    )
