"""Functions in the fixed-point arithmetic of gemmlowp, on integers of 16 or 32 bits.

A number with ``whole`` integer bits stands for ``raw * 2**(whole - bits + 1)``.
"""

from __future__ import annotations

import numpy as np

from qonnx_hub_adapters.tflite.kernels.fixed_point import high_product, shift_right
from qonnx_hub_ir.quantizers import Array

_EXP_STEPS = (
    (-2, 1672461947),
    (-1, 1302514674),
    (0, 790015084),
    (1, 290630308),
    (2, 39332535),
    (3, 720401),
    (4, 242),
)
"""Power of two -> exp(-2**power) with 31 bits behind the point."""


def exp_of_negative(raw: Array, whole: int, bits: int = 32) -> Array:
    """Return exp of numbers that are not positive, without integer bits.

    Args:
        raw: int64.
        whole: Integer bits of the numbers.
        bits: 16 or 32.
    """
    fraction = bits - 1 - whole
    quarter = np.int64(1) << (fraction - 2)
    rest = (raw & (quarter - 1)) - quarter
    result = _exp_near_zero(rest << whole, bits)
    remainder = rest - raw
    for power, constant in _EXP_STEPS:
        if whole > power:
            is_set = (remainder & (np.int64(1) << (fraction + power))) != 0
            result = np.where(is_set, high_product(result, _at(constant, bits), bits), result)
    return np.where(raw == 0, 2 ** (bits - 1) - 1, result)


def reciprocal_of_one_plus(raw: Array, bits: int = 32) -> Array:
    """Return 1 / (1 + x) of numbers in [0, 1), both without integer bits."""
    return _saturate(_newton(raw, bits) << 1, bits)


def ratio_of_one_minus(raw: Array, bits: int = 32) -> Array:
    """Return (1 - x) / (1 + x) of numbers in [0, 1), both without integer bits."""
    return _saturate((_newton(raw, bits) - (np.int64(1) << (bits - 3))) << 2, bits)


def logistic(raw: Array, whole: int, bits: int = 16) -> Array:
    """Return 1 / (1 + exp(-x)), without integer bits."""
    positive = reciprocal_of_one_plus(exp_of_negative(-np.abs(raw), whole, bits), bits)
    top = 2 ** (bits - 1) - 1
    result = np.where(raw > 0, positive, top - positive)
    return np.where(raw == 0, np.int64(1) << (bits - 2), result)


def tanh(raw: Array, whole: int, bits: int = 16) -> Array:
    """Return the hyperbolic tangent, without integer bits."""
    size = ratio_of_one_minus(exp_of_negative(-np.abs(raw), whole + 1, bits), bits)
    return np.where(raw == 0, 0, np.where(raw < 0, -size, size))


def _newton(raw: Array, bits: int) -> Array:
    """Return 2 / (1 + x) / 2 with two integer bits, after three steps."""
    total = raw + (2 ** (bits - 1) - 1)
    half = np.where(total >= 0, (total + 1) >> 1, -((1 - total) >> 1))
    one = np.int64(1) << (bits - 3)
    x = _at(1515870810, bits) + high_product(half, _at(-1010580540, bits), bits)
    for _ in range(3):
        rest = one - high_product(half, x, bits)
        x = x + _saturate(high_product(x, rest, bits) << 2, bits)
    # 2 / (1 + x) halved: the same number with one integer bit less
    return np.asarray(x)


def _exp_near_zero(raw: Array, bits: int) -> Array:
    """Return exp on [-1/4, 0): a polynomial around -1/8."""
    term, third = _at(1895147668, bits), _at(715827883, bits)
    x = raw + (np.int64(1) << (bits - 4))
    square = high_product(x, x, bits)
    cube = high_product(square, x, bits)
    fourth = shift_right(high_product(square, square, bits), 2)
    inner = shift_right(high_product(fourth + cube, third, bits) + square, 1)
    return _saturate(term + high_product(term, x + inner, bits), bits)


def _at(constant: int, bits: int) -> int:
    """Return a constant of 32 bits with so many."""
    return constant if bits == 32 else int(shift_right(constant, 16))


def _saturate(x: Array, bits: int) -> Array:
    return np.clip(x, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
