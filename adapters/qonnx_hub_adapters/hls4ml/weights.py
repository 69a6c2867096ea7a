"""Constants of the source: what they are worth, and the integers behind weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from onnx_ir import Value

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.constants import full_rank
from qonnx_hub_ir.graph.queries import producer
from qonnx_hub_ir.quantizers import (
    Array,
    BipolarQuant,
    IntQuant,
    Quantizer,
    Rounding,
    is_bipolar,
    is_power_of_two,
    is_whole,
    single_value,
)
from qonnx_hub_ir.semantics import quantize, quantize_to_integers


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
    given = dialect.constant_value(value)
    if given is not None:
        return given
    node = producer(value)
    if node is None or not dialect.is_quantizer(node):
        return None
    stored = dialect.constant_value(node.inputs[0])
    quant = dialect.read_quantizer(node)
    if stored is None or any(p is None for p in dialect.parameters(quant)):
        return None
    return quantize(stored.astype(np.float32), quant)


def weights_of(value: Value | None, output_axis: int, *, bits: bool) -> Weights | None:
    """Return the weights that a value holds; ``None`` if it is not constant.

    Args:
        value: Operand of a product.
        output_axis: The axis along which scales may differ.
        bits: Whether -1 and +1 may be written as bits.
    """
    values = constant_of(value)
    if values is None:
        return None
    node = producer(value)
    plain = Weights(values.astype(np.float32), None, np.ones((), dtype=np.float64))
    if node is None:
        return plain
    quant = dialect.read_quantizer(node)
    plain = replace(plain, name=node.name or "", source=quant)
    if not isinstance(quant, (IntQuant, BipolarQuant)):
        return plain
    scale = _scale_per_output(quant.scale, values.ndim, output_axis)
    stored = dialect.constant_value(node.inputs[0])
    if scale is None or stored is None:
        return plain
    if is_bipolar(quant):
        if isinstance(quant, IntQuant) and single_value(quant.zero_point) != 0:
            return plain
        signs = quantize_to_integers(stored.astype(np.float32), quant).astype(np.float32)
        unit = BipolarQuant(np.ones((), dtype=np.float32))
        written = unit if bits else integer_quantizer(2, narrow=True)
        return replace(plain, stored=signs, quant=written, scale=scale)
    assert isinstance(quant, IntQuant)
    return _integers(quant, stored, scale, plain)


def _integers(quant: IntQuant, stored: Array, scale: Array, plain: Weights) -> Weights:
    width, zero = single_value(quant.bits), quant.zero_point
    if width is None or width != int(width) or not is_whole(zero):
        return plain
    codes = quantize_to_integers(stored.astype(np.float32), quant)
    # What is narrow and unsigned, hls4ml does not know; the codes are in range anyway.
    narrow = quant.narrow and quant.signed
    written = integer_quantizer(int(width), signed=quant.signed, narrow=narrow)
    if np.any(zero):
        codes = codes - np.asarray(zero, dtype=np.int64)
        written = integer_quantizer(int(np.abs(codes).max(initial=1)).bit_length() + 1)
    values = codes.astype(np.float32)
    if scale.size > 1 or not is_power_of_two(scale):
        return replace(plain, stored=values, quant=written, scale=scale)
    step = scale.astype(np.float32)
    return replace(plain, stored=values * step, quant=replace(written, scale=step))


def _scale_per_output(scale: Array | None, rank: int, axis: int) -> Array | None:
    if scale is None:
        return None
    single = single_value(scale)
    if single is not None:
        return np.asarray(single, dtype=np.float64)
    if full_rank(scale, rank).shape[axis % rank] != scale.size:
        return None
    return scale.reshape(-1).astype(np.float64)


def integer_quantizer(
    bits: int,
    *,
    scale: float = 1.0,
    signed: bool = True,
    narrow: bool = False,
    rounding: Rounding = Rounding.ROUND,
) -> IntQuant:
    """Return a quantizer with scalar parameters and zero point 0."""
    step, zero, width = (np.asarray(p, dtype=np.float32) for p in (scale, 0, bits))
    return IntQuant(step, zero, width, signed, narrow, rounding)
