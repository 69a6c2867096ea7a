"""The order in which nodes stand in the graph, and are numbered."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_ir import Model, Node
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir.graph.subgraphs import read_values


@dataclass(frozen=True)
class SortByDepth(InPlacePass):
    """Order nodes by the longest way from an input or a constant, as the qonnx package does.

    Before -> after: ``q = Quant(x); m = MatMul(q, w); w2 = Quant(v)`` -> ``q, w2, m``. Nodes
    of one depth keep their order. What names nodes by number afterwards gives the numbers that
    files of that package have. Does not fire where the order is that already.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        nodes = list(model.graph)
        depths: dict[Node, int] = {}
        for node in nodes:
            makers = (value.producer() for value in read_values(node))
            depths[node] = 1 + max((depths.get(m, -1) for m in makers if m), default=-1)
        order = sorted(nodes, key=lambda node: depths[node])
        if order == nodes:
            return PassResult(model, modified=False)
        model.graph.remove(nodes)
        model.graph.extend(order)
        return PassResult(model, modified=True)
