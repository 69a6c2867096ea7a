"""Two arrays, compared in numbers: how many differ, by how much, by how many steps."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

import numpy as np

from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.quant import Array


class Verdict(str, Enum):
    """What a comparison found, best first."""

    PROVEN = "PROVEN"
    EQUAL = "EQUAL"
    WITHIN = "WITHIN"
    DIFFERENT = "DIFFERENT"

    def __str__(self) -> str:
        """Return the word itself."""
        return self.value


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What counts as within bounds; exact equality is always reported as such.

    Attributes:
        atol: Absolute difference allowed.
        rtol: Difference allowed relative to the reference value.
        lsb: Steps of the tensor's own quantizer allowed.
    """

    atol: float = 0.0
    rtol: float = 0.0
    lsb: float | None = None


@dataclass(frozen=True, slots=True)
class TensorComparison:
    """How one tensor of two models compares.

    Attributes:
        name: Its name in the first model.
        other: Its name in the second model.
        shape: Shape of both.
        count: Elements compared.
        differing: Elements with a different value (NaN equals NaN, -0.0 equals 0.0).
        max_abs: Largest absolute difference.
        max_rel: Largest difference relative to the largest magnitude of the reference.
        step: Step of the tensor's quantizer, where it has one.
        max_lsb: Largest difference in such steps.
        verdict: The outcome.
        where: Index of the largest difference, ``None`` where nothing differs.
        values: Both values there.
    """

    name: str
    other: str
    shape: tuple[int, ...]
    count: int
    differing: int
    max_abs: float
    max_rel: float
    step: float | None
    max_lsb: float | None
    verdict: Verdict
    where: tuple[int, ...] | None = None
    values: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain data."""
        return {**asdict(self), "verdict": str(self.verdict)}


def compare_tensors(
    a: Array,
    b: Array,
    *,
    name: str,
    other: str,
    tolerance: Tolerance,
    step: Array | None = None,
) -> TensorComparison:
    """Return how ``b`` compares to the reference ``a``.

    Args:
        a: The reference.
        b: The other array.
        name: Name of ``a``.
        other: Name of ``b``.
        tolerance: What counts as within bounds.
        step: Step size of the tensor's quantizer, broadcastable to ``a``.

    Raises:
        UsageError: The shapes differ, or there is nothing to compare.
    """
    if a.shape != b.shape:
        raise UsageError(
            f"'{name}' has shape {list(a.shape)}, '{other}' has {list(b.shape)}: "
            f"they cannot be compared"
        )
    if a.size == 0:
        raise UsageError(f"'{name}' is empty: nothing would be compared")
    if a.dtype.kind not in "fiub" and a.dtype.kind != "V":
        equal = np.asarray(a == b)
        difference = np.where(equal, 0.0, np.inf)
        reference = np.ones(a.shape, dtype=np.float64)
    else:
        reference, theirs = a.astype(np.float64), b.astype(np.float64)
        equal = (reference == theirs) | (np.isnan(reference) & np.isnan(theirs))
        with np.errstate(all="ignore"):
            difference = np.where(equal, 0.0, np.abs(reference - theirs))
        # Infinity against a number, NaN against anything: as far apart as can be.
        difference = np.where(np.isnan(difference), np.inf, difference)
    return _summary(a, b, equal, difference, reference, name, other, tolerance, step)


def _summary(
    a: Array,
    b: Array,
    equal: Array,
    difference: Array,
    reference: Array,
    name: str,
    other: str,
    tolerance: Tolerance,
    step: Array | None,
) -> TensorComparison:
    differing = int(equal.size - np.count_nonzero(equal))
    finite = np.abs(reference[np.isfinite(reference)])
    magnitude = float(finite.max()) if finite.size else 0.0
    max_abs = float(difference.max())
    lsb = None
    if step is not None:
        lsb = float((difference / np.asarray(step, dtype=np.float64)).max())
    where = None
    values = None
    if differing:
        index = np.unravel_index(int(difference.argmax()), a.shape)
        where = tuple(int(i) for i in index)
        if a.dtype.kind in "fiub":
            values = (float(a[where]), float(b[where]))
    return TensorComparison(
        name=name,
        other=other,
        shape=tuple(a.shape),
        count=int(a.size),
        differing=differing,
        max_abs=max_abs,
        max_rel=max_abs / magnitude if magnitude else (0.0 if max_abs == 0 else np.inf),
        step=None if step is None else float(np.max(step)),
        max_lsb=lsb,
        verdict=_verdict(differing, difference, reference, lsb, tolerance),
        where=where,
        values=values,
    )


def _verdict(
    differing: int, difference: Array, reference: Array, lsb: float | None, tol: Tolerance
) -> Verdict:
    if differing == 0:
        return Verdict.EQUAL
    if tol.lsb is not None and lsb is not None and lsb <= tol.lsb * (1 + 1e-6):
        return Verdict.WITHIN
    with np.errstate(all="ignore"):
        bound = tol.atol + tol.rtol * np.abs(reference)
    if (tol.atol or tol.rtol) and bool(np.all(difference <= bound)):
        return Verdict.WITHIN
    return Verdict.DIFFERENT
