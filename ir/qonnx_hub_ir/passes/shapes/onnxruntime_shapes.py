"""Standard operators with the types and shapes of onnxruntime's own, for shape inference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir import Node, Value

from qonnx_hub_ir import dialect
from qonnx_hub_ir.lowering import onnxruntime_operators

_FLOAT = int(onnx_ir.DataType.FLOAT)


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
    channels_last = node.attributes.get("channels_last")
    if twin is None or (channels_last is not None and channels_last.value):
        return
    operands = [node.inputs[index] for index in twin.operands]
    if any(operand is None for operand in operands):
        return
    inputs = [_cast(node, operand) for operand in operands if operand is not None]
    if node.op_type == "QLinearReduceMean":
        inputs.append(_axes(node))
    attributes = [node.attributes[name] for name in twin.kept if name in node.attributes]
    result = Node("", twin.op_type, inputs, attributes, num_outputs=1)
    result.outputs[0].name = f"{node.outputs[0].name}_float"
    node.prepend(result)
    last: list[Value | None] = [result.outputs[0]]
    is_float = twin.like is None or (node.op_type == "QGemm" and _input(node, 7) is None)
    if not is_float and twin.like is not None:
        last.append(node.inputs[twin.like])
    node.attributes.clear()
    node.domain, node.op_type = "", "Identity" if is_float else "CastLike"
    node.resize_inputs(len(last))
    for index, value in enumerate(last):
        node.replace_input_with(index, value)


def _twin_of(node: Node) -> _Twin | None:
    if node.domain != onnxruntime_operators.DOMAIN:
        return None
    count = len(node.inputs)
    if node.op_type == "QLinearConcat":
        return _Twin("Concat", tuple(range(2, count, 3)), 2, ("axis",))
    if node.op_type == "QLinearWhere":
        # What is chosen from broadcasts with the condition, as in a sum of all three.
        return _Twin("Sum", (0, 1, 4), 1)
    return _TWINS.get(node.op_type)


def _input(node: Node, index: int) -> Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _cast(node: Node, value: Value) -> Value:
    attribute = onnx_ir.AttrInt64("to", _FLOAT)
    cast = Node("", "Cast", [value], [attribute], num_outputs=1)
    cast.outputs[0].name = f"{node.outputs[0].name}_{value.name}_float"
    node.prepend(cast)
    return cast.outputs[0]


def _axes(node: Node) -> Value:
    axes = np.array(node.attributes["axes"].value, dtype=np.int64)
    assert isinstance(node.graph, onnx_ir.Graph), "functions are inlined on import"
    return dialect.add_initializer(node.graph, f"{node.outputs[0].name}_axes", axes)
