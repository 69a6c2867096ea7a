"""Writes QONNX that the ``qonnx`` package cleans and executes with equal results."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from onnx_ir import Model, Node

from qonnx_hub_adapters.adapter_options import read_own_options
from qonnx_hub_adapters.onnx_writer import check, finish
from qonnx_hub_adapters.protocol import (
    Artifact,
    Bound,
    ExportOptions,
    Gap,
    QuantizerRecord,
)
from qonnx_hub_adapters.qonnx import finn_profile as finn
from qonnx_hub_adapters.qonnx.importer import INFO
from qonnx_hub_adapters.qonnx.options import QonnxOptions
from qonnx_hub_ir import dialect
from qonnx_hub_ir.analysis.image_layout import LAST, layout_read
from qonnx_hub_ir.choices import require_choice
from qonnx_hub_ir.describe import describe_quantizer
from qonnx_hub_ir.errors import NotExactError
from qonnx_hub_ir.graph.permutations import to_last
from qonnx_hub_ir.graph.queries import every_quantizer, rank_of
from qonnx_hub_ir.lowering import function_bodies
from qonnx_hub_ir.lowering.functions import define_operators, function_gaps, needs_runtime
from qonnx_hub_ir.passes import (
    ChangeLayout,
    LowerThresholds,
    SpellOutRounding,
    SplitZeroPoint,
)
from qonnx_hub_ir.passes.layout.change_layout import transpose_input
from qonnx_hub_ir.passes.quantizers.spell_rounding import can_be_spelled_out
from qonnx_hub_ir.passes.quantizers.zero_point_pairs import split_form, use_order_of_qonnx
from qonnx_hub_ir.quantizers import BipolarQuant, IntQuant
from qonnx_hub_ir.validity import label

_FIRST_IR_WITH_FUNCTIONS = 8

PROFILES = ("finn",)
"""Readers of QONNX with rules of their own."""

PROFILE_HINTS = {"hls4ml": "that is a form: --to hls4ml."}
"""Name that people try for a profile -> what to write instead."""


class QonnxExporter:
    """IR -> QONNX."""

    info = INFO

    def gaps(self, model: Model) -> list[Gap]:
        """Return everything that QONNX cannot say exactly."""
        nodes = every_quantizer(model)
        gaps = [gap for node in nodes if (gap := _rounding_gap(node) or _order_gap(node))]
        versions = {_trunc_version(node): node for node in nodes if node.op_type == "Trunc"}
        if len(versions) > 1:
            reason = "version 1 beside a Trunc of version 2; one file imports one version"
            gaps.append(Gap(versions[1].name or "", "Trunc", reason))
        return gaps

    def export(self, model: Model, options: ExportOptions) -> Artifact:
        """Return the model as QONNX. The model given is not changed.

        Raises:
            NotExactError: With all gaps, or an opset that cannot say the model.
        """
        own = read_own_options(QonnxOptions, self.info.name, options)
        notes: tuple[str, ...] = ()
        turned: tuple[str, ...] = ()
        if own.profile:
            model, notes, turned = _in_profile(model, own)
        gaps = self.gaps(model)
        if gaps:
            raise NotExactError("QONNX cannot say these nodes exactly:", gaps)
        near = options.allow_lossy
        records = tuple(_record(node, near) for node in every_quantizer(model))
        copy = model.clone()
        SpellOutRounding()(copy)
        if own.self_contained:
            LowerThresholds()(copy)  # no function says it: its steps depend on the channels
        if near:
            use_order_of_qonnx(copy)
        SplitZeroPoint()(copy)
        finish(copy, options.opset, function_bodies.OPSET if own.self_contained else 0)
        if dialect.DOMAIN in copy.opset_imports:
            # Version 1 is what the oldest readers know; only the newer Trunc needs version 2.
            truncs = [n for n in every_quantizer(copy) if n.op_type == "Trunc"]
            newest = max((_trunc_version(node) for node in truncs), default=1)
            copy.opset_imports[dialect.DOMAIN] = newest
        if own.self_contained:
            undefined = function_gaps(copy)
            if undefined:
                message = "no function in the file can define these nodes exactly:"
                raise NotExactError(message, undefined)
            define_operators(copy)
            copy.ir_version = max(copy.ir_version, _FIRST_IR_WITH_FUNCTIONS)
            check(copy)
            notes = (*notes, *_foreign_notes(copy))
        return Artifact(copy, records, notes, compared=_with_own_layout(copy, turned))


def _in_profile(
    model: Model, own: QonnxOptions
) -> tuple[Model, tuple[str, ...], tuple[str, ...]]:
    """Return a copy that keeps the rules of a reader of QONNX, what changed, and for whom.

    The last are the inputs that are fed channels first instead of channels last.

    Raises:
        UsageError: There is no such profile.
        NotExactError: With everything that the reader would refuse or compute wrongly.
    """
    require_choice("profile", own.profile, PROFILES, PROFILE_HINTS)
    copy = model.clone()
    images = [v for v in copy.graph.inputs if rank_of(v) == 4 and layout_read(v) == LAST]
    turned = tuple(str(value.name) for value in images)
    if turned:
        ChangeLayout("nchw", inputs=turned, outputs=())(copy)
    notes = [
        *(f"input '{name}' is fed channels first" for name in turned),
        *finn.prepare(copy, own.max_bits),
    ]
    gaps = finn.gaps(copy, own.max_bits)
    if gaps:
        raise NotExactError("FINN refuses these nodes, or computes something else:", gaps)
    return copy, tuple(notes), turned


def _with_own_layout(model: Model, turned: Collection[str]) -> Model | None:
    """Return a copy that takes its images channels last, as the source does."""
    if not turned:
        return None
    copy = model.clone()
    for value in copy.graph.inputs:
        if value.name in turned:
            transpose_input(copy, value, to_last(4))
    return copy


def _foreign_notes(model: Model) -> tuple[str, ...]:
    foreign = [label(node) for node in model.graph.all_nodes() if needs_runtime(node)]
    if not foreign:
        return ()
    rest = f" and {len(foreign) - 3} others" if len(foreign) > 3 else ""
    words = f"{', '.join(foreign[:3])}{rest}"
    return (f"no function defines {words}: only a runtime that has them runs the file",)


def _trunc_version(node: Node) -> int:
    return 1 if len(node.inputs) == 5 else 2


def _rounding_gap(node: Node) -> Gap | None:
    quant = dialect.read_quantizer(node)
    if isinstance(quant, BipolarQuant) or dialect.is_known_to_qonnx(quant.rounding):
        return None
    if can_be_spelled_out(node):
        return None
    return Gap(
        node.name or "", node.op_type, f"rounding mode {quant.rounding} has no QONNX name"
    )


def _order_gap(node: Node) -> Gap | None:
    quant = dialect.read_quantizer(node)
    late = isinstance(quant, IntQuant) and quant.zero_point_after_rounding
    if not late or split_form(node) is not None:
        return None
    reason = "adds its zero point after rounding, and no two quantizers in a row do the same"
    remedy = "float32, a known zero point and at most 19 bits have such a form"
    return Gap(node.name or "", node.op_type, reason, remedy)


def _near(node: Node, words: str) -> QuantizerRecord:
    """Return the record of a quantizer that is written in QONNX's order alone."""
    zero = dialect.constant_value(node.inputs[2])
    odd = zero is not None and bool(np.any(zero % 2 != 0))
    where = "at each tie between codes" if odd else "within one float of a tie"
    reason = (
        f"one quantizer of QONNX adds the zero point before rounding: {where} it can take "
        f"the other neighbour, one step away"
    )
    bound = Bound(near=0.0)
    return QuantizerRecord(node.name or "", words, node.op_type, False, reason, bound)


def _record(node: Node, near: bool) -> QuantizerRecord:
    quant = dialect.read_quantizer(node)
    words, first = describe_quantizer(quant), split_form(node)
    if first is not None and np.any(first.zero_point):
        return QuantizerRecord(node.name or "", words, node.op_type)
    if first is not None and near and not can_be_spelled_out(node):
        return _near(node, words)
    if first is not None:
        reason = "the first rounds, the second adds the zero point"
        return QuantizerRecord(node.name or "", words, "Quant + Quant", reason=reason)
    if can_be_spelled_out(node):
        reason = "the rounding mode has no QONNX name: spelled out in standard operators"
        return QuantizerRecord(node.name or "", words, "operators + Quant", reason=reason)
    return QuantizerRecord(node.name or "", words, node.op_type)
