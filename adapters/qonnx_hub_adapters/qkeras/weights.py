"""What is stored for a quantized weight, and the quantizer that stands behind it.

The stored tensor holds the quantized values, not the float ones: rounding the float values
again would move every tie (QKeras rounds ties of ``alpha="auto"`` away from zero, and pairs
its last scale with the integers of the scale before). The quantizer behind the stored tensor
states its grid and changes nothing.
"""

from __future__ import annotations

import math

import numpy as np

from qonnx_hub_adapters.qkeras import quantizers as qk
from qonnx_hub_ir.quantizers import Array, BipolarQuant, FloatQuant, IntQuant, Quantizer
from qonnx_hub_ir.semantics import quantize

_WIDEST = 32
"""Widest integers that powers of two are written on; wider ranges are minifloats."""

_RESIDUE = 2.0**-20
"""QKeras returns ``x + (q - x)``: off the grid by rounding errors of that size, relative."""


class OffGridError(Exception):
    """A weight whose recorded values are not on its quantizer's grid; the text says where."""


def store(
    description: qk.Description, given: Array, quantized: Array, scale: Array | None
) -> tuple[Array, Quantizer | None]:
    """Return the tensor to store and the quantizer of its grid.

    Args:
        description: The quantizer.
        given: The values that reached it, float32.
        quantized: The values it returned, same shape.
        scale: Its ``scale`` attribute after the call, for scales computed from the data.

    Returns:
        The values exactly on the grid, and the quantizer, which leaves them as they are;
        ``None`` where no uniform grid exists (mu-law, partial quantization).

    Raises:
        OffGridError: The recorded values are not on the grid, or not finite.
    """
    if not np.all(np.isfinite(quantized)):
        raise OffGridError("its values are not finite")
    quantizer = grid(description, quantized, scale)
    if quantizer is None:
        return quantized, None
    snapped = np.asarray(quantize(quantized, quantizer), dtype=np.float32)
    limit = _RESIDUE * np.maximum(np.abs(given), np.abs(quantized))
    off = np.abs(snapped - quantized) - limit
    if np.any(off > 0):
        worst = int(np.argmax(off))
        raise OffGridError(
            f"value {quantized.reshape(-1)[worst]!r} is not on its grid "
            f"(nearest: {snapped.reshape(-1)[worst]!r})"
        )
    return snapped, quantizer


def grid(description: qk.Description, values: Array, scale: Array | None) -> Quantizer | None:
    """Return the quantizer that leaves the quantized values as they are, if there is one.

    Args:
        description: The quantizer of QKeras.
        values: Values it returned.
        scale: Its ``scale`` after the call; read only where it depends on the data.
    """
    if getattr(description, "noise", 1.0) != 1.0:
        return None
    match description:
        case qk.FixedPoint():
            return _fixed_point(description, values, scale)
        case qk.LinearQuantizer():
            return _linear(description, values, scale)
        case qk.Binary():
            return _binary(description, values, _factor(description, scale))
        case qk.Ternary():
            return integers(_positive(_factor(description, scale)), 2, narrow=True)
        case qk.Relu():
            return relu_grid(description)
        case qk.Tanh():
            return tanh_grid(description)
        case qk.Sigmoid(bits=bits):
            return integers(number_of(2.0**-bits), bits, signed=False)
        case qk.PowerOfTwo():
            return power_of_two_grid(description)
        case qk.BinarySigmoid(two_sided=two_sided):
            return BipolarQuant(number_of(1.0)) if two_sided else _bit(number_of(1.0))
        case qk.MuLaw():
            return None


def relu_grid(q: qk.Relu) -> IntQuant:
    """Return the grid of a quantized_relu; a slope above 1 needs more bits below zero."""
    codes = q.bits - int(q.slope != 0)
    step = np.exp2(q.integer - np.float32(codes)).astype(np.float32)
    extra = max(int(math.log2(q.slope)), 0) if q.slope else 0
    return integers(step, q.bits + extra, signed=q.slope != 0)


def tanh_grid(q: qk.Tanh) -> IntQuant:
    """Return the grid of a quantized_tanh.

    The levels of one bit are -1 and 0, for which two bits are taken: a Quant of one signed bit
    would mean -1 and 1.
    """
    narrow = q.symmetric and q.bits > 1
    return integers(number_of(2.0 ** (1 - q.bits)), max(q.bits, 2), narrow=narrow)


def power_of_two_grid(description: qk.PowerOfTwo) -> Quantizer:
    """Return a quantizer that leaves all powers of two of a range as they are."""
    signed = not description.relu or description.slope != 0
    lowest, highest = description.lowest, description.highest
    if description.quadratic:
        lowest, highest = 2 * lowest, 2 * highest
    if description.max_value is not None:
        # The logarithm of the clipped magnitude is rounded, at most up to the next power.
        highest = min(highest, math.ceil(math.log2(max(description.max_value, 1e-7))))
        highest = max(highest, lowest)
    bits = highest - lowest + 1 + int(signed)
    if bits <= _WIDEST:
        return integers(number_of(2.0**lowest), bits, signed=signed)
    exponents = highest - lowest + 1
    return FloatQuant(
        scale=number_of(1.0),
        exponent_bits=number_of(float(math.ceil(math.log2(exponents + 1)))),
        mantissa_bits=number_of(0.0),
        exponent_bias=number_of(float(1 - lowest)),
        max_val=number_of(2.0**highest),
    )


def integers(
    scale: Array, bits: int, *, signed: bool = True, narrow: bool = False
) -> IntQuant:
    """Return a uniform quantizer without zero point that rounds half to even."""
    return IntQuant(
        scale=scale,
        zero_point=number_of(0.0),
        bits=number_of(float(bits)),
        signed=signed,
        narrow=narrow,
    )


def number_of(value: float) -> Array:
    """Return a float32 scalar."""
    return np.array(value, dtype=np.float32)


def _bit(scale: Array) -> IntQuant:
    return integers(scale, 1, signed=False)


def _positive(scale: Array) -> Array:
    """Return the scale with 1 where a channel is all zero: there every step is right."""
    magnitude = np.abs(np.asarray(scale, dtype=np.float32))
    usable = np.isfinite(magnitude) & (magnitude > 0)
    return np.where(usable, magnitude, np.float32(1.0)).astype(np.float32)


def _factor(description: qk.Binary | qk.Ternary | qk.FixedPoint, scale: Array | None) -> Array:
    if not qk.depends_on_data(description):
        return np.asarray(description.alpha, dtype=np.float32)
    if scale is None:
        raise OffGridError("its scale was not recorded")
    return scale


def _fixed_point(q: qk.FixedPoint, values: Array, scale: Array | None) -> Quantizer:
    unsigned = q.bits - int(q.keep_negative)
    step = np.exp2(q.integer - np.float32(unsigned)).astype(np.float32)
    factor = _factor(q, scale)
    if qk.depends_on_data(q):
        # One signed bit leaves the level 0 only; two bits hold it.
        return integers(_positive(factor * step), max(q.bits, 2), narrow=True)
    if unsigned == 0:
        return _binary(q, values, factor)
    bits, signed = q.bits, q.keep_negative
    if np.any(factor < 0):
        # A negative factor turns the range around: one more bit holds both ends.
        bits, signed = bits + 1, True
    narrow = q.symmetric and q.keep_negative
    return integers(_positive(factor * step), bits, signed=signed, narrow=narrow)


def _linear(q: qk.LinearQuantizer, values: Array, scale: Array | None) -> Quantizer:
    step = scale if q.auto else q.step
    if step is None:
        raise OffGridError("its scale was not recorded")
    if q.bits == 1 and q.keep_negative:
        return BipolarQuant(_positive(step * np.float32(0.5)))
    narrow = q.symmetric and q.keep_negative
    return integers(_positive(step), q.bits, signed=q.keep_negative, narrow=narrow)


def _binary(q: qk.Binary | qk.FixedPoint, values: Array, factor: Array) -> Quantizer:
    if isinstance(q, qk.Binary) and q.use_01 and not np.any(factor < 0):
        return _bit(_positive(factor))
    if np.any(values == 0):
        # A channel of zeros has scale 0, which a bipolar quantizer cannot have.
        return integers(_positive(factor), 2, narrow=True)
    return BipolarQuant(_positive(factor))
