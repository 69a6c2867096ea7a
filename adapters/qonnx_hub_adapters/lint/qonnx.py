"""What the ``qonnx`` package 1.0 refuses or computes wrongly in a file as it is."""

from __future__ import annotations

from collections.abc import Iterator

from onnx_ir import Model, Node

from qonnx_hub_adapters.lint.finding import Finding, Severity, refused, wrong
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.queries import quantizers
from qonnx_hub_ir.quantizers import BipolarQuant, Rounding

EXPORT = "export with --to qonnx, which does this"

_DOMAINS = dialect.STANDARD_DOMAINS | {dialect.DOMAIN, dialect.CHANNELS_LAST_DOMAIN}


def find(model: Model) -> list[Finding]:
    """Return everything about an IR model that the package does not execute as it is."""
    found = list(_inputs(model))
    for node in model.graph.all_nodes():
        found.extend(_domain(node))
        found.extend(_window(node))
    for node in quantizers(model):
        found.extend(_rounding(node))
    found.extend(_channels_last_version(model))
    return found


def _inputs(model: Model) -> Iterator[Finding]:
    for value in model.graph.inputs:
        if value.shape is not None and not all(isinstance(d, int) for d in value.shape):
            yield Finding(
                Severity.REFUSED,
                str(value.name),
                "input",
                "has a symbolic size",
                "it is taken for 0, and execution fails on the shape",
                "fix the batch: qonnx-hub transform --pass change_batch:batch=1",
            )


def _domain(node: Node) -> Iterator[Finding]:
    if node.domain not in _DOMAINS:
        yield refused(
            node,
            f"is of domain {node.domain}",
            "Exception: Op-type not found in custom op registry",
            "convert the file to QONNX first",
        )


def _window(node: Node) -> Iterator[Finding]:
    if node.op_type != "Conv":
        return
    needed = ("kernel_shape", "strides", "pads", "dilations", "group")
    missing = [name for name in needed if name not in node.attributes]
    channels_last = node.domain == dialect.CHANNELS_LAST_DOMAIN
    if missing and channels_last:
        yield refused(
            node,
            f"leaves out {', '.join(missing)}",
            f"Exception: Required attribute {missing[0]} unspecified",
            EXPORT,
        )


def _rounding(node: Node) -> Iterator[Finding]:
    quant = dialect.read_quantizer(node)
    if isinstance(quant, BipolarQuant) or dialect.is_known_to_qonnx(quant.rounding):
        return
    yield refused(
        node,
        f"rounds with {Rounding(quant.rounding).value}",
        "ValueError: Could not resolve rounding mode",
        EXPORT,
    )


def _channels_last_version(model: Model) -> Iterator[Finding]:
    version = model.opset_imports.get(dialect.CHANNELS_LAST_DOMAIN, 11)
    if version >= 11:
        return
    for node in model.graph.all_nodes():
        if node.domain == dialect.CHANNELS_LAST_DOMAIN and node.op_type == "MaxPool":
            yield wrong(
                node,
                f"runs under opset {version}, which the file imports for its domain",
                "INVALID_GRAPH where ceil_mode or dilations are given, ignored otherwise",
                EXPORT,
            )
