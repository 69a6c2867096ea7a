"""From an integer sum to the next quantizer's codes: in integers, if that is the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from onnx_ir import Node

from qonnx_hub_adapters.protocol import Bound
from qonnx_hub_adapters.qlinear import staircase
from qonnx_hub_adapters.qlinear.epilogue import Line, apply_steps, line_of, read_chain
from qonnx_hub_adapters.qlinear.integer_values import Target
from qonnx_hub_adapters.qlinear.operators import refusal
from qonnx_hub_adapters.qlinear.products import QuantizedProduct
from qonnx_hub_adapters.qlinear.staircase import Requantization, Staircase
from qonnx_hub_ir.analysis.float_error import FLOAT32_UNIT, sum_deviation, sum_error
from qonnx_hub_ir.analysis.integer_sums import SumRange, largest_safe_weight
from qonnx_hub_ir.quantizers import Array, BipolarQuant, Rounding, is_bipolar

_LARGEST_BYTE = 127
_MOST_MOVED = 0.01
"""Share of values beyond which a rounded bias is not worth its integers."""

_DRAWN = 1 << 22
_FEWEST_DRAWN = 1 << 8
_MOST_DRAWN = 1 << 14
"""Integers drawn in all, and sums of them at least and at most, to predict a share."""

_UNSEEN = 3
"""Differences that may have been missed among those drawn."""

_ROUNDINGS = 32
"""Roundings, of twice the size, that a chain behind a sum may have."""

_ROOM = 1 << 22
"""Sums times a factor stay below this, so that a bias has room beside them in float32."""

LARGEST_STEP = 2
"""Steps between neighbours, for quantizers of any kind: two levels are two apart."""

_MARGIN = 2.0
"""Predicted shares are this much above the expected ones: inputs spread unevenly."""


@dataclass(frozen=True, slots=True, eq=False)
class Requantizing:
    """A product and the quantizer behind it, ready to be compared with operators.

    Attributes:
        product: The product.
        target: What the quantizer makes, within the levels that can occur.
        signs: (C,) minus one where the chain falls as sums rise.
        sums: The sums that can occur, negated in those channels.
        line: The chain's slope and offset, rising in all channels.
        stairs: Where each level starts.
        is_certain: Whether the source's float rounding cannot carry any sum to another level.
    """

    product: QuantizedProduct
    target: Target
    signs: Array
    sums: SumRange
    line: Line
    stairs: Staircase
    is_certain: bool

    @property
    def scales(self) -> staircase.Scales:
        """The scales around the product."""
        return staircase.Scales(
            self.product.x.scale, self.product.scale, self.target.steps.scale
        )


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """How a product is requantized.

    Attributes:
        found: The operator's numbers; ``None`` where the epilogue stays in float.
        reason: Why it stays, or what is lost.
        bound: What is promised where the source may give other codes, by its own float
            rounding or for sums that get another level, as a choice of the caller's; ``None``
            where it gives the same.
    """

    found: Requantization | None
    reason: str
    bound: Bound | None


def read_requantizing(
    product: QuantizedProduct, chain: list[Node], target: Target
) -> Requantizing | str:
    """Return a product with the quantizer behind it, or why it cannot be compared.

    Args:
        product: The product.
        chain: The float operators between.
        target: What the quantizer makes.
    """
    behind = read_chain(chain, product.layout)
    if isinstance(behind, str):
        return behind
    followed = [*product.steps, *behind]
    unit = product.unit

    def levels_of(values: Array) -> Array:
        with np.errstate(all="ignore"):
            return target.codes_of(apply_steps(followed, values)) - target.zero

    line = line_of(followed, unit.astype(np.float64))
    signs = np.where(line.slope[:, 0] < 0, -1, 1).astype(np.int64)
    along = signs[:, np.newaxis]
    sums = SumRange(
        np.where(signs < 0, -product.sums.high, product.sums.low),
        np.where(signs < 0, -product.sums.low, product.sums.high),
        product.sums.magnitude,
    )

    def rising(values: Array) -> Array:
        return levels_of((values * along).astype(np.float32) * unit)

    low, high = target.low, target.high
    if any(step.clamps for step in followed):
        low = max(low, int(rising(sums.low.reshape(-1, 1)).min(initial=high)))
        high = min(high, int(rising(sums.high.reshape(-1, 1)).max(initial=low)))
    if low >= high:
        return "it has one level whatever its input"
    stairs = staircase.find_staircase(rising, sums, low, high)
    line = Line(line.slope * along, line.offset)
    target = target.within(low, high)
    certain = product.is_exact or _is_certain(product, stairs, along, levels_of)
    return Requantizing(product, target, signs, sums, line, stairs, certain)


def _is_certain(
    product: QuantizedProduct, stairs: Staircase, signs: Array, levels_of: staircase.Levels
) -> bool:
    """Return whether no rounding of the source's float sum can reach another level.

    A float32 sum of ``n`` products, in any order, is within ``(n - 1) * 2^-24`` of the sum of
    the magnitudes of its terms (Higham, Accuracy and Stability of Numerical Algorithms, 4.2);
    dequantizing both factors, multiplying them and the unit add five roundings. The chain
    behind is monotone in float32 too, so the two ends of that interval tell about all of it.
    """
    unit = product.unit.astype(np.float64)
    error = _sum_error(product) * unit * 1.01
    far = (
        sums * signs * unit + way * signs * error
        for sums, way in zip(stairs.edges, (-1.0, 1.0), strict=True)
    )
    return stairs.is_met_by(*(levels_of(values.astype(np.float32)) for values in far))


def _sum_error(product: QuantizedProduct) -> Array:
    """Return how far a float sum may be off, in units of the sum, (C, 1)."""
    terms = product.columns.shape[1] + 8
    return sum_error(terms, product.sums.magnitude.reshape(-1, 1))


def decide(case: Requantizing, *, allow_lossy: bool) -> Decision:
    """Return the operator to use, or why the epilogue stays in float.

    In this order: the chain's own numbers, if they give every code; numbers found for the
    staircase, with finer weights; and, where the caller allows it, the chain's own numbers
    with what they lose.
    """
    rounding = _bound_of_rounding(case)
    stays = Decision(None, "", None if case.is_certain else rounding)
    reason = ""
    lossy: list[Requantization] = []
    for found in _candidates(case):
        if found is None:
            continue
        reason = refusal(case.product, found, case.signs, case.target.form)
        if reason:
            continue
        if staircase.is_equal(case.stairs, found):
            return replace(stays, found=found)
        lossy.append(found)
    if not lossy or not allow_lossy:
        return replace(stays, reason=reason or "no int32 bias and scale give all its codes")
    shares = [_moved(case, found) for found in lossy]
    moved = min(shares)
    found = lossy[shares.index(moved)]
    between = staircase.steps_between(case.stairs, staircase.stairs_of(found, case.stairs))
    if between > 1 or moved > _MOST_MOVED:
        lost = f"rounding its bias to int32 moves a share of {moved:.1g} of its values"
        return replace(stays, reason=lost)
    bound = Bound(
        # Where a float sum rounds across a tie, that is one step more.
        (between if case.is_certain else between + 1) * rounding.steps,
        _MARGIN * moved + (rounding.share or 0.0),
        _reach_of_move(case, found) + (rounding.near or 0.0),
    )
    return Decision(found, "its bias is rounded to int32", bound)


def _candidates(case: Requantizing) -> Iterator[Requantization | None]:
    """Give the chain's own numbers, with finer weights, and those found for its staircase."""
    factor, unit = _factors(case), case.product.unit
    for own in (np.ones_like(factor), factor):
        yield staircase.natural_requantization(case.line, unit, case.scales, own, case.sums)
    yield staircase.fit_requantization(case.stairs, case.line, case.scales, factor)


def _bound_of_rounding(case: Requantizing) -> Bound:
    """Return how far float rounding can carry a value, and the expected share over a tie.

    The sum is off by at most :func:`_sum_error`; each operator behind it rounds
    numbers no larger than the line through the largest sum.
    """
    product, x = case.product, case.product.x
    slope = np.abs(case.line.slope)
    sums = np.maximum(np.abs(case.sums.low), np.abs(case.sums.high)).reshape(-1, 1)
    error = _sum_error(product) * slope
    error += _ROUNDINGS * FLOAT32_UNIT * (sums * slope + np.abs(case.line.offset))
    near = float(np.max(error, initial=0.0)) / float(case.target.steps.scale)
    share = 0.0
    if not case.is_certain:
        spread = _spread(case)
        noise = sum_deviation(product.columns, spread.mean, spread.deviation, x.low, x.high)
        share = _MARGIN * staircase.share_of_noise(case.stairs, noise, spread, _ties(case))
    # Two levels are two steps apart.
    return Bound(2 if is_bipolar(case.target.steps.quant) else 1, share, near)


def _reach_of_move(case: Requantizing, found: Requantization) -> float:
    """Return how far from a tie an operator's own levels start, in steps of the quantizer."""
    theirs, ties = staircase.stairs_of(found, case.stairs).starts, _ties(case)
    distance = np.maximum(np.abs(theirs - ties), np.abs(case.stairs.starts - ties))
    distance = np.where(theirs == case.stairs.starts, 0.0, distance) * np.abs(case.line.slope)
    return float(np.max(distance, initial=0.0)) / float(case.target.steps.scale)


def _factors(case: Requantizing) -> Array:
    """Return by how much the weights of each channel can grow without harm, (C,)."""
    product = case.product
    if product.other is not None:
        return np.ones(1, dtype=np.int64)
    limit = min(_LARGEST_BYTE, largest_safe_weight(product.x.reach))
    largest = np.abs(product.columns).max(axis=1, initial=0).astype(np.int64)
    reach = np.maximum(np.abs(case.sums.low), np.abs(case.sums.high))
    factor = np.minimum(limit // np.maximum(largest, 1), _ROOM // np.maximum(reach, 1))
    return np.asarray(np.maximum(factor, 1))


def _moved(case: Requantizing, found: Requantization) -> float:
    """Return the share of values that get another level, of integers drawn evenly."""
    theirs, sums = staircase.stairs_of(found, case.stairs), _drawn_sums(case)
    differing = 0
    for channel, drawn in enumerate(sums):
        sides = (case.stairs.starts[channel], theirs.starts[channel])
        levels = [np.searchsorted(starts, drawn, side="right") for starts in sides]
        differing += int(np.count_nonzero(levels[0] != levels[1]))
    # Nothing seen is no proof that there is nothing.
    return (differing + _UNSEEN) / max(sums.size, 1)


def _drawn_sums(case: Requantizing) -> Array:
    """Return sums of integers that are all equally likely, (C, n)."""
    product, rng = case.product, np.random.default_rng(0)
    length = product.columns.shape[1]
    count = int(np.clip(_DRAWN // max(length, 1), _FEWEST_DRAWN, _MOST_DRAWN))
    x = rng.integers(product.x.low, product.x.high + 1, (length, count))
    if product.other is None:
        sums = product.columns.astype(np.float64) @ x.astype(np.float64)
    else:
        other = rng.integers(product.other.low, product.other.high + 1, (length, count))
        sums = (x * other).sum(axis=0, dtype=np.int64)[np.newaxis]
    return np.asarray(sums * case.signs[:, np.newaxis]).astype(np.int64)


def _spread(case: Requantizing) -> staircase.Spread:
    product, x = case.product, case.product.x
    along = case.signs[:, np.newaxis]
    if product.other is None:
        return staircase.spread_of(product.columns * along, x.low, x.high)
    levels = (x.low, x.high), (product.other.low, product.other.high)
    return staircase.spread_of_pair(*levels, product.columns.shape[1], along)


def _ties(case: Requantizing) -> Array:
    """Return where levels start on the real line, in units of the sum, (C, n)."""
    quant, stairs = case.target.steps.quant, case.stairs
    middle = stairs.starts - 0.5
    if isinstance(quant, BipolarQuant) or is_bipolar(quant):
        edges = np.zeros(stairs.levels.shape, dtype=np.float64)
    elif quant.rounding in {Rounding.ROUND, Rounding.HALF_UP, Rounding.HALF_DOWN}:
        edges = (stairs.levels - 0.5) * float(case.target.steps.scale)
    elif quant.rounding is Rounding.FLOOR:
        edges = stairs.levels * float(case.target.steps.scale)
    else:
        return np.asarray(middle, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        ties = (edges - case.line.offset) / case.line.slope
    return np.where(np.isfinite(ties), ties, middle)
