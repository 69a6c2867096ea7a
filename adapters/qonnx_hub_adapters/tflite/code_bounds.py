"""Bounds between two ways to round the same number to a code: by bisection, or by trial."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qonnx_hub_adapters.tflite.kernels.fixed_point import Factor
from qonnx_hub_adapters.tflite.kernels.grids import limits
from qonnx_hub_adapters.tflite.net import RELU, RELU6, RELU_N1_TO_1, KernelCall
from qonnx_hub_ir.quantizers import Array

_UNIT = 2.0**-24
_MOST_PLACES = 2**20
_ENDS = {RELU: (0.0, np.inf), RELU6: (0.0, 6.0), RELU_N1_TO_1: (-1.0, 1.0)}


@dataclass(frozen=True, slots=True)
class CodeBound:
    """How far two codes of one number may be apart.

    Attributes:
        steps: The largest difference; ``None`` where no bound is known.
        share: The share of sums, or of codes, whose codes differ where the float layer sums
            without error; ``None`` where it was not counted.
    """

    steps: int | None
    share: float | None = None


NO_BOUND = CodeBound(None)
"""Nothing is known."""


def unit_error(operations: int) -> float:
    """Return the relative error of so many float32 operations in a row, at most."""
    return operations * _UNIT / (1 - operations * _UNIT)


def limits_of(call: KernelCall, activation: int | None = None) -> tuple[int, int]:
    """Return the lowest and highest code that a kernel gives."""
    fused = call.options.get("fused_activation_function", 0)
    return limits(call.output, fused if activation is None else activation)


def by_trial(
    call: KernelCall,
    codes: Array,
    exact: Array,
    error: Any,
    activation: int | None = None,
) -> CodeBound:
    """Return the bound between codes of a kernel and those that a float layer may give.

    Args:
        call: The layer.
        codes: What its kernel gives, for every input there is.
        exact: The exact numbers for the same inputs, in steps, without zero point.
        error: By how much floats may be off, in steps.
        activation: The number of its activation; the fused one by default.
    """
    given = np.asarray(codes, dtype=np.int64)
    wide = np.broadcast_to(np.asarray(error, dtype=np.float64), exact.shape)
    rounded = (
        _rounded(call, exact + sign * (wide + 2.0**-40), activation) for sign in (-1, 1)
    )
    steps = max(int(np.abs(one - given).max(initial=0)) for one in rounded)
    differing = int(np.count_nonzero(_rounded(call, exact, activation) != given))
    return CodeBound(steps, differing / max(given.size, 1) if steps else 0.0)


def by_bisection(
    call: KernelCall,
    kernel: Callable[[Array], Array],
    ends: tuple[Array, ...],
    real: Array,
    error: Array,
    by: Factor | None = None,
) -> CodeBound:
    """Return the bound between a kernel and a float layer of the same integer sums.

    Args:
        call: The layer.
        kernel: Sums, [channels, thresholds] -> codes before they are cut; monotone.
        ends: The lowest and the highest sum of each channel.
        real: The exact factor from sums to steps, per channel.
        error: By how much float sums may be off, in steps, per channel.
        by: The factor of the kernel, where it shifts its sums left first.
    """
    low, high = (np.asarray(end, dtype=np.int64)[:, None] for end in ends)
    most = np.maximum(np.abs(low), np.abs(high))
    if (most << (0 if by is None else np.minimum(by.left, 31))).max() >= 2**31:
        return NO_BOUND  # sums leave 32 bits, and wrap there
    first, last = limits_of(call)
    codes = np.arange(first + 1, last + 1, dtype=np.int64)
    if not codes.size:
        return CodeBound(0, 0.0)
    if codes.size * low.size > _MOST_PLACES:
        return NO_BOUND
    off = np.asarray(error)[:, None] + 2.0**-40

    def floats(shift: Any) -> Callable[[Array], Array]:
        return lambda s: _rounded(call, s * real[:, None] + shift)

    def cut(sums: Array) -> Array:
        return np.asarray(np.clip(kernel(sums), first, last))

    # a code may be reached early or late: floats are off by some of a step in any direction
    own, exact, early, late = (
        _thresholds(one, low, high, codes)
        for one in (cut, floats(0.0), floats(off), floats(-off))
    )
    apart = np.abs(own - exact).sum(axis=1)
    inside = np.maximum(exact[:, -1] - exact[:, 0], 1)
    share = float((apart / inside).max())
    for steps in range(codes.size + 1):
        if _follows(late, own, steps) and _follows(own, early, steps):
            return CodeBound(steps, share if steps else 0.0)
    return NO_BOUND


def _rounded(call: KernelCall, numbers: Array, activation: int | None = None) -> Array:
    """Return the codes of numbers in steps, rounded half to even, as float layers do."""
    fused = call.options.get("fused_activation_function", 0)
    kind = fused if activation is None else activation
    if kind in _ENDS:
        least, most = (float(np.float32(end) / call.output.scale) for end in _ENDS[kind])
        numbers = np.clip(numbers, least, most)
    low, high = limits(call.output)
    codes = np.clip(np.rint(numbers) + call.output.zero, low, high)
    return np.asarray(codes.astype(np.int64))


def _thresholds(
    function: Callable[[Array], Array], low: Array, high: Array, codes: Array
) -> Array:
    """Return the lowest sum of each channel that gives each code or a higher one.

    Args:
        function: Sums -> codes, monotone.
        low: The lowest sum, [channels, 1].
        high: The highest; one more stands for codes that are never reached.
        codes: The codes, [thresholds].
    """
    shape = (low.shape[0], codes.size)
    below = np.broadcast_to(low, shape).copy()
    above = np.broadcast_to(high + 1, shape).copy()
    while (below < above).any():
        middle = (below + above) >> 1
        reached = function(np.minimum(middle, high)) >= codes
        open_ = below < above
        above = np.where(open_ & reached, middle, above)
        below = np.where(open_ & ~reached, middle + 1, below)
    return np.asarray(above)


def _follows(follower: Array, leader: Array, steps: int) -> bool:
    """Return whether one function is never more than so many codes below another.

    Where the leader reaches a code, the follower has reached that many codes less.
    """
    if steps >= leader.shape[1]:
        return True
    return bool((follower[:, : leader.shape[1] - steps] <= leader[:, steps:]).all())
