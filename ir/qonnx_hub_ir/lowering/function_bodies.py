"""The quantizers in standard operators, as bodies of model-local ONNX functions.

Every line is one operator that rounds as the numpy definition in
:mod:`qonnx_hub_ir.semantics` rounds, in the same order, so the numbers are the same in every
bit but the sign of zeros: a zero point of 0 is added, and -0.0 + 0.0 is +0.0. A body says no
more than the nodes of a file need (:class:`Variant`), for every line is run for every element.

Only what both onnxruntime and onnx.reference run alike is used: no overloads (the reference
knows one function per name), no optional inputs, no strings of different lengths side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

from qonnx_hub_ir import dialect
from qonnx_hub_ir.quantizers import Rounding

OPSET = 19
"""Lowest standard opset whose operators the bodies use: the first to compare strings."""


@dataclass(frozen=True, slots=True)
class Variant:
    """What the nodes of one quantizing operator in a file need of its function.

    Attributes:
        op_type: Canonical operator name.
        roundings: Rounding modes in use, in the order of :class:`Rounding`.
        two_levels: Whether one signed bit is in use, or may be, at run time (Quant).
        overflows: Whether values may overflow instead of saturating (FloatQuant).
        narrow_floats: Whether 16-bit floats are quantized, which compute in float32.
        version: Version of the operator (Trunc).
    """

    op_type: str
    roundings: tuple[Rounding, ...] = (Rounding.ROUND,)
    two_levels: bool = False
    overflows: bool = False
    narrow_floats: bool = False
    version: int = 1


def text_of(variant: Variant) -> str:
    """Return the function in ONNX's textual syntax."""
    inputs, attributes, lines = _PARTS[variant.op_type](variant)
    body = "\n".join(lines)
    if variant.narrow_floats:
        body = f"{_WIDEN}\n{body}\n{_NARROW}"
    else:
        body = body.replace("t_x", "x").replace("t_y", "y")
    declared = f"<{attributes}> " if attributes else ""
    return (
        f'<domain: "{dialect.DOMAIN}", opset_import: ["": {OPSET}]>\n'
        f"{variant.op_type} {declared}({inputs}) => (y)\n{{\n{body}\n}}"
    )


_WIDEN = "t_x = Cast <to = 1> (x)"
_NARROW = "y = CastLike (t_y, x)"

_NUMBERS = """
zero_f = Constant <value_float = 0.0> ()
one_f = Constant <value_float = 1.0> ()
two_f = Constant <value_float = 2.0> ()
zero = CastLike (zero_f, t_x)
one = CastLike (one_f, t_x)
two = CastLike (two_f, t_x)
"""

_FLAGS = """
signed_i = Constant <value_int: int = @signed> ()
narrow_i = Constant <value_int: int = @narrow> ()
is_signed = CastLike (signed_i, t_x)
is_narrow = CastLike (narrow_i, t_x)
"""

# One subtraction of whole numbers per bound: each is rounded once, as in the definition.
_RANGE = """
value_bits = Sub (b, is_signed)
span = Pow (two, value_bits)
is_unsigned = Sub (one, is_signed)
left_out = Mul (is_narrow, is_unsigned)
above = Add (one, left_out)
high = Sub (span, above)
below_zero = Sub (is_narrow, span)
low = Mul (is_signed, below_zero)
"""

_CLAMP = """
at_least = Max (t, low)
clamped = Min (at_least, high)
"""

_TWO_LEVELS = """
positive = GreaterOrEqual (t, zero)
minus_one = Neg (one)
sign = Where (positive, one, minus_one)
one_value = Equal (b, one)
signed_b = Equal (is_signed, one)
is_sign = And (one_value, signed_b)
codes = Where (is_sign, sign, rounded)
"""

_HALF = """
half_f = Constant <value_float = 0.5> ()
half = CastLike (half_f, t_x)
"""

_BY_SIGN = """
size_{mode} = Abs ({t})
{lines}
sign_{mode} = Sign ({t})
by_{mode} = Mul (whole_{mode}, sign_{mode})
"""

_ROUNDERS = {
    Rounding.ROUND: "by_ROUND = Round ({t})",
    Rounding.CEIL: "by_CEIL = Ceil ({t})",
    Rounding.FLOOR: "by_FLOOR = Floor ({t})",
    Rounding.UP: _BY_SIGN.format(mode="UP", t="{t}", lines="whole_UP = Ceil (size_UP)"),
    Rounding.DOWN: _BY_SIGN.format(
        mode="DOWN", t="{t}", lines="whole_DOWN = Floor (size_DOWN)"
    ),
    Rounding.HALF_UP: _HALF
    + _BY_SIGN.format(
        mode="HALF_UP",
        t="{t}",
        lines="more = Add (size_HALF_UP, half)\nwhole_HALF_UP = Floor (more)",
    ),
    Rounding.HALF_DOWN: _HALF.replace("half", "half_less")
    + _BY_SIGN.format(
        mode="HALF_DOWN",
        t="{t}",
        lines="less = Sub (size_HALF_DOWN, half_less)\nwhole_HALF_DOWN = Ceil (less)",
    ),
}

PORTABLE_ROUNDINGS = tuple(_ROUNDERS)
"""The rounding modes that a function can have."""


def _round(roundings: tuple[Rounding, ...], t: str, result: str) -> list[str]:
    """Return the lines of ``result = t``, rounded by the mode that the node names."""
    lines = [_ROUNDERS[mode].format(t=t) for mode in roundings]
    if len(roundings) == 1:
        return [lines[0].replace(f"by_{roundings[0]}", result)]
    count = len(roundings)
    names = ", ".join(f'"{mode}"' for mode in roundings)
    # Strings of one array have one length, which the reference asks of what it compares.
    lines += [
        "mode_name = Constant <value_string: string = @rounding_mode> ()",
        "from_0 = Constant <value_ints = [0]> ()",
        "from_1 = Constant <value_ints = [1]> ()",
        f"from_end = Constant <value_ints = [{count + 1}]> ()",
        "mode_row = Reshape (mode_name, from_1)",
        f"known_names = Constant <value_strings = [{names}]> ()",
        "all_names = Concat <axis = 0> (mode_row, known_names)",
        "own_name = Slice (all_names, from_0, from_1)",
        "mode_names = Slice (all_names, from_1, from_end)",
        "is_mode = Equal (own_name, mode_names)",
    ]
    chosen = f"by_{roundings[0]}"
    for index, mode in enumerate(roundings[1:], start=1):
        target = result if index == count - 1 else f"chosen_{index}"
        lines += [
            f"index_{index} = Constant <value_int = {index}> ()",
            f"is_{mode} = Gather (is_mode, index_{index})",
            f"{target} = Where (is_{mode}, by_{mode}, {chosen})",
        ]
        chosen = target
    return lines


def _quant(variant: Variant) -> tuple[str, str, list[str]]:
    codes = "rounded" if variant.two_levels else "codes"
    lines = [_NUMBERS, _FLAGS]
    lines += ["s = CastLike (scale, t_x)", "z = CastLike (zero_point, t_x)"]
    lines += ["b = CastLike (bits, t_x)", _RANGE]
    lines += ["quotient = Div (t_x, s)", "t = Add (quotient, z)", _CLAMP]
    lines += _round(variant.roundings, "clamped", codes)
    if variant.two_levels:
        lines.append(_TWO_LEVELS)
    lines += ["centred = Sub (codes, z)", "t_y = Mul (centred, s)"]
    return "x, scale, zero_point, bits", "signed, narrow, rounding_mode", lines


def _bipolar_quant(variant: Variant) -> tuple[str, str, list[str]]:
    lines = [
        "zero_f = Constant <value_float = 0.0> ()",
        "zero = CastLike (zero_f, t_x)",
        "s = CastLike (scale, t_x)",
        "low = Neg (s)",
        "positive = GreaterOrEqual (t_x, zero)",
        "t_y = Where (positive, s, low)",
    ]
    return "x, scale", "", lines


_SHIFT_V1 = """
in_b = Cast <to = 11> (in_bits)
out_b = Cast <to = 11> (out_bits)
dropped = Sub (in_b, out_b)
two_d = Constant <value = double {2.0}> ()
shift_d = Pow (two_d, dropped)
shift = CastLike (shift_d, t_x)
"""

_SHIFT_V2 = """
out_s = CastLike (out_scale, t_x)
ratio = Div (out_s, s)
ln2_d = Constant <value = double {0.6931471805599453}> ()
ln2 = CastLike (ln2_d, t_x)
log = Log (ratio)
log2 = Div (log, ln2)
dropped = Round (log2)
shift = Pow (two, dropped)
out_z = Div (z, shift)
b = CastLike (out_bits, t_x)
"""

_ON_GRID = """
quotient = Div (t_x, s)
sum = Add (quotient, z)
whole = Round (sum)
t = Div (whole, shift)
"""


def _trunc(variant: Variant) -> tuple[str, str, list[str]]:
    lines = [_NUMBERS, "s = CastLike (scale, t_x)", "z = CastLike (zero_point, t_x)"]
    if variant.version == 1:
        lines += [_SHIFT_V1, _ON_GRID, *_round(variant.roundings, "t", "codes")]
        lines += ["centred = Sub (codes, z)", "t_y = Mul (centred, s)"]
        return "x, scale, zero_point, in_bits, out_bits", "rounding_mode", lines
    lines += [_FLAGS, _SHIFT_V2, _RANGE, _ON_GRID, _CLAMP]
    lines += _round(variant.roundings, "clamped", "codes")
    lines += ["centred = Sub (codes, out_z)", "t_y = Mul (centred, out_s)"]
    inputs = "x, scale, zero_point, in_bits, out_scale, out_bits"
    return inputs, "signed, narrow, rounding_mode", lines


_LARGEST = """
one_d = Constant <value = double {1.0}> ()
two_d = Constant <value = double {2.0}> ()
e_bits = Cast <to = 11> (exponent_bits)
m_bits = Cast <to = 11> (mantissa_bits)
bias = Cast <to = 11> (exponent_bias)
codes = Pow (two_d, e_bits)
last_code = Sub (codes, one_d)
top = Sub (last_code, bias)
top_power = Pow (two_d, top)
minus_m = Neg (m_bits)
last_place = Pow (two_d, minus_m)
mantissa = Sub (two_d, last_place)
format_limit = Mul (mantissa, top_power)
max_d = Cast <to = 11> (max_val)
limit_d = Min (format_limit, max_d)
limit = CastLike (limit_d, t_x)
neg_limit = Neg (limit)
"""

# What lies beyond twice the limit ends as what lies there; a logarithm takes no infinity.
_NEAR = """
s = CastLike (scale, t_x)
t = Div (t_x, s)
twice = Mul (limit, two)
beyond_floats = IsInf (twice)
largest_f = Constant <value = float {3.4028235e38}> ()
largest = CastLike (largest_f, t_x)
reach = Where (beyond_floats, largest, twice)
neg_reach = Neg (reach)
at_least = Max (t, neg_reach)
near = Min (at_least, reach)
"""

# The logarithm may be off by one unit either way; powers of two tell for certain.
_GRID = """
tiny_f = Constant <value = float {1.17549435e-38}> ()
tiny = CastLike (tiny_f, t_x)
ln2_d = Constant <value = double {0.6931471805599453}> ()
ln2 = CastLike (ln2_d, t_x)
size_0 = Abs (near)
size = Add (size_0, tiny)
log = Log (size)
log2 = Div (log, ln2)
guess = Floor (log2)
guess_power = Pow (two, guess)
too_high = Less (size, guess_power)
one_lower = Sub (guess, one)
lowered = Where (too_high, one_lower, guess)
next_up = Add (lowered, one)
next_power = Pow (two, next_up)
too_low = GreaterOrEqual (size, next_power)
exponent = Where (too_low, next_up, lowered)
m = CastLike (m_bits, t_x)
own_step = Sub (exponent, m)
from_bias = Sub (one_d, bias)
lowest_d = Sub (from_bias, m_bits)
lowest_step = CastLike (lowest_d, t_x)
step = Max (own_step, lowest_step)
grid = Pow (two, step)
on_grid = Div (near, grid)
"""

_OVERFLOW = """
saturates_i = Constant <value_int: int = @saturation> ()
saturates = Cast <to = 9> (saturates_i)
inf_i = Constant <value_int: int = @has_inf> ()
inf_b = Cast <to = 9> (inf_i)
inf_f = Constant <value = float {inf}> ()
nan_f = Constant <value = float {nan}> ()
special_f = Where (inf_b, inf_f, nan_f)
special = CastLike (special_f, t_x)
neg_special = Neg (special)
over = Greater (q, limit)
under = Less (q, neg_limit)
with_over = Where (over, special, clipped)
with_both = Where (under, neg_special, with_over)
result = Where (saturates, clipped, with_both)
"""


def _float_quant(variant: Variant) -> tuple[str, str, list[str]]:
    lines = [_NUMBERS, _LARGEST, _NEAR, _GRID]
    lines += _round(variant.roundings, "on_grid", "rounded")
    lines += ["near_q = Mul (grid, rounded)", "infinite = IsInf (t)"]
    lines += ["q = Where (infinite, t, near_q)", "raised = Max (q, neg_limit)"]
    lines += ["clipped = Min (raised, limit)"]
    if variant.overflows:
        lines.append(_OVERFLOW)
    lines.append(f"t_y = Mul ({'result' if variant.overflows else 'clipped'}, s)")
    inputs = "x, scale, exponent_bits, mantissa_bits, exponent_bias, max_val"
    attributes = "has_inf, has_nan, has_subnormal, saturation, rounding_mode"
    return inputs, attributes, lines


_PARTS = {
    "Quant": _quant,
    "BipolarQuant": _bipolar_quant,
    "Trunc": _trunc,
    "FloatQuant": _float_quant,
}
