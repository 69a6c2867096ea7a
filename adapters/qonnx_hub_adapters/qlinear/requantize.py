"""From an integer sum to the next quantizer's codes: in integers, if that is the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx_ir import Node

from qonnx_hub_adapters.qlinear.codes import Codes, Form, Steps
from qonnx_hub_adapters.qlinear.epilogue import (
    Line,
    apply_steps,
    line_of,
    read_chain,
)
from qonnx_hub_adapters.qlinear.operators import Target, emit_requantized, refusal
from qonnx_hub_adapters.qlinear.products import Product
from qonnx_hub_adapters.qlinear.staircase import (
    Levels,
    Requantization,
    Scales,
    Staircase,
    find_staircase,
    fit_requantization,
    float_noise,
    is_equal,
    natural_requantization,
    share_moved,
    share_of_noise,
    spread_of,
    stairs_of,
)
from qonnx_hub_ir.emitter import Emitter
from qonnx_hub_ir.quant import Array, BipolarQuant, Rounding, is_bipolar
from qonnx_hub_ir.ranges import SumRange, largest_safe_weight
from qonnx_hub_ir.semantics import quantize_to_integers

_LARGEST_BYTE = 127
_ROOM = 1 << 22
"""Sums times a factor stay below this, so that a bias has room beside them in float32."""

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

    product: Product
    target: Target
    signs: Array
    sums: SumRange
    line: Line
    stairs: Staircase
    is_certain: bool

    @property
    def scales(self) -> Scales:
        """The scales around the product."""
        return Scales(self.product.x.scale, self.product.scale, self.target.steps.scale)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """How a product is requantized.

    Attributes:
        found: The operator's numbers; ``None`` where the epilogue stays in float.
        reason: Why it stays, or what is lost.
        exact: Whether the source gives the same codes, its own rounding included.
        moved: Share of sums that get another level, as a choice of the caller's.
        noise: Share of values that the source's own float rounding may carry over a tie.
    """

    found: Requantization | None
    reason: str = ""
    exact: bool = True
    moved: float = 0.0
    noise: float = 0.0


def read_requantizing(
    product: Product, chain: list[Node], steps: Steps, zero: int
) -> Requantizing | str:
    """Return a product with the quantizer behind it, or why it cannot be compared.

    Args:
        product: The product.
        chain: The float operators between.
        steps: The quantizer.
        zero: Code of its level 0 in the model's type.
    """
    behind = read_chain(chain, product.layout)
    if isinstance(behind, str):
        return behind
    followed = [*product.steps, *behind]
    unit = product.unit

    def levels_of(values: Array) -> Array:
        with np.errstate(all="ignore"):
            t = apply_steps(followed, values)
            return quantize_to_integers(t, steps.quant) - steps.zero

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

    low, high = steps.low, steps.high
    if any(step.clamps for step in followed):
        low = max(low, int(rising(sums.low.reshape(-1, 1)).min(initial=high)))
        high = min(high, int(rising(sums.high.reshape(-1, 1)).max(initial=low)))
    if low >= high:
        return "it has one level whatever its input"
    stairs = find_staircase(rising, sums, low, high)
    line = Line(line.slope * along, line.offset)
    target = Target(steps, zero, low, high)
    certain = product.is_exact or _is_certain(product, stairs, along, levels_of)
    return Requantizing(product, target, signs, sums, line, stairs, certain)


def _is_certain(product: Product, stairs: Staircase, signs: Array, levels_of: Levels) -> bool:
    """Return whether no rounding of the source's float sum can reach another level.

    A float32 sum of ``n`` products, in any order, is within ``(n - 1) * 2^-24`` of the sum of
    the magnitudes of its terms (Higham, Accuracy and Stability of Numerical Algorithms, 4.2);
    dequantizing both factors, multiplying them and the unit add five roundings. The chain
    behind is monotone in float32 too, so the two ends of that interval tell about all of it.
    """
    unit = product.unit.astype(np.float64)
    terms = product.columns.shape[1] + 8
    error = terms * 2.0**-24 * product.sums.magnitude.reshape(-1, 1) * unit * 1.01
    ends = (
        (np.minimum(stairs.starts, stairs.high), -1.0),
        (np.maximum(stairs.starts - 1, stairs.low), 1.0),
    )
    reached, entered = stairs.starts <= stairs.high, stairs.starts > stairs.low
    results = []
    for sums, way in ends:
        far = sums * signs * unit + way * signs * error
        results.append(levels_of(far.astype(np.float32)))
    at, before = results[0] >= stairs.levels, results[1] < stairs.levels
    return bool(np.all(at | ~reached) and np.all(before | ~entered))


def decide(case: Requantizing, form: Form, *, allow_lossy: bool) -> Outcome:
    """Return the operator to use, or why the epilogue stays in float.

    In this order: the chain's own numbers, if they give every code; numbers found for the
    staircase, with finer weights; and, where the caller allows it, the chain's own numbers
    with what they lose.
    """
    factor = _factors(case)
    ones = np.ones_like(factor)
    exact = case.is_certain
    noise = 0.0 if exact else _MARGIN * _noise(case)
    unit, reason = case.product.unit, ""
    lossy: list[tuple[float, Requantization]] = []
    for factors, own in ((ones, True), (factor, True), (factor, False)):
        if own:
            found = natural_requantization(case.line, unit, case.scales, factors, case.sums)
        else:
            found = fit_requantization(case.stairs, case.line, case.scales, factors)
        if found is None:
            continue
        reason = refusal(case.product, found, case.signs, form)
        if reason:
            continue
        if is_equal(case.stairs, found):
            return Outcome(found, exact=exact, noise=noise)
        lossy.append((_moved(case, found), found))
    if not lossy or not allow_lossy:
        reason = reason or "no int32 bias and scale give all its codes"
        return Outcome(None, reason, exact, noise=noise)
    moved, found = min(lossy, key=lambda pair: pair[0])
    return Outcome(found, "its bias is rounded to int32", False, _MARGIN * moved, noise)


def _factors(case: Requantizing) -> Array:
    """Return by how much the weights of each channel can grow without harm, (C,)."""
    product = case.product
    limit = min(_LARGEST_BYTE, largest_safe_weight(product.x.reach))
    largest = np.abs(product.columns).max(axis=1, initial=0).astype(np.int64)
    reach = np.maximum(np.abs(case.sums.low), np.abs(case.sums.high))
    factor = np.minimum(limit // np.maximum(largest, 1), _ROOM // np.maximum(reach, 1))
    return np.asarray(np.maximum(factor, 1))


def _moved(case: Requantizing, found: Requantization) -> float:
    x = case.product.x
    spread = spread_of(case.product.columns * case.signs[:, np.newaxis], x.low, x.high)
    return share_moved(case.stairs, stairs_of(found, case.stairs), spread)


def _noise(case: Requantizing) -> float:
    """Return the expected share of values that float sums carry across a tie."""
    product, x = case.product, case.product.x
    spread = spread_of(product.columns * case.signs[:, np.newaxis], x.low, x.high)
    noise = float_noise(product.columns, spread, x.low, x.high)
    return share_of_noise(case.stairs, noise, spread, _ties(case))


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


def emit(
    emitter: Emitter, case: Requantizing, found: Requantization, form: Form
) -> tuple[Codes, str]:
    """Return the codes by the operator found, and its name."""
    return emit_requantized(emitter, case.product, found, case.signs, case.target, form)
