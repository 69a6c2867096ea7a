"""Convolutions as one would write them: one-dimensional where the layer is, bias inside."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import transpose_node
from qonnx_hub_ir.graph.constants import is_constant_tree, known_integers, shape_of_constant
from qonnx_hub_ir.graph.permutations import perm_of
from qonnx_hub_ir.graph.queries import input_of, only_reader
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
        if conv is None or conv.op_type != "Conv" or conv.domain != "":
            continue
        turned = _only_producer(conv.inputs[0])
        if turned is None or perm_of(turned) != (0, 3, 1, 2):
            continue
        widened = _only_producer(turned.inputs[0])
        x = _data_of(widened, "Unsqueeze", [1])
        attributes = _flat_attributes(conv)
        if x is None or attributes is None or not is_constant_tree(conv.inputs[1]):
            continue
        _flatten(model, node, conv, x, attributes)


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
    given = {name: attr.value for name, attr in conv.attributes.items()}
    weight = conv.inputs[1]
    if weight is None or not is_constant_tree(weight):
        return None
    shape = shape_of_constant(weight)
    if len(shape) != 4 or shape[2] != 1:
        return None
    flat: dict[str, Any] = {"kernel_shape": [shape[3]], "group": int(given.get("group", 1))}
    for name in ("strides", "dilations"):
        values = [int(v) for v in given.get(name, (1, 1))]
        if name == "strides" and values[0] != 1:
            # One row is left whatever the stride: there is one only.
            values[0] = 1
        flat[name] = values[1:]
    mode = given.get("auto_pad", "NOTSET")
    if mode != "NOTSET":
        flat["auto_pad"] = str(mode)
        return flat
    pads = [int(v) for v in given.get("pads", (0, 0, 0, 0))]
    if pads[0] or pads[2]:
        return None
    flat["pads"] = [pads[1], pads[3]]
    return flat


def _flatten(
    model: Model, squeeze: Node, conv: Node, x: Value, attributes: dict[str, Any]
) -> None:
    turned = transpose_node(x, (0, 2, 1), f"{conv.name}_first")
    squeeze.prepend(turned)
    axes = np.array([2], dtype=np.int64)
    constant = dialect.add_initializer(model.graph, f"{conv.name}_axes", axes)
    # FoldWeightLayout takes this node into the weight.
    thin = Node("", "Squeeze", [conv.inputs[1], constant], name=f"{conv.name}_weight")
    thin.outputs[0].name = f"{conv.name}_weight_out"
    squeeze.prepend(thin)
    inputs = [turned.outputs[0], thin.outputs[0], *conv.inputs[2:]]
    fresh = onnx_ir.node("Conv", inputs, attributes, name=conv.name)
    squeeze.prepend(fresh)
    replace_node(squeeze, fresh.outputs[0], keep_metadata=False)
    model.graph.remove(conv, safe=True)


def fuse_bias(model: Model) -> None:
    """Let a Conv add its bias itself.

    Before -> after: ``Add(Conv(x, w), b[1, C, 1, 1])`` -> ``Conv(x, w, b[C])``, with b a
    constant or a quantized one. Does not fire where others read the Conv's result.
    """
    for node in list(model.graph):
        if node.op_type != "Add" or node.domain != "":
            continue
        for index in (0, 1):
            value, bias = node.inputs[index], node.inputs[1 - index]
            conv = None if value is None else value.producer()
            if conv is not None and bias is not None and _takes_bias(conv, bias):
                _fuse_bias(model, node, conv, bias)
                break


def _takes_bias(conv: Node, bias: Value) -> bool:
    result = conv.outputs[0]
    if conv.op_type != "Conv" or conv.domain != "" or not is_constant_tree(bias):
        return False
    if not only_reader(result) or result.shape is None:
        return False
    if input_of(conv, 2) is not None:
        return False
    shape = shape_of_constant(bias)
    full = (1,) * (len(result.shape) - len(shape)) + shape
    return len(full) == len(result.shape) and full == tuple(
        result.shape[axis] if axis == 1 else 1 for axis in range(len(full))
    )


def _fuse_bias(model: Model, add: Node, conv: Node, bias: Value) -> None:
    flat = np.array([-1], dtype=np.int64)
    sizes = dialect.add_initializer(model.graph, f"{add.name}_flat", flat)
    reshape = Node("", "Reshape", [bias, sizes], name=f"{add.name}_bias")
    reshape.outputs[0].name = f"{add.name}_bias_out"
    reshape.outputs[0].type = bias.type
    add.prepend(reshape)
    inputs = [conv.inputs[0], conv.inputs[1], reshape.outputs[0]]
    fresh = Node("", "Conv", inputs, conv.attributes.values(), name=conv.name)
    add.prepend(fresh)
    replace_node(add, fresh.outputs[0], keep_metadata=False)
    model.graph.remove(conv, safe=True)
