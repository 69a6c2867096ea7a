"""What stock onnxruntime refuses or computes otherwise in a file given to it as it is."""

from __future__ import annotations

from collections.abc import Iterator

from onnx_ir import DataType, Model, Node

from qonnx_hub_adapters.lint.finding import Severity
from qonnx_hub_adapters.lint.rules import (
    MODEL,
    LintRule,
    LintScope,
    LintTarget,
    all_nodes,
    anywhere,
    single_shape,
    unknown_operators,
)
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.queries import input_of, producer, readers
from qonnx_hub_ir.graph.subgraphs import every_node

_OWN_DOMAINS = dialect.STANDARD_DOMAINS | {dialect.ONNXRUNTIME_DOMAIN, "ai.onnx.ml"}
_SIGNED_BUG_OPSET = 21


def _calls(model: Model) -> Iterator[Node]:
    """Yield the nodes that call no function of the file."""
    defined = {(f.domain, f.name) for f in model.functions.values()}
    return (n for n in every_node(model) if (n.domain, n.op_type) not in defined)


def _nodes_of_new_files(model: Model) -> Iterator[Node]:
    """Yield all nodes of a file whose opset has the failure with signed bytes."""
    if model.opset_imports.get("", 1) >= _SIGNED_BUG_OPSET:
        yield from model.graph.all_nodes()


def moves_codes_wrongly(node: Node) -> bool:
    """Return whether onnxruntime fuses an operator with the QDQ pair around it for uint8 only.

    With signed bytes at opset 21 or higher, such a file is not loaded.
    """
    return operators.transposes(node) or node.op_type == "MaxPool"


def _moves_signed_codes(node: Node) -> bool:
    """Return whether a node moves signed bytes between DequantizeLinear and a quantizer."""
    before = producer(input_of(node, 0))
    after = any(one.op_type == "QuantizeLinear" for one in readers(node.outputs[0]))
    if before is None or before.op_type != "DequantizeLinear" or not after:
        return False
    codes = before.inputs[0]
    return codes is not None and codes.dtype == DataType.INT8


TARGET = LintTarget(
    "onnxruntime with default options",
    file_rules=(
        LintRule(
            Severity.REFUSED,
            LintScope("foreign operator", _calls, lambda n: n.domain not in _OWN_DOMAINS),
            lambda node: (node.domain, node.op_type),
            "is of domain {0}",
            "Fatal error: {0}:{1} is not a registered function/op",
            "convert it with --to qcdq, or export with --to qonnx --self-contained",
        ),
        unknown_operators(
            lambda node: (
                node.domain not in dialect.STANDARD_DOMAINS
                or operators.is_known(operators.of(node))
            ),
            _calls,
            reason="is no operator of ONNX that these rules know",
            effect="onnxruntime may not have it",
            remedy="load the file in the onnxruntime that will run it",
        ),
        LintRule(
            Severity.REFUSED,
            LintScope("MaxPool, Transpose", _nodes_of_new_files, moves_codes_wrongly),
            _moves_signed_codes,
            f"moves signed bytes at opset {_SIGNED_BUG_OPSET} or higher",
            "output_dtype INT8 does not match y_zero_point type UINT8",
            "write it with --opset 20 or lower, or set session.qdqisint8allowed=1",
        ),
        LintRule(
            Severity.REFUSED,
            LintScope("QuantizeLinear, DequantizeLinear", all_nodes, operators.is_qdq),
            lambda node: single_shape(dialect.constant_value(node.inputs[1])),
            "has a scale of shape {}",
            "fails when it runs: scale must be a scalar or a vector",
            "convert the file with --to qcdq, which writes a scalar",
        ),
        LintRule(
            Severity.NOTE,
            MODEL,
            lambda model: any(n.op_type == "DequantizeLinear" for n in all_nodes(model)),
            "holds DequantizeLinear",
            "the default session computes Q, DQ and the layers between in integers: results "
            "can be a step away",
            "set session.disable_quant_qdq=1 where numbers must be equal",
        ),
        LintRule(
            Severity.NOTE,
            LintScope(
                "the first integer product",
                lambda model: [n for n in all_nodes(model) if operators.is_integer_product(n)][
                    :1
                ],
            ),
            anywhere,
            "multiplies bytes",
            "processors without VNNI add pairs of full 8x8-bit products in 16 bits and "
            "saturate",
            "keep weights or activations at 7 bits, or use unsigned weights",
        ),
    ),
)
