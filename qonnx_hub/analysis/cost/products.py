"""How many products each operator of a graph makes, and with which operands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Node, SymbolicDim, Value

from qonnx_hub_ir import operators
from qonnx_hub_ir.analysis import ValueInfo
from qonnx_hub_ir.errors import Gap, UnsupportedGraphError
from qonnx_hub_ir.quantizers import Array
from qonnx_hub_ir.verify import label


@dataclass(frozen=True, slots=True, eq=False)
class Products:
    """The products of one layer.

    Attributes:
        node: The layer.
        data: Its activation.
        stored: Its weights, or its second activation.
        weights: Elements of the weights; 0 if both operands depend on the inputs.
        nonzero: How many of the weights are not zero.
        macs: Multiplications.
        nonzero_macs: Those whose weight is not zero.
        outputs: Elements of the result.
    """

    node: Node
    data: Value
    stored: Value
    weights: int
    nonzero: int
    macs: int
    nonzero_macs: int
    outputs: int


class _Sizes:
    """Sizes of tensors for one sample: the open batch counts as 1."""

    def __init__(self, model: Model) -> None:
        self.batch = {
            size.value
            for value in model.graph.inputs
            if value.shape is not None and len(value.shape)
            for size in [value.shape[0]]
            if isinstance(size, SymbolicDim) and size.value is not None
        }
        self.gaps: list[Gap] = []

    def of(self, value: Value | None, node: Node) -> list[int]:
        """Return the sizes of a value; what is not known is noted and counts as 1."""
        if value is None or value.shape is None:
            self.gaps.append(_gap(node, "the shape of an operand is not known"))
            return [1, 1]
        sizes = []
        for axis, size in enumerate(value.shape):
            if isinstance(size, int):
                sizes.append(size)
                continue
            if axis > 0 and size.value not in self.batch:
                name = f"'{value.name}', axis {axis}"
                self.gaps.append(_gap(node, f"the size of {name} is not known"))
            sizes.append(1)
        return sizes


def _gap(node: Node, reason: str) -> Gap:
    return Gap(str(node.name), node.op_type, reason, "give the model's inputs fixed sizes")


def count_products(
    model: Model, static: set[Value], infos: Mapping[Value, ValueInfo]
) -> list[Products]:
    """Return the products of every layer, for one sample where the batch is open.

    Args:
        model: The graph.
        static: Values that do not depend on the inputs.
        infos: What is known about each value.

    Raises:
        UnsupportedGraphError: Sizes that are not known; every place is listed.
    """
    sizes = _Sizes(model)
    found = [
        _count(node, static, infos, sizes)
        for node in model.graph
        if operators.is_product(node) and node.outputs[0] not in static
    ]
    if sizes.gaps:
        raise UnsupportedGraphError("products cannot be counted:", sizes.gaps)
    return found


def _count(
    node: Node, static: set[Value], infos: Mapping[Value, ValueInfo], sizes: _Sizes
) -> Products:
    left, right = node.inputs[0], node.inputs[1]
    assert left is not None, "the model is valid"
    assert right is not None, "the model is valid"
    data, stored = (right, left) if left in static else (left, right)
    outputs = math.prod(sizes.of(node.outputs[0], node))
    shape = sizes.of(right, node)
    if operators.is_convolution(node):
        # Each weight meets every place of the output, or of the input where it is spread.
        spread = left if node.op_type == "ConvTranspose" else node.outputs[0]
        places = sizes.of(spread, node)
        macs = math.prod(shape) * places[0] * math.prod(places[2:])
    else:
        turned = node.attributes.get("transA")
        first = sizes.of(left, node)
        length = first[0] if turned is not None and turned.value else first[-1]
        macs = length * outputs
    if stored not in static:
        return Products(node, data, stored, 0, 0, macs, macs, outputs)
    weights = math.prod(sizes.of(stored, node))
    nonzero = _nonzero(infos.get(stored), weights)
    return Products(
        node, data, stored, weights, nonzero, macs, macs // weights * nonzero, outputs
    )


def _nonzero(info: ValueInfo | None, count: int) -> int:
    """Return how many weights are not zero; all of them where their values are not known."""
    if info is None or info.constant is None:
        return count
    values: Array = info.constant.values
    return int(np.count_nonzero(values))


def static_values(model: Model) -> set[Value]:
    """Return the values that do not depend on the inputs."""
    static = {v for v in model.graph.initializers.values() if not v.is_graph_input()}
    for node in model.graph:
        if all(v is None or v in static for v in node.inputs):
            static.update(node.outputs)
    return static


def notes_on(model: Model) -> list[str]:
    """Return a sentence for each kind of operator whose products are not counted."""
    nodes = list(model.graph.all_nodes())
    products = [node for node in nodes if operators.has_products(node)]
    left = [label(node) for node in products if not operators.is_product(node)]
    counted = [node for node in products if operators.is_product(node)]
    inner = [label(node) for node in counted if node.graph is not model.graph]
    notes = [f"not counted: {', '.join(left)}"] if left else []
    if inner:
        notes.append(f"not counted, inside of a branch or a loop: {', '.join(inner)}")
    return notes
