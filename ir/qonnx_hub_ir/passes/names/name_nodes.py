"""Every node gets a name of its own."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_ir import Model
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir.graph.names import node_names
from qonnx_hub_ir.graph.subgraphs import nodes_within


@dataclass(frozen=True)
class NameNodes(InPlacePass):
    """Name nodes that have no name, or one that another node has already.

    Before -> after: two unnamed Relus -> ``Relu_0``, ``Relu_1``. Names are what messages and
    reports point at. A node whose name is its own keeps it.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        taken = node_names(model.graph)
        used: set[str] = set()
        counters: dict[str, int] = {}
        modified = False
        for node in nodes_within(model.graph):
            if not node.name or node.name in used:
                stem = node.name or node.op_type
                count = counters.get(stem, 0)
                while f"{stem}_{count}" in taken:
                    count += 1
                counters[stem] = count + 1
                node.name = f"{stem}_{count}"
                taken.add(node.name)
                modified = True
            used.add(node.name)
        return PassResult(model, modified=modified)
