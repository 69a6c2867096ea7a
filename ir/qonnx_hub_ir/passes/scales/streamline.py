"""Scales move past linear layers, so that these work on the integers of quantizers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Node
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.graph.constants import drop_unread, read_initializers
from qonnx_hub_ir.graph.queries import attribute, input_of, is_standard, producer
from qonnx_hub_ir.passes.layers.extract_bias import ExtractBias
from qonnx_hub_ir.passes.layers.gemm_to_matmul import GemmToMatmul
from qonnx_hub_ir.passes.layout.fold_weight_layout import FoldWeightLayout
from qonnx_hub_ir.passes.scales.scale_rules import RULES, find_wanted, weight_scale
from qonnx_hub_ir.passes.scales.scale_walk import PendingScales


@dataclass(frozen=True)
class Streamline(InPlacePass):
    """Take scales out of quantizers and move them past linear layers, merging what meets.

    Before -> after::

        y = MatMul(Quant(x, s), Quant(w, t))
        y = Mul(MatMul(Quant(Div(x, s), 1), Quant(w / t, 1)), s * t)

    so that both factors of the product are integers.

    1. The scale of a weight's quantizer comes out behind Conv and MatMul, where it is one for
       all or one per output channel. A Gemm with such a weight becomes MatMul and Add, and the
       bias of such a Conv an Add.
    2. The scale of an activation's quantizer comes out where a linear layer reads it, possibly
       through operators that a factor can pass, and where it is one for all.
    3. Constant factors move down: past MatMul and Conv (one for all; past a depthwise Conv one
       per channel), pools, Relu and LeakyRelu, Reshape and its like, Transpose, Concat and Add
       of equal factors. Only positive ones pass a maximum or a Relu. Summands pass a maximum
       and what only moves values.
    4. Consecutive factors and summands become one factor and one summand.
    5. A factor that is a power of two is absorbed into the scale of the quantizer below, where
       that scale comes out too: ``Quant(4 x, s)`` is ``4 Quant(x, s / 4)``. No other factor
       is, for it would move the ties.

    With ``exact`` only powers of two move, and every value stays the same bit for bit, as long
    as nothing leaves the range of normal floats. Without, a value behind a moved factor is
    rounded in another order: it differs by a few units of 2^-24 of the largest term of its
    sum, and a quantizer below may turn that into one step.

    Does not fire where there is nothing to move, inside subgraphs, nor on FloatQuant and
    Trunc.
    A reader that cannot go on with the unscaled value gets Mul and Add in front of it.

    Attributes:
        exact: Move only what keeps every value bit for bit.
        weights: Take the scales of weights out.
        activations: Take the scales of activations out.
    """

    exact: bool = False
    weights: bool = True
    activations: bool = True

    @property
    def effect(self) -> Effect:
        """Return what the options promise."""
        return Effect.EXACT if self.exact else Effect.ROUNDING

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        graph = model.graph
        read = read_initializers(graph)
        modified = False
        if self.weights:
            if any(map(_moves_scaled_weight, graph)):
                modified = FoldWeightLayout()(model).modified
            modified |= _split_layers(model, exact=self.exact)
        wanted = find_wanted(graph) if self.activations else set()
        scales = PendingScales(
            model, RULES, exact=self.exact, weights=self.weights, wanted=wanted
        )
        scales.walk()
        scales.finish()
        modified |= scales.modified
        if modified:
            drop_unread(graph, read)
        return PassResult(model, modified=modified)


def _moves_scaled_weight(node: Node) -> bool:
    quantizer = producer(input_of(node, 0))
    moves = operators.reshapes(node) or operators.transposes(node)
    if quantizer is None or not moves or not dialect.is_quantizer(quantizer):
        return False
    known = [dialect.constant_value(value) for value in quantizer.inputs]
    scale = None if any(array is None for array in known) else known[1]
    return scale is not None and bool(np.any(scale != 1))


def _split_layers(model: Model, *, exact: bool) -> bool:
    """Split layers whose weight has a scale to take out, and a bias that is in its way."""
    gemms, convs = [], []
    for node in model.graph:
        if weight_scale(node, exact=exact) is None:
            continue
        if node.op_type == "Conv" and input_of(node, 2) is not None:
            convs.append(str(node.name))
        elif is_standard(node, "Gemm") and attribute(node, "beta", 1.0) == 1.0:
            gemms += [] if attribute(node, "transA", 0) else [str(node.name)]
    modified = bool(convs) and ExtractBias(only=tuple(convs))(model).modified
    return (bool(gemms) and GemmToMatmul(only=tuple(gemms))(model).modified) or modified
