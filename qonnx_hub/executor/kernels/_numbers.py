"""What several families share about numbers: short floats, exact integers, requantization."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from qonnx_hub.executor.kernels.spec import Array, KernelSpec

FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)
SHORT_FLOATS = frozenset({np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)})
BYTES = frozenset({np.dtype(np.int8), np.dtype(np.uint8)})

FLOAT8_LIMITS: dict[np.dtype[Any], float] = {
    np.dtype(ml_dtypes.float8_e4m3fn): 448.0,
    np.dtype(ml_dtypes.float8_e4m3fnuz): 240.0,
    np.dtype(ml_dtypes.float8_e5m2): 57344.0,
    np.dtype(ml_dtypes.float8_e5m2fnuz): 57344.0,
}
"""float8 types with their largest finite values."""

Axes = int | tuple[int, ...]

BYTE_REACH = 255.0
"""Largest magnitude of an 8-bit integer minus its zero point."""


def widened(x: Array) -> Array:
    """Return ``x`` in float32 if it is float16 or bfloat16, else ``x`` itself."""
    return x.astype(FLOAT32) if x.dtype in SHORT_FLOATS else x


def scalar_like(value: float, like: Array) -> Array:
    """Return ``value`` as a scalar array of the dtype of ``like``."""
    return np.asarray(value, dtype=like.dtype)


def per_channel(values: Array, rank: int, axis: int = 1) -> Array:
    """Return one value per channel, or one for all, ready to broadcast to the data.

    Args:
        values: (C,), (1,) or scalar.
        rank: Rank of the data.
        axis: Axis of its channels.
    """
    return values.reshape(-1, *(1,) * (rank - 1 - axis % rank))


def exact_float(bound: float) -> np.dtype[Any]:
    """Return the narrowest float whose sums of integers are exact.

    Matrix products of integers run in the fast floating-point library and lose nothing as long
    as no sum of magnitudes exceeds the significand.

    Args:
        bound: Largest possible sum of the magnitudes of all terms.

    Raises:
        ValueError: ``bound`` is too large for float64 as well.
    """
    if bound <= 2.0**24:
        return FLOAT32
    if bound <= 2.0**53:
        return FLOAT64
    raise ValueError(f"sums of integers up to {bound:g} are not exact in float64")


def exact_factor(codes: Array, zero_point: Array | None, axis: Axes, addend: float) -> Array:
    """Return a constant 8-bit factor minus its zero point, in floats whose sums are exact.

    Args:
        codes: int8 or uint8; its values decide how wide the sums must be.
        zero_point: Broadcast to it; ``None`` for zero.
        axis: Axes that are summed over.
        addend: Largest magnitude of what is added to the sums.
    """
    exact = shifted(codes, zero_point, FLOAT32)
    sums = np.abs(exact).sum(axis=axis, dtype=FLOAT64)
    bound = BYTE_REACH * float(sums.max(initial=0.0)) + addend
    return exact.astype(exact_float(bound), copy=False)


def any_factor(codes: Array, zero_point: Array | None, terms: int, addend: float) -> Array:
    """Return an 8-bit factor minus its zero point, wide enough for sums of ``terms`` terms."""
    bound = BYTE_REACH * BYTE_REACH * terms + addend
    return shifted(codes, zero_point, exact_float(bound))


def shifted(x: Array, zero_point: Array | None, dtype: np.dtype[Any]) -> Array:
    """Return 8-bit ``x`` minus its zero point as floats.

    Raises:
        TypeError: ``x`` is not of an 8-bit integer type.
    """
    if x.dtype not in BYTES:
        raise TypeError(f"an integer product takes int8 or uint8, not {x.dtype}")
    y = x.astype(dtype)
    if zero_point is not None and zero_point.any():
        y -= zero_point.astype(dtype)
    return y


def require_bytes(spec: KernelSpec) -> None:
    """Refuse a QLinearConv or QLinearMatMul whose constant codes are not 8-bit integers.

    Raises:
        Unserved: A constant factor or zero point has another type.
    """
    for position in (0, 2, 3, 5, 7):
        value = spec.constant(position)
        if value is not None and value.dtype not in BYTES:
            raise spec.unserved(f"of {value.dtype}")


def to_int32(total: Array) -> Array:
    """Return exact integer sums held as floats in int32, wrapped as an accumulator wraps."""
    if total.dtype == FLOAT32:
        return total.astype(np.int32)
    return total.astype(np.int64).astype(np.int32)


def requantize(total: Array, multiplier: Array, zero_point: Array) -> Array:
    """Return ``saturate(round_half_even(float32(total) * multiplier) + zero_point)``.

    Args:
        total: Exact integer sums, held as floats; overwritten.
        multiplier: float32, broadcast to ``total``: input scale times weight scale over output
            scale.
        zero_point: Broadcast to ``total``; its type is the type of the result.
    """
    y = total.astype(FLOAT32, copy=False)
    y *= multiplier
    np.rint(y, out=y)
    y += zero_point.astype(FLOAT32)
    return saturated(y, zero_point.dtype)


def saturated(whole: Array, dtype: np.dtype[Any]) -> Array:
    """Return whole numbers clipped to an integer type's range; ``whole`` is overwritten."""
    limits = np.iinfo(dtype)
    np.clip(whole, float(limits.min), float(limits.max), out=whole)
    return whole.astype(dtype)
