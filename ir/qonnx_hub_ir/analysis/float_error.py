"""What rounding can do to float sums: how far apart two orders of adding can be.

A sum of ``n`` terms, in any order, is off by at most ``n u`` times the sum of their
magnitudes, with ``u`` half the distance of floats around one. Rounding errors have both signs:
in practice they add up to about ``sqrt(n) u`` of it.

Source: N. Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, sections 3.1
(products), 4.2 (sums) and 2.8 (errors of both signs). That the bound needs no
``1 / (1 - n u)``: C.-P. Jeannerod and S. Rump, Improved error bounds for inner products in
floating-point arithmetic, SIAM J. Matrix Anal. Appl. 34 (2013).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeVar

import numpy as np

from qonnx_hub_ir.quantizers import Array

Number = TypeVar("Number", float, Array)

FLOAT32_UNIT = 2.0**-24
"""Largest relative error of one rounding to float32."""

REORDERED = 1e-5
"""What another order of float32 sums explains in a whole model, relative to its largest value:
some hundred rounding units, which sums of a hundred thousand products stay within."""

_LIKELY_FACTOR = 8.0
"""How many times the usual error of a sum is allowed for."""

_LANES = 4.0
"""Partial sums that every float library keeps side by side, at least."""


def reordering_error(outputs: Iterable[Array]) -> float:
    """Return how far another order of float32 sums may move outputs of a model.

    It is :data:`REORDERED` times the largest finite magnitude in all arrays of floats; 0 where
    there is none.
    """
    numbers = [np.abs(y[np.isfinite(y)]) for y in outputs if y.dtype.kind == "f"]
    return REORDERED * max((float(n.max(initial=0)) for n in numbers), default=0.0)


def sum_error(terms: float, magnitude: Number, unit: float = FLOAT32_UNIT) -> Number:
    """Return the largest error of a sum of terms, or of products, in any order of adding.

    Args:
        terms: How many there are.
        magnitude: Sum of the magnitudes of all.
        unit: Rounding unit of the float type.
    """
    return terms * unit * magnitude


def sum_margin(terms: int, unit: float) -> float:
    """Return the error of a sum and of its bound, relative to the sum of magnitudes.

    Twice the classical bound ``n u / (1 - n u)`` covers a bound computed in float64 as well.
    It is infinite where half of the sum or more may be lost.
    """
    growth = terms * unit
    return 2 * growth / (1 - growth) if growth < 0.5 else math.inf


def likely_sum_error(terms: float, magnitude: float) -> float:
    """Return an error that a float32 sum hardly ever has, in any order of adding.

    Args:
        terms: How many terms there are.
        magnitude: Sum of the magnitudes of all.
    """
    return _LIKELY_FACTOR * FLOAT32_UNIT * math.sqrt(terms) * magnitude


def sum_deviation(weights: Array, mean: Array, deviation: Array, low: int, high: int) -> Array:
    """Return the standard deviation of the rounding error of float32 sums ``sum(w * x)``.

    Each addition rounds a partial sum to 24 bits, an error of at most 2^-24 of it, evenly
    spread; partial sums grow like a random walk, several of them side by side. The products
    bring three roundings each.

    Args:
        weights: (C, terms).
        mean: Mean of the sums, (C, 1).
        deviation: Standard deviation of the sums, (C, 1).
        low: Lowest x.
        high: Highest x.

    Returns:
        (C, 1), in units of the sum.
    """
    wide = weights.astype(np.float64)
    terms = max(int(np.max(np.count_nonzero(wide, axis=1), initial=1)), 1)
    squares = (low * low + low * high + high * high) / 3.0
    products = 3.0 * squares * (wide**2).sum(axis=1, keepdims=True)
    partial = (deviation**2 + mean**2) * (terms / (2.0 * _LANES) + _LANES)
    unit = FLOAT32_UNIT / math.sqrt(3.0)
    return np.asarray(unit * np.sqrt(partial + products) + 1e-12)
