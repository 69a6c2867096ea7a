"""What functions of one value make of ranges and grids: activations, roundings, conversions.

Functions such as Tanh are computed differently by every library: their ranges have a margin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from qonnx_hub_ir import operators
from qonnx_hub_ir.analysis.grids import whole_numbers
from qonnx_hub_ir.analysis.integer_sums import largest_magnitude
from qonnx_hub_ir.analysis.pointwise import scaled_grid, shifted_grid
from qonnx_hub_ir.analysis.rule_context import (
    NodeInfo,
    Rule,
    RuleTable,
    widened,
    without_nan,
)
from qonnx_hub_ir.analysis.value_info import ValueInfo, between
from qonnx_hub_ir.graph.affine import batchnorm_affine
from qonnx_hub_ir.graph.constants import along_channels
from qonnx_hub_ir.quantizers import Array

_FUNCTION_MARGIN = 2.0**-18
"""Margin around functions, relative to the largest magnitude: far above the error of any
single-precision library."""


def _whole(low: Array, high: Array) -> ValueInfo:
    """Return the range of whole numbers; they lie on a grid where float64 tells them apart."""
    is_followed = bool(np.all(largest_magnitude(low, high) < 2.0**53))
    return between(low, high, whole_numbers(low, high) if is_followed else None)


def _to_whole(how: Callable[[Array], Array]) -> Rule:
    return lambda site: _whole(how(site.info(0).low), how(site.info(0).high))


def _nearly(low: Array, high: Array) -> ValueInfo:
    """Return the range of a function that every library computes in its own way."""
    reach = largest_magnitude(low, high)
    margin = _FUNCTION_MARGIN * np.maximum(np.where(np.isfinite(reach), reach, 1.0), 1.0)
    return widened(low, high, margin)


def _is_coarse(site: NodeInfo) -> bool:
    """Return whether the type's own rounding may go beyond the margin around functions."""
    return not site.is_float or site.rounding_unit > _FUNCTION_MARGIN / 2


def _increasing(how: Callable[[NodeInfo, Array], Array]) -> Rule:
    """Return the rule of a function that keeps order; the table knows what it never passes."""

    def rule(site: NodeInfo) -> ValueInfo:
        lowest, highest = operators.bounds(site.node) or (-np.inf, np.inf)
        if _is_coarse(site):
            return between(lowest, highest)
        x = site.info(0)
        found = _nearly(*without_nan(how(site, x.low), how(site, x.high)))
        return between(np.maximum(found.low, lowest), np.minimum(found.high, highest))

    return rule


def bounded(site: NodeInfo) -> ValueInfo | None:
    """Return what an operator never leaves, whatever its input is."""
    found = operators.bounds(site.node)
    if found is None or not site.is_float:
        return None
    ends = np.array(found, dtype=np.float64)
    # Half of pi is no float: what a library takes for it may lie beyond.
    margin = np.where(ends.astype(np.float16) == ends, 0.0, _FUNCTION_MARGIN * np.abs(ends))
    return widened(ends[0], ends[1], margin[0] + margin[1])


def _hard_sigmoid(site: NodeInfo, x: Array) -> Array:
    alpha, beta = float(site.attr("alpha", 0.2)), float(site.attr("beta", 0.5))
    return np.clip(alpha * x + beta, 0.0, 1.0) if alpha > 0 else np.full_like(x, np.nan)


def _elu(site: NodeInfo, x: Array) -> Array:
    alpha = float(site.attr("alpha", 1.0))
    return np.where(x < 0, alpha * np.expm1(x), x) if alpha >= 0 else np.full_like(x, np.nan)


def _hard_swish(site: NodeInfo) -> ValueInfo | None:
    """Return the range of ``x * clip(x / 6 + 0.5, 0, 1)``, which is lowest at -1.5."""
    x = site.info(0)
    if _is_coarse(site):
        return None
    finite = [np.maximum(end, -4.0) for end in (x.low, x.high)]
    ends = [end * np.clip(end / 6 + 0.5, 0.0, 1.0) for end in finite]
    turns = (x.low <= -1.5) & (x.high >= -1.5)
    return _nearly(np.where(turns, -0.375, np.minimum(*ends)), np.maximum(*ends))


def _batch_normalization(site: NodeInfo) -> ValueInfo | None:
    arrays = [site.array(k) for k in range(1, 5)]
    shape = site.shapes[0]
    if not site.is_float or shape is None or len(shape) < 2 or site.attr("training_mode", 0):
        return None
    known = [a.astype(np.float64) for a in arrays if a is not None]
    if len(known) != 4 or not all(bool(np.all(np.isfinite(a))) for a in known):
        return None
    gain, shift, mean, variance = (along_channels(a, len(shape)) for a in known)
    epsilon = float(site.attr("epsilon", 1e-5))
    if not bool(np.all(variance + epsilon > 0)):
        return None
    x, (factor, added) = site.info(0), batchnorm_affine(gain, shift, mean, variance, epsilon)
    corners = [
        np.nan_to_num((end - mean) * factor, nan=0.0, posinf=np.inf, neginf=-np.inf)
        for end in (x.low, x.high)
    ]
    # No library's order of operations is known: each of a handful rounds once.
    reach = (x.magnitude + np.abs(mean)) * np.abs(factor)
    margin = 16 * site.rounding_unit * (np.nan_to_num(reach) + np.abs(shift))
    found = widened(np.minimum(*corners) + shift, np.maximum(*corners) + shift, margin)
    grid = None if x.grid is None else scaled_grid(site, x.grid, factor)
    if grid is not None:
        # Whatever the order: one product and one sum, where nothing else is done.
        if np.all(variance + epsilon == 1) and not np.any(mean):
            grid = shifted_grid(site, grid, shift)
        else:
            grid = replace(grid, offset=np.asarray(grid.offset + added), exact=False)
    return replace(found, grid=grid)


def _cast(site: NodeInfo) -> ValueInfo | None:
    x, target = site.info(0), site.dtype
    if target is None:
        return None
    if site.is_float:
        grid = None if x.grid is None else x.grid.held_by(target)
        return between(x.low.astype(target), x.high.astype(target), grid)
    if target.kind not in "iu":
        return None
    limits = np.iinfo(target)
    # Beyond its limits a type wraps, or not, as the library likes.
    if np.any(x.low <= limits.min - 1.0) or np.any(x.high >= limits.max + 1.0):
        return None
    return _whole(np.trunc(x.low), np.trunc(x.high))


RULES: RuleTable = {
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Ceil": _to_whole(np.ceil),
    "Elu": _increasing(_elu),
    "Exp": _increasing(lambda site, x: np.exp(x)),
    "Floor": _to_whole(np.floor),
    "HardSigmoid": _increasing(_hard_sigmoid),
    "HardSwish": _hard_swish,
    "Log": _increasing(lambda site, x: np.log(np.maximum(x, 0.0))),
    "Round": _to_whole(np.rint),
    "Sigmoid": _increasing(lambda site, x: np.asarray(1.0 / (1.0 + np.exp(-x)))),
    "Sign": _to_whole(np.sign),
    "Softplus": _increasing(lambda site, x: np.logaddexp(0.0, x)),
    "Softsign": _increasing(
        lambda site, x: np.where(np.isinf(x), np.sign(x), x / (1.0 + np.abs(x)))
    ),
    "Sqrt": _increasing(lambda site, x: np.sqrt(np.maximum(x, 0.0))),
    "Tanh": _increasing(lambda site, x: np.tanh(x)),
}
