"""Constants of a graph as numbers: float ones as they are, quantized ones as integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
from onnx.reference import ReferenceEvaluator
from onnx_ir import Node, Value

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.queries import producer
from qonnx_hub_ir.quantizers import Array, BipolarQuant, IntQuant, is_whole
from qonnx_hub_ir.semantics import quantize, quantize_to_integers


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """A quantized constant.

    Attributes:
        levels: Code minus zero point, int16.
        scale: float32, in the shape of the levels.
        quantizer: The node that quantizes it.
    """

    levels: Array
    scale: Array
    quantizer: Node

    def map(self, change: Any) -> Weight:
        """Return the weight with levels and scale moved alike."""
        return Weight(change(self.levels), change(self.scale), self.quantizer)


def read_weight(value: Value | None) -> Weight | str:
    """Return a quantized constant as integers, or why it is none."""
    node = producer(value)
    if node is None:
        return "its weight is not quantized"
    if dialect.is_quantizer(node):
        return _quantized(node)
    if not operators.moves_axes(node):
        return f"its weight comes from {node.op_type} '{node.name}'"
    inner = read_weight(node.inputs[0])
    if isinstance(inner, str):
        return inner
    moved = inner.map(lambda array: _moved(node, array))
    return "its weight is reshaped at run time" if moved.levels is None else moved


def _quantized(node: Node) -> Weight | str:
    tensor = dialect.constant_tensor(node.inputs[0])
    if tensor is None:
        return "its second factor is computed at run time"
    quant = dialect.read_quantizer(node)
    if not isinstance(quant, (IntQuant, BipolarQuant)):
        return f"the {node.op_type} of its weight has no integers"
    if any(parameter is None for parameter in dialect.parameters(quant)):
        return "its weight has parameters that are computed at run time"
    if tensor.dtype != onnx_ir.DataType.FLOAT:
        return f"its weight is {tensor.dtype.name}"
    scale = np.asarray(quant.scale, dtype=np.float32)
    if not np.all(np.isfinite(scale)):
        return "its weight has a scale that is not finite"
    try:
        levels = quantize_to_integers(tensor.numpy(), quant)
    except ValueError as error:
        return f"its weight has no integers: {error}"
    if isinstance(quant, IntQuant):
        zero = np.asarray(quant.zero_point, dtype=np.float64)
        if not is_whole(zero):
            return "its weight has a zero point that is no whole number"
        levels = levels - zero.astype(np.int64)
    if levels.max(initial=0) - levels.min(initial=0) > 255:
        return "its weight has more than 8 bits"
    if scale.size == 1:
        scale = scale.reshape(())
    return Weight(levels.astype(np.int16), np.broadcast_to(scale, levels.shape), node)


def read_number(value: Value | None) -> Array | None:
    """Return a constant as floats, quantized ones too; ``None`` where it is no constant."""
    known, node = dialect.constant_value(value), producer(value)
    if known is not None or node is None:
        return known
    if not dialect.is_quantizer(node):
        inner = read_number(node.inputs[0]) if operators.moves_axes(node) else None
        return None if inner is None else _moved(node, inner)
    tensor = dialect.constant_value(node.inputs[0])
    quant = dialect.read_quantizer(node)
    if tensor is None or any(p is None for p in dialect.parameters(quant)):
        return None
    return quantize(tensor, quant)


def quantizer_of(value: Value | None) -> Node | None:
    """Return the quantizer of a constant that :func:`read_number` gives, if it has one."""
    node = producer(value)
    while node is not None and not dialect.is_quantizer(node):
        node = producer(node.inputs[0]) if operators.moves_axes(node) else None
    return node


def _moved(node: Node, array: Array) -> Any:
    """Return the array as a node moves its axes; ``None`` if that is dynamic."""
    constants = [dialect.constant_value(value) for value in node.inputs[1:]]
    if any(constant is None for constant in constants):
        return None
    x, *rest = (f"x{index}" for index in range(len(node.inputs)))
    copy = onnx_ir.serde.serialize_node(node)
    copy.input[:], copy.output[:] = [x, *rest], ["y"]
    known = dict(zip(rest, constants, strict=True))
    (moved,) = ReferenceEvaluator(copy).run(["y"], {x: array, **known})
    return moved
