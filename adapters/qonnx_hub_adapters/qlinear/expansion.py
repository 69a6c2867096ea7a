"""Integer operators in QDQ form: dequantize, compute in float, quantize.

``QLinearConv(x, ...)`` says the same as ``QuantizeLinear(Conv(DequantizeLinear(x), ...))``
where float32 sums its products exactly (scales that are powers of two, sums below 2^24).
Elsewhere the operator is the more accurate of the two, and codes can be one step apart for
a few values in 10^5; :mod:`qonnx_hub_adapters.qlinear.float_exactness` tells which are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir
from onnx_ir import Graph, Model, Value

from qonnx_hub_adapters.qlinear.float_exactness import Doubts
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
from qonnx_hub_ir.graph.queries import is_standard
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
    doubts = Doubts()
    for graph in every_graph(model, functions=False):
        for node in list(graph):
            expander = _EXPANDERS.get((node.domain, node.op_type))
            if expander is not None:
                doubts.note(node)
                expander(IntegerNode(node))
        _lift_splits(graph)
        quantize_lookups(graph)
    if not any(node.domain == CONTRIB for node in model.graph.all_nodes()):
        model.opset_imports.pop(CONTRIB, None)
    words = doubts.words()
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


def _qlinear_conv(site: IntegerNode) -> None:
    attributes = site.attributes(*WINDOW)
    inputs = [site.dequantized(0), site.dequantized(3, axis=0)]
    bias = site.bias(8, 1, 4)
    if bias is not None:
        inputs.append(bias)
    site.quantized(site.emit.add("Conv", inputs, **attributes), 6)


def _qlinear_matmul(site: IntegerNode) -> None:
    site.attributes()
    b = site.required(3)
    axis = None if b.shape is None else len(b.shape) - 1
    product = site.emit.add("MatMul", [site.dequantized(0), site.dequantized(3, axis)])
    site.quantized(product, 6)


def _qgemm(site: IntegerNode) -> None:
    attributes = site.attributes("alpha", "transA", "transB")
    axis = 0 if attributes.get("transB", 0) else 1
    inputs: list[Value | None] = [site.dequantized(0), site.dequantized(3, axis=axis)]
    bias = site.bias(6, 1, 4, float(attributes.get("alpha", 1.0)))
    if bias is not None:
        inputs.append(bias)
    values = site.emit.add("Gemm", inputs, **attributes)
    if site.input(7) is None:
        site.emit.replace_with(values)
        return
    site.quantized(values, 7)


def _elementwise(
    op_type: str, *known: str, operands: int = 1, with_zero: bool = False
) -> Expander:
    """Return what rewrites an operator of one or two dequantized values.

    Args:
        op_type: Its float operator.
        known: Attributes that both have.
        operands: How many values it takes.
        with_zero: Whether it rounds its result with the zero point added.
    """

    def rewrite(site: IntegerNode) -> None:
        layout = ("channels_last",) if operands == 1 else ()
        attributes = site.attributes(*known, *layout)
        if attributes.pop("channels_last", 0):
            raise site.fail("is channels-last")
        inputs = [site.dequantized(3 * index) for index in range(operands)]
        values = site.emit.add(op_type, inputs, **attributes)
        write = site.quantized_with_zero if with_zero else site.quantized
        write(values, 3 * operands)

    return rewrite


def _softmax(site: IntegerNode) -> None:
    attributes = site.attributes("axis", "opset")
    if attributes.pop("opset", 13) < 13:
        raise site.fail("sums over all axes behind its own, as Softmax did before opset 13")
    site.quantized(site.emit.add("Softmax", [site.dequantized(0)], **attributes), 3)


def _reduce_mean(site: IntegerNode) -> None:
    attributes = site.attributes("axes", "keepdims")
    axes = np.array(attributes.pop("axes"), dtype=np.int64)
    inputs = [site.dequantized(0), site.emit.constant("axes", axes)]
    site.quantized(site.emit.add("ReduceMean", inputs, **attributes), 3)


def _concat(site: IntegerNode) -> None:
    attributes = site.attributes("axis")
    firsts = range(2, len(site.node.inputs), 3)
    values = site.emit.add("Concat", [site.dequantized(i) for i in firsts], **attributes)
    site.quantized(values, 0)


def _where(site: IntegerNode) -> None:
    site.attributes()
    inputs = [site.required(0), site.dequantized(1), site.dequantized(4)]
    site.quantized(site.emit.add("Where", inputs), 7)


_EXPANDERS: Mapping[tuple[str, str], Expander] = {
    ("", "ConvInteger"): integer_product,
    ("", "MatMulInteger"): integer_product,
    ("", "QLinearConv"): _qlinear_conv,
    ("", "QLinearMatMul"): _qlinear_matmul,
    (CONTRIB, "DynamicQuantizeMatMul"): dynamic_matmul,
    (CONTRIB, "MatMulIntegerToFloat"): matmul_to_float,
    (CONTRIB, "QGemm"): _qgemm,
    (CONTRIB, "QLinearAdd"): _elementwise("Add", operands=2, with_zero=True),
    (CONTRIB, "QLinearAveragePool"): _elementwise(
        "AveragePool", "ceil_mode", "count_include_pad", *WINDOW, with_zero=True
    ),
    (CONTRIB, "QLinearConcat"): _concat,
    (CONTRIB, "QLinearGlobalAveragePool"): _elementwise("GlobalAveragePool"),
    (CONTRIB, "QLinearLeakyRelu"): _elementwise("LeakyRelu", "alpha"),
    (CONTRIB, "QLinearMul"): _elementwise("Mul", operands=2, with_zero=True),
    (CONTRIB, "QLinearReduceMean"): _reduce_mean,
    (CONTRIB, "QLinearSigmoid"): _elementwise("Sigmoid"),
    (CONTRIB, "QLinearSoftmax"): _softmax,
    (CONTRIB, "QLinearWhere"): _where,
}
