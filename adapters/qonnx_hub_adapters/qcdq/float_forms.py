"""Quantizers that are written in float operators: steps, and whole forms.

Everything here is recognized by its structure and its constants, both exactly; what looks
different is left as it is.
"""

from __future__ import annotations

import numpy as np
import onnx_ir
from onnx_ir import Node, Value

from qonnx_hub_adapters.qcdq.parameters import same_values
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.queries import dims, fits_into, is_standard
from qonnx_hub_ir.lowering.quantizer_steps import PLAIN_ROUNDINGS
from qonnx_hub_ir.quantizers import (
    Array,
    BipolarQuant,
    IntQuant,
    Rounding,
    bits_of_bounds,
    is_whole,
)

_ONE, _ZERO = np.array(1, dtype=np.float32), np.array(0, dtype=np.float32)

_MODE_OF = {op_type: mode for mode, op_type in PLAIN_ROUNDINGS.items()}


def _producer(value: Value | None, *op_types: str) -> Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and is_standard(node, *op_types) else None


def _fits(values: Array, value: Value | None) -> bool:
    """Return whether a constant leaves the shape of a value that it is combined with."""
    return fits_into(values.shape, dims(value))


def _float_constant(value: Value | None, other: Value | None) -> Array | None:
    """Return a float32 constant that leaves the shape of the other operand."""
    known = dialect.constant_value(value)
    fits = known is not None and known.dtype == np.float32 and _fits(known, other)
    return known if fits else None


def _with_constant(node: Node) -> tuple[Value, Array] | None:
    """Return (value, constant) of a commutative operator."""
    if len(node.inputs) != 2:
        return None
    for value, other in (tuple(node.inputs), tuple(reversed(node.inputs))):
        known = _float_constant(other, value)
        if value is not None and known is not None and dialect.constant_value(value) is None:
            return value, known
    return None


def peeled_constant(value: Value, op_type: str) -> tuple[Value, Array]:
    """Return what an operator takes and its constant, or the value itself and a neutral one.

    Args:
        value: Perhaps the output of ``op_type``.
        op_type: Add, Sub, Mul or Div; of Sub and Div the constant is the second operand.
    """
    arithmetic = operators.find("", op_type).arithmetic
    assert arithmetic is not None
    node, neutral = _producer(value, op_type), np.array(arithmetic.neutral, dtype=np.float32)
    nothing = value, neutral
    if node is None:
        return nothing
    if operators.is_commutative(node):
        return _with_constant(node) or nothing
    x, known = node.inputs[0], _float_constant(node.inputs[1], node.inputs[0])
    return nothing if x is None or known is None else (x, known)


def clamp_of(value: Value) -> tuple[Array, Array, Value] | None:
    """Return (low, high, x) of a float Clip, Max or Min with constant bounds.

    A bound that is not given is infinite. Bounds that cross are no clamp.
    """
    node = _producer(value, "Clip", "Max", "Min")
    if node is None:
        return None
    low, high = np.array(-np.inf, dtype=np.float32), np.array(np.inf, dtype=np.float32)
    if node.op_type != "Clip":
        found = _with_constant(node)
        if found is None:
            return None
        x, bound = found
        return (bound, high, x) if node.op_type == "Max" else (low, bound, x)
    ends, clipped = [low, high], node.inputs[0]
    for index, end in enumerate(node.inputs[1:3]):
        known = ends[index] if end is None else dialect.constant_value(end)
        if known is None or known.dtype != np.float32 or known.size != 1:
            return None
        ends[index] = known.reshape(())
    # Also refuses bounds that are NaN.
    return None if clipped is None or not ends[0] <= ends[1] else (ends[0], ends[1], clipped)


def rounding_of(value: Value) -> tuple[Rounding, Value] | None:
    """Return (mode, t) where a value is ``t`` rounded by one of the modes."""
    node = _producer(value, "Round", "Ceil", "Floor", "Mul", "Where")
    if node is None:
        return None
    if node.op_type in _MODE_OF:
        t = node.inputs[0]
        return None if t is None else (_MODE_OF[node.op_type], t)
    return _rounding_by_sign(node) if node.op_type == "Mul" else _rounding_dpu(node)


def _rounding_by_sign(node: Node) -> tuple[Rounding, Value] | None:
    """Match ``Sign(t) * Floor(Abs(t))`` and its relatives."""
    for left, right in (tuple(node.inputs), tuple(reversed(node.inputs))):
        sign, size = _producer(left, "Sign"), _producer(right, "Floor", "Ceil")
        if sign is None or size is None:
            continue
        t, up = sign.inputs[0], size.op_type == "Ceil"
        inner = size.inputs[0]
        if t is None or inner is None:
            continue
        if _is_abs_of(inner, t):
            return Rounding.UP if up else Rounding.DOWN, t
        shifted, half = peeled_constant(inner, "Sub" if up else "Add")
        if np.all(half == 0.5) and _is_abs_of(shifted, t):
            return Rounding.HALF_DOWN if up else Rounding.HALF_UP, t
    return None


def _is_abs_of(value: Value, t: Value) -> bool:
    node = _producer(value, "Abs")
    return node is not None and node.inputs[0] is t


def _rounding_dpu(node: Node) -> tuple[Rounding, Value] | None:
    """Match ``Where(t < 0 and t - Floor(t) == 0.5, Ceil(t), Round(t))``."""
    tie = _producer(node.inputs[0], "And")
    up, nearest = _producer(node.inputs[1], "Ceil"), _producer(node.inputs[2], "Round")
    if tie is None or up is None or nearest is None:
        return None
    t = up.inputs[0]
    below, half = _producer(tie.inputs[0], "Less"), _producer(tie.inputs[1], "Equal")
    if t is None or nearest.inputs[0] is not t or below is None or half is None:
        return None
    fraction = _producer(half.inputs[0], "Sub")
    floor = None if fraction is None else _producer(fraction.inputs[1], "Floor")
    if fraction is None or floor is None:
        return None
    if any(v is not t for v in (below.inputs[0], fraction.inputs[0], floor.inputs[0])):
        return None
    zero, number = (dialect.constant_value(n.inputs[1]) for n in (below, half))
    if zero is None or number is None or zero.size != 1 or number.size != 1:
        return None
    return (Rounding.DPU, t) if np.all(zero == 0) and np.all(number == 0.5) else None


def sign_of(node: Node) -> tuple[Value, Array] | None:
    """Return (x, level) of a Where that is ``level`` for ``x >= 0`` and ``-level`` below.

    ``Less(x, 0)`` counts as the same question the other way round: it differs for NaN only.
    """
    if not is_standard(node, "Where"):
        return None
    question = _producer(node.inputs[0], "GreaterOrEqual", "LessOrEqual", "Less", "Greater")
    if question is None:
        return None
    mirrored = is_standard(question, "LessOrEqual", "Greater")
    x, nil = question.inputs[::-1] if mirrored else question.inputs
    zero = dialect.constant_value(nil)
    if x is None or x.dtype != onnx_ir.DataType.FLOAT or zero is None:
        return None
    levels = [dialect.constant_value(v) for v in node.inputs[1:3]]
    if is_standard(question, "Less", "Greater"):
        levels.reverse()
    high, low = levels
    if high is None or low is None or np.any(zero != 0) or not _fits(zero, x):
        return None
    opposite = same_values(high, -low) and _fits(high, x) and _fits(low, x)
    return (x, high) if opposite and bool(np.all(high > 0)) else None


def match_bipolar(node: Node) -> tuple[Value, BipolarQuant] | None:
    """Return (x, quantizer) of ``Where(x >= 0, s, -s)``."""
    found = sign_of(node)
    if found is None or found[1].dtype != np.float32 or not np.all(np.isfinite(found[1])):
        return None
    return found[0], BipolarQuant(found[1])


def match_sign(node: Node) -> tuple[Value, IntQuant | BipolarQuant] | None:
    """Return (x, quantizer) of a Sign that a dense layer reads, straight or times a constant.

    Sign has three values: a quantizer of -1, 0 and 1 that rounds away from zero. With another
    one in front and less than 1 added in between there are two, and zero counts as positive.
    """
    x = node.inputs[0] if is_standard(node, "Sign") else None
    if x is None or x.dtype != onnx_ir.DataType.FLOAT or not _feeds_products(node.outputs[0]):
        return None
    before, shift = peeled_constant(x, "Add")
    inner = _producer(before, "Sign")
    if inner is not None and np.all((shift > 0) & (shift < 1)):
        source = inner.inputs[0]
        if source is not None and source.dtype == onnx_ir.DataType.FLOAT:
            return source, BipolarQuant(_ONE)
    bits = np.array(2, dtype=np.float32)
    return x, IntQuant(_ONE, _ZERO, bits, signed=True, narrow=True, rounding=Rounding.UP)


def _feeds_products(value: Value, depth: int = 4) -> bool:
    """Return whether all that reads a value is dense layers, behind factors and movements."""
    readers = [node for node, _ in value.uses()]
    if not readers or value.is_graph_output() or not depth:
        return False
    return all(
        operators.is_product(node)
        or (
            (operators.moves_values(node) or _with_constant(node) is not None)
            and len(node.outputs) == 1
            and _feeds_products(node.outputs[0], depth - 1)
        )
        for node in readers
    )


def _whole_by_type(value: Value) -> bool:
    """Return whether a value was an integer, of more bits than codes have, and then cast."""
    node = _producer(value, "Cast")
    x = None if node is None else node.inputs[0]
    return x is not None and x.dtype in (onnx_ir.DataType.INT32, onnx_ir.DataType.INT64)


def match_integer(node: Node) -> tuple[Value, IntQuant] | None:
    """Return (x, quantizer) of Div(s), Add(z), Clip, rounding, Sub(z), Mul(s).

    Steps that do nothing may be missing (dividing by 1, adding 0); Clip and rounding may come
    in either order; one signed bit has Where instead of both. Where what is in front does not
    fit what is behind, Clip and rounding alone are a quantizer of scale 1.
    """
    codes, scale = peeled_constant(node.outputs[0], "Mul")
    codes, zero = peeled_constant(codes, "Sub")
    bits = _bits_of(codes)
    if bits is None:
        return None
    rounded, (width, signed, narrow), rounding = bits
    t, added = peeled_constant(rounded, "Add")
    x, divisor = peeled_constant(t, "Div")
    if not same_values(scale, divisor) or not same_values(zero, added):
        if codes is not node.outputs[0]:
            return None
        x, scale, zero = rounded, _ONE, _ZERO
    valid = np.all(np.isfinite(scale) & (scale > 0)) and np.all(np.isfinite(zero))
    if not valid or x.dtype != onnx_ir.DataType.FLOAT or not _fits(scale, x):
        return None
    size = np.array(width, dtype=np.float32)
    return x, IntQuant(scale, zero, size, signed, narrow, rounding)


def _bits_of(codes: Value) -> tuple[Value, tuple[int, bool, bool], Rounding] | None:
    """Return (t, (bits, signed, narrow), rounding) where ``codes`` are made of ``t``."""
    where = _producer(codes, "Where")
    sign = None if where is None else sign_of(where)
    if sign is not None:
        x, level = sign
        is_unit = level.dtype == np.float32 and bool(np.all(level == 1))
        return (x, (1, True, False), Rounding.ROUND) if is_unit else None
    first = rounding_of(codes)
    t = codes if first is None else first[1]
    low, high = np.array(-np.inf, dtype=np.float32), np.array(np.inf, dtype=np.float32)
    clamps = 0
    while (clamp := clamp_of(t)) is not None and clamps < 2:
        low, high = np.maximum(clamp[0], low), np.minimum(clamp[1], high)
        t, clamps = clamp[2], clamps + 1
    found = first or rounding_of(t)
    if found is None and clamps and _whole_by_type(t):
        found = Rounding.ROUND, t  # integers stay what they are
    ends = (low, high)
    if found is None or any(end.size != 1 or not is_whole(end) for end in ends):
        return None
    bits = bits_of_bounds(int(low), int(high))
    return None if bits is None else (t if first else found[1], bits, found[0])
