"""HAWQ's scales and integers in numpy, for checkpoints that are read without a module."""

from __future__ import annotations

import numpy as np

from qonnx_hub_ir.quantizers import Array

SYMMETRIC, ASYMMETRIC = "symmetric", "asymmetric"
_SMALLEST_RANGE = np.float32(1e-8)


def scale_of(low: Array, high: Array, bits: int, mode: str) -> Array:
    """Return the step for a range.

    Args:
        low: Lowest value, float32; one per channel or one in all.
        high: Highest value.
        bits: Bit width.
        mode: "symmetric" or "asymmetric".
    """
    if mode == SYMMETRIC:
        reach = np.maximum(np.abs(low), np.abs(high))
        steps = np.float32(2 ** (bits - 1) - 1)
    else:
        reach = high - low
        steps = np.float32(2**bits - 1)
    return np.asarray(np.maximum(reach, _SMALLEST_RANGE) / steps, dtype=np.float32)


def symmetric_integers(x: Array, scale: Array, bits: int) -> Array:
    """Return float32 integers: multiplied by the reciprocal, rounded half to even, clamped."""
    low, high = -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    rounded = np.rint(np.asarray(np.float32(1.0) / scale * x, dtype=np.float32))
    return np.asarray(np.clip(rounded, np.float32(low), np.float32(high)), dtype=np.float32)


def act_candidates(low: Array, high: Array, scale: Array) -> list[tuple[int, str]]:
    """Return the bit widths and modes that give a QuantAct's range this scale."""
    return [
        (bits, mode)
        for mode, first in ((SYMMETRIC, 2), (ASYMMETRIC, 1))
        for bits in range(first, 33)
        if _close(scale_of(low, high, bits, mode), scale)
    ]


def weight_candidates(weight: Array, scale: Array, *, per_channel: bool) -> list[int]:
    """Return the bit widths that give weights (out, ...) these scales, without percentile."""
    rows = weight.reshape(weight.shape[0], -1)
    low, high = rows.min(axis=1), rows.max(axis=1)
    if not per_channel:
        low, high = low.min(keepdims=True), high.max(keepdims=True)
    return [
        bits for bits in range(2, 33) if _close(scale_of(low, high, bits, SYMMETRIC), scale)
    ]


def smallest_bits(codes: Array) -> int:
    """Return the smallest signed bit width that holds the integers."""
    low, high = float(codes.min(initial=0.0)), float(codes.max(initial=0.0))
    fits = (b for b in range(2, 65) if -(2.0 ** (b - 1)) <= low and high <= 2.0 ** (b - 1) - 1)
    return next(fits)


def _close(a: Array, b: Array) -> bool:
    # A square root or a division may be rounded otherwise on another machine; the next bit
    # width is at least a factor of 1 + 2**-31 away, in practice a factor of two.
    return bool(np.all(np.abs(a - b.reshape(-1)) <= np.float32(1e-5) * np.abs(b.reshape(-1))))
