"""The exact form: HAWQ's fixed-point arithmetic operator by operator, in its order."""

from __future__ import annotations

import numpy as np
from onnx_ir import DataType, Value

from qonnx_hub_adapters.hawq.graph import GraphWriter
from qonnx_hub_adapters.hawq.trace_data import (
    RANK,
    ActCall,
    Call,
    PlainCall,
    PoolCall,
    Ref,
    SourceGrid,
    WeightCall,
)
from qonnx_hub_ir.graph.constants import channel_shape
from qonnx_hub_ir.quantizers import Array, Rounding

_MANTISSA_BITS = 31
AVERAGE_EPSILON = np.asarray(0.01, dtype=np.float32)
"""What HAWQ adds to an average before it drops the fraction, against 1.9999 for 2."""

INTEGER_BITS = 32
"""Width of integers that are not clamped."""


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


def emit_exact(writer: GraphWriter, call: Call) -> Value:
    """Write one call into the graph; return its value."""
    if isinstance(call, ActCall):
        return _act(writer, call)
    if isinstance(call, WeightCall):
        return _weights(writer, call)
    if isinstance(call, PoolCall):
        return emit_pool(writer, call)
    if call.op_type == "BatchNormalization":
        return _batch_norm(writer, call)
    return emit_plain(writer, call)


def emit_plain(writer: GraphWriter, call: PlainCall) -> Value:
    """Write a call outside of HAWQ's layers into the graph."""
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


def emit_pool(writer: GraphWriter, call: PoolCall) -> Value:
    """Write an average whose fraction is dropped toward zero."""
    layer = call.layer
    codes = writer.op(f"{layer}/Div", "Div", [writer.values[call.x], call.scale])
    whole = writer.op(f"{layer}/Round", "Round", [codes])
    mean = writer.op(f"{layer}/Mean", call.op_type, [whole], **call.attributes)
    raised = writer.op(f"{layer}/Add", "Add", [mean, AVERAGE_EPSILON])
    kept = writer.quant(f"{layer}/Integers", raised, INTEGER_BITS, rounding=Rounding.DOWN)
    return writer.op(layer, "Mul", [kept, call.scale])


def _act(writer: GraphWriter, call: ActCall) -> Value:
    layer, x = call.layer, writer.values[call.x]
    if call.source is not None and call.identity is not None:
        codes = _residual(writer, call, call.source, call.identity)
        return writer.op(layer, "Mul", [codes, call.scale])
    if call.source is None:
        reciprocal = np.asarray(np.float32(1.0) / call.scale, dtype=np.float32)
        scaled = writer.op(f"{layer}/Scaled", "Mul", [x, reciprocal])
    else:
        moved = _requantized(writer, layer, x, call.source, call.scale)
        scaled = writer.cast(f"{layer}/Narrow", moved, DataType.FLOAT)
    codes = writer.quant(f"{layer}/Integers", scaled, call.bits, signed=call.signed)
    return writer.op(layer, "Mul", [codes, call.scale])


def _residual(writer: GraphWriter, call: ActCall, source: SourceGrid, identity: Ref) -> Value:
    """Write both branches of a sum on one grid. HAWQ does not clamp them."""
    layer, beside, x = call.layer, writer.values[identity], writer.values[call.x]
    if call.identity_source is None:
        raise ValueError(f"layer '{layer}': the residual branch has no scale")
    branch = _requantized(
        writer, f"{layer}/identity", beside, call.identity_source, call.scale
    )
    rest = writer.op(f"{layer}/Sub", "Sub", [x, beside])
    main = _requantized(writer, f"{layer}/main", rest, source, call.scale)
    total = writer.op(f"{layer}/Sum", "Add", [branch, main])
    return writer.cast(f"{layer}/Narrow", total, DataType.FLOAT)


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


def _weights(writer: GraphWriter, call: WeightCall) -> Value:
    layer = call.layer
    codes = writer.op(f"{layer}/Div", "Div", [writer.values[call.x], call.act_scale])
    weight = writer.constant(f"{layer}/weight", call.stored_weight)
    inputs = [codes, writer.quant(f"{layer}/weight_quant", weight, call.bits)]
    if call.bias is not None:
        bias = writer.constant(f"{layer}/bias", call.bias)
        inputs.append(writer.quant(f"{layer}/bias_quant", bias, call.bias_bits))
    if call.attributes is not None:
        total = writer.op(f"{layer}/Conv", "Conv", inputs, **call.attributes)
    else:
        total = writer.op(f"{layer}/MatMul", "MatMul", inputs[:2])
        if call.bias is not None:
            total = writer.op(f"{layer}/Add", "Add", [total, inputs[2]])
        total = writer.op(f"{layer}/Round", "Round", [total])
    return writer.op(layer, "Mul", [total, call.out_scale])
