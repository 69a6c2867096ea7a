"""Running both sides of a check and comparing what they say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx_ir import Model

from qonnx_hub.equivalence.compare import Tolerance, Verdict, compare_tensors
from qonnx_hub.equivalence.report import CheckResult, Divergence
from qonnx_hub.equivalence.runners import ExecutorRunner, Runner, provenance, steps
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.quant import Array

_ORDER = (Verdict.PROVEN, Verdict.EQUAL, Verdict.WITHIN, Verdict.DIFFERENT)


def check_runners(
    a: Runner,
    b: Runner,
    feeds: Mapping[str, Array],
    *,
    reference: Model,
    inputs: str,
    tolerance: Tolerance,
    layers: bool = False,
) -> CheckResult:
    """Return how side ``b`` compares to side ``a`` on the feeds.

    Outputs are matched by name where both sides have the same names, otherwise by position.

    Args:
        a: The reference side.
        b: The other side.
        feeds: Inputs by the names of ``a``.
        reference: The model behind ``a``: its quantizers give the step sizes.
        inputs: Where the inputs came from, for the report.
        tolerance: What counts as within bounds.
        layers: Compare inner values as well, matched by source layer, to find the first that
            differs. Both sides must run on the executor.

    Raises:
        UsageError: The sides have different numbers of outputs, or outputs of other shapes.
    """
    first = a.outputs(feeds)
    second = b.outputs(_renamed(feeds, b))
    step = steps(reference)
    comparisons = tuple(
        compare_tensors(
            first[name],
            second[other],
            name=name,
            other=other,
            tolerance=tolerance,
            step=step.get(name),
        )
        for name, other in _matched(first, second, a.label, b.label)
    )
    verdict = max((c.verdict for c in comparisons), key=_ORDER.index)
    compared, divergence = 0, None
    if layers and isinstance(a, ExecutorRunner) and isinstance(b, ExecutorRunner):
        compared, divergence = _first_divergence(a, b, feeds, tolerance)
    return CheckResult(
        a=a.label,
        b=b.label,
        verdict=verdict,
        outputs=comparisons,
        samples=_samples(feeds),
        inputs=inputs,
        layers=compared,
        first_divergence=divergence,
    )


def _renamed(feeds: Mapping[str, Array], side: Runner) -> dict[str, Array]:
    """Return the feeds under the input names of the other side, matched by position."""
    if not isinstance(side, ExecutorRunner):
        return dict(feeds)
    names = [str(v.name) for v in side.model.graph.inputs]
    if set(names) == set(feeds):
        return dict(feeds)
    if len(names) != len(feeds):
        raise UsageError(
            f"{side.label} takes {len(names)} inputs ({', '.join(names)}), "
            f"the other side {len(feeds)} ({', '.join(feeds)})"
        )
    return dict(zip(names, feeds.values(), strict=True))


def _matched(
    a: Mapping[str, Any], b: Mapping[str, Any], label_a: str, label_b: str
) -> list[tuple[str, str]]:
    if set(a) == set(b):
        return [(name, name) for name in a]
    if len(a) != len(b):
        raise UsageError(
            f"{label_a} has {len(a)} outputs ({', '.join(a)}), "
            f"{label_b} has {len(b)} ({', '.join(b)}): they cannot be compared"
        )
    if not a:
        raise UsageError("neither side has an output: nothing would be compared")
    return list(zip(a, b, strict=True))


def _samples(feeds: Mapping[str, Array]) -> int:
    return max((int(f.shape[0]) if f.ndim else 1 for f in feeds.values()), default=1)


def _first_divergence(
    a: ExecutorRunner, b: ExecutorRunner, feeds: Mapping[str, Array], tolerance: Tolerance
) -> tuple[int, Divergence | None]:
    names_a, names_b = provenance(a.model), provenance(b.model)
    tensors_a = a.tensors(feeds)
    tensors_b = b.tensors(_renamed(feeds, b))
    step = steps(a.model)
    compared = 0
    for source, name in names_a.items():
        other = names_b.get(source)
        if other is None or not _comparable(tensors_a.get(name), tensors_b.get(other)):
            continue
        comparison = compare_tensors(
            tensors_a[name],
            tensors_b[other],
            name=name,
            other=other,
            tolerance=tolerance,
            step=step.get(name),
        )
        compared += 1
        if comparison.verdict is Verdict.DIFFERENT:
            return compared, Divergence(source, comparison)
    return compared, None


def _comparable(a: Any, b: Any) -> bool:
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        return False
    return (
        a.shape == b.shape and a.size > 0 and a.dtype.kind in "fiub" and b.dtype.kind in "fiub"
    )
