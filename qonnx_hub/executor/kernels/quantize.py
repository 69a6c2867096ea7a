"""Numpy kernels of the ONNX quantizers: QuantizeLinear, DequantizeLinear and their kin.

``y = saturate(round_half_even(x / scale) + zero_point)`` and ``(x - zero_point) * scale``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from qonnx_hub.executor.kernels._numbers import (
    FLOAT8_LIMITS,
    FLOAT32,
    SHORT_FLOATS,
    per_channel,
)
from qonnx_hub.executor.kernels.elementwise import onnx_dtype, served, stateless
from qonnx_hub.executor.kernels.spec import Array, Kernel, KernelSpec, KernelTable

Numpy = np.dtype[Any]
Expand = Callable[[Array, tuple[int, ...]], Array]
"""(parameter, shape of the data) -> parameter that broadcasts to the data."""

Parameters = Callable[[tuple[int, ...], Array, Array | None], tuple[Array, Array | None]]
"""(shape of the data, scale, zero point) -> both ready to broadcast to the data."""

_LIMITS: dict[Numpy, tuple[int, int]] = {
    limits.dtype: (limits.min, limits.max)
    for limits in map(
        ml_dtypes.iinfo,
        ("int2", "uint2", "int4", "uint4", "int8", "uint8", "int16", "uint16"),
    )
}
"""Integer types that QuantizeLinear makes, with their ranges."""

_LARGEST: dict[Numpy, float] = {**FLOAT8_LIMITS, np.dtype(ml_dtypes.float4_e2m1fn): 6.0}
"""Small float types that QuantizeLinear makes, with their largest finite values."""

_FLOATS = {FLOAT32, *SHORT_FLOATS}
_WIDE: dict[Numpy, Numpy] = {
    np.dtype(np.int32): np.dtype(np.int64),
    **dict.fromkeys(_LARGEST, FLOAT32),
}
"""Types whose difference to a zero point does not fit into int32, which holds the others'."""


def _expander(spec: KernelSpec) -> Expand:
    """Return what makes scales and zero points broadcast to the data.

    Raises:
        Unserved: The block size is negative.
    """
    axis, block = int(spec.attr("axis", 1)), spec.whole("block_size", 0, least=0)

    def expand(parameter: Array, shape: tuple[int, ...]) -> Array:
        if parameter.size == 1 and parameter.ndim <= 1:
            return parameter.reshape(())
        if not -len(shape) <= axis < len(shape):
            raise ValueError(f"axis {axis} of data of shape {shape}")
        position = axis % len(shape)
        if parameter.ndim == 1 and not block:
            if len(parameter) != shape[position]:
                raise ValueError(f"{len(parameter)} scales for an axis of {shape[position]}")
            return per_channel(parameter, len(shape), axis)
        if not block:
            raise ValueError(f"scales of shape {parameter.shape} need a block_size")
        blocks = -(-shape[position] // block)
        if parameter.shape != (*shape[:position], blocks, *shape[position + 1 :]):
            raise ValueError(
                f"scales of shape {parameter.shape} for data of {shape} in blocks of {block} "
                f"along axis {axis}"
            )
        repeated = np.repeat(parameter, block, axis=position)
        return repeated.take(np.arange(shape[position], dtype=np.intp), axis=position)

    return expand


def _parameters(spec: KernelSpec, dtype: Numpy | None) -> Parameters:
    """Return what gives scale and zero point ready to broadcast to data of some shape.

    Constants are prepared once per shape.

    Args:
        spec: The node.
        dtype: Type that the zero point is converted to; ``None`` leaves it. A zero point of
            zeros is dropped.
    """
    expand = _expander(spec)

    def prepare(
        shape: tuple[int, ...], scale: Array, zero_point: Array | None
    ) -> tuple[Array, Array | None]:
        if zero_point is None or not zero_point.any():
            return expand(scale, shape), None
        offset = expand(zero_point, shape)
        return expand(scale, shape), offset if dtype is None else offset.astype(dtype)

    scale = spec.constant(1)
    if scale is None or not spec.is_fixed(2):
        return prepare
    known = functools.partial(prepare, scale=scale, zero_point=spec.constant(2))
    prepared = functools.lru_cache(maxsize=16)(known)
    return lambda shape, *_: prepared(shape)


def _named_dtype(spec: KernelSpec, attribute: str) -> Numpy | None:
    """Return the type that an attribute names; ``None`` where it is absent or 0."""
    code = int(spec.attr(attribute, 0))
    return onnx_dtype(spec, code) if code else None


def _output_dtype(spec: KernelSpec) -> Numpy | None:
    """Return the type that QuantizeLinear makes; ``None`` where a run-time zero point has it.

    Raises:
        Unserved: The type is not one that ONNX quantizes to, or contradicts the zero point.
    """
    zero_point, named = spec.constant(2), _named_dtype(spec, "output_dtype")
    if zero_point is not None and named is not None and named != zero_point.dtype:
        raise spec.unserved(f"makes {named} and {zero_point.dtype}")
    dtype = named if zero_point is None else zero_point.dtype
    if dtype is None and not spec.has_input(2):
        dtype = np.dtype(np.uint8)
    if dtype is not None and dtype not in _LIMITS and dtype not in _LARGEST:
        raise spec.unserved(f"makes {dtype}")
    return dtype


def _arithmetic(spec: KernelSpec) -> Callable[[Numpy, Numpy], Numpy]:
    """Return what gives the type of the division, from those of data and scale.

    Opset 23 made it the type of the scale unless ``precision`` names another; before that,
    onnxruntime computes short floats in float32.
    """
    named = _named_dtype(spec, "precision")
    if named is not None:
        if named not in _FLOATS:
            raise spec.unserved(f"computes in {named}")
        return lambda x, scale: named
    if spec.version >= 23:
        return lambda x, scale: scale
    return lambda x, scale: FLOAT32


def _quantize_linear(spec: KernelSpec) -> Kernel:
    known, arithmetic = _output_dtype(spec), _arithmetic(spec)
    parameters = _parameters(spec, FLOAT32)
    saturates = bool(spec.attr("saturate", 1))

    def kernel(x: Array, scale: Array, zero_point: Array | None = None) -> Array:
        dtype = zero_point.dtype if known is None and zero_point is not None else known
        compute = arithmetic(x.dtype, scale.dtype)
        if x.dtype not in _FLOATS and x.dtype != np.int32:
            raise TypeError(f"QuantizeLinear takes floats or int32, not {x.dtype}")
        factor, offset = parameters(x.shape, scale, zero_point)
        wide, factor = x.astype(compute, copy=False), factor.astype(compute, copy=False)
        quotient = np.asarray(np.divide(wide, factor))
        if dtype in _LIMITS:
            return _to_integer(quotient, offset, dtype)
        if dtype in _LARGEST:
            return _to_small_float(quotient, dtype, saturates)
        raise TypeError(f"QuantizeLinear makes no {dtype}")

    return kernel


def _to_integer(quotient: Array, zero_point: Array | None, dtype: Numpy) -> Array:
    """Return the rounded and saturated sum; NaN becomes the low limit, as in onnxruntime.

    Args:
        quotient: x / scale; overwritten if float32.
        zero_point: float32, broadcast to it; ``None`` for zero.
        dtype: Integer type to make.
    """
    low, high = _LIMITS[dtype]
    # Half floats lose bits when the zero point is added: integers need at most 17.
    y = quotient.astype(FLOAT32, copy=False)
    np.rint(y, out=y)
    if zero_point is not None:
        y += zero_point
    # fmax and not maximum or clip: it turns NaN into the limit.
    np.fmax(y, np.float32(low), out=y)
    np.minimum(y, np.float32(high), out=y)
    if dtype.kind in "iu":
        return y.astype(dtype)
    return y.astype(np.int8).astype(dtype)


def _to_small_float(quotient: Array, dtype: Numpy, saturates: bool) -> Array:
    """Return the nearest value of a float8 or float4 type, ties to even.

    float4 has neither infinity nor NaN and always saturates.
    """
    y = quotient.astype(FLOAT32, copy=False)
    if saturates or dtype == ml_dtypes.float4_e2m1fn:
        largest = np.float32(_LARGEST[dtype])
        y = np.asarray(np.minimum(np.maximum(y, -largest), largest))
    return y.astype(dtype)


def _dequantize_linear(spec: KernelSpec) -> Kernel:
    parameters = _parameters(spec, None)
    named = _named_dtype(spec, "output_dtype")
    if named is not None and named not in _FLOATS:
        raise spec.unserved(f"makes {named}")

    def kernel(x: Array, scale: Array, zero_point: Array | None = None) -> Array:
        dtype = named or scale.dtype
        factor, offset = parameters(x.shape, scale, zero_point)
        if offset is not None:
            wide = _WIDE.get(x.dtype, np.dtype(np.int32))
            x = np.asarray(np.subtract(x.astype(wide), offset.astype(wide)))
        if dtype == FLOAT32 and factor.dtype == FLOAT32:
            y = x.astype(FLOAT32)
            y *= factor
            return y
        # The product of two short floats is exact in float32 unless the integer is long.
        product = x.astype(FLOAT32) * factor.astype(FLOAT32)
        return np.asarray(product).astype(dtype)

    return kernel


def dynamic_quantization(x: Array) -> tuple[Array, Array, Array]:
    """Return uint8 codes of a float32 tensor, with scale and zero point of its own range."""
    zero, levels = np.float32(0), np.float32(255)
    low = np.minimum(x.min(initial=zero), zero)
    high = np.maximum(x.max(initial=zero), zero)
    scale = np.asarray((high - low) / levels, dtype=np.float32)
    if scale == 0:
        # A tensor of zeros fits any scale; onnxruntime takes one.
        scale = np.ones((), dtype=np.float32)
    zero_point = np.asarray(np.rint(np.clip((zero - low) / scale, zero, levels)))
    y = _to_integer(np.asarray(x / scale), zero_point, np.dtype(np.uint8))
    return y, scale, zero_point.astype(np.uint8)


KERNELS: KernelTable = {
    ("", "DequantizeLinear"): served(_dequantize_linear, "axis", "block_size", "output_dtype"),
    ("", "DynamicQuantizeLinear"): stateless(dynamic_quantization),
    ("", "QuantizeLinear"): served(
        _quantize_linear, "axis", "block_size", "output_dtype", "precision", "saturate"
    ),
}
