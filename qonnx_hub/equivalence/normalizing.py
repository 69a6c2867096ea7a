"""What operators that set elements into proportion make of values between two ends.

Softmax, LogSoftmax and LayerNormalization are enclosed in exact arithmetic, moved by what any
formula of them can round: sums in any order, exponentials and logarithms of any library.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from onnx_ir import Node

from qonnx_hub_ir.analysis.float_error import sum_error
from qonnx_hub_ir.graph.queries import attribute
from qonnx_hub_ir.quantizers import Array

FUNCTION_ULPS = 16
"""Units in the last place that a library's function may be off: the most that the OpenCL C
specification 3.0, section 7.4 ("Relative Error as ULPs", single precision, full profile),
allows any of them (exp 3, tanh 5, erf and pow 16)."""

Ends = tuple[Array, Array]
Rule = Callable[[Node, int, Ends, Sequence[Array], float, int], Ends]
"""(node, opset, float64 ends of its input, its other inputs, unit, further roundings)."""


def _softmax_axes(node: Node, opset: int, rank: int) -> tuple[int, ...]:
    is_new = opset > 12
    axis = int(attribute(node, "axis", -1 if is_new else 1))
    return (axis,) if is_new else tuple(range(axis, rank))


def _shares(
    node: Node, opset: int, ends: Ends, _: Sequence[Array], unit: float, more: int
) -> Ends:
    """Return shares of exponentials: each rises with its own and falls with the others."""
    low, high = ends
    axes = _softmax_axes(node, opset, low.ndim)
    peak = high.max(axis=axes, keepdims=True)
    least, most = np.exp(low - peak), np.exp(high - peak)
    others = [e.sum(axis=axes, keepdims=True) - e for e in (least, most)]
    count = math.prod(low.shape[k] for k in axes)
    reach = np.max(peak - low, axis=axes, keepdims=True)
    error = sum_error(1, count + 4 * FUNCTION_ULPS + 2 * reach + more, unit)
    shares = least / (least + others[1]), most / (most + np.maximum(others[0], 0.0))
    return shares[0] * (1 - error), shares[1] * (1 + error)


def _logarithms(
    node: Node, opset: int, ends: Ends, _: Sequence[Array], unit: float, more: int
) -> Ends:
    """Return logarithms of shares: an element less the logarithm of the sum.

    The sum is that of exponentials of elements less the largest: it is one at least, and its
    relative error is what its logarithm moves by.
    """
    low, high = ends
    axes = _softmax_axes(node, opset, low.ndim)
    peak = high.max(axis=axes, keepdims=True)
    least, most = np.exp(low - peak), np.exp(high - peak)
    others = [e.sum(axis=axes, keepdims=True) - e for e in (least, most)]
    made = (
        low - peak - np.log(least + others[1]),
        high - peak - np.log(most + np.maximum(others[0], 0.0)),
    )
    count = math.prod(low.shape[k] for k in axes)
    reach = np.max(peak - low, axis=axes, keepdims=True)
    size = np.maximum(np.abs(low), np.abs(high)) + np.abs(peak) + np.log(count) + reach
    absolute = count + 4 * FUNCTION_ULPS + 2 * reach
    error = sum_error(absolute, 1.0, unit) + sum_error(
        4 + 2 * FUNCTION_ULPS + more, size, unit
    )
    return made[0] - error, made[1] + error


def _layer(
    node: Node, _: int, ends: Ends, parameters: Sequence[Array], unit: float, more: int
) -> Ends:
    """Return elements less their mean, over their deviation, times a gain plus a shift."""
    low, high = ends
    axis = int(attribute(node, "axis", -1)) % low.ndim
    axes = tuple(range(axis, low.ndim))
    count = math.prod(low.shape[k] for k in axes)
    size = np.maximum(np.abs(low), np.abs(high))
    means = [end.mean(axis=axes, keepdims=True) for end in ends]
    # Rounding of a mean, and of an element less the mean, by the magnitudes of the elements.
    moved = sum_error(count + 2, size.mean(axis=axes, keepdims=True), unit) + sum_error(
        1 + more, size, unit
    )
    apart = low - means[1] - moved, high - means[0] + moved
    largest = np.maximum(*map(np.abs, apart))
    smallest = np.where(
        (apart[0] <= 0) & (apart[1] >= 0), 0.0, np.minimum(*map(np.abs, apart))
    )
    spread = [np.square(x).mean(axis=axes, keepdims=True) for x in (smallest, largest)]
    rounding = sum_error(count + 3, 1.0, unit)
    # The mean of squares less the squared mean is another formula of the same.
    other = sum_error(2 * count + 6, np.square(size).mean(axis=axes, keepdims=True), unit)
    least = np.maximum(spread[0] * (1 - rounding) - other, 0.0)
    most = spread[1] * (1 + rounding) + other
    epsilon = float(attribute(node, "epsilon", 1e-5))
    roots = [np.sqrt(x + epsilon) for x in (least, most)]
    corners = [x / root for x in apart for root in roots]
    made = np.minimum.reduce(corners), np.maximum.reduce(corners)
    gain = parameters[0] if parameters else np.ones(1, np.float64)
    shift = parameters[1] if len(parameters) > 1 else np.zeros(1, np.float64)
    scaled = [x * gain for x in made]
    error = sum_error(
        6 + FUNCTION_ULPS + more, np.maximum(*map(np.abs, scaled)) + np.abs(shift), unit
    )
    return np.minimum(*scaled) + shift - error, np.maximum(*scaled) + shift + error


RULES: Mapping[str, Rule] = {
    "Softmax": _shares,
    "LogSoftmax": _logarithms,
    "LayerNormalization": _layer,
}
"""Standard operator -> how its result is enclosed."""
