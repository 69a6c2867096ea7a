"""What stock onnxruntime refuses or computes otherwise in a file given to it as it is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx_ir import DataType, Model, Node

from qonnx_hub_adapters.lint.finding import Finding, Severity, note, of_model, refused
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.queries import readers

_OWN_DOMAINS = dialect.STANDARD_DOMAINS | {"com.microsoft", "ai.onnx.ml"}
_SIGNED_BUG_OPSET = 21


def find(model: Model) -> list[Finding]:
    """Return everything about a model, as it lies in its file, that onnxruntime does not run.

    Args:
        model: The file's graph, not normalized.
    """
    defined = {(f.domain, f.name) for f in model.functions.values()}
    opset = model.opset_imports.get("", 1)
    found: list[Finding] = []
    for node in model.graph.all_nodes():
        if node.domain not in _OWN_DOMAINS and (node.domain, node.op_type) not in defined:
            found.append(_foreign(node))
        found.extend(_signed_codes(node, opset))
        found.extend(_scale_shape(node))
    found.extend(_fusions(model))
    return found


def _foreign(node: Node) -> Finding:
    remedy = "convert it with --to qcdq, or export with --to qonnx --self-contained"
    return refused(
        node,
        f"is of domain {node.domain}",
        f"Fatal error: {node.domain}:{node.op_type} is not a registered function/op",
        remedy,
    )


def _signed_codes(node: Node, opset: int) -> Iterator[Finding]:
    """Give the failure of QDQ fusion on signed bytes in front of MaxPool and Transpose."""
    if node.op_type not in {"MaxPool", "Transpose"} or opset < _SIGNED_BUG_OPSET:
        return
    before = node.inputs[0].producer() if node.inputs and node.inputs[0] else None
    after = [r for r in readers(node.outputs[0]) if r.op_type == "QuantizeLinear"]
    if before is None or before.op_type != "DequantizeLinear" or not after:
        return
    codes = before.inputs[0]
    if codes is not None and codes.dtype == DataType.INT8:
        yield refused(
            node,
            f"moves signed bytes at opset {opset}",
            "output_dtype INT8 does not match y_zero_point type UINT8",
            "write it with --opset 20 or lower, or set session.qdqisint8allowed=1",
        )


def _scale_shape(node: Node) -> Iterator[Finding]:
    if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
        return
    scale = dialect.constant_value(node.inputs[1])
    if scale is not None and scale.ndim > 1 and scale.size == 1:
        yield refused(
            node,
            f"has a scale of shape {tuple(np.shape(scale))}",
            "fails when it runs: scale must be a scalar or a vector",
            "convert the file with --to qcdq, which writes a scalar",
        )


def _fusions(model: Model) -> Iterator[Finding]:
    if any(node.op_type == "DequantizeLinear" for node in model.graph.all_nodes()):
        yield of_model(
            Severity.NOTE,
            "holds DequantizeLinear",
            "the default session computes Q, DQ and the layers between in integers: results "
            "can be a step away",
            "set session.disable_quant_qdq=1 where numbers must be equal",
        )
    for node in model.graph.all_nodes():
        if node.op_type in {"QLinearConv", "QLinearMatMul", "MatMulInteger", "ConvInteger"}:
            yield note(
                node,
                "multiplies bytes",
                "processors without VNNI add pairs of full 8x8-bit products in 16 bits and "
                "saturate",
                "keep weights or activations at 7 bits, or use unsigned weights",
            )
            return
