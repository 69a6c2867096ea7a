"""Transposes and reshapes of quantized constants are done once, on the constant."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx_ir import Graph, Model, Node
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.annotations import carry, forget_shape, permute_layout
from qonnx_hub_ir.graph.constants import drop_unread, squeezed
from qonnx_hub_ir.graph.permutations import perm_of
from qonnx_hub_ir.graph.queries import only_reader, producer
from qonnx_hub_ir.graph.rearrange import moved
from qonnx_hub_ir.graph.rewriting import rewrite_nodes
from qonnx_hub_ir.quantizers import Array


@dataclass(frozen=True)
class FoldWeightLayout(InPlacePass):
    """Move a Transpose, Reshape, Squeeze, Unsqueeze or Flatten before a weight's quantizer.

    Before -> after::

        k = Quant(kernel[H, W, I, O], scale[1, 1, 1, O], ...);  w = Transpose(k)
        w = Quant(kernel[O, I, H, W], scale[O, 1, 1, 1], ...)

    Values are not touched: they only change places. Parameters with several values move along
    with the elements they belong to. Fires where the quantizer's inputs and the shape are all
    constants; a quantizer that others read too is duplicated. Does not fire on activations.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        return PassResult(model, modified=rewrite_nodes(model.graph, _fold, bodies=False))


def _fold(move: Node) -> bool:
    if not (operators.reshapes(move) or operators.transposes(move)):
        return False
    quantizer, graph = producer(move.inputs[0]), move.graph
    if quantizer is None or not dialect.is_quantizer(quantizer):
        return False
    # A graph output would lose its name to the new quantizer's.
    if not isinstance(graph, Graph) or move.outputs[0].is_graph_output():
        return False
    arrays = [dialect.constant_value(value) for value in quantizer.inputs]
    known = [array for array in arrays if array is not None]
    data, made = quantizer.inputs[0], quantizer.outputs[0]
    if data is None or len(known) != len(arrays):
        return False
    elements = moved(move, known[0])
    if elements is None:
        return False
    fresh = [_moved_parameter(move, parameter, known[0].shape) for parameter in known[1:]]
    quant = dialect.with_parameters(dialect.read_quantizer(quantizer), fresh)
    name, label = str(quantizer.name), str(data.name)
    provenance = dict(data.metadata_props)
    if only_reader(made):
        read = [value for value in quantizer.inputs if value is not None]
        move.replace_input_with(0, None)
        if quantizer.graph is graph:
            # What takes its place stands there: nodes are numbered in the graph's order.
            graph.remove(move)
            graph.insert_before(quantizer, move)
        graph.remove(quantizer, safe=True)
        drop_unread(graph, read)  # so that their names are free
    else:
        # The first one stays for its other readers, and keeps its name.
        name = f"{name}_{move.name}"
    constant = dialect.add_initializer(graph, label, elements)
    constant.metadata_props.update(provenance)
    carry(data, constant)
    perm = perm_of(move)
    if perm is None:
        forget_shape(constant)
    else:
        permute_layout(constant, perm)
    node = dialect.quantizer_node(constant, quant, name, graph)
    node.outputs[0].metadata_props.update(made.metadata_props)
    carry(move.outputs[0], node.outputs[0])
    move.prepend(node)
    move.outputs[0].replace_all_uses_with(node.outputs[0])
    graph.remove(move, safe=True)
    return True


def _moved_parameter(move: Node, parameter: Array, shape: tuple[int, ...]) -> Array:
    """Return a parameter that belongs to the same elements after the move."""
    if parameter.size == 1:
        return parameter.reshape(())
    elements = moved(move, np.broadcast_to(parameter, shape))
    if elements is None:
        raise ValueError(f"'{move.name}' moves the values but not their parameters")
    return squeezed(elements)
