"""Average pools of integers with the channels last."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir
from onnx_ir import Model, Node
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.permutations import permuted, to_first, to_last
from qonnx_hub_ir.graph.rewriting import rewrite_nodes
from qonnx_hub_ir.lowering.qonnx_general import is_channels_last


@dataclass(frozen=True)
class QuantAvgpoolNhwc(InPlacePass):
    """Let every QuantAvgPool2d read its images channels last, between two Transposes.

    Before -> after::

        y = QuantAvgPool2d(x)
        y = Transpose(QuantAvgPool2d{NHWC}(Transpose(x)))

    Does not fire on those that do so already.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        return PassResult(model, modified=rewrite_nodes(model.graph, _rewrite))


def _rewrite(node: Node) -> bool:
    named = (node.domain, node.op_type) == (dialect.DOMAIN, "QuantAvgPool2d")
    if not named or is_channels_last(node):
        return False
    emit, x, y = Emitter(node), node.inputs[0], node.outputs[0]
    turned = emit.add("Transpose", [x], perm=to_last(4))
    attributes = {name: attr.value for name, attr in node.attributes.items()}
    pooled = emit.custom("QuantAvgPool2d", [turned], {**attributes, "data_layout": "NHWC"})
    pooled.type, pooled.shape = y.type, permuted(y.shape, to_last(4))
    if x is not None:
        turned.type, turned.shape = x.type, permuted(x.shape, to_last(4))
    maker, name = pooled.producer(), node.name
    emit.replace_with(emit.add("Transpose", [pooled], perm=to_first(4)))
    if isinstance(maker, onnx_ir.Node):
        maker.name = name
    return True
