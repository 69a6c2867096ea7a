"""Which standard form a quantizer is given, and why.

The order of preference is: integers and their types where they are exact, at the lowest opset
that has them; float operators, which are always exact, where they are not.
"""

from __future__ import annotations

import numpy as np
import onnx_ir
from onnx_ir import Node, Value

from qonnx_hub_adapters.protocol import Bound, Gap
from qonnx_hub_adapters.qcdq import linear
from qonnx_hub_adapters.qcdq.encoding_options import Encoding, Wishes
from qonnx_hub_adapters.qcdq.weights import encode_weight
from qonnx_hub_ir import dialect
from qonnx_hub_ir.lowering import quantizer_operators
from qonnx_hub_ir.quantizers import (
    BipolarQuant,
    FloatQuant,
    IntQuant,
    Quantizer,
    Rounding,
    Trunc,
    is_bipolar,
    single_value,
)

_MOVES_VALUES = frozenset(
    {"Dropout", "Flatten", "Identity", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose"}
    | {"Unsqueeze"}
)


def choose(node: Node, wishes: Wishes) -> Encoding | Gap:
    """Return how to say the quantizer, or why it cannot be said.

    Args:
        node: A canonical quantizer node.
        wishes: What the caller asks for.
    """
    quant = dialect.read_quantizer(node)
    weight = dialect.constant_tensor(node.inputs[0])
    known = all(value is not None for value in dialect.parameters(quant))
    if weight is not None and known:
        return encode_weight(node, quant, weight, wishes)
    if wishes.encoding == "float":
        return _float(node, quant, "")
    found = _linear(node, quant, wishes)
    if isinstance(found, Encoding):
        if _allowed(found, wishes):
            return found
        return _float(node, quant, f"{found.name} needs opset {found.opset}")
    if wishes.encoding != "auto" and not is_bipolar(quant):
        return Gap(
            node.name or "", node.op_type, found, f"not with --encoding {wishes.encoding}"
        )
    return _float(node, quant, found)


def _allowed(encoding: Encoding, wishes: Wishes) -> bool:
    return wishes.limit is None or encoding.opset <= wishes.limit or wishes.encoding != "auto"


def _float(node: Node, quant: Quantizer, reason: str) -> Encoding | Gap:
    refusal = quantizer_operators.refusal(quant)
    if refusal:
        return Gap(node.name or "", node.op_type, refusal)
    name = "Where" if is_bipolar(quant) else "float operators"
    return Encoding(name, lambda emit: quantizer_operators.lower(emit, quant), reason=reason)


def _linear(node: Node, quant: Quantizer, wishes: Wishes) -> Encoding | str:
    """Return an encoding with integers or float8, or why there is none."""
    x = node.inputs[0]
    if isinstance(quant, FloatQuant):
        write = None if not _is_float32(x) else linear.float8_writer(node)
        return (
            "has a format that is no ONNX type" if write is None else Encoding("Q + DQ", write)
        )
    if isinstance(quant, Trunc):
        return "truncates, which no quantizing operator does"
    if is_bipolar(quant) or isinstance(quant, BipolarQuant):
        return "has two levels around zero, which no zero point says"
    if not _is_float32(x):
        return "is not float32"
    bounds = linear.bounds_of(quant)
    if bounds is None:
        return "has a bit width per channel or computed at run time"
    if quant.scale is None:
        return _dynamic(node, quant, wishes)
    grid = linear.grid_of(node, quant)
    if isinstance(grid, str):
        return _several_axes(node, quant, wishes, grid)
    width = linear.width_for(*bounds, signed=quant.signed)
    if width is None or width > 16:
        return f"has {single_value(quant.bits):g} bits; QuantizeLinear makes up to 16"
    if np.any(grid.zero) or quant.rounding is not Rounding.ROUND:
        return _hybrid(node, quant, grid, wishes, width)
    return _plain(node, quant, grid, wishes, width)


def _is_float32(value: Value | None) -> bool:
    return value is not None and value.dtype == onnx_ir.DataType.FLOAT


def _form(node: Node, quant: IntQuant, wishes: Wishes, width: int) -> linear.Integers:
    """Return the integers to use: unsigned ones where signed 8-bit ones break a runtime.

    From opset 21 on, onnxruntime moves quantizers across MaxPool and Transpose and writes a
    type that contradicts a signed 8-bit zero point; shifting codes and zero point by 128 says
    the same in unsigned integers.
    """
    clip = wishes.encoding != "qdq" and width == 8
    if width == 8 and quant.signed and wishes.opset >= 21 and _meets_move(node.outputs[0]):
        return linear.Integers(8, signed=False, shift=128, clip_integers=clip)
    return linear.Integers(width, quant.signed, clip_integers=clip)


def _meets_move(value: Value) -> bool:
    waiting, seen = [value], {value}
    while waiting:
        for consumer in waiting.pop().consumers():
            if consumer.op_type in {"MaxPool", "Transpose"}:
                return True
            if consumer.op_type in _MOVES_VALUES and consumer.outputs[0] not in seen:
                seen.add(consumer.outputs[0])
                waiting.append(consumer.outputs[0])
    return False


def _plain(
    node: Node, quant: IntQuant, grid: linear.Grid, wishes: Wishes, width: int
) -> Encoding | str:
    if wishes.encoding == "qcdq" and width > 8:
        return f"has {single_value(quant.bits):g} bits; no runtime clips 16-bit integers"
    form = _form(node, quant, wishes, width)
    if wishes.encoding == "qdq" and not _meets_move(node.outputs[0]):
        form = _native(quant, form)
    write = linear.plain_writer(node, quant, grid, form)
    bounds = linear.bounds_of(quant)
    full = bounds == linear.type_range(form.width, signed=form.signed) or (
        form.shift and bounds == linear.type_range(8, signed=True)
    )
    clipped = "Q + Clip + DQ" if form.clip_integers else "Clip + Q + DQ"
    name = "Q + DQ" if full else clipped
    reason = "codes shifted into unsigned integers" if form.shift else ""
    return Encoding(name, write, linear.OPSET_OF_WIDTH[form.width], reason=reason)


def _native(quant: IntQuant, form: linear.Integers) -> linear.Integers:
    """Return the narrowest ONNX type that holds the bits, when clipping comes before."""
    bits = single_value(quant.bits) or 0
    for width in (2, 4):
        if bits <= width:
            return linear.Integers(width, quant.signed, clip_integers=False)
    return form


def _hybrid(
    node: Node, quant: IntQuant, grid: linear.Grid, wishes: Wishes, width: int
) -> Encoding | str:
    form = _form(node, quant, wishes, width)
    low, high = linear.type_range(form.width, signed=form.signed)
    zero = grid.zero + form.shift
    if np.any(zero < low) or np.any(zero > high):
        return "has a zero point outside its integer type"
    if width > 8 and wishes.encoding != "qdq":
        return "rounds after adding a zero point, or by its own mode, beyond 8 bits"
    if wishes.allow_lossy and quant.rounding is Rounding.ROUND:
        return _near(node, quant, grid, form)
    clip = "Clip + " if form.clip_integers else ""
    name = f"Div + Add + Q + {clip}DQ" if np.any(grid.zero) else f"rounding + Q + {clip}DQ"
    reason = "the zero point is added before rounding" if np.any(grid.zero) else ""
    if quant.rounding is not Rounding.ROUND:
        reason = f"rounds by {quant.rounding}"
    write = linear.hybrid_writer(quant, grid, form)
    return Encoding(name, write, linear.OPSET_OF_WIDTH[form.width], reason=reason)


def _near(node: Node, quant: IntQuant, grid: linear.Grid, form: linear.Integers) -> Encoding:
    low, high = linear.bounds_of(quant) or (0, 0)
    odd = np.any(grid.zero % 2 != 0)
    reason = (
        "QuantizeLinear rounds before it adds the odd zero point: at each of the "
        f"{high - low} ties between codes it takes the other neighbour, one step away"
        if odd
        else "QuantizeLinear rounds before it adds the zero point: values within one float of "
        f"one of the {high - low} ties can be one step away"
    )
    write = linear.plain_writer(node, quant, grid, form)
    opset = linear.OPSET_OF_WIDTH[form.width]
    bound = Bound(near=0.0)
    return Encoding("Q + Clip + DQ", write, opset, exact=False, reason=reason, bound=bound)


def _dynamic(node: Node, quant: IntQuant, wishes: Wishes) -> Encoding | str:
    scale = node.inputs[1]
    one = scale is not None and scale.shape is not None and all(d == 1 for d in scale.shape)
    low, high = linear.bounds_of(quant) or (0, 0)
    plain = single_value(quant.zero_point) == 0 and quant.rounding is Rounding.ROUND
    fits = linear.width_for(low, high, signed=quant.signed) == 8
    if not (one and plain and fits and _is_float32(scale)) or wishes.encoding == "qdq":
        return "has a scale that is computed at run time"
    form = _form(node, quant, wishes, 8)
    return Encoding("Q + Clip + DQ", linear.dynamic_writer(node, quant, form))


def _several_axes(node: Node, quant: IntQuant, wishes: Wishes, reason: str) -> Encoding | str:
    bounds = linear.bounds_of(quant)
    plain = single_value(quant.zero_point) == 0 and quant.rounding is Rounding.ROUND
    if wishes.encoding != "qdq" or bounds is None or not plain:
        return reason
    width = linear.width_for(*bounds, signed=quant.signed)
    if width is None or width > 16:
        return reason
    writer = linear.blocked_writer(node, quant, linear.Integers(width, quant.signed))
    if isinstance(writer, str):
        return writer
    return Encoding("Clip + blocked Q + DQ", writer, opset=21)
