"""Quantizers in words, the same words everywhere."""

from __future__ import annotations

from qonnx_hub_ir.quantizers import (
    BipolarQuant,
    FloatQuant,
    IntQuant,
    Parameter,
    Quantizer,
    Rounding,
    single_value,
)


def describe_number(values: Parameter) -> str:
    """Return a parameter as users read it: a number, or its shape, or 'dynamic'."""
    if values is None:
        return "dynamic"
    single = single_value(values)
    if single is not None and values.size == 1:
        return f"{single:.9g}"
    return "x".join(map(str, values.shape)) + " values"


def describe_quantizer(quant: Quantizer) -> str:
    """Return the quantizer in a few words, such as 'int4 narrow, per-channel'."""
    if isinstance(quant, BipolarQuant):
        return f"bipolar{_granularity(quant.scale)}"
    if isinstance(quant, FloatQuant):
        exponent, mantissa = quant.exponent_bits, quant.mantissa_bits
        return f"float e{describe_number(exponent)}m{describe_number(mantissa)}"
    if isinstance(quant, IntQuant):
        sign = "int" if quant.signed else "uint"
        words = f"{sign}{describe_number(quant.bits)}{' narrow' if quant.narrow else ''}"
        if quant.zero_point is None or single_value(quant.zero_point) != 0:
            words += f", zero point {describe_number(quant.zero_point)}"
            words += " after rounding" * quant.zero_point_after_rounding
        if quant.rounding is not Rounding.ROUND:
            words += f", {quant.rounding}"
        return words + _granularity(quant.scale)
    bits = f"{describe_number(quant.in_bits)} to {describe_number(quant.out_bits)} bits"
    return f"truncation v{quant.version}, {bits}, {quant.rounding}"


def _granularity(scale: Parameter) -> str:
    if scale is None:
        return ", dynamic scale"
    return "" if scale.size == 1 else ", per-channel"
