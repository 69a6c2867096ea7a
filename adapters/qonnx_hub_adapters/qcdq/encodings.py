"""Chooses the standard form of a quantizer, with the reason.

The order of preference is: integers and their types where they are exact, at the lowest opset
that has them; float operators, which are always exact, where they are not.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import onnx_ir
from onnx_ir import Node, Value

from qonnx_hub_adapters.protocol import Bound, Gap
from qonnx_hub_adapters.qcdq import linear
from qonnx_hub_adapters.qcdq.encoding_options import (
    OPSET_OF_BLOCKS,
    OPSET_OF_FLOAT8,
    Encoding,
    EncodingRequest,
)
from qonnx_hub_adapters.qcdq.origins import KEY, OLD_KEY, origin_of
from qonnx_hub_adapters.qcdq.weights import encode_weight
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.queries import dims, input_of, is_standard
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
from qonnx_hub_ir.semantics import quantize


def choose(node: Node, request: EncodingRequest) -> Encoding | Gap:
    """Return the encoding of a quantizer, or why it has none.

    Args:
        node: A canonical quantizer node.
        request: What the caller asks for.
    """
    quant = dialect.read_quantizer(node)
    weight = dialect.constant_tensor(node.inputs[0])
    known = all(value is not None for value in dialect.parameters(quant))
    if weight is not None and known:
        stays = _quantized_in_file(node, quant, request)
        if stays is None:
            return encode_weight(node, quant, weight, request)
        quant = stays
    if request.encoding == "float":
        return _float(node, quant, "")
    found = _linear(node, quant, request)
    if isinstance(found, Encoding):
        within = request.limit is None or found.opset <= request.limit
        if within or request.encoding != "auto":
            return found
        return _float(node, quant, f"{found.name} needs opset {found.opset}")
    if request.encoding != "auto" and not is_bipolar(quant):
        return Gap(
            node.name or "", node.op_type, found, f"not with --encoding {request.encoding}"
        )
    return _float(node, quant, found)


def _quantized_in_file(
    node: Node, quant: Quantizer, request: EncodingRequest
) -> IntQuant | None:
    """Return the quantizer of constants that a file keeps as floats behind a QuantizeLinear.

    ``None`` where they are stored as integers, or the order of the zero point matters.
    """
    by_default = (request.encoding, request.stored_weights) == ("auto", "int8")
    if not origin_of(node).quantize or not by_default or not isinstance(quant, IntQuant):
        return None
    weight = np.asarray(dialect.constant_value(node.inputs[0]))
    after = dataclasses.replace(quant, zero_point_after_rounding=True)
    return after if np.array_equal(quantize(weight, quant), quantize(weight, after)) else None


def _float(node: Node, quant: Quantizer, reason: str) -> Encoding | Gap:
    refusal = quantizer_operators.refusal(quant)
    if refusal:
        return Gap(node.name or "", node.op_type, refusal)
    name = "Where" if is_bipolar(quant) else "float operators"
    return Encoding(name, partial(quantizer_operators.lower, quant=quant), reason=reason)


def _linear(node: Node, quant: Quantizer, request: EncodingRequest) -> Encoding | str:
    """Return an encoding with integers or float8, or why there is none."""
    x = node.inputs[0]
    if isinstance(quant, FloatQuant):
        dtype = linear.float8_of(quant) if _is_float32(x) else None
        if dtype is None:
            return "has a format that is no ONNX type"
        if not quant.saturation and KEY not in node.metadata_props:
            return "overflows, which onnxruntime does otherwise beside the largest value"
        write = partial(linear.write_float8, quant=quant, dtype=dtype)
        return Encoding("Q + DQ", write, OPSET_OF_FLOAT8)
    if isinstance(quant, Trunc):
        return "truncates, which no quantizing operator does"
    if is_bipolar(quant) or isinstance(quant, BipolarQuant):
        return "has two levels around zero, which no zero point gives"
    if not _is_float32(x):
        return "is not float32"
    bounds = linear.bounds_of(quant)
    if bounds is None:
        return "has a bit width per channel or computed at run time"
    own = _form_of_file(node, quant, request, bounds)
    form = own or _form(node, quant, request, bounds)
    if quant.scale is None:
        return _dynamic(node, quant, request, form)
    blocks = linear.blocks_of(node, quant, origin_of(node))
    if blocks is not None and own is not None and own.is_full and _rounds_plainly(quant):
        write = partial(linear.write_in_blocks, blocks=blocks, form=own)
        return Encoding("blocked Q + DQ", write, max(own.opset, OPSET_OF_BLOCKS))
    grid = linear.grid_of(node, quant)
    if isinstance(grid, str):
        return _several_axes(node, quant, request, form) or grid
    if form is None:
        return f"has {single_value(quant.bits):g} bits; QuantizeLinear makes up to 16"
    if not _rounds_plainly(quant):
        return _hybrid(quant, grid, request, form)
    return _plain(node, quant, grid, request, form, own is not None)


def _is_float32(value: Value | None) -> bool:
    return value is not None and value.dtype == onnx_ir.DataType.FLOAT


def _form_of_file(
    node: Node, quant: IntQuant, request: EncodingRequest, bounds: tuple[int, int]
) -> linear.Integers | None:
    """Return the integers that the file had, where they hold the quantizer's codes."""
    origin = origin_of(node)
    if request.encoding != "auto" or origin.integers is None or not _rounds_plainly(quant):
        return None
    width, signed = origin.integers
    form = linear.Integers(width, signed, 0, width == 8, bounds, bool(origin.domain))
    zero = np.asarray(quant.zero_point)
    holds = form.holds(*bounds) and form.holds(zero.min(), zero.max())
    if _is_clipped_behind(node, quant, bounds):
        form = dataclasses.replace(form, bounds=form.range)
    too_new = request.limit is not None and form.opset > request.limit
    if not holds or width > 16 or too_new:
        return None
    asked = request.limit is not None or OLD_KEY in node.metadata_props
    if not asked:
        return form
    breaks = width < 8 and _meets_move(node.outputs[0])
    if width == 8 and signed and request.opset >= 21:
        breaks = _meets_move(node.outputs[0], open_only=True)
    return None if breaks else form


def _is_clipped_behind(node: Node, quant: IntQuant, bounds: tuple[int, int]) -> bool:
    """Return whether all that is read of a quantizer are values between its limits."""
    readers = node.outputs[0].consumers()
    scale, zero = single_value(quant.scale), single_value(quant.zero_point)
    if len(readers) != 1 or node.outputs[0].is_graph_output() or scale is None or zero is None:
        return False
    (reader,) = readers
    if not is_standard(reader, "Clip") or reader.inputs[0] is not node.outputs[0]:
        return False
    ends = [dialect.constant_value(input_of(reader, index)) for index in (1, 2)]
    low, high = ((bound - zero) * scale for bound in bounds)
    if ends[0] is None or ends[1] is None:
        return False
    return bool(np.all(ends[0] >= low) and np.all(ends[1] <= high))


def _form(
    node: Node, quant: IntQuant, request: EncodingRequest, bounds: tuple[int, int]
) -> linear.Integers | None:
    """Return the integers to use: unsigned ones where signed 8-bit ones break a runtime.

    ``None`` where QuantizeLinear makes none that are wide enough.

    From opset 21 on, onnxruntime moves quantizers across MaxPool and Transpose and writes a
    type that contradicts a signed 8-bit zero point; shifting codes and zero point by 128 says
    the same in unsigned integers.
    """
    signed, ends = quant.signed, [*bounds]
    if quant.zero_point_after_rounding and quant.zero_point is not None:
        # The zero point is an integer of the type as well.
        ends += [int(quant.zero_point.min()), int(quant.zero_point.max())]
        signed = signed or min(ends) < 0
    width = linear.width_for(min(ends), max(ends), signed=signed)
    if width is None or width > 16:
        return None
    clip = request.encoding != "qdq" and width == 8
    if width == 8 and signed and request.opset >= 21 and _meets_move(node.outputs[0]):
        return linear.Integers(8, False, 128, clip, bounds)
    return linear.Integers(width, signed, 0, clip, bounds)


def _meets_move(value: Value, *, open_only: bool = False) -> bool:
    """Return whether a MaxPool or Transpose reads a value, directly or behind other moves.

    Args:
        value: What a quantizer makes.
        open_only: Count only those whose values something else reads than quantizers and
            further ones: behind the others nobody adds a quantizer.
    """
    waiting, seen = [value], {value}
    while waiting:
        for consumer in waiting.pop().consumers():
            (made, *_) = consumer.outputs
            is_move = _is_move(consumer)
            if is_move and not (open_only and _ends_in_quantizers(made)):
                return True
            if (is_move or operators.moves_first(consumer)) and made not in seen:
                seen.add(made)
                waiting.append(made)
    return False


def _is_move(node: Node) -> bool:
    return operators.is_max_pool(node) or operators.transposes(node)


def _ends_in_quantizers(value: Value) -> bool:
    readers = value.consumers()
    known = all(dialect.is_quantizer(node) or _is_move(node) for node in readers)
    return bool(readers) and known and not value.is_graph_output()


def _plain(
    node: Node,
    quant: IntQuant,
    grid: linear.AxisGrid,
    request: EncodingRequest,
    form: linear.Integers,
    is_own: bool,
) -> Encoding | str:
    bits = single_value(quant.bits) or 0
    if request.encoding == "qcdq" and form.width > 8:
        return f"has {bits:g} bits; no runtime clips 16-bit integers"
    if request.encoding == "qdq" and bits <= 4 and not _meets_move(node.outputs[0]):
        # The narrowest type that holds the bits, for clipping comes before.
        narrowest = 2 if bits <= 2 else 4
        narrow = linear.Integers(narrowest, quant.signed, 0, False, form.bounds)
        form = narrow if narrow.holds(grid.zero.min(), grid.zero.max()) else form
    clipped = "Q + Clip + DQ" if form.clip_integers else "Clip + Q + DQ"
    name = "Q + DQ" if form.is_full else clipped
    reason = "codes shifted into unsigned integers" if form.shift else ""
    reason = "as the file had it" if is_own and form.width != 8 else reason
    write = partial(linear.write_plain, quant=quant, grid=grid, form=form)
    return Encoding(name, write, form.opset, reason=reason)


def _hybrid(
    quant: IntQuant, grid: linear.AxisGrid, request: EncodingRequest, form: linear.Integers
) -> Encoding | str:
    zero = grid.zero + form.shift
    if not form.holds(zero.min(), zero.max()):
        return "has a zero point outside its integer type"
    if form.width > 8 and request.encoding != "qdq":
        return "rounds after adding a zero point, or by its own mode, beyond 8 bits"
    if request.allow_lossy and quant.rounding is Rounding.ROUND:
        return _near(quant, grid, form)
    clip = "Clip + " if form.clip_integers else ""
    name = f"Div + Add + Q + {clip}DQ" if np.any(grid.zero) else f"rounding + Q + {clip}DQ"
    reason = "the zero point is added before rounding" if np.any(grid.zero) else ""
    if quant.rounding is not Rounding.ROUND:
        reason = f"rounds by {quant.rounding}"
    write = partial(linear.write_hybrid, quant=quant, grid=grid, form=form)
    return Encoding(name, write, form.opset, reason=reason)


def _near(quant: IntQuant, grid: linear.AxisGrid, form: linear.Integers) -> Encoding:
    low, high = form.bounds or form.range
    odd = np.any(grid.zero % 2 != 0)
    reason = (
        "QuantizeLinear rounds before it adds the odd zero point: at each of the "
        f"{high - low} ties between codes it takes the other neighbour, one step away"
        if odd
        else "QuantizeLinear rounds before it adds the zero point: values within one float of "
        f"one of the {high - low} ties can be one step away"
    )
    write = partial(linear.write_plain, quant=quant, grid=grid, form=form)
    name, bound = "Q + Clip + DQ", Bound(near=0.0)
    return Encoding(name, write, form.opset, exact=False, reason=reason, bound=bound)


def _rounds_plainly(quant: IntQuant) -> bool:
    """Return whether QuantizeLinear rounds as the quantizer does."""
    after = single_value(quant.zero_point) == 0 or quant.zero_point_after_rounding
    return after and quant.rounding is Rounding.ROUND


def _dynamic(
    node: Node, quant: IntQuant, request: EncodingRequest, form: linear.Integers | None
) -> Encoding | str:
    sizes = dims(node.inputs[1])
    one = sizes is not None and all(size == 1 for size in sizes)
    zero = single_value(quant.zero_point)
    plain = _rounds_plainly(quant) and _is_float32(node.inputs[1]) and zero is not None
    is_clipped = form is None or not (form.is_full or form.clip_integers)
    if form is None or is_clipped or not (one and plain) or request.encoding == "qdq":
        return "has a scale that is computed at run time"
    name = "Q + DQ" if form.is_full else "Q + Clip + DQ"
    write = partial(linear.write_dynamic, zero=int(zero or 0), form=form)
    return Encoding(name, write, form.opset)


def _several_axes(
    node: Node, quant: IntQuant, request: EncodingRequest, form: linear.Integers | None
) -> Encoding | str:
    """Return a blocked encoding, why there is none, or an empty string."""
    plain = single_value(quant.zero_point) == 0 and _rounds_plainly(quant)
    if request.encoding != "qdq" or form is None or not plain:
        return ""
    if not linear.static_shape(node.inputs[0]):
        return "has a scale along several axes on a value of unknown shape"
    form = linear.Integers(form.width, quant.signed, 0, False, form.bounds)
    write = partial(linear.write_blocked, quant=quant, form=form)
    return Encoding("Clip + blocked Q + DQ", write, opset=21)
