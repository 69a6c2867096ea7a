"""The quantizer that a chain of QuantizeLinear ... DequantizeLinear is.

QuantizeLinear rounds ``x / s`` before it adds the zero point ``z``, and ``Quant`` can say so.
A chain with codes from ``lo`` to ``hi`` is read as the first of these that there is

    Quant(x, s, z), z after rounding    where lo to hi is the range of some bit width: bits,
                                        signedness and zero point are the file's own
    Quant(x, s, 0)                      where lo - z to hi - z is
    Clip(Quant(x, s, z), (lo - z) * s, (hi - z) * s)
                                        where the integer type has a wider range
    Clip(Quant(x, s, 0, wider), (lo - z) * s, (hi - z) * s)

which are the same for every number: rounding never falls as ``x`` grows, so clamping before
the zero point is added or after is one; the bounds are rounded as DequantizeLinear rounds. (A
NaN has no integer; a ``Quant`` without zero point keeps it.) Constants have a zero point that
is added first wherever ``Quant`` gives them back as they are, which is tried, not assumed: on
the grid the order makes no difference, and every form can say it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx_ir import Node, Value

from qonnx_hub_adapters.qcdq.chains import Chain, moved
from qonnx_hub_adapters.qcdq.float_forms import clamp_of, peeled_constant, rounding_of, sign_of
from qonnx_hub_adapters.qcdq.parameters import (
    INTEGER_RANGES,
    LinearParameters,
    NoMatchError,
    constant_of,
    read_linear,
    same_values,
)
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.queries import attribute
from qonnx_hub_ir.quantizers import (
    Array,
    BipolarQuant,
    IntQuant,
    Quantizer,
    Rounding,
    bits_of_bounds,
    bits_of_range,
    single_value,
)
from qonnx_hub_ir.semantics import quantize, quantize_to_integers

_WIDEST = 32

_QUANTIZED_TYPES = frozenset(
    f"{sign}INT{width}" for sign in ("", "U") for width in (2, 4, 8, 16)
)
"""Names of the integer types that QuantizeLinear makes."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """A quantizer, and what it is applied to.

    Attributes:
        x: What is quantized: a value of the graph, or new constant values.
        quant: The quantizer.
        bounds: Lowest and highest result, where the quantizer's own range is wider.
        dynamic: Input position -> value, for parameters computed at run time.
    """

    x: Value | Array
    quant: Quantizer
    bounds: tuple[Array, Array] | None = None
    dynamic: Mapping[int, Value] = field(default_factory=dict)


def decode(chain: Chain, limits: tuple[int, int] | None = None) -> Decoding:
    """Return the quantizer that a chain is.

    Args:
        chain: The chain.
        limits: Lowest and highest code of an initializer, where more is known than its type.

    Raises:
        NoMatchError: It is not exactly one quantizer of the IR.
    """
    target = read_linear(chain.target)
    node = chain.source
    if node is None:
        return _decode_stored(chain, target, limits)
    if node.op_type == "Where":
        return _decode_signs(chain, node, target)
    source = read_linear(node)
    if source.scale is None or target.scale is None:
        same = source.scale is target.scale and node.inputs[1] is chain.target.inputs[1]
    else:
        same = same_values(moved(source.scale, chain.moves), target.scale)
    if same and same_values(moved(source.zero, chain.moves), target.zero):
        return _decode_minifloat(node, source) or _decode_pair(chain, node, source)
    if source.is_scalar() and source.scale is not None and source.scale == 1:
        return _decode_hybrid(chain, node, source, target)
    raise NoMatchError(f"QuantizeLinear '{node.name}' has another scale or zero point")


def _decode_pair(chain: Chain, node: Node, linear: LinearParameters) -> Decoding:
    """Decode a QuantizeLinear and a DequantizeLinear with the same parameters."""
    x = _input_of(node)
    low, high = chain.low - linear.zero, chain.high - linear.zero
    plain = _own(linear, chain.low, chain.high) or _plain(linear.scale, low, high)
    if linear.scale is None:
        if plain is None:
            raise NoMatchError("it has a dynamic scale and a range that no bit width has")
        scale = node.inputs[1]
        return Decoding(x, plain, dynamic={} if scale is None else {1: scale})
    weight = dialect.constant_value(x)
    if weight is not None and (plain is None or plain.zero_point_after_rounding):
        return _decode_weight(chain, linear, weight, x)
    tight = None if weight is not None else _absorb_clip(x, linear, low, high)
    if tight is not None:
        return tight
    return Decoding(x, plain) if plain is not None else _bounded(x, linear, low, high)


def _own(linear: LinearParameters, low: Any, high: Any) -> IntQuant | None:
    """Return the quantizer with exactly these codes and its zero point after rounding."""
    ends = (single_value(np.asarray(low)), single_value(np.asarray(high)))
    if not np.any(linear.zero) or ends[0] is None or ends[1] is None:
        return None
    found = bits_of_bounds(int(ends[0]), int(ends[1]))
    if found is None:
        return None
    quant = _int_quant(linear.scale, linear.zero, *found)
    return dataclasses.replace(quant, zero_point_after_rounding=True)


def _input_of(node: Node) -> Value:
    x = node.inputs[0]
    if x is None:
        raise NoMatchError(f"{node.op_type} '{node.name}' has no input")
    return x


def _number(value: Any) -> Array:
    return np.array(value, dtype=np.float32)


def _plain(scale: Array | None, low: Array, high: Array) -> IntQuant | None:
    """Return the quantizer with zero point 0 and exactly this range, if there is one."""
    if np.any(low != low.reshape(-1)[0]) or np.any(high != high.reshape(-1)[0]):
        return None
    found = bits_of_bounds(int(low.reshape(-1)[0]), int(high.reshape(-1)[0]))
    return None if found is None else _int_quant(scale, 0, *found)


def _int_quant(
    scale: Array | None, zero: Any, bits: int, signed: bool = True, narrow: bool = False
) -> IntQuant:
    return IntQuant(scale, _number(zero), _number(bits), signed, narrow)


def _bounded(x: Value, linear: LinearParameters, low: Array, high: Array) -> Decoding:
    """Return a wider quantizer and the bounds of its results."""
    scale = _number(linear.scale)
    quant = _own(linear, *INTEGER_RANGES[linear.type_name])
    if quant is None or linear.type_name not in _QUANTIZED_TYPES:
        ends = int(low.min()), int(high.max())
        quant = _int_quant(scale, 0, *bits_of_range(*ends, least_signed=2))
    return Decoding(x, quant, (_steps(low, scale), _steps(high, scale)))


def _steps(codes: Array, scale: Array) -> Array:
    """Return ``codes * scale`` as DequantizeLinear computes it."""
    with np.errstate(over="ignore"):
        return np.asarray(codes.astype(np.float32) * scale, dtype=np.float32)


def _absorb_clip(
    x: Value, linear: LinearParameters, low: Array, high: Array
) -> Decoding | None:
    """Read a float Clip in front of QuantizeLinear as the quantizer's range, where it is one.

    Quantizing never falls as values grow, so clipping values to ``a`` and ``b`` is clamping
    codes to those of ``a`` and ``b``. A Clip that gives no range of whole bits stays a node,
    and so does one that takes the negative half away: that is an activation function.
    """
    start, stop = _number(-np.inf), _number(np.inf)
    inner, clamps = x, 0
    while (found := clamp_of(inner)) is not None:
        first, last, inner = found
        # Clamps are met from the last to the first: what is met later happens before.
        start, stop = np.clip(first, start, stop), np.clip(last, start, stop)
        clamps += 1
    if not clamps or np.any(np.isnan(start)) or np.any(np.isnan(stop)):
        return None
    scale = _number(linear.scale)
    wide = _int_quant(scale, 0, _WIDEST)
    ends = (np.broadcast_arrays(end, scale)[0] for end in (start, stop))
    codes = (quantize_to_integers(end, wide) for end in ends)
    tight_low, tight_high = (np.clip(code, low, high) for code in codes)
    codes_low, codes_high = tight_low + linear.zero, tight_high + linear.zero
    plain = _own(linear, codes_low, codes_high)
    if plain is None and _own(linear, low + linear.zero, high + linear.zero) is None:
        plain = _plain(scale, tight_low, tight_high)
    if plain is None or (np.array_equal(tight_low, low) and np.array_equal(tight_high, high)):
        return None
    if np.all(tight_low == 0) and np.any(low < 0):
        return None
    return Decoding(inner, plain)


def _decode_weight(
    chain: Chain, linear: LinearParameters, weight: Array, x: Value
) -> Decoding:
    """Decode quantized float constants whose range without zero point is of no bit width."""
    scale = linear.scale
    if scale is None or np.any(np.isnan(weight)):
        raise NoMatchError("it quantizes constants that hold NaN")
    wide = _int_quant(scale, 0, _WIDEST)
    low, high = chain.low - linear.zero, chain.high - linear.zero
    codes = np.clip(quantize_to_integers(weight, wide), low, high)
    values = _steps(codes, scale)
    quant = _with_zero_point(scale, linear.zero, chain.low, chain.high)
    if _gives(weight, quant, values):
        return Decoding(x, quant)
    if _gives(values, quant, values):
        return Decoding(values, quant)
    return _bounded(x, linear, low, high)


def _with_zero_point(scale: Array, zero: Array, low: int, high: int) -> IntQuant:
    """Return the narrowest quantizer with this zero point that holds the codes."""
    found = bits_of_bounds(low, high) or bits_of_range(low, high, least_signed=2)
    return _int_quant(scale, zero, *found)


def _gives(x: Array, quant: Quantizer, values: Array) -> bool:
    return np.array_equal(quantize(x, quant), values, equal_nan=True)


def _decode_stored(
    chain: Chain, linear: LinearParameters, limits: tuple[int, int] | None
) -> Decoding:
    """Decode integers (or small floats) that the file stores."""
    stored = constant_of(chain.codes, "input")
    scale = linear.scale
    if scale is None:
        raise NoMatchError("its scale is computed at run time")
    if linear.minifloat is not None:
        values = _steps(stored, scale)
        return _require_kept(values, dataclasses.replace(linear.minifloat, scale=scale))
    if chain.moves and not linear.is_scalar():
        raise NoMatchError("its constants are moved before a scale per channel")
    codes = np.clip(stored.astype(np.int64), chain.low, chain.high)
    if linear.type_name == "INT32" and np.any(linear.zero):
        # Engines disagree on whether the difference may wrap.
        raise NoMatchError("it has 32-bit integers and a zero point")
    values = _steps(codes - linear.zero, scale)
    low, high = limits or (chain.low, chain.high)
    if limits is not None and codes.size and (codes.min() < low or codes.max() > high):
        raise NoMatchError(f"its integers leave the range {low} to {high} of its Clip")
    is_small = linear.type_name != "INT32" and not np.any(linear.zero)
    is_whole_range = (low, high) == INTEGER_RANGES[linear.type_name]
    if is_small and is_whole_range and np.array_equal(np.unique(codes), [-1, 1]):
        return _require_kept(values, BipolarQuant(scale))
    own = _with_zero_point(scale, linear.zero, low, high)
    if np.any(linear.zero) and _gives(values, own, values):
        return Decoding(values, own)
    plain = _plain(scale, low - linear.zero, high - linear.zero)
    return _require_kept(values, plain or own)


def _require_kept(values: Array, quant: Quantizer) -> Decoding:
    if not _gives(values, quant, values):
        raise NoMatchError("a quantizer does not give its values back as they are in float32")
    return Decoding(values, quant)


def _decode_signs(chain: Chain, node: Node, linear: LinearParameters) -> Decoding:
    """Decode Where between -1 and +1 in integers."""
    found = sign_of(node)
    if found is None or linear.scale is None or linear.scale.size != 1 or np.any(linear.zero):
        raise NoMatchError("it takes integers from a Where that is no sign")
    x, level = found
    if not np.all(level == 1) or (chain.low, chain.high) != (-1, 1):
        raise NoMatchError("it takes integers from a Where between others than -1 and 1")
    return Decoding(x, BipolarQuant(linear.scale))


def _decode_minifloat(node: Node, linear: LinearParameters) -> Decoding | None:
    format_ = linear.minifloat
    if format_ is None:
        return None
    if linear.scale is None:
        raise NoMatchError("it has a dynamic scale and a small float type")
    overflows = (format_.has_inf or format_.has_nan) and not attribute(node, "saturate", 1)
    quant = dataclasses.replace(format_, scale=linear.scale, saturation=not overflows)
    return Decoding(_input_of(node), quant)


def _decode_hybrid(
    chain: Chain, node: Node, unit: LinearParameters, target: LinearParameters
) -> Decoding:
    """Decode Div(s), Add(z), rounding, QuantizeLinear(1, u), DequantizeLinear(s, z + u).

    QuantizeLinear only converts whole numbers here, so this rounds ``x / s + z`` as ``Quant``
    does. Clip may stand on either side of the rounding, and in integers.
    """
    scale, zero = target.scale, _number(target.zero - unit.zero)
    if scale is None or (chain.moves and not target.is_scalar()):
        raise NoMatchError("its own scale cannot be followed to a QuantizeLinear with scale 1")
    shift = int(unit.zero)
    t, low, high, rounding = _rounded_codes(
        _input_of(node), chain.low - shift, chain.high - shift
    )
    t, added = peeled_constant(t, "Add")
    x, divisor = peeled_constant(t, "Div")
    if not same_values(added, zero) or not same_values(divisor, scale):
        raise NoMatchError("QuantizeLinear with scale 1 follows other steps than it undoes")
    found = bits_of_bounds(low, high)
    if found is None:
        raise NoMatchError(f"its range {low} to {high} is of no bit width")
    return Decoding(x, dataclasses.replace(_int_quant(scale, zero, *found), rounding=rounding))


def _rounded_codes(t: Value, low: int, high: int) -> tuple[Value, int, int, Rounding]:
    """Return what is rounded to codes, their range, and how; with at most one rounding."""
    rounding: Rounding | None = None
    while True:
        clamp = clamp_of(t)
        if clamp is not None and all(b.size == 1 and b == np.rint(b) for b in clamp[:2]):
            start, stop = (int(min(max(float(end), low), high)) for end in clamp[:2])
            low, high, t = start, stop, clamp[2]
            continue
        found = None if rounding is not None else rounding_of(t)
        if found is None:
            return t, low, high, rounding or Rounding.ROUND
        rounding, t = found
