"""Differences of quantizers that no input of a check has shown.

Two quantizers may differ only on values that the inputs never bring about, such as exact ties.
Asked directly, with ties, limits and the floats beside them, they show it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx_ir import Node

from qonnx_hub.equivalence.comparison.compare import aligned, differs
from qonnx_hub.equivalence.comparison.matching import Pair
from qonnx_hub.equivalence.diagnosis.isolation import (
    SampleGroup,
    SlicedGraph,
    gather_first_group,
)
from qonnx_hub.equivalence.diagnosis.quantizer_causes import (
    Cause,
    Explanation,
    Reason,
    Seen,
    explain_quantizer,
    explanation_of,
)
from qonnx_hub.equivalence.inputs.batches import SampleBatch
from qonnx_hub.equivalence.inputs.probes import probe_values
from qonnx_hub.equivalence.runners.sides import Runner
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.queries import input_of
from qonnx_hub_ir.quantizers import Array, BipolarQuant, IntQuant, Quantizer
from qonnx_hub_ir.semantics import quantize


def known_quantizer(node: Node | None) -> Quantizer | None:
    """Return what a quantizer node says; ``None`` for one with dynamic parameters."""
    if node is None or not dialect.is_quantizer(node):
        return None
    quant = dialect.read_quantizer(node)
    known = all(value is not None for value in dialect.parameters(quant))
    return quant if known else None


def find_unobserved(
    a: Runner, b: Runner, pairs: Sequence[Pair], batch: SampleBatch
) -> list[Explanation]:
    """Return how quantizers differ on values that they are asked directly.

    Args:
        a: The side that is the reference.
        b: The side that is judged.
        pairs: All pairs, in the order of the reference.
        batch: Any batch: it gives shapes, and what else the slices read.
    """
    if a.model is None or b.model is None or a.input_names is None or b.input_names is None:
        return []
    group = gather_first_group(a, b, pairs, batch)
    probes = _probes(SlicedGraph(a.model), pairs, group)
    if not probes:
        return []
    given = dict(group.given)
    first = {p.a: p for p in reversed(pairs)}
    for name, (_, x, _) in probes.items():
        before = first[name]
        fitted = aligned(group.b[before.b], x)
        if fitted is not None:
            given[before.b] = np.ascontiguousarray(fitted)
    theirs = SlicedGraph(b.model, b, group.b)
    answers = theirs.run([pair.b for pair, _, _ in probes.values()], given, group.there) or {}
    found = []
    for pair, x, quant in probes.values():
        ours = quantize(x, quant)
        fitted = aligned(ours, answers.get(pair.b))
        if fitted is None or not differs(ours, fitted).any():
            continue
        seen, other = Seen(x, ours, fitted), known_quantizer(theirs.producer(pair.b))
        reason = explain_quantizer(seen, quant, other) or Reason(Cause.UNKNOWN, "they differ")
        found.append(explanation_of(pair.source, reason, seen))
    return found


def _probes(
    graph: SlicedGraph, pairs: Sequence[Pair], group: SampleGroup
) -> dict[str, tuple[Pair, Array, IntQuant | BipolarQuant]]:
    """Return operand -> (quantizer's pair, values to ask, quantizer)."""
    names = {p.a for p in pairs if not p.constant and p.b in group.given}
    found: dict[str, tuple[Pair, Array, IntQuant | BipolarQuant]] = {}
    for pair in pairs:
        node = None if pair.constant else graph.producer(pair.a)
        quant = known_quantizer(node)
        x_of = None if node is None else input_of(node, 0)
        if x_of is None:
            continue
        name = str(x_of.name)
        if not isinstance(quant, (IntQuant, BipolarQuant)) or name not in names:
            continue
        x = group.a[name]
        if name in found or x.dtype.kind != "f":
            continue
        values = probe_values(quant, x.shape, x.dtype)
        before = known_quantizer(graph.producer(name))
        if values is not None and before is not None:
            # What another quantizer makes lies on its grid: no other value can occur.
            values = quantize(values, before)
        if values is not None and x.size:
            found[name] = (pair, values, quant)
    return found
