"""Scales and zero points stand outside of quantizers, as operators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import Emitter, copy_node
from qonnx_hub_ir.graph.constants import without_extra_axes
from qonnx_hub_ir.graph.rewriting import rewrite_nodes
from qonnx_hub_ir.quantizers import IntQuant


@dataclass(frozen=True)
class ExtractScale(InPlacePass):
    """Write a quantizer's scale and zero point as operators around a quantizer of scale 1.

    Before -> after::

        y = Quant(x, s, z, b)
        y = Mul(Sub(Quant(Add(Div(x, s), z), 1, 0, b), z), s)

    Exact for float32: these are the very operations that define a Quant, in their order, and
    every step between them is a float32 value (a FloatQuant has no zero point; a BipolarQuant
    only compares with 0, so that nothing is divided). A zero point that is added after
    rounding stays inside. Operators that would do nothing are not written. A NaN stays what
    it was.

    Does not fire where scale and zero point are 1 and 0, on Trunc, whose two scales belong
    together, on run-time scales and zero points, and on other float types, which would be
    rounded between the steps.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        return PassResult(model, modified=rewrite_nodes(model.graph, _extract))


def _extract(node: Node) -> bool:
    if not dialect.is_quantizer(node) or node.op_type == "Trunc":
        return False
    x = node.inputs[0]
    if x is None or x.dtype != onnx_ir.DataType.FLOAT:
        return False
    quant = dialect.read_quantizer(node)
    zero = quant.zero_point if isinstance(quant, IntQuant) else np.zeros((), dtype=np.float32)
    if quant.scale is None or zero is None:
        return False
    if isinstance(quant, IntQuant) and quant.zero_point_after_rounding:
        zero = np.zeros((), dtype=np.float32)
    if not np.any(quant.scale != 1) and not np.any(zero):
        return False
    emit, value = Emitter(node), x
    if np.any(quant.scale != 1) and node.op_type != "BipolarQuant":
        factor = emit.constant("scale", without_extra_axes(quant.scale))
        value = emit.add("Div", [value, factor], x)
    if np.any(zero):
        offset = emit.constant("zero_point", without_extra_axes(zero))
        value = emit.add("Add", [value, offset], x)
    codes = _unit_quantizer(emit, node, value)
    emit.replace_with(emit.scaled(codes, quant.scale, zero, x))
    return True


def _unit_quantizer(emit: Emitter, node: Node, x: Value) -> Value:
    """Return the output of the node with scale 1 on another input.

    Its zero point is 0, but where it is added after rounding.
    """
    one = emit.constant("unit_scale", np.ones((), dtype=np.float32))
    inputs: list[Value | None] = [x, one, *node.inputs[2:]]
    if node.op_type == "Quant" and dialect.ORDER not in node.attributes:
        inputs[2] = emit.constant("no_zero_point", np.zeros((), dtype=np.float32))
    fresh = copy_node(node, inputs, name=str(node.name))
    out = fresh.outputs[0]
    out.name, out.type, out.shape = f"{node.name}_codes", x.type, x.shape
    out.metadata_props.clear()
    return emit.insert(fresh)
