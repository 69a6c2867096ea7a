"""Whether a form that is not exact keeps what its exporter promised, quantizer by quantizer.

A value that one quantizer carries over a tie can change everything behind it, so that outputs
alone tell nothing of a single step. Here every quantizer gets given values before it, the same
in the source and in the file, and what they make of them is compared by itself: once with the
source's own values, for which every difference must lie within the promised distance of a tie,
and once with integers that are all equally likely, for which the predicted shares hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub.equivalence.inputs.batches import batch_length
from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.protocol import Artifact, Bound, CodesOf, QuantizerRecord
from qonnx_hub_ir import dialect
from qonnx_hub_ir.quantizers import Array, BipolarQuant, IntQuant, Rounding, is_bipolar

Feeds = Mapping[str, Array]

_MOST_RUNS = 16
"""Runs of the file's own batch, or of as many samples where it leaves that open."""

_SAMPLES = 64

_MARGIN = 6.0
"""Deviations of a count that chance explains."""

_FEW = 8
"""Values beyond a prediction that are no evidence: sums repeat, and differ together."""

_UNKNOWN_SHARE = 0.01
"""Share allowed where none was predicted: values next to a tie are fewer."""

_ROUNDING = 1e-5
"""Difference relative to the largest value that another order of float32 sums explains."""

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
        astray: Values that differ further from a tie than promised.
        even: Values compared whose integers before them were all equally likely.
        differing_even: Those of them that differ.
    """

    record: QuantizerRecord
    count: int = 0
    differing: int = 0
    steps: float = 0.0
    astray: int = 0
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
        if self.astray:
            return f"{found}, {self.astray} of them further from a tie than was predicted"
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
class _Floats:
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

    def added(self, reference: Array, ours: Array) -> _Floats:
        """Return it with one more batch."""
        finite = np.abs(reference[np.isfinite(reference)]).astype(np.float64)
        limit = _ROUNDING * float(finite.max(initial=0.0))
        with np.errstate(invalid="ignore"):
            apart = np.abs(reference.astype(np.float64) - ours) > limit
        apart |= np.isnan(reference) != np.isnan(ours)
        beyond = self.beyond + int(np.count_nonzero(apart & (reference != ours)))
        return _Floats(self.name, self.count + int(ours.size), beyond)


def broken_bounds(model: Model, artifact: Artifact, written: Model, feeds: Feeds) -> list[str]:
    """Return every promise of an exporter that a file breaks, in words.

    Args:
        model: The source.
        artifact: What the exporter made.
        written: Its model, read as it stands.
        feeds: Inputs of the source; a part of them is used.
    """
    pairs = _pairs(model, artifact, written)
    seen = {name: Observation(pair.record) for name, pair in pairs.items()}
    floats = _float_outputs(model, written, pairs)
    ours = {pair.output: pair.input for pair in pairs.values()}
    file = Session(_forced(written, ours))
    reference = Session(model)
    for batch in _batches(model, feeds):
        values = reference.run(batch, all_tensors=True)
        own = {pair.input: pair.integers(values[name]) for name, pair in pairs.items()}
        made = file.run({**batch, **own})
        for name, pair in pairs.items():
            seen[name] = _added(seen[name], pair, own[pair.input], made[pair.output], values)
        for name, one in floats.items():
            floats[name] = one.added(values[one.name], made[name])
    if any(pair.bound.share is not None for pair in pairs.values()):
        _spread_evenly(model, file, pairs, feeds, seen)
    found = [one.problem() for one in seen.values()]
    found += [one.problem() for one in floats.values()]
    return [problem for problem in found if problem]


def _drawn(rng: np.random.Generator, codes: CodesOf, shape: tuple[int, ...]) -> Array:
    return rng.integers(codes.low, codes.high + 1, shape)


def _spread_evenly(
    model: Model,
    file: Session,
    pairs: Mapping[str, _Pair],
    feeds: Feeds,
    seen: dict[str, Observation],
) -> None:
    """Add what both sides make of integers that are all equally likely."""
    source = Session(_forced(model, {name: pair.input for name, pair in pairs.items()}))
    rng, plain = np.random.default_rng(0), Session(model)
    for batch in _batches(model, feeds):
        shapes = plain.run(batch, all_tensors=True)
        drawn = {
            name: _drawn(rng, pair.codes, shapes[name].shape)
            for name, pair in pairs.items()
            if pair.codes is not None
        }
        floats = {pairs[name].input: pairs[name].values(x) for name, x in drawn.items()}
        whole = {pairs[name].input: pairs[name].stored(x) for name, x in drawn.items()}
        rest = {pair.input: shapes[name] for name, pair in pairs.items() if pair.codes is None}
        values = source.run({**batch, **floats, **rest})
        made = file.run({**batch, **whole, **rest})
        for name, pair in pairs.items():
            expected = pair.integers(values[name])
            differing = int(np.count_nonzero(expected != made[pair.output]))
            one = seen[name]
            seen[name] = replace(
                one,
                even=one.even + expected.size,
                differing_even=one.differing_even + differing,
            )


def _float_outputs(
    model: Model, written: Model, pairs: Mapping[str, _Pair]
) -> dict[str, _Floats]:
    """Return what is compared in floats, by its name in the file."""
    ends = zip(model.graph.outputs, written.graph.outputs, strict=True)
    paired = {pair.output for pair in pairs.values()}
    return {
        str(theirs.name): _Floats(str(ours.name))
        for ours, theirs in ends
        if str(ours.name) not in pairs and str(theirs.name) not in paired
    }


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
    def input(self) -> str:
        """Name of the input that stands in the value's place behind it."""
        return f"{self.output}_given"

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
    values = {str(v.name): v for node in written.graph for v in node.outputs}
    pairs: dict[str, _Pair] = {}
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
        known = isinstance(quant, (IntQuant, BipolarQuant)) and quant.scale is not None
        if not known or not isinstance(quant, (IntQuant, BipolarQuant)):
            continue
        if value is None or value.dtype is None or value.shape is None:
            continue
        if dialect.constant_tensor(node.inputs[0]) is not None:
            continue
        if target not in {pair.output for pair in pairs.values()}:
            dtype = np.dtype(value.dtype.numpy())
            pairs[name] = _Pair(record, node, quant, target, codes, dtype)
    return pairs


def _forced(model: Model, inputs: Mapping[str, str]) -> Model:
    """Return a copy in which given values stand behind quantizers.

    Args:
        model: The source or the file.
        inputs: Name of a value -> name of the input that its readers get instead. The value
            itself becomes an output.
    """
    copy = model.clone()
    values = {str(v.name): v for node in copy.graph for v in node.outputs}
    for name, given_name in inputs.items():
        value = values[name]
        given = Value(name=given_name, type=value.type, shape=value.shape)
        for usage in list(value.uses()):
            usage.node.replace_input_with(usage.idx, given)
        copy.graph.inputs.append(given)
        if not value.is_graph_output():
            copy.graph.outputs.append(value)
    return copy


def _batches(model: Model, feeds: Feeds) -> Iterator[dict[str, Array]]:
    sizes = {str(v.name): v.shape[0] for v in model.graph.inputs if v.shape and len(v.shape)}
    most = min(_SAMPLES, batch_length(model))
    steps = {name: s if isinstance(s, int) else most for name, s in sizes.items()}
    for run in range(_MOST_RUNS):
        batch = {
            name: feed[run * steps[name] : (run + 1) * steps[name]] if name in steps else feed
            for name, feed in feeds.items()
        }
        if any(part.size == 0 for part in batch.values()):
            return
        yield batch
        if not steps:
            return


def _added(
    seen: Observation, pair: _Pair, reference: Array, ours: Array, values: Feeds
) -> Observation:
    differs = reference != ours
    if reference.dtype.kind == "f":
        differs &= ~(np.isnan(reference) & np.isnan(ours))
    count = int(np.count_nonzero(differs))
    steps, astray = seen.steps, seen.astray
    if count:
        distance = np.abs(reference.astype(np.float64) - ours.astype(np.float64))
        if pair.codes is None:
            distance = distance / pair.scale.astype(np.float64)
        steps = max(steps, float(np.nan_to_num(distance[differs], nan=np.inf).max()))
        if pair.bound.near is not None:
            astray += int(np.count_nonzero(differs & ~_is_near(pair, pair.bound.near, values)))
    return replace(
        seen,
        count=seen.count + int(ours.size),
        differing=seen.differing + count,
        steps=steps,
        astray=astray,
    )


def _is_near(pair: _Pair, near: float, values: Feeds) -> Array:
    """Return where the source's quantizer met a value so near to a tie, in steps."""
    x, quant = pair.node.inputs[0], pair.quant
    assert x is not None, "a quantizer has an input"
    quotient = values[str(x.name)].astype(np.float64) / pair.scale.astype(np.float64)
    zero = quant.zero_point if isinstance(quant, IntQuant) else None
    offset = np.zeros((), dtype=np.float64) if zero is None else zero.astype(np.float64)
    t = quotient + offset
    if is_bipolar(quant):
        distance = np.abs(t)
    elif isinstance(quant, IntQuant) and quant.rounding in _TIES_AT_HALVES:
        distance = np.abs(np.abs(t) % 1 - 0.5)
    else:
        distance = np.abs(t - np.rint(t))
    size = np.maximum(np.maximum(np.abs(quotient), np.abs(offset)), 1).astype(np.float32)
    return np.asarray(distance <= near + _FLOATS_BESIDE * np.spacing(size))
