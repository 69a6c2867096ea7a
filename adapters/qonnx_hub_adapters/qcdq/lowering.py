"""Any quantizer in standard float operators: the encoding that is always there.

Every step is one float operator that rounds as the numpy definition rounds, in the same order,
so the result is the same in every bit but the sign of zeros. Parameters may be computed at run
time, and may have any shape that broadcasts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Value

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.passes.quantizers.spell_rounding import round_dpu
from qonnx_hub_ir.quantizers import (
    Array,
    BipolarQuant,
    FloatQuant,
    IntQuant,
    Quantizer,
    Rounding,
    Trunc,
    integer_bounds,
    single_value,
)
from qonnx_hub_ir.semantics import largest_float

_COMPUTES_IN_FLOAT32 = (onnx_ir.DataType.FLOAT16, onnx_ir.DataType.BFLOAT16)


def refusal(quant: Quantizer) -> str:
    """Return why the quantizer cannot be lowered, or an empty string."""
    if isinstance(quant, (IntQuant, BipolarQuant)):
        return ""
    if all(value is not None for value in dialect.parameters(quant)):
        return ""
    if isinstance(quant, Trunc) and quant.version == 1:
        return ""
    return "has parameters that are computed at run time"


def lower(emit: Emitter, quant: Quantizer) -> Value:
    """Emit the quantizer of the emitter's node in float operators and return its value.

    Raises:
        ValueError: :func:`refusal` has a reason.
    """
    x = emit.node.inputs[0]
    if x is None or refusal(quant):
        raise ValueError(f"'{emit.node.name}' cannot be lowered: {refusal(quant)}")
    if x.dtype not in _COMPUTES_IN_FLOAT32:
        wide = x.dtype == onnx_ir.DataType.DOUBLE
        return Lowering(emit, np.dtype(np.float64 if wide else np.float32)).run(x, quant)
    single = emit.add("Cast", [x], to=int(onnx_ir.DataType.FLOAT))
    y = Lowering(emit, np.dtype(np.float32)).run(single, quant)
    return emit.add("Cast", [y], to=int(x.dtype))


@dataclass(frozen=True)
class Lowering:
    """Emits one quantizer, with all constants in one float type."""

    emit: Emitter
    dtype: np.dtype[Any]

    def run(self, x: Value, quant: Quantizer) -> Value:
        """Return the quantizer of the node, applied to ``x``."""
        if isinstance(quant, BipolarQuant):
            return self.bipolar(x, self.parameter(1, "scale"))
        if isinstance(quant, IntQuant):
            return self.integer(x, quant)
        if isinstance(quant, Trunc):
            return self.truncation(x, quant)
        return self.minifloat(x, quant)

    def number(self, label: str, values: Any) -> Value:
        """Return a constant in the computing type, a scalar where there is one value."""
        array: Array = np.asarray(values, dtype=self.dtype)
        return self.emit.constant(label, array.reshape(()) if array.size == 1 else array)

    def parameter(self, index: int, label: str) -> Value:
        """Return a parameter of the node in the computing type."""
        value = self.emit.node.inputs[index]
        known = dialect.constant_value(value)
        if known is not None:
            return self.number(label, known.astype(self.dtype))
        return self.emit.add("Cast", [value], to=_onnx_type(self.dtype))

    def is_constant(self, index: int, number: float) -> bool:
        """Return whether an input is known and holds that number everywhere."""
        known = dialect.constant_value(self.emit.node.inputs[index])
        return known is not None and bool(np.all(known == number))

    def bipolar(self, x: Value, scale: Value) -> Value:
        """Return plus or minus the scale by the sign of ``x``; zero counts as plus."""
        positive = self.emit.add("GreaterOrEqual", [x, self.number("nil", 0)])
        return self.emit.add("Where", [positive, scale, self.emit.add("Neg", [scale])])

    def scaled(self, x: Value) -> Value:
        """Return ``x / scale + zero_point``, without steps that do nothing."""
        t = x
        if not self.is_constant(1, 1):
            t = self.emit.add("Div", [t, self.parameter(1, "scale")])
        if not self.is_constant(2, 0):
            t = self.emit.add("Add", [t, self.parameter(2, "zero_point")])
        return t

    def integer(self, x: Value, quant: IntQuant) -> Value:
        """Return an integer quantizer of ``x``."""
        t = self.scaled(x)
        bits = single_value(quant.bits)
        if quant.signed and bits == 1:
            return self.unscaled(self.sign(t))
        codes = self.rounded(self.clamped(t, quant), quant.rounding)
        if quant.signed and quant.bits is None:
            one_bit = self.emit.add(
                "Equal", [self.parameter(3, "bits"), self.number("one", 1)]
            )
            codes = self.emit.add("Where", [one_bit, self.sign(t), codes])
        return self.unscaled(codes)

    def sign(self, t: Value) -> Value:
        """Return plus or minus one by the sign of ``t``; zero counts as plus."""
        positive = self.emit.add("GreaterOrEqual", [t, self.number("nil", 0)])
        return self.emit.add(
            "Where", [positive, self.number("up", 1), self.number("down", -1)]
        )

    def unscaled(self, codes: Value) -> Value:
        """Return ``(codes - zero_point) * scale``, without steps that do nothing."""
        if not self.is_constant(2, 0):
            codes = self.emit.add("Sub", [codes, self.parameter(2, "zero_point")])
        if not self.is_constant(1, 1):
            codes = self.emit.add("Mul", [codes, self.parameter(1, "scale")])
        return codes

    def clamped(self, t: Value, quant: IntQuant) -> Value:
        """Return ``t`` within the quantizer's range, whose bits may be dynamic."""
        if quant.bits is not None:
            return self.clamp_to_bits(t, quant.bits, quant.signed, quant.narrow)
        bits = self.parameter(3, "bits")
        if quant.signed:
            bits = self.emit.add("Sub", [bits, self.number("sign_bit", 1)])
        span = self.emit.add("Pow", [self.number("two", 2), bits])
        left_out = 1 if quant.signed else 1 + int(quant.narrow)
        high = self.emit.add("Sub", [span, self.number("left_out", left_out)])
        low = self.number("low", 0)
        if quant.signed:
            low = self.emit.add("Sub", [self.number("narrow", int(quant.narrow)), span])
        return self.emit.add("Min", [self.emit.add("Max", [t, low]), high])

    def clamp_to_bits(self, t: Value, bits: Array, signed: bool, narrow: bool) -> Value:
        """Return ``t`` within the range of known bit widths."""
        pairs = [integer_bounds(float(b), signed=signed, narrow=narrow) for b in bits.flat]
        lows = np.array([low for low, _ in pairs], dtype=np.float64).reshape(bits.shape)
        highs = np.array([high for _, high in pairs], dtype=np.float64).reshape(bits.shape)
        low, high = self.number("low", lows), self.number("high", highs)
        if bits.size == 1:
            return self.emit.add("Clip", [t, low, high])
        return self.emit.add("Min", [self.emit.add("Max", [t, low]), high])

    def rounded(self, t: Value, mode: Rounding) -> Value:
        """Return ``t`` rounded by the mode."""
        plain = {Rounding.ROUND: "Round", Rounding.CEIL: "Ceil", Rounding.FLOOR: "Floor"}
        if mode in plain:
            return self.emit.add(plain[mode], [t])
        if mode is Rounding.DPU:
            return round_dpu(self.emit, t)
        size = self.emit.add("Abs", [t])
        if mode is Rounding.HALF_UP:
            size = self.emit.add(
                "Floor", [self.emit.add("Add", [size, self.number("half", 0.5)])]
            )
        elif mode is Rounding.HALF_DOWN:
            size = self.emit.add(
                "Ceil", [self.emit.add("Sub", [size, self.number("half", 0.5)])]
            )
        else:
            size = self.emit.add("Floor" if mode is Rounding.DOWN else "Ceil", [size])
        return self.emit.add("Mul", [size, self.emit.add("Sign", [t])])

    def truncation(self, x: Value, quant: Trunc) -> Value:
        """Return a truncation of ``x``."""
        t = self.emit.add("Round", [self.scaled(x)])
        if quant.version == 1:
            shift = self.shift_of_version_1(quant)
            codes = self.rounded(self.emit.add("Div", [t, shift]), quant.rounding)
            return self.unscaled(codes)
        scale, out_scale, zero, bits = _known(
            quant.scale, quant.out_scale, quant.zero_point, quant.out_bits
        )
        own = out_scale.astype(self.dtype)
        factor = np.exp2(np.rint(np.log2(own / scale.astype(self.dtype)))).astype(self.dtype)
        t = self.emit.add("Div", [t, self.number("shift", factor)])
        t = self.clamp_to_bits(t, bits, quant.signed, quant.narrow)
        codes = self.rounded(t, quant.rounding)
        if np.any(zero):
            out_zero = zero.astype(self.dtype) / factor
            codes = self.emit.add("Sub", [codes, self.number("out_zero_point", out_zero)])
        return self.emit.add("Mul", [codes, self.number("out_scale", own)])

    def shift_of_version_1(self, quant: Trunc) -> Value:
        """Return two to the number of bits that version 1 drops."""
        if quant.in_bits is not None and quant.out_bits is not None:
            dropped = quant.in_bits.astype(np.float64) - quant.out_bits.astype(np.float64)
            return self.number("shift", np.exp2(dropped))
        bits = [self.parameter(3, "in_bits"), self.parameter(4, "out_bits")]
        return self.emit.add("Pow", [self.number("two", 2), self.emit.add("Sub", bits)])

    def minifloat(self, x: Value, quant: FloatQuant) -> Value:
        """Return a minifloat quantizer of ``x``."""
        scale, exponent_bits, mantissa, bias, max_val = (
            value.astype(np.float64)
            for value in _known(
                quant.scale,
                quant.exponent_bits,
                quant.mantissa_bits,
                quant.exponent_bias,
                quant.max_val,
            )
        )
        limit = np.minimum(largest_float(exponent_bits, mantissa, bias), max_val)
        limit = np.asarray(limit, dtype=self.dtype)
        high, low = self.number("limit", limit), self.number("negative_limit", -limit)
        t = self.emit.add("Div", [x, self.number("scale", scale)])
        with np.errstate(over="ignore"):
            reach = limit * self.dtype.type(2)
        # What lies beyond twice the limit ends as what lies there; infinities would give NaN.
        fits = bool(np.all(np.isfinite(reach)))
        largest = np.finfo(self.dtype).max
        near = self.clamp_within(t, np.where(np.isfinite(reach), reach, largest))
        grid = self.grid(near, mantissa, bias)
        q = self.emit.add(
            "Mul", [grid, self.rounded(self.emit.add("Div", [near, grid]), quant.rounding)]
        )
        if not fits:
            q = self.emit.add("Where", [self.emit.add("IsInf", [t]), t, q])
        result = self.emit.add("Min", [self.emit.add("Max", [q, low]), high])
        if not quant.saturation:
            result = self.overflowed(q, result, high, low, quant)
        return self.emit.add("Mul", [result, self.number("scale", scale)])

    def clamp_within(self, t: Value, reach: Array) -> Value:
        """Return ``t`` within plus and minus ``reach``."""
        low, high = self.number("reach_low", -reach), self.number("reach_high", reach)
        return self.emit.add("Min", [self.emit.add("Max", [t, low]), high])

    def grid(self, t: Value, mantissa: Array, bias: Array) -> Value:
        """Return the step of the format at each value: two to a whole power, exactly."""
        tiny = self.number("tiny", np.finfo(self.dtype).tiny)
        size = self.emit.add("Add", [self.emit.add("Abs", [t]), tiny])
        log = self.emit.add(
            "Div", [self.emit.add("Log", [size]), self.number("ln2", np.log(2.0))]
        )
        exponent = self.emit.add("Floor", [log])
        one, two = self.number("one", 1), self.number("two", 2)
        # The logarithm may be off by one unit either way; powers of two tell for certain.
        above = self.emit.add("Less", [size, self.emit.add("Pow", [two, exponent])])
        exponent = self.emit.add(
            "Where", [above, self.emit.add("Sub", [exponent, one]), exponent]
        )
        next_up = self.emit.add("Add", [exponent, one])
        below = self.emit.add("GreaterOrEqual", [size, self.emit.add("Pow", [two, next_up])])
        exponent = self.emit.add("Where", [below, next_up, exponent])
        step = self.emit.add("Sub", [exponent, self.number("mantissa", mantissa)])
        lowest = self.number("lowest_step", 1.0 - bias - mantissa)
        return self.emit.add("Pow", [two, self.emit.add("Max", [step, lowest])])

    def overflowed(
        self, q: Value, clipped: Value, high: Value, low: Value, quant: FloatQuant
    ) -> Value:
        """Return the result with what lies beyond the limits replaced."""
        over = self.emit.add("Greater", [q, high])
        under = self.emit.add("Less", [q, low])
        beyond = np.inf if quant.has_inf else np.nan
        result = self.emit.add("Where", [over, self.number("over", beyond), clipped])
        return self.emit.add("Where", [under, self.number("under", -beyond), result])


def _known(*values: Array | None) -> tuple[Array, ...]:
    known = tuple(value for value in values if value is not None)
    if len(known) != len(values):
        raise ValueError("a parameter is computed at run time")
    return known


def _onnx_type(dtype: np.dtype[Any]) -> int:
    return int(onnx_ir.DataType.from_numpy(dtype))
