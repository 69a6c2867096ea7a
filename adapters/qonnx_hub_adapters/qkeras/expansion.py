"""Quantizers of activations, written as a Quant and the standard operators around it.

Each function states the formula of QKeras; x is the value that reaches the quantizer, RNE
rounds half to even. Two facts shape them: a numeric ``alpha`` multiplies *after* rounding (x
is never divided by it), and QKeras returns ``x + (q(x) - x)``, whose rounding residue is left
out.

Source: the ``__call__`` of each class in ``qkeras.quantizers``, 0.9.0 and qkeras-v3 1.2.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx_ir import Node, Value

from qonnx_hub_adapters.qkeras import quantizers as qk
from qonnx_hub_adapters.qkeras.weights import (
    integers,
    number_of,
    power_of_two_grid,
    relu_grid,
    tanh_grid,
)
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.quantizers import Array, BipolarQuant, Quantizer

_EPSILON = 1e-7
"""Keras' epsilon: magnitudes below it have the smallest exponent."""


class Writer:
    """Writes operators with float constants in front of one node."""

    def __init__(self, node: Node) -> None:
        self.emit = Emitter(node)

    def op(
        self, op_type: str, *inputs: Value | float | Array | None, **attributes: int
    ) -> Value:
        """Return the output of a new standard node; numbers become float32 constants."""
        values = [
            given
            if given is None or isinstance(given, Value)
            else self.emit.constant("constant", np.asarray(given, dtype=np.float32))
            for given in inputs
        ]
        return self.emit.add(op_type, values, **attributes)

    def quant(self, x: Value, quantizer: Quantizer) -> Value:
        """Return the output of a new quantizer node."""
        return self.emit.quantizer(x, quantizer)

    def times(self, x: Value, factor: Array | float) -> Value:
        """Return ``x * factor``; ``x`` itself where the factor is 1."""
        return x if np.all(np.asarray(factor) == 1) else self.op("Mul", x, factor)


def check_expandable(description: qk.Description) -> None:
    """Raise where a quantizer has no fixed function of one activation value.

    Raises:
        UnreadableQuantizerError: Its scale is computed over the whole batch.
    """
    if qk.depends_on_data(description):
        raise qk.UnreadableQuantizerError(
            "alpha='auto' and alpha='auto_po2' on an activation compute the scale over the "
            "whole batch: one sample changes the answer for another; use a number"
        )


def expand(write: Writer, x: Value, description: qk.Description) -> Value:
    """Return the value of a quantizer applied to ``x``.

    Raises:
        UnreadableQuantizerError: As in :func:`check_expandable`.
    """
    check_expandable(description)
    return _WRITERS[type(description)](write, x, description)


def _fixed_point(write: Writer, x: Value, q: qk.FixedPoint) -> Value:
    """Alpha * clip(RNE(x / step), lowest, highest) * step; one signed bit is the sign."""
    alpha = np.asarray(q.alpha, dtype=np.float32)
    if q.swish is not None:
        shift, bound = q.swish
        gate = write.op("Clip", write.op("Add", x, shift), 0.0, bound)
        x = write.op("Div", write.op("Mul", x, gate), bound)
    unsigned = q.bits - int(q.keep_negative)
    if unsigned == 0:
        return _mixed(write, x, _sign(write, x, alpha), q.noise)
    step = np.exp2(q.integer - np.float32(unsigned)).astype(np.float32)
    narrow = q.symmetric and q.keep_negative
    if q.noise == 0:
        return x
    y = write.quant(x, integers(step, q.bits, signed=q.keep_negative, narrow=narrow))
    return _mixed(write, x, write.times(y, alpha), q.noise)


def _linear(write: Writer, x: Value, q: qk.LinearQuantizer) -> Value:
    """Step * RNE(clip(x / step, lowest, highest)); one signed bit is step/2 * sign.

    The sign is exact beyond 3e-8 steps below zero, where QKeras' subtraction of 1/2 rounds
    the value away.
    """
    if q.bits == 1 and q.keep_negative:
        return _mixed(write, x, _sign(write, x, q.step * np.float32(0.5)), q.noise)
    narrow = q.symmetric and q.keep_negative
    quantizer = integers(q.step, q.bits, signed=q.keep_negative, narrow=narrow)
    return x if q.noise == 0 else _mixed(write, x, write.quant(x, quantizer), q.noise)


def _sign(write: Writer, x: Value, factor: Array) -> Value:
    """Return factor where x >= 0, else -factor."""
    if np.all(factor > 0):
        return write.quant(x, BipolarQuant(factor))
    return write.times(write.quant(x, BipolarQuant(number_of(1.0))), factor)


def _mixed(write: Writer, x: Value, y: Value, noise: float) -> Value:
    """X + noise * (y - x)."""
    if noise == 1:
        return y
    if noise == 0:
        return x
    return write.op("Add", x, write.op("Mul", write.op("Sub", y, x), noise))


def _binary(write: Writer, x: Value, q: qk.Binary) -> Value:
    """Alpha * (x >= 0 ? 1 : low), low = -1, or 0 with use_01."""
    alpha = np.asarray(q.alpha, dtype=np.float32)
    if not q.use_01:
        return _sign(write, x, alpha)
    half = write.quant(x, BipolarQuant(number_of(0.5)))
    return write.times(write.op("Add", half, 0.5), alpha)


def _ternary(write: Writer, x: Value, q: qk.Ternary) -> Value:
    """Alpha * sign(x) * (abs(x) >= threshold)."""
    large = write.op("GreaterOrEqual", write.op("Abs", x), q.threshold)
    level = write.op("Mul", write.op("Cast", large, to=1), write.op("Sign", x))
    y = write.quant(level, integers(number_of(1.0), 2, narrow=True))
    return write.times(y, np.asarray(q.alpha, dtype=np.float32))


def _relu(write: Writer, x: Value, q: qk.Relu) -> Value:
    """clip(RNE(x / step), 0, highest) * step, plus the scaled-down negative part."""
    if q.noise == 0:
        return _sloped(write, x, q.slope, q.unquantized_upper)
    y = _curved_relu(write, x, q) if q.curve is not None else _plain_relu(write, x, q)
    if q.upper is not None:
        y = write.op("Min", y, q.upper)
    plain = x if q.noise == 1 else _sloped(write, x, q.slope, q.unquantized_upper)
    return _mixed(write, plain, y, q.noise)


def _sloped(write: Writer, x: Value, slope: float, upper: Array | float | None) -> Value:
    """Return min(x >= 0 ? x : slope * x, upper)."""
    y = write.emit.add("LeakyRelu", [x], alpha=slope) if slope else write.op("Relu", x)
    return y if upper is None else write.op("Min", y, upper)


def _plain_relu(write: Writer, x: Value, q: qk.Relu) -> Value:
    # The Quant clamps below zero by itself; readers look for the Relu in front.
    grid = relu_grid(q)
    y = write.quant(_sloped(write, x, q.slope, None), grid)
    if q.slope not in (0, 1):
        # The lowest value may lie between two steps: it is a bound, not a code.
        y = write.op("Max", y, -q.slope * np.exp2(q.integer))
    if q.slope >= 2:
        y = write.op("Min", y, (2.0 ** (q.bits - 1) - 1) * np.asarray(grid.scale))
    return y


def _curved_relu(write: Writer, x: Value, q: qk.Relu) -> Value:
    """2^i * clip(2 * RNE(p * m) / m - 1, 0, 1 - 1/m), p = sigmoid(x / 2^i), m = 2^bits."""
    codes = q.bits - int(q.slope != 0)
    whole = np.exp2(q.integer).astype(np.float32)
    p = _curve(write, write.op("Div", x, whole), str(q.curve))
    step = number_of(2.0**-codes)
    grid = write.quant(p, integers(step, codes + 1, signed=False))
    centred = write.op("Sub", write.op("Mul", grid, 2.0), 1.0)
    y = write.op("Mul", write.op("Clip", centred, 0.0, 1 - 2.0**-codes), whole)
    if not q.slope:
        return y
    extra = max(int(math.log2(q.slope)), 0)
    scaled = write.op("Mul", p, q.slope)
    grid = write.quant(scaled, integers(step, codes + 1 + extra, signed=False))
    centred = write.op("Sub", write.op("Mul", grid, 2.0 / q.slope), 1.0)
    below = write.op("Mul", write.op("Clip", centred, -1.0, 0.0), whole * q.slope)
    return write.op("Add", y, below)


def _mu_law(write: Writer, x: Value, q: qk.MuLaw) -> Value:
    """2^i * clip(sign(r) * log(1 + u*abs(r)) / log(1 + u), lowest, highest), r in [-1, 1]."""
    codes = 2.0 ** (q.bits - 1)
    p = _curve(write, write.op("Div", x, 2.0**q.integer), q.curve)
    grid = write.quant(p, integers(number_of(1 / codes), q.bits, signed=False))
    r = write.op("Sub", write.op("Mul", grid, 2.0), 1.0)
    magnitude = write.op("Log", write.op("Add", write.op("Mul", write.op("Abs", r), q.u), 1.0))
    u = np.log(np.asarray(1 + q.u, dtype=np.float32))
    y = write.op("Div", write.op("Mul", write.op("Sign", r), magnitude), u)
    y = write.op("Clip", y, -1.0 + q.symmetric / codes, 1.0 - 1 / codes)
    return write.times(y, 2.0**q.integer)


def _tanh(write: Writer, x: Value, q: qk.Tanh) -> Value:
    """clip(RNE(p * m) / m, -1 + symmetric / m, 1 - 1/m), p = tanh(x), m = 2^(bits - 1)."""
    if q.curve == "tanh":
        p = write.op("Tanh", x)
    else:
        p = write.op("Sub", write.op("Mul", _curve(write, x, q.curve), 2.0), 1.0)
    y = write.quant(p, tanh_grid(q))
    return y if q.bits > 1 else write.op("Clip", y, -1.0 + q.symmetric, 0.0)


def _sigmoid(write: Writer, x: Value, q: qk.Sigmoid) -> Value:
    """clip(RNE(p * m) / m, symmetric / m, 1 - 1/m), p = sigmoid(x), m = 2^bits."""
    step = 2.0**-q.bits
    p = _curve(write, x, q.curve)
    y = write.quant(p, integers(number_of(step), q.bits, signed=False))
    return write.op("Max", y, step) if q.symmetric else y


def _curve(write: Writer, x: Value, curve: str) -> Value:
    """Return QKeras' own sigmoid: clip(x/2 + 1/2), clip(3x/16 + 1/2), or the real one."""
    if curve == "real":
        return write.op("Sigmoid", x)
    slope = 0.5 if curve == "hard" else 0.1875
    return write.op("Clip", write.op("Add", write.op("Mul", x, slope), 0.5), 0.0, 1.0)


def _binary_sigmoid(write: Writer, x: Value, q: qk.BinarySigmoid) -> Value:
    """RNE(clip(x/2 + 1/2, 0, 1)), so that 0 becomes 0; binary_tanh is twice that minus 1."""
    y = write.quant(_curve(write, x, "hard"), integers(number_of(1.0), 1, signed=False))
    return write.op("Sub", write.op("Mul", y, 2.0), 1.0) if q.two_sided else y


def _power_of_two(write: Writer, x: Value, q: qk.PowerOfTwo) -> Value:
    """sign(x) * 2^e(abs(x)); zero becomes +2^lowest, never 0."""
    if not q.relu:
        sign = write.op("Where", write.op("Less", x, 0.0), -1.0, 1.0)
        y = write.op("Mul", sign, _power(write, write.op("Abs", x), q))
    elif q.slope == 0:
        y = _power(write, write.op("Relu", x), q)
    else:
        negative = write.op("Mul", write.op("Relu", write.op("Neg", x)), q.slope)
        below = write.op("Neg", _power(write, negative, q))
        above = _power(write, write.op("Relu", x), q)
        y = write.op("Where", write.op("GreaterOrEqual", x, 0.0), above, below)
    y = write.quant(y, power_of_two_grid(q))
    mixes = q.relu and q.noise != 1
    plain = _sloped(write, x, q.slope, q.max_value) if mixes else x
    return _mixed(write, plain, y, q.noise)


def _power(write: Writer, magnitude: Value, q: qk.PowerOfTwo) -> Value:
    """2^e, e = clip(round(log2(min(max(x, 1e-7), max_value))), lowest, highest)."""
    filtered = write.op("Max", magnitude, _EPSILON)
    if q.max_value is not None:
        filtered = write.op("Min", filtered, q.max_value)
    if q.quadratic:
        filtered = write.op("Sqrt", filtered)
    log2 = write.op("Div", write.op("Log", filtered), math.log(2.0))
    rounded = write.op("Floor" if q.floor else "Round", log2)
    exponent = write.op("Clip", rounded, float(q.lowest), float(q.highest))
    if q.quadratic:
        exponent = write.op("Mul", exponent, 2.0)
    tiny = write.op("Less", magnitude, _EPSILON)
    return write.op("Pow", 2.0, write.op("Where", tiny, float(q.lowest), exponent))


_WRITERS: Mapping[type, Callable[[Writer, Value, Any], Value]] = {
    qk.FixedPoint: _fixed_point,
    qk.LinearQuantizer: _linear,
    qk.Binary: _binary,
    qk.Ternary: _ternary,
    qk.Relu: _relu,
    qk.MuLaw: _mu_law,
    qk.Tanh: _tanh,
    qk.Sigmoid: _sigmoid,
    qk.PowerOfTwo: _power_of_two,
    qk.BinarySigmoid: _binary_sigmoid,
}
