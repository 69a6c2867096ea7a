"""Requantization as a staircase: when integers alone compute the same codes.

A quantizer behind a chain that keeps order is a staircase of the integer sum ``a``: level
``k`` or more is reached from some sum ``T_k`` on. A QLinear operator is a staircase too,

    level = clip(round((r * a + b) * m)),

with whole numbers ``r`` (weights times ``r``) and ``b`` (the int32 bias) and a float32 ``m``.
Both are monotone in ``a``, so they are equal for every sum that can occur exactly if each
``T_k`` reaches ``k`` and ``T_k - 1`` does not. That is a pair of linear inequalities in ``m``
for each step once ``b`` is chosen, so a batch normalization, a bias off the grid or an odd
scale folds into integers without any error more often than not: a larger ``r`` makes ``b``
finer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qonnx_hub_adapters.qlinear.epilogue import Line
from qonnx_hub_ir.analysis.integer_sums import FLOAT32_WHOLE, SumRange
from qonnx_hub_ir.quantizers import Array

Levels = Callable[[Array], Array]
"""int64 sums of shape (C, n) -> int64 levels of the same shape."""


@dataclass(frozen=True, slots=True, eq=False)
class Scales:
    """Scales around a product: float32 scalars, and one weight scale per channel."""

    x: Array
    weight: Array
    y: Array


_SLACK = 2.0**-20
"""Distance, as a share of ``m``, that a found multiplier keeps from its limits: several
float32 roundings, so that the order in which a runtime multiplies scales does not matter."""

_LARGEST_TABLE = 1 << 21
"""Entries of one block of the search."""


@dataclass(frozen=True, slots=True, eq=False)
class Staircase:
    """Where each level starts, per channel.

    Attributes:
        starts: (C, n) int64: the first sum that reaches ``first + 1 + index``; one above the
            highest sum where none does, the lowest sum where all do.
        first: The lowest level.
        low: Lowest sum per channel, (C, 1).
        high: Highest sum per channel, (C, 1).
    """

    starts: Array
    first: int
    low: Array
    high: Array

    @property
    def levels(self) -> Array:
        """The level that starts at each index, (n,)."""
        return self.first + 1 + np.arange(self.starts.shape[1], dtype=np.int64)

    @property
    def edges(self) -> tuple[Array, Array]:
        """The sums where levels start and the ones just below, within those that occur."""
        return np.minimum(self.starts, self.high), np.maximum(self.starts - 1, self.low)

    def is_met_by(self, at: Array, below: Array) -> bool:
        """Return whether a function with these levels at the :attr:`edges` is the same."""
        reached, entered = self.starts <= self.high, self.starts > self.low
        rises = (at >= self.levels) | ~reached, (below < self.levels) | ~entered
        return bool(np.all(rises))


@dataclass(frozen=True, slots=True, eq=False)
class Requantization:
    """Numbers of a QLinear operator, per channel, (C,) each.

    Attributes:
        factor: int64: what the weights are multiplied by.
        bias: int64 within int32: added to the sum.
        scale: float32: the operator's weight scale.
        x_scale: float32 scalar: the operator's input scale.
        y_scale: float32 scalar: the operator's output scale.
    """

    factor: Array
    bias: Array
    scale: Array
    x_scale: Array
    y_scale: Array

    @property
    def multiplier(self) -> Array:
        """What the operator multiplies sums by, (C,) float32, rounded as it rounds."""
        return np.asarray((self.x_scale * self.scale) / self.y_scale, dtype=np.float32)

    def levels(self, sums: Array) -> Array:
        """Return the levels of sums (C, n), not clipped, as QLinear operators round them."""
        total = sums * self.factor[:, np.newaxis] + self.bias[:, np.newaxis]
        scaled = total.astype(np.float32) * self.multiplier[:, np.newaxis]
        return np.rint(scaled).astype(np.int64)


def find_staircase(levels: Levels, sums: SumRange, first: int, last: int) -> Staircase:
    """Return where a monotone function of sums reaches each level, by bisection.

    Args:
        levels: The function; it must not fall.
        sums: The sums that can occur.
        first: Lowest level.
        last: Highest level.
    """
    low, high = (np.asarray(end).reshape(-1, 1) for end in (sums.low, sums.high))
    wanted = np.arange(first + 1, last + 1, dtype=np.int64)
    shape = (low.shape[0], wanted.size)
    left = np.broadcast_to(low, shape).copy()
    right = np.broadcast_to(high + 1, shape).copy()
    while np.any(left < right):
        middle = (left + right) >> 1
        # A finished search must not step beyond the highest sum.
        reached = levels(np.minimum(middle, high)) >= wanted
        reached |= middle > high
        right = np.where(reached, middle, right)
        left = np.where(reached, left, np.minimum(middle + 1, right))
    return Staircase(left, first, low, high)


def is_equal(stairs: Staircase, found: Requantization) -> bool:
    """Return whether the operator gives every level that the staircase gives."""
    at, below = stairs.edges
    return stairs.is_met_by(found.levels(at), found.levels(below))


def stairs_of(found: Requantization, like: Staircase) -> Staircase:
    """Return the staircase of an operator over the sums and levels of another one."""
    sums = SumRange(like.low[:, 0], like.high[:, 0], like.high[:, 0])
    last = like.first + like.starts.shape[1]
    return find_staircase(found.levels, sums, like.first, last)


def natural_requantization(
    line: Line, unit: Array, scales: Scales, factor: Array, sums: SumRange
) -> Requantization | None:
    """Return the operator with the chain's own slope, and its offset rounded to ``b``.

    Args:
        line: The chain, rising in every channel.
        unit: Size of one unit of the sum, (C, 1), before the chain.
        scales: The scales of the product and of the quantizer behind.
        factor: (C,) whole number that the weights are multiplied by.
        sums: The sums that can occur.

    Returns:
        ``None`` where a channel does not rise, or a bias is beyond float32's whole numbers.
    """
    slope, offset = line.slope[:, 0], line.offset[:, 0]
    if np.any(slope <= 0):
        return None
    bias = np.rint(offset / slope * factor)
    reach = np.maximum(np.abs(sums.low), np.abs(sums.high)) * factor + np.abs(bias)
    if np.any(reach > FLOAT32_WHOLE):
        return None
    # Without batch normalization the gain is 1, and the weight keeps its own scale.
    gain = slope / unit[:, 0].astype(np.float64)
    scale = (scales.weight.astype(np.float64) * gain / factor).astype(np.float32)
    found = Requantization(factor, bias.astype(np.int64), scale, scales.x, scales.y)
    return found if np.all(found.multiplier >= np.finfo(np.float32).tiny) else None


def fit_requantization(
    stairs: Staircase, line: Line, scales: Scales, factor: Array
) -> Requantization | None:
    """Return an operator that equals the staircase with room to spare, if one is found.

    Args:
        stairs: What it must equal.
        line: The chain that the staircase is of; biases are tried around its offset.
        scales: The scales of the product and of the quantizer behind.
        factor: (C,) whole number that the weights are multiplied by.
    """
    channels = len(factor)
    with np.errstate(divide="ignore", invalid="ignore"):
        centres = factor * (line.offset / line.slope)[:, 0]
    biases = np.zeros(channels, dtype=np.int64)
    multipliers = np.ones(channels, dtype=np.float64)
    for channel in range(channels):
        found = _fit_channel(stairs, channel, float(centres[channel]), int(factor[channel]))
        if found is None:
            return None
        biases[channel], multipliers[channel] = found
    scale = (multipliers * float(scales.y) / float(scales.x)).astype(np.float32)
    fitted = Requantization(factor, biases, scale, scales.x, scales.y)
    return fitted if is_equal(stairs, fitted) else None


def _fit_channel(
    stairs: Staircase, channel: int, centre: float, r: int
) -> tuple[int, float] | None:
    low, high = int(stairs.low[channel, 0]), int(stairs.high[channel, 0])
    starts, levels = stairs.starts[channel], stairs.levels
    reached, entered = starts <= high, starts > low
    inner = reached & entered
    if not np.any(inner):
        return _constant_level(stairs, reached, low, high, r)
    if not math.isfinite(centre) or abs(centre) > FLOAT32_WHOLE:
        return None
    width = 2 * r + 4
    candidates = np.arange(-width, width + 1, dtype=np.int64) + round(centre)
    reach = max(abs(low), abs(high)) * r + np.abs(candidates)
    candidates = candidates[reach <= FLOAT32_WHOLE]
    if candidates.size * starts.size > _LARGEST_TABLE:
        middle = candidates.size // 2
        half = max(_LARGEST_TABLE // starts.size // 2, 1)
        candidates = candidates[max(middle - half, 0) : middle + half]
    halves = levels - 0.5
    ends = [np.zeros(candidates.size), np.full(candidates.size, np.inf)]
    for sums, which, at_least in ((starts, reached, True), (starts - 1, entered, False)):
        shifted = r * sums[which] + candidates[:, np.newaxis]
        _limit(ends, shifted, halves[which], at_least=at_least)
    return _widest(candidates, ends[0], ends[1])


def _constant_level(
    stairs: Staircase, reached: Array, low: int, high: int, r: int
) -> tuple[int, float] | None:
    """Return bias and multiplier of a channel that has one level whatever its sum."""
    level = stairs.first + int(np.count_nonzero(reached))
    largest = max(abs(low), abs(high)) * r
    bias = level * (2 * largest + 2)
    if largest + abs(bias) > FLOAT32_WHOLE:
        return None
    return bias, 1.0 / (2 * largest + 2)


def _limit(ends: list[Array], sums: Array, halves: Array, *, at_least: bool) -> None:
    """Narrow the interval of ``m`` per candidate: ``m * sum`` at least (most) each half."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = halves / sums
    wants_more = (sums > 0) == at_least
    lower = np.where((sums != 0) & wants_more, ratio, 0.0)
    upper = np.where((sums != 0) & ~wants_more, ratio, np.inf)
    never = (sums == 0) & ((halves > 0) if at_least else (halves < 0))
    upper = np.where(never, -1.0, upper)
    np.maximum(ends[0], lower.max(axis=1, initial=0.0), out=ends[0])
    np.minimum(ends[1], upper.min(axis=1, initial=np.inf), out=ends[1])


def _widest(candidates: Array, low: Array, high: Array) -> tuple[int, float] | None:
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        room = np.where(high > 0, (high - low) / np.maximum(low, 1e-30), -1.0)
    if not room.size:
        return None
    best = int(np.argmax(np.minimum(room, 1.0)))
    if not room[best] > 4 * _SLACK:
        return None
    lowest, highest = float(low[best]), float(high[best])
    if math.isinf(highest):
        return int(candidates[best]), max(2.0 * lowest, 1e-3)
    return int(candidates[best]), (lowest + highest) / 2


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """How sums spread when all inputs are equally likely: mean and deviation, (C, 1)."""

    mean: Array
    deviation: Array

    def share(self, sums: Array) -> Array:
        """Return the share of each sum (C, n), by the normal distribution."""
        t = (sums - self.mean) / self.deviation
        return np.asarray(np.exp(-0.5 * t * t) / (self.deviation * math.sqrt(2 * math.pi)))


def spread_of(weights: Array, low: int, high: int) -> Spread:
    """Return the spread of ``sum(w * x)`` for independent ``x``, all from low to high alike.

    Args:
        weights: (C, terms).
        low: Lowest x.
        high: Highest x.
    """
    wide = weights.astype(np.float64)
    mean = wide.sum(axis=1, keepdims=True) * (low + high) / 2
    variance = (wide**2).sum(axis=1, keepdims=True) * ((high - low + 1) ** 2 - 1) / 12
    return Spread(mean, np.sqrt(np.maximum(variance, 1.0 / 12)))


def spread_of_pair(
    x: tuple[int, int], other: tuple[int, int], length: int, signs: Array
) -> Spread:
    """Return the spread of a sum of products of two independent levels.

    Args:
        x: Lowest and highest level of one factor, all equally likely.
        other: The same of the other factor.
        length: How many products are added.
        signs: (C, 1) plus or minus one.
    """
    means = [(low + high) / 2 for low, high in (x, other)]
    mean = means[0] * means[1]
    squares = [
        middle * middle + ((high - low + 1) ** 2 - 1) / 12
        for middle, (low, high) in zip(means, (x, other), strict=True)
    ]
    variance = squares[0] * squares[1] - mean * mean
    deviation = math.sqrt(max(length * variance, 1.0 / 12))
    return Spread(
        length * mean * signs.astype(np.float64),
        np.full(signs.shape, deviation, dtype=np.float64),
    )


def steps_between(a: Staircase, b: Staircase) -> int:
    """Return the largest difference of level, over all sums, between two staircases."""
    largest = 0
    for ours, theirs, high in zip(a.starts, b.starts, a.high[:, 0], strict=True):
        # Levels change at starts only, so that every difference shows at one of them.
        sums = np.minimum(np.concatenate([ours, theirs]), high)
        levels = [np.searchsorted(side, sums, side="right") for side in (ours, theirs)]
        largest = max(largest, int(np.abs(levels[0] - levels[1]).max(initial=0)))
    return largest


def share_of_noise(stairs: Staircase, noise: Array, spread: Spread, ties: Array) -> float:
    """Return the share of values that float rounding carries across a tie.

    Args:
        stairs: The staircase of exact sums.
        noise: Standard deviation of a float sum's own rounding error, in units of the sum,
            (C, 1).
        spread: How sums spread.
        ties: Where the levels start on the real line, (C, n).
    """
    total = np.zeros(len(noise), dtype=np.float64)
    for sums in (stairs.starts, stairs.starts - 1):
        inside = (sums >= stairs.low) & (sums <= stairs.high)
        distance = np.abs(sums - ties) / (noise * math.sqrt(2.0))
        crossing = 0.5 * np.vectorize(math.erfc, otypes=[np.float64])(np.minimum(distance, 30))
        total += (np.where(inside, crossing * spread.share(sums), 0.0)).sum(axis=1)
    return float(total.mean())
