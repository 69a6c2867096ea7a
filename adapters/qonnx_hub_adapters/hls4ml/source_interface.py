"""The written graph between the source's own inputs and outputs, to compare both."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir
from onnx_ir import Graph, Model, Value

from qonnx_hub_adapters.hls4ml.pending_affine import Term
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph import permutations
from qonnx_hub_ir.graph.builder import transpose_node


def between_source_ports(
    model: Model, inputs: Mapping[str, Term], outputs: Mapping[str, Term]
) -> Model:
    """Return a copy of the written model that takes and gives what its source does.

    Args:
        model: The model as it is written.
        inputs: The source's inputs, in order: name -> how it is stored.
        outputs: Its outputs, likewise.
    """
    copy = model.clone()
    for value, (name, term) in zip(list(copy.graph.inputs), inputs.items(), strict=True):
        value.name = name
        if not term.is_as_in_source():
            _permute_input(copy.graph, value, term)
    for index, (name, term) in enumerate(outputs.items()):
        _permute_output(copy.graph, index, name, term)
    return copy


def _permute_input(graph: Graph, value: Value, term: Term) -> None:
    name, usages = value.name, value.uses()
    if term.flat:
        sizes = np.array(term.stored_shape(), dtype=np.int64)
        inputs = [value, dialect.add_initializer(graph, f"{name}_row", sizes)]
        node = onnx_ir.node("Reshape", inputs, name=f"{name}_to_row")
    else:
        node = transpose_node(value, permutations.inverse(term.axes), f"{name}_turn")
    out = node.outputs[0]
    out.name, out.type, out.shape = f"{name}_as_stored", value.type, value.shape
    value.shape = onnx_ir.Shape(term.shape)
    graph.insert_before(graph[0], node)
    for usage in usages:
        usage.node.replace_input_with(usage.idx, out)


def _permute_output(graph: Graph, index: int, name: str, term: Term) -> None:
    value = graph.outputs[index]
    if term.is_as_in_source():
        value.name = name
        return
    # The written model may have given it the source's name.
    value.name = f"{name}_as_stored"
    node = transpose_node(value, term.axes, f"{name}_turn")
    node.outputs[0].name, node.outputs[0].shape = name, onnx_ir.Shape(term.shape)
    graph.append(node)
    graph.outputs[index] = node.outputs[0]
