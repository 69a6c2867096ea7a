"""Quantizers as QuantizeLinear and DequantizeLinear: which forms there are, and their nodes.

QuantizeLinear rounds ``x / s`` half to even, adds the zero point and saturates to its integer
type; DequantizeLinear computes ``(q - z) * s``. So for ``Quant``, on values that are not NaN
(integers cannot hold one; the float forms keep it):

* zero point 0 and ROUND: the plain form is the same in every bit, because clamping to whole
  bounds before or after rounding is the same;
* another zero point, or another rounding mode: ``Quant`` rounds ``x / s + z``, so the sum and
  the mode are written out, QuantizeLinear with scale 1 only converts, and DequantizeLinear
  undoes both (the *hybrid* form);
* where no integer Clip is to be had (16 bits in onnxruntime, 4 and 2 bits in ONNX): the values
  are clipped before, to the bounds times the scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir import Node, Value

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.lowering.quantizer_operators import write_rounded, write_scaled
from qonnx_hub_ir.quantizers import (
    Array,
    BipolarQuant,
    FloatQuant,
    IntQuant,
    Rounding,
    integer_bounds,
    single_value,
)

Writer = Callable[[Emitter], Value]

_TYPES: dict[tuple[int, bool], onnx_ir.DataType] = {
    (2, True): onnx_ir.DataType.INT2,
    (2, False): onnx_ir.DataType.UINT2,
    (4, True): onnx_ir.DataType.INT4,
    (4, False): onnx_ir.DataType.UINT4,
    (8, True): onnx_ir.DataType.INT8,
    (8, False): onnx_ir.DataType.UINT8,
    (16, True): onnx_ir.DataType.INT16,
    (16, False): onnx_ir.DataType.UINT16,
    (32, True): onnx_ir.DataType.INT32,
}

OPSET_OF_WIDTH = {2: 25, 4: 21, 8: 19, 16: 21, 32: 19}
"""Lowest standard opset whose DequantizeLinear takes integers of that width (QuantizeLinear:
up to 16 bits)."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Scale and zero point as QuantizeLinear takes them.

    Attributes:
        scale: float32, a scalar or one value per index of the axis.
        zero: Whole numbers in the shape of the scale.
        axis: Axis of the input that they vary along; ``None`` for scalars.
    """

    scale: Array
    zero: Array
    axis: int | None

    @property
    def attributes(self) -> dict[str, int]:
        """The node attributes that go with it."""
        return {} if self.axis is None else {"axis": self.axis}


def grid_of(node: Node, quant: IntQuant | BipolarQuant) -> Grid | str:
    """Return the quantizer's grid, or why QuantizeLinear cannot take it."""
    if quant.scale is None:
        return "has a scale that is computed at run time"
    zero = np.zeros((), dtype=np.float32)
    if isinstance(quant, IntQuant):
        if quant.zero_point is None:
            return "has a zero point that is computed at run time"
        zero = quant.zero_point.astype(np.float32)
    if not np.all(zero == np.rint(zero)):
        return "has a zero point that is no whole number"
    scale, zero = np.broadcast_arrays(quant.scale.astype(np.float32), zero)
    if single_value(scale) is not None and single_value(zero) is not None:
        return Grid(scale.reshape(-1)[0].reshape(()), zero.reshape(-1)[0].reshape(()), None)
    wide = [axis for axis, size in enumerate(scale.shape) if size != 1]
    if len(wide) > 1:
        return f"has a scale or zero point of shape {scale.shape}: more than one axis"
    x = node.inputs[0]
    if x is None or x.shape is None:
        return "has a scale per channel on a value of unknown rank"
    axis = len(x.shape) - scale.ndim + wide[0]
    return Grid(scale.reshape(-1), zero.reshape(-1), axis)


def width_for(low: int, high: int, *, signed: bool) -> int | None:
    """Return the narrowest usual integer width that holds the range, from 8 bits on."""
    for width in (8, 16, 32):
        start, stop = type_range(width, signed=signed)
        if start <= low and high <= stop and (width, signed) in _TYPES:
            return width
    return None


def integer_type(width: int, *, signed: bool) -> onnx_ir.DataType:
    """Return ONNX's integer type of a width."""
    return _TYPES[width, signed]


def type_range(width: int, *, signed: bool) -> tuple[int, int]:
    """Return (lowest, highest) integer of a type."""
    low, high = integer_bounds(width, signed=signed, narrow=False)
    return int(low), int(high)


def bounds_of(quant: IntQuant) -> tuple[int, int] | None:
    """Return (lowest, highest) code; ``None`` where they vary or are dynamic."""
    bits = single_value(quant.bits)
    if bits is None:
        return None
    low, high = integer_bounds(int(bits), signed=quant.signed, narrow=quant.narrow)
    return int(low), int(high)


def integers(emit: Emitter, label: str, codes: Array, width: int, *, signed: bool) -> Value:
    """Return an initializer of whole numbers in the integer type of that width."""
    dtype = _TYPES[width, signed]
    return emit.constant(label, codes.astype(dtype.numpy()))


def dequantized(emit: Emitter, codes: Value, grid: Grid, width: int, *, signed: bool) -> Value:
    """Return ``(codes - zero) * scale`` by DequantizeLinear."""
    inputs = [codes, emit.constant("scale", grid.scale)]
    inputs.append(integers(emit, "zero_point", grid.zero, width, signed=signed))
    return emit.add("DequantizeLinear", inputs, **grid.attributes)


@dataclass(frozen=True, slots=True)
class Integers:
    """Form of an activation's integers.

    Attributes:
        width: Width of the integer type.
        signed: Signedness of the integer type.
        shift: Added to every code, so that signed codes fit an unsigned type.
        clip_integers: Clip after QuantizeLinear rather than before.
    """

    width: int
    signed: bool
    shift: int = 0
    clip_integers: bool = True


def clip_codes(emit: Emitter, codes: Value, low: int, high: int, form: Integers) -> Value:
    """Return codes within bounds; codes that cannot leave them are returned as they are."""
    low, high = low + form.shift, high + form.shift
    if (low, high) == type_range(form.width, signed=form.signed):
        return codes
    ends = [
        integers(emit, label, np.array(end, dtype=np.int64), form.width, signed=form.signed)
        for label, end in (("low", low), ("high", high))
    ]
    return emit.add("Clip", [codes, *ends])


def _clip_values(emit: Emitter, x: Value | None, low: Array, high: Array) -> Value:
    single = low.size == 1
    ends = [
        emit.constant(label, end.reshape(()) if single else end)
        for label, end in (("low_value", low), ("high_value", high))
    ]
    if single:
        return emit.add("Clip", [x, *ends])
    return emit.add("Min", [emit.add("Max", [x, ends[0]]), ends[1]])


def plain_writer(node: Node, quant: IntQuant, grid: Grid, form: Integers) -> Writer:
    """Return the writer of Q, Clip, DQ: zero point 0 (or near: see the module), ROUND."""
    low, high = bounds_of(quant) or (0, 0)

    def write(emit: Emitter) -> Value:
        x = node.inputs[0]
        if not form.clip_integers and (low, high) != type_range(
            form.width, signed=form.signed
        ):
            scale = np.asarray(quant.scale, dtype=np.float32)
            ends = [np.float32(end) * scale for end in (low, high)]
            x = _clip_values(emit, x, np.asarray(ends[0]), np.asarray(ends[1]))
        shifted = Grid(grid.scale, grid.zero + form.shift, grid.axis)
        zero = integers(emit, "zero_point", shifted.zero, form.width, signed=form.signed)
        inputs = [x, emit.constant("scale", grid.scale), zero]
        codes = emit.add("QuantizeLinear", inputs, **grid.attributes)
        if form.clip_integers:
            codes = clip_codes(emit, codes, low, high, form)
        return dequantized(emit, codes, shifted, form.width, signed=form.signed)

    return write


def hybrid_writer(quant: IntQuant, grid: Grid, form: Integers) -> Writer:
    """Return the writer of Div, Add, rounding, Q(1, 0), Clip, DQ: any zero point and mode."""
    low, high = bounds_of(quant) or (0, 0)

    def write(emit: Emitter) -> Value:
        t = write_scaled(emit, quant)
        if not form.clip_integers:
            t = _clip_values(emit, t, _float(low), _float(high))
        if quant.rounding is not Rounding.ROUND:
            t = write_rounded(emit, quant, t)
        shift = np.array(form.shift, dtype=np.int64)
        unit = [
            emit.constant("unit_scale", _float(1)),
            integers(emit, "unit_zero_point", shift, form.width, signed=form.signed),
        ]
        codes = emit.add("QuantizeLinear", [t, *unit])
        if form.clip_integers:
            codes = clip_codes(emit, codes, low, high, form)
        shifted = Grid(grid.scale, grid.zero + form.shift, grid.axis)
        return dequantized(emit, codes, shifted, form.width, signed=form.signed)

    return write


def _float(number: float) -> Array:
    return np.array(number, dtype=np.float32)


def dynamic_writer(node: Node, quant: IntQuant, form: Integers) -> Writer:
    """Return the writer of Q, Clip, DQ with a scale of one element computed at run time."""
    low, high = bounds_of(quant) or (0, 0)

    def write(emit: Emitter) -> Value:
        no_axes = emit.constant("no_axes", np.zeros(0, dtype=np.int64))
        scale = emit.add("Reshape", [node.inputs[1], no_axes])
        shift = np.array(form.shift, dtype=np.int64)
        zero = integers(emit, "zero_point", shift, form.width, signed=form.signed)
        codes = emit.add("QuantizeLinear", [node.inputs[0], scale, zero])
        codes = clip_codes(emit, codes, low, high, form)
        return emit.add("DequantizeLinear", [codes, scale, zero])

    return write


def blocked_writer(node: Node, quant: IntQuant, form: Integers) -> Writer | str:
    """Return the writer of blocked Q, DQ for a scale that varies along several axes.

    Blocks lie along the last axis: one block per row where the scale does not vary along it,
    otherwise one per element. The scale is expanded along the other axes.
    """
    shape = _static_shape(node)
    bounds = bounds_of(quant)
    if shape is None or not shape or bounds is None or quant.scale is None:
        return "has a scale along several axes on a value of unknown shape"
    scale = quant.scale.astype(np.float32)
    per_row = scale.ndim == 0 or scale.shape[-1] == 1
    blocks = (*shape[:-1], 1) if per_row else shape
    scales = np.ascontiguousarray(np.broadcast_to(scale, blocks))

    def write(emit: Emitter) -> Value:
        ends = [np.asarray(np.float32(end) * scale) for end in bounds]
        x = _clip_values(emit, node.inputs[0], ends[0], ends[1])
        zero = np.zeros(scales.shape, dtype=np.int64)
        inputs = [
            emit.constant("scale", scales),
            integers(emit, "zero_point", zero, form.width, signed=form.signed),
        ]
        attributes = {"axis": len(shape) - 1, "block_size": shape[-1] if per_row else 1}
        codes = emit.add("QuantizeLinear", [x, *inputs], **attributes)
        return emit.add("DequantizeLinear", [codes, *inputs], **attributes)

    return write


def _static_shape(node: Node) -> tuple[int, ...] | None:
    x = node.inputs[0]
    if x is None or x.shape is None:
        return None
    dims = [d for d in x.shape if isinstance(d, int)]
    return tuple(dims) if len(dims) == len(x.shape) else None


_FLOAT8 = {
    (4, 3, 7, 448.0): onnx_ir.DataType.FLOAT8E4M3FN,
    (4, 3, 8, 240.0): onnx_ir.DataType.FLOAT8E4M3FNUZ,
    (5, 2, 15, 57344.0): onnx_ir.DataType.FLOAT8E5M2,
    (5, 2, 16, 57344.0): onnx_ir.DataType.FLOAT8E5M2FNUZ,
}
"""(exponent bits, mantissa bits, bias, largest value) -> type of ONNX."""


def float8_writer(node: Node) -> Writer | None:
    """Return the writer of Q, DQ in the float8 type of the node's format, if any."""
    quant = dialect.read_quantizer(node)
    if not isinstance(quant, FloatQuant) or not quant.saturation:
        return None
    scale = single_value(quant.scale)
    numbers = [
        single_value(value)
        for value in (
            quant.exponent_bits,
            quant.mantissa_bits,
            quant.exponent_bias,
            quant.max_val,
        )
    ]
    if scale is None or quant.rounding is not Rounding.ROUND or None in numbers:
        return None
    dtype = _FLOAT8.get(tuple(numbers))  # type: ignore[arg-type]
    if dtype is None:
        return None

    def write(emit: Emitter) -> Value:
        inputs = [
            emit.constant("scale", _float(scale)),
            emit.constant("zero_point", np.zeros((), dtype=dtype.numpy())),
        ]
        codes = emit.add("QuantizeLinear", [node.inputs[0], *inputs], saturate=1)
        return emit.add("DequantizeLinear", [codes, *inputs])

    return write
