"""Functions of one tensor of codes: sigmoid, tanh, hard swish, softmax.

Those of 8 bits are a table of 256 codes; :func:`table_of` gives it for every one of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from qonnx_hub_adapters.tflite.kernels import gemmlowp
from qonnx_hub_adapters.tflite.kernels.fixed_point import (
    Factor,
    factor,
    high_product,
    rescale,
    round_away,
    shift_right,
    wrap,
)
from qonnx_hub_adapters.tflite.kernels.grids import finish
from qonnx_hub_adapters.tflite.kernels.pointwise import codes_of
from qonnx_hub_adapters.tflite.kernels.sigmoid_table import SIGMOID
from qonnx_hub_adapters.tflite.net import CODE_TYPES, KernelCall
from qonnx_hub_ir.quantizers import Array

_FLOATS: dict[str, Callable[[Array], Array]] = {
    "LOGISTIC": lambda x: np.float32(1) / (np.float32(1) + np.exp(-x)),
    "TANH": np.tanh,
}


def curve(call: KernelCall, x: Array) -> Array:
    """Return LOGISTIC or TANH."""
    if x.dtype == np.int16:
        return (_logistic_16 if call.name == "LOGISTIC" else _tanh_16)(call, x)
    given, made = call.tensor(0), call.output
    low, high = CODE_TYPES[given.type]
    codes = np.arange(low, high + 1, dtype=np.int64)
    values = (given.scale * codes_of(codes, given).astype(np.float32)).astype(np.float32)
    with np.errstate(over="ignore"):
        results = _FLOATS[call.name](values).astype(np.float32)
    inverse = np.float32(np.float32(1) / made.scale)
    table = finish(call, round_away(results * inverse) + made.zero)
    return table[x.astype(np.int64) - low]


def hard_swish(call: KernelCall, x: Array) -> Array:
    """Return HARD_SWISH: 16-bit fixed point, the input seven bits up."""
    out, gate = hard_swish_factors(call)
    level = codes_of(x, call.tensor(0)) << 7
    scaled = high_product(level, out.multiplier, 16)
    opened = level
    if gate.exponent > 0:
        opened = _saturate_16(opened << (gate.exponent - 1))
    opened = high_product(opened, gate.multiplier, 16)
    if gate.exponent > 0:
        opened = _saturate_16(opened << 1)
    if gate.exponent < 0:
        opened = _shift_right_16(opened, -gate.exponent)
    opened = (opened + 2**15) >> 1
    product = opened * scaled
    cut = np.where(product < 0, -(-product >> 15), product >> 15)
    return finish(call, _shift_right_16(cut, -out.exponent) + call.output.zero)


def hard_swish_factors(call: KernelCall) -> tuple[Factor, Factor]:
    """Return HARD_SWISH's factors of 15 bits: to codes of its output, and to the gate."""
    hires = np.float32(np.float32(1 / 128) * call.tensor(0).scale)
    out = _short(factor(float(np.float32(hires / call.output.scale))))
    return out, _short(factor(float(np.float32(hires / np.float32(3.0 / 32768.0)))))


def _shift_right_16(x: Array, by: Array) -> Array:
    """Return ``x / 2**by`` of 16-bit numbers, halves away from zero, as 16 bits give it.

    From 16 on the kernel's mask of lost bits is -1, and what is not below zero counts as more
    than a half.
    """
    beyond = np.where(x < 0, -1, 1)
    return np.where(by > 15, beyond, shift_right(x, np.minimum(by, 15)))


def _short(by: Factor) -> Factor:
    """Return a factor whose multiplier has 15 bits."""
    short = np.where(
        by.multiplier < 2**31 - 1 - 2**15, (by.multiplier + 2**15) >> 16, 2**15 - 1
    )
    return Factor(short, by.exponent)


def _saturate_16(x: Array) -> Array:
    return np.clip(x, -(2**15), 2**15 - 1)


def _scaled_16(call: KernelCall, x: Array, most: int) -> Array:
    """Return 16-bit codes in steps of 1 / (3 * 4096), as the table of the sigmoid takes them.

    Args:
        call: LOGISTIC or TANH.
        x: int16.
        most: The largest shift with which a power-of-two scale is taken as one.
    """
    scale = call.tensor(0).scale
    mantissa, exponent = np.frexp(scale)
    shift = 12 + int(exponent) - 1
    if mantissa == 0.5 and 0 <= shift <= most:
        return x.astype(np.int64) * (3 << shift)
    real, shift = float(scale) * 4096.0 * 3.0, 0
    while real <= 32767.0 / 2.0 and shift <= 30:
        real, shift = real * 2.0, shift + 1
    half = 1 << (shift - 1) if shift > 0 else 0
    return (x.astype(np.int64) * int(real) + half) >> shift


def _looked_up(size: Array, bits: int) -> Array:
    """Return the sigmoid's table at sizes with so many bits behind the index, interpolated."""
    index = np.minimum(size >> bits, 254)
    low, high = SIGMOID[index], SIGMOID[index + 1]
    return np.asarray((low << bits) + (size & ((1 << bits) - 1)) * (high - low))


def _logistic_16(call: KernelCall, x: Array) -> Array:
    data = _scaled_16(call, x, 0)
    size = np.abs(data)
    result = np.where((size >> 9) >= 255, 0x7FFF << 10, _looked_up(size, 9))
    result = np.where(data >= 0, result + (1 << 9), (1 << 25) - result + (1 << 9) - 1)
    return (result >> 10).astype(np.int16)


def _tanh_16(call: KernelCall, x: Array) -> Array:
    data = _scaled_16(call, x, 1)
    size = np.abs(data)
    result = np.where((size >> 8) >= 255, 0xFFFF << 8, _looked_up(size, 8))
    half = 1 << 23
    result = np.where(data >= 0, result - half + 128, half - result + 127)
    return (result >> 8).astype(np.int16)


def softmax(call: KernelCall, x: Array) -> Array:
    """Return SOFTMAX along the last axis."""
    return (_softmax_16 if x.dtype == np.int16 else _softmax_8)(call, x)


def _softmax_8(call: KernelCall, x: Array) -> Array:
    by, radius = softmax_factor(call)
    low, high = CODE_TYPES[call.output.type]
    difference = x.astype(np.int64) - x.max(axis=-1, keepdims=True)
    near = difference >= -radius
    exps = exponentials(difference, by)
    total = np.where(near, shift_right(exps, 12), 0).sum(axis=-1, keepdims=True)
    free = 32 - bit_length(total)
    shifted = (total << free) - 2**31
    share = gemmlowp.reciprocal_of_one_plus(shifted, 32)
    codes = shift_right(high_product(share, exps), 12 - free + 31 - 8) + low
    return np.where(near, np.clip(codes, low, high), low).astype(call.output.dtype)


def softmax_factor(call: KernelCall) -> tuple[Factor, int]:
    """Return the factor of differences to the largest code, and how far these may be."""
    beta = float(np.float32(call.options.get("beta", 1.0)))
    by = factor(min(beta * float(call.tensor(0).scale) * 2.0**26, 2.0**31 - 1.0))
    return by, int(np.floor(31.0 * 2.0**26 / 2.0 ** int(by.left)))


def exponentials(difference: Array, by: Factor) -> Array:
    """Return exp of differences of codes, not positive, with 31 bits behind the point."""
    return gemmlowp.exp_of_negative(rescale(difference, by), 5)


def bit_length(x: Array) -> Array:
    """Return how many bits positive integers below 2**53 have."""
    return np.frexp(x.astype(np.float64))[1].astype(np.int64)


@functools.cache
def curve_of_512(name: str) -> Array:
    """Return a function of 16-bit softmax at 513 places: ``exp`` on [-10, 0], or ``ratio``.

    Each place is moved by half of what a straight line is off in the middle behind it.
    """
    span, start, function = (
        (10.0 / 65535.0, 32767, np.exp)
        if name == "exp"
        else (1.0 / 65535.0, -32768, lambda v: 1.0 / (1.0 + v))
    )
    first, last = span * (-32768 - start), span * (32767 - start)
    step, unit = (last - first) / 512, 65536.0 / (2.0 / 65535.0 * 65535.0)
    at = first + np.arange(512, dtype=np.float64) * step
    here = round_away(function(at) * unit)
    after = first + np.arange(1, 513, dtype=np.float64) * step
    line = round_away((function(after) * unit + here) / 2)
    bias = round_away((line - round_away(function(at + step / 2) * unit)) / 2)
    end = round_away(function(np.array([last], dtype=np.float64)) * unit)
    return np.asarray(
        np.clip(np.concatenate([here - bias, end]), -32768, 32767).astype(np.int64)
    )


def _between(table: Array, x: Array) -> Array:
    """Return a table of 513 at 16-bit numbers, linear between."""
    index = 256 + (x >> 7)
    base = table[index]
    return np.asarray(base + (((table[index + 1] - base) * (x & 0x7F) + 64) >> 7))


def _softmax_16(call: KernelCall, x: Array) -> Array:
    beta = float(np.float32(call.options.get("beta", 1.0)))
    by = factor(float(call.tensor(0).scale) * beta / (10.0 / 65535.0))
    difference = x.astype(np.int64) - x.max(axis=-1, keepdims=True)
    exps = _between(
        curve_of_512("exp"), np.clip(rescale(difference, by) + 32767, -32768, 32767)
    )
    total = wrap(exps.sum(axis=-1, keepdims=True))
    free = 32 - bit_length(total)
    shifted = ((total << (free - 1)) + (1 << 13)) >> 14
    share = np.clip(shifted - (1 << 15) - (1 << 16), -32768, 32767)
    ratio = _between(curve_of_512("ratio"), share)
    shift = 31 - free
    codes = (exps * ratio + (np.int64(1) << (shift - 1))) >> shift
    return np.asarray(np.clip(codes, 0, 32767).astype(np.int16))
