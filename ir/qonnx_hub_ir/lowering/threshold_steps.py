"""MultiThreshold in standard operators: every threshold compared, what it reaches counted."""

from __future__ import annotations

import numpy as np
import onnx_ir
from onnx_ir import Node

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import attribute, dims
from qonnx_hub_ir.quantizers import Array
from qonnx_hub_ir.thresholds import channel_axis

_KNOWN_TYPES = frozenset(
    {onnx_ir.DataType.FLOAT, onnx_ir.DataType.FLOAT16, onnx_ir.DataType.DOUBLE}
)


def threshold_problem(node: Node) -> str:
    """Return why a MultiThreshold cannot be written as comparisons; empty if it can.

    Args:
        node: A node of the operator.
    """
    x, steps = node.inputs[0], dialect.constant_value(node.inputs[1])
    if steps is None:
        return "its thresholds are computed at run time"
    if x is None or x.dtype not in _KNOWN_TYPES:
        return "the type of its input is not known"
    if len(steps) == 1:
        return ""
    sizes = dims(x)
    if sizes is None:
        return "the rank of its input is not known"
    try:
        axis = channel_axis(str(attribute(node, "data_layout", "")), len(sizes))
    except ValueError as error:
        return str(error)
    if sizes[axis] != len(steps):
        return f"{len(steps)} channels of thresholds, {sizes[axis]} in the input"
    return ""


def write_comparisons(node: Node) -> None:
    """Put comparisons in the place of a MultiThreshold that has no problem.

    Before -> after::

        y = MultiThreshold(x, thresholds)
        n = ReduceSum(Cast(GreaterOrEqual(Unsqueeze(x, -1), thresholds)), -1)
        y = Add(Mul(Cast(n), out_scale), out_bias)
    """
    x, emit = node.inputs[0], Emitter(node)
    assert x is not None, "a node without problems has an input"
    assert x.dtype is not None, "and its type is known"
    last, dtype = emit.integers("last_axis", [-1]), x.dtype.numpy()
    steps = emit.constant("thresholds", _aligned(node).astype(dtype))
    reached = emit.add("GreaterOrEqual", [emit.add("Unsqueeze", [x, last]), steps])
    ones = emit.add("Cast", [reached], to=int(onnx_ir.DataType.INT32))
    count = emit.add("ReduceSum", [ones, last], keepdims=0)
    y = emit.add("Cast", [count], x, to=int(x.dtype))
    scale, bias = (
        np.asarray(attribute(node, name, default), dtype=dtype)
        for name, default in (("out_scale", 1.0), ("out_bias", 0.0))
    )
    if scale != 1:
        y = emit.add("Mul", [y, emit.constant("out_scale", scale)], x)
    if bias != 0:
        y = emit.add("Add", [y, emit.constant("out_bias", bias)], x)
    emit.replace_with(y)


def _aligned(node: Node) -> Array:
    """Return the thresholds, shaped to meet the channels of the data, steps last."""
    steps = dialect.constant_value(node.inputs[1])
    assert steps is not None, "a node without problems has constant thresholds"
    sizes = dims(node.inputs[0])
    if len(steps) == 1 or sizes is None:
        return np.asarray(steps[0])
    axis = channel_axis(str(attribute(node, "data_layout", "")), len(sizes))
    behind = (1,) * (len(sizes) - 1 - axis)
    return np.reshape(steps, (len(steps), *behind, steps.shape[1]))
