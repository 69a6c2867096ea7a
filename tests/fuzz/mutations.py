"""Mutations of ONNX messages that keep them parseable: each spoils one thing of a model.

Everything is drawn from the generator that is handed in: the same seed gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

Rng = np.random.Generator
Mutation = Callable[[ModelProto, Rng], None]
T = TypeVar("T")

SIZES = (-1, 0, 1, 2, 3, 7, 64, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63))
NUMBERS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e-38, 3e38, np.nan, np.inf, -np.inf, 127.5)
NAMES = ("", "x" * 300, "[/b]", "a\x1b[2J", "\u8282", "a b\n", "../../up", "%s%n", "null")
OPERATORS = (
    *("Add", "Mul", "Div", "Conv", "ConvTranspose", "MatMul", "Gemm", "Relu", "Clip", "Pad"),
    *("Reshape", "Transpose", "Concat", "Split", "Slice", "Gather", "Squeeze", "Unsqueeze"),
    *("Cast", "QuantizeLinear", "DequantizeLinear", "ConvInteger", "MatMulInteger", "Range"),
    *("QLinearConv", "QLinearMatMul", "BatchNormalization", "MaxPool", "AveragePool", "If"),
    *("Softmax", "ReduceSum", "ReduceMean", "Loop", "Scan", "Constant", "ConstantOfShape"),
    *("Expand", "Tile", "Resize", "TopK", "Where", "Shape", "Size", "Identity", "Dropout"),
    *("Quant", "BipolarQuant", "Trunc", "FloatQuant", "MultiThreshold", "LSTM", "Unknown"),
)
DOMAINS = ("", "ai.onnx", "qonnx.custom_op.general", "com.microsoft", "onnx.brevitas", "mine")
TYPES = tuple(TensorProto.DataType.values())
KINDS = tuple(AttributeProto.AttributeType.values())


def _pick(rng: Rng, things: Sequence[T]) -> T | None:
    return things[int(rng.integers(len(things)))] if len(things) else None


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                if body.node:
                    yield from _graphs(body)


def _nodes(model: ModelProto) -> list[NodeProto]:
    nodes = [node for graph in _graphs(model.graph) for node in graph.node]
    return nodes + [node for function in model.functions for node in function.node]


def _tensors(model: ModelProto) -> list[TensorProto]:
    found = [tensor for graph in _graphs(model.graph) for tensor in graph.initializer]
    held = [a.t for node in _nodes(model) for a in node.attribute if a.HasField("t")]
    return found + held


def _names(model: ModelProto) -> list[str]:
    graph = model.graph
    made = [name for node in graph.node for name in node.output]
    return [*made, *(v.name for v in graph.input), *(t.name for t in graph.initializer)]


# Tensors


def tensor_size(model: ModelProto, rng: Rng) -> None:
    tensor = _pick(rng, _tensors(model))
    if tensor is None:
        return
    if tensor.dims and rng.random() < 0.7:
        tensor.dims[int(rng.integers(len(tensor.dims)))] = int(rng.choice(SIZES))
    elif rng.random() < 0.5:
        tensor.dims.append(int(rng.choice((0, 1, 2))))
    else:
        del tensor.dims[:]


def tensor_type(model: ModelProto, rng: Rng) -> None:
    tensor = _pick(rng, _tensors(model))
    if tensor is not None:
        tensor.data_type = int(rng.choice((*TYPES, 99)))


def tensor_bytes(model: ModelProto, rng: Rng) -> None:
    tensor = _pick(rng, _tensors(model))
    if tensor is None:
        return
    data = bytearray(tensor.raw_data)
    if not data or rng.random() < 0.2:
        tensor.ClearField("raw_data")
    elif rng.random() < 0.3:
        tensor.raw_data = bytes(data[: int(rng.integers(len(data)))])
    elif rng.random() < 0.2:
        tensor.raw_data = bytes(data) + b"\0\1\2"
    else:
        for _ in range(int(rng.integers(1, 5))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        tensor.raw_data = bytes(data)


def tensor_values(model: ModelProto, rng: Rng) -> None:
    """Hostile numbers in one element, or in all of them."""
    floats = [t for t in _tensors(model) if t.data_type == TensorProto.FLOAT and t.raw_data]
    tensor = _pick(rng, floats)
    if tensor is None or len(tensor.raw_data) % 4:
        return
    array = np.frombuffer(tensor.raw_data, dtype=np.float32).copy()
    value = np.float32(rng.choice(NUMBERS))
    if rng.random() < 0.5 and array.size:
        array[int(rng.integers(array.size))] = value
    else:
        array[:] = value
    tensor.raw_data = array.tobytes()


def tensor_integers(model: ModelProto, rng: Rng) -> None:
    """Hostile sizes in a tensor of int64: shapes, axes, repeats, pads."""
    here = (t for t in _tensors(model) if t.data_location != TensorProto.EXTERNAL)
    whole = [t for t in here if t.data_type == TensorProto.INT64]
    tensor = _pick(rng, whole)
    if tensor is None:
        return
    array = onnx.numpy_helper.to_array(tensor).copy().reshape(-1)
    if array.size:
        array[int(rng.integers(array.size))] = int(rng.choice(SIZES))
        del tensor.int64_data[:]
        tensor.raw_data = array.tobytes()


def tensor_external(model: ModelProto, rng: Rng) -> None:
    tensor = _pick(rng, _tensors(model))
    if tensor is None:
        return
    tensor.data_location = TensorProto.EXTERNAL
    for key in ("location", "offset", "length"):
        if rng.random() < 0.7:
            value = _pick(
                rng, ("w.bin", "/etc/passwd", "../x", "0", "-1", "abc", "9" * 20, "")
            )
            tensor.external_data.add(key=key, value=str(value))


# Attributes


def attribute_type(model: ModelProto, rng: Rng) -> None:
    found = _pick(rng, [a for node in _nodes(model) for a in node.attribute])
    if found is not None:
        found.type = int(rng.choice(KINDS))


def attribute_value(model: ModelProto, rng: Rng) -> None:
    found = _pick(rng, [a for node in _nodes(model) for a in node.attribute])
    if found is None:
        return
    if found.type == AttributeProto.INT:
        found.i = int(rng.choice(SIZES))
    elif found.type == AttributeProto.FLOAT:
        found.f = float(rng.choice(NUMBERS))
    elif found.type == AttributeProto.STRING:
        found.s = str(_pick(rng, (*NAMES, "ROUND", "SAME_UPPER", "reflect"))).encode()
    elif found.type == AttributeProto.INTS:
        if found.ints and rng.random() < 0.6:
            found.ints[int(rng.integers(len(found.ints)))] = int(rng.choice(SIZES))
        elif rng.random() < 0.5:
            found.ints.append(int(rng.choice(SIZES)))
        else:
            del found.ints[:]


def attribute_other(model: ModelProto, rng: Rng) -> None:
    """An attribute of another type, with a value of it."""
    found = _pick(rng, [a for node in _nodes(model) for a in node.attribute])
    if found is not None:
        value: Any = _pick(rng, (1, 2.5, "text", [1, 2], [0.5], ["a"], [1]))
        found.CopyFrom(helper.make_attribute(found.name, value))


def attribute_gone(model: ModelProto, rng: Rng) -> None:
    node = _pick(rng, [node for node in _nodes(model) if node.attribute])
    if node is not None:
        del node.attribute[int(rng.integers(len(node.attribute)))]


def attribute_more(model: ModelProto, rng: Rng) -> None:
    node = _pick(rng, _nodes(model))
    if node is not None:
        name = str(_pick(rng, ("axis", "axes", "keepdims", "to", "alpha", "pads", "made_up")))
        node.attribute.append(helper.make_attribute(name, int(rng.choice(SIZES))))


def attribute_reference(model: ModelProto, rng: Rng) -> None:
    found = _pick(rng, [a for node in _nodes(model) for a in node.attribute])
    if found is not None:
        found.ref_attr_name = "outer"


# Nodes


def operator(model: ModelProto, rng: Rng) -> None:
    node = _pick(rng, _nodes(model))
    if node is not None:
        node.op_type = str(rng.choice(OPERATORS))


def domain(model: ModelProto, rng: Rng) -> None:
    node = _pick(rng, _nodes(model))
    if node is not None:
        node.domain = str(rng.choice(DOMAINS))


def node_gone(model: ModelProto, rng: Rng) -> None:
    if model.graph.node:
        del model.graph.node[int(rng.integers(len(model.graph.node)))]


def node_twice(model: ModelProto, rng: Rng) -> None:
    node = _pick(rng, list(model.graph.node))
    if node is not None:
        copy = model.graph.node.add()
        copy.CopyFrom(node)
        if rng.random() < 0.5:
            for k, name in enumerate(copy.output):
                copy.output[k] = f"{name}_again"


def node_order(model: ModelProto, rng: Rng) -> None:
    nodes = [NodeProto.FromString(n.SerializeToString()) for n in model.graph.node]
    order = rng.permutation(len(nodes))
    del model.graph.node[:]
    model.graph.node.extend(nodes[k] for k in order)


def node_input(model: ModelProto, rng: Rng) -> None:
    """Another value, nothing, or what the node itself makes: a cycle."""
    node = _pick(rng, [node for node in _nodes(model) if node.input])
    if node is not None:
        names = ["", "nowhere", *node.output, *_names(model)]
        node.input[int(rng.integers(len(node.input)))] = str(_pick(rng, names))


def node_inputs(model: ModelProto, rng: Rng) -> None:
    node = _pick(rng, _nodes(model))
    if node is None:
        return
    if node.input and rng.random() < 0.6:
        del node.input[int(rng.integers(len(node.input))) :]
    else:
        node.input.append(str(_pick(rng, ["", *_names(model)])))


def node_output(model: ModelProto, rng: Rng) -> None:
    node = _pick(rng, [node for node in _nodes(model) if node.output])
    if node is not None:
        names = ["", "other", *_names(model)]
        node.output[int(rng.integers(len(node.output)))] = str(_pick(rng, names))


def node_outputs(model: ModelProto, rng: Rng) -> None:
    node = _pick(rng, _nodes(model))
    if node is None:
        return
    if node.output and rng.random() < 0.5:
        del node.output[:]
    else:
        node.output.append("more")


def node_name(model: ModelProto, rng: Rng) -> None:
    node = _pick(rng, _nodes(model))
    if node is not None:
        node.name = str(_pick(rng, NAMES))


def in_branch(model: ModelProto, rng: Rng) -> None:
    """A node moves into both branches of an If."""
    nodes = [n for n in model.graph.node if len(n.output) == 1 and n.output[0]]
    node = _pick(rng, nodes)
    if node is None:
        return
    out = helper.make_tensor_value_info(node.output[0] + "_in", TensorProto.FLOAT, None)
    inner = NodeProto.FromString(node.SerializeToString())
    inner.output[0] = out.name
    body = helper.make_graph([inner], "body", [], [out])
    chosen = helper.make_node(
        "If", ["condition"], [node.output[0]], "branch", then_branch=body, else_branch=body
    )
    condition = onnx.numpy_helper.from_array(np.asarray(rng.random() < 0.5), "condition")
    if all(t.name != "condition" for t in model.graph.initializer):
        model.graph.initializer.append(condition)
    node.CopyFrom(chosen)


def in_function(model: ModelProto, rng: Rng) -> None:
    """A node becomes a call of a function, which may call itself."""
    node = _pick(rng, [n for n in model.graph.node if n.output and n.op_type])
    if node is None:
        return
    inner = NodeProto.FromString(node.SerializeToString())
    imports = [helper.make_opsetid(o.domain, o.version) for o in model.opset_import]
    imports.append(helper.make_opsetid("mine", 1))
    inputs = list(dict.fromkeys(name for name in node.input if name))
    body = [inner]
    if rng.random() < 0.2:
        call = helper.make_node("Wrapped", inputs, ["deeper"], domain="mine")
        body.append(call)
    made = helper.make_function("mine", "Wrapped", inputs, list(node.output), body, imports)
    model.functions.append(made)
    if all(o.domain != "mine" for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid("mine", 1))
    node.CopyFrom(
        helper.make_node("Wrapped", inputs, list(node.output), "call", domain="mine")
    )


# Values, graph and model


def value_size(model: ModelProto, rng: Rng) -> None:
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    value = _pick(rng, [v for v in values if v.type.tensor_type.shape.dim])
    if value is None:
        return
    size = _pick(rng, list(value.type.tensor_type.shape.dim))
    assert size is not None
    if rng.random() < 0.2:
        size.dim_param = "n"
    else:
        size.dim_value = int(rng.choice(SIZES))


def value_rank(model: ModelProto, rng: Rng) -> None:
    value = _pick(rng, [*model.graph.input, *model.graph.output])
    if value is None:
        return
    if rng.random() < 0.4:
        value.type.tensor_type.ClearField("shape")
    else:
        value.type.tensor_type.shape.dim.add().dim_value = int(rng.choice((0, 1, 2)))


def value_type(model: ModelProto, rng: Rng) -> None:
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    value = _pick(rng, values)
    if value is None:
        return
    if rng.random() < 0.2:
        value.ClearField("type")
    elif rng.random() < 0.1:
        value.type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT
    else:
        value.type.tensor_type.elem_type = int(rng.choice((*TYPES, 99)))


def value_name(model: ModelProto, rng: Rng) -> None:
    value = _pick(rng, [*model.graph.input, *model.graph.output])
    if value is not None:
        value.name = str(_pick(rng, [*NAMES, *_names(model)]))


def output_gone(model: ModelProto, rng: Rng) -> None:
    if model.graph.output:
        del model.graph.output[int(rng.integers(len(model.graph.output)))]


def output_more(model: ModelProto, rng: Rng) -> None:
    name = str(_pick(rng, ["nowhere", *_names(model)]))
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))


def input_gone(model: ModelProto, rng: Rng) -> None:
    if model.graph.input:
        del model.graph.input[int(rng.integers(len(model.graph.input)))]


def constant_gone(model: ModelProto, rng: Rng) -> None:
    if model.graph.initializer:
        del model.graph.initializer[int(rng.integers(len(model.graph.initializer)))]


def constant_dynamic(model: ModelProto, rng: Rng) -> None:
    """A constant becomes an input."""
    tensor = _pick(rng, list(model.graph.initializer))
    if tensor is not None:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        )
        if rng.random() < 0.5:
            model.graph.initializer.remove(tensor)


def versions(model: ModelProto, rng: Rng) -> None:
    if rng.random() < 0.3:
        model.ir_version = int(rng.choice((0, 1, 3, 8, 13, 99, -1)))
        return
    chosen = _pick(rng, list(model.opset_import))
    if chosen is not None:
        chosen.version = int(rng.choice((-1, 0, 1, 6, 7, 9, 10, 11, 13, 17, 18, 21, 24, 999)))


def import_gone(model: ModelProto, rng: Rng) -> None:
    if model.opset_import:
        del model.opset_import[int(rng.integers(len(model.opset_import)))]


MUTATIONS: tuple[Mutation, ...] = (
    *(tensor_size, tensor_type, tensor_bytes, tensor_values, tensor_values, tensor_integers),
    *(tensor_external, attribute_type, attribute_value, attribute_value, attribute_other),
    *(attribute_gone, attribute_more, attribute_reference, operator, domain, node_gone),
    *(node_twice, node_order, node_input, node_input, node_inputs, node_output, node_outputs),
    *(node_name, in_branch, in_function, value_size, value_size, value_rank, value_type),
    *(value_name, output_gone, output_more, input_gone, constant_gone, constant_dynamic),
    *(versions, import_gone),
)
"""What is likelier to reach further stands twice."""


def mutate(model: ModelProto, rng: Rng, most: int = 3) -> tuple[bytes, tuple[str, ...]]:
    """Return a spoiled copy as bytes, and the names of what was done to it.

    Args:
        model: A model.
        rng: What is drawn from.
        most: Mutations at most; one in forty files is cut or has bytes flipped instead.
    """
    copy = ModelProto.FromString(model.SerializeToString())
    if rng.random() < 0.025:
        data = bytearray(copy.SerializeToString())
        if rng.random() < 0.4:
            return bytes(data[: int(rng.integers(len(data)))]), ("cut",)
        for _ in range(int(rng.integers(1, 6))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        return bytes(data), ("bytes",)
    done = []
    for _ in range(int(rng.integers(1, most + 1))):
        mutation = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
        try:
            mutation(copy, rng)
        except (ValueError, TypeError, OverflowError):
            continue  # the message is too spoiled for this one already
        done.append(mutation.__name__)
    return copy.SerializeToString(), tuple(done)
