"""Two arrays, compared in numbers: how many differ, by how much, by how many steps.

A comparison of a whole run is the sum of comparisons of its batches: a :class:`Tally` holds
what has been seen so far in constant memory, and tallies of batches add up in any grouping.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from qonnx_hub.equivalence.verdicts import Verdict
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.graph.permutations import to_first, to_last
from qonnx_hub_ir.graph.queries import fits_into
from qonnx_hub_ir.quantizers import Array

_MOST_SINGLE_STEPS = 8
"""Differences of fewer steps are counted one by one, larger ones by powers of two."""

_NEGLIGIBLE_STEPS = 1e-3
"""Differences below are float noise on a grid, not steps."""

_MOST_POINTS = 256
"""Elements of which both values are kept, of those in batches that differ."""

Point = tuple[int, float, float]
"""A number that says which points are kept, and both values of an element."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What counts as within bounds; exact equality is always reported as such.

    An element is within bounds where it is within ``lsb`` steps or within
    ``atol + rtol * |reference|``. Infinity and NaN are within bounds of themselves only.

    Attributes:
        atol: Absolute difference allowed.
        rtol: Difference allowed relative to the reference value.
        lsb: Steps of the tensor's own quantizer allowed.
        named: Tensor name -> its own tolerance, instead of this one.
    """

    atol: float = 0.0
    rtol: float = 0.0
    lsb: float | None = None
    named: Mapping[str, Tolerance] = field(default_factory=dict)

    def of(self, *names: str) -> Tolerance:
        """Return what is allowed for the tensor of one of these names."""
        for name in names:
            if name in self.named:
                return self.named[name]
        return self

    @property
    def is_exact(self) -> bool:
        """Return whether nothing but equality is within bounds."""
        return not self.atol and not self.rtol and self.lsb is None


def make_tolerance(
    atol: float | Mapping[str, float] = 0.0,
    rtol: float | Mapping[str, float] = 0.0,
    lsb: float | Mapping[str, float] | None = None,
) -> Tolerance:
    """Return the tolerance that numbers, or numbers by tensor name, stand for.

    Args:
        atol: A number, or tensor name -> number, where the name "" stands for all others.
        rtol: As ``atol``.
        lsb: As ``atol``.

    Raises:
        UsageError: A tolerance is negative or not a number.
    """
    absolute, relative, steps = _by_name(atol), _by_name(rtol), _by_name(lsb)
    names = dict.fromkeys((*absolute, *relative, *steps))
    for number in (*absolute.values(), *relative.values(), *steps.values()):
        if not number >= 0:
            raise UsageError(f"a tolerance is a number from zero on, not {number}")

    def one(name: str) -> Tolerance:
        return Tolerance(
            absolute.get(name, absolute.get("", 0.0)),
            relative.get(name, relative.get("", 0.0)),
            steps.get(name, steps.get("")),
        )

    general = one("")
    named = {name: one(name) for name in names if name}
    return Tolerance(general.atol, general.rtol, general.lsb, named)


def _by_name(value: float | Mapping[str, float] | None) -> dict[str, float]:
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return {str(k): float(v) for k, v in value.items()}
    return {"": float(value)}


@dataclass(frozen=True, slots=True)
class Worst:
    """The largest difference seen.

    Attributes:
        size: The difference.
        batch: Index of its batch.
        where: Index of the element in the whole run.
        values: Both values there; ``None`` for what is no number.
    """

    size: float
    batch: int
    where: tuple[int, ...]
    values: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Tally:
    """What was seen of one tensor so far.

    Attributes:
        shape: Shape of the reference, all batches together.
        count: Elements compared.
        differing: Elements with a different value (NaN equals NaN, -0.0 equals 0.0).
        beyond: Elements out of bounds.
        magnitude: Largest finite magnitude of the reference.
        relative: Largest difference relative to the reference value beside it.
        lsb: Largest difference in steps; ``None`` without a step.
        histogram: Whole steps of difference -> elements; from 8 on in powers of two.
        first_batch: Index of the first batch with an element out of bounds.
        worst: The largest difference; ``None`` where nothing differs.
        decades: Power of ten -> elements whose difference begins with it.
        points: Both values of some elements, of those in batches that differ.
    """

    shape: tuple[int, ...]
    count: int
    differing: int
    beyond: int
    magnitude: float
    relative: float
    lsb: float | None
    histogram: Mapping[int, int]
    first_batch: int | None
    worst: Worst | None
    decades: Mapping[int, int] = field(default_factory=dict)
    points: tuple[Point, ...] = field(default=(), compare=False)

    def __add__(self, later: Tally) -> Tally:
        """Return the tally of both runs; ``later`` comes behind this one."""
        histogram, decades = Counter(self.histogram), Counter(self.decades)
        histogram.update(later.histogram)
        decades.update(later.decades)
        steps_seen = [x for x in (self.lsb, later.lsb) if x is not None]
        first = self.first_batch if self.first_batch is not None else later.first_batch
        shape, worst = self.shape, self.worst
        if shape and later.shape:
            shape = (shape[0] + later.shape[0], *shape[1:])
        if worst is None or (later.worst is not None and later.worst.size > worst.size):
            worst = later.worst
        return Tally(
            shape=shape,
            count=self.count + later.count,
            differing=self.differing + later.differing,
            beyond=self.beyond + later.beyond,
            magnitude=max(self.magnitude, later.magnitude),
            relative=max(self.relative, later.relative),
            lsb=max(steps_seen) if steps_seen else None,
            histogram=dict(histogram),
            first_batch=first,
            worst=worst,
            decades=dict(decades),
            # The same ones, whatever is added up first.
            points=tuple(sorted((*self.points, *later.points))[:_MOST_POINTS]),
        )


def tally(
    a: Array,
    b: Array,
    *,
    tolerance: Tolerance,
    step: Array | None = None,
    batch: int = 0,
    start: int = 0,
) -> Tally:
    """Return what one batch shows; ``a`` and ``b`` have the same shape.

    Args:
        a: The reference.
        b: The other array.
        tolerance: What counts as within bounds.
        step: Step size of the tensor's quantizer; nothing is counted in steps where it does
            not broadcast to ``a``, or is infinite.
        batch: Index of the batch.
        start: Index of the batch's first sample in the whole run.
    """
    if step is not None and not (fits_into(step.shape, a.shape) and np.isfinite(step).all()):
        step = None
    if a.size == 0 or (a.dtype == b.dtype and np.array_equal(a, b)):
        histogram = {} if step is None or a.size == 0 else {0: int(a.size)}
        zero = None if step is None or a.size == 0 else 0.0
        peak = largest_magnitude(a)
        return Tally(a.shape, a.size, 0, 0, peak, 0.0, zero, histogram, None, None)
    equal, difference, reference = _differences(a, b)
    with np.errstate(all="ignore"):
        bound = tolerance.atol + tolerance.rtol * np.abs(reference)
        near = difference <= bound
        relative = np.where(equal, 0.0, difference / np.abs(reference))
        relative = np.where(np.isnan(relative), np.inf, relative)
    apart, histogram = None, {}
    if step is not None:
        apart = in_steps(difference, step, a)
        histogram = _histogram(apart)
        if tolerance.lsb is not None:
            # A step is a float32 number: a whole number of them is met up to its rounding.
            near |= apart <= tolerance.lsb * (1 + 1e-6)
    # Relative to infinity, everything is near it: no tolerance makes a number of it.
    beyond = int(np.count_nonzero(~equal & ~(near & np.isfinite(difference))))
    differing = int(equal.size - np.count_nonzero(equal))
    return Tally(
        shape=a.shape,
        count=int(a.size),
        differing=differing,
        beyond=beyond,
        magnitude=largest_magnitude(reference),
        relative=float(relative.max()),
        lsb=None if apart is None else float(apart.max()),
        histogram=histogram,
        first_batch=batch if beyond else None,
        worst=_worst(a, b, difference, batch, start) if differing else None,
        decades=_decades(difference),
        points=_points(a, b, batch) if differing else (),
    )


def tally_of_shapes(shape: tuple[int, ...], batch: int) -> Tally:
    """Return the tally of a value whose counterpart has another shape: all of it differs."""
    count = max(int(np.prod(shape, dtype=np.int64)), 1)
    worst = Worst(np.inf, batch, (), None)
    return Tally(shape, count, count, count, 0.0, np.inf, None, {}, batch, worst)


def _decades(difference: Array) -> dict[int, int]:
    sizes = difference[(difference > 0) & np.isfinite(difference)]
    powers, counts = np.unique(np.floor(np.log10(sizes)), return_counts=True)
    return {int(power): int(count) for power, count in zip(powers, counts, strict=True)}


def _points(a: Array, b: Array, batch: int) -> tuple[Point, ...]:
    """Return both values of elements that depend on the batch's number and size only."""
    if a.dtype.kind not in "fiub" or b.dtype.kind not in "fiub":
        return ()
    drawn = np.random.default_rng((batch, a.size))
    if a.size <= _MOST_POINTS:
        places = np.arange(a.size)
    else:
        places = np.unique(drawn.integers(0, a.size, _MOST_POINTS))
    order = drawn.integers(0, 2**62, places.size).tolist()
    both = (array.reshape(-1)[places].astype(np.float64).tolist() for array in (a, b))
    return tuple(sorted(zip(order, *both, strict=True)))


def differs(a: Array, b: Array) -> Array:
    """Return where two arrays hold different values: NaN equals NaN, -0.0 equals 0.0."""
    return np.asarray((a != b) & ~((a != a) & (b != b)))


def distances(a: Array, b: Array) -> Array:
    """Return how far apart two arrays are, element by element, as float64.

    Infinity against a number and NaN against anything are infinitely far apart.
    """
    return _differences(a, b)[1]


def _differences(a: Array, b: Array) -> tuple[Array, Array, Array]:
    """Return (equal, absolute difference, reference as numbers), element by element."""
    if a.dtype.kind not in "fiubV" or b.dtype.kind not in "fiubV":
        equal = np.asarray(a == b)
        return equal, np.where(equal, 0.0, np.inf), np.ones(a.shape, dtype=np.float64)
    reference, theirs = a.astype(np.float64), b.astype(np.float64)
    equal = (reference == theirs) | (np.isnan(reference) & np.isnan(theirs))
    with np.errstate(all="ignore"):
        difference = np.where(equal, 0.0, np.abs(reference - theirs))
    if a.dtype.kind in "iu" and b.dtype.kind in "iu":
        # Integers beyond 2^53 that differ may be one float64: they are one apart at least.
        equal = np.asarray(a == b)
        difference = np.where(equal, 0.0, np.maximum(difference, 1.0))
    # Infinity against a number, NaN against anything: as far apart as can be.
    return equal, np.where(np.isnan(difference), np.inf, difference), reference


def largest_magnitude(a: Array) -> float:
    """Return the largest finite magnitude of an array; 0 where it holds no numbers."""
    if a.dtype.kind not in "fiub" or a.size == 0:
        return 0.0
    largest = max(abs(float(a.max())), abs(float(a.min())))
    if np.isfinite(largest):
        return largest
    finite = np.abs(a[np.isfinite(a)])
    return float(finite.max()) if finite.size else 0.0


def in_steps(difference: Array, step: Array, reference: Array) -> Array:
    """Return differences in steps: whole ones where only the rounding of values is between.

    Two values of a grid are floats, each rounded by itself.

    Args:
        difference: Distances of two arrays.
        step: Step of their quantizer, broadcast to them.
        reference: One of the two, whose type tells how coarse its floats are.

    Example::

        step = np.float32(0.0173)  # 72 and 73 of them, as float32, are 1.00001 steps apart
        in_steps(np.float64(step * 73) - np.float64(step * 72), step, step * 72)  # 1.0
    """
    size = np.asarray(step, dtype=np.float64)
    with np.errstate(all="ignore"):
        steps = difference / size
        kind = reference.dtype if reference.dtype in (np.float16, np.float64) else np.float32
        largest = (np.abs(reference.astype(np.float64)) + difference).astype(kind)
        whole, slack = np.rint(steps), np.spacing(largest).astype(np.float64) / size
        return np.asarray(np.where(np.abs(steps - whole) <= slack, whole, steps))


def _histogram(steps: Array) -> dict[int, int]:
    finite = np.minimum(np.where(np.isfinite(steps), steps, 2.0**40), 2.0**40)
    whole = np.rint(finite).astype(np.int64)
    # A difference of less than half a step is still one: it counts as one step.
    whole = np.where((whole == 0) & (finite > 0), 1, whole)
    coarse = np.exp2(np.floor(np.log2(np.maximum(whole, 1)))).astype(np.int64)
    buckets, counts = np.unique(
        np.where(whole < _MOST_SINGLE_STEPS, whole, coarse), return_counts=True
    )
    return dict(zip(buckets.tolist(), counts.tolist(), strict=True))


def _worst(a: Array, b: Array, difference: Array, batch: int, start: int) -> Worst:
    local = tuple(int(i) for i in np.unravel_index(int(difference.argmax()), a.shape))
    numbers = a.dtype.kind in "fiubV" and b.dtype.kind in "fiubV"
    values = (float(a[local]), float(b[local])) if numbers else None
    where = (local[0] + start, *local[1:]) if local else ()
    return Worst(float(difference[local]), batch, where, values)


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
        beyond: Elements out of bounds.
        required_rtol: The ``rtol`` with which the comparison would pass by itself.
        histogram: Whole steps of difference -> elements; from 8 on in powers of two.
        decades: Power of ten -> elements whose difference begins with it.
        points: Both values of some elements, of those in batches that differ; for pictures,
            not in JSON.
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
    beyond: int = 0
    required_rtol: float = 0.0
    histogram: Mapping[int, int] = field(default_factory=dict)
    decades: Mapping[int, int] = field(default_factory=dict)
    points: tuple[tuple[float, float], ...] = field(default=(), compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain data."""
        counted = {
            name: {str(k): v for k, v in sorted(getattr(self, name).items())}
            for name in ("histogram", "decades")
        }
        data = {**asdict(replace(self, points=())), **counted}
        del data["points"]
        return data

    def words(self) -> str:
        """Return the outcome in words: exact, within so many steps, or different."""
        if self.verdict is Verdict.EQUAL:
            return "exact"
        where = f"at {self.differing} of {self.count}"
        if self.max_lsb is not None and np.isfinite(self.max_lsb):
            if self.max_lsb < _NEGLIGIBLE_STEPS:
                return f"less than {_NEGLIGIBLE_STEPS} LSB apart {where}"
            # As many steps as it takes: 0.99999994 of a step is one.
            return f"within {np.ceil(self.max_lsb - 1e-6):.0f} LSB {where}"
        return f"differs {where}, by {self.max_abs:.6g} at most"


def summarize(found: Tally, name: str, other: str, step: Array | None) -> TensorComparison:
    """Return the comparison that a tally adds up to."""
    worst = found.worst
    max_abs = 0.0 if worst is None else worst.size
    spread = found.magnitude
    verdict = Verdict.DIFFERENT if found.beyond else Verdict.WITHIN
    if found.differing == 0:
        verdict = Verdict.EQUAL
    return TensorComparison(
        name=name,
        other=other,
        shape=found.shape,
        count=found.count,
        differing=found.differing,
        max_abs=max_abs,
        max_rel=max_abs / spread if spread else (0.0 if max_abs == 0 else np.inf),
        step=None if step is None else float(np.max(step)),
        max_lsb=found.lsb,
        verdict=verdict,
        where=None if worst is None else worst.where,
        values=None if worst is None else worst.values,
        beyond=found.beyond,
        required_rtol=found.relative,
        histogram=found.histogram,
        decades=found.decades,
        points=tuple((x, y) for _, x, y in found.points),
    )


def aligned(a: Array | None, b: Array | None) -> Array | None:
    """Return ``b`` in the shape of ``a``, or ``None`` where they hold different things.

    Channels-last values are transposed to channels-first and back, and axes of length one are
    added or dropped, as far as the shapes alone say so.
    """
    # A sequence or a missing optional value is no array.
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        return None
    if a.shape == b.shape:
        return b
    if a.ndim == b.ndim and a.ndim > 2:
        for perm in (to_first(a.ndim), to_last(a.ndim)):
            transposed = np.transpose(b, perm)
            if transposed.shape == a.shape:
                return transposed
    if [n for n in a.shape if n != 1] == [n for n in b.shape if n != 1]:
        return b.reshape(a.shape)
    return None
