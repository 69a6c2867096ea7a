"""Convolutions as one would write them: one-dimensional where the layer is, bias inside."""

from __future__ import annotations

from typing import Any

import onnx_ir
from onnx_ir import Model, Node, Value

from qonnx_hub_ir.graph.builder import Emitter, transpose_node
from qonnx_hub_ir.graph.constants import constant_shape, known_integers
from qonnx_hub_ir.graph.permutations import perm_of
from qonnx_hub_ir.graph.queries import (
    attribute,
    dims,
    input_of,
    is_standard,
    only_reader,
    producer,
)
from qonnx_hub_ir.graph.rewriting import replace_node


def flatten_convolutions(model: Model) -> None:
    """Write one-dimensional convolutions without the extra axis that TensorFlow adds.

    Before -> after::

        Squeeze{2}(Conv(Transpose{0,3,1,2}(Unsqueeze{1}(x[N, L, C])), w[O, I, 1, k]))
        Conv(Transpose{0,2,1}(x), w[O, I, k])

    Fires where the values in between have no other reader and the extra axis has kernel 1,
    stride 1 and no padding.
    """
    for node in list(model.graph):
        conv = _only_producer(_data_of(node, "Squeeze", [2]))
        if conv is None or not is_standard(conv, "Conv"):
            continue
        turned = _only_producer(conv.inputs[0])
        if turned is None or perm_of(turned) != (0, 3, 1, 2):
            continue
        widened = _only_producer(turned.inputs[0])
        x = _data_of(widened, "Unsqueeze", [1])
        attributes = _flat_attributes(conv)
        if x is None or attributes is None:
            continue
        emit = Emitter(node)
        first = emit.insert(transpose_node(x, (0, 2, 1), f"{conv.name}_first"))
        # FoldWeightLayout takes this node into the weight.
        thin = emit.add("Squeeze", [conv.inputs[1], emit.integers("axes", [2])])
        _replace(node, conv, [first, thin, *conv.inputs[2:]], attributes)


def _only_producer(value: Value | None) -> Node | None:
    """Return who makes a value that only one node reads."""
    return value.producer() if value is not None and only_reader(value) else None


def _data_of(node: Node | None, op_type: str, axes: list[int]) -> Value | None:
    """Return what an operator of rank 4 reads, if it names these axes from either end."""
    if node is None or node.op_type != op_type:
        return None
    known = known_integers(input_of(node, 1))
    is_named = known is not None and [axis % 4 for axis in known] == axes
    return node.inputs[0] if is_named else None


def _flat_attributes(conv: Node) -> dict[str, Any] | None:
    """Return the attributes without the first spatial axis, ``None`` where it matters."""
    shape = constant_shape(conv.inputs[1])
    if shape is None or len(shape) != 4 or shape[2] != 1:
        return None
    flat: dict[str, Any] = {"kernel_shape": [shape[3]], "group": attribute(conv, "group", 1)}
    for name in ("strides", "dilations"):
        # One row is left whatever the stride: there is one only.
        flat[name] = list(attribute(conv, name, (1, 1))[1:])
    mode = attribute(conv, "auto_pad", "NOTSET")
    if mode != "NOTSET":
        return {**flat, "auto_pad": mode}
    top, left, bottom, right = attribute(conv, "pads", (0, 0, 0, 0))
    return None if top or bottom else {**flat, "pads": [left, right]}


def _replace(node: Node, conv: Node, inputs: list[Value | None], attributes: Any) -> None:
    """Put a Conv in the place of ``conv`` and of the node that reads it or what it makes."""
    fresh = onnx_ir.node("Conv", inputs, attributes, name=conv.name)
    node.prepend(fresh)
    replace_node(node, fresh.outputs[0], keep_metadata=False)
    if conv.graph is not None:
        conv.graph.remove(conv, safe=True)


def fuse_bias(model: Model) -> None:
    """Let a Conv add its bias itself.

    Before -> after: ``Add(Conv(x, w), b[1, C, 1, 1])`` -> ``Conv(x, w, b[C])``, with b a
    constant or a quantized one. Does not fire where others read the Conv's result.
    """
    for node in list(model.graph):
        if not is_standard(node, "Add"):
            continue
        for index in (0, 1):
            value, bias = node.inputs[index], node.inputs[1 - index]
            conv = producer(value)
            if conv is not None and bias is not None and _takes_bias(conv, bias):
                emit = Emitter(node)
                flat = emit.add("Reshape", [bias, emit.integers("flat", [-1])])
                flat.type = bias.type
                _replace(node, conv, [*conv.inputs[:2], flat], conv.attributes)
                break


def _takes_bias(conv: Node, bias: Value) -> bool:
    sizes, shape = dims(conv.outputs[0]), constant_shape(bias)
    if not is_standard(conv, "Conv") or not only_reader(conv.outputs[0]):
        return False
    if sizes is None or shape is None or input_of(conv, 2) is not None:
        return False
    rank = len(sizes)
    return (1,) * (rank - len(shape)) + shape == (1, sizes[1], *(1,) * (rank - 2))
