"""What an operator can make of any value between two: intervals through a graph, soundly.

Correctly rounded float operators keep order: ``x <= y`` implies ``fl(x / s) <= fl(y / s)``.
So an operator that is monotone in each of its inputs, on its own, takes a box of inputs to
values between its smallest and its largest answer on the corners of the box, with no margin
to add; the direction may differ from input to input and from channel to channel. Where an
operator has no rule here, or its rule has a condition that fails, only inputs that are known
to the bit give an answer: the kernel's own.

What is known about a value is a pair of arrays, its lowest and its highest value at each
place, and a mask of the places where they hold. A place outside of the mask can hold anything.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir import Node

from qonnx_hub.equivalence.comparison.compare import differs
from qonnx_hub.executor.kernels.spec import Kernel
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.queries import attribute
from qonnx_hub_ir.quantizers import Array, FloatQuant

LOG_ULPS = 16
"""Margin around a float32 logarithm: numpy states an error below 4 units in the last place."""


@dataclass(frozen=True, slots=True)
class Enclosure:
    """What is known about a value.

    Attributes:
        low: Lowest value at each place.
        high: Highest value at each place.
        known: Where these hold.
    """

    low: Array
    high: Array
    known: Array

    def is_point(self) -> Array:
        """Return where the value is known to the bit."""
        return np.asarray(self.known & same_bits(self.low, self.high))

    def is_constant(self) -> Array:
        """Return where the value can be one number only; zeros have no sign."""
        return np.asarray(self.known & ~differs(self.low, self.high))


Argument = Enclosure | Array | None
"""An input of a step: enclosed, constant, or left out."""


def same_bits(a: Array, b: Array) -> Array:
    """Return where two arrays of one type hold the same bits."""
    bits = np.dtype(f"u{a.dtype.itemsize}")
    return np.asarray(a.view(bits) == b.view(bits))


def enclose_step(node: Node, run: Kernel, arguments: Sequence[Argument]) -> Enclosure:
    """Return what is known about the output of a pointwise operator.

    Args:
        node: The operator.
        run: Its kernel.
        arguments: Its inputs; enclosures have the shape of the output.
    """
    ends = [(a.low, a.high) if isinstance(a, Enclosure) else (a,) for a in arguments]
    # The first corner is that of all lowest values.
    corners = [np.asarray(run(*fed)) for fed in itertools.product(*ends)]
    points = np.logical_and.reduce(
        [given.is_point() for given in arguments if isinstance(given, Enclosure)]
    )
    rule = _rule(node, arguments)
    if rule is None:
        return Enclosure(corners[0], corners[0], points)
    low, high, known = rule(corners, arguments)
    low, high = (np.where(points, corners[0], end) for end in (low, high))
    return Enclosure(low, high, np.asarray(points | known))


Bounds = tuple[Array, Array, Array]
Rule = Callable[[Sequence[Array], Sequence[Argument]], Bounds]
"""(answers on the corners, inputs) -> lowest, highest, where they hold."""


def _rule(node: Node, arguments: Sequence[Argument]) -> Rule | None:
    places = operators.setting_inputs(node)
    moves = any(isinstance(one, Enclosure) for k, one in enumerate(arguments) if k in places)
    if moves and _SPECIAL.get(node.op_type) is not _choice:
        return None  # what lies between two indices is not between what they select
    if dialect.is_thresholds(node):
        return _monotone if isinstance(arguments[1], np.ndarray) else None
    if dialect.is_quantizer(node):
        return _monotone if _quantizer_is_monotone(node, arguments) else None
    if node.domain not in dialect.STANDARD_DOMAINS | {dialect.CHANNELS_LAST_DOMAIN}:
        return None
    if node.op_type in _SPECIAL:
        return _SPECIAL[node.op_type] if _on_floats(node, arguments) else None
    if node.op_type in _CONDITIONS:
        keeps_order = _CONDITIONS[node.op_type](node, arguments)
    else:
        keeps_order = operators.is_monotone(node) and operators.order_is_exact(node)
    return _monotone if keeps_order else None


def _monotone(corners: Sequence[Array], arguments: Sequence[Argument]) -> Bounds:
    low, high, spoiled = corners[0], corners[0], _is_nan(corners[0])
    for corner in corners[1:]:
        low, high = np.where(corner < low, corner, low), np.where(corner > high, corner, high)
        spoiled = spoiled | _is_nan(corner)
    return low, high, _all_known(arguments) & ~spoiled


def _all_known(arguments: Sequence[Argument]) -> Array:
    return np.asarray(
        np.logical_and.reduce([a.known for a in arguments if isinstance(a, Enclosure)])
    )


def _is_nan(values: Array) -> Array:
    return np.asarray(values != values)


def _ends(given: Argument) -> tuple[Array, Array]:
    if isinstance(given, Enclosure):
        return given.low, given.high
    assert given is not None
    return given, given


def _holds_zero(given: Argument) -> Array:
    low, high = _ends(given)
    return np.asarray((low <= 0) & (high >= 0))


def _holds_infinity(given: Argument) -> Array:
    low, high = _ends(given)
    return np.asarray(np.isinf(low) | np.isinf(high))


def _product(corners: Sequence[Array], arguments: Sequence[Argument]) -> Bounds:
    low, high, known = _monotone(corners, arguments)
    x, y = arguments[:2]
    # Zero times infinity is NaN, also where both lie inside and no corner meets them.
    wrong = (_holds_zero(x) & _holds_infinity(y)) | (_holds_infinity(x) & _holds_zero(y))
    return low, high, known & ~wrong


def _quotient(corners: Sequence[Array], arguments: Sequence[Argument]) -> Bounds:
    low, high, known = _monotone(corners, arguments)
    return low, high, known & ~_holds_zero(arguments[-1])


def _magnitude(corners: Sequence[Array], arguments: Sequence[Argument]) -> Bounds:
    low, high, known = _monotone(corners, arguments)
    nothing = np.zeros((), dtype=low.dtype)
    return np.where(_holds_zero(arguments[0]), nothing, low), high, known


def _logarithm(corners: Sequence[Array], arguments: Sequence[Argument]) -> Bounds:
    low, high, known = _monotone(corners, arguments)
    for _ in range(LOG_ULPS):
        low = np.nextafter(low, np.asarray(-np.inf, dtype=low.dtype))
        high = np.nextafter(high, np.asarray(np.inf, dtype=high.dtype))
    return low, high, known


def _equality(corners: Sequence[Array], arguments: Sequence[Argument]) -> Bounds:
    (x_low, x_high), (y_low, y_high) = _ends(arguments[0]), _ends(arguments[1])
    surely = (x_low == x_high) & (y_low == y_high) & (x_low == y_low)
    never = (x_high < y_low) | (y_high < x_low)
    return surely, np.asarray(~never), _all_known(arguments)


def _choice(corners: Sequence[Array], arguments: Sequence[Argument]) -> Bounds:
    """Return the chosen input's bounds; both inputs' where the condition is open."""
    (never, ever), (x_low, x_high), (y_low, y_high) = (_ends(a) for a in arguments)
    condition_known, x_known, y_known = (
        a.known if isinstance(a, Enclosure) else np.ones((), dtype=np.bool_) for a in arguments
    )
    shape = corners[0].shape
    yes, no = np.broadcast_to(never, shape), np.broadcast_to(~ever, shape)
    decided = condition_known & (yes | no)
    either = condition_known & x_known & y_known
    low = np.where(yes, x_low, np.where(no, y_low, np.minimum(x_low, y_low)))
    high = np.where(yes, x_high, np.where(no, y_high, np.maximum(x_high, y_high)))
    either = either & ~_is_nan(low) & ~_is_nan(high)
    return low, high, np.where(decided, np.where(yes, x_known, y_known), either)


_SPECIAL: Mapping[str, Rule | None] = {
    "Abs": _magnitude,
    "Div": _quotient,
    "Equal": _equality,
    "Log": _logarithm,
    "Mul": _product,
    "Pow": None,
    "Reciprocal": _quotient,
    "Where": _choice,
    "Xor": None,
}
"""Operators with a rule of their own for floats; ``None``: only points pass."""

Condition = Callable[[Node, Sequence[Argument]], bool]


def _on_floats(node: Node, arguments: Sequence[Argument]) -> bool:
    """Return whether no input holds integers, which wrap; the condition of Where may."""
    values = arguments[1:] if node.op_type == "Where" else arguments
    return all(_ends(given)[0].dtype.kind == "f" for given in values if given is not None)


def _numbers(arguments: Sequence[Argument]) -> list[Array] | None:
    """Return all inputs but the first as float64; ``None`` unless constant and finite."""
    given = [a for a in arguments[1:] if a is not None]
    numbers = [a.astype(np.float64) for a in given if not isinstance(a, Enclosure)]
    is_known = len(numbers) == len(given) and all(np.all(np.isfinite(a)) for a in numbers)
    return numbers if is_known else None


def _scale_is_plain(node: Node, arguments: Sequence[Argument]) -> bool:
    numbers = _numbers(arguments)
    return numbers is not None and bool(np.all(numbers[0] > 0))


def _gain_is_plain(node: Node, arguments: Sequence[Argument]) -> bool:
    numbers = _numbers(arguments)
    if numbers is None or len(numbers) != 4:
        return False
    gain, _, _, variance = numbers
    spread = variance + float(attribute(node, "epsilon", 1e-5))
    # An infinite factor would make NaN of a zero that no corner is.
    return bool(np.all(spread > 1e-30) and np.all(np.abs(gain) < 1e20))


def _cast_keeps_order(node: Node, arguments: Sequence[Argument]) -> bool:
    """Return whether no value of the input wraps, or becomes a truth value."""
    given = arguments[0]
    target = np.dtype(onnx_ir.DataType(int(node.attributes["to"].value)).numpy())
    if not isinstance(given, Enclosure):
        return False
    if target.kind == "f" or (target.kind == "V" and "float" in target.name):
        return True
    if target.kind not in "iu":
        return False
    limits = np.iinfo(target)
    ends = [end[given.known].astype(np.float64) for end in _ends(given)]
    return all(np.all((end > limits.min - 1.0) & (end < limits.max + 1.0)) for end in ends)


def _quantizer_is_monotone(node: Node, arguments: Sequence[Argument]) -> bool:
    """Return whether the quantizer's formula keeps order.

    Divide, add, clamp, round, subtract, multiply all do, for scales above zero. A minifloat's
    grid widens at powers of two, which lie on both grids; only among the smallest normal
    numbers does the formula's guard against a logarithm of zero shift where it widens.
    """
    if _numbers(arguments) is None:
        return False
    known = [given for given in arguments[1:] if isinstance(given, np.ndarray)]
    quant = dialect.quantizer_with(node, known)
    if not np.all(np.asarray(quant.scale) > 0):
        return False
    if not isinstance(quant, FloatQuant):
        return True
    bias, mantissa = np.asarray(quant.exponent_bias), np.asarray(quant.mantissa_bits)
    return bool(np.all(1.0 - bias - mantissa >= -100) and np.all(mantissa >= 0))


_CONDITIONS: Mapping[str, Condition] = {
    "Add": _on_floats,
    "BatchNormalization": _gain_is_plain,
    "Cast": _cast_keeps_order,
    "DequantizeLinear": _scale_is_plain,
    "Mean": _on_floats,
    "Neg": _on_floats,
    "PRelu": lambda node, arguments: (
        not isinstance(arguments[1], Enclosure) and bool(np.all(np.asarray(arguments[1]) >= 0))
    ),
    "QuantizeLinear": _scale_is_plain,
    "Sub": _on_floats,
    "Sum": _on_floats,
}
"""When an operator is monotone in each input by itself, where that depends on values that are
known here and not in the graph, such as constants that are computed."""

POINTWISE = (
    frozenset(_CONDITIONS)
    | frozenset(_SPECIAL)
    | operators.names(
        lambda row: row.elementwise and (row.order_is_exact or row.is_identity is not False)
    )
)
"""Standard operators that treat every element by itself: with a rule, or for points only."""


def is_coarse(node: Node) -> bool:
    """Return whether a pointwise operator makes few values out of many.

    At least one such operator is in every quantizer that is written out.
    """
    return operators.is_piecewise_constant(node) or node.op_type == "Cast"
