"""Questions about a graph that the rules of several targets ask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub_ir import dialect
from qonnx_hub_ir.quantizers import Array, BipolarQuant, IntQuant

PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose"})


def quantizers(model: Model) -> Iterator[Node]:
    """Give the quantizer nodes of the graph, in order."""
    return (node for node in model.graph if dialect.is_quantizer(node))


def is_constant(value: Value | None) -> bool:
    """Return whether a value is an initializer, or one quantized, moved or reshaped."""
    while value is not None:
        if dialect.constant_tensor(value) is not None:
            return True
        node = value.producer()
        if node is None or not (dialect.is_quantizer(node) or _only_moves(node)):
            return False
        value = node.inputs[0]
    return False


def _only_moves(node: Node) -> bool:
    return moved_axes(node) or (
        node.domain == "" and node.op_type in {"Transpose", "Identity"}
    )


def made_of_sizes(model: Model) -> set[Value]:
    """Return the values that depend on nothing but known sizes: any cleanup folds them."""
    made: set[Value] = set()
    for node in model.graph:
        inputs = [value for value in node.inputs if value is not None]
        if node.op_type == "Shape":
            shape = inputs[0].shape
            ready = shape is not None and all(isinstance(size, int) for size in shape)
        else:
            ready = any(value in made for value in inputs) and all(
                value in made or dialect.constant_tensor(value) is not None for value in inputs
            )
        if ready:
            made.update(node.outputs)
    return made


def is_weight(node: Node) -> bool:
    """Return whether a quantizer's data is constant."""
    return is_constant(node.inputs[0])


def known(node: Node) -> IntQuant | BipolarQuant | None:
    """Return an integer or bipolar quantizer whose parameters are all constant."""
    quant = dialect.read_quantizer(node)
    if not isinstance(quant, (IntQuant, BipolarQuant)):
        return None
    return None if any(p is None for p in dialect.parameters(quant)) else quant


def array(values: Any) -> Array:
    """Return a quantizer's parameter as float64."""
    return np.asarray(values, dtype=np.float64)


def readers(value: Value) -> list[Node]:
    """Return the nodes that read a value, once per use."""
    return [use.node for use in value.uses()]


def rank(value: Value | None) -> int | None:
    """Return how many axes a value has, where that is known."""
    return None if value is None or value.shape is None else len(value.shape)


def producer(value: Value | None) -> Node | None:
    """Return the node that makes a value."""
    return None if value is None else value.producer()


def moved_axes(node: Node) -> bool:
    """Return whether a node only moves or renames elements."""
    return node.domain == "" and node.op_type in {"Flatten", "Reshape", "Squeeze", "Unsqueeze"}
