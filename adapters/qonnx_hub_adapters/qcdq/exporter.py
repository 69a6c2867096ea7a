"""Writes QCDQ: every quantizer in standard ONNX, for any ONNX runtime."""

from __future__ import annotations

import onnx_ir
from onnx_ir import Model, Node

from qonnx_hub_adapters.onnx_source import SUFFIXES
from qonnx_hub_adapters.onnx_target import finish, raise_to, require_opset
from qonnx_hub_adapters.protocol import (
    AdapterInfo,
    Artifact,
    ExportOptions,
    Feature,
    Gap,
    QuantizerRecord,
    Support,
)
from qonnx_hub_adapters.qcdq.encodings import Encoding, choose
from qonnx_hub_adapters.wording import describe_quantizer
from qonnx_hub_ir import dialect
from qonnx_hub_ir.emitter import Emitter
from qonnx_hub_ir.errors import UnsupportedGraphError
from qonnx_hub_ir.passes import LowerChannelsLast

INFO = AdapterInfo(
    name="qcdq",
    summary="standard ONNX with QuantizeLinear, Clip, DequantizeLinear, for any ONNX runtime",
    suffixes=SUFFIXES,
    support={
        Feature.BITS_2_TO_8: Support.EXACT,
        Feature.BITS_9_TO_16: Support.REFUSED,
        Feature.BITS_17_TO_32: Support.REFUSED,
        Feature.UNSIGNED_1_BIT: Support.EXACT,
        Feature.BIPOLAR: Support.EXACT,
        Feature.NARROW: Support.EXACT,
        Feature.PER_CHANNEL: Support.EXACT,
        Feature.ZERO_POINT: Support.REFUSED,
        Feature.ROUNDING_MODES: Support.REFUSED,
        Feature.DYNAMIC: Support.REFUSED,
        Feature.MINIFLOAT: Support.REFUSED,
        Feature.TRUNC: Support.REFUSED,
        Feature.CHANNELS_LAST: Support.EXACT,
    },
)


class QcdqExporter:
    """IR -> QCDQ."""

    info = INFO

    def gaps(self, model: Model) -> list[Gap]:
        """Return every quantizer that has no exact encoding."""
        choices = (choose(node) for node in _quantizers(model))
        return [choice for choice in choices if isinstance(choice, Gap)]

    def export(self, model: Model, options: ExportOptions) -> Artifact:
        """Return the model as QCDQ. The model given is not changed.

        Raises:
            UnsupportedGraphError: With all gaps, or an opset that is too low.
        """
        copy = model.clone()
        chosen = [(node, choose(node)) for node in _quantizers(copy)]
        gaps = [choice for _, choice in chosen if isinstance(choice, Gap)]
        if gaps:
            raise UnsupportedGraphError("QCDQ cannot say these quantizers exactly:", gaps)
        LowerChannelsLast()(copy)
        records: list[QuantizerRecord] = []
        needed = copy.opset_imports[""]
        for node, encoding in chosen:
            if isinstance(encoding, Encoding):
                records.append(_encode(copy.graph, node, encoding))
                needed = max(needed, encoding.opset)
        copy.opset_imports.pop(dialect.DOMAIN, None)
        raise_to(copy, require_opset(options.opset, needed, "one of its quantizers"))
        return Artifact(finish(copy), tuple(records))


def _quantizers(model: Model) -> list[Node]:
    return [node for node in model.graph.all_nodes() if dialect.is_quantizer(node)]


def _encode(graph: onnx_ir.Graph, node: Node, encoding: Encoding) -> QuantizerRecord:
    words = describe_quantizer(dialect.read_quantizer(node))
    emit = Emitter(graph, node)
    emit.replace_with(encoding.write(emit))
    return QuantizerRecord(
        node.name or "", words, encoding.name, exact=encoding.exact, reason=encoding.reason
    )
