"""Integer operators in QDQ form: dequantize, compute in float, quantize.

``QLinearConv(x, ...)`` equals ``QuantizeLinear(Conv(DequantizeLinear(x), ...))``
where float32 sums its products exactly (scales that are powers of two, sums below 2^24).
Elsewhere the operator is the more accurate of the two, and codes can be one step apart for
a few values in 10^5; :mod:`qonnx_hub_adapters.qlinear.float_exactness` tells which are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import onnx_ir
from onnx_ir import Graph, Model, Value

from qonnx_hub_adapters.qlinear.float_exactness import Doubt, doubt_of, doubts_in_words
from qonnx_hub_adapters.qlinear.integer_nodes import IntegerNode, shared_parameters
from qonnx_hub_adapters.qlinear.integer_sums import (
    WINDOW,
    dynamic_matmul,
    integer_product,
    matmul_to_float,
)
from qonnx_hub_adapters.qlinear.lookups import quantize_lookups
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import is_standard, rank_of
from qonnx_hub_ir.graph.rewriting import replace_node
from qonnx_hub_ir.graph.subgraphs import every_graph
from qonnx_hub_ir.lowering.onnxruntime_operators import DOMAIN as CONTRIB

Expander = Callable[[IntegerNode], None]


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
            if expander is not None:
                doubts.append((f"{node.op_type} '{node.name}'", doubt_of(node)))
                expander(IntegerNode(node))
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


def _factors(
    site: IntegerNode, *, axis: int | None = None, bias: int | None = None, factor: float = 1.0
) -> list[Value]:
    """Return the values of both factors of a product, and of its bias where it has one.

    Args:
        site: The product.
        axis: Axis of the weight's scales per channel; ``None`` for the last.
        bias: Position of the bias, where the operator takes one.
        factor: What sums and bias are multiplied by.
    """
    rank = rank_of(site.required(3))
    if axis is None and rank is not None:
        axis = rank - 1
    inputs = [site.dequantized(0), site.dequantized(3, axis)]
    added = None if bias is None else site.bias(bias, 1, 4, factor)
    return inputs if added is None else [*inputs, added]


def _qgemm(site: IntegerNode) -> None:
    attributes = site.attributes("alpha", "transA", "transB")
    axis, alpha = 0 if attributes.get("transB", 0) else 1, float(attributes.get("alpha", 1.0))
    inputs = _factors(site, axis=axis, bias=6, factor=alpha)
    values = site.emit.add("Gemm", inputs, **attributes)
    if site.input(7) is None:
        site.emit.replace_with(values)
    else:
        site.quantized(values, 7)


Only = Mapping[str, tuple[Callable[[int], bool], str]]
"""Attribute -> values that it may have, and what another one means."""


def _two(site: IntegerNode) -> list[Value]:
    return [site.dequantized(0), site.dequantized(3)]


def _float_form(
    op_type: str,
    *known: str,
    operands: Callable[[IntegerNode], list[Value]] = lambda site: [site.dequantized(0)],
    y_scale: int = 3,
    with_zero: bool = False,
    only: Only = MappingProxyType({}),
) -> Expander:
    """Return what rewrites an operator as a float operator of dequantized values.

    Args:
        op_type: The float operator.
        known: Attributes that both have.
        operands: Returns its inputs.
        y_scale: Position of the output's scale.
        with_zero: Whether the result is rounded with the zero point added.
        only: Attributes of the integer operator alone.
    """

    def rewrite(site: IntegerNode) -> None:
        attributes = site.attributes(*known, *only)
        for name, (is_plain, problem) in only.items():
            if name in attributes and not is_plain(attributes.pop(name)):
                raise site.fail(problem)
        values = site.emit.add(op_type, operands(site), **attributes)
        write = site.quantized_with_zero if with_zero else site.quantized
        write(values, y_scale)

    return rewrite


def _reduce_mean(site: IntegerNode) -> None:
    attributes = site.attributes("axes", "keepdims")
    axes = np.array(attributes.pop("axes"), dtype=np.int64)
    inputs = [site.dequantized(0), site.emit.constant("axes", axes)]
    site.quantized(site.emit.add("ReduceMean", inputs, **attributes), 3)


_FIRST: Only = {"channels_last": (lambda last: not last, "is channels-last")}
_OWN_AXIS: Only = {
    "opset": (
        lambda opset: opset >= 13,
        "sums over all axes behind its own, as Softmax did before opset 13",
    )
}

_EXPANDERS: Mapping[tuple[str, str], Expander] = {
    ("", "ConvInteger"): integer_product,
    ("", "MatMulInteger"): integer_product,
    ("", "QLinearConv"): _float_form(
        *("Conv", *WINDOW), operands=lambda site: _factors(site, axis=0, bias=8), y_scale=6
    ),
    ("", "QLinearMatMul"): _float_form("MatMul", operands=_factors, y_scale=6),
    (CONTRIB, "DynamicQuantizeMatMul"): dynamic_matmul,
    (CONTRIB, "MatMulIntegerToFloat"): matmul_to_float,
    (CONTRIB, "QGemm"): _qgemm,
    (CONTRIB, "QLinearAdd"): _float_form("Add", operands=_two, y_scale=6, with_zero=True),
    (CONTRIB, "QLinearAveragePool"): _float_form(
        "AveragePool",
        *("ceil_mode", "count_include_pad", *WINDOW),
        with_zero=True,
        only=_FIRST,
    ),
    (CONTRIB, "QLinearConcat"): _float_form(
        *("Concat", "axis"),
        operands=lambda site: [
            site.dequantized(first) for first in range(2, len(site.node.inputs), 3)
        ],
        y_scale=0,
    ),
    (CONTRIB, "QLinearGlobalAveragePool"): _float_form("GlobalAveragePool", only=_FIRST),
    (CONTRIB, "QLinearLeakyRelu"): _float_form("LeakyRelu", "alpha"),
    (CONTRIB, "QLinearMul"): _float_form("Mul", operands=_two, y_scale=6, with_zero=True),
    (CONTRIB, "QLinearReduceMean"): _reduce_mean,
    (CONTRIB, "QLinearSigmoid"): _float_form("Sigmoid"),
    (CONTRIB, "QLinearSoftmax"): _float_form("Softmax", "axis", only=_OWN_AXIS),
    (CONTRIB, "QLinearWhere"): _float_form(
        "Where",
        operands=lambda site: [site.required(0), site.dequantized(1), site.dequantized(4)],
        y_scale=7,
    ),
}
"""Operator -> what rewrites it."""
