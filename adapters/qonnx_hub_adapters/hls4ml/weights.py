"""Constants of the source: what they are worth, and the integers behind weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx_ir import Value

from qonnx_hub_ir import dialect
from qonnx_hub_ir.quantizers import (
    Array,
    BipolarQuant,
    IntQuant,
    Quantizer,
    Rounding,
    is_bipolar,
    is_power_of_two,
    single_value,
)
from qonnx_hub_ir.semantics import quantize, quantize_to_integers

WIDEST = 64
"""Bits up to which weights that no quantizer describes are stored exactly."""


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Constant weights: ``values = stored * scale``.

    Attributes:
        stored: float32, in the source's shape: what is written.
        quant: The quantizer that is written on them: of one step that is a power of two;
            ``None`` where there is none, and the config alone gives the type.
        scale: float64, of shape () or (outputs,): what is yet to be multiplied.
        name: Name of the source's quantizer; empty where there is none.
        source: The source's quantizer.
    """

    stored: Array
    quant: IntQuant | BipolarQuant | None
    scale: Array
    name: str = ""
    source: Quantizer | None = None


def constant_of(value: Value | None) -> Array | None:
    """Return the values of a constant or of a quantized constant, else ``None``."""
    if value is None:
        return None
    known = dialect.constant_value(value)
    if known is not None:
        return known
    node = value.producer()
    if node is None or not dialect.is_quantizer(node):
        return None
    stored = dialect.constant_value(node.inputs[0])
    quant = dialect.read_quantizer(node)
    if stored is None or any(p is None for p in dialect.parameters(quant)):
        return None
    return quantize(stored.astype(np.float32), quant)


def weights_of(value: Value, output_axis: int, *, bits: bool) -> Weights | None:
    """Return the weights that a value holds; ``None`` if it is not constant.

    Args:
        value: Operand of a product.
        output_axis: The axis along which scales may differ.
        bits: Whether -1 and +1 may be written as bits.
    """
    values = constant_of(value)
    if values is None:
        return None
    node = value.producer()
    one = np.ones((), dtype=np.float64)
    if node is None:
        return Weights(values.astype(np.float32), None, one)
    quant, name = dialect.read_quantizer(node), node.name or ""
    plain = Weights(values.astype(np.float32), None, one, name, quant)
    if not isinstance(quant, (IntQuant, BipolarQuant)):
        return plain
    scale = _scale_per_output(quant.scale, values.ndim, output_axis)
    stored = dialect.constant_value(node.inputs[0])
    if scale is None or stored is None:
        return plain
    if is_bipolar(quant):
        return _two_levels(quant, stored, scale, name, bits=bits) or plain
    assert isinstance(quant, IntQuant)
    return _integers(quant, stored, scale, name) or plain


def _scale_per_output(scale: Array | None, rank: int, axis: int) -> Array | None:
    if scale is None:
        return None
    single = single_value(scale)
    if single is not None:
        return np.asarray(single, dtype=np.float64)
    shape: tuple[int, ...] = (1,) * (rank - scale.ndim) + scale.shape
    full = scale.reshape(shape)
    if any(size != 1 for place, size in enumerate(shape) if place != axis % rank):
        return None
    return full.reshape(-1).astype(np.float64)


def _two_levels(
    quant: Quantizer, stored: Array, scale: Array, name: str, *, bits: bool
) -> Weights | None:
    if isinstance(quant, IntQuant) and single_value(quant.zero_point) != 0:
        return None
    assert isinstance(quant, (IntQuant, BipolarQuant))
    signs = quantize_to_integers(stored.astype(np.float32), quant).astype(np.float32)
    unit = np.ones((), dtype=np.float32)
    written = BipolarQuant(unit) if bits else _plain_quantizer(2, signed=True, narrow=True)
    return Weights(signs, written, scale, name, quant)


def _integers(quant: IntQuant, stored: Array, scale: Array, name: str) -> Weights | None:
    width, zero = single_value(quant.bits), quant.zero_point
    if width is None or width != int(width) or zero is None:
        return None
    codes = quantize_to_integers(stored.astype(np.float32), quant)
    if np.any(zero != np.rint(zero)):
        return None
    if np.any(zero):
        codes = codes - zero.astype(np.int64)
        reach = int(np.abs(codes).max(initial=1))
        written = _plain_quantizer(reach.bit_length() + 1, signed=True, narrow=False)
    else:
        # What is narrow and unsigned, hls4ml does not know; the codes are in range anyway.
        narrow = quant.narrow and quant.signed
        written = _plain_quantizer(int(width), signed=quant.signed, narrow=narrow)
    single = single_value(scale)
    if single is None or not is_power_of_two(scale):
        return Weights(codes.astype(np.float32), written, scale, name, quant)
    step = np.asarray(single, dtype=np.float32)
    kept = IntQuant(step, written.zero_point, written.bits, written.signed, written.narrow)
    values = codes.astype(np.float32) * step
    return Weights(values, kept, np.ones((), dtype=np.float64), name, quant)


def _plain_quantizer(bits: int, *, signed: bool, narrow: bool) -> IntQuant:
    return integer_quantizer(np.ones((), dtype=np.float32), bits, signed, narrow)


def integer_quantizer(
    scale: Array,
    bits: int,
    signed: bool,
    narrow: bool,
    rounding: Rounding = Rounding.ROUND,
) -> IntQuant:
    """Return a quantizer with scalar parameters and zero point 0."""
    zero = np.zeros((), dtype=np.float32)
    width = np.asarray(bits, dtype=np.float32)
    return IntQuant(scale.astype(np.float32), zero, width, signed, narrow, rounding)
