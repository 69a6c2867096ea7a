"""Arithmetic on codes element by element, and changes of grid."""

from __future__ import annotations

import numpy as np

from qonnx_hub_adapters.tflite.kernels.fixed_point import (
    Factor,
    factor,
    rescale,
    round_away,
    shift_right,
    wrap,
)
from qonnx_hub_adapters.tflite.kernels.grids import finish
from qonnx_hub_adapters.tflite.net import (
    CODE_TYPES,
    RELU,
    RELU6,
    RELU_N1_TO_1,
    KernelCall,
    NetTensor,
)
from qonnx_hub_ir.quantizers import Array

_ALONE = {"RELU": RELU, "RELU6": RELU6, "RELU_N1_TO_1": RELU_N1_TO_1}


def add(call: KernelCall, x: Array, y: Array) -> Array:
    """Return ADD or SUB: both sides on a common finer grid, then the output's."""
    if shifts := power_of_two_shifts(call):
        a = shift_right(x.astype(np.int64), max(shifts[0], 0))
        b = shift_right(y.astype(np.int64), max(shifts[1], 0))
        return finish(call, a - b if call.name == "SUB" else a + b)
    left, right, by, bits = sum_factors(call)
    a = rescale(codes_of(x, call.tensor(0)) << bits, left)
    b = rescale(codes_of(y, call.tensor(1)) << bits, right)
    total = a - b if call.name == "SUB" else a + b
    return finish(call, rescale(total, by) + call.output.zero)


def sum_factors(call: KernelCall) -> tuple[Factor, Factor, Factor, int]:
    """Return the factors of ADD's and SUB's sides, that of their sum, and the bits on top."""
    bits = 15 if call.output.type == "INT16" else 20
    scales = [float(call.tensor(i).scale) for i in (0, 1)]
    twice = 2 * max(scales)
    finer = np.float32(2**bits) * call.output.scale
    left, right = (factor(scale / twice) for scale in scales)
    return left, right, factor(twice / float(finer)), bits


def power_of_two_shifts(call: KernelCall) -> tuple[int, int] | None:
    """Return by how much ADD and SUB shift 16-bit sides right; ``None`` if they rescale."""
    if call.output.type != "INT16" or not call.options.get("pot_scale_int16", True):
        return None
    parts = [np.frexp(t.scale) for t in (call.tensor(0), call.tensor(1), call.output)]
    if any(mantissa != 0.5 for mantissa, _ in parts):
        return None
    first, second, made = (int(exponent) for _, exponent in parts)
    return made - first, made - second


def multiply(call: KernelCall, x: Array, y: Array) -> Array:
    """Return MUL."""
    product = codes_of(x, call.tensor(0)) * codes_of(y, call.tensor(1))
    return finish(call, rescale(product, product_factor(call)) + call.output.zero)


def product_factor(call: KernelCall) -> Factor:
    """Return the factor of MUL's products; the scales are multiplied in single precision."""
    product = np.float32(call.tensor(0).scale * call.tensor(1).scale)
    return factor(float(np.float32(product / call.output.scale)))


def larger(call: KernelCall, x: Array, y: Array) -> Array:
    """Return MAXIMUM or MINIMUM of codes."""
    return (np.maximum if call.name == "MAXIMUM" else np.minimum)(x, y)


def quantize(call: KernelCall, x: Array) -> Array:
    """Return QUANTIZE: from floats, or from one grid to another."""
    made = call.output
    if x.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            levels = round_away((x / made.scale).astype(np.float32))
            # what 32 bits do not hold, and NaN, becomes the lowest of them before it is cut
            levels = np.where(np.abs(levels) < 2.0**31, levels, -(2.0**31))
        codes = wrap(levels.astype(np.int64) + made.zero)
        return np.asarray(np.clip(codes, *CODE_TYPES[made.type]).astype(made.dtype))
    given = call.tensor(0)
    by = factor(float(given.scale) / float(made.scale))
    return finish(call, rescale(codes_of(x, given), by) + made.zero)


def dequantize(call: KernelCall, x: Array) -> Array:
    """Return DEQUANTIZE: floats of codes, or of half precision."""
    given = call.tensor(0)
    if x.dtype.kind == "f" or given.grid is None:
        return x.astype(np.float32)
    return values_of(given, x)


def values_of(tensor: NetTensor, codes: Array) -> Array:
    """Return the float32 values of codes."""
    grid = tensor.grid
    if grid is None:
        return codes.astype(np.float32)
    shape = [1] * codes.ndim
    if grid.scale.size > 1:
        shape[grid.axis] = -1
    scale, zero = grid.scale.astype(np.float64), grid.zero.astype(np.float64)
    if grid.scale.size > 1:
        scale, zero = scale.reshape(shape), zero.reshape(shape) if zero.size > 1 else zero
    return (scale * (codes.astype(np.float64) - zero)).astype(np.float32)


def relu(call: KernelCall, x: Array) -> Array:
    """Return RELU, RELU6 or RELU_N1_TO_1 that stand alone."""
    given, made = call.tensor(0), call.output
    by = factor(float(np.float32(given.scale / made.scale)))
    codes = rescale(codes_of(x, given), by) + made.zero
    return finish(call, codes, _ALONE[call.name])


def leaky_relu(call: KernelCall, x: Array) -> Array:
    """Return LEAKY_RELU: one factor on each side of zero."""
    given, made = call.tensor(0), call.output
    slope = np.float32(call.options["alpha"])
    level = codes_of(x, given)
    above = rescale(level, factor(float(np.float32(given.scale / made.scale))))
    steeper = abs(float(np.float32(np.float32(given.scale * slope) / made.scale)))
    below = rescale(level, factor(steeper))
    sign = -1 if slope < 0 else 1
    return finish(call, np.where(level >= 0, above, sign * below) + made.zero)


def prelu(call: KernelCall, x: Array, alpha: Array) -> Array:
    """Return PRELU: below zero, a slope per channel."""
    given, slope, made = call.tensor(0), call.tensor(1), call.output
    level = codes_of(x, given)
    above = rescale(level, factor(float(np.float32(given.scale / made.scale))))
    product = level * codes_of(alpha, slope)
    below = rescale(product, factor(float(np.float32(given.scale * slope.scale / made.scale))))
    return finish(call, np.where(level >= 0, above, below) + made.zero)


def codes_of(x: Array, tensor: NetTensor) -> Array:
    """Return levels, codes minus zero point, as int64."""
    return x.astype(np.int64) - tensor.zero
