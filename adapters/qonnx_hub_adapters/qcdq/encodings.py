"""How one quantizer is said in standard ONNX, and when that is exact.

QuantizeLinear rounds ``x / s`` half to even, adds the zero point and saturates;
DequantizeLinear computes ``(q - z) * s``. With zero point 0 that is what Quant{ROUND} computes,
bit for bit, because clamping to whole bounds before or after rounding is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx_ir import Node, Value

from qonnx_hub_adapters.protocol import Gap
from qonnx_hub_ir import dialect
from qonnx_hub_ir.emitter import Emitter
from qonnx_hub_ir.quant import (
    Array,
    BipolarQuant,
    IntQuant,
    Quantizer,
    Rounding,
    integer_bounds,
    is_bipolar,
    single_value,
)
from qonnx_hub_ir.semantics import quantize_to_integers

LOWEST_OPSET = 19


@dataclass(frozen=True, slots=True)
class Encoding:
    """One way to say one quantizer.

    Attributes:
        name: How reports call it.
        write: Emits its nodes and returns the value that replaces the quantizer's output.
        opset: Lowest standard opset that has what it uses.
        exact: Whether it computes the same float32 values.
        reason: Why this one, where that is not obvious.
    """

    name: str
    write: Callable[[Emitter], Value]
    opset: int = LOWEST_OPSET
    exact: bool = True
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Scale:
    """A scale as QuantizeLinear takes it: a scalar, or one value per index of an axis."""

    values: Array
    axis: int | None

    @property
    def attributes(self) -> dict[str, int]:
        return {} if self.axis is None else {"axis": self.axis}


def choose(node: Node) -> Encoding | Gap:
    """Return how to say the quantizer, or why it cannot be said.

    Args:
        node: A canonical quantizer node.
    """
    quant = dialect.read_quantizer(node)
    if not isinstance(quant, (IntQuant, BipolarQuant)):
        return _gap(node, "has no QuantizeLinear form")
    reason = _reason_against(quant)
    if reason:
        return _gap(node, reason)
    scale = _linear_scale(node, quant)
    if isinstance(scale, str):
        return _gap(node, scale)
    weight = dialect.constant_value(node.inputs[0])
    if weight is not None:
        if not np.all(np.isfinite(weight)):
            return _gap(node, "the weight holds values that are not finite")
        return _weight_encoding(quant, scale, weight)
    if is_bipolar(quant):
        return Encoding("Where", _write_bipolar(node, quant))
    return _plain_encoding(node, quant, scale)


def _gap(node: Node, reason: str) -> Gap:
    return Gap(node.name or "", node.op_type, reason)


def _reason_against(quant: IntQuant | BipolarQuant) -> str:
    """Return what keeps the quantizer from the plain form, or an empty string."""
    if any(value is None for value in dialect.parameters(quant)):
        return "has parameters that are computed at run time"
    if isinstance(quant, BipolarQuant):
        return ""
    if single_value(quant.zero_point) != 0:
        return "has a zero point other than 0"
    bits = single_value(quant.bits)
    if bits is None:
        return "has a bit width per channel"
    if is_bipolar(quant):
        return ""
    if bits > 8:
        return f"has {bits:g} bits; QuantizeLinear with Clip holds up to 8"
    if quant.rounding is not Rounding.ROUND:
        return f"rounds by {quant.rounding}; QuantizeLinear rounds half to even"
    return ""


def _linear_scale(node: Node, quant: IntQuant | BipolarQuant) -> _Scale | str:
    scale = np.asarray(quant.scale)
    if scale.dtype != np.float32:
        return f"has a scale of type {scale.dtype.name}, not float32"
    if scale.size == 1:
        return _Scale(scale.reshape(()), None)
    wide = [axis for axis, size in enumerate(scale.shape) if size != 1]
    if len(wide) > 1:
        return f"has a scale of shape {scale.shape}, which varies along several axes"
    x = node.inputs[0]
    if x is None or x.shape is None:
        return "has a per-channel scale on a value of unknown rank"
    axis = len(x.shape) - scale.ndim + wide[0]
    return _Scale(scale.reshape(-1), axis)


def _integer_type(signed: bool) -> type[Any]:
    return np.int8 if signed else np.uint8


def _zero_point(scale: _Scale, dtype: type[Any]) -> Array:
    return np.zeros(scale.values.shape, dtype=dtype)


def _weight_encoding(
    quant: IntQuant | BipolarQuant, scale: _Scale, weight: Array
) -> Encoding:
    signed = not isinstance(quant, IntQuant) or quant.signed

    def write(emit: Emitter) -> Value:
        dtype = _integer_type(signed)
        codes = emit.constant("integers", quantize_to_integers(weight, quant).astype(dtype))
        return emit.add(
            "DequantizeLinear",
            [
                codes,
                emit.constant("scale", scale.values),
                emit.constant("zero_point", _zero_point(scale, dtype)),
            ],
            **scale.attributes,
        )

    return Encoding("integers + DQ", write)


def _plain_encoding(node: Node, quant: IntQuant, scale: _Scale) -> Encoding:
    bits = single_value(quant.bits)
    dtype = _integer_type(quant.signed)
    low, high = integer_bounds(int(bits or 0), signed=quant.signed, narrow=quant.narrow)
    limits = np.iinfo(dtype)
    full = (low, high) == (limits.min, limits.max)

    def write(emit: Emitter) -> Value:
        parameters = [
            emit.constant("scale", scale.values),
            emit.constant("zero_point", _zero_point(scale, dtype)),
        ]
        codes = emit.add("QuantizeLinear", [node.inputs[0], *parameters], **scale.attributes)
        if not full:
            bounds = [
                emit.constant("low", np.array(low, dtype=dtype)),
                emit.constant("high", np.array(high, dtype=dtype)),
            ]
            codes = emit.add("Clip", [codes, *bounds])
        return emit.add("DequantizeLinear", [codes, *parameters], **scale.attributes)

    return Encoding("Q + DQ" if full else "Q + Clip + DQ", write)


def _write_bipolar(node: Node, quant: Quantizer) -> Callable[[Emitter], Value]:
    """Sign is no substitute for Where: it maps 0 to 0."""
    scale = np.asarray(dialect.parameters(quant)[0], dtype=np.float32)

    def write(emit: Emitter) -> Value:
        x = node.inputs[0]
        if isinstance(quant, IntQuant):
            # The operator tests x / scale, which a large scale can underflow to zero.
            x = emit.add("Div", [x, emit.constant("scale", scale)])
        positive = emit.add(
            "GreaterOrEqual", [x, emit.constant("nil", np.array(0.0, dtype=np.float32))]
        )
        levels = [emit.constant("high", scale), emit.constant("low", -scale)]
        return emit.add("Where", [positive, *levels])

    return write
