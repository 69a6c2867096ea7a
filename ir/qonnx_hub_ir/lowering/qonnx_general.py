"""Operators of QONNX' general domain that are no quantizers: their rules and their shapes.

``QuantAvgPool2d`` sums windows of integers and shifts the sums right; ``MaxPoolNHWC`` is
MaxPool with the channels last; ``XnorPopcountMatMul`` counts equal bits, as a matrix product;
and ``DebugMarker`` hands on what it reads.

Source: qonnx 1.0.0, ``custom_op/general``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx_ir
from onnx_ir import Node, Value

from qonnx_hub_ir.dialect import DOMAIN
from qonnx_hub_ir.lowering.onnxruntime_operators import Signature

_WINDOW = frozenset({"stride", "kernel", "ibits", "obits", "signed"})
_POOL = frozenset({"kernel_shape", "pads", "strides"})

SIGNATURES: Mapping[str, Signature] = {
    "DebugMarker": Signature(1, 1, frozenset({"export_debug_name"})),
    "MaxPoolNHWC": Signature(1, 1, _POOL | {"ceil_mode"}, _POOL),
    "QuantAvgPool2d": Signature(1, 1, _WINDOW | {"data_layout"}, _WINDOW),
    "XnorPopcountMatMul": Signature(2, 2),
}
"""Operator -> what a node may have."""


def is_general(node: Node) -> bool:
    """Return whether the node is one of these operators."""
    return node.domain == DOMAIN and node.op_type in SIGNATURES


def is_channels_last(node: Node) -> bool:
    """Return whether a pool of these reads images with the channels last."""
    layout = node.attributes.get("data_layout")
    return node.op_type == "MaxPoolNHWC" or (layout is not None and layout.value == "NHWC")


def shift_of(ibits: int, kernel: int, obits: int) -> int:
    """Return by how many bits a QuantAvgPool2d shifts its sums right."""
    largest = ((1 << ibits) - 1) * kernel * kernel
    return max(0, largest.bit_length() - obits)


def stand_in(node: Node) -> None:
    """Replace a node, in a copy made for shape inference, by one of the same shapes."""
    if not is_general(node):
        return
    if node.op_type == "DebugMarker":
        _become(node, "Identity", {})
    elif node.op_type == "XnorPopcountMatMul":
        _become(node, "MatMul", {})
    else:
        _pool_stand_in(node)


def _pool_stand_in(node: Node) -> None:
    given = {name: attr.value for name, attr in node.attributes.items()}
    if node.op_type == "MaxPoolNHWC":
        attributes = {name: value for name, value in given.items() if value != []}
    else:
        kernel, stride = int(given["kernel"]), int(given["stride"])
        attributes = {"kernel_shape": [kernel, kernel], "strides": [stride, stride]}
    source = node.inputs[0]
    if not is_channels_last(node):
        _become(node, "AveragePool", attributes)
        return
    first = _inserted(node, "Transpose", source, perm=[0, 3, 1, 2])
    pooled = _inserted(node, "MaxPool", first, **attributes)
    _become(node, "Transpose", {"perm": [0, 2, 3, 1]})
    node.replace_input_with(0, pooled)


def _become(node: Node, op_type: str, attributes: Mapping[str, Any]) -> None:
    node.domain, node.op_type = "", op_type
    node.attributes.clear()
    fresh = onnx_ir.node(op_type, list(node.inputs), attributes)
    node.attributes.update(fresh.attributes)
    for index in range(len(fresh.inputs)):
        fresh.replace_input_with(index, None)


def _inserted(node: Node, op_type: str, source: Value | None, **attributes: Any) -> Value:
    fresh = onnx_ir.node(op_type, [source], attributes)
    fresh.outputs[0].name = f"{node.outputs[0].name}_{op_type}"
    node.prepend(fresh)
    return fresh.outputs[0]
