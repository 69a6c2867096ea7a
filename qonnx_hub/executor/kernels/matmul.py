"""Numpy kernels of matrix products, of floats and of integers."""

from __future__ import annotations

import numpy as np

from qonnx_hub.executor.kernels._numbers import (
    BYTE_REACH,
    BYTES,
    FLOAT32,
    SHORT_FLOATS,
    exact_float,
    requantize,
    shifted,
    to_int32,
    widened,
)
from qonnx_hub.executor.kernels.elementwise import served
from qonnx_hub.executor.kernels.spec import Array, Kernel, KernelSpec, KernelTable, Unserved


def _matmul(spec: KernelSpec) -> Kernel:
    def kernel(a: Array, b: Array) -> Array:
        if a.dtype in SHORT_FLOATS:
            return np.asarray(np.matmul(widened(a), widened(b))).astype(a.dtype)
        if a.ndim == 2 == b.ndim:
            # The same product; numpy gets there in half the time where it is small.
            return np.asarray(a.dot(b))
        y = np.matmul(a, b)
        return y if isinstance(y, np.ndarray) else np.asarray(y)

    return kernel


def _gemm(spec: KernelSpec) -> Kernel:
    alpha, beta = float(spec.attr("alpha", 1.0)), float(spec.attr("beta", 1.0))
    transpose_a, transpose_b = bool(spec.attr("transA", 0)), bool(spec.attr("transB", 0))
    right = _folded(spec.constant(1), transpose_b)
    addend = _addend(spec.constant(2), beta)
    has_addend = spec.has_input(2) and beta != 0.0

    def kernel(a: Array, b: Array, c: Array | None = None) -> Array:
        dtype = a.dtype
        if dtype in SHORT_FLOATS:
            a = widened(a)
        if right is not None:
            b = right
        elif transpose_b:
            b = widened(b).T
        else:
            b = widened(b)
        y: Array = np.matmul(a.T if transpose_a else a, b)
        if alpha != 1.0:
            y = _scaled(y, alpha)
        if has_addend:
            y += _addend(c, beta) if addend is None else addend
        return y.astype(dtype, copy=False)

    return kernel


def _folded(b: Array | None, transpose: bool) -> Array | None:
    """Return a constant right factor as the product wants it."""
    if b is None:
        return None
    return np.ascontiguousarray(widened(b.T if transpose else b))


def _addend(c: Array | None, beta: float) -> Array | None:
    """Return ``c`` as it is added, ``None`` if it is not known."""
    return None if c is None else _scaled(widened(c), beta)


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
    equation = spec.attr("equation")
    if equation is None:
        raise Unserved(f"Einsum '{spec.name}' has no equation")

    def kernel(*operands: Array) -> Array:
        dtype = operands[0].dtype
        wide = [widened(operand) for operand in operands]
        y = np.asarray(np.einsum(equation, *wide, optimize=len(operands) > 1))
        # A permutation or a diagonal of one operand may be a view of it.
        return y.astype(dtype, copy=len(operands) == 1)

    return kernel


def _magnitude(b: Array, zero_point: Array | None) -> float:
    """Return the largest sum of magnitudes of a column of ``b``."""
    return float(np.abs(shifted(b, zero_point, FLOAT32)).sum(axis=-2).max(initial=0.0))


def _per_row(zero_point: Array) -> Array:
    """Return a parameter of the left factor so that it broadcasts: one value per row."""
    if zero_point.size == 1:
        return zero_point.reshape(())
    return zero_point[:, np.newaxis] if zero_point.ndim == 1 else zero_point


def _optional_per_row(zero_point: Array | None) -> Array | None:
    return None if zero_point is None else _per_row(zero_point)


class IntegerProduct:
    """The exact product of 8-bit matrices minus their zero points, as floats.

    Where the right factor and its zero point are constant, they are combined once, and their
    values decide how wide the sum must be; else its length does.
    """

    def __init__(self, b: Array | None, zero_point: Array | None, *, known: bool) -> None:
        """Combine what is constant.

        Args:
            b: Right factor (..., K, N) if constant.
            zero_point: Its zero point if constant and present.
            known: Whether both are constant (an absent zero point is).
        """
        self.right: Array | None = None
        if known and b is not None and b.ndim > 1:
            dtype = exact_float(BYTE_REACH * _magnitude(b, zero_point))
            self.right = shifted(b, zero_point, dtype)

    def __call__(
        self, a: Array, a_zero: Array | None, b: Array, b_zero: Array | None
    ) -> Array:
        """Return ``(a - a_zero) @ (b - b_zero)``; a zero point of ``a`` is per row."""
        right = self.right
        if right is None:
            length = b.shape[-2] if b.ndim > 1 else b.shape[0]
            right = shifted(b, b_zero, exact_float(BYTE_REACH * BYTE_REACH * length))
        left = shifted(a, _optional_per_row(a_zero), right.dtype)
        return np.asarray(np.matmul(left, right))


def _is_known(spec: KernelSpec, *positions: int) -> bool:
    """Return whether inputs are constant or absent."""
    return all(
        spec.constant(index) is not None or not spec.has_input(index) for index in positions
    )


def _matmul_integer(spec: KernelSpec) -> Kernel:
    product = IntegerProduct(spec.constant(1), spec.constant(3), known=_is_known(spec, 1, 3))

    def kernel(
        a: Array, b: Array, a_zero: Array | None = None, b_zero: Array | None = None
    ) -> Array:
        return to_int32(product(a, a_zero, b, b_zero))

    return kernel


def _qlinear_matmul(spec: KernelSpec) -> Kernel:
    for position in (0, 2, 3, 5, 7):
        value = spec.constant(position)
        if value is not None and value.dtype not in BYTES:
            raise Unserved(f"QLinearMatMul '{spec.name}' of {value.dtype}")
    product = IntegerProduct(spec.constant(3), spec.constant(5), known=_is_known(spec, 3, 5))

    def kernel(
        a: Array,
        a_scale: Array,
        a_zero: Array,
        b: Array,
        b_scale: Array,
        b_zero: Array,
        y_scale: Array,
        y_zero: Array,
    ) -> Array:
        if y_zero.dtype not in BYTES:
            raise TypeError(f"QLinearMatMul makes int8 or uint8, not {y_zero.dtype}")
        scale = _per_row(a_scale).astype(FLOAT32) * b_scale.astype(FLOAT32)
        multiplier = scale / _per_row(y_scale).astype(FLOAT32)
        return requantize(product(a, a_zero, b, b_zero), multiplier, _per_row(y_zero))

    return kernel


KERNELS: KernelTable = {
    ("", "Einsum"): served(_einsum, "equation"),
    ("", "Gemm"): served(_gemm, "alpha", "beta", "transA", "transB"),
    ("", "MatMul"): served(_matmul),
    ("", "MatMulInteger"): served(_matmul_integer),
    ("", "QLinearMatMul"): served(_qlinear_matmul),
}
