"""Numpy kernels of matrix products, of floats and of integers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qonnx_hub.executor.kernels._numbers import (
    BYTES,
    FLOAT32,
    SHORT_FLOATS,
    any_factor,
    exact_factor,
    requantize,
    require_bytes,
    shifted,
    to_int32,
    widened,
)
from qonnx_hub.executor.kernels.elementwise import served, stateless
from qonnx_hub.executor.kernels.spec import Array, Kernel, KernelSpec, KernelTable


def _matmul(a: Array, b: Array) -> Array:
    if a.dtype in SHORT_FLOATS:
        return np.asarray(np.matmul(widened(a), widened(b))).astype(a.dtype)
    if a.ndim == 2 == b.ndim:
        # The same product; numpy gets there in half the time where it is small.
        return np.asarray(a.dot(b))
    return np.asarray(np.matmul(a, b))


def _gemm(spec: KernelSpec) -> Kernel:
    alpha, beta = float(spec.attr("alpha", 1.0)), float(spec.attr("beta", 1.0))
    transpose_a, transpose_b = bool(spec.attr("transA", 0)), bool(spec.attr("transB", 0))
    right, addend = spec.constant(1), spec.constant(2)
    if right is not None:
        right = np.ascontiguousarray(widened(right.T if transpose_b else right))
    if addend is not None:
        addend = _scaled(widened(addend), beta)

    def kernel(a: Array, b: Array, c: Array | None = None) -> Array:
        dtype, a = a.dtype, widened(a)
        factor = right
        if factor is None:
            factor = widened(b).T if transpose_b else widened(b)
        y = _scaled(np.matmul(a.T if transpose_a else a, factor), alpha)
        if c is not None and beta != 0.0:
            y += _scaled(widened(c), beta) if addend is None else addend
        return y.astype(dtype, copy=False)

    return kernel


def _scaled(x: Array, factor: float) -> Array:
    """Return ``x`` times ``factor`` in the dtype of ``x``.

    Raises:
        ValueError: ``x`` holds integers and ``factor`` is not one.
    """
    if factor == 1.0:
        return x
    if x.dtype.kind in "iu" and not factor.is_integer():
        raise ValueError(f"Gemm of {x.dtype} has the factor {factor}, which is not an integer")
    return np.asarray(x * np.asarray(factor).astype(x.dtype))


def _einsum(spec: KernelSpec) -> Kernel:
    equation = spec.required("equation")

    def kernel(*operands: Array) -> Array:
        several = len(operands) > 1
        y = np.asarray(np.einsum(equation, *map(widened, operands), optimize=several))
        # A permutation or a diagonal of one operand may be a view of it.
        return y.astype(operands[0].dtype, copy=not several)

    return kernel


def _per_row(zero_point: Array) -> Array:
    """Return a parameter of the left factor so that it broadcasts: one value per row."""
    if zero_point.size == 1:
        return zero_point.reshape(())
    return zero_point[:, np.newaxis] if zero_point.ndim == 1 else zero_point


def integer_product(
    spec: KernelSpec, right: int, zero_point: int, *, transpose: bool = False
) -> Callable[..., Array]:
    """Return the exact product of 8-bit matrices minus their zero points, as floats.

    Where the right factor and its zero point are constant, they are combined once, and their
    values decide how wide the sum must be; else its length does.

    Args:
        spec: The node.
        right: Position of the right factor, (..., K, N), among its inputs.
        zero_point: Position of the right factor's zero point.
        transpose: Whether a constant right factor is the transposed input.

    Returns:
        (a, zero point per row of a, b, zero point of b) -> ``(a - a_zero) @ (b - b_zero)``.
    """
    constant, known = spec.constant(right), None
    if constant is not None and constant.ndim > 1 and spec.is_fixed(zero_point):
        codes = np.ascontiguousarray(constant.T) if transpose else constant
        known = exact_factor(codes, spec.constant(zero_point), -2, 0.0)

    def product(a: Array, a_zero: Array | None, b: Array, b_zero: Array | None) -> Array:
        factor = known
        if factor is None:
            terms = b.shape[-2] if b.ndim > 1 else len(b)
            factor = any_factor(b, b_zero, terms, 0.0)
        left = shifted(a, None if a_zero is None else _per_row(a_zero), factor.dtype)
        return np.asarray(np.matmul(left, factor))

    return product


def _matmul_integer(spec: KernelSpec) -> Kernel:
    product = integer_product(spec, 1, 3)
    return lambda a, b, a_zero=None, b_zero=None: to_int32(product(a, a_zero, b, b_zero))


def _qlinear_matmul(spec: KernelSpec) -> Kernel:
    require_bytes(spec)
    product = integer_product(spec, 3, 5)

    def kernel(*inputs: Array) -> Array:
        a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = inputs
        if y_zero.dtype not in BYTES:
            raise TypeError(f"QLinearMatMul makes int8 or uint8, not {y_zero.dtype}")
        scale = _per_row(a_scale).astype(FLOAT32) * b_scale.astype(FLOAT32)
        multiplier = scale / _per_row(y_scale).astype(FLOAT32)
        total = product(a, a_zero, b, b_zero)
        if total.dtype != FLOAT32:
            total = to_int32(total)  # the accumulator of the file, which holds no more
        return requantize(total, multiplier, _per_row(y_zero))

    return kernel


KERNELS: KernelTable = {
    ("", "Einsum"): served(_einsum, "equation"),
    ("", "Gemm"): served(_gemm, "alpha", "beta", "transA", "transB"),
    ("", "MatMul"): stateless(_matmul),
    ("", "MatMulInteger"): served(_matmul_integer),
    ("", "QLinearMatMul"): served(_qlinear_matmul),
}
