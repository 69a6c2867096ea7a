"""The bias of a layer as an Add behind it."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_ir import Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.constants import channel_shape, constant_shape
from qonnx_hub_ir.graph.queries import attribute, input_of, rank_of, selected
from qonnx_hub_ir.graph.rearrange import Rearranger, rearrange_at
from qonnx_hub_ir.graph.rewriting import read_behind


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
        convolutions: Change convolutions only.
    """

    only: tuple[str, ...] | None = None
    convolutions: bool = False

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        found = selected(model.graph, self._has_bias, self.only)
        return PassResult(model, modified=rearrange_at(model.graph, found, _extract))

    def _has_bias(self, node: Node) -> bool:
        if not operators.is_product(node, any_layout=True) or input_of(node, 2) is None:
            return False
        if operators.is_matrix_product(node):
            return not self.convolutions and bool(attribute(node, "beta", 1.0) == 1.0)
        return rank_of(node.inputs[1]) is not None


def _extract(node: Node, rearranger: Rearranger) -> None:
    bias, output = node.inputs[2], node.outputs[0]
    if bias is None:
        return
    emit = Emitter(node)
    matrix = operators.is_matrix_product(node)
    summand = bias if matrix else _aligned(emit, node, bias, rearranger)
    node.resize_inputs(2)
    adding = emit.add("Add", [output, summand], output).producer()
    if adding is not None:
        emit.graph.remove(adding)
        emit.graph.insert_after(node, adding)
        read_behind(adding, f"{node.name}_without_bias", keep_name=True)


def _aligned(emit: Emitter, node: Node, bias: Value, rearranger: Rearranger) -> Value:
    """Return a bias (C,) with its axis where the channels of the output are."""
    rank = rank_of(node.inputs[1]) or 0
    last = node.domain == dialect.CHANNELS_LAST_DOMAIN
    shape = channel_shape(rank, last=last)
    if len(constant_shape(bias) or ()) == 1:
        return rearranger(bias, lambda array: array.reshape(shape), shape, node, 1)
    return emit.add("Reshape", [bias, emit.integers("bias_shape", shape)])
