"""Constants as the last operands of operators that do not mind."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_ir import Model, Node
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.rewriting import rewrite_nodes


@dataclass(frozen=True)
class SortCommutative(InPlacePass):
    """Put constants behind the other operands of operators whose operands may change places.

    Before -> after: ``Add(b, x)`` -> ``Add(x, b)``. Values change places only: two operands
    give the same bits in either order. Does not fire where constants are last already, nor on
    sums of several, which would be added in another order.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        return PassResult(model, modified=rewrite_nodes(model.graph, _sort))


def _sort(node: Node) -> bool:
    if len(node.inputs) != 2 or not operators.is_commutative(node):
        return False
    first, second = node.inputs
    if dialect.constant_tensor(first) is None or dialect.constant_tensor(second) is not None:
        return False
    node.replace_input_with(0, second)
    node.replace_input_with(1, first)
    return True
