"""Finding integers that requantize alike: held to every sum that can occur, one by one."""

from __future__ import annotations

import numpy as np
import pytest

from qonnx_hub_adapters.qlinear.epilogue import Line
from qonnx_hub_adapters.qlinear.staircase import (
    Requantization,
    Scales,
    Staircase,
    find_staircase,
    fit_requantization,
    is_equal,
    spread_of,
)
from qonnx_hub_ir.analysis.integer_sums import SumRange

ONE = np.ones((), dtype=np.float32)
SCALES = Scales(ONE, ONE[np.newaxis], ONE)


def line_of(slope: float, offset: float) -> Line:
    return Line(np.array([[slope]], dtype=np.float64), np.array([[offset]], dtype=np.float64))


def range_of(low: int, high: int, channels: int = 1) -> SumRange:
    ends = [np.full(channels, end, dtype=np.int64) for end in (low, high)]
    return SumRange(ends[0], ends[1], np.maximum(np.abs(ends[0]), np.abs(ends[1])))


def every_sum(sums: SumRange) -> np.ndarray:
    return np.arange(sums.low.min(), sums.high.max() + 1, dtype=np.int64)[np.newaxis]


def stairs_by_hand(levels: np.ndarray, sums: np.ndarray, first: int, last: int) -> list[int]:
    """The first sum of each level, by looking at all of them."""
    starts = []
    for level in range(first + 1, last + 1):
        reached = np.flatnonzero(levels >= level)
        starts.append(int(sums[reached[0]]) if reached.size else int(sums[-1]) + 1)
    return starts


@pytest.mark.parametrize("seed", range(8))
def test_bisection_finds_the_steps_that_counting_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    slope, offset = rng.uniform(0.01, 0.4), rng.normal(0, 3)
    sums = range_of(-200, 150)

    def levels(values: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(values * slope + offset), -8, 7).astype(np.int64)

    found = find_staircase(levels, sums, -8, 7)
    row = every_sum(sums)
    expected = stairs_by_hand(levels(row)[0], row[0], -8, 7)
    assert found.starts[0].tolist() == expected


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("factor", [18, 63])
def test_a_fit_gives_every_code_of_a_line_with_any_offset(seed: int, factor: int) -> None:
    rng = np.random.default_rng(seed)
    slope, offset = np.float32(rng.uniform(0.01, 0.1)), np.float32(rng.normal(0, 3))
    sums = range_of(-300, 400)

    def levels(values: np.ndarray) -> np.ndarray:
        t = values.astype(np.float32) * slope + offset
        return np.clip(np.rint(t), -2, 5).astype(np.int64)

    stairs = find_staircase(levels, sums, -2, 5)
    found = fit_requantization(stairs, line_of(slope, offset), SCALES, np.array([factor]))
    assert found is not None
    row = every_sum(sums)
    np.testing.assert_array_equal(np.clip(found.levels(row), -2, 5), levels(row))


def test_two_levels_without_a_zero_between_them_are_found() -> None:
    sums = range_of(-13, 13)

    def levels(values: np.ndarray) -> np.ndarray:
        return np.where(values >= 4, 1, -1).astype(np.int64)

    stairs = find_staircase(levels, sums, -1, 1)
    found = fit_requantization(stairs, line_of(1.0, -3.5), SCALES, np.array([7]))
    assert found is not None
    row = every_sum(sums)
    np.testing.assert_array_equal(np.clip(found.levels(row), -1, 1), levels(row))


@pytest.mark.parametrize("level", [-3, 0, 2])
def test_a_channel_of_one_level_is_found(level: int) -> None:
    sums = range_of(-50, 70)
    stairs = find_staircase(lambda v: np.full(v.shape, level, dtype=np.int64), sums, -4, 3)
    found = fit_requantization(stairs, line_of(0.0, level), SCALES, np.array([1]))
    assert found is not None
    assert np.all(found.levels(every_sum(sums)) == level)


def test_no_fit_is_claimed_for_steps_that_no_line_has() -> None:
    # Steps of 1, 20, 1: a line has steps of nearly equal length.
    stairs = Staircase(
        np.array([[0, 1, 21, 22]], dtype=np.int64),
        0,
        np.array([[-10]], dtype=np.int64),
        np.array([[40]], dtype=np.int64),
    )
    assert fit_requantization(stairs, line_of(0.2, 0.0), SCALES, np.array([9])) is None


@pytest.mark.parametrize(("bias", "expected"), [(0, True), (1, False)])
def test_equality_sees_a_single_sum(bias: int, expected: bool) -> None:
    sums = range_of(-20, 20)
    stairs = find_staircase(lambda v: np.rint(v / 4.0).astype(np.int64), sums, -5, 5)
    quarter = np.array([0.25], dtype=np.float32)
    found = Requantization(np.array([1]), np.array([bias]), quarter, ONE, ONE)
    assert is_equal(stairs, found) is expected


def test_spread_is_that_of_sampled_sums() -> None:
    rng = np.random.default_rng(0)
    weights = rng.integers(-7, 8, (1, 200))
    sampled = rng.integers(-8, 8, (20000, 200)) @ weights[0]
    spread = spread_of(weights, -8, 7)
    assert abs(float(spread.mean[0, 0]) - sampled.mean()) < 0.02 * sampled.std()
    assert abs(float(spread.deviation[0, 0]) / sampled.std() - 1) < 0.02
