"""How far the float layers of a net are from its reference kernels, layer by layer, proven.

Both make codes of the same exact number: the kernel by fixed-point roundings, the float layer
by float sums and one rounding. Either is a monotone function of a layer's integer sum, so it
is told by its thresholds, the sums at which the next code begins; those are found by
bisection, channel by channel. Functions of one or two codes are tried on all of them. What a
float sum may be off, in any order, is part of the bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from qonnx_hub_adapters.protocol import LayerDistance, LayerDistances
from qonnx_hub_adapters.tflite.code_bounds import (
    NO_BOUND,
    CodeBound,
    by_bisection,
    by_trial,
    limits_of,
    unit_error,
)
from qonnx_hub_adapters.tflite.kernels import functions, pointwise, pools
from qonnx_hub_adapters.tflite.kernels.dense import real_factors
from qonnx_hub_adapters.tflite.kernels.fixed_point import (
    Factor,
    factor,
    rescale,
    round_away,
)
from qonnx_hub_adapters.tflite.kernels.windows import windows
from qonnx_hub_adapters.tflite.net import (
    CODE_TYPES,
    RELU,
    RELU6,
    RELU_N1_TO_1,
    KernelCall,
    NetTensor,
    TfliteNet,
)
from qonnx_hub_adapters.tflite.operators import OPERATORS
from qonnx_hub_ir.quantizers import Array

_BYTES = ("INT8", "UINT8")
_EXACT = CodeBound(0, 0.0)
_INTERPOLATING = ("AVERAGE_POOL_2D", "RESIZE_BILINEAR")
_LEAST_SCALE = 2.0**-48
"""Scales from here to its inverse keep levels, products and quotients of two normal floats."""
_MOST_RECIPROCAL = 2.0**-24
"""Relative error of gemmlowp's reciprocal: three steps of Newton, each of a few roundings."""


def distances_of(net: TfliteNet) -> LayerDistances:
    """Return how far float layers are from the reference kernels, given equal codes.

    Args:
        net: The net.

    Example:
        >>> distances_of(read_file("kws.tflite")).steps
        1
    """
    found = []
    far: dict[int, int | None] = dict.fromkeys(range(len(net.tensors)), 0)
    for operation in net.operations:
        call = net.call(operation)
        bound = _bound_of(call)
        given = [far[i] for i in operation.inputs if i >= 0]
        before = None if None in given else max((n for n in given if n is not None), default=0)
        own = bound.steps
        if before == 0:
            behind = own
        else:
            # a layer behind one that differs may carry the difference anywhere
            moves = own == 0 and before is not None and _keeps_steps(call)
            behind = before if moves else None
        if call.name == "QUANTIZE" and call.tensor(0).grid is None:
            behind = None  # floats of more steps than 32 bits hold get the lowest code
        far.update(dict.fromkeys(operation.outputs, behind))
        if own != 0:
            named = LayerDistance(call.output.name, call.name, own, bound.share)
            found.append(named)
    ends = [far[i] for i in net.outputs]
    known = [n for n in ends if n is not None]
    return LayerDistances(tuple(found), max(known) if len(known) == len(ends) else None)


def _keeps_steps(call: KernelCall) -> bool:
    """Return whether an exact operator makes of codes a step apart codes no further."""
    row = OPERATORS[call.name]
    if call.name == "DEQUANTIZE":
        return True
    copied = call.output.type in row.copies
    return copied and call.name not in _INTERPOLATING


def _bound_of(call: KernelCall) -> CodeBound:
    """Return a bound on how far what an operator makes lies from the exact result."""
    made = call.output
    scales = [
        grid.scale for t in (*call.inputs, *call.outputs) if t and (grid := t.grid) is not None
    ]
    if any(np.any((s < _LEAST_SCALE) | (s > 1 / _LEAST_SCALE)) for s in scales):
        return NO_BOUND  # floats leave their range, or lose bits at its lower end
    if made.grid is None or made.type not in (*_BYTES, "INT16"):
        # Of floats: their sums have an order.
        copies = bool(OPERATORS[call.name].copies) and call.name not in _INTERPOLATING
        return _EXACT if call.name == "DEQUANTIZE" or copies else NO_BOUND
    rule = _RULES.get(call.name)
    return NO_BOUND if rule is None else rule(call)


def _levels(tensor: NetTensor) -> Array:
    low, high = CODE_TYPES[tensor.type]
    return np.arange(low, high + 1, dtype=np.int64) - tensor.zero


def _ratio(tensor: NetTensor, made: NetTensor) -> float:
    return float(tensor.scale) / float(made.scale)


# Sums of products.


def _dense(call: KernelCall) -> CodeBound:
    data = 2 if call.name == "TRANSPOSE_CONV" else 0
    bias = 3 if call.name == "TRANSPOSE_CONV" else 2
    weights = call.tensor(1)
    axis = 3 if call.name == "DEPTHWISE_CONV_2D" else 0
    if weights.data is None or (call.has(bias) and call.tensor(bias).data is None):
        return NO_BOUND
    levels = _centred(weights, axis)
    by_channel = np.moveaxis(levels, axis, 0).reshape(levels.shape[axis], -1)
    given = _levels(call.tensor(data))
    products = by_channel * given[0], by_channel * given[-1]
    low = np.minimum(*products).sum(axis=1)
    high = np.maximum(*products).sum(axis=1)
    size = np.maximum(np.abs(products[0]), np.abs(products[1])).sum(axis=1).astype(np.float64)
    if call.has(bias):
        added = np.asarray(call.tensor(bias).data, dtype=np.int64)
        low, high, size = low + added, high + added, size + np.abs(added)
    real = _exact_factors(call, data, low.size)
    error = unit_error(by_channel.shape[1] + 6) * size * real
    return _summed(call, (low, high), real, error, data, bias)


def _centred(weights: NetTensor, axis: int) -> Array:
    zero = np.zeros(1, dtype=np.int64) if weights.grid is None else weights.grid.zero
    shape = [1] * len(weights.shape)
    if zero.size > 1:
        shape[axis] = -1
    data = np.asarray(weights.data, dtype=np.int64)
    return np.asarray(data - (zero.reshape(shape) if zero.size > 1 else int(zero[0])))


def _exact_factors(call: KernelCall, data: int, channels: int) -> Array:
    grid = call.tensor(1).grid
    scales = np.ones(1) if grid is None else grid.scale.astype(np.float64)
    real = float(call.tensor(data).scale) * scales / float(call.output.scale)
    return np.array(np.broadcast_to(real, (channels,)))


def _summed(
    call: KernelCall,
    ends: tuple[Array, Array],
    real: Array,
    error: Array,
    data: int,
    bias: int,
) -> CodeBound:
    made, is_layer = call.output, call.name == "FULLY_CONNECTED"
    by = _by_channel(factor(real_factors(call, data)), real.size)
    narrow = call.has(bias) and call.tensor(bias).type != "INT64"
    most = np.maximum(np.abs(ends[0]), np.abs(ends[1]))
    left = 0 if is_layer else np.minimum(by.left.reshape(-1), 31)
    if made.type == "INT16" and narrow and (most << left).max() >= 2**31:
        return NO_BOUND  # sums leave 32 bits, and wrap there
    if is_layer and made.type == "INT16":
        return CodeBound(_whole(1.0 + error))
    if is_layer:
        scales = real[:, None]

        def connected(sums: Array) -> Array:
            return round_away(sums.astype(np.float64) * scales).astype(np.int64) + made.zero

        return by_bisection(call, connected, ends, real, error)
    if made.type == "INT16" and not narrow:
        return _wide(real, error, by)
    if made.type == "INT16":
        return CodeBound(_whole(0.5 + _rounded_twice(by) + error + 2.0**-14))
    return by_bisection(call, lambda s: rescale(s, by) + made.zero, ends, real, error, by)


def _by_channel(by: Factor, channels: int) -> Factor:
    parts = (by.multiplier, by.exponent)
    full = (np.broadcast_to(n.reshape(-1, 1), (channels, 1)).copy() for n in parts)
    return Factor(*full)


def _wide(real: Array, error: Array, by: Factor) -> CodeBound:
    """Return the bound of 16-bit sums: their factor has 15 bits, and one rounding follows."""
    multiplier = by.multiplier.reshape(-1)
    short = np.where(multiplier < 0x7FFF0000, (multiplier + 2**15) >> 16, 0x7FFF)
    used = short.astype(np.float64) * 2.0 ** (by.exponent.reshape(-1) - 15.0)
    off = np.abs(used / real - 1) * 2.0**16
    return CodeBound(_whole(1.0 + off + error))


def _whole(off: Any) -> int:
    """Return how many steps two codes may be apart that are so far from one number."""
    return int(np.floor(float(np.max(off)) + 1e-9))


def _batch_matmul(call: KernelCall) -> CodeBound:
    left, right, made = call.tensor(0), call.tensor(1), call.output
    count = left.shape[-2 if call.options.get("adj_x") else -1]
    size = count * int(np.abs(_levels(left)).max()) * int(np.abs(_levels(right)).max())
    real = np.array([_ratio(left, made) * float(right.scale)])
    error = unit_error(count + 5) * size * real
    by = _by_channel(factor(np.float64(left.scale * right.scale) / np.float64(made.scale)), 1)
    if made.type == "INT16":
        return _wide(real, error, by)
    ends = np.array([-size]), np.array([size])
    return by_bisection(call, lambda s: rescale(s, by) + made.zero, ends, real, error, by)


# Pairs and single numbers.


def _pair(call: KernelCall) -> CodeBound:
    if call.output.type == "INT16":
        return _wide_pair(call)
    a, b, made = call.tensor(0), call.tensor(1), call.output
    x, y = (_levels(t)[:, None] if i == 0 else _levels(t)[None] for i, t in enumerate((a, b)))
    kernel = OPERATORS[call.name].on_codes
    if kernel is None:
        return NO_BOUND
    codes = kernel(call, x + a.zero, y + b.zero)
    if call.name == "MUL":
        exact = (x * y) * (_ratio(a, made) * float(b.scale))
        size = np.abs(exact)
    else:
        left, right = x * _ratio(a, made), y * _ratio(b, made)
        exact = left - right if call.name == "SUB" else left + right
        size = np.abs(left) + np.abs(right)
    return by_trial(call, codes, exact, unit_error(6) * size)


def _wide_pair(call: KernelCall) -> CodeBound:
    a, b, made = call.tensor(0), call.tensor(1), call.output
    if call.name == "MUL":
        by = pointwise.product_factor(call)
        real = np.array([_ratio(a, made) * float(b.scale)])
        ends = np.array([-(2**30)]), np.array([2**30])
        error = unit_error(6) * 2.0**30 * real
        own = _by_channel(by, 1)
        return by_bisection(
            call, lambda s: rescale(s, own) + made.zero, ends, real, error, own
        )
    if pointwise.power_of_two_shifts(call):
        return NO_BOUND
    left, right, by, bits = pointwise.sum_factors(call)
    last = 2.0 ** float(by.exponent) * float(by.multiplier) / 2.0**31
    sides = sum(_rounded_twice(one) + 2.0 ** (15 + bits - 31) for one in (left, right))
    size = 2.0**15 * (_ratio(a, made) + _ratio(b, made))
    off = sides * last + _rounded_twice(by) + size * (2.0**-29 + unit_error(6))
    return CodeBound(_whole(off + 0.5))


def _rounded_twice(by: Factor) -> float:
    """Return what the two roundings of a factor are off at most."""
    right = by.right.astype(np.float64)
    return float(np.where(right > 0, 0.5 + 0.5 * 2.0**-right, 0.5).max())


_FUNCTIONS: Mapping[str, Callable[[Array], Array]] = {
    **dict.fromkeys(("QUANTIZE", "RELU", "RELU6", "RELU_N1_TO_1"), lambda x: x),
    "LOGISTIC": lambda x: 1 / (1 + np.exp(-x)),
    "TANH": np.tanh,
    "HARD_SWISH": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
}
_ALONE = {"RELU": RELU, "RELU6": RELU6, "RELU_N1_TO_1": RELU_N1_TO_1}


def _single(call: KernelCall) -> CodeBound:
    """Return the bound of a function of one code: it is tried on all of them."""
    given, made, kernel = call.tensor(0), call.output, OPERATORS[call.name].on_codes
    if call.name == "QUANTIZE" and given.grid is None:
        return CodeBound(1, 0.0)  # floats of up to 2**31 steps differ at exact ties only
    if kernel is None or given.type not in (*_BYTES, "INT16"):
        return NO_BOUND
    levels = _levels(given)
    codes = kernel(call, (levels + given.zero).astype(given.dtype))
    values = levels * float(given.scale)
    with np.errstate(over="ignore"):
        exact = _FUNCTIONS[call.name](values) / float(made.scale)
    error = unit_error(16) * (np.abs(exact) + np.abs(values / float(made.scale)) + 1)
    return by_trial(call, codes, exact, error, _ALONE.get(call.name, 0))


def _leaky(call: KernelCall) -> CodeBound:
    given, made = call.tensor(0), call.output
    levels, slope = _levels(given), float(np.float32(call.options["alpha"]))
    codes = pointwise.leaky_relu(call, levels + given.zero)
    exact = np.where(levels >= 0, 1.0, slope) * levels * _ratio(given, made)
    return by_trial(call, codes, exact, unit_error(6) * np.abs(exact))


def _prelu(call: KernelCall) -> CodeBound:
    given, slope, made = call.tensor(0), call.tensor(1), call.output
    alpha = _levels(slope) if slope.data is None else _centred(slope, 0)
    x, y = _levels(given)[:, None], np.unique(alpha)[None]
    codes = pointwise.prelu(call, x + given.zero, y + slope.zero)
    exact = np.where(x >= 0, 1.0, y * float(slope.scale)) * x * _ratio(given, made)
    return by_trial(call, codes, exact, unit_error(6) * np.abs(exact))


# Means, and what moves.


def _average(call: KernelCall) -> CodeBound:
    made = call.output
    plane = np.ones((1, *call.tensor(0).shape[1:3], 1), dtype=np.int64)
    size = (call.options["filter_height"], call.options["filter_width"])
    stride = (call.options["stride_h"], call.options["stride_w"])
    seen = windows(plane, size, stride, (1, 1), call.options["padding"], 0)
    bounds = [
        by_bisection(
            call,
            lambda s, n=n: _halved(s + n * made.zero, n),  # type: ignore[misc]
            tuple(np.array([n * int(end)]) for end in _levels(made)[[0, -1]]),
            np.array([1 / n]),
            np.array([unit_error(n + 4) * 2.0 ** (17 if made.type == "INT16" else 9)]),
        )
        for n in np.unique(seen.sum(axis=(3, 4))).tolist()
    ]
    return _worst(bounds)


def _halved(sums: Array, count: int) -> Array:
    return np.asarray(np.sign(sums) * ((np.abs(sums) + count // 2) // count))


def _worst(bounds: list[CodeBound]) -> CodeBound:
    steps = [one.steps for one in bounds]
    shares = [one.share for one in bounds if one.share is not None]
    known = [n for n in steps if n is not None]
    if len(known) < len(steps):
        return NO_BOUND
    return CodeBound(max(known, default=0), max(shares, default=None))


def _mean(call: KernelCall) -> CodeBound:
    given, made, axes = call.tensor(0), call.output, call.tensor(1).data
    if axes is None:
        return NO_BOUND
    kept = pools.axes_of(call, axes, len(given.shape))
    count = int(np.prod([given.shape[axis] for axis in kept], dtype=np.int64))
    by = _by_channel(pools.mean_factor(call, count), 1)
    real = np.array([_ratio(given, made) / (1 if call.name == "SUM" else count)])
    levels = _levels(given)
    ends = np.array([count * int(levels[0])]), np.array([count * int(levels[-1])])
    error = unit_error(count + 6) * count * float(np.abs(levels).max()) * real
    return by_bisection(call, lambda s: rescale(s, by) + made.zero, ends, real, error, by)


def _softmax(call: KernelCall) -> CodeBound:
    """Return the bound of 8 bits: its exponentials are tried, its reciprocal is known."""
    if call.output.type not in _BYTES:
        return NO_BOUND
    by, radius = functions.softmax_factor(call)
    apart = -np.arange(256, dtype=np.int64)
    step = float(call.tensor(0).scale) * float(call.options.get("beta", 1.0))
    exact = np.exp(apart * step)
    made = functions.exponentials(apart, by) / 2.0**31
    off = float(np.where(apart >= -radius, np.abs(made - exact), exact).max())
    count = call.tensor(0).shape[-1]
    total = count * (off + 2.0**-20 + unit_error(count + 8)) + _MOST_RECIPROCAL
    # it gives steps of 1/256, whatever the grid of its output says
    grid = call.output
    low = CODE_TYPES[grid.type][0]
    stretched = 256 * abs(1 / (256 * float(grid.scale)) - 1) + abs(grid.zero - low)
    # the kernel rounds its product once more than its result
    return CodeBound(_whole(1.0 + stretched + 256 * (off + total + 2.0**-20)))


def _resize(call: KernelCall) -> CodeBound:
    given, size = call.tensor(0), call.tensor(1).data
    if size is None:
        return NO_BOUND
    off = sum(_misplaced(call, given.shape[i + 1], int(size[i])) for i in (0, 1))
    span = float(_levels(given)[-1] - _levels(given)[0])
    return CodeBound(_whole(1.0 + span * (off + unit_error(8))))


def _misplaced(call: KernelCall, given: int, made: int) -> float:
    """Return how far from their places the kernel of 10 bits takes pixels, at most."""
    places = np.arange(made, dtype=np.float64)
    off = float(unit_error(8) * max(given, made))
    if call.output.type == "UINT8":
        return off
    aligned = bool(call.options.get("align_corners")) and made > 1
    step = (given - 1) / (made - 1) if aligned else given / made
    half = bool(call.options.get("half_pixel_centers"))
    exact = (places + 0.5) * step - 0.5 if half else places * step
    low, _, fraction = pools.line_of(call, given, made)
    taken = low + fraction / 1024.0
    inside = [np.clip(x, 0, given - 1) for x in (exact, taken)]
    return off + float(np.abs(inside[0] - inside[1]).max())


def _copied(call: KernelCall) -> CodeBound:
    """Return the bound of what moves codes: only fused activations may differ."""
    if not call.options.get("fused_activation_function"):
        return _EXACT
    codes = _levels(call.output) + call.output.zero
    low, high = limits_of(call)
    return by_trial(call, np.clip(codes, low, high), codes - float(call.output.zero), 0.0)


def _concatenation(call: KernelCall) -> CodeBound:
    made, kernel = call.output, OPERATORS["CONCATENATION"].on_codes
    if made.type != "UINT8" or kernel is None:
        return _EXACT
    bounds = []
    for part in call.inputs:
        if part is not None:
            levels = _levels(part)
            one = replace(call, inputs=(part,), options={"axis": 0})
            exact = levels * _ratio(part, made)
            codes = kernel(one, (levels + part.zero).astype(part.dtype))
            bounds.append(by_trial(call, codes, exact, unit_error(6) * np.abs(exact)))
    return _worst(bounds)


_RULES: Mapping[str, Callable[[KernelCall], CodeBound]] = {
    **dict.fromkeys(
        ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"), _dense
    ),
    "BATCH_MATMUL": _batch_matmul,
    **dict.fromkeys(("ADD", "SUB", "MUL"), _pair),
    **dict.fromkeys(_FUNCTIONS, _single),
    "LEAKY_RELU": _leaky,
    "PRELU": _prelu,
    "AVERAGE_POOL_2D": _average,
    **dict.fromkeys(("MEAN", "SUM"), _mean),
    "SOFTMAX": _softmax,
    "RESIZE_BILINEAR": _resize,
    **{
        name: _copied
        for name, row in OPERATORS.items()
        if row.copies and name not in _INTERPOLATING
    },
    "CONCATENATION": _concatenation,
}
"""Operator on codes -> its bound; what is not here has none."""
