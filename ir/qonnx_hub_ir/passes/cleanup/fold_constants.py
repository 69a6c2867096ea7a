"""Constant sub-graphs become initializers; quantizers stay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx_ir import Graph, Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.annotations import carry
from qonnx_hub_ir.errors import PassError, words_of
from qonnx_hub_ir.graph.rewriting import replace_value
from qonnx_hub_ir.graph.subgraphs import every_graph
from qonnx_hub_ir.quantizers import Array

_LARGEST_GROWTH = 1 << 16
"""A fold may not make more elements than this out of fewer: an Expand is cheaper as a node."""


@dataclass(frozen=True)
class FoldConstants(InPlacePass):
    """Compute every standard node whose inputs are all constants, in bodies as well.

    Before -> after: ``Ceil(Div(Log(15), Log(2)))`` as the bit width of a Trunc -> initializer
    ``4``. Quantizers, QuantizeLinear and DequantizeLinear are never folded, nor anything that
    depends on them, nor nodes that read the shape of an input. One walk in topological order.

    Raises:
        PassError: A constant node fails; the message names it.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        modified = False
        for graph in every_graph(model, functions=False):
            for node in list(graph):
                modified |= _is_constant(node) and _fold(graph, node, model.opset_imports[""])
        return PassResult(model, modified=modified)


def _is_constant(node: Node) -> bool:
    row = operators.of(node)
    # Quantization is what this project is about; sequences are no tensors; the others are no
    # function of the inputs alone, or give another answer at every run.
    stays = row.quantizes or row.subgraphs or row.no_tensors or operators.is_random(node)
    if node.domain != "" or not node.inputs or stays or operators.is_qdq(node):
        return False
    return all(
        value is None or (value.is_initializer() and not value.is_graph_input())
        for value in node.inputs
    )


def _fold(graph: Graph, node: Node, opset: int) -> bool:
    """Put a node's results in its place; return whether they are small enough for that."""
    results = _compute(node, opset)
    if results is None:
        return False
    for output, array in zip(node.outputs, results, strict=True):
        _replace(graph, output, array)
    graph.remove(node, safe=True)
    return True


def _compute(node: Node, opset: int) -> list[Array] | None:
    feeds = {
        f"i{index}": dialect.constant_value(value)
        for index, value in enumerate(node.inputs)
        if value is not None
    }
    proto = onnx_ir.serde.serialize_node(node)
    del proto.input[:], proto.output[:]
    proto.input.extend("" if v is None else f"i{i}" for i, v in enumerate(node.inputs))
    names = [f"o{index}" for index in range(len(node.outputs))]
    proto.output.extend(names)
    graph = helper.make_graph(
        [proto],
        "constant",
        [helper.make_value_info(name, onnx.TypeProto()) for name in feeds],
        [helper.make_value_info(name, onnx.TypeProto()) for name in names],
    )
    single = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(single).run(None, feeds)
    except Exception as error:  # the evaluator raises whatever numpy raises
        raise PassError(
            f"constant node {node.op_type} '{node.name}' cannot be computed: {words_of(error)}"
        ) from error
    arrays = [np.asarray(result) for result in results]
    given = sum(a.size for a in feeds.values() if a is not None)
    made = sum(a.size for a in arrays)
    return None if made > max(given, _LARGEST_GROWTH) else arrays


def _replace(graph: onnx_ir.Graph, output: Value, array: Array) -> None:
    if output.is_graph_output():
        # The initializer becomes the output; an Identity would hide that it is constant.
        name = str(output.name)
        output.name = f"{name}_unfolded"
        constant = dialect.add_initializer(graph, name, array)
        carry(output, constant)
        output.replace_all_uses_with(constant, replace_graph_outputs=True)
    elif output.uses():
        constant = dialect.add_initializer(graph, f"{output.name}_folded", array)
        replace_value(output, constant, keep_name=False, keep_type=False)
