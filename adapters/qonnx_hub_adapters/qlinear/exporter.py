"""Writes QLinear with Clip: integer operators wherever integers compute the same."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

from onnx_ir import Model, Value

from qonnx_hub_adapters.adapter_options import read_own_options
from qonnx_hub_adapters.features import require_declared
from qonnx_hub_adapters.onnx_reader import SUFFIXES
from qonnx_hub_adapters.onnx_writer import opset_to_write
from qonnx_hub_adapters.protocol import (
    QONNX_FEATURES,
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
from qonnx_hub_adapters.qcdq.origins import origin_of as spelling_of
from qonnx_hub_adapters.qcdq.weights import TABLE_KEY
from qonnx_hub_adapters.qlinear.blocks import restore_blocks
from qonnx_hub_adapters.qlinear.dynamic_origins import restore_dynamic
from qonnx_hub_adapters.qlinear.integer_values import (
    activation_steps,
    choose_form,
    join_outputs,
)
from qonnx_hub_adapters.qlinear.layouts import STANDARD
from qonnx_hub_adapters.qlinear.origins import origin_of
from qonnx_hub_adapters.qlinear.report import bound_in_words, describe_layers
from qonnx_hub_adapters.qlinear.rewriter import IntegerRewriter
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.choices import Dialect, require_choice
from qonnx_hub_ir.graph.queries import every_quantizer, is_standard
from qonnx_hub_ir.lowering.onnxruntime_operators import DOMAIN as CONTRIB
from qonnx_hub_ir.passes import InferShapes, LowerChannelsLast, run_passes

DIALECTS: tuple[str, ...] = get_args(Dialect)


@dataclass(frozen=True, slots=True)
class QlinearOptions(QcdqOptions):
    """How integer layers are written, and as in :class:`QcdqOptions` what is left in float.

    Attributes:
        dialect: Operators of integers: standard ones only ("onnx"), onnxruntime's own as well
            ("ort"), or those where the source has some ("source").

    Raises:
        UsageError: A value that does not exist.
    """

    dialect: str = "source"

    def __post_init__(self) -> None:
        """Refuse unknown values."""
        QcdqOptions.__post_init__(self)
        require_choice("dialect", self.dialect, DIALECTS)


INFO = AdapterInfo(
    name="qlinear",
    summary="integer-only ONNX: QLinear and Integer operators with Clip below 8 bits",
    suffixes=SUFFIXES,
    support=dict.fromkeys(QONNX_FEATURES, Support.BOUNDED)
    | {Feature.ZERO_POINT_AFTER_ROUNDING: Support.BOUNDED}
    | dict.fromkeys((Feature.BITS_9_TO_16, Feature.BITS_17_TO_32), Support.EXACT)
    | dict.fromkeys((Feature.DYNAMIC, Feature.MINIFLOAT, Feature.TRUNC), Support.EXACT),
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
        order = [node.name or "" for node in every_quantizer(copy)]
        join_outputs(copy)
        steps = activation_steps(copy)
        opset = opset_to_write(copy, options.opset)
        read = {origin for node in copy.graph.all_nodes() if (origin := origin_of(node))}
        contrib = own.dialect == "ort" or (own.dialect == "source" and bool(read - STANDARD))
        if contrib:
            restore_dynamic(copy)
            restore_blocks(copy)
        form = choose_form(
            steps, opset, contrib=contrib, keeps_types=bool(read) or _has_types(copy, opset)
        )
        rewriter = IntegerRewriter(copy, form, allow_lossy=options.allow_lossy)
        layers, records = rewriter.run()
        if any(node.domain == CONTRIB for node in copy.graph.all_nodes()):
            copy.opset_imports[CONTRIB] = 1
        # Where a float layer reads DequantizeLinear, onnxruntime's default options round its
        # bias: weights of such layers are floats, unless narrow integers are asked for.
        stored = "float" if own.stored_weights == "int8" else own.stored_weights
        if own.stored_weights == "int8":
            _mark_tables(copy)
        extra = {"encoding": own.encoding, "stored_weights": stored}
        require_declared(QcdqExporter.info, copy)
        rest = QcdqExporter().export(copy, replace(options, extra=extra))
        known = {record.node: record for record in rest.quantizers} | records
        for name, bound in rewriter.bounds.items():
            known[name] = replace(
                known[name], exact=False, reason=bound_in_words("", 0.0), bound=bound
            )
        ordered = tuple(known[name] for name in order if name in known)
        notes = (*describe_layers(layers), *rest.notes)
        written = {value.name for node in rest.model.graph for value in node.outputs}
        codes = {
            name: CodesOf(str(value.name), made.zero, *made.ends)
            for value, (name, made) in rewriter.integers.items()
            if value.name in written
        }
        return replace(rest, quantizers=ordered, notes=notes, codes=codes)


def _has_types(model: Model, opset: int) -> bool:
    """Return whether a file gave every activation quantizer an 8-bit type that may be kept.

    From opset 21 on, onnxruntime changes types around MaxPool and Transpose.
    """
    types = [
        spelling_of(node).integers
        for node in every_quantizer(model)
        if dialect.constant_tensor(node.inputs[0]) is None
    ]
    moved = opset >= _OPSET_OF_MOVES and any(
        is_standard(node, "MaxPool", "Transpose") for node in model.graph.all_nodes()
    )
    kept = {(8, False)} if moved else {(8, False), (8, True)}
    return bool(types) and all(one in kept for one in types)


_OPSET_OF_MOVES = 21


def _mark_tables(model: Model) -> None:
    """Mark the constants that stay the integers of their file: those that no sum reads."""
    for node in every_quantizer(model):
        is_constant = dialect.constant_tensor(node.inputs[0]) is not None
        if is_constant and spelling_of(node).integers and not _is_summed(node.outputs[0]):
            node.metadata_props[TABLE_KEY] = "1"


def _is_summed(value: Value) -> bool:
    """Return whether a layer, or an Add that may be its bias, reads a constant."""
    return any(
        operators.is_product(reader)
        or is_standard(reader, "Add")
        or any(_is_summed(made) for made in reader.outputs if operators.moves_values(reader))
        for reader in value.consumers()
        if not is_standard(reader, "Gather")
    )
