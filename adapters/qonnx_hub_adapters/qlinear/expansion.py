"""Integer operators in QDQ form: dequantize, compute in float, quantize.

``QLinearConv(x, ...)`` equals ``QuantizeLinear(Conv(DequantizeLinear(x), ...))``
where float32 sums its products exactly (scales that are powers of two, sums below 2^24).
Elsewhere the operator is the more accurate of the two, and codes can be one step apart for
a few values in 10^5; :mod:`qonnx_hub_adapters.qlinear.float_exactness` tells which are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir
from onnx_ir import Graph, Model, Value

from qonnx_hub_adapters.qlinear import blocks
from qonnx_hub_adapters.qlinear.convolved import read_as_written
from qonnx_hub_adapters.qlinear.float_exactness import (
    Doubt,
    doubt_of,
    doubts_in_words,
    may_wrap,
)
from qonnx_hub_adapters.qlinear.integer_nodes import IntegerNode, shared_parameters
from qonnx_hub_adapters.qlinear.integer_sums import (
    dynamic_matmul,
    integer_product,
    matmul_to_float,
)
from qonnx_hub_adapters.qlinear.layouts import LAYOUTS, Layout, note_origin, weight_axis
from qonnx_hub_adapters.qlinear.lookups import quantize_lookups
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import attribute, dims, is_standard, producer, rank_of
from qonnx_hub_ir.graph.rewriting import replace_node
from qonnx_hub_ir.graph.subgraphs import every_graph
from qonnx_hub_ir.lowering.onnxruntime_operators import DOMAIN as CONTRIB

Expander = Callable[[IntegerNode], bool]
"""Rewrites a node; returns whether it did."""


def is_integer_operator(domain: str, op_type: str) -> bool:
    """Return whether a node of that kind is one that :func:`expand` rewrites."""
    return ("" if domain in dialect.STANDARD_DOMAINS else domain, op_type) in _EXPANDERS


def expand(model: Model) -> None:
    """Rewrite every integer operator of a model in QDQ form, in place, subgraphs included.

    Where the result may differ from the file's own integers, the model's metadata say so.

    Args:
        model: Its constants must be initializers, and its opset 13 or newer.

    Raises:
        SourceError: An operator with inputs or attributes that are not known.
    """
    doubts: list[tuple[str, Doubt]] = []
    for graph in every_graph(model, functions=False):
        for node in list(graph):
            expander = _EXPANDERS.get((node.domain, node.op_type))
            # Integers that wrap have no counterpart among floats: such a node stays.
            if expander is not None and not may_wrap(node):
                doubt = (f"{node.op_type} '{node.name}'", doubt_of(node))
                doubts += [doubt] if expander(IntegerNode(node)) else []
        _lift_splits(graph)
        quantize_lookups(graph)
    if not any(node.domain == CONTRIB for node in model.graph.all_nodes()):
        model.opset_imports.pop(CONTRIB, None)
    words = doubts_in_words(doubts)
    if words:
        model.metadata_props[dialect.BOUNDED] = words


def _lift_splits(graph: Graph) -> None:
    """Split floats in the place of integers, where all parts are dequantized alike.

    Before -> after: ``DequantizeLinear(Split(q)[i], s, z)`` ->
    ``Split(DequantizeLinear(q, s, z))[i]``. Another reader of the integers, or a part with a
    scale of its own, leaves the Split as it is.
    """
    for node in reversed(list(graph)):
        if not is_standard(node, "Split"):
            continue
        readers = [reader for part in node.outputs for reader in part.consumers()]
        if not readers or any(part.is_graph_output() for part in node.outputs):
            continue
        parameters = {shared_parameters(reader) for reader in readers}
        if len(parameters) != 1 or None in parameters:
            continue
        emit = Emitter(node)
        values = emit.add("DequantizeLinear", [node.inputs[0], *readers[0].inputs[1:]])
        node.replace_input_with(0, values)
        for part in node.outputs:
            part.type = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
            for reader in list(part.consumers()):
                replace_node(
                    reader, part, keep_name=False, keep_type=False, keep_metadata=False
                )


def _requantized(layout: Layout) -> Expander:
    """Return what rewrites an operator as a float operator of dequantized values.

    The float operator carries the name of its origin.
    """

    def rewrite(site: IntegerNode) -> bool:
        if layout.is_product and _has_rows(site, layout):
            return False
        if layout.float_op == "Softmax" and not _sums_one_axis(site):
            return False
        own = (*_ONLY, "axes") if layout.float_op == "ReduceMean" else _ONLY
        attributes = site.attributes(*layout.attributes, *own)
        taken = {name: attributes.pop(name) for name in own if name in attributes}
        if layout.float_op == "Conv" and not taken and read_as_written(site, attributes):
            return True
        permutations = None
        if taken.get("channels_last", 0):
            permutations = _permutations(site, layout, attributes)
        inputs = _values_in(site, layout, attributes)
        if permutations is not None:
            position = layout.leading
            inputs[position] = site.emit.add(
                "Transpose", [inputs[position]], perm=permutations[0]
            )
        if "axes" in taken:
            inputs.append(site.emit.integers("axes", taken["axes"]))
        values = site.emit.add(layout.float_op, inputs, **attributes)
        requantized = site.input(layout.y) is not None
        note_origin(values, site.node, requantized=requantized)
        made = values
        if requantized:
            made = site.quantized(values, layout.y, adds_first=layout.adds_first)
        if permutations is not None:
            made = site.emit.add("Transpose", [made], perm=permutations[1])
        site.emit.replace_with(made)
        return True

    return rewrite


def _values_in(
    site: IntegerNode, layout: Layout, attributes: Mapping[str, Any]
) -> list[Value | None]:
    """Return the inputs of the float operator: what leads, operands, and the bias."""
    starts = layout.operands
    if layout.float_op == "Concat":
        starts = tuple(range(starts[0], len(site.node.inputs), 3))
    inputs: list[Value | None] = [site.required(index) for index in range(layout.leading)]
    for order, first in enumerate(starts):
        axis = None
        if layout.is_product and order == 1:
            rank = rank_of(site.required(first))
            axis = weight_axis(layout.float_op, attributes)
            axis = None if axis is None or rank is None else axis % rank
        inputs.append(site.dequantized(first, axis))
    bias = None
    if layout.bias is not None:
        bias = site.bias(layout.bias, 1, 4, float(attributes.get("alpha", 1.0)))
    return inputs if bias is None else [*inputs, bias]


def _has_rows(site: IntegerNode, layout: Layout) -> bool:
    """Return whether a product has scales or zero points per row, or per matrix of a stack.

    No DequantizeLinear says them; the operator stays as it is.
    """
    at = (1, 2, layout.y, layout.y + 1, 4, 5)
    known = [dialect.constant_value(site.input(index)) for index in at]
    *rows, scale, zero = (1 if one is None else one.size for one in known)
    sizes = dims(site.required(3)) or ()
    is_stack = layout.float_op == "MatMul" and len(sizes) > 2
    per_matrix = is_stack and max(scale, zero) > 1 and sizes[-1] not in (scale, zero)
    return per_matrix or any(size > 1 for size in rows)


Permutations = tuple[list[int], list[int]]


def _permutations(
    site: IntegerNode, layout: Layout, attributes: Mapping[str, Any]
) -> Permutations:
    """Return how a channels-last operator's input and output are permuted."""
    kernel = attributes.get("kernel_shape")
    rank = None if kernel is None else len(kernel) + 2
    if rank is None:
        rank = rank_of(site.required(3)) if layout.is_product else _rank(site.required(0))
    if rank is None:
        raise site.fail("is channels-last, on a value of unknown rank")
    spatial = list(range(2, rank))
    return [0, rank - 1, *(axis - 1 for axis in spatial)], [0, *spatial, 1]


def _largest_of_last(site: IntegerNode) -> bool:
    """Rewrite NhwcMaxPool, which takes the largest integers of channels-last windows."""
    attributes = site.attributes(*_WINDOW_OF_POOL)
    spatial = range(len(attributes["kernel_shape"]))
    first = [0, len(spatial) + 1, *(axis + 1 for axis in spatial)]
    x = site.emit.add("Transpose", [site.required(0)], perm=first)
    pooled = site.emit.add("MaxPool", [x], **attributes)
    back = [0, *(axis + 2 for axis in spatial), 1]
    site.emit.replace_with(site.emit.add("Transpose", [pooled], perm=back))
    return True


_WINDOW_OF_POOL = (
    *("auto_pad", "ceil_mode", "dilations"),
    *("kernel_shape", "pads", "strides"),
)


def _rank(value: Value | None) -> int | None:
    """Return the rank of a value, from what makes it where no shape is known yet."""
    node = producer(value)
    if node is None or rank_of(value) is not None:
        return rank_of(value)
    if is_standard(node, "Transpose"):
        order = node.attributes.get("perm")
        return None if order is None else len(order.as_ints())
    if is_standard(node, "Conv"):
        return rank_of(node.inputs[1])
    pools = operators.is_max_pool(node) or operators.is_average_pool(node)
    alone = operators.is_elementwise(node) and len(node.inputs) == 1
    keeps = pools or alone or operators.is_qdq(node) or operators.clamps(node)
    return _rank(node.inputs[0]) if keeps else None


def _sums_one_axis(site: IntegerNode) -> bool:
    """Return whether a Softmax sums along one axis.

    Before opset 13 it summed over all axes from its own on, which is one for the last. Else
    the operator stays as it is.
    """
    opset = attribute(site.node, "opset", _OPSET_OF_ONE_AXIS)
    rank = _rank(site.required(0))
    axis = attribute(site.node, "axis", -1 if opset >= _OPSET_OF_ONE_AXIS else 1)
    if opset >= _OPSET_OF_ONE_AXIS:
        return True
    return bool(rank) and axis in (-1, (rank or 0) - 1)


_OPSET_OF_ONE_AXIS = 13


_ONLY = ("channels_last", "opset")
"""Attributes of integer operators alone."""

_EXPANDERS: Mapping[tuple[str, str], Expander] = {
    ("", "ConvInteger"): integer_product,
    ("", "MatMulInteger"): integer_product,
    (CONTRIB, "DynamicQuantizeMatMul"): dynamic_matmul,
    (CONTRIB, blocks.LOOKUP): blocks.blocked_lookup,
    (CONTRIB, blocks.NBITS): blocks.blocked_product,
    (CONTRIB, "MatMulIntegerToFloat"): matmul_to_float,
    (CONTRIB, "NhwcMaxPool"): _largest_of_last,
    (CONTRIB, "QLinearConv"): _requantized(LAYOUTS["QLinearConv"]),
    **{(layout.domain, name): _requantized(layout) for name, layout in LAYOUTS.items()},
}
"""Operator -> what rewrites it."""
