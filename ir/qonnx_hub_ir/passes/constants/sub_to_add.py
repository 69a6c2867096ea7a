"""A difference to a constant as a sum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Node
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import is_standard
from qonnx_hub_ir.graph.rewriting import rewrite_nodes


@dataclass(frozen=True)
class SubToAdd(InPlacePass):
    """Replace the subtraction of a constant of floats by the addition of its negative.

    Before -> after: ``Sub(x, 0.5)`` -> ``Add(x, -0.5)``, bit for bit the same. Does not fire
    on integers, which may wrap, nor where the second operand is computed.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        return PassResult(model, modified=rewrite_nodes(model.graph, _rewrite))


def _rewrite(node: Node) -> bool:
    known = dialect.constant_value(node.inputs[1]) if is_standard(node, "Sub") else None
    if known is None or known.dtype.kind != "f":
        return False
    emit = Emitter(node)
    negative = emit.constant("negative", np.asarray(-known, dtype=known.dtype))
    emit.replace_with(emit.add("Add", [node.inputs[0], negative], node.outputs[0]))
    return True
