"""Batch normalization as a product and a sum, or taken into the layer before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.annotations import DATATYPE, retract
from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.graph.affine import batchnorm_affine, batchnorm_parameters
from qonnx_hub_ir.graph.builder import Emitter, set_constant
from qonnx_hub_ir.graph.constants import along_channels, drop_unread, read_initializers
from qonnx_hub_ir.graph.queries import (
    attribute,
    input_of,
    only_reader,
    producer,
    rank_of,
    weight_axes,
)
from qonnx_hub_ir.graph.rewriting import replace_node, rewrite_nodes
from qonnx_hub_ir.graph.unused import import_used
from qonnx_hub_ir.quantizers import Array


@dataclass(frozen=True)
class FoldBatchnorm(InPlacePass):
    """Replace BatchNormalization by Mul and Add, or fold it into the layer before.

    Before -> after::

        y = BatchNormalization(x, gain, shift, mean, variance)
        y = Add(Mul(x, factor), offset)
            factor = gain / sqrt(variance + epsilon),  offset = shift - mean * factor

        y = BatchNormalization(Conv(x, w, b), ...)      # weights
        y = Conv(x, w * factor, b * factor + offset)

    Factor and offset are computed in the order of operations that the executor and onnxruntime
    use for BatchNormalization, so that Mul and Add give the same values bit for bit there;
    elsewhere they differ by the rounding of a float product and sum. With ``weights`` every
    weight is rounded anew: each sum may differ by 4 * 2^-24 times the sum of the magnitudes
    of its terms.

    Does not fire where a parameter is no float constant or the rank of the input is not known,
    while training, nor inside subgraphs. With ``weights`` only float weights that nobody else
    reads are changed: behind a quantizer the grid would be left, so that Mul and Add are
    written there, as behind anything but Conv, Gemm and MatMul.

    Attributes:
        weights: Fold into the float weights of a Conv, Gemm or MatMul right before.
    """

    weights: bool = False

    effect = Effect.ROUNDING

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        graph = model.graph
        read = read_initializers(graph)
        if not rewrite_nodes(graph, self._replace, bodies=False):
            return PassResult(model, modified=False)
        drop_unread(graph, read)
        import_used(model)
        return PassResult(model, modified=True)

    def _replace(self, node: Node) -> bool:
        folded = _factor_and_offset(node)
        if folded is None:
            return False
        if self.weights and _fold_into_layer(node, *folded):
            return True
        rank, last = rank_of(node.inputs[0]) or 0, node.domain == dialect.CHANNELS_LAST_DOMAIN
        factor, offset = (along_channels(values, rank, last=last) for values in folded)
        emit = Emitter(node)
        inputs = [node.inputs[0], emit.constant("factor", factor)]
        scaled = emit.add("Mul", inputs, node.outputs[0])
        emit.replace_with(emit.add("Add", [scaled, emit.constant("offset", offset)]))
        return True


def _factor_and_offset(node: Node) -> tuple[Array, Array] | None:
    """Return factor and offset, (C,) each, of a BatchNormalization that can be replaced."""
    if node.op_type != "BatchNormalization" or not operators.of(node).is_per_channel:
        return None
    if any(v.name for v in node.outputs[1:]) or (rank_of(node.inputs[0]) or 0) < 2:
        return None
    known = batchnorm_parameters(node)
    if known is None or known[0].dtype not in (np.float32, np.float64):
        return None
    factor, offset = batchnorm_affine(*known)
    return factor.reshape(-1), offset.reshape(-1)


def _fold_into_layer(node: Node, factor: Array, offset: Array) -> bool:
    """Fold into the layer before; return whether that was possible."""
    source = node.inputs[0]
    layer = producer(source)
    if source is None or layer is None or layer.graph is not node.graph:
        return False
    axes = weight_axes(layer)
    if axes is None or not only_reader(source) or layer.op_type == "ConvTranspose":
        return False
    convolves = operators.is_convolution(layer, any_layout=True)
    if layer.domain != node.domain or (not convolves and rank_of(source) != 2):
        return False
    weight, bias = layer.inputs[1], input_of(layer, 2)
    known = dialect.constant_value(weight)
    if weight is None or known is None or not only_reader(weight):
        return False
    if known.dtype != factor.dtype or not (convolves or known.ndim == 2):
        return False
    before = np.zeros_like(offset) if bias is None else dialect.constant_value(bias)
    if before is None or known.shape[axes[0]] != factor.size:
        return False
    if attribute(layer, "beta", 1.0) != 1.0 or (before.ndim > 1 and before.shape[0] != 1):
        return False
    along = [1] * known.ndim
    along[axes[0]] = -1
    _set(weight, known * factor.reshape(along))
    emit = Emitter(node)
    if operators.bias_input(layer) is None:
        added = emit.constant("offset", offset.reshape(1, -1))
        emit.replace_with(emit.add("Add", [source, added]))
        return True
    shifted = before * factor + offset
    if bias is not None and bias.is_initializer() and only_reader(bias):
        _set(bias, shifted)
    else:
        set_constant(emit.graph, layer, 2, shifted, f"{layer.name}_bias")
    replace_node(node, source)
    return True


def _set(value: Value, array: Array) -> None:
    tensor = onnx_ir.Tensor(np.ascontiguousarray(array), name=value.name)
    value.const_value = tensor
    retract(value, DATATYPE)
    value.shape = dialect.known_shape(tensor)
