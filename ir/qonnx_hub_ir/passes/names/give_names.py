"""Nodes and tensors get readable names, for those who ask for them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from onnx_ir import Model, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import operators
from qonnx_hub_ir.graph.names import free_name, rename_values


@dataclass(frozen=True)
class GiveNames(InPlacePass):
    """Name nodes after their operators and tensors after their nodes, in the graph's order.

    Before -> after::

        node "/a/b/Conv": "/a/b/Conv_output_0" = Conv("data", "a.b.weight", "a.b.bias")
        node "Conv_0": "Conv_0_out0" = Conv("data", "Conv_0_weight", "Conv_0_bias")

    A constant is called after the first node that reads it, and what it is to it. Inputs and
    outputs of the model keep their names: they are its signature. The source layer's name in
    the metadata stays, so that reports still find it. No other pass changes names that users
    know, and no pipeline holds this one. Does not fire where all names are such already.

    Attributes:
        nodes: Name the nodes.
        tensors: Name the tensors.
    """

    nodes: bool = True
    tensors: bool = True

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        modified = False
        if self.nodes:
            modified |= _name_nodes(model)
        if self.tensors:
            modified |= _name_tensors(model)
        return PassResult(model, modified=modified)


def _name_nodes(model: Model) -> bool:
    counts: Counter[str] = Counter()
    modified = False
    for node in model.graph.all_nodes():
        name = f"{node.op_type}_{counts[node.op_type]}"
        counts[node.op_type] += 1
        modified |= node.name != name
        node.name = name
    return modified


def _name_tensors(model: Model) -> bool:
    kept = {*model.graph.inputs, *model.graph.outputs}
    for graph in model.graph.subgraphs():
        kept.update((*graph.inputs, *graph.outputs))
    taken = {str(value.name) for value in kept}
    wanted: dict[Value, str] = {}
    for node in model.graph.all_nodes():
        for index, value in enumerate(node.inputs):
            if value is not None and value.is_initializer() and value not in kept:
                role = operators.input_role(node, index) or f"param{index}"
                wanted.setdefault(value, f"{node.name}_{role}")
        for index, value in enumerate(node.outputs):
            if value.name and value not in kept:
                wanted[value] = f"{node.name}_out{index}"
    fresh = {value: free_name(name, taken) for value, name in wanted.items()}
    if all(value.name == name for value, name in fresh.items()):
        return False
    rename_values(model, list(fresh.items()))
    return True
