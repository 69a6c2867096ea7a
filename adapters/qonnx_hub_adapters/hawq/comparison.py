"""What the graph computes beside what the module computed, layer by layer, in steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx_ir import Model

from qonnx_hub_adapters.hawq.forms import Assembled
from qonnx_hub_adapters.hawq.trace_data import ActCall, ForwardTrace
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.quantizers import Array
from qonnx_hub_ir.semantics import quantize

DIFFERENCES = "qonnx_hub.hawq.differences"
"""Metadata key of a model: its layers beside HAWQ's own, as JSON."""

_ELEMENTS = 1 << 18
"""Elements of the inputs to compare with, at most: the evaluator is a reference, not quick."""

_SHARE = 0.01
"""Share of integers that may be a step off: float operators between the layers, such as a
sigmoid, are not rounded like torch's."""


@dataclass(frozen=True, slots=True)
class LayerDifference:
    """One QuantAct of the graph beside the module's own.

    Attributes:
        layer: Its name.
        bits: Its bit width.
        elements: Integers compared.
        differing: How many of them differ.
        steps: The largest difference, in steps of the layer's quantizer.
    """

    layer: str
    bits: int
    elements: int
    differing: int
    steps: float


class Quant(OpRun):
    """The quantizer for ONNX's reference evaluator."""

    op_domain = dialect.DOMAIN

    def _run(self, x: Array, *parameters: Array, **attributes: Any) -> tuple[Array]:
        quantizer = dialect.make_quantizer("Quant", attributes, parameters, "")
        return (quantize(x, quantizer),)


def compare(
    assembled: Assembled, trace: ForwardTrace, feeds: Mapping[str, Array]
) -> tuple[LayerDifference, ...]:
    """Return one entry per QuantAct call, by ONNX's reference evaluator.

    Args:
        assembled: The graph of the trace.
        trace: With what the module computed.
        feeds: The sample that it was traced with, by input name.
    """
    calls = [call for call in trace.calls if isinstance(call, ActCall)]
    if not calls:
        return ()
    largest = max(int(value[0].size) for value in feeds.values())
    count = max(1, _ELEMENTS // max(1, largest)) if trace.open_batch else None
    given = {name: value[:count] for name, value in feeds.items()}
    names = [assembled.names[call.output] for call in calls]
    proto, wanted = onnx_ir.to_proto(assembled.model), list(dict.fromkeys(names))
    del proto.graph.output[:]
    proto.graph.output.extend(helper.make_value_info(n, onnx.TypeProto()) for n in wanted)
    with np.errstate(all="ignore"):
        answers = ReferenceEvaluator(proto, new_ops=[Quant]).run(None, given)
    computed = dict(zip(wanted, answers, strict=True))
    found = []
    for call, name in zip(calls, names, strict=True):
        recorded = trace.recorded[call.output][:count]
        steps = np.abs(np.rint(computed[name] / call.scale) - np.rint(recorded / call.scale))
        # NaN differs from everything; as a number of steps it would be lost in comparisons.
        steps = np.where(np.isnan(steps), np.inf, steps)
        differing, largest_step = int(np.count_nonzero(steps)), float(steps.max(initial=0.0))
        found.append(
            LayerDifference(call.layer, call.bits, int(steps.size), differing, largest_step)
        )
    return tuple(found)


def require_faithful(differences: Sequence[LayerDifference]) -> None:
    """Raise unless the exact form computes what the module computed.

    A step on a few integers is let through: where float operators such as a sigmoid stand
    between HAWQ's layers, numpy and torch may round them differently.

    Raises:
        SourceError: The trace does not stand for the module.
    """
    wrong = [
        one
        for one in differences
        if one.steps > 1 or one.differing > max(1, _SHARE * one.elements)
    ]
    if wrong:
        worst = wrong[0]
        raise SourceError(
            f"the traced graph does not compute what the module computes: at '{worst.layer}' "
            f"{worst.differing} of {worst.elements} integers differ, by up to "
            f"{worst.steps:g}; the module may work in place, or depend on its data"
        )


def attach(model: Model, differences: Sequence[LayerDifference]) -> None:
    """Write the differences into the model's metadata."""
    model.metadata_props[DIFFERENCES] = json.dumps([asdict(one) for one in differences])


def read_differences(model: Model) -> tuple[LayerDifference, ...]:
    """Return how the QuantActs of an imported model differ from the module's own.

    Returns:
        One entry per QuantAct call, in order; empty for models that were not traced.
    """
    found = json.loads(model.metadata_props.get(DIFFERENCES, "[]"))
    return tuple(LayerDifference(**entry) for entry in found)
