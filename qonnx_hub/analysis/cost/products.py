"""How many products each operator of a graph makes, and with which operands."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.analysis import ValueInfo
from qonnx_hub_ir.errors import Gap, UnsupportedGraphError
from qonnx_hub_ir.facts import facts_of
from qonnx_hub_ir.graph.queries import attribute, dims, element_count, input_of, weight_axes
from qonnx_hub_ir.validity import label


@dataclass(frozen=True, slots=True, eq=False)
class LayerProducts:
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
        shapes = (sizes for value in model.graph.inputs if (sizes := dims(value)))
        self.batch = {sizes[0] for sizes in shapes if isinstance(sizes[0], str)}
        self.gaps: list[Gap] = []

    def of(self, value: Value | None, node: Node) -> list[int]:
        """Return the sizes of a value; what is not known is noted and counts as 1."""
        sizes = dims(value)
        if value is None or sizes is None:
            self.gaps.append(_gap(node, "the shape of an operand is not known"))
            return [1, 1]
        for axis, size in enumerate(sizes):
            if axis > 0 and not isinstance(size, int) and size not in self.batch:
                name = f"'{value.name}', axis {axis}"
                self.gaps.append(_gap(node, f"the size of {name} is not known"))
        return [size if isinstance(size, int) else 1 for size in sizes]


def _gap(node: Node, reason: str) -> Gap:
    return Gap(str(node.name), node.op_type, reason, "give the model's inputs fixed sizes")


def count_products(model: Model, infos: Mapping[Value, ValueInfo]) -> list[LayerProducts]:
    """Return the products of every layer, for one sample where the batch is open.

    Args:
        model: The graph.
        infos: What is known about each value.

    Raises:
        UnsupportedGraphError: Sizes that are not known; every place is listed.
    """
    sizes, dynamic = _Sizes(model), facts_of(model).dynamic
    found = [
        _count(node, dynamic, infos, sizes)
        for node in model.graph
        if is_counted(node) and node.outputs[0].name in dynamic
    ]
    if sizes.gaps:
        raise UnsupportedGraphError("products cannot be counted:", sizes.gaps)
    return found


def is_counted(node: Node) -> bool:
    """Return whether the products of an operator are counted: layers of any numbers."""
    product = operators.of(node).product
    in_integers = product is not None and product.is_integer
    return operators.is_product(node) or (
        in_integers and not attribute(node, "channels_last", 0)
    )


def _count(
    node: Node, dynamic: Collection[str], infos: Mapping[Value, ValueInfo], sizes: _Sizes
) -> LayerProducts:
    product = operators.of(node).product
    assert product is not None, "it was chosen so"
    left, right = node.inputs[0], node.inputs[product.weight]
    assert left is not None, "the model is valid"
    assert right is not None, "the model is valid"
    data, stored = (left, right) if left.name in dynamic else (right, left)
    if _has_unknown_rows(node):
        # One row of data with a matrix of weights.
        known = [size for size in dims(right) or () if isinstance(size, int)]
        columns = known[(weight_axes(node) or (-1, -2))[0]]
        return _products(node, left, right, math.prod(known), columns, infos)
    outputs = math.prod(sizes.of(node.outputs[0], node))
    shape = sizes.of(right, node)
    if product.slides:
        # Each weight meets every place of the output, or of the input where it is spread.
        spread = left if node.op_type == "ConvTranspose" else node.outputs[0]
        places = sizes.of(spread, node)
        macs = math.prod(shape) * places[0] * math.prod(places[2:])
    else:
        first = sizes.of(left, node)
        macs = first[0 if attribute(node, "transA", 0) else -1] * outputs
    if stored.name in dynamic:
        return LayerProducts(node, data, stored, 0, 0, macs, macs, outputs)
    sizes.of(stored, node)
    return _products(node, data, stored, macs, outputs, infos)


def _products(
    node: Node,
    data: Value,
    stored: Value,
    macs: int,
    outputs: int,
    infos: Mapping[Value, ValueInfo],
) -> LayerProducts:
    """Return the products of a layer with constant weights, or weights of known sizes."""
    weights = math.prod(size for size in dims(stored) or () if isinstance(size, int))
    info, nonzero = infos.get(stored), weights
    codes, product = dialect.constant_value(stored), operators.of(node).product
    if product is not None and product.is_integer and codes is not None:
        zero = dialect.constant_value(input_of(node, product.zero_points[1]))
        if zero is not None and product.slides:
            # Those of a window lie along its first axis, all others as they broadcast.
            zero = zero.reshape(-1, *(1,) * (codes.ndim - 1))
        levels = codes if zero is None else codes != zero
        nonzero = int(np.count_nonzero(levels))
    elif info is not None and info.constant is not None:
        nonzero = int(np.count_nonzero(info.constant.values))
    share = macs // weights * nonzero if weights else 0
    return LayerProducts(node, data, stored, weights, nonzero, macs, share, outputs)


def _has_unknown_rows(node: Node) -> bool:
    """Return whether nothing is known of the data's shape, and all of a matrix of weights."""
    sizes = dims(node.inputs[1])
    whole = sizes is not None and len(sizes) == 2 and element_count(sizes) is not None
    return operators.is_matrix_product(node) and dims(node.inputs[0]) is None and whole


def notes_on(model: Model) -> list[str]:
    """Return a sentence for each kind of operator whose products are not counted."""
    nodes = list(model.graph.all_nodes())
    products = [node for node in nodes if operators.has_products(node)]
    left = [label(node) for node in products if not is_counted(node)]
    counted = [node for node in products if is_counted(node)]
    inner = [label(node) for node in counted if node.graph is not model.graph]
    notes = [f"not counted: {', '.join(left)}"] if left else []
    if inner:
        notes.append(f"not counted, inside of a branch or a loop: {', '.join(inner)}")
    rows = [label(node) for node in counted if _has_unknown_rows(node)]
    if rows:
        notes.append(f"counted for one row of data, of unknown shape: {', '.join(rows)}")
    opaque = [label(node) for node in nodes if operators.is_opaque(node)]
    if opaque:
        notes.append(f"not counted, nothing is known of it: {', '.join(opaque)}")
    return notes
