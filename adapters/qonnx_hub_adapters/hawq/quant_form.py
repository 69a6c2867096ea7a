"""The quant form: ``Quant`` nodes on real values, for FINN, hls4ml and QCDQ.

HAWQ rounds twice where it requantizes: onto the grid that it is given for the layer's
input, then onto its own. Models in the style of jet tagging give a QuantAct the grid of the
previous activation only, which is much coarser than the sums, so that the first rounding is
part of what the network learned: both are written. The first one is left out where the value
is known to lie on that grid already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx_ir import Value

from qonnx_hub_adapters.hawq.exact_form import INTEGER_BITS, emit_plain, emit_pool
from qonnx_hub_adapters.hawq.graph import GraphWriter
from qonnx_hub_adapters.hawq.trace_data import (
    ActCall,
    Call,
    PlainCall,
    PoolCall,
    Ref,
    SourceGrid,
    WeightCall,
)
from qonnx_hub_ir import operators
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.quantizers import Array

_LARGEST_EXACT = 2.0**22


class QuantForm:
    """Writes calls as ``Quant`` nodes; knows on which grid each value lies."""

    def __init__(self, shapes: Mapping[Ref, Sequence[int]], *, merge: bool = True) -> None:
        """Begin a graph.

        Args:
            shapes: Shape of each traced value, where known.
            merge: Leave the first of two quantizers out where it changes nothing.
        """
        self._shapes = shapes
        self._merge = merge
        self._grids: dict[Ref, Array] = {}
        self._sums: dict[Ref, tuple[Ref, Ref]] = {}

    def emit(self, writer: GraphWriter, call: Call) -> Value:
        """Write one call into the graph; return its value."""
        if isinstance(call, ActCall):
            self._grids[call.output] = call.scale
            return self._act(writer, call)
        if isinstance(call, WeightCall):
            return self._weights(writer, call)
        if isinstance(call, PoolCall):
            self._grids[call.output] = call.scale
            return emit_pool(writer, call)
        value = emit_plain(writer, call)
        self._follow(call, value)
        return value

    def _follow(self, call: PlainCall, value: Value) -> None:
        """Note what a torch function leaves of the grid of its inputs."""
        refs = [operand for operand in call.inputs if isinstance(operand, Ref)]
        node = value.producer()
        if node is None or not refs:
            return
        if call.op_type == "Add" and len(refs) == 2:
            self._sums[call.output] = (refs[0], refs[1])
        grid = self._grids.get(refs[0])
        if call.op_type == "Concat":
            grid = self._joined(call, refs)
        elif not operators.keeps_grid(node) or len(refs) > 1:
            grid = None
        # Steps by channel do not survive a change of the axes.
        keeps_channels = call.op_type == "Concat" or not operators.moves_values(node)
        if grid is not None and (grid.size == 1 or keeps_channels):
            self._grids[call.output] = grid

    def _joined(self, call: PlainCall, refs: Sequence[Ref]) -> Array | None:
        """Return the grids of branches along their channels, where all are known."""
        if call.attributes["axis"] != 1 or len(refs) != len(call.inputs):
            return None
        parts = []
        for ref in refs:
            grid, shape = self._grids.get(ref), self._shapes.get(ref, ())
            if grid is None or len(shape) != 4 or grid.size not in {1, shape[1]}:
                return None
            parts.append(np.broadcast_to(grid.reshape(-1), (shape[1],)))
        return np.concatenate(parts).reshape(1, -1, 1, 1)

    def _on_source(
        self, writer: GraphWriter, name: str, ref: Ref, source: SourceGrid
    ) -> Value:
        """Return a value on the source grid: as it is where it is known to lie there."""
        x, known = writer.values[ref], self._grids.get(ref)
        if known is not None and self._merge:
            first, second = np.broadcast_arrays(known, source.step)
            if np.array_equal(first, second):
                return x
        return writer.quant(f"{name}/SourceGrid", x, INTEGER_BITS, source.step)

    def _act(self, writer: GraphWriter, call: ActCall) -> Value:
        layer, x = call.layer, writer.values[call.x]
        if call.source is not None and call.identity is not None:
            return self._residual(writer, call, call.source, call.identity)
        if call.source is not None:
            x = self._on_source(writer, layer, call.x, call.source)
        return writer.quant(layer, x, call.bits, call.scale, signed=call.signed)

    def _residual(
        self, writer: GraphWriter, call: ActCall, source: SourceGrid, identity: Ref
    ) -> Value:
        layer = call.layer
        if call.identity_source is None:
            raise ValueError(f"layer '{layer}': the residual branch has no scale")
        beside = self._on_source(writer, f"{layer}/identity", identity, call.identity_source)
        beside = writer.quant(f"{layer}/identity/TargetGrid", beside, INTEGER_BITS, call.scale)
        operands = self._sums.get(call.x, ())
        main = [ref for ref in operands if ref != identity]
        if len(operands) == 2 and len(main) == 1:
            # The sum is x + identity: x itself is what HAWQ gets back by subtracting.
            rest = self._on_source(writer, f"{layer}/main", main[0], source)
        else:
            both = [writer.values[call.x], writer.values[identity]]
            rest = writer.op(f"{layer}/Sub", "Sub", both)
            rest = writer.quant(f"{layer}/main/SourceGrid", rest, INTEGER_BITS, source.step)
        rest = writer.quant(f"{layer}/main/TargetGrid", rest, INTEGER_BITS, call.scale)
        return writer.op(layer, "Add", [beside, rest])

    def _weights(self, writer: GraphWriter, call: WeightCall) -> Value:
        layer, is_conv = call.layer, call.attributes is not None
        shape = (-1, *(1,) * (call.weight.ndim - 1)) if is_conv else (1, -1)
        weight = _quantized(
            writer, f"{layer}/weight", call.stored_weight, call.weight_scale, shape, call.bits
        )
        inputs = [writer.values[call.x], weight]
        if call.bias is not None:
            steps, bits = call.out_scale.reshape(-1), call.bias_bits
            name = f"{layer}/bias"
            inputs.append(_quantized(writer, name, call.bias, steps, (-1,), bits))
        known = self._grids.get(call.x)
        if known is not None and known.size == 1 and np.all(call.act_scale == known):
            self._grids[call.output] = call.out_scale
        if call.attributes is not None:
            return writer.op(layer, "Conv", inputs, **call.attributes)
        if call.bias is None:
            return writer.op(layer, "MatMul", inputs)
        total = writer.op(f"{layer}/MatMul", "MatMul", inputs[:2])
        return writer.op(layer, "Add", [total, inputs[2]])


def _quantized(
    writer: GraphWriter,
    name: str,
    codes: Array,
    scale: Array,
    shape: tuple[int, ...],
    bits: int,
) -> Value:
    """Return integers as a quantized constant whose stored values lie on the grid."""
    steps = scale.reshape(()) if scale.size == 1 else scale.reshape(shape)
    stored = writer.constant(name, on_grid(codes, steps, name))
    return writer.quant(f"{name}_quant", stored, bits, steps)


def on_grid(codes: Array, scale: Array, name: str) -> Array:
    """Return float32 values that quantize to these integers.

    Integers from 2**22 on, which only biases are, may come out one float32 beside: there the
    quotient itself has no fraction left to be rounded.

    Raises:
        SourceError: There are none.
    """
    exact = np.asarray(codes * scale, dtype=np.float32)
    found = exact.copy()
    missing = np.ones(exact.shape, dtype=np.bool_)
    slack = np.where(np.abs(codes) < _LARGEST_EXACT, np.float32(0), np.spacing(np.abs(codes)))
    beside = [np.nextafter(exact, np.float32(end)) for end in (np.inf, -np.inf)]
    for values in (exact, *beside):
        fits = missing & (np.abs(np.rint(values / scale) - codes) <= slack)
        found[fits] = values[fits]
        missing &= ~fits
    if missing.any():
        raise SourceError(f"'{name}': integers that no float32 quantizes to")
    return np.asarray(found)
