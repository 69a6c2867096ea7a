"""Quantized weights as stored integers: which type, and the codes, a block at a time.

A weight may be larger than memory allows to copy often. Its codes are computed block by block,
once to learn their range and once more when the file is written.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Node, TensorProtocol, Value

from qonnx_hub_adapters.qcdq import linear
from qonnx_hub_adapters.qcdq.encoding_options import (
    OPSET_OF_BLOCKS,
    OPSET_OF_FLOAT8,
    Encoding,
    EncodingRequest,
)
from qonnx_hub_adapters.qcdq.origins import INTEGERS, origin_of
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.quantizers import Array, BipolarQuant, FloatQuant, IntQuant, Quantizer
from qonnx_hub_ir.semantics import quantize, quantize_to_integers

TABLE_KEY = "qonnx_hub.table"
"""Metadata key of a quantizer of constants that no sum reads: the integers of its file are
stored again where weights of layers become floats."""

_BLOCK = 1 << 20
"""Elements per block."""


@dataclass(frozen=True, slots=True)
class WeightCodes:
    """The integer codes of a weight.

    Attributes:
        tensor: The weight.
        quant: Its quantizer, every parameter known.
        low: Smallest code.
        high: Largest code.
        own: The codes as the file had them, where it did.
    """

    tensor: TensorProtocol
    quant: IntQuant | BipolarQuant
    low: int
    high: int
    own: TensorProtocol | None = None

    def stored(self, dtype: onnx_ir.DataType) -> TensorProtocol:
        """Return the codes as a tensor of that integer type; large ones are computed late."""
        if self.own is not None and self.own.dtype == dtype:
            return self.own
        shape = [int(size) for size in dialect.known_shape(self.tensor).numpy()]

        def compute() -> TensorProtocol:
            codes = np.empty(shape, dtype=dtype.numpy())
            for rows, block in _blocks(self.tensor, self.quant):
                codes[rows] = block.astype(dtype.numpy())
            return onnx_ir.Tensor(codes, dtype=dtype)

        if self.tensor.size <= _BLOCK:
            return compute()
        return onnx_ir.LazyTensor(compute, dtype, onnx_ir.Shape(shape))


def codes_of(tensor: TensorProtocol, quant: IntQuant | BipolarQuant) -> WeightCodes | None:
    """Return the codes of a weight; ``None`` where a value has none (NaN)."""
    try:
        blocks = (block for _, block in _blocks(tensor, quant) if block.size)
        ends = [int(end) for block in blocks for end in (block.min(), block.max())]
    except ValueError:
        return None
    return WeightCodes(tensor, quant, min(ends, default=0), max(ends, default=0))


def _blocks(
    tensor: TensorProtocol, quant: IntQuant | BipolarQuant
) -> Iterator[tuple[Any, Array]]:
    weight = tensor.numpy()
    if weight.size <= _BLOCK or weight.ndim == 0:
        yield ..., quantize_to_integers(weight, quant)
        return
    rows = max(_BLOCK * len(weight) // weight.size, 1)
    for start in range(0, len(weight), rows):
        part = slice(start, start + rows)
        yield part, quantize_to_integers(weight[part], _rows(quant, weight.shape, part))
    del weight
    if isinstance(tensor, onnx_ir.ExternalTensor):
        # Pages of a mapped file count as memory for as long as it is mapped; somebody else may
        # still read from it.
        with contextlib.suppress(BufferError):
            tensor.release()


def _rows(
    quant: IntQuant | BipolarQuant, shape: tuple[int, ...], rows: slice
) -> IntQuant | BipolarQuant:
    """Return the quantizer of some rows of a weight."""

    def part(values: Array | None) -> Array | None:
        if values is None or values.size == 1:
            return values
        return np.broadcast_to(values, shape)[rows]

    parts: dict[str, Any] = {
        name: part(getattr(quant, name)) for name in dialect.parameter_fields(quant)
    }
    return dataclasses.replace(quant, **parts)


def encode_weight(
    node: Node, quant: Quantizer, tensor: TensorProtocol, request: EncodingRequest
) -> Encoding:
    """Return how to store a quantized weight; there is always an exact way.

    Args:
        node: The quantizer of the weight.
        quant: The quantizer; all its parameters are known.
        tensor: The weight.
        request: What the caller asks for.
    """
    if TABLE_KEY in node.metadata_props and request.encoding == "auto":
        request = dataclasses.replace(request, stored_weights="int8")
    if request.stored_weights == "float" or request.encoding == "float":
        return _folded(quant, tensor, "")
    if isinstance(quant, FloatQuant):
        return _stored_floats(node, quant, tensor) or _folded(quant, tensor, "has no integers")
    if not isinstance(quant, (IntQuant, BipolarQuant)):
        return _folded(quant, tensor, "has no integers")
    if tensor.dtype != onnx_ir.DataType.FLOAT:
        return _folded(quant, tensor, f"is {tensor.dtype.name}")
    finite = bool(np.all(np.isfinite(np.asarray(quant.scale))))
    codes = codes_of(tensor, quant) if finite else None
    if codes is None:
        return _folded(quant, tensor, "holds values without an integer")
    codes = dataclasses.replace(codes, own=_integers_of_file(node, codes))
    form = _form_of_file(node, codes, request) or _form(codes, request)
    if form is None:
        return _folded(quant, tensor, "has integers beyond 32 bits")
    return _stored(node, codes, form)


def _integers_of_file(node: Node, codes: WeightCodes) -> TensorProtocol | None:
    """Return the integers that the file had, where they make the same values."""
    kept = node.meta.get(INTEGERS)
    if kept is None or codes.quant.scale is None:
        return None
    with np.errstate(over="ignore"):
        values = kept.numpy().astype(np.float32) * codes.quant.scale.astype(np.float32)
    same = np.array_equal(values, quantize(codes.tensor.numpy(), codes.quant))
    return kept if same else None


def _form_of_file(
    node: Node, codes: WeightCodes, request: EncodingRequest
) -> linear.Integers | None:
    """Return the integers that the file had, where they hold the codes and the zero point."""
    origin = origin_of(node)
    if origin.integers is None or request.stored_weights != "int8":
        return None
    width, signed = origin.integers
    bounds = linear.bounds_of(codes.quant) if width in (8, 32) else None
    form = linear.Integers(width, signed, bounds=bounds, is_contrib=bool(origin.domain))
    zero = codes.quant.zero_point if isinstance(codes.quant, IntQuant) else None
    ends = [codes.low, codes.high, *(bounds or ())]
    ends += [] if zero is None else [float(zero.min()), float(zero.max())]
    too_new = request.limit is not None and form.opset > request.limit
    return None if too_new or not form.holds(min(ends), max(ends)) else form


def _form(codes: WeightCodes, request: EncodingRequest) -> linear.Integers | None:
    """Return the integers to store; ``None`` where they have more than 32 bits."""
    signed = not isinstance(codes.quant, IntQuant) or codes.quant.signed
    bounds = linear.bounds_of(codes.quant)
    width = linear.width_for(*(bounds or (codes.low, codes.high)), signed=signed)
    if width is None:
        width, signed = linear.width_for(codes.low, codes.high, signed=True), True
    if width is None:
        return None
    if width == 16 and max(request.opset, request.limit or 0) < 21:
        width, signed = 32, True
    narrowest = {"int8": 8, "int4": 4, "int2": 2}[request.stored_weights]
    packed = (
        bits
        for bits in (2, 4)
        if narrowest <= bits < width
        and linear.Integers(bits, signed).holds(codes.low, codes.high)
    )
    width = next(packed, width)
    # Clipping to the range changes nothing, and says the bit width to those who read the file.
    # Only 8 and 32 bits have a Clip.
    bounds = bounds if width in (8, 32) else None
    return linear.Integers(width, signed, bounds=bounds)


def _stored_floats(node: Node, quant: FloatQuant, tensor: TensorProtocol) -> Encoding | None:
    """Return how to store small floats in the type that the file had, if they are exact."""
    dtype = origin_of(node).minifloat
    if dtype is None or tensor.dtype != onnx_ir.DataType.FLOAT or quant.scale is None:
        return None
    blocks = linear.blocks_of(node, quant, origin_of(node))
    unit = IntQuant(quant.scale, np.zeros((), dtype=np.float32), None)
    grid = blocks or linear.grid_of(node, unit)
    if isinstance(grid, str):
        return None
    values = quantize(tensor.numpy(), quant)
    scale = quant.scale.astype(np.float32)
    with np.errstate(all="ignore"):
        stored = (values / scale).astype(dtype.numpy())
        again = np.asarray(stored.astype(np.float32) * scale)
    if not np.array_equal(again, values, equal_nan=True):
        return None

    def write(emit: Emitter) -> Value:
        codes = emit.tensor("small_floats", onnx_ir.Tensor(stored, dtype=dtype))
        zero = np.zeros(grid.zero.shape, dtype=dtype.numpy())
        inputs = [codes, emit.constant("scale", grid.scale), emit.constant("zero_point", zero)]
        return emit.add("DequantizeLinear", inputs, **grid.attributes)

    size = (values.size * 4, (values.size * int(dtype.bitwidth) + 7) // 8)
    opset = 23 if dtype.bitwidth < 8 else OPSET_OF_BLOCKS if blocks else OPSET_OF_FLOAT8
    name = f"{dtype.name.lower()} + DQ"
    return Encoding(name, write, opset, reason="as the file had it", weight_bytes=size)


def _stored(node: Node, codes: WeightCodes, form: linear.Integers) -> Encoding:
    blocks = linear.blocks_of(node, codes.quant, origin_of(node))
    grid = blocks or linear.grid_of(node, codes.quant)
    opset = max(form.opset, OPSET_OF_BLOCKS) if blocks and not form.is_contrib else form.opset
    kind = form.type.name.lower()
    count = codes.tensor.size
    size = (count * 4, (count * form.width + 7) // 8)
    if (
        isinstance(grid, str)
        or not form.holds(grid.zero.min(), grid.zero.max())
        # A 32-bit DequantizeLinear with a zero point is not the same everywhere.
        or (form.width == 32 and np.any(grid.zero))
    ):
        return Encoding(
            f"{kind} + Cast + Mul",
            lambda emit: _cast_and_scale(emit, codes, form),
            form.opset,
            reason="scale or zero point that DequantizeLinear does not take",
            weight_bytes=size,
        )

    def write(emit: Emitter) -> Value:
        stored = emit.tensor("integers", codes.stored(form.type))
        return linear.dequantized(emit, form.clip(emit, stored), grid, form)

    name = f"{kind} + DQ" if form.is_full else f"{kind} + Clip + DQ"
    return Encoding(name, write, opset, weight_bytes=size)


def _cast_and_scale(emit: Emitter, codes: WeightCodes, form: linear.Integers) -> Value:
    stored = emit.tensor("integers", codes.stored(form.type))
    t = emit.add("Cast", [stored], to=int(onnx_ir.DataType.FLOAT))
    zero = codes.quant.zero_point if isinstance(codes.quant, IntQuant) else 0
    scale = np.asarray(codes.quant.scale, dtype=np.float32)
    return emit.scaled(t, scale, np.asarray(zero, dtype=np.float32))


def _folded(quant: Quantizer, tensor: TensorProtocol, reason: str) -> Encoding:
    def write(emit: Emitter) -> Value:
        values = emit.constant("values", quantize(tensor.numpy(), quant))
        return emit.add("Identity", [values])

    return Encoding("float values", write, reason=reason)
