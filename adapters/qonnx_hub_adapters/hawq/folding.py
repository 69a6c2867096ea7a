"""Divisions and multiplications by scales become the scales of quantizers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx_ir import Graph, Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.queries import input_of, is_standard
from qonnx_hub_ir.graph.rewriting import replace_node
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
        found = [layer for node in model.graph if (layer := _match(node)) is not None]
        for layer in found:
            _rewrite(model.graph, layer)
        return PassResult(model, modified=bool(found))


@dataclass(frozen=True, slots=True)
class _ScaledLayer:
    """One layer on integers, from the division to the multiplication.

    Attributes:
        product: MatMul or Conv.
        result: The addition of the bias, or the product.
        rounding: Round, if any.
        last: The multiplication.
        weight: Quantizer of the weights.
        bias: Quantizer of the bias, if any.
        division: What divides the layer's input, if anything does.
        act_scale: What the input is divided by; one without a division.
        out_scale: What the sums are multiplied with.
    """

    product: Node
    result: Node
    rounding: Node | None
    last: Node
    weight: Node
    bias: Node | None
    division: Node | None
    act_scale: Array
    out_scale: Array


def _match(last: Node) -> _ScaledLayer | None:
    if not is_standard(last, "Mul"):
        return None
    out_scale, before = _scale(last.inputs[1]), _made_for(last, 0)
    rounding = before if before is not None and is_standard(before, "Round") else None
    result = before if rounding is None else _made_for(rounding, 0)
    if out_scale is None or result is None:
        return None
    product, bias = _without_bias(result)
    if product is None or not is_standard(product, "MatMul", "Conv"):
        return None
    weight, x = _integers_for(product, 1), product.inputs[0]
    place = operators.bias_input(product)
    if place is not None and input_of(product, place) is not None:
        own = _integers_for(product, place)
        if bias is not None or own is None:
            return None
        bias = own
    division = None if x is None else x.producer()
    if division is None or not is_standard(division, "Div"):
        division = None
    act_scale = _ONE if division is None else _scale(division.inputs[1])
    if weight is None or x is None or act_scale is None:
        return None
    return _ScaledLayer(
        product, result, rounding, last, weight, bias, division, act_scale, out_scale
    )


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


def _rewrite(graph: Graph, layer: _ScaledLayer) -> None:
    weight_scale = np.asarray(layer.out_scale / layer.act_scale, dtype=np.float32)
    _rescale(graph, layer.weight, weight_scale)
    if layer.bias is not None:
        _rescale(graph, layer.bias, layer.out_scale)
    if layer.division is not None:
        layer.product.replace_input_with(0, layer.division.inputs[0])
    value = layer.result.outputs[0]
    if layer.rounding is not None:
        quantizer = IntQuant(layer.out_scale, np.zeros((), dtype=np.float32), _INTEGER_BITS)
        node = dialect.quantizer_node(value, quantizer, f"{layer.last.name}_grid", graph)
        layer.last.prepend(node)
        value = node.outputs[0]
    replace_node(layer.last, value)
    if layer.rounding is not None:
        graph.remove(layer.rounding, safe=True)


def _rescale(graph: Graph, node: Node, scale: Array) -> None:
    """Give a quantized constant another step; the integers stay."""
    stored = dialect.constant_value(node.inputs[0])
    if stored is None:
        raise AssertionError("what is matched is a quantized constant")
    values = np.asarray(stored * scale, dtype=np.float32)
    node.replace_input_with(0, dialect.add_initializer(graph, f"{node.name}_values", values))
    node.replace_input_with(1, dialect.add_initializer(graph, f"{node.name}_scale", scale))
