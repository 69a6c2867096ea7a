"""Nodes and tensors get readable names, for those who ask for them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from onnx_ir import Model, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import operators
from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.graph.names import free_name, rename_values

SCHEMES = ("roles", "qonnx")


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
        scheme: "roles", or "qonnx" for the names that the qonnx package gives: constants
            are ``Conv_0_param0``, inputs and outputs ``global_in``, ``global_in_1``,
            ``global_out``.

    Raises:
        PassError: No such scheme.
    """

    nodes: bool = True
    tensors: bool = True
    scheme: str = "roles"

    @property
    def effect(self) -> Effect:
        """What it promises: the scheme "qonnx" renames inputs and outputs."""
        return Effect.SIGNATURE if self.scheme == "qonnx" else Effect.EXACT

    def requires(self, model: Model) -> None:
        """Refuse a scheme that does not exist."""
        if self.scheme not in SCHEMES:
            raise PassError(f"unknown scheme '{self.scheme}'; there are: {', '.join(SCHEMES)}")

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        modified = False
        if self.nodes:
            modified |= _name_nodes(model)
        if self.tensors:
            wanted = _by_role(model) if self.scheme == "roles" else _by_place(model)
            modified |= _name_tensors(model, wanted)
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


def _by_place(model: Model) -> dict[Value, str]:
    """Return the names by which the qonnx package calls tensors: later ones win there."""
    wanted: dict[Value, str] = {}
    for node in model.graph.all_nodes():
        for index, value in enumerate(node.outputs):
            if value.name:
                wanted[value] = f"{node.name}_out{index}"
        constants = (v for v in node.inputs if v is not None and v.is_initializer())
        for index, value in enumerate(constants):
            wanted[value] = f"{node.name}_param{index}"
    for values, stem in (
        (model.graph.inputs, "global_in"),
        (model.graph.outputs, "global_out"),
    ):
        for index, value in enumerate(values):
            wanted[value] = f"{stem}_{index}" if index else stem
    return wanted


def _by_role(model: Model) -> dict[Value, str]:
    kept = _signature(model)
    wanted: dict[Value, str] = {}
    for node in model.graph.all_nodes():
        for index, value in enumerate(node.inputs):
            if value is not None and value.is_initializer() and value not in kept:
                role = operators.input_role(node, index) or f"param{index}"
                wanted.setdefault(value, f"{node.name}_{role}")
        for index, value in enumerate(node.outputs):
            if value.name and value not in kept:
                wanted[value] = f"{node.name}_out{index}"
    return wanted


def _signature(model: Model) -> set[Value]:
    """Return inputs and outputs, those of bodies as well."""
    kept = {*model.graph.inputs, *model.graph.outputs}
    for graph in model.graph.subgraphs():
        kept.update((*graph.inputs, *graph.outputs))
    return kept


def _name_tensors(model: Model, wanted: dict[Value, str]) -> bool:
    taken = {str(value.name) for value in _signature(model) if value not in wanted}
    fresh = {value: free_name(name, taken) for value, name in wanted.items()}
    if all(value.name == name for value, name in fresh.items()):
        return False
    rename_values(model, list(fresh.items()))
    return True
