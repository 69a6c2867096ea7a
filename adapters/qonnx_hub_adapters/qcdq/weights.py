"""Quantized weights as stored integers: which type, and the codes, a block at a time.

A weight may be larger than memory allows to copy often. Its codes are computed block by block,
once to learn their range and once more when the file is written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Node, TensorProtocol, Value

from qonnx_hub_adapters.qcdq import linear
from qonnx_hub_adapters.qcdq.encoding_options import Encoding, Wishes
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.quantizers import Array, BipolarQuant, IntQuant, Quantizer, is_bipolar
from qonnx_hub_ir.semantics import quantize, quantize_to_integers

_BLOCK = 1 << 20
"""Elements per block."""


@dataclass(frozen=True, slots=True)
class Codes:
    """The integer codes of a weight.

    Attributes:
        tensor: The weight.
        quant: Its quantizer, every parameter known.
        low: Smallest code.
        high: Largest code.
    """

    tensor: TensorProtocol
    quant: IntQuant | BipolarQuant
    low: int
    high: int

    def stored(self, width: int, *, signed: bool) -> TensorProtocol:
        """Return the codes as a tensor of that integer type; large ones are computed late."""
        dtype = linear.integer_type(width, signed=signed)
        shape = [int(size) for size in dialect.known_shape(self.tensor).numpy()]

        def compute() -> TensorProtocol:
            codes = np.empty(shape, dtype=dtype.numpy())
            for rows, block in _blocks(self.tensor, self.quant):
                codes[rows] = block.astype(dtype.numpy())
            return onnx_ir.Tensor(codes, dtype=dtype)

        if self.tensor.size <= _BLOCK:
            return compute()
        return onnx_ir.LazyTensor(compute, dtype, onnx_ir.Shape(shape))


def codes_of(tensor: TensorProtocol, quant: IntQuant | BipolarQuant) -> Codes | None:
    """Return the codes of a weight; ``None`` where a value has none (NaN)."""
    low, high = 0, 0
    first = True
    try:
        for _, block in _blocks(tensor, quant):
            if block.size == 0:
                continue
            low = int(block.min()) if first else min(low, int(block.min()))
            high = int(block.max()) if first else max(high, int(block.max()))
            first = False
    except ValueError:
        return None
    return Codes(tensor, quant, low, high)


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

    if isinstance(quant, BipolarQuant):
        return BipolarQuant(part(quant.scale))
    return IntQuant(
        part(quant.scale),
        part(quant.zero_point),
        part(quant.bits),
        quant.signed,
        quant.narrow,
        quant.rounding,
    )


def encode_weight(
    node: Node, quant: Quantizer, tensor: TensorProtocol, wishes: Wishes
) -> Encoding:
    """Return how to store a quantized weight; there is always an exact way.

    Args:
        node: The quantizer of the weight.
        quant: What it says; every parameter is known.
        tensor: The weight.
        wishes: What the caller asks for.
    """
    if wishes.weights == "float" or wishes.encoding == "float":
        return _folded(quant, tensor, "")
    if not isinstance(quant, (IntQuant, BipolarQuant)):
        return _folded(quant, tensor, "has no integers")
    if tensor.dtype != onnx_ir.DataType.FLOAT:
        return _folded(quant, tensor, f"is {tensor.dtype.name}")
    finite = bool(np.all(np.isfinite(np.asarray(quant.scale))))
    codes = codes_of(tensor, quant) if finite else None
    if codes is None:
        return _folded(quant, tensor, "holds values without an integer")
    signed = not isinstance(quant, IntQuant) or quant.signed
    width = linear.width_for(*_range(quant, codes), signed=signed)
    if width is None:
        width, signed = linear.width_for(codes.low, codes.high, signed=True), True
    if width is None:
        return _folded(quant, tensor, "has integers beyond 32 bits")
    if width == 16 and max(wishes.opset, wishes.limit or 0) < 21:
        width, signed = 32, True
    return _stored(node, codes, _packed(codes, width, signed, wishes), signed)


def _range(quant: IntQuant | BipolarQuant, codes: Codes) -> tuple[int, int]:
    bounds = linear.bounds_of(quant) if isinstance(quant, IntQuant) else None
    if is_bipolar(quant) or bounds is None:
        return codes.low, codes.high
    return bounds


def _packed(codes: Codes, width: int, signed: bool, wishes: Wishes) -> int:
    """Return the narrowest type that is wished for and holds every code."""
    narrowest = {"int8": 8, "int4": 4, "int2": 2}[wishes.weights]
    for packed in (2, 4):
        low, high = linear.type_range(packed, signed=signed)
        if narrowest <= packed < width and low <= codes.low and codes.high <= high:
            return packed
    return width


def _stored(node: Node, codes: Codes, width: int, signed: bool) -> Encoding:
    grid = linear.grid_of(node, codes.quant)
    kind = f"{'' if signed else 'u'}int{width}"
    opset = linear.OPSET_OF_WIDTH[width]
    count = codes.tensor.size
    size = (count * 4, (count * width + 7) // 8)
    if isinstance(grid, str) or _zero_does_not_fit(grid, width, signed):
        return Encoding(
            f"{kind} + Cast + Mul",
            lambda emit: _cast_and_scale(emit, codes, width, signed),
            opset,
            reason="scale or zero point that DequantizeLinear does not take",
            weight_bytes=size,
        )

    limits = _limits(codes.quant, width, signed)

    def write(emit: Emitter) -> Value:
        stored = emit.tensor("integers", codes.stored(width, signed=signed))
        if limits is not None:
            form = linear.Integers(width, signed)
            stored = linear.clip_codes(emit, stored, *limits, form)
        return linear.dequantized(emit, stored, grid, width, signed=signed)

    name = f"{kind} + DQ" if limits is None else f"{kind} + Clip + DQ"
    return Encoding(name, write, opset, weight_bytes=size)


def _limits(
    quant: IntQuant | BipolarQuant, width: int, signed: bool
) -> tuple[int, int] | None:
    """Return the bounds to clip stored codes to, which change nothing.

    They say the bit width to those who read the file. Two levels need none, and only 8 and 32
    bits have a Clip.
    """
    bounds = linear.bounds_of(quant) if isinstance(quant, IntQuant) else None
    if bounds is None or is_bipolar(quant) or width not in (8, 32):
        return None
    return None if bounds == linear.type_range(width, signed=signed) else bounds


def _zero_does_not_fit(grid: linear.Grid, width: int, signed: bool) -> bool:
    low, high = linear.type_range(width, signed=signed)
    beyond = np.any(grid.zero < low) or np.any(grid.zero > high)
    # A 32-bit DequantizeLinear with a zero point is not the same everywhere.
    return bool(beyond or (width == 32 and np.any(grid.zero)))


def _cast_and_scale(emit: Emitter, codes: Codes, width: int, signed: bool) -> Value:
    quant = codes.quant
    stored = emit.tensor("integers", codes.stored(width, signed=signed))
    t = emit.add("Cast", [stored], to=int(onnx_ir.DataType.FLOAT))
    if isinstance(quant, IntQuant) and np.any(np.asarray(quant.zero_point)):
        zero = np.asarray(quant.zero_point, dtype=np.float32)
        t = emit.add("Sub", [t, emit.constant("zero_point", zero)])
    scale = np.asarray(quant.scale, dtype=np.float32)
    return emit.add("Mul", [t, emit.constant("scale", scale)])


def _folded(quant: Quantizer, tensor: TensorProtocol, reason: str) -> Encoding:
    def write(emit: Emitter) -> Value:
        values = emit.constant("values", quantize(tensor.numpy(), quant))
        return emit.add("Identity", [values])

    return Encoding("float values", write, reason=reason)
