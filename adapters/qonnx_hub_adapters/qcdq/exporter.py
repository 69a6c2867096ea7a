"""Writes QCDQ: every quantizer in standard ONNX, for any ONNX runtime."""

from __future__ import annotations

from onnx_ir import Model, Node

from qonnx_hub_adapters.adapter_options import read_own_options
from qonnx_hub_adapters.onnx_writer import finish, opset_to_write
from qonnx_hub_adapters.protocol import (
    Artifact,
    ExportOptions,
    Gap,
    QuantizerRecord,
)
from qonnx_hub_adapters.qcdq.encoding_options import (
    Encoding,
    EncodingRequest,
    QcdqOptions,
)
from qonnx_hub_adapters.qcdq.encodings import choose
from qonnx_hub_adapters.qcdq.info import INFO
from qonnx_hub_adapters.qcdq.origins import DOMAIN_KEY, origin_of, restore, to_domain
from qonnx_hub_adapters.tflite.integer_export import integer_artifact
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.describe import describe_quantizer
from qonnx_hub_ir.errors import NotExactError
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.constants import is_constant_tree
from qonnx_hub_ir.graph.names import node_names
from qonnx_hub_ir.graph.queries import every_quantizer, input_of, producer
from qonnx_hub_ir.graph.subgraphs import nodes_within
from qonnx_hub_ir.lowering.threshold_steps import threshold_problem
from qonnx_hub_ir.passes import LowerChannelsLast, LowerThresholds

_OPSET_OF_ROUND = 11
"""The first opset with Round, which onnxruntime adds where it rounds a bias by itself."""

_GIVE_SHAPES = "give the model's inputs fixed shapes, and thresholds as constants per channel"


class QcdqExporter:
    """IR -> QCDQ."""

    info = INFO

    def gaps(self, model: Model) -> list[Gap]:
        """Return everything that has no exact encoding in standard operators."""
        choices = (choose(node, EncodingRequest()) for node in every_quantizer(model))
        return [*_foreign(model), *(choice for choice in choices if isinstance(choice, Gap))]

    def export(self, model: Model, options: ExportOptions) -> Artifact:
        """Return the model as QCDQ. The model given is not changed.

        Raises:
            NotExactError: With all gaps, or an opset that is too low.
            UsageError: An encoding or a storage of weights that does not exist.
        """
        own = read_own_options(QcdqOptions, self.info.name, options)
        if own.encoding == "integer":
            return integer_artifact(model, options)
        copy = model.clone()
        LowerChannelsLast()(copy)
        LowerThresholds()(copy)
        chosen, opset = _choose_all(copy, options, own)
        taken = node_names(copy.graph)
        records = [_encode(node, encoding, taken) for node, encoding in chosen]
        if not any(node.domain == dialect.DOMAIN for node in nodes_within(copy.graph)):
            copy.opset_imports.pop(dialect.DOMAIN, None)
        for node in nodes_within(copy.graph):
            if DOMAIN_KEY in node.metadata_props and operators.is_qdq(node):
                to_domain(node, dialect.ONNXRUNTIME_DOMAIN)
        sizes = [e.weight_bytes for _, e in chosen if e.weight_bytes is not None]
        before, after = (sum(size[side] for size in sizes) for side in (0, 1))
        stored = f"weights stored as integers: {before} bytes of float32 -> {after} bytes"
        return Artifact(
            finish(copy, options.opset, opset),
            tuple(records),
            notes=(stored,) if sizes else (),
        )


def _choose_all(
    model: Model, options: ExportOptions, own: QcdqOptions
) -> tuple[list[tuple[Node, Encoding]], int]:
    """Return an encoding for every quantizer, and the standard opset they need together.

    What one quantizer needs can change what is best for another, so the choice is repeated
    until the opset stays.
    """
    opset, foreign = opset_to_write(model, options.opset), _foreign(model)
    while True:
        request = EncodingRequest(
            encoding=own.encoding,
            stored_weights=own.stored_weights,
            opset=opset,
            limit=options.opset,
            allow_lossy=options.allow_lossy,
        )
        choices = [(node, choose(node, request)) for node in every_quantizer(model)]
        gaps = [*foreign, *(choice for _, choice in choices if isinstance(choice, Gap))]
        if gaps:
            raise NotExactError("QCDQ cannot say these nodes exactly:", gaps)
        chosen = [(node, choice) for node, choice in choices if isinstance(choice, Encoding)]
        layers = [node for node in nodes_within(model.graph) if _has_rounded_bias(node)]
        rounds = _OPSET_OF_ROUND if layers else opset
        needed = max((rounds, *(encoding.opset for _, encoding in chosen)))
        if needed <= opset:
            return chosen, opset
        if options.opset is not None:
            too_new = [
                Gap(node.name or "", node.op_type, f"{e.name} needs opset {e.opset}")
                for node, e in chosen
                if e.opset > options.opset
            ]
            why = f"onnxruntime rounds its bias, which needs opset {_OPSET_OF_ROUND}"
            if options.opset < rounds:
                too_new += [Gap(node.name or "", node.op_type, why) for node in layers]
            raise NotExactError(f"opset {options.opset} is too low for these nodes:", too_new)
        opset = needed


def _has_rounded_bias(node: Node) -> bool:
    """Return whether onnxruntime's default options round a layer's bias as they load it.

    They do where DequantizeLinear makes the weights: that of the file, or that of a quantizer
    of what is no constant. Other weights are stored as floats.
    """
    at = operators.bias_input(node)
    weights, bias = input_of(node, 1), None if at is None else input_of(node, at)
    maker = producer(weights)
    if maker is None or not is_constant_tree(bias):
        return False
    is_computed = dialect.is_quantizer(maker) and not is_constant_tree(weights)
    return is_computed or operators.dequantizes(maker)


def _foreign(model: Model) -> list[Gap]:
    """Return the nodes of the quantizers' domain that no standard operators stand for."""
    gaps = []
    for function in model.functions.values():
        reason = f"is inside the local function '{function.name}'"
        remedy = "inline the functions of the model first"
        nodes = [node for node in function.all_nodes() if node.domain == dialect.DOMAIN]
        gaps += [Gap(node.name or "", node.op_type, reason, remedy) for node in nodes]
    reason = "is no operator of the standard, and no quantizer"
    for node in nodes_within(model.graph):
        if operators.is_opaque(node):
            continue
        if node.domain == dialect.DOMAIN and not dialect.is_quantizer(node):
            remedy = "write standard operators in its place"
            if not dialect.is_thresholds(node):
                gaps.append(Gap(node.name or "", node.op_type, reason, remedy))
            elif problem := threshold_problem(node):
                gaps.append(Gap(node.name or "", node.op_type, problem, _GIVE_SHAPES))
    return gaps


def _encode(node: Node, encoding: Encoding, taken: set[str]) -> QuantizerRecord:
    words = describe_quantizer(dialect.read_quantizer(node))
    origin, emit = origin_of(node), Emitter(node)
    value = encoding.write(emit)
    emit.replace_with(value)
    taken.discard(str(node.name))
    restore(value, origin, taken)
    why = (encoding.exact, encoding.reason, encoding.bound)
    return QuantizerRecord(node.name or "", words, encoding.name, *why)
