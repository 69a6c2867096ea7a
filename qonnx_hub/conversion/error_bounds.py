"""Whether a form that is not exact keeps what its exporter promised, quantizer by quantizer.

A value that one quantizer carries over a tie can change everything behind it, so that outputs
alone tell nothing of a single step. Here every quantizer gets given values before it, the same
in the source and in the file, and what they make of them is compared by itself: once with the
source's own values, for which every difference must lie within the promised distance of a tie,
and once with integers that are all equally likely, for which the predicted shares hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from onnx_ir import Model, Node

from qonnx_hub.equivalence.comparison.compare import differs, distances, in_steps
from qonnx_hub.equivalence.graph_slices import GraphSlice
from qonnx_hub.equivalence.inputs.batches import batch_length, cut_feeds
from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.protocol import Artifact, Bound, CodesOf, Feeds, QuantizerRecord
from qonnx_hub_ir import dialect
from qonnx_hub_ir.analysis.float_error import reordering_error
from qonnx_hub_ir.facts import facts_of, fixed_batch
from qonnx_hub_ir.quantizers import (
    Array,
    BipolarQuant,
    IntQuant,
    Rounding,
    changed_fields,
    is_bipolar,
)

_MOST_RUNS = 16
"""Runs of the file's own batch, or of as many samples where it leaves that open."""

_SAMPLES = 64

_MARGIN = 6.0
"""Deviations of a count that chance explains."""

_FEW = 8
"""Values beyond a prediction that are no evidence: sums repeat, and differ together."""

_UNKNOWN_SHARE = 0.01
"""Share allowed where none was predicted: values next to a tie are fewer."""

_TIES_AT_HALVES = frozenset({Rounding.ROUND, Rounding.HALF_UP, Rounding.HALF_DOWN})
"""Modes whose levels meet half-way between whole numbers; the others' meet at them."""

_FLOATS_BESIDE = 4.0
"""Distance from a tie, in spacings of float32, that counts as on it."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a quantizer of the file made of values that the source's quantizer got as well.

    Attributes:
        record: What became of the quantizer.
        count: Values compared.
        differing: Values that differ.
        steps: Largest difference in steps.
        off_tie: Values that differ further from a tie than promised.
        even: Values compared whose integers before them were all equally likely.
        differing_even: Those of them that differ.
    """

    record: QuantizerRecord
    count: int = 0
    differing: int = 0
    steps: float = 0.0
    off_tie: int = 0
    even: int = 0
    differing_even: int = 0

    @property
    def bound(self) -> Bound:
        """What was promised; nothing may differ in an exact form."""
        return self.record.bound or Bound(steps=0, share=0.0, near=0.0)

    def problem(self) -> str:
        """Return what was promised and broken, empty where nothing was."""
        found = (
            f"quantizer '{self.record.node}' differs at {self.differing} of {self.count} "
            f"values, by {self.steps:g} steps at most"
        )
        if self.bound.steps == 0 and self.differing_even:
            found += f" (at {self.differing_even} of {self.even} for evenly spread integers)"
        if self.bound.steps == 0:
            differs = self.differing or self.differing_even
            return f"{found}, although its form is exact" if differs else ""
        if self.steps > self.bound.steps * (1 + 1e-6):
            return f"{found}, where {self.bound.steps} at most were predicted"
        if self.off_tie:
            return f"{found}, {self.off_tie} of them further from a tie than was predicted"
        share = self.bound.share
        if share is not None and self.differing_even > _by_chance(self.even * share):
            return (
                f"quantizer '{self.record.node}' differs at {self.differing_even} of "
                f"{self.even} values for evenly spread integers, where a share of {share:.1g} "
                "was predicted"
            )
        return ""


def _by_chance(expected: float) -> float:
    """Return how many values may differ where so many are expected to."""
    return expected + _MARGIN * math.sqrt(expected) + _FEW


@dataclass(frozen=True, slots=True)
class _FloatOutput:
    """How an output without a quantizer of its own compares, in floats.

    Attributes:
        name: The output.
        count: Values compared.
        beyond: Values further apart than float rounding explains.
    """

    name: str
    count: int = 0
    beyond: int = 0

    def problem(self) -> str:
        """Return what is wrong with it, empty where nothing is."""
        if self.beyond <= _by_chance(self.count * _UNKNOWN_SHARE):
            return ""
        return (
            f"output '{self.name}' differs at {self.beyond} of {self.count} values by more "
            "than float rounding explains"
        )

    def added(self, reference: Array, ours: Array) -> _FloatOutput:
        """Return it with one more batch."""
        beyond = distances(reference, ours) > reordering_error([reference])
        found = int(np.count_nonzero(beyond))
        return _FloatOutput(self.name, self.count + int(ours.size), self.beyond + found)


@dataclass(frozen=True, slots=True)
class KeptBounds:
    """What was seen of a form that is not exact.

    Attributes:
        broken: Every promise of its exporter that a file breaks, in words.
        measured: How many values the near quantizers made otherwise, in words.
    """

    broken: tuple[str, ...]
    measured: str


def observe_bounds(
    model: Model, artifact: Artifact, written: Model, feeds: Feeds
) -> KeptBounds:
    """Return whether a file keeps the promises of its exporter, and what was measured.

    Args:
        model: The source.
        artifact: What the exporter made.
        written: Its model, read as it stands.
        feeds: Inputs of the source; a part of them is used.
    """
    pairs = _pairs(model, artifact, written)
    paired = [pair.output for pair in pairs.values()]
    seen = {name: Observation(pair.record) for name, pair in pairs.items()}
    ends = zip(model.graph.outputs, written.graph.outputs, strict=True)
    floats = {
        str(theirs.name): _FloatOutput(str(ours.name))
        for ours, theirs in ends
        if str(ours.name) not in pairs and str(theirs.name) not in paired
    }
    file = GraphSlice(written, paired, [*paired, *floats], keep_shapes=True)
    reference = Session(model)
    spread = any(pair.bound.share is not None for pair in pairs.values())
    twins = _twins(model, pairs) if spread else {}
    known = {*pairs, *twins}
    source = GraphSlice(model, known, list(pairs), keep_shapes=True) if spread else None
    rng = np.random.default_rng(0)
    length = fixed_batch(model) or min(_SAMPLES, batch_length(model))
    for batch in cut_feeds(feeds, length, _MOST_RUNS):
        values = reference.run(batch, all_tensors=True)
        own = {pair.output: pair.integers(values[name]) for name, pair in pairs.items()}
        made = file.run(own, batch)
        for name, pair in pairs.items():
            seen[name] = _added(seen[name], pair, own[pair.output], made[pair.output], values)
        for name, one in floats.items():
            floats[name] = one.added(values[one.name], made[name])
        if source is None:
            continue
        # The same with integers that are all equally likely.
        given, stored = {}, {}
        for name, pair in pairs.items():
            given[name] = stored[pair.output] = values[name]
            if pair.codes is not None:
                low, high = pair.codes.low, pair.codes.high
                drawn = rng.integers(low, high + 1, values[name].shape)
                given[name], stored[pair.output] = pair.values(drawn), pair.stored(drawn)
        given |= {twin: given[name] for twin, name in twins.items()}
        expected, made = source.run(given, batch), file.run(stored, batch)
        for name, pair in pairs.items():
            whole = pair.integers(expected[name])
            differing = int(np.count_nonzero(whole != made[pair.output]))
            seen[name] = replace(
                seen[name],
                even=seen[name].even + whole.size,
                differing_even=seen[name].differing_even + differing,
            )
    problems = [one.problem() for one in seen.values()]
    problems += [one.problem() for one in floats.values()]
    broken = tuple(problem for problem in problems if problem)
    return KeptBounds(
        broken, _measured([one for one in seen.values() if not one.record.exact])
    )


def _measured(near: list[Observation]) -> str:
    """Return the share of values that near quantizers make otherwise, given equal inputs."""
    differing, count = sum(one.differing for one in near), sum(one.count for one in near)
    if not count:
        return ""
    share = (
        f"{differing} of {count} values of near quantizers differ ({differing / count:.2g})"
    )
    worst = max(near, key=lambda one: one.differing / max(one.count, 1))
    if not worst.differing or len(near) == 1:
        return share
    return f"{share}, most of '{worst.record.node}': {worst.differing} of {worst.count}"


@dataclass(frozen=True, slots=True)
class _Pair:
    """A quantizer of the source and the value of the file that it stands for.

    Attributes:
        record: What became of it.
        node: The quantizer.
        quant: What it does; it has a known scale.
        output: Name of the value in the file.
        codes: Where the file's value is of integers, which these are.
        dtype: Type of the file's value.
    """

    record: QuantizerRecord
    node: Node
    quant: IntQuant | BipolarQuant
    output: str
    codes: CodesOf | None
    dtype: np.dtype[np.generic]

    @property
    def bound(self) -> Bound:
        """What was promised of it."""
        return Observation(self.record).bound

    @property
    def scale(self) -> Array:
        """Its scale, which is one number where the file's value is of integers."""
        assert self.quant.scale is not None, "only quantizers of known scale are compared"
        scale = self.quant.scale.astype(np.float32)
        return scale if self.codes is None else scale.reshape(-1)[0]

    def integers(self, values: Array) -> Array:
        """Return values of the source as the file holds them."""
        if self.codes is None:
            return values.astype(self.dtype)
        return self.stored(np.rint(values / self.scale) + self.codes.zero)

    def stored(self, whole: Array) -> Array:
        """Return integers in the type of the file's value."""
        return np.asarray(whole).astype(self.dtype)

    def values(self, whole: Array) -> Array:
        """Return the float32 values that integers of the file stand for."""
        zero = 0 if self.codes is None else self.codes.zero
        return np.asarray((whole - zero).astype(np.float32) * self.scale)


def _pairs(model: Model, artifact: Artifact, written: Model) -> dict[str, _Pair]:
    """Return the pairs by the name of the source's value; none of them is constant."""
    records = {record.node: record for record in artifact.quantizers}
    values = facts_of(written).values
    pairs: dict[str, _Pair] = {}
    taken: set[str] = set()
    for node in model.graph:
        record = records.get(node.name or "")
        if record is None or not dialect.is_quantizer(node):
            continue
        if not record.exact and record.bound is None:
            continue
        quant, name = dialect.read_quantizer(node), str(node.outputs[0].name)
        codes = artifact.codes.get(name)
        target = name if codes is None else codes.value
        value = values.get(target)
        if not isinstance(quant, (IntQuant, BipolarQuant)) or quant.scale is None:
            continue
        if value is None or value.dtype is None or value.shape is None or target in taken:
            continue
        if dialect.constant_tensor(node.inputs[0]) is None:
            taken.add(target)
            dtype = np.dtype(value.dtype.numpy())
            pairs[name] = _Pair(record, node, quant, target, codes, dtype)
    return pairs


def _twins(model: Model, pairs: Mapping[str, _Pair]) -> dict[str, str]:
    """Return quantizers that do again what a paired one does: their values by the other's.

    A file has the integers of both once.
    """
    found: dict[str, str] = {}
    for name, pair in pairs.items():
        x = pair.node.inputs[0]
        for node in () if x is None else x.consumers():
            twin = str(node.outputs[0].name)
            if twin in pairs or not dialect.is_quantizer(node) or node.inputs[0] is not x:
                continue
            other = dialect.read_quantizer(node)
            if type(other) is type(pair.quant) and not changed_fields(pair.quant, other):
                found[twin] = name
    return found


def _added(
    seen: Observation, pair: _Pair, reference: Array, ours: Array, values: Feeds
) -> Observation:
    differing = differs(reference, ours)
    count = int(np.count_nonzero(differing))
    steps, off_tie = seen.steps, seen.off_tie
    if count:
        distance = distances(reference, ours)
        if pair.codes is None:
            distance = in_steps(distance, pair.scale, reference)
        steps = max(steps, float(distance[differing].max()))
        if pair.bound.near is not None:
            near = _is_near(pair, pair.bound.near, values)
            off_tie += int(np.count_nonzero(differing & ~near))
    return replace(
        seen,
        count=seen.count + int(ours.size),
        differing=seen.differing + count,
        steps=steps,
        off_tie=off_tie,
    )


def _is_near(pair: _Pair, near: float, values: Feeds) -> Array:
    """Return where the source's quantizer met a value so near to a tie, in steps."""
    x, quant = pair.node.inputs[0], pair.quant
    assert x is not None, "a quantizer has an input"
    quotient = values[str(x.name)].astype(np.float64) / pair.scale.astype(np.float64)
    zero = quant.zero_point if isinstance(quant, IntQuant) else None
    offset = np.zeros((), dtype=np.float64) if zero is None else zero.astype(np.float64)
    late = isinstance(quant, IntQuant) and quant.zero_point_after_rounding
    t = quotient if late else quotient + offset
    if is_bipolar(quant):
        distance = np.abs(t)
    elif isinstance(quant, IntQuant) and quant.rounding in _TIES_AT_HALVES:
        distance = np.abs(np.abs(t) % 1 - 0.5)
    else:
        distance = np.abs(t - np.rint(t))
    size = np.maximum(np.maximum(np.abs(quotient), np.abs(offset)), 1).astype(np.float32)
    return np.asarray(distance <= near + _FLOATS_BESIDE * np.spacing(size))
