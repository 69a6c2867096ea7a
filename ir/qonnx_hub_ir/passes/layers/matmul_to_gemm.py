"""MatMul of matrices, and the bias behind it, as Gemm."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir
from onnx_ir import Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir.graph.constants import constant_shape
from qonnx_hub_ir.graph.queries import dims, is_standard, only_reader, rank_of
from qonnx_hub_ir.graph.rewriting import replace_node, rewrite_nodes


@dataclass(frozen=True)
class MatmulToGemm(InPlacePass):
    """Replace every MatMul of two matrices, and a constant Add behind it, by Gemm.

    Before -> after::

        y = Add(MatMul(x, w[I, O]), b[O])
        y = Gemm(x, w[I, O], b)

    The bias is a constant, quantized or not, with one value per column or one for all. The
    same numbers are multiplied and added in the same order. Does not fire where a rank is not
    2 or not known, on products of integers, nor inside subgraphs; an Add of anything else
    stays.

    Attributes:
        plain: Replace a MatMul without a bias too.
    """

    plain: bool = True

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        return PassResult(model, modified=rewrite_nodes(model.graph, self._join, bodies=False))

    def _join(self, node: Node) -> bool:
        if not is_standard(node, "MatMul") or any(rank_of(v) != 2 for v in node.inputs):
            return False
        dtype = node.outputs[0].dtype or (node.inputs[0].dtype if node.inputs[0] else None)
        if dtype is None or not dtype.is_floating_point():
            return False
        adding = _bias_behind(node)
        if adding is None and not self.plain:
            return False
        node.op_type = "Gemm"
        for name in ("alpha", "beta"):
            node.attributes[name] = onnx_ir.AttrFloat32(name, 1.0)
        if adding is None:
            return True
        node.resize_inputs(3)
        add, bias = adding
        node.replace_input_with(2, bias)
        quantizer, graph = bias.producer(), node.graph
        if quantizer is not None and graph is not None and quantizer.graph is graph:
            # It may stand behind the product; its inputs are constants.
            graph.remove(quantizer)
            graph.insert_before(node, quantizer)
        replace_node(add, node.outputs[0])
        return True


def _bias_behind(node: Node) -> tuple[Node, Value] | None:
    """Return the Add behind a product, and the bias that it adds."""
    output = node.outputs[0]
    if not only_reader(output):
        return None
    (usage,) = output.uses()
    add, columns = usage.node, (dims(node.inputs[1]) or (None, None))[1]
    if not is_standard(add, "Add") or add.graph is not node.graph:
        return None
    bias = add.inputs[1 - usage.idx]
    shape = constant_shape(bias)
    if bias is None or shape is None or len(shape) > 2 or (len(shape) == 2 and shape[0] != 1):
        return None
    return (add, bias) if not shape or shape[-1] in (1, columns) else None
