"""Where each requantizing operator has its operands, and the float operator it stands for.

One table for both directions: reading puts the float operator between quantizers, and writing
gives back the operator from which such a float layer was read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnx_ir import Node, Value

from qonnx_hub_ir import operators
from qonnx_hub_ir.lowering.onnxruntime_operators import DOMAIN as CONTRIB

WINDOW = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
"""Attributes of convolutions."""

ORIGIN = "qonnx_hub.origin"
"""Metadata key of a float layer: the integer operator that it was read from. It only chooses
between operators that compute the same; every number is read from the graph."""


TO_FLOATS = " to floats"
"""Behind the name of an origin that made floats, and might have made integers."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Inputs and attributes of an integer operator whose output is requantized.

    Attributes:
        float_op: The operator on values.
        operands: Positions of the integers; scale and zero point follow each. All from the
            second on, three apart, where it is variadic.
        y: Position of the output's scale; its zero point follows.
        domain: Its domain.
        attributes: Attributes that both operators have.
        bias: Position of an int32 bias, whose scale is that of the sums.
        adds_first: Whether the result is rounded with the zero point added.
        is_product: Whether the second operand is multiplied and summed: it may have scales
            per channel.
        leading: Inputs of the float operator in front of its operands, at the same positions.
    """

    float_op: str
    operands: tuple[int, ...]
    y: int
    domain: str = CONTRIB
    attributes: tuple[str, ...] = ()
    bias: int | None = None
    adds_first: bool = False
    is_product: bool = False
    leading: int = 0


LAYOUTS: Mapping[str, Layout] = {
    "QGemm": Layout(
        *("Gemm", (0, 3), 7),
        attributes=("alpha", "transA", "transB"),
        bias=6,
        is_product=True,
    ),
    "QLinearAdd": Layout("Add", (0, 3), 6, adds_first=True),
    "QLinearAveragePool": Layout(
        *("AveragePool", (0,), 3),
        attributes=(
            *("auto_pad", "ceil_mode", "count_include_pad"),
            *("kernel_shape", "pads", "strides"),
        ),
        adds_first=True,
    ),
    "QLinearConcat": Layout("Concat", (2,), 0, attributes=("axis",)),
    "QLinearConv": Layout(
        "Conv", (0, 3), 6, domain="", attributes=WINDOW, bias=8, is_product=True
    ),
    "QLinearGlobalAveragePool": Layout("GlobalAveragePool", (0,), 3),
    "QLinearLeakyRelu": Layout("LeakyRelu", (0,), 3, attributes=("alpha",)),
    "QLinearMatMul": Layout("MatMul", (0, 3), 6, domain="", is_product=True),
    "QLinearMul": Layout("Mul", (0, 3), 6, adds_first=True),
    "QLinearReduceMean": Layout("ReduceMean", (0,), 3, attributes=("keepdims",)),
    "QLinearSigmoid": Layout("Sigmoid", (0,), 3),
    "QLinearSoftmax": Layout("Softmax", (0,), 3, attributes=("axis",)),
    "QLinearWhere": Layout("Where", (1, 4), 7, leading=1),
}
"""Operator -> its layout."""

SUMS = operators.names(
    lambda row: row.product and row.product.is_integer and not row.product.scales
)
"""Origins whose results are the sums themselves."""

STANDARD = SUMS | {name for name, layout in LAYOUTS.items() if not layout.domain}
"""Origins of the standard; the others are onnxruntime's own."""


def weight_axis(float_op: str, attributes: Mapping[str, Any]) -> int | None:
    """Return the axis of the output channels in the weight of a float layer.

    ``None`` for operators none of whose operands may have scales per channel.
    """
    if float_op == "Conv":
        return 0
    if float_op == "Gemm":
        return 0 if attributes.get("transB", 0) else -1
    return -1 if float_op == "MatMul" else None


def note_origin(values: Value, node: Node, *, requantized: bool = True) -> None:
    """Write on the node that makes values which operator it was read from; it takes its name.

    Args:
        values: The result of the float operator.
        node: The integer operator, which will be removed.
        requantized: Whether its result are integers, where it could make floats as well.
    """
    layer = values.producer()
    assert layer is not None, "a node was just made"
    layer.metadata_props[ORIGIN] = node.op_type if requantized else node.op_type + TO_FLOATS
    layer.name = node.name
