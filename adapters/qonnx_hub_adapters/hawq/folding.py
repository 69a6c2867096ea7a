"""Divisions and multiplications by scales become the scales of quantizers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import input_of, is_standard, producer
from qonnx_hub_ir.graph.rewriting import rewrite_nodes
from qonnx_hub_ir.quantizers import Array, IntQuant, single_value

_INTEGER_BITS = np.asarray(32, dtype=np.float32)
_ONE = np.ones((), dtype=np.float32)


@dataclass(frozen=True)
class FoldScales(InPlacePass):
    """Write HAWQ's layers on integers as layers on real values.

    Before -> after, ``W`` and ``b`` integers of step one, ``s`` the product of all scales::

        Div(x, a) -> MatMul(Quant(W, 1)) -> Add(Quant(b, 1)) -> Mul(s)
        MatMul(x, Quant(W * s/a, s/a)) -> Add(Quant(b * s, s))

        ... -> Round -> Mul(s)
        ... -> Quant(s, 32 bits)

    MatMul and Conv, with or without bias (of Conv: as its third input), with or without Div.
    It does not fire where a scale is computed, has more than one value, an inner value is read
    elsewhere or is an output of the graph, or the quantizers have another step than one. The
    real numbers are the same; float32 rounds them in other places.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        return PassResult(model, rewrite_nodes(model.graph, _fold, bodies=False))


def _fold(last: Node) -> bool:
    """Fold the layer on integers that a multiplication ends; return whether it ends one."""
    out_scale, before = None, None
    if is_standard(last, "Mul"):
        out_scale, before = _scale(last.inputs[1]), _made_for(last, 0)
    rounding = before if before is not None and is_standard(before, "Round") else None
    result = before if rounding is None else _made_for(rounding, 0)
    if out_scale is None or result is None:
        return False
    product, bias = _without_bias(result)
    if product is None or not is_standard(product, "MatMul", "Conv"):
        return False
    weight, x = _integers_for(product, 1), product.inputs[0]
    place = operators.bias_input(product)
    if place is not None and input_of(product, place) is not None:
        own = _integers_for(product, place)
        if bias is not None or own is None:
            return False
        bias = own
    division = producer(x)
    if division is None or not is_standard(division, "Div"):
        division = None
    act_scale = _ONE if division is None else _scale(division.inputs[1])
    if weight is None or act_scale is None:
        return False
    _rescale(weight, np.asarray(out_scale / act_scale, dtype=np.float32))
    if bias is not None:
        _rescale(bias, out_scale)
    if division is not None:
        product.replace_input_with(0, division.inputs[0])
    emit, value = Emitter(last), result.outputs[0]
    if rounding is not None:
        grid = IntQuant(out_scale, np.zeros((), dtype=np.float32), _INTEGER_BITS)
        value = emit.quantizer(value, grid, name=f"{last.name}_grid")
    emit.replace_with(value)
    if rounding is not None:
        emit.graph.remove(rounding, safe=True)
    return True


def _without_bias(result: Node) -> tuple[Node | None, Node | None]:
    """Return (product, quantizer of the bias that is added to it, if any)."""
    if result.op_type != "Add":
        return result, None
    for position in (0, 1):
        bias, product = _integers_for(result, position), _made_for(result, 1 - position)
        if bias is not None and product is not None:
            return product, bias
    return None, None


def _made_for(reader: Node, position: int) -> Node | None:
    """Return the producer of an input that has no other reader."""
    value = reader.inputs[position]
    if value is None or value.is_graph_output():
        return None
    return value.producer() if {use.node for use in value.uses()} == {reader} else None


def _scale(value: Value | None) -> Array | None:
    """Return a constant that can be a scale: one positive float32."""
    known = dialect.constant_value(value)
    number = single_value(known)
    if known is None or number is None or known.dtype != np.float32 or known.size != 1:
        return None
    return known.reshape(()) if 0 < number < float("inf") else None


def _integers_for(reader: Node, position: int) -> Node | None:
    """Return the quantizer of step one and zero point zero of a constant, read by one node."""
    node = _made_for(reader, position)
    if node is None or not dialect.is_quantizer(node):
        return None
    quant = dialect.read_quantizer(node)
    if not isinstance(quant, IntQuant) or quant.bits is None:
        return None
    if single_value(quant.scale) != 1 or single_value(quant.zero_point) != 0:
        return None
    return node if dialect.constant_value(node.inputs[0]) is not None else None


def _rescale(node: Node, scale: Array) -> None:
    """Give a quantized constant another step; the integers stay."""
    emit, stored = Emitter(node), dialect.constant_value(node.inputs[0])
    if stored is None:
        raise AssertionError("what is matched is a quantized constant")
    values = np.asarray(stored * scale, dtype=np.float32)
    node.replace_input_with(0, emit.constant("values", values))
    node.replace_input_with(1, emit.constant("scale", scale))
