"""Standard operators with the types and shapes of onnxruntime's own, for shape inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Node, Value

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.queries import attribute, input_of
from qonnx_hub_ir.lowering import onnxruntime_operators

_FLOAT = int(onnx_ir.DataType.FLOAT)

_OPSET_OF_AXES = 18
"""The first opset in which ReduceMean takes its axes as an input."""

_OPSET_WITHOUT_BIAS = 11
"""The first opset in which Gemm needs no bias."""


@dataclass(frozen=True, slots=True)
class _Twin:
    """The float operator whose shapes an integer operator has.

    Attributes:
        op_type: Its name.
        operands: Which inputs of the integer operator it takes; the others are parameters.
        like: Which input has the type of the result; ``None`` where that is float32.
        kept: Attributes that both have.
    """

    op_type: str
    operands: tuple[int, ...]
    like: int | None = 0
    kept: tuple[str, ...] = ()


_WINDOW = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")

_TWINS: Mapping[str, _Twin] = {
    "DynamicQuantizeMatMul": _Twin("MatMul", (0, 1), None),
    "MatMulIntegerToFloat": _Twin("MatMul", (0, 1), None),
    "QGemm": _Twin("Gemm", (0, 3), 0, ("transA", "transB")),
    "QLinearAdd": _Twin("Add", (0, 3)),
    "QLinearAveragePool": _Twin("AveragePool", (0,), 0, _WINDOW),
    "QLinearGlobalAveragePool": _Twin("GlobalAveragePool", (0,)),
    "QLinearLeakyRelu": _Twin("Identity", (0,)),
    "QLinearMul": _Twin("Mul", (0, 3)),
    "QLinearReduceMean": _Twin("ReduceMean", (0,), 0, ("keepdims",)),
    "QLinearSigmoid": _Twin("Identity", (0,)),
    "QLinearSoftmax": _Twin("Identity", (0,)),
}


def stand_in(node: Node) -> None:
    """Replace one of onnxruntime's operators by standard ones of the same types and shapes.

    An operator without a rule is left as it is, and tells nothing of what it makes.
    """
    twin = _twin_of(node)
    if twin is None or attribute(node, "channels_last", 0):
        return
    operands = [v for index in twin.operands if (v := input_of(node, index)) is not None]
    if len(operands) < len(twin.operands):
        return
    stem = node.outputs[0].name
    inputs = [
        _inserted(node, f"{stem}_{value.name}_float", "Cast", [value], {"to": _FLOAT})
        for value in operands
    ]
    kept = {name: node.attributes[name].value for name in twin.kept if name in node.attributes}
    assert isinstance(node.graph, onnx_ir.Graph), "functions are inlined on import"
    opset = node.graph.opset_imports.get("", _OPSET_OF_AXES)
    if node.op_type == "QGemm" and opset < _OPSET_WITHOUT_BIAS:
        nothing = np.zeros(1, dtype=np.float32)
        inputs.append(dialect.add_initializer(node.graph, f"{stem}_bias", nothing))
    if node.op_type == "QLinearReduceMean":
        axes = list(attribute(node, "axes", ()))
        if opset < _OPSET_OF_AXES:
            kept["axes"] = axes
        else:
            numbers = np.array(axes, dtype=np.int64)
            inputs.append(dialect.add_initializer(node.graph, f"{stem}_axes", numbers))
    last: list[Value | None] = [_inserted(node, f"{stem}_float", twin.op_type, inputs, kept)]
    is_float = twin.like is None or (node.op_type == "QGemm" and input_of(node, 7) is None)
    if not is_float and twin.like is not None:
        last.append(node.inputs[twin.like])
    node.attributes.clear()
    node.domain, node.op_type = "", "Identity" if is_float else "CastLike"
    node.resize_inputs(len(last))
    for index, value in enumerate(last):
        node.replace_input_with(index, value)


def _inserted(
    node: Node, name: str, op_type: str, inputs: Sequence[Value], attributes: dict[str, Any]
) -> Value:
    """Return the output, of that name, of a new node in front of another."""
    fresh = onnx_ir.node(op_type, inputs, attributes)
    fresh.outputs[0].name = name
    node.prepend(fresh)
    return fresh.outputs[0]


def _twin_of(node: Node) -> _Twin | None:
    if node.domain != onnxruntime_operators.DOMAIN:
        return None
    count = len(node.inputs)
    if node.op_type == "QLinearConcat":
        return _Twin("Concat", tuple(range(2, count, 3)), 2, ("axis",))
    if node.op_type == "QLinearWhere":
        # What is chosen from broadcasts with the condition, as in a sum of all three.
        return _Twin("Sum", (0, 1, 4), 1)
    if node.op_type in _TYPE_OF_RESULT and _has_whole_bytes(input_of(node, 2)):
        return _Twin("Identity", (0,), _TYPE_OF_RESULT[node.op_type])
    return _TWINS.get(node.op_type)


_TYPE_OF_RESULT = {"QuantizeLinear": 2, "DequantizeLinear": 1}
"""Quantizer -> which of its inputs has the type of its result."""


def _has_whole_bytes(zero: Value | None) -> bool:
    """Return whether a zero point has a type that every opset casts."""
    return zero is not None and zero.dtype is not None and zero.dtype.bitwidth >= _BYTE


_BYTE = 8
