"""The numbers: what each quantizer and each rounding mode computes, in numpy.

This is the only place that writes these formulas. Everything is float32 in, float32 out (other
float types keep theirs; half precision computes in float32 and rounds once at the end), with
true division, in the order scale, zero point, clamp, round. Where the zero point is added
after rounding, the order is scale, round, zero point, clamp. A NaN stays a NaN, except where
an operator compares (a bipolar quantizer maps it to its low level) and where the zero point is
added after rounding: it becomes the lowest code, as in onnxruntime.

Sources: the QONNX documents of IntQuant v1, BipolarQuant v1, FloatQuant v1, Trunc v1, v2 and
their code; Brevitas' rounding DPU; ONNX's QuantizeLinear, which leaves a NaN open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeAlias

import numpy as np

from qonnx_hub_ir.quantizers import (
    Array,
    BipolarQuant,
    FloatQuant,
    IntQuant,
    Parameter,
    Quantizer,
    Rounding,
    Trunc,
    integer_bounds,
    is_whole,
)

Applier: TypeAlias = Callable[[Array, Array | None], Array]
"""``f(x, out)``: the quantized values of ``x``, written into ``out`` where that is given
(``out`` may be ``x`` itself)."""


_SMALL = 8192
"""Elements up to which the number of calls decides how long a quantizer takes."""


def _into(out: Array | None, values: Array) -> Array:
    """Return the values, in ``out`` where that is given."""
    if out is None:
        return np.asarray(values)
    np.copyto(out, values)
    return out


def _with_sign(magnitude_of: Callable[[Array], Array]) -> Applier:
    """Return the rounding that treats the values on both sides of zero alike."""
    return lambda t, out: np.asarray(np.copysign(magnitude_of(np.abs(t)), t, out=out))


_ROUNDERS: dict[Rounding, Callable[[Array, Array | None], Array]] = {
    Rounding.ROUND: np.rint,
    Rounding.CEIL: np.ceil,
    Rounding.FLOOR: np.floor,
    Rounding.DOWN: np.trunc,
    Rounding.UP: _with_sign(np.ceil),
    Rounding.HALF_UP: _with_sign(lambda t: np.floor(t + t.dtype.type(0.5))),
    Rounding.HALF_DOWN: _with_sign(lambda t: np.ceil(t - t.dtype.type(0.5))),
    # Ties below zero go up, others to even.
    Rounding.DPU: lambda t, out: _into(
        out,
        np.where((t < 0) & (t - np.floor(t) == t.dtype.type(0.5)), np.ceil(t), np.rint(t)),
    ),
}


def round_values(t: Array, rounding: Rounding, out: Array | None = None) -> Array:
    """Return ``t`` rounded to whole numbers.

    Args:
        t: Float values of any shape.
        rounding: The mode.
        out: Where to write, may be ``t``.

    Returns:
        Whole numbers in the dtype of ``t``. HALF_UP and HALF_DOWN add and subtract 0.5 in that
        dtype, as the reference implementation does.
    """
    return np.asarray(_ROUNDERS[rounding](t, out))


def compute_dtype(x: Array) -> np.dtype[Any]:
    """Return the dtype in which a quantizer computes on ``x``.

    Raises:
        TypeError: ``x`` is not of a float type.
    """
    if x.dtype == np.float32 or x.dtype == np.float64:
        return x.dtype
    if x.dtype == np.float16 or x.dtype.name == "bfloat16":
        return np.dtype(np.float32)
    raise TypeError(f"a quantizer takes float values, not {x.dtype.name}")


def _needed(value: Parameter, name: str, dtype: Any = None) -> Array:
    """Return a parameter, of the dtype given; a shape such as (1, 1) becomes a scalar.

    It may have more axes than the input; as a scalar it cannot add axes to the result, which
    the operator does not allow.
    """
    if value is None:
        raise ValueError(f"{name} is computed at run time; give its value before applying")
    return _scalar_if_single(np.asarray(value, dtype=dtype))


_WIDEST = 1023
"""Bits beyond which float64 has no limits: a width computed at run time can be any number."""


def _bounds(quant_bits: Array, signed: bool, narrow: bool, dtype: Any) -> tuple[Array, Array]:
    """Return (low, high) in ``dtype``, rounded once from their exact values."""
    number, exact = (int, np.int64) if dtype is np.int64 else (float, np.float64)
    bits = [number(min(b, _WIDEST)) for b in quant_bits.flat]
    ends = np.array(
        [integer_bounds(b, signed=signed, narrow=narrow) for b in bits], dtype=exact
    ).reshape(*quant_bits.shape, 2)
    return ends[..., 0].astype(dtype), ends[..., 1].astype(dtype)


def _all_equal(values: Array, number: float) -> bool:
    # A plan asks this of every quantizer: a reduction of one element is ten times as slow.
    return bool(values.item() == number if values.size == 1 else np.all(values == number))


def _scalar_if_single(values: Array) -> Array:
    """Return a 0-d array where there is one element: numpy broadcasts those fastest."""
    return values.reshape(()) if values.size == 1 else values


def _has_two_levels(quant: IntQuant, bits: Array) -> bool:
    """Return whether the quantizer has the levels -1 and +1 instead of a range.

    Raises:
        ValueError: One signed bit in some channels and more in others, which no operator
            document gives a meaning.
    """
    one = quant.signed & (bits == 1)
    if bits.size == 1:
        return bool(one)
    if np.any(one) and not np.all(one):
        raise ValueError("a signed quantizer mixes bit width 1 with larger ones")
    return bool(np.all(one))


def _int_parameters(quant: IntQuant, dtype: Any) -> tuple[Array, Array, Array]:
    """Return scale, zero point and bit width."""
    scale = _needed(quant.scale, "scale", dtype)
    zero = _needed(quant.zero_point, "zero point", dtype)
    return scale, zero, _needed(quant.bits, "bit width")


def _int_quant_steps(quant: IntQuant, dtype: Any) -> Applier:
    scale, zero, bits = _int_parameters(quant, dtype)
    if _has_two_levels(quant, bits):
        return _sign_steps(scale, zero)
    unit_scale, no_zero = _all_equal(scale, 1), _all_equal(zero, 0)
    to_codes = _code_steps(quant, scale, zero, bits)

    def apply(x: Array, out: Array | None) -> Array:
        t = to_codes(x, out)
        if not no_zero:
            np.subtract(t, zero, out=t)
        if not unit_scale:
            np.multiply(t, scale, out=t)
        return t

    return apply


def _code_steps(quant: IntQuant, scale: Array, zero: Array, bits: Array) -> Applier:
    """Return what makes codes of values, as whole floats, in the quantizer's order."""
    low, high = _bounds(bits, quant.signed, quant.narrow, scale.dtype.type)
    rounder = _ROUNDERS[quant.rounding]
    unit_scale, no_zero = _all_equal(scale, 1), _all_equal(zero, 0)
    inverse = _exact_inverse(scale)

    def round_first(x: Array, out: Array | None) -> Array:
        t = np.divide(x, scale, out=out) if inverse is None else np.multiply(x, inverse, out)
        rounder(t, t)
        np.add(t, zero, out=t)
        # fmax and not maximum or clip: it turns a NaN into the bound.
        np.fmax(t, low, out=t)
        return np.minimum(t, high, out=t)

    def apply(x: Array, out: Array | None) -> Array:
        if unit_scale and no_zero:
            t = _clamp(x, low, high, out)
            return rounder(t, t)
        if unit_scale:
            t = np.add(x, zero, out=out)
        elif inverse is None:
            t = np.divide(x, scale, out=out)
        else:
            t = np.multiply(x, inverse, out=out)
        if not (unit_scale or no_zero):
            np.add(t, zero, out=t)
        _clamp(t, low, high, t)
        return rounder(t, t)

    return round_first if quant.zero_point_after_rounding else apply


def _exact_inverse(scale: Array) -> Array | None:
    """Return ``1 / scale`` where the product with it equals the quotient, else ``None``.

    The inverse of a power of two is one itself: quotient and product are the same real number,
    rounded once.
    """
    mantissa, _ = np.frexp(scale)
    inverse = np.asarray(1 / scale)
    exact = (np.abs(mantissa) == 0.5) & np.isfinite(inverse) & (inverse * scale == 1)
    return inverse if bool(np.all(exact)) else None


def _clamp(t: Array, low: Array, high: Array, out: Array | None) -> Array:
    if t.size > _SMALL:
        return np.clip(t, low, high, out=out)
    # For few elements two plain calls are quicker than what np.clip does around its one.
    t = np.maximum(t, low, out=out)
    return np.minimum(t, high, out=t)


def _sign_steps(scale: Array, zero: Array) -> Applier:
    dtype = scale.dtype.type
    high = (dtype(1) - zero) * scale
    low = (dtype(-1) - zero) * scale
    no_zero = _all_equal(zero, 0) and bool(np.all(scale > 0))
    divides = bool(np.any(scale > 1))

    def apply(x: Array, out: Array | None) -> Array:
        # Positive scales keep the sign of x, so the division can be left out; but by a scale
        # above one a quotient can underflow to -0.0, which is not below zero.
        t = (x / scale if divides else x) if no_zero else x / scale + zero
        return _into(out, np.where(t >= 0, high, low))

    return apply


def largest_float(exponent_bits: Array, mantissa_bits: Array, exponent_bias: Array) -> Array:
    """Return the largest magnitude of a minifloat format that uses all its exponent codes."""
    exponent = np.exp2(exponent_bits) - 1 - exponent_bias
    mantissa = 2 - np.exp2(-mantissa_bits)
    return np.asarray(mantissa * np.exp2(exponent))


def _float_quant_steps(quant: FloatQuant, dtype: Any) -> Applier:
    scale = _needed(quant.scale, "scale", dtype)
    exponent_bits = _needed(quant.exponent_bits, "exponent bit width", np.float64)
    mantissa = _needed(quant.mantissa_bits, "mantissa bit width", np.float64)
    bias = _needed(quant.exponent_bias, "exponent bias", np.float64)
    if not (is_whole(mantissa) and is_whole(bias)):
        raise ValueError("mantissa bit width and exponent bias must be whole numbers")
    limit = np.minimum(
        largest_float(exponent_bits, mantissa, bias), _needed(quant.max_val, "max_val")
    )
    limit = _scalar_if_single(limit.astype(dtype))
    lowest_step = _scalar_if_single((1.0 - bias - mantissa).astype(np.int64))
    tiny = np.finfo(dtype).tiny
    rounder = _ROUNDERS[quant.rounding]
    overflow = None if quant.saturation else (quant.has_inf, quant.has_nan)

    def apply(x: Array, out: Array | None) -> Array:
        t = np.asarray(x / scale)
        # frexp gives the exponent exactly, where a logarithm could round up to the next one.
        _, exponent = np.frexp(np.abs(t) + tiny)
        step = np.maximum(exponent - 1 - mantissa.astype(np.int64), lowest_step)
        finite = np.isfinite(t)
        grid = np.ldexp(dtype.type(1), np.where(finite, step, 0).astype(np.int32))
        q = np.asarray(grid * rounder(np.asarray(t / grid), None))
        clipped = np.clip(q, -limit, limit)
        if overflow is not None:
            clipped = _overflowed(q, clipped, limit, *overflow)
        return np.asarray(np.multiply(clipped, scale, out=out))

    return apply


def _overflowed(q: Array, clipped: Array, limit: Array, inf: bool, nan: bool) -> Array:
    if not inf and not nan:
        raise ValueError("a FloatQuant that does not saturate needs has_inf or has_nan")
    if inf:
        beyond = np.where(q > limit, np.inf, np.where(q < -limit, -np.inf, clipped))
        return np.asarray(beyond.astype(clipped.dtype))
    return np.asarray(np.where(np.abs(q) > limit, clipped.dtype.type(np.nan), clipped))


def _trunc_steps(quant: Trunc, dtype: Any) -> Applier:
    scale = _needed(quant.scale, "scale", dtype)
    zero = _needed(quant.zero_point, "zero point", dtype)
    out_bits = _needed(quant.out_bits, "output bit width")
    rounder = _ROUNDERS[quant.rounding]
    if quant.version == 1:
        in_bits = _needed(quant.in_bits, "input bit width")
        shift = np.exp2(in_bits.astype(np.float64) - out_bits.astype(np.float64)).astype(dtype)
        out_scale, out_zero, low, high = scale, zero, None, None
    else:
        out_scale = _needed(quant.out_scale, "output scale", dtype)
        shift = np.exp2(np.rint(np.log2(out_scale / scale))).astype(dtype)
        out_zero = np.asarray(zero / shift)
        low, high = _bounds(out_bits, quant.signed, quant.narrow, dtype)

    def apply(x: Array, out: Array | None) -> Array:
        t = np.asarray(np.rint(x / scale + zero) / shift)
        if low is not None and high is not None:
            t = np.clip(t, low, high)
        t = np.asarray(rounder(np.asarray(t), None))
        return np.asarray(np.multiply(t - out_zero, out_scale, out=out))

    return apply


def _steps(quant: Quantizer, dtype: Any) -> Applier:
    if isinstance(quant, IntQuant):
        return _int_quant_steps(quant, dtype)
    if isinstance(quant, BipolarQuant):
        scale = _needed(quant.scale, "scale", dtype)
        return lambda x, out: _into(out, np.where(x >= 0, scale, -scale))
    if isinstance(quant, FloatQuant):
        return _float_quant_steps(quant, dtype)
    return _trunc_steps(quant, dtype)


def compile_quantizer(quant: Quantizer) -> Applier:
    """Return a function that applies the quantizer, with everything static worked out once.

    Args:
        quant: The quantizer; every parameter must be known.

    Returns:
        ``f(x, out=None)``. ``out`` is honoured for float32 and float64 only. Floating-point
        warnings of numpy are the caller's to silence.

    Raises:
        ValueError: A parameter is dynamic, or has a value without a meaning.
    """
    prepared: dict[Any, Applier] = {np.dtype(np.float32): _steps(quant, np.dtype(np.float32))}

    def apply(x: Array, out: Array | None = None) -> Array:
        if not x.ndim:
            # numpy gives scalars, not arrays, for 0-d operands.
            value = apply(x.reshape(1)).reshape(())
            if out is None:
                return value
            out[...] = value
            return out
        steps = prepared.get(x.dtype)
        if steps is not None:
            return steps(x, out)
        dtype = compute_dtype(x)
        if dtype not in prepared:
            prepared[dtype] = _steps(quant, dtype)
        if dtype == x.dtype:
            return prepared[dtype](x, out)
        return prepared[dtype](x.astype(dtype), None).astype(x.dtype)

    return apply


def compile_float32(quant: Quantizer) -> Applier:
    """Return :func:`compile_quantizer`'s function for float32 arrays with axes only.

    It looks at neither type nor rank of what it is given: for callers that know both.
    """
    return _steps(quant, np.dtype(np.float32))


def _require_fitting(x: Array, quant: Quantizer) -> None:
    """Raise ValueError unless every parameter broadcasts to ``x`` without enlarging it."""
    for field in fields(quant):
        value = getattr(quant, field.name)
        if not isinstance(value, np.ndarray) or value.size == 1:
            continue
        if np.broadcast_shapes(x.shape, value.shape) != x.shape:
            raise ValueError(f"{field.name} has shape {value.shape}, the input {x.shape}")


def quantize(x: Array, quant: Quantizer) -> Array:
    """Return the quantized (and dequantized) values of ``x``.

    Args:
        x: Float values of any shape that the quantizer's parameters broadcast to.
        quant: The quantizer; every parameter must be known.

    Returns:
        An array of the shape and dtype of ``x``.

    Raises:
        ValueError: A parameter is dynamic, or does not broadcast to ``x``.
        TypeError: ``x`` is not of a float type.
    """
    values = np.asarray(x)
    _require_fitting(values, quant)
    with np.errstate(all="ignore"):
        return np.asarray(compile_quantizer(quant)(values, None))


def quantize_to_integers(x: Array, quant: IntQuant | BipolarQuant) -> Array:
    """Return the integer codes of ``x``: what the hardware stores.

    Args:
        x: Float values.
        quant: An integer or bipolar quantizer with every parameter known.

    Returns:
        int64 codes in the shape of ``x``, inside the quantizer's integer range. The quantized
        value is ``(code - zero_point) * scale``; bipolar codes are -1 and +1.

    Raises:
        ValueError: A value has no integer code because it is or becomes NaN, codes of this
            bit width need more than int64, a parameter is dynamic or does not broadcast.
    """
    values = np.asarray(x)
    _require_fitting(values, quant)
    dtype = compute_dtype(values)
    with np.errstate(all="ignore"):
        if isinstance(quant, BipolarQuant):
            return _sign_codes(values)
        scale, zero, bits = _int_parameters(quant, dtype)
        values = values.astype(dtype)
        if _has_two_levels(quant, bits):
            return _sign_codes(np.asarray(values / scale + zero))
        codes = np.empty(values.shape, dtype=dtype)
        return _codes(_code_steps(quant, scale, zero, bits)(values, codes), quant)


def _sign_codes(t: Array) -> Array:
    _require_codes(t)
    return np.where(t >= 0, 1, -1).astype(np.int64)


def _require_codes(t: Array) -> None:
    if bool(np.isnan(t).any()):
        raise ValueError("a NaN has no integer code")


def _codes(rounded: Array, quant: IntQuant) -> Array:
    """Return whole floats as int64, inside the exact range.

    A limit such as 2**31 - 1 is no float32: the float next to it lies one outside the range.
    """
    _require_codes(rounded)
    bits = _needed(quant.bits, "bit width")
    if not is_whole(bits) or np.any(bits > (64 if quant.signed else 63)):
        raise ValueError("integers of this bit width do not fit into int64")
    low, high = _bounds(bits, quant.signed, quant.narrow, np.int64)
    # 2**63 is the one float in range that int64 cannot take.
    inside = rounded < 2.0**63
    codes = np.where(inside, rounded, 0).astype(np.int64)
    return np.asarray(np.clip(np.where(inside, codes, high), low, high))


def levels(quant: IntQuant | BipolarQuant, dtype: Any = np.float32) -> Array:
    """Return every value that the quantizer can return (but NaN).

    Args:
        quant: An integer or bipolar quantizer with every parameter known.
        dtype: float32 or float64: type of the quantizer's input.

    Returns:
        Shape (codes, *parameters): along the first axis the codes rise; the other axes are
        those of the parameters, none where these are scalars. A channel with fewer bits than
        another one repeats its ends.

    Raises:
        ValueError: A parameter is dynamic, or codes of this bit width need more than int64.
    """
    scale = _needed(quant.scale, "scale", dtype)
    if isinstance(quant, BipolarQuant):
        return np.stack([-scale, scale])
    zero = _needed(quant.zero_point, "zero point", dtype)
    bits = _needed(quant.bits, "bit width")
    if _has_two_levels(quant, bits):
        codes = np.array([-1, 1], dtype=dtype)
        low, high = codes[0], codes[1]
    else:
        low, high = _bounds(bits, quant.signed, quant.narrow, dtype)
        codes = np.arange(float(low.min()), float(high.max()) + 1, dtype=dtype)
    shape = np.broadcast_shapes(scale.shape, zero.shape, np.shape(low))
    column = codes.reshape(-1, *(1,) * len(shape))
    with np.errstate(all="ignore"):
        return np.asarray((np.clip(column, low, high) - zero) * scale)
