"""Which integer operators say, in QDQ form, exactly what they compute in integers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from enum import Enum

import numpy as np
from onnx_ir import Node

from qonnx_hub_adapters.qlinear.integer_sums import scale_of, scaled_sum
from qonnx_hub_adapters.qlinear.layouts import LAYOUTS, weight_axis
from qonnx_hub_ir import dialect
from qonnx_hub_ir.analysis.integer_sums import FLOAT32_WHOLE, odd_part
from qonnx_hub_ir.graph.queries import attribute, dims, input_of
from qonnx_hub_ir.quantizers import Array, is_power_of_two

_BYTE = 255
"""Largest distance of a code from its zero point."""

_LARGEST_INT32 = 2.0**31 - 1
"""What an accumulator holds, in which integer operators add."""

_SPREAD = 2.0**14
"""Ratio of two scales that are powers of two, up to which float32 adds their codes exactly."""

_LISTED = 3


class Doubt(Enum):
    """Why the float form of an operator may differ from its integers."""

    NONE = ""
    SUMS = (
        "float layers between quantizers round their sums where integers do not, so that a "
        "value next to a rounding tie can be one step of its quantizer away from the file's "
        "own integers, in a few of 100000 values of such a layer"
    )
    ACTIVATIONS = (
        "onnxruntime quantizes the values before a product of accuracy_level 4 as well, for "
        "itself, so that its own answers are a few thousandths of the largest away"
    )
    EXPONENTIALS = (
        "each library rounds exponentials in its own way, so that a value can be one step away"
    )


def doubts_in_words(found: Sequence[tuple[str, Doubt]]) -> str:
    """Return the sentence for users, empty where there is nothing to say.

    Args:
        found: Every integer operator of a file, in words, with its doubt.
    """
    lines = []
    for doubt in (Doubt.SUMS, Doubt.ACTIVATIONS, Doubt.EXPONENTIALS):
        names = [name for name, own in found if own is doubt]
        if names:
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            total = f"{len(names)} of {len(found)} integer operators"
            lines.append(f"{total} ({', '.join(names[:_LISTED])}{more}): {doubt.value}")
    return "; ".join(lines)


def doubt_of(node: Node) -> Doubt:
    """Return why an integer operator and its QDQ form may differ for some input."""
    rule = _RULES.get(node.op_type)
    return Doubt.NONE if rule is None else rule(node)


def may_wrap(node: Node) -> bool:
    """Return whether int32 sums of a requantized product may wrap, as a float's never do.

    Known sizes are asked: of products whose factors are computed and of open length, nothing
    is said.
    """
    layout = LAYOUTS.get(node.op_type)
    if layout is None or not layout.is_product:
        return False
    codes = layout.operands[1]
    axis = weight_axis(layout.float_op, {"transB": attribute(node, "transB", 0)})
    terms = _largest_sum(node, codes, codes + 2, -1 if axis is None else axis)
    bias = None if layout.bias is None else _constant(node, layout.bias)
    terms += 0 if bias is None else float(np.abs(bias.astype(np.int64)).max(initial=0))
    return _LARGEST_INT32 < terms < math.inf


def _unless(certain: bool) -> Doubt:
    return Doubt.NONE if certain else Doubt.SUMS


def _constant(node: Node, index: int) -> Array | None:
    return dialect.constant_value(input_of(node, index))


def _are_powers_of_two(*scales: Array | None) -> bool:
    return all(s is not None and is_power_of_two(s.astype(np.float32)) for s in scales)


def _largest_sum(node: Node, codes: int, zero: int, columns: int) -> float:
    """Return the largest sum of magnitudes that a product can reach, without a bias.

    Args:
        node: The product.
        codes: Position of its right factor.
        zero: Position of that factor's zero point.
        columns: Axis of its output channels.
    """
    weight, offset = _constant(node, codes), _constant(node, zero)
    if weight is None:
        length = (dims(node.inputs[codes]) or (None,))[-2:][0]
        return float(_BYTE * _BYTE * length) if isinstance(length, int) else math.inf
    if offset is None and input_of(node, zero) is not None:
        return math.inf
    if weight.ndim == 1:
        weight, columns = weight[:, np.newaxis], -1  # a vector is one column
    levels = np.moveaxis(weight.astype(np.int64), columns, 0)
    if offset is not None and offset.size not in (1, len(levels)):
        return math.inf
    if offset is not None:
        levels = levels - offset.astype(np.int64).reshape(-1, *(1,) * (levels.ndim - 1))
    sums = np.abs(levels).reshape(len(levels), -1).sum(axis=1, dtype=np.int64)
    return float(sums.max(initial=0) * _BYTE)


def _requantized(bias: int | None, y_scale: int, columns: int) -> Callable[[Node], Doubt]:
    """Return the rule of a product that is requantized.

    Sums must be exact in float32, scaled ones too, and the division by the output's scale must
    not round: then a value lies on a tie in float exactly if it does in integers.

    Args:
        bias: Position of the int32 bias, where the operator has one.
        y_scale: Position of the output's scale.
        columns: Axis of the weight's output channels.
    """

    def rule(node: Node) -> Doubt:
        axis = 0 if attribute(node, "transB", 0) else columns
        scales = [_constant(node, index) for index in (1, 4)]
        given = None if bias is None else input_of(node, bias)
        added = dialect.constant_value(given)
        factor = np.asarray(attribute(node, "alpha", 1.0), dtype=np.float32)
        is_unknown = given is not None and added is None
        if is_unknown or any(s is None for s in scales) or factor <= 0:
            return Doubt.SUMS
        terms = _largest_sum(node, 3, 5, axis)
        terms += 0 if added is None else float(np.abs(added.astype(np.int64)).max(initial=0))
        odd = [float(odd_part(s).max()) for s in (*scales, factor) if s is not None]
        whole = input_of(node, y_scale) is None or _are_powers_of_two(_constant(node, y_scale))
        return _unless(whole and math.prod(odd) * terms <= FLOAT32_WHOLE)

    return rule


def _integer_product(columns: int) -> Callable[[Node], Doubt]:
    def rule(node: Node) -> Doubt:
        whole = _largest_sum(node, 1, 3, columns) <= FLOAT32_WHOLE
        tail, source = scaled_sum(node), node.inputs[0]
        if tail is None or source is None:
            return _unless(whole)
        scales = (dialect.constant_value(tail.factor), scale_of(source))
        return _unless(whole and _are_powers_of_two(*scales))

    return rule


def _scaled(*scales: int) -> Callable[[Node], Doubt]:
    """Return the rule of an operator that is exact where these scales are powers of two."""
    return lambda node: _unless(_are_powers_of_two(*(_constant(node, i) for i in scales)))


def _sum(node: Node) -> Doubt:
    sizes = [float(s.reshape(-1)[0]) for i in (1, 4) if (s := _constant(node, i)) is not None]
    near = len(sizes) == 2 and max(sizes) <= _SPREAD * min(sizes)
    return _scaled(1, 4, 6)(node) if near else Doubt.SUMS


def _integers_to_float(node: Node) -> Doubt:
    # With a scale or zero point at run time it stays a product of integers.
    if any(input_of(node, i) is not None and _constant(node, i) is None for i in (2, 4)):
        return Doubt.NONE
    is_small = _largest_sum(node, 1, 5, -1) <= FLOAT32_WHOLE
    return _scaled(2, 3)(node) if is_small else Doubt.SUMS


# A mean of whole numbers is off a tie by more than any rounding, or exactly on it.
_mean = _scaled(1, 3)

_RULES: Mapping[str, Callable[[Node], Doubt]] = {
    "ConvInteger": _integer_product(0),
    "MatMulInteger": _integer_product(-1),
    "MatMulNBits": lambda node: (
        Doubt.ACTIVATIONS if attribute(node, "accuracy_level", 0) >= 4 else Doubt.NONE
    ),
    "MatMulIntegerToFloat": _integers_to_float,
    "QGemm": _requantized(6, 7, 1),
    "QLinearAdd": _sum,
    "QLinearAveragePool": _mean,
    "QLinearConv": _requantized(8, 6, 0),
    "QLinearGlobalAveragePool": _mean,
    "QLinearMatMul": _requantized(None, 6, -1),
    "QLinearMul": _scaled(1, 4, 6),
    "QLinearReduceMean": _mean,
    "QLinearSigmoid": lambda node: Doubt.EXPONENTIALS,
    "QLinearSoftmax": lambda node: Doubt.EXPONENTIALS,
}
"""Operator -> its rule; what is not listed is a table of codes in either form."""
