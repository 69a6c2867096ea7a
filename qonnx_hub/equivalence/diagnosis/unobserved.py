"""Differences of quantizers that no input of a check has shown.

Two quantizers may part only on values that the inputs never bring about, such as exact ties.
Asked directly, with ties, limits and the floats beside them, they show it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx_ir import Node

from qonnx_hub.equivalence.comparison.compare import aligned
from qonnx_hub.equivalence.comparison.matching import Pair
from qonnx_hub.equivalence.diagnosis.isolation import Side, Unit, gather_first_unit
from qonnx_hub.equivalence.diagnosis.quantizer_causes import (
    Cause,
    Finding,
    Reason,
    Seen,
    explain_quantizer,
)
from qonnx_hub.equivalence.inputs.batches import Batch
from qonnx_hub.equivalence.inputs.probes import probe_values
from qonnx_hub.equivalence.runners.sides import Runner
from qonnx_hub_ir import dialect
from qonnx_hub_ir.quantizers import Array, BipolarQuant, IntQuant, Quantizer
from qonnx_hub_ir.semantics import quantize


def known_quantizer(node: Node | None) -> Quantizer | None:
    """Return what a quantizer node says; ``None`` for one with dynamic parameters."""
    if node is None or not dialect.is_quantizer(node):
        return None
    quant = dialect.read_quantizer(node)
    known = all(value is not None for value in dialect.parameters(quant))
    return quant if known else None


def find_latent(a: Runner, b: Runner, pairs: Sequence[Pair], batch: Batch) -> list[Finding]:
    """Return how quantizers differ on values that they are asked directly.

    Args:
        a: The reference side.
        b: The other side.
        pairs: All pairs, in the order of the reference.
        batch: Any batch: it gives shapes, and what else the pieces read.
    """
    if a.model is None or b.model is None or a.is_record or b.is_record:
        return []
    ours = Side(a.model)
    unit = gather_first_unit(a, b, pairs, batch)
    asked = _questions(ours, pairs, unit)
    if not asked:
        return []
    given = dict(unit.given)
    first = {p.a: p for p in reversed(pairs)}
    for name, (_, x, _) in asked.items():
        before = first[name]
        turned = aligned(unit.b[before.b], x)
        if turned is not None:
            given[before.b] = np.ascontiguousarray(turned)
    theirs = Side(b.model, b, unit.b)
    wanted = [pair.b for pair, _, _ in asked.values()]
    answers = theirs.run(wanted, given, unit.there)
    if answers is None:
        return []
    found = [
        _compare(pair, x, quant, theirs, answers.get(pair.b))
        for pair, x, quant in asked.values()
    ]
    return [finding for finding in found if finding is not None]


def _operand_name(side: Side, pair: Pair) -> str:
    node = side.values[pair.a].producer()
    value = None if node is None else node.inputs[0]
    return "" if value is None else str(value.name)


def _questions(
    side: Side, pairs: Sequence[Pair], unit: Unit
) -> dict[str, tuple[Pair, Array, IntQuant | BipolarQuant]]:
    """Return operand -> (quantizer's pair, values to ask, quantizer)."""
    names = {p.a: p for p in pairs if not p.constant and p.b in unit.given}
    found: dict[str, tuple[Pair, Array, IntQuant | BipolarQuant]] = {}
    for pair in pairs:
        if pair.constant or pair.a not in side.values:
            continue
        quant = known_quantizer(side.values[pair.a].producer())
        name = _operand_name(side, pair)
        if not isinstance(quant, (IntQuant, BipolarQuant)) or name not in names:
            continue
        x = unit.a[name]
        if name in found or x.dtype.kind != "f":
            continue
        values = probe_values(quant, x.shape, x.dtype)
        if values is not None and x.size:
            found[name] = (pair, values, quant)
    return found


def _compare(
    pair: Pair, x: Array, quant: Quantizer, theirs: Side, answer: Array | None
) -> Finding | None:
    ours = quantize(x, quant)
    fitted = None if answer is None else aligned(ours, answer)
    if fitted is None:
        return None
    seen = Seen(x, ours, fitted)
    where = np.argwhere(seen.differs())
    if not len(where):
        return None
    value = theirs.values.get(pair.b)
    other = known_quantizer(None if value is None else value.producer())
    reason = explain_quantizer(seen, quant, other) or Reason(Cause.UNKNOWN, "they differ")
    place = tuple(int(i) for i in where[0])
    values = (float(ours[place]), float(fitted[place]))
    return Finding(pair.source, reason.cause, reason.words, place, float(x[place]), values)
