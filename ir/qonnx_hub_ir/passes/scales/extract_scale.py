"""Scales and zero points stand outside of quantizers, as operators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir import Graph, Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.constants import without_extra_axes
from qonnx_hub_ir.quantizers import Array, IntQuant


@dataclass(frozen=True)
class ExtractScale(InPlacePass):
    """Write a quantizer's scale and zero point as operators around a quantizer of scale 1.

    Before -> after::

        y = Quant(x, s, z, b)
        y = Mul(Sub(Quant(Add(Div(x, s), z), 1, 0, b), z), s)

    Exact for float32: these are the very operations that define a Quant, in their order, and
    every step between them is a float32 value (a FloatQuant has no zero point; a BipolarQuant
    only compares with 0, so that nothing is divided). Operators that would do nothing are not
    written. A NaN stays what it was.

    Does not fire where scale and zero point are 1 and 0, on Trunc, whose two scales belong
    together, on run-time scales and zero points, and on other float types, which would be
    rounded between the steps.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        modified = False
        for node in list(model.graph.all_nodes()):
            modified |= _extract(node)
        return PassResult(model, modified=modified)


def _extract(node: Node) -> bool:
    if not dialect.is_quantizer(node) or node.op_type == "Trunc":
        return False
    x, graph = node.inputs[0], node.graph
    if x is None or x.dtype != onnx_ir.DataType.FLOAT or not isinstance(graph, Graph):
        return False
    quant = dialect.read_quantizer(node)
    zero = quant.zero_point if isinstance(quant, IntQuant) else np.zeros((), dtype=np.float32)
    if quant.scale is None or zero is None:
        return False
    if not np.any(quant.scale != 1) and not np.any(zero):
        return False
    _write(Emitter(node), node, x, quant.scale, zero)
    return True


def _write(emit: Emitter, node: Node, x: Value, scale: Array, zero: Array) -> None:
    has_scale, has_zero = bool(np.any(scale != 1)), bool(np.any(zero))
    divides = has_scale and node.op_type != "BipolarQuant"
    value = x
    if divides:
        factor = emit.constant("scale", without_extra_axes(scale))
        value = emit.add("Div", [value, factor], x)
    if has_zero:
        offset = emit.constant("zero_point", without_extra_axes(zero))
        value = emit.add("Add", [value, offset], x)
    inner = _unit_quantizer(emit, node, value)
    node.prepend(inner)
    value = inner.outputs[0]
    if has_zero:
        offset = emit.constant("zero_point", without_extra_axes(zero))
        value = emit.add("Sub", [value, offset], x)
    if has_scale:
        value = emit.add("Mul", [value, emit.constant("scale", without_extra_axes(scale))])
    emit.replace_with(value)


def _unit_quantizer(emit: Emitter, node: Node, x: Value) -> Node:
    """Return the node with scale 1 and zero point 0, on another input."""
    one = emit.constant("unit_scale", np.ones((), dtype=np.float32))
    inputs: list[Value | None] = [x, one, *node.inputs[2:]]
    if node.op_type == "Quant":
        inputs[2] = emit.constant("no_zero_point", np.zeros((), dtype=np.float32))
    fresh = Node(
        node.domain,
        node.op_type,
        inputs,
        list(node.attributes.values()),
        num_outputs=1,
        name=node.name,
    )
    out = fresh.outputs[0]
    out.name, out.type, out.shape = f"{node.name}_codes", x.type, x.shape
    return fresh
