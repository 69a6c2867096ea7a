"""The written graph between the source's own inputs and outputs, to compare both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir
from onnx_ir import Graph, Model, Value

from qonnx_hub_adapters.hls4ml.lowering import Port, is_permuted, stored_sizes
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph import permutations


def between_source_ports(
    model: Model, inputs: Sequence[Port], outputs: Sequence[Port]
) -> Model:
    """Return a copy of the written model that takes and gives what its source does.

    Args:
        model: The model as it is written.
        inputs: The source's inputs, in order.
        outputs: Its outputs, in order.
    """
    copy = model.clone()
    for value, port in zip(list(copy.graph.inputs), inputs, strict=True):
        value.name = port.name
        if is_permuted(port):
            _permute_input(copy.graph, value, port)
    for index, port in enumerate(outputs):
        _permute_output(copy.graph, index, port)
    return copy


def _permute_input(graph: Graph, value: Value, port: Port) -> None:
    usages = [(usage.node, usage.idx) for usage in value.uses()]
    if port.flat:
        sizes = np.array(stored_sizes(port), dtype=np.int64)
        inputs = [value, dialect.add_initializer(graph, f"{port.name}_row", sizes)]
        node = onnx_ir.node("Reshape", inputs, name=f"{port.name}_to_row")
    else:
        perm = permutations.inverse(port.axes)
        node = onnx_ir.node("Transpose", [value], {"perm": perm}, name=f"{port.name}_turn")
    node.outputs[0].name = f"{port.name}_as_stored"
    node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
    value.shape = onnx_ir.Shape(port.shape)
    graph.insert_before(graph[0], node)
    for user, index in usages:
        user.replace_input_with(index, node.outputs[0])


def _permute_output(graph: Graph, index: int, port: Port) -> None:
    value = graph.outputs[index]
    if not is_permuted(port):
        value.name = port.name
        return
    perm = list(port.axes)
    node = onnx_ir.node("Transpose", [value], {"perm": perm}, name=f"{port.name}_turn")
    node.outputs[0].name, node.outputs[0].type = port.name, value.type
    node.outputs[0].shape = onnx_ir.Shape(port.shape)
    graph.append(node)
    graph.outputs[index] = node.outputs[0]
