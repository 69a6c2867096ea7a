"""The quant form: ``Quant`` nodes on real values, for FINN, hls4ml and QCDQ.

HAWQ rounds twice where it requantizes: onto the grid that the layer was told its input lies
on, then onto its own. Models in the style of jet tagging tell a QuantAct the grid of the
previous activation only, which is much coarser than the sums, so that the first rounding is
part of what the network learned: both are written. The first one is left out where the value
is known to lie on that grid already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx_ir import Value

from qonnx_hub_adapters.hawq.exact_form import (
    INTEGER_BITS,
    emit_plain,
    emit_pool,
    stored_weight,
)
from qonnx_hub_adapters.hawq.graph import GraphWriter
from qonnx_hub_adapters.hawq.trace_data import (
    ActCall,
    Call,
    PlainCall,
    PoolCall,
    Ref,
    Requantization,
    WeightCall,
)
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.quantizers import Array

_KEEPS_GRID = frozenset({"Relu", "MaxPool", "Flatten", "Reshape", "Transpose", "Identity"})
_LARGEST_EXACT = 2.0**22
_MOVES_CHANNELS = frozenset({"Flatten", "Reshape", "Transpose"})


class QuantForm:
    """Writes calls as ``Quant`` nodes; knows on which grid each value lies."""

    def __init__(self, shapes: Mapping[int, Sequence[int]], *, merge: bool = True) -> None:
        """Begin a graph.

        Args:
            shapes: Shape of each traced value, where known.
            merge: Leave the first of two quantizers out where it changes nothing.
        """
        self._shapes = shapes
        self._merge = merge
        self._grids: dict[int, Array] = {}
        self._sums: dict[int, tuple[Ref, Ref]] = {}

    def emit(self, writer: GraphWriter, call: Call) -> None:
        """Write one call into the graph."""
        if isinstance(call, ActCall):
            self._act(writer, call)
        elif isinstance(call, WeightCall):
            self._weights(writer, call)
        elif isinstance(call, PoolCall):
            emit_pool(writer, call)
            self._grids[call.output.index] = call.scale
        else:
            emit_plain(writer, call)
            self._follow(call)

    def _follow(self, call: PlainCall) -> None:
        """Note what a torch function leaves of the grid of its inputs."""
        refs = [operand for operand in call.inputs if isinstance(operand, Ref)]
        if call.op_type == "Add" and len(refs) == 2:
            self._sums[call.output.index] = (refs[0], refs[1])
        if call.op_type == "Concat":
            self._join(call, refs)
        grid = self._grids.get(refs[0].index) if refs else None
        if call.op_type not in _KEEPS_GRID or grid is None:
            return
        if grid.size == 1 or call.op_type not in _MOVES_CHANNELS:
            self._grids[call.output.index] = grid

    def _join(self, call: PlainCall, refs: Sequence[Ref]) -> None:
        """Note the grids of branches along their channels, where all are known."""
        shapes = [self._shapes.get(ref.index, ()) for ref in refs]
        grids = [self._grids.get(ref.index) for ref in refs]
        if call.attributes["axis"] != 1 or len(refs) != len(call.inputs):
            return
        parts = []
        for grid, shape in zip(grids, shapes, strict=True):
            if grid is None or len(shape) != 4 or grid.size not in {1, shape[1]}:
                return
            parts.append(np.broadcast_to(grid.reshape(-1), (shape[1],)))
        self._grids[call.output.index] = np.concatenate(parts).reshape(1, -1, 1, 1)

    def _lies_on(self, ref: Ref, grid: Array) -> bool:
        known = self._grids.get(ref.index)
        if known is None or not self._merge:
            return False
        first, second = np.broadcast_arrays(known, grid)
        return bool(np.array_equal(first, second))

    def _act(self, writer: GraphWriter, call: ActCall) -> None:
        layer, x = call.layer, writer.get(call.x)
        if call.source is not None and call.identity is not None:
            value = self._residual(writer, call, call.source, call.identity)
        else:
            if call.source is not None and not self._lies_on(call.x, call.source.grid):
                grid = call.source.grid
                x = writer.quant(f"{layer}/SourceGrid", x, grid, INTEGER_BITS)
            value = writer.quant(layer, x, call.scale, call.bits, signed=call.signed)
        writer.set(call.output, value)
        self._grids[call.output.index] = call.scale

    def _residual(
        self, writer: GraphWriter, call: ActCall, source: Requantization, identity: Ref
    ) -> Value:
        layer = call.layer
        if call.identity_source is None:
            raise ValueError(f"layer '{layer}': the residual branch has no scale")
        beside = self._branch(writer, call, "identity", identity, call.identity_source)
        operands = self._sums.get(call.x.index, ())
        main = [ref for ref in operands if ref != identity]
        if len(operands) == 2 and len(main) == 1:
            # The sum is x + identity: x itself is what HAWQ gets back by subtracting.
            rest = self._branch(writer, call, "main", main[0], source)
        else:
            x = writer.op(f"{layer}/Sub", "Sub", [writer.get(call.x), writer.get(identity)])
            rest = self._moved(writer, f"{layer}/main", x, source.grid, call.scale)
        return writer.op(layer, "Add", [beside, rest])

    def _branch(
        self, writer: GraphWriter, call: ActCall, role: str, ref: Ref, source: Requantization
    ) -> Value:
        name, x = f"{call.layer}/{role}", writer.get(ref)
        grid = None if self._lies_on(ref, source.grid) else source.grid
        return self._moved(writer, name, x, grid, call.scale)

    @staticmethod
    def _moved(
        writer: GraphWriter, name: str, x: Value, grid: Array | None, scale: Array
    ) -> Value:
        if grid is not None:
            x = writer.quant(f"{name}/SourceGrid", x, grid, INTEGER_BITS)
        return writer.quant(f"{name}/TargetGrid", x, scale, INTEGER_BITS)

    def _weights(self, writer: GraphWriter, call: WeightCall) -> None:
        layer, x = call.layer, writer.get(call.x)
        is_conv = call.attributes is not None
        shape = (-1, *(1,) * (call.weight.ndim - 1)) if is_conv else (1, -1)
        weight = _quantized(
            writer, f"{layer}/weight", stored_weight(call), call.weight_scale, shape, call.bits
        )
        bias = None
        if call.bias is not None and call.bias_bits is not None:
            steps = call.out_scale.reshape(-1)
            bias = _quantized(writer, f"{layer}/bias", call.bias, steps, (-1,), call.bias_bits)
        if is_conv:
            inputs = [x, weight] if bias is None else [x, weight, bias]
            value = writer.op(layer, "Conv", inputs, **(call.attributes or {}))
        elif bias is None:
            value = writer.op(layer, "MatMul", [x, weight])
        else:
            total = writer.op(f"{layer}/MatMul", "MatMul", [x, weight])
            value = writer.op(layer, "Add", [total, bias])
        writer.set(call.output, value)
        if self._on(call.x, call.act_scale):
            self._grids[call.output.index] = call.out_scale

    def _on(self, ref: Ref, scale: Array) -> bool:
        known = self._grids.get(ref.index)
        return known is not None and known.size == 1 and bool(np.all(scale == known))


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
    return writer.quant(f"{name}_quant", stored, steps, bits)


def _beside(values: Array, direction: float) -> Array:
    return np.asarray(np.nextafter(values, np.float32(direction)), dtype=np.float32)


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
    for direction in (0.0, np.inf, -np.inf):
        values = exact if not direction else _beside(exact, direction)
        fits = missing & (np.abs(np.rint(values / scale) - codes) <= slack)
        found[fits] = values[fits]
        missing &= ~fits
    if missing.any():
        raise SourceError(f"'{name}': integers that no float32 quantizes to")
    return np.asarray(found)
