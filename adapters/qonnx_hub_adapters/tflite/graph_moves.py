"""Operators that move codes, or choose among them: no quantizer is needed behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from onnx_ir import Node

from qonnx_hub_adapters.tflite.graph_reader import (
    RESHAPES,
    TO_FIRST,
    TO_LAST,
    GraphReader,
    Unsaid,
    attributes_of,
)
from qonnx_hub_adapters.tflite.graph_windows import padded, window
from qonnx_hub_adapters.tflite.net_builder import Held
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.queries import input_of
from qonnx_hub_ir.quantizers import Array

Move = Callable[[GraphReader, Node], list[Held]]


def _constant(node: Node, index: int) -> Array:
    found = dialect.constant_value(input_of(node, index))
    if found is None:
        raise Unsaid(f"computes its input {index}", "make it a constant")
    return found


def _same(reader: GraphReader, node: Node) -> list[Held]:
    return [reader.find(node.inputs[0])]


def _transpose(reader: GraphReader, node: Node) -> list[Held]:
    found = reader.find(node.inputs[0])
    rank = len(reader.shape(node.inputs[0]))
    order = tuple(int(i) for i in attributes_of(node).get("perm", range(rank)[::-1]))
    if found.is_first and order == TO_LAST:
        return [Held(found.tensor)]
    if not found.is_first and order == TO_FIRST:
        return [Held(found.tensor, True)]
    return [Held(reader.net.turned(reader.plain(node.inputs[0]), order))]


def _reshape(reader: GraphReader, node: Node) -> list[Held]:
    shape = reader.shape(node.outputs[0])
    tensor = reader.plain(node.inputs[0])
    if reader.net.tensors[tensor].shape == shape:
        return [Held(tensor)]
    made = reader.net.moved("RESHAPE", tensor, shape, (reader.net.constant(list(shape)),))
    return [Held(made)]


def _split(reader: GraphReader, node: Node) -> list[Held]:
    tensor, shapes = reader.plain(node.inputs[0]), [reader.shape(o) for o in node.outputs]
    axis = int(attributes_of(node).get("axis", 0)) % len(shapes[0])
    net, held, start = reader.net, [], 0
    for shape in shapes:
        begin = [start if i == axis else 0 for i in range(len(shape))]
        settings = (net.constant(begin), net.constant(list(shape)))
        held.append(Held(net.moved("SLICE", tensor, shape, settings)))
        start += shape[axis]
    return held


def _slice(reader: GraphReader, node: Node) -> list[Held]:
    tensor, shape = reader.plain(node.inputs[0]), reader.shape(node.inputs[0])
    begins, ends = (_constant(node, i).reshape(-1).tolist() for i in (1, 2))
    has_axes, has_steps = (input_of(node, i) is not None for i in (3, 4))
    axes = _constant(node, 3).reshape(-1).tolist() if has_axes else list(range(len(begins)))
    steps = _constant(node, 4).reshape(-1).tolist() if has_steps else [1] * len(begins)
    spans = [(0, n, 1) for n in shape]
    for axis, begin, end, step in zip(axes, begins, ends, steps, strict=True):
        spans[axis] = slice(begin, end, step).indices(shape[axis])
    if any(step < 0 for _, _, step in spans):
        raise Unsaid("walks backwards")
    settings = [reader.net.constant([span[i] for span in spans]) for i in range(3)]
    made = reader.net.moved("STRIDED_SLICE", tensor, reader.shape(node.outputs[0]), settings)
    return [Held(made)]


def _gather(reader: GraphReader, node: Node) -> list[Held]:
    tensor = reader.plain(node.inputs[0])
    axis = int(attributes_of(node).get("axis", 0)) % len(reader.shape(node.inputs[0]))
    index = _constant(node, 1)
    count = reader.shape(node.inputs[0])[axis]
    given = reader.net.constant(np.where(index < 0, index + count, index))
    shape = reader.shape(node.outputs[0])
    return [Held(reader.net.moved("GATHER", tensor, shape, (given,), axis=axis))]


def _pad(reader: GraphReader, node: Node) -> list[Held]:
    if attributes_of(node).get("mode", "constant") != "constant":
        raise Unsaid("repeats what it pads", "pad with zeros")
    value = input_of(node, 2)
    number = None if value is None else reader.floats(value)
    if value is not None and number is None:
        raise Unsaid("pads with a computed value")
    tensor = reader.plain(node.inputs[0])
    pads, rank = _constant(node, 1).reshape(-1), len(reader.shape(node.inputs[0]))
    if input_of(node, 3) is not None or (pads < 0).any():
        raise Unsaid("cuts, or names axes")
    wide = list(zip(pads[:rank].tolist(), pads[rank:].tolist(), strict=True))
    fill = None
    if number is not None and float(number.reshape(-1)[0]):
        record = reader.net.tensors[tensor]
        ratio = float(number.reshape(-1)[0]) / float(record.scale)
        if abs(ratio - round(ratio)) > 1e-4:
            raise Unsaid("pads with a value between two codes")
        fill = round(ratio) + record.zero
    return [Held(padded(reader, tensor, wide, fill))]


def _max_pool(reader: GraphReader, node: Node) -> list[Held]:
    tensor, given = reader.last(node.inputs[0]), attributes_of(node)
    size = tuple(given["kernel_shape"])
    if set(given.get("dilations", (1,))) != {1} or len(node.outputs) > 1:
        raise Unsaid("has dilations, or gives places")
    dtype = reader.net.tensors[tensor].dtype
    lowest = -np.inf if dtype.kind == "f" else int(np.iinfo(dtype).min)
    place = window(reader, node, tensor, size, lowest)
    shape = [reader.shape(node.outputs[0])[i] for i in TO_LAST]
    made = reader.net.moved(
        "MAX_POOL_2D",
        place.tensor,
        shape,
        padding=place.padding,
        stride_h=place.stride[0],
        stride_w=place.stride[1],
        filter_height=size[0],
        filter_width=size[1],
    )
    return [Held(made, True)]


def _reduce_max(reader: GraphReader, node: Node) -> list[Held]:
    given, tensor = attributes_of(node), reader.plain(node.inputs[0])
    axes = given["axes"] if "axes" in given else _constant(node, 1).reshape(-1)
    name = "REDUCE_MAX" if node.op_type == "ReduceMax" else "REDUCE_MIN"
    keeps, shape = bool(given.get("keepdims", 1)), reader.shape(node.outputs[0])
    settings = (reader.net.constant([int(a) for a in axes]),)
    return [Held(reader.net.moved(name, tensor, shape, settings, keep_dims=keeps))]


MOVES: Mapping[str, Move] = {
    **dict.fromkeys(RESHAPES, _reshape),
    "Identity": _same,
    "Dropout": _same,
    "Transpose": _transpose,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Pad": _pad,
    "MaxPool": _max_pool,
    "ReduceMax": _reduce_max,
    "ReduceMin": _reduce_max,
}
"""Operator -> how it is written, on codes as they are."""
