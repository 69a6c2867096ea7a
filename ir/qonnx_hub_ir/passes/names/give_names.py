"""Nodes and tensors get readable names, for those who ask for them."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_ir import Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.names import free_name
from qonnx_hub_ir.graph.subgraphs import every_value


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
    counters: dict[str, int] = {}
    modified = False
    for node in model.graph.all_nodes():
        count = counters.get(node.op_type, 0)
        counters[node.op_type] = count + 1
        name = f"{node.op_type}_{count}"
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
                wanted.setdefault(value, f"{node.name}_{_role(node, index)}")
        for index, value in enumerate(node.outputs):
            if value.name and value not in kept:
                wanted[value] = f"{node.name}_out{index}"
    fresh = {value: free_name(name, taken) for value, name in wanted.items()}
    modified = any(value.name != name for value, name in fresh.items())
    if not modified:
        return False
    everyone = {str(value.name) for value in every_value(model)} | taken
    for count, value in enumerate(fresh):
        # Old and new names overlap: for a moment nobody has any of them.
        value.name = free_name(f"unnamed_{count}", everyone)
    for value, name in fresh.items():
        value.name = name
        if value.const_value is not None:
            value.const_value.name = name
    return True


_ROLES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), ("left", "weight", "bias")),
    "BatchNormalization": ("data", "gamma", "beta", "mean", "variance"),
    "Reshape": ("data", "shape"),
    "PRelu": ("data", "slope"),
    "Clip": ("data", "lowest", "highest"),
}


def _role(node: Node, index: int) -> str:
    """Return what an input is to a node."""
    if dialect.is_quantizer(node):
        names = ("values", *dialect.input_names(node)[1:])
    elif dialect.is_thresholds(node):
        names = ("values", "thresholds")
    else:
        names = _ROLES.get(node.op_type, ())
    return names[index].replace(" ", "_") if index < len(names) else f"param{index}"
