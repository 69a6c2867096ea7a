"""Writes QLinear with Clip: integer operators wherever integers compute the same."""

from __future__ import annotations

from dataclasses import dataclass, replace

from onnx_ir import Model, Node

from qonnx_hub_adapters.adapter_options import read_own_options, require_choice
from qonnx_hub_adapters.onnx_reader import SUFFIXES
from qonnx_hub_adapters.protocol import (
    AdapterInfo,
    Artifact,
    CodesOf,
    ExportOptions,
    Feature,
    Gap,
    Support,
)
from qonnx_hub_adapters.qcdq.encoding_options import QcdqOptions
from qonnx_hub_adapters.qcdq.exporter import QcdqExporter
from qonnx_hub_adapters.qlinear.integer_values import Form, Steps, choose_form, read_steps
from qonnx_hub_adapters.qlinear.report import bound_in_words, describe_layers
from qonnx_hub_adapters.qlinear.rewriter import CODES_OF, Rewriter
from qonnx_hub_ir import dialect
from qonnx_hub_ir.lowering.onnxruntime_operators import DOMAIN as CONTRIB
from qonnx_hub_ir.passes import InferShapes, LowerChannelsLast, run_passes

DIALECTS = ("onnx", "ort")


@dataclass(frozen=True, slots=True)
class QlinearOptions(QcdqOptions):
    """How integer layers are written, and as in :class:`QcdqOptions` what is left in float.

    Attributes:
        dialect: Operators of integer products: standard ones only ("onnx"), or onnxruntime's
            own as well ("ort").

    Raises:
        UsageError: A value that does not exist.
    """

    dialect: str = "onnx"

    def __post_init__(self) -> None:
        """Refuse unknown values."""
        QcdqOptions.__post_init__(self)
        require_choice("dialect", self.dialect, DIALECTS)


INFO = AdapterInfo(
    name="qlinear",
    summary="integer-only ONNX: QLinear and Integer operators with Clip below 8 bits",
    suffixes=SUFFIXES,
    support={
        Feature.BITS_2_TO_8: Support.BOUNDED,
        Feature.BITS_9_TO_16: Support.EXACT,
        Feature.BITS_17_TO_32: Support.EXACT,
        Feature.UNSIGNED_1_BIT: Support.BOUNDED,
        Feature.BIPOLAR: Support.BOUNDED,
        Feature.NARROW: Support.BOUNDED,
        Feature.PER_CHANNEL: Support.BOUNDED,
        Feature.ZERO_POINT: Support.BOUNDED,
        Feature.ROUNDING_MODES: Support.BOUNDED,
        Feature.DYNAMIC: Support.EXACT,
        Feature.MINIFLOAT: Support.EXACT,
        Feature.TRUNC: Support.EXACT,
        Feature.CHANNELS_LAST: Support.BOUNDED,
    },
    options=QlinearOptions,
)
"""Bounded is what runs in integers: exact where the source's own float sums are (scales that
are powers of two), else within one step, for the source rounds and integers do not."""


class QlinearExporter:
    """IR -> QLinear with Clip."""

    info = INFO

    def gaps(self, model: Model) -> list[Gap]:
        """Return every quantizer that has no exact encoding, in integers or in QCDQ."""
        return QcdqExporter().gaps(model)

    def export(self, model: Model, options: ExportOptions) -> Artifact:
        """Return the model with integer operators. The model given is not changed.

        A region is integer where the result is the same for every input that float32 itself
        sums exactly; ``allow_lossy`` takes QLinear operators that miss some codes by one step
        as well. The rest is written as QCDQ.

        Raises:
            NotExactError: With all gaps, or an opset that is too low.
            UsageError: A dialect that does not exist.
        """
        own = read_own_options(QlinearOptions, self.info.name, options)
        copy = model.clone()
        run_passes(copy, [LowerChannelsLast(), InferShapes()])
        order = [node.name or "" for node in copy.graph.all_nodes() if _is_quantizer(node)]
        rewriter = Rewriter(
            copy, _form(copy, options.opset, own), allow_lossy=options.allow_lossy
        )
        layers, records = rewriter.run()
        if any(node.domain == CONTRIB for node in copy.graph):
            copy.opset_imports[CONTRIB] = 1
        rest = QcdqExporter().export(copy, _for_the_rest(options, own))
        known = {record.node: record for record in rest.quantizers} | records
        for name, bound in rewriter.bounds.items():
            known[name] = replace(
                known[name], exact=False, reason=bound_in_words("", 0.0), bound=bound
            )
        ordered = tuple(known[name] for name in order if name in known)
        notes = (*describe_layers(layers), *rest.notes)
        return replace(rest, quantizers=ordered, notes=notes, codes=_take_codes(rest.model))


def _take_codes(model: Model) -> dict[str, CodesOf]:
    """Return which values are the integers of which quantizers, and forget the marks."""
    found: dict[str, CodesOf] = {}
    for node in model.graph:
        for value in node.outputs:
            words = value.metadata_props.pop(CODES_OF, None)
            if words is not None:
                zero, low, high, name = words.split(" ", 3)
                found[name] = CodesOf(str(value.name), int(zero), int(low), int(high))
    return found


def _for_the_rest(options: ExportOptions, own: QlinearOptions) -> ExportOptions:
    """Return the options for float layers: float weights, unless narrower ones are asked for.

    Where a float layer reads DequantizeLinear, onnxruntime's default options round its bias.
    """
    stored = "float" if own.stored_weights == "int8" else own.stored_weights
    return replace(options, extra={"encoding": own.encoding, "stored_weights": stored})


def _is_quantizer(node: Node) -> bool:
    return dialect.is_quantizer(node)


def _form(model: Model, opset: int | None, own: QlinearOptions) -> Form:
    steps = [read_steps(node) for node in model.graph if _is_activation(node)]
    newest = max(model.opset_imports[""], opset or 0)
    known = [s for s in steps if isinstance(s, Steps)]
    return choose_form(known, newest, contrib=own.dialect == "ort")


def _is_activation(node: Node) -> bool:
    return dialect.is_quantizer(node) and dialect.constant_tensor(node.inputs[0]) is None
