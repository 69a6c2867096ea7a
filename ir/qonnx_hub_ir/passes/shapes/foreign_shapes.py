"""Shapes of what operators of other distributions make, by their own rules."""

from __future__ import annotations

import onnx_ir
from onnx_ir import Model, Node

from qonnx_hub_ir import operators
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.graph.queries import dims
from qonnx_hub_ir.graph.subgraphs import nodes_within
from qonnx_hub_ir.operators.foreign import foreign_operators


def give_foreign_shapes(model: Model) -> bool:
    """Give outputs of foreign operators shapes where they have none; return whether it did.

    Raises:
        PassError: A rule fails, or does not tell as many shapes as the node has outputs.
    """
    opaque = [node for node in nodes_within(model.graph) if operators.is_opaque(node)]
    return any([_give(node) for node in opaque])  # noqa: C419 - every one of them


def _give(node: Node) -> bool:
    known = foreign_operators().get((node.domain, node.op_type))
    if known is None or known.shapes is None or all(v.shape for v in node.outputs):
        return False
    attributes = {name: attr.value for name, attr in node.attributes.items()}
    try:
        found = known.shapes([dims(value) for value in node.inputs], attributes)
        pairs = list(zip(node.outputs, found, strict=True))
    except Exception as error:  # somebody else's code raises whatever it raises
        told = f"{type(error).__name__}: {error}"
        raise PassError(f"the shapes of {node.op_type} '{node.name}': {told}") from error
    modified = False
    for value, sizes in pairs:
        if value.shape is None and sizes is not None:
            value.shape, modified = onnx_ir.Shape(list(sizes)), True
        if value.type is None and node.inputs and node.inputs[0] is not None:
            value.type = node.inputs[0].type
    return modified
