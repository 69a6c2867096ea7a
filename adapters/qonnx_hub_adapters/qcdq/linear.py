"""Quantizers as QuantizeLinear and DequantizeLinear: which forms there are, and their nodes.

QuantizeLinear rounds ``x / s`` half to even, adds the zero point and saturates to its integer
type; DequantizeLinear computes ``(q - z) * s``. So for ``Quant``, on values that are not NaN
(integers cannot hold one; the float forms keep it):

* ROUND and a zero point of 0, or one that is added after rounding: the plain form is the same
  in every bit, because clamping to whole bounds before or after rounding is the same;
* a zero point that is added before, or another rounding mode: ``Quant`` rounds ``x / s + z``,
  so the sum and the mode are written out, QuantizeLinear with scale 1 only converts, and
  DequantizeLinear undoes both (the *hybrid* form);
* where no integer Clip is to be had (16 bits in onnxruntime, 4 and 2 bits in ONNX): the values
  are clipped before, to the bounds times the scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Node, Value

from qonnx_hub_adapters.qcdq.encoding_options import LOWEST_OPSET
from qonnx_hub_adapters.qcdq.origins import Origin, compressed
from qonnx_hub_adapters.qcdq.parameters import INTEGER_RANGES, MINIFLOATS
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import dims, rank_of
from qonnx_hub_ir.lowering.quantizer_operators import write_rounded, write_scaled
from qonnx_hub_ir.quantizers import (
    Array,
    BipolarQuant,
    FloatQuant,
    IntQuant,
    Quantizer,
    Rounding,
    integer_bounds,
    is_bipolar,
    is_whole,
    single_value,
)

OPSET_OF_WIDTH = {2: 25, 4: 21, 8: 10, 16: 21, 32: 10}
"""Lowest standard opset whose DequantizeLinear takes integers of that width (QuantizeLinear:
up to 16 bits)."""


@dataclass(frozen=True, slots=True)
class AxisGrid:
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


def grid_of(node: Node, quant: IntQuant | BipolarQuant) -> AxisGrid | str:
    """Return the quantizer's grid, or why QuantizeLinear cannot take it."""
    if quant.scale is None:
        return "has a scale that is computed at run time"
    zero = np.zeros((), dtype=np.float32)
    if isinstance(quant, IntQuant):
        if quant.zero_point is None:
            return "has a zero point that is computed at run time"
        zero = quant.zero_point.astype(np.float32)
    if not is_whole(zero):
        return "has a zero point that is no whole number"
    scale, zero = np.broadcast_arrays(quant.scale.astype(np.float32), zero)
    if single_value(scale) is not None and single_value(zero) is not None:
        return AxisGrid(
            scale.reshape(-1)[0].reshape(()), zero.reshape(-1)[0].reshape(()), None
        )
    wide = [axis for axis, size in enumerate(scale.shape) if size != 1]
    if len(wide) > 1:
        return f"has a scale or zero point of shape {scale.shape}: more than one axis"
    rank = rank_of(node.inputs[0])
    if rank is None:
        return "has a scale per channel on a value of unknown rank"
    return AxisGrid(scale.reshape(-1), zero.reshape(-1), rank - scale.ndim + wide[0])


@dataclass(frozen=True, slots=True)
class Integers:
    """Form of a quantizer's integers.

    Attributes:
        width: Width of the integer type.
        signed: Signedness of the integer type.
        shift: Added to every code, so that signed codes fit an unsigned type.
        clip_integers: Clip after QuantizeLinear rather than before.
        bounds: Lowest and highest code; ``None`` where the type alone bounds them.
        is_contrib: Whether onnxruntime's own operators make them, at any opset.
    """

    width: int
    signed: bool
    shift: int = 0
    clip_integers: bool = True
    bounds: tuple[int, int] | None = None
    is_contrib: bool = False

    @property
    def type(self) -> onnx_ir.DataType:
        """ONNX's integer type."""
        return onnx_ir.DataType[f"{'' if self.signed else 'U'}INT{self.width}"]

    @property
    def range(self) -> tuple[int, int]:
        """Lowest and highest integer of the type."""
        return INTEGER_RANGES[self.type.name]

    @property
    def opset(self) -> int:
        """Lowest standard opset whose DequantizeLinear takes the type."""
        return LOWEST_OPSET if self.is_contrib else OPSET_OF_WIDTH[self.width]

    @property
    def is_full(self) -> bool:
        """Whether every integer of the type is a code."""
        low, high = self.bounds or self.range
        return self.bounds is None or (low + self.shift, high + self.shift) == self.range

    def holds(self, low: float, high: float) -> bool:
        """Return whether the type has both integers."""
        return self.range[0] <= low and high <= self.range[1]

    def constant(self, emit: Emitter, label: str, codes: Any) -> Value:
        """Return an initializer of codes, which are shifted."""
        shifted = np.asarray(codes + self.shift)
        return emit.constant(label, shifted.astype(self.type.numpy()))

    def clip(self, emit: Emitter, codes: Value) -> Value:
        """Return codes within the bounds; as they are where they cannot leave them."""
        if not self.clip_integers or self.bounds is None or self.is_full:
            return codes
        low, high = self.bounds
        ends = [self.constant(emit, "low", low), self.constant(emit, "high", high)]
        return emit.add("Clip", [codes, *ends])


def width_for(low: int, high: int, *, signed: bool) -> int | None:
    """Return the narrowest usual integer width that holds the range, from 8 bits on."""
    widths = (8, 16, 32) if signed else (8, 16)
    return next((width for width in widths if Integers(width, signed).holds(low, high)), None)


def bounds_of(quant: IntQuant | BipolarQuant) -> tuple[int, int] | None:
    """Return (lowest, highest) code; ``None`` for two levels and bits that vary or wait."""
    if not isinstance(quant, IntQuant) or is_bipolar(quant):
        return None
    bits = single_value(quant.bits)
    if bits is None:
        return None
    low, high = integer_bounds(int(bits), signed=quant.signed, narrow=quant.narrow)
    return int(low), int(high)


def dequantized(emit: Emitter, codes: Value, grid: AxisGrid | Blocks, form: Integers) -> Value:
    """Return ``(codes - zero) * scale`` by DequantizeLinear."""
    scale = emit.constant("scale", grid.scale)
    inputs = [codes, scale, form.constant(emit, "zero_point", grid.zero)]
    return emit.add("DequantizeLinear", inputs, **grid.attributes)


def _clip_values(
    emit: Emitter, x: Value | None, form: Integers, scale: Array, zero: Array | int = 0
) -> Value:
    """Return values within the range of the codes, without their zero point, times a scale."""
    levels = [np.asarray(end - np.asarray(zero)) for end in form.bounds or form.range]
    bounds = [np.asarray(level.astype(np.float32) * scale) for level in levels]
    bounds = [bound.reshape(()) if bound.size == 1 else bound for bound in bounds]
    low, high = emit.constant("low_value", bounds[0]), emit.constant("high_value", bounds[1])
    if low.shape is not None and not low.shape.dims:
        return emit.add("Clip", [x, low, high])
    return emit.add("Min", [emit.add("Max", [x, low]), high])


def _through_integers(
    emit: Emitter,
    x: Value | None,
    parameters: list[Value | None],
    form: Integers,
    **attributes: int,
) -> Value:
    """Return what Q, Clip and DQ with the same scale and zero point make of a value."""
    codes = emit.add("QuantizeLinear", [x, *parameters], **attributes)
    return emit.add("DequantizeLinear", [form.clip(emit, codes), *parameters], **attributes)


def write_plain(emit: Emitter, quant: IntQuant, grid: AxisGrid, form: Integers) -> Value:
    """Write Q, Clip, DQ: zero point 0 or after rounding (or near: see the module), ROUND."""
    x = emit.node.inputs[0]
    if not form.clip_integers and not form.is_full:
        scale = np.asarray(quant.scale, dtype=np.float32)
        x = _clip_values(emit, x, form, scale, np.asarray(quant.zero_point))
    zero = form.constant(emit, "zero_point", grid.zero)
    parameters: list[Value | None] = [emit.constant("scale", grid.scale), zero]
    return _through_integers(emit, x, parameters, form, **grid.attributes)


def write_hybrid(emit: Emitter, quant: IntQuant, grid: AxisGrid, form: Integers) -> Value:
    """Write Div, Add, rounding, Q(1, 0), Clip, DQ: any zero point and mode."""
    one = np.ones((), dtype=np.float32)
    t = write_scaled(emit, quant)
    if not form.clip_integers:
        t = _clip_values(emit, t, form, one)
    if quant.rounding is not Rounding.ROUND:
        t = write_rounded(emit, quant, t)
    unit = [emit.constant("unit_scale", one), form.constant(emit, "unit_zero_point", 0)]
    codes = form.clip(emit, emit.add("QuantizeLinear", [t, *unit]))
    return dequantized(emit, codes, grid, form)


def write_dynamic(emit: Emitter, zero: int, form: Integers) -> Value:
    """Write Q, Clip, DQ with a scale of one element that is computed at run time."""
    x, scale = emit.node.inputs[:2]
    if dims(scale) != ():
        scale = emit.add("Reshape", [scale, emit.integers("no_axes", [])])
    return _through_integers(emit, x, [scale, form.constant(emit, "zero_point", zero)], form)


def write_blocked(emit: Emitter, quant: IntQuant, form: Integers) -> Value:
    """Write blocked Q, DQ for a scale that varies along several axes of a known shape.

    Blocks lie along the last axis: one block per row where the scale does not vary along it,
    otherwise one per element. The scale is expanded along the other axes.
    """
    shape = static_shape(emit.node.inputs[0]) or ()
    scale = np.asarray(quant.scale, dtype=np.float32)
    per_row = scale.ndim == 0 or scale.shape[-1] == 1
    blocks = (*shape[:-1], 1) if per_row else shape
    x = _clip_values(emit, emit.node.inputs[0], form, scale)
    parameters: list[Value | None] = [
        emit.constant("scale", np.ascontiguousarray(np.broadcast_to(scale, blocks))),
        form.constant(emit, "zero_point", np.zeros(blocks, dtype=np.int64)),
    ]
    block = shape[-1] if per_row else 1
    return _through_integers(emit, x, parameters, form, axis=len(shape) - 1, block_size=block)


@dataclass(frozen=True, slots=True)
class Blocks:
    """Scale and zero point, one entry per block.

    Attributes:
        scale: float32.
        zero: Whole numbers in the shape of the scale.
        axis: Axis that the blocks lie along.
        size: Elements per block.
    """

    scale: Array
    zero: Array
    axis: int
    size: int

    @property
    def attributes(self) -> dict[str, int]:
        """The node attributes that go with it."""
        return {"axis": self.axis, "block_size": self.size}


def blocks_of(node: Node, quant: Quantizer, origin: Origin) -> Blocks | None:
    """Return the blocks that a file had for a quantizer, where they say its numbers."""
    shape = static_shape(node.inputs[0])
    if not origin.block_size or shape is None or quant.scale is None:
        return None
    zero = quant.zero_point if isinstance(quant, IntQuant) else np.zeros((), dtype=np.float32)
    if zero is None or not is_whole(zero):
        return None
    parts = [compressed(values, shape, origin) for values in (quant.scale, zero)]
    if parts[0] is None or parts[1] is None:
        return None
    scale = parts[0].astype(np.float32)
    return Blocks(scale, parts[1], origin.axis % len(shape), origin.block_size)


def write_in_blocks(emit: Emitter, blocks: Blocks, form: Integers) -> Value:
    """Write blocked Q, DQ whose codes are all integers of their type."""
    parameters: list[Value | None] = [
        emit.constant("scale", blocks.scale),
        form.constant(emit, "zero_point", blocks.zero),
    ]
    return _through_integers(emit, emit.node.inputs[0], parameters, form, **blocks.attributes)


def static_shape(value: Value | None) -> tuple[int, ...] | None:
    """Return the sizes of a value where all of them are known."""
    sizes = dims(value)
    known = [size for size in sizes or () if isinstance(size, int)]
    return None if sizes is None or len(known) < len(sizes) else tuple(known)


def float8_of(quant: FloatQuant) -> onnx_ir.DataType | None:
    """Return the float8 type of ONNX that a quantizer rounds to, if there is one."""
    scale, *numbers = (single_value(value) for value in dialect.parameters(quant))
    if scale is None or quant.rounding is not Rounding.ROUND:
        return None
    for name, kind in MINIFLOATS.items():
        format_ = [single_value(value) for value in dialect.parameters(kind)[1:]]
        if name.startswith("FLOAT8") and numbers == format_:
            return onnx_ir.DataType[name]
    return None


def write_float8(emit: Emitter, quant: FloatQuant, dtype: onnx_ir.DataType) -> Value:
    """Write Q, DQ in a float8 type."""
    scale = np.array(single_value(quant.scale), dtype=np.float32)
    inputs = [
        emit.constant("scale", scale),
        emit.constant("zero_point", np.zeros((), dtype=dtype.numpy())),
    ]
    saturate = int(quant.saturation)
    codes = emit.add("QuantizeLinear", [emit.node.inputs[0], *inputs], saturate=saturate)
    return emit.add("DequantizeLinear", [codes, *inputs])
