"""Counted thresholds become comparisons in standard operators."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_ir import Model
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.subgraphs import nodes_within
from qonnx_hub_ir.lowering.threshold_steps import threshold_problem, write_comparisons


@dataclass(frozen=True)
class LowerThresholds(InPlacePass):
    """Replace every MultiThreshold by comparisons, in bodies as well.

    Before -> after: ``y = MultiThreshold(x, thresholds)`` -> ``y`` = how many of the
    thresholds ``x`` reaches, times ``out_scale``, plus ``out_bias``: GreaterOrEqual, Cast,
    ReduceSum, Mul, Add. Every value is the same, whatever the thresholds are.

    Does not fire where thresholds are computed, or what they belong to is not known:
    :func:`~qonnx_hub_ir.lowering.threshold_steps.threshold_problem` says why.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        found = [
            node
            for node in nodes_within(model.graph)
            if dialect.is_thresholds(node) and not threshold_problem(node)
        ]
        for node in found:
            write_comparisons(node)
        return PassResult(model, modified=bool(found))
