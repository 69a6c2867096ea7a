"""The bias of a layer said as an Add behind it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx_ir import Graph, Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.constants import (
    drop_unread,
    is_constant_tree,
    read_initializers,
    shape_of_constant,
)
from qonnx_hub_ir.graph.queries import attribute, rank_of
from qonnx_hub_ir.graph.rearrange import Rearranger
from qonnx_hub_ir.quantizers import Array

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm"})


@dataclass(frozen=True)
class ExtractBias(InPlacePass):
    """Move the bias of Conv, ConvTranspose and Gemm into an Add behind the layer.

    Before -> after::

        y = Conv(x, w, Quant(b[O]))
        y = Add(Conv(x, w), Quant(b[1, O, 1, 1]))

    A constant bias is reshaped where it is, with the scales of its quantizer; any other by a
    Reshape. The bias is added last in either form, so that the values are the same bit for
    bit; a runtime that starts its sums with the bias rounds in another order. Does not fire on
    a Conv whose weight has an unknown rank, on a Gemm with ``beta`` other than 1, nor inside
    subgraphs.

    Attributes:
        only: Names of the nodes to change; all of them by default.
    """

    only: tuple[str, ...] | None = None

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        graph = model.graph
        wanted = None if self.only is None else frozenset(self.only)
        found = [
            node
            for node in graph
            if _has_bias(node) and (wanted is None or node.name in wanted)
        ]
        if not found:
            return PassResult(model, modified=False)
        read = read_initializers(graph)
        rearranger = Rearranger(graph)
        for node in found:
            _extract(graph, node, rearranger)
        drop_unread(graph, read)
        return PassResult(model, modified=True)


def _has_bias(node: Node) -> bool:
    if node.op_type not in _LAYERS or len(node.inputs) < 3 or node.inputs[2] is None:
        return False
    if node.op_type == "Gemm":
        return node.domain == "" and attribute(node, "beta", 1.0) == 1.0
    known = node.domain == "" or node.domain == dialect.CHANNELS_LAST_DOMAIN
    return known and rank_of(node.inputs[1]) is not None


def _extract(graph: Graph, node: Node, rearranger: Rearranger) -> None:
    bias, output = node.inputs[2], node.outputs[0]
    if bias is None:
        return
    emit = Emitter(node)
    summand = bias if node.op_type == "Gemm" else _aligned(emit, node, bias, rearranger)
    node.resize_inputs(2)
    usages = [(usage.node, usage.idx) for usage in output.uses()]
    name = output.name
    total = emit.add("Add", [output, summand])
    adding = total.producer()
    if adding is None:
        raise ValueError(f"'{total.name}' has no producer")
    graph.remove(adding)
    graph.insert_after(node, adding)
    total.type, total.shape = output.type, output.shape
    total.metadata_props.update(output.metadata_props)
    output.metadata_props.pop(dialect.PROVENANCE, None)
    for user, index in usages:
        user.replace_input_with(index, total)
    for index, value in enumerate(graph.outputs):
        if value is output:
            graph.outputs[index] = total
    output.name = f"{node.name}_without_bias"
    total.name = name


def _aligned(emit: Emitter, node: Node, bias: Value, rearranger: Rearranger) -> Value:
    """Return a bias (C,) with its axis where the channels of the output are."""
    rank = rank_of(node.inputs[1]) or 0
    last = node.domain == dialect.CHANNELS_LAST_DOMAIN
    shape = (1,) * (rank - 1) + (-1,) if last else (1, -1) + (1,) * (rank - 2)

    def reshaped(array: Array) -> Array:
        return array.reshape(shape)

    if is_constant_tree(bias) and len(shape_of_constant(bias)) == 1:
        return rearranger(bias, reshaped, shape, node, 1)
    sizes = emit.constant("bias_shape", np.array(shape, dtype=np.int64))
    return emit.add("Reshape", [bias, sizes])
