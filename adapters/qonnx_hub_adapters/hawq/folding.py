"""Divisions and multiplications by scales become the scales of quantizers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx_ir import Graph, Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.quantizers import Array, IntQuant, single_value

_INTEGER_BITS = np.asarray(32, dtype=np.float32)


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
class _Layer:
    """One layer on integers, from the division to the multiplication.

    Attributes:
        product: MatMul or Conv.
        add: The addition of the bias, if any.
        rounding: Round, if any.
        last: The multiplication.
        weight: Quantizer of the weights.
        bias: Quantizer of the bias, if any.
        division: What divides the layer's input, if anything does.
        act_scale: What the input is divided by; one without a division.
        out_scale: What the sums are multiplied with.
    """

    product: Node
    add: Node | None
    rounding: Node | None
    last: Node
    weight: Node
    bias: Node | None
    division: Node | None
    act_scale: Array
    out_scale: Array


def _match(last: Node) -> _Layer | None:
    if last.op_type != "Mul" or last.domain != "":
        return None
    out_scale = _scalar(last.inputs[1])
    before = _only_reader(last.inputs[0], last)
    if before is None or not _is_scale(out_scale):
        return None
    rounding = before if before.op_type == "Round" else None
    if rounding is not None:
        before = _only_reader(rounding.inputs[0], rounding)
    add, bias, product = _bias_of(before)
    if product is None or product.op_type not in {"MatMul", "Conv"}:
        return None
    weight = _integer_quant(product.inputs[1], product)
    x = product.inputs[0]
    if weight is None or x is None:
        return None
    if product.op_type == "Conv" and len(product.inputs) > 2 and product.inputs[2] is not None:
        if add is not None:
            return None
        bias = _integer_quant(product.inputs[2], product)
        if bias is None:
            return None
    division = x.producer()
    act_scale: Array | None = np.ones((), dtype=np.float32)
    if division is not None and (division.domain, division.op_type) == ("", "Div"):
        act_scale = _scalar(division.inputs[1])
    else:
        division = None
    if act_scale is None or out_scale is None or not _is_scale(act_scale):
        return None
    return _Layer(product, add, rounding, last, weight, bias, division, act_scale, out_scale)


def _is_scale(values: Array | None) -> bool:
    number = single_value(values)
    return number is not None and 0 < number < float("inf")


def _bias_of(node: Node | None) -> tuple[Node | None, Node | None, Node | None]:
    """Return (addition, quantizer of the bias, product); the product alone without a bias."""
    if node is None or node.op_type != "Add":
        return None, None, node
    for position in (0, 1):
        bias = _integer_quant(node.inputs[position], node)
        product = _only_reader(node.inputs[1 - position], node)
        if bias is not None and product is not None:
            return node, bias, product
    return None, None, None


def _only_reader(value: Value | None, reader: Node) -> Node | None:
    """Return the value's producer where nobody but ``reader`` reads the value."""
    if value is None or value.is_graph_output():
        return None
    readers = {use.node for use in value.uses()}
    return value.producer() if readers == {reader} else None


def _scalar(value: Value | None) -> Array | None:
    known = dialect.constant_value(value)
    if known is None or known.size != 1 or known.dtype != np.float32:
        return None
    return known.reshape(())


def _integer_quant(value: Value | None, reader: Node) -> Node | None:
    """Return the quantizer of step one and zero point zero that quantizes a constant."""
    node = _only_reader(value, reader)
    if node is None or not dialect.is_quantizer(node) or node.op_type != "Quant":
        return None
    quant = dialect.read_quantizer(node)
    if not isinstance(quant, IntQuant) or quant.bits is None:
        return None
    if single_value(quant.scale) != 1 or single_value(quant.zero_point) != 0:
        return None
    return node if dialect.constant_value(node.inputs[0]) is not None else None


def _rewrite(graph: Graph, layer: _Layer) -> None:
    weight_scale = np.asarray(layer.out_scale / layer.act_scale, dtype=np.float32)
    _rescale(graph, layer.weight, weight_scale)
    if layer.bias is not None:
        _rescale(graph, layer.bias, layer.out_scale)
    if layer.division is not None:
        layer.product.replace_input_with(0, layer.division.inputs[0])
    result = layer.product if layer.add is None else layer.add
    value = result.outputs[0]
    if layer.rounding is not None:
        quantizer = IntQuant(layer.out_scale, np.zeros((), dtype=np.float32), _INTEGER_BITS)
        node = dialect.quantizer_node(value, quantizer, f"{layer.last.name}_grid", graph)
        layer.last.prepend(node)
        value = node.outputs[0]
    old = layer.last.outputs[0]
    name = old.name
    value.metadata_props.update(old.metadata_props)
    old.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(layer.last, safe=True)
    if layer.rounding is not None:
        graph.remove(layer.rounding, safe=True)
    old.name = None
    value.name = name


def _rescale(graph: Graph, node: Node, scale: Array) -> None:
    """Give a quantized constant another step; the integers stay."""
    quant = dialect.read_quantizer(node)
    stored = dialect.constant_value(node.inputs[0])
    if not isinstance(quant, IntQuant) or stored is None:
        return
    values = np.asarray(stored * scale, dtype=np.float32)
    node.replace_input_with(0, dialect.add_initializer(graph, f"{node.name}_values", values))
    node.replace_input_with(1, dialect.add_initializer(graph, f"{node.name}_scale", scale))
