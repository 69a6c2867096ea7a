"""From a trace to a verified IR model, in one of two forms.

The exact form is HAWQ's fixed-point arithmetic operator by operator, in its order.

The quant form is ``Quant`` nodes on real values, for FINN, hls4ml and QCDQ. HAWQ rounds twice
where it requantizes: onto the grid that it is given for the layer's input, then onto its own.
Models in the style of jet tagging give a QuantAct the grid of the previous activation only,
which is much coarser than the sums, so that the first rounding is part of what the network
learned: both are written. The first one is left out where the value is known to lie on that
grid already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx_ir import DataType, Model, Value

from qonnx_hub_adapters.hawq.graph import BATCH, UNIT, GraphWriter
from qonnx_hub_adapters.hawq.trace_data import (
    RANK,
    ActCall,
    Branch,
    Call,
    ForwardTrace,
    PlainCall,
    PoolCall,
    Ref,
    SourceGrid,
    WeightCall,
    shaped,
)
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.torch_common.framework import EXACT
from qonnx_hub_adapters.torch_common.modules import output_names
from qonnx_hub_ir import operators
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.graph.constants import channel_shape
from qonnx_hub_ir.quantizers import Array, Rounding

_MANTISSA_BITS = 31
_LARGEST_EXACT = 2.0**22
_AVERAGE_EPSILON = np.asarray(0.01, dtype=np.float32)
"""What HAWQ adds to an average before it drops the fraction, against 1.9999 for 2."""

_INTEGER_BITS = 32
"""Width of integers that are not clamped."""


@dataclass(frozen=True, slots=True)
class Assembled:
    """A model, and where in it the values of its trace are.

    Attributes:
        model: The verified IR model.
        names: Traced value -> name of the model's value.
    """

    model: Model
    names: Mapping[Ref, str]


def assemble(trace: ForwardTrace, mode: str, *, merge: bool) -> Assembled:
    """Return the IR model of a trace.

    Args:
        trace: The calls.
        mode: "exact" or "quant".
        merge: As in :class:`QuantForm`.
    """
    writer = GraphWriter(trace.name, output_names(len(trace.outputs)))
    form = QuantForm(writer, trace.shapes, merge=merge)
    for index, (given, shape) in enumerate(trace.inputs):
        first = [BATCH] if trace.open_batch else list(shape[:1])
        writer.input(Ref(index), given, [*first, *shape[1:]])
    for call in trace.calls:
        written = _emit_exact(writer, call) if mode == EXACT else form.emit(call)
        writer.values[call.output] = written
    model = read_model(writer.finish(trace.outputs))
    names = {call.output: str(writer.values[call.output].name) for call in trace.calls}
    return Assembled(model, names)


def dyadic_multiplier(source: Array, target: Array) -> Array:
    """Return ``source / target`` with a mantissa of 31 bits, as float64.

    HAWQ multiplies with the mantissa as an integer and then divides by a power of two; one
    float64 product with the quotient gives the same, for scaling by a power of two is exact.

    Args:
        source: Steps of the source grid, float32.
        target: Step of the target grid, one float32.
    """
    ratio = source.astype(np.float64) / target.astype(np.float64)
    mantissa, exponent = np.frexp(ratio)
    whole = np.floor(mantissa * 2.0**_MANTISSA_BITS + 0.5)
    return np.asarray(np.ldexp(whole, exponent - _MANTISSA_BITS), dtype=np.float64)


def _emit_exact(writer: GraphWriter, call: Call) -> Value:
    """Write one call in the exact form; return its value."""
    if isinstance(call, ActCall):
        return writer.op(call.layer, "Mul", [_exact_codes(writer, call), call.scale])
    if isinstance(call, WeightCall):
        x = writer.op(f"{call.layer}/Div", "Div", [writer.values[call.x], call.act_scale])
        sums = _weighted(writer, call, x, UNIT, UNIT, last=False)
        if call.attributes is None:
            sums = writer.op(f"{call.layer}/Round", "Round", [sums])
        return writer.op(call.layer, "Mul", [sums, call.out_scale])
    if isinstance(call, PoolCall):
        return _pool(writer, call)
    if call.op_type == "BatchNormalization":
        return _batch_norm(writer, call)
    return _plain(writer, call)


def _plain(writer: GraphWriter, call: PlainCall) -> Value:
    """Write a call outside of HAWQ's layers."""
    inputs = [
        writer.values[one]
        if isinstance(one, Ref)
        else writer.constant(f"{call.layer}/constant", one)
        for one in call.inputs
    ]
    known = {name: value for name, value in call.attributes.items() if name != RANK}
    return writer.op(call.layer, call.op_type, inputs, **known)


def _batch_norm(writer: GraphWriter, call: PlainCall) -> Value:
    """Write a batch norm as torch computes it on processors with fused multiply-add.

    That is one float32 product per channel and one float32 sum, each rounded once; in float64
    the product is exact, so that the sum is rounded (all but) once as well.
    """
    layer, x = call.layer, call.inputs[0]
    scale, shift, mean, variance = (
        operand for operand in call.inputs[1:] if isinstance(operand, np.ndarray)
    )
    if not isinstance(x, Ref):
        raise ValueError(f"layer '{layer}': a batch norm of a constant")  # noqa: TRY004
    epsilon = np.float32(call.attributes["epsilon"])
    # torch's own rounding: not the factor and offset that other adapters share.
    factor = np.asarray(
        np.float32(1.0) / np.sqrt(variance + epsilon) * scale, dtype=np.float32
    ).astype(np.float64)
    offset = (shift.astype(np.float64) - mean.astype(np.float64) * factor).astype(np.float32)
    columns = channel_shape(int(call.attributes[RANK]))
    wide = writer.cast(f"{layer}/Wide", writer.values[x], DataType.DOUBLE)
    scaled = writer.op(f"{layer}/Mul", "Mul", [wide, factor.reshape(columns)])
    rounded = offset.astype(np.float64).reshape(columns)
    total = writer.op(f"{layer}/Add", "Add", [scaled, rounded])
    return writer.cast(layer, total, DataType.FLOAT)


def _pool(writer: GraphWriter, call: PoolCall) -> Value:
    """Write an average whose fraction is dropped toward zero."""
    layer = call.layer
    codes = writer.op(f"{layer}/Div", "Div", [writer.values[call.x], call.scale])
    whole = writer.op(f"{layer}/Round", "Round", [codes])
    mean = writer.op(f"{layer}/Mean", call.op_type, [whole], **call.attributes)
    raised = writer.op(f"{layer}/Add", "Add", [mean, _AVERAGE_EPSILON])
    kept = writer.quant(f"{layer}/Integers", raised, _INTEGER_BITS, rounding=Rounding.DOWN)
    return writer.op(layer, "Mul", [kept, call.scale])


def _exact_codes(writer: GraphWriter, call: ActCall) -> Value:
    """Write the integers of a QuantAct; those of both branches of a sum are not clamped."""
    layer, x = call.layer, writer.values[call.x]
    if call.source is not None and call.beside is not None:
        other = writer.values[call.beside.x]
        branch = _requantized(
            writer, f"{layer}/identity", other, call.beside.source, call.scale
        )
        rest = writer.op(f"{layer}/Sub", "Sub", [x, other])
        main = _requantized(writer, f"{layer}/main", rest, call.source, call.scale)
        total = writer.op(f"{layer}/Sum", "Add", [branch, main])
        return writer.cast(f"{layer}/Narrow", total, DataType.FLOAT)
    if call.source is None:
        reciprocal = np.asarray(np.float32(1.0) / call.scale, dtype=np.float32)
        scaled = writer.op(f"{layer}/Scaled", "Mul", [x, reciprocal])
    else:
        moved = _requantized(writer, layer, x, call.source, call.scale)
        scaled = writer.cast(f"{layer}/Narrow", moved, DataType.FLOAT)
    return writer.quant(f"{layer}/Integers", scaled, call.bits, signed=call.signed)


def _requantized(
    writer: GraphWriter, name: str, x: Value, source: SourceGrid, target: Array
) -> Value:
    """Return the float64 integers of ``x`` on the target's grid."""
    x = writer.op(f"{name}/DivAct", "Div", [x, source.act_scale])
    if np.any(source.weight_scale != 1):
        x = writer.op(f"{name}/DivWeight", "Div", [x, source.weight_scale])
    whole = writer.op(f"{name}/Round", "Round", [x])
    wide = writer.cast(f"{name}/Wide", whole, DataType.DOUBLE)
    multiplier = dyadic_multiplier(source.step, target)
    scaled = writer.op(f"{name}/Rescale", "Mul", [wide, multiplier])
    return writer.op(f"{name}/RoundWide", "Round", [scaled])


def _weighted(
    writer: GraphWriter,
    call: WeightCall,
    x: Value,
    steps: Array,
    bias_steps: Array,
    *,
    last: bool,
) -> Value:
    """Return the product with the weights, plus the bias.

    Args:
        writer: The graph.
        call: The layer.
        x: What it works on.
        steps: Steps of the weights in the graph.
        bias_steps: Steps of the bias.
        last: Whether the sum has the layer's name.
    """
    layer = call.layer
    weight = call.stored_weight
    inputs = [x, _quantized(writer, f"{layer}/weight", weight, steps, call.bits)]
    if call.bias is not None:
        bias = _quantized(writer, f"{layer}/bias", call.bias, bias_steps, call.bias_bits)
        inputs.append(bias)
    op_type = "MatMul" if call.attributes is None else "Conv"
    if call.attributes is None and call.bias is not None:
        product = writer.op(f"{layer}/MatMul", "MatMul", inputs[:2])
        op_type, inputs = "Add", [product, inputs[2]]
    name = layer if last else f"{layer}/{op_type}"
    return writer.op(name, op_type, inputs, **(call.attributes or {}))


def _quantized(writer: GraphWriter, name: str, codes: Array, steps: Array, bits: int) -> Value:
    """Return integers as a quantized constant whose stored values lie on the grid."""
    stored = writer.constant(name, _on_grid(codes, steps, name))
    return writer.quant(f"{name}_quant", stored, bits, steps)


def _on_grid(codes: Array, scale: Array, name: str) -> Array:
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


class QuantForm:
    """Writes calls as ``Quant`` nodes; knows on which grid each value lies."""

    def __init__(
        self, writer: GraphWriter, shapes: Mapping[Ref, Sequence[int]], *, merge: bool
    ) -> None:
        """Begin a graph.

        Args:
            writer: The graph.
            shapes: Shape of each traced value, where known.
            merge: Leave the first of two quantizers out where it changes nothing.
        """
        self._writer = writer
        self._shapes = shapes
        self._merge = merge
        self._grids: dict[Ref, Array] = {}
        self._sums: dict[Ref, tuple[Ref, Ref]] = {}

    def emit(self, call: Call) -> Value:
        """Write one call into the graph; return its value."""
        if isinstance(call, WeightCall):
            return self._weights(call)
        if isinstance(call, PlainCall):
            value = _plain(self._writer, call)
            self._follow(call, value)
            return value
        self._grids[call.output] = call.scale
        return self._act(call) if isinstance(call, ActCall) else _pool(self._writer, call)

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

    def _on_source(self, name: str, ref: Ref, source: SourceGrid) -> Value:
        """Return a value on the source grid: as it is where it is known to lie there."""
        x, known = self._writer.values[ref], self._grids.get(ref)
        if known is not None and self._merge:
            first, second = np.broadcast_arrays(known, source.step)
            if np.array_equal(first, second):
                return x
        return self._writer.quant(f"{name}/SourceGrid", x, _INTEGER_BITS, source.step)

    def _act(self, call: ActCall) -> Value:
        layer, x = call.layer, self._writer.values[call.x]
        if call.source is not None and call.beside is not None:
            return self._residual(call, call.source, call.beside)
        if call.source is not None:
            x = self._on_source(layer, call.x, call.source)
        return self._writer.quant(layer, x, call.bits, call.scale, signed=call.signed)

    def _residual(self, call: ActCall, source: SourceGrid, other: Branch) -> Value:
        layer, writer = call.layer, self._writer
        beside = self._on_source(f"{layer}/identity", other.x, other.source)
        beside = writer.quant(
            f"{layer}/identity/TargetGrid", beside, _INTEGER_BITS, call.scale
        )
        operands = self._sums.get(call.x, ())
        main = [ref for ref in operands if ref != other.x]
        if len(operands) == 2 and len(main) == 1:
            # The sum is x + identity: x itself is what HAWQ gets back by subtracting.
            rest = self._on_source(f"{layer}/main", main[0], source)
        else:
            both = [writer.values[call.x], writer.values[other.x]]
            rest = writer.op(f"{layer}/Sub", "Sub", both)
            rest = writer.quant(f"{layer}/main/SourceGrid", rest, _INTEGER_BITS, source.step)
        rest = writer.quant(f"{layer}/main/TargetGrid", rest, _INTEGER_BITS, call.scale)
        return writer.op(layer, "Add", [beside, rest])

    def _weights(self, call: WeightCall) -> Value:
        known = self._grids.get(call.x)
        if known is not None and known.size == 1 and np.all(call.act_scale == known):
            self._grids[call.output] = call.out_scale
        # Weights are (in, out) for MatMul, (out, in, ...) for Conv.
        axes = (1,) * (call.weight.ndim - 1)
        columns = (1, -1) if call.attributes is None else (-1, *axes)
        steps, bias_steps = shaped(call.weight_scale, columns), shaped(call.out_scale, (-1,))
        x = self._writer.values[call.x]
        return _weighted(self._writer, call, x, steps, bias_steps, last=True)
