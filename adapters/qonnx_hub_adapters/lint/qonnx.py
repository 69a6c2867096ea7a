"""What the ``qonnx`` package 1.0 refuses or computes wrongly in a file as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from onnx_ir import Model, Node

from qonnx_hub_adapters.lint import pquantml
from qonnx_hub_adapters.lint.finding import Severity
from qonnx_hub_adapters.lint.rules import (
    INPUTS,
    QUANTIZERS,
    Answer,
    LintRule,
    LintScope,
    LintTarget,
    all_nodes,
    unknown_operators,
)
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.quantizers import BipolarQuant, Rounding

EXPORT = "export with --to qonnx, which does this"

_DOMAINS = dialect.STANDARD_DOMAINS | {dialect.DOMAIN, dialect.CHANNELS_LAST_DOMAIN}
_CONV_ATTRIBUTES = ("kernel_shape", "strides", "pads", "dilations", "group")


def _is_last(node: Node, op_type: str) -> bool:
    return node.op_type == op_type and node.domain == dialect.CHANNELS_LAST_DOMAIN


def _missing_attributes(node: Node) -> Answer:
    """Answer with the attributes that a node leaves out, and the first of them."""
    missing = [name for name in _CONV_ATTRIBUTES if name not in node.attributes]
    return (", ".join(missing), missing[0]) if missing else False


def _unknown_rounding(node: Node) -> str:
    quant: Any = dialect.read_quantizer(node)
    if isinstance(quant, BipolarQuant) or dialect.is_known_to_qonnx(quant.rounding):
        return ""
    return str(Rounding(quant.rounding))


def _old_pools(model: Model) -> Iterator[Node]:
    """Yield the channels-last pools that run under an opset before the newer attributes."""
    # The package runs them under the version of their domain, 1 where the file imports none.
    if model.opset_imports.get(dialect.CHANNELS_LAST_DOMAIN, 1) < 10:
        yield from (n for n in model.graph.all_nodes() if _is_last(n, "MaxPool"))


TARGET = LintTarget(
    "the qonnx package 1.0",
    file_rules=(
        LintRule(
            *(Severity.REFUSED, LintScope("MaxPool, channels last", _old_pools)),
            lambda node: [n for n in ("ceil_mode", "dilations") if n in node.attributes][:1],
            "has {}, under an opset below 10 of its domain",
            "INVALID_GRAPH: Unrecognized attribute: {} for operator MaxPool",
            EXPORT,
        ),
        *pquantml.RULES,
    ),
    rules=(
        LintRule(
            *(Severity.REFUSED, INPUTS),
            lambda value: value.shape is not None and not value.shape.is_static(),
            "has a symbolic size",
            "it is taken for 0, and execution fails on the shape",
            "fix the batch: qonnx-hub transform --pass change_batch:batch=1",
        ),
        LintRule(
            Severity.REFUSED,
            LintScope("foreign operator", all_nodes, lambda n: n.domain not in _DOMAINS),
            lambda node: node.domain,
            "is of domain {}",
            "Exception: Op-type not found in custom op registry",
            "convert the file to QONNX first",
        ),
        unknown_operators(
            lambda n: n.domain not in _DOMAINS or operators.is_known(operators.of(n)),
            all_nodes,
            reason="is no operator that these rules know in its domain",
            effect="the registry of the package may not have it",
        ),
        LintRule(
            Severity.REFUSED,
            LintScope("Conv, channels last", all_nodes, lambda n: _is_last(n, "Conv")),
            _missing_attributes,
            "leaves out {0}",
            "Exception: Required attribute {1} unspecified",
            EXPORT,
        ),
        LintRule(
            *(Severity.REFUSED, QUANTIZERS, _unknown_rounding, "rounds with {}"),
            "ValueError: Could not resolve rounding mode",
            EXPORT,
        ),
    ),
)
