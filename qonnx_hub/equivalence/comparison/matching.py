"""Which tensor of one side stands for which tensor of the other."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from qonnx_hub.equivalence.comparison.compare import aligned
from qonnx_hub.equivalence.inputs.batches import SampleBatch
from qonnx_hub.equivalence.runners.recorded import RecordedRunner
from qonnx_hub.equivalence.runners.sides import Runner, for_side
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.facts import facts_of
from qonnx_hub_ir.graph.queries import dims
from qonnx_hub_ir.quantizers import Array


@dataclass(frozen=True, slots=True)
class Pair:
    """Two tensors that stand for the same thing.

    Attributes:
        source: Name of the source layer.
        a: Name in the reference side.
        b: Name in the other side.
        constant: Whether both are the same for all inputs.
    """

    source: str
    a: str
    b: str
    constant: bool = False


@dataclass(frozen=True, slots=True)
class Pairs:
    """All pairs of a check.

    Attributes:
        outputs: Pairs of outputs, in the order of the reference.
        layers: Pairs of inner values, in the order in which the reference computes them.
        notes: What was paired otherwise than by names.
        left_out: Outputs of either side that have no counterpart and were not waived.
    """

    outputs: tuple[Pair, ...]
    layers: tuple[Pair, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def match_tensors(
    a: Runner,
    b: Runner,
    *,
    layers: bool,
    mapping: Mapping[str, str] | None = None,
    ignored: Collection[str] = (),
) -> Pairs:
    """Return what is to be compared with what.

    Outputs are matched by the mapping, by name, by source layer, and, where one is left on
    each side or no name fits, by position. Inner values are matched by the mapping and by
    source layer.

    Args:
        a: The reference side.
        b: The other side.
        layers: Match inner values too.
        mapping: Tensor or layer of ``a`` -> tensor of ``b``.
        ignored: Outputs of either side that need no counterpart, and are not compared.

    Raises:
        UsageError: Nothing can be matched, or a name given is not there.
    """
    given = dict(mapping or {})
    for side, names in ((a, given.keys()), (b, given.values())):
        known = {*side.output_names, *side.inner_names(), *_sources(side)}
        for name in names:
            if name not in known:
                raise UsageError(
                    f"the mapping names '{name}', which {side.label} does not have"
                )
    for name in ignored:
        if name not in {*a.output_names, *b.output_names}:
            raise UsageError(f"'{name}' cannot be ignored: neither side has such an output")
    inner = _match_layers(a, b, given)
    found = _match_outputs(a, b, given, inner, ignored)
    named = {(pair.a, pair.b) for pair in found.outputs}
    rest = tuple(pair for pair in inner if layers and (pair.a, pair.b) not in named)
    return replace(found, layers=rest)


def _sources(side: Runner) -> dict[str, list[str]]:
    """Return source layer -> names of inner values that the side can show."""
    shown = set(side.inner_names())
    if side.model is None:
        return {name: [name] for name in side.inner_names()}
    found = facts_of(side.model).layers
    kept = {source: [n for n in names if n in shown] for source, names in found.items()}
    return {source: names for source, names in kept.items() if names}


def _match_outputs(
    a: Runner,
    b: Runner,
    mapping: Mapping[str, str],
    inner: tuple[Pair, ...],
    ignored: Collection[str],
) -> Pairs:
    if isinstance(a, RecordedRunner) and not isinstance(b, RecordedRunner):
        # A record does not say which of its tensors are outputs; the model beside it does.
        inverse = {other: name for name, other in mapping.items()}
        turned = tuple(Pair(p.source, p.b, p.a, p.constant) for p in inner)
        found = _match_outputs(b, a, inverse, turned, ignored)
        return replace(found, outputs=tuple(Pair(p.source, p.b, p.a) for p in found.outputs))
    sources_a, sources_b = _source_of_outputs(a), _source_of_outputs(b)
    by_source = {source: name for name, source in sources_b.items()}
    pairs: list[Pair] = []
    for name, source in sources_a.items():
        by_name = name if name in sources_b else by_source.get(source)
        other = mapping.get(name) or mapping.get(source) or by_name
        if other is not None and other in sources_b and not {name, other} & {*ignored}:
            pairs.append(Pair(source, name, other))
    left_a, left_b = _left_over(a, b, pairs, inner, ignored)
    by_place = _pairs_by_place(a, b, left_a, left_b, any_shape=not pairs)
    if by_place:
        pairs += (replace(pair, source=sources_a[pair.a]) for pair in by_place)
        pairs.sort(key=lambda pair: list(sources_a).index(pair.a))
        names = ", ".join(f"'{p.a}' with '{p.b}'" for p in by_place)
        return Pairs(tuple(pairs), notes=(f"outputs paired by position: {names}",))
    if not pairs and inner and isinstance(b, RecordedRunner):
        words = "no output was recorded: the verdict is that of the inner tensors"
        return Pairs(inner, notes=(words,), left_out=_without_partner(a, left_a, b))
    if not pairs:
        raise _nothing_matched(a, b)
    left_out = (*_without_partner(a, left_a, b), *_without_partner(b, left_b, a))
    return Pairs(tuple(pairs), left_out=left_out)


def _left_over(
    a: Runner,
    b: Runner,
    pairs: Sequence[Pair],
    inner: Sequence[Pair],
    ignored: Collection[str],
) -> tuple[list[str], list[str]]:
    """Return the outputs of both sides that have no counterpart yet."""
    taken_a = {*ignored, *(pair.a for pair in pairs)}
    taken_b = {*ignored, *(pair.b for pair in pairs)}
    if isinstance(b, RecordedRunner):
        # Inputs and inner values may have been recorded as well.
        known = () if a.model is None else facts_of(a.model).values
        taken_b |= {pair.b for pair in inner} | {*known, *(a.input_names or ())}
    return (
        [name for name in a.output_names if name not in taken_a],
        [name for name in b.output_names if name not in taken_b],
    )


def _pairs_by_place(
    a: Runner, b: Runner, left_a: Sequence[str], left_b: Sequence[str], *, any_shape: bool
) -> list[Pair]:
    """Return pairs of what is left: one on each side, or all where no name fits at all."""
    if len(left_a) != len(left_b) or not (any_shape or len(left_a) == 1):
        return []
    found = [Pair(x, x, y) for x, y in zip(left_a, left_b, strict=True)]
    records = isinstance(a, RecordedRunner) or isinstance(b, RecordedRunner)
    if records or not any_shape:
        return found if all(_may_be_alike(a, b, pair) for pair in found) else []
    return found


def _may_be_alike(a: Runner, b: Runner, pair: Pair) -> bool:
    """Return whether both have one shape, the first axis and open sizes aside."""
    x, y = _shape_of(a, pair.a), _shape_of(b, pair.b)
    if x is None or y is None or len(x) != len(y):
        return False
    return all(
        one == other or not (isinstance(one, int) and isinstance(other, int))
        for one, other in zip(x[1:], y[1:], strict=True)
    )


def _shape_of(side: Runner, name: str) -> tuple[int | str | None, ...] | None:
    if isinstance(side, RecordedRunner):
        return side.arrays[name].shape
    value = None if side.model is None else facts_of(side.model).values.get(name)
    return None if value is None else dims(value)


def _without_partner(side: Runner, names: Sequence[str], other: Runner) -> tuple[str, ...]:
    return tuple(
        f"output '{name}' of {side.label} has no counterpart in {other.label}: name one with "
        "--map, or waive it with --ignore-output"
        for name in names
    )


def _nothing_matched(a: Runner, b: Runner) -> UsageError:
    shown, more = ", ".join(b.output_names[:8]), len(b.output_names) - 8
    shown += f", and {more} more" if more > 0 else ""
    return UsageError(
        f"no output of {a.label} ({', '.join(a.output_names)}) has a counterpart in "
        f"{b.label} ({shown}): nothing would be compared; give a mapping of names"
    )


def _source_of_outputs(side: Runner) -> dict[str, str]:
    if side.model is None:
        return {name: name for name in side.output_names}
    found = {n: source for source, names in facts_of(side.model).layers.items() for n in names}
    return {name: found.get(name, name) for name in side.output_names}


def _match_layers(a: Runner, b: Runner, mapping: Mapping[str, str]) -> tuple[Pair, ...]:
    if a.model is None and b.model is None:
        return ()
    if a.model is None:
        inverse = {other: name for name, other in mapping.items()}
        found = _match_layers(b, a, inverse)
        return tuple(Pair(p.source, p.b, p.a, p.constant) for p in found)
    sources_a, sources_b = _sources(a), _sources(b)
    recorded = set(b.inner_names()) if b.model is None else set()
    pairs: list[tuple[str, str, str]] = []
    for source, names in sources_a.items():
        others = sources_b.get(source) or [name for name in names if name in recorded]
        mapped = mapping.get(source) or next((mapping[n] for n in names if n in mapping), None)
        if mapped is not None:
            others = sources_b.get(mapped, [mapped])
        if len(names) == len(others):
            pairs += [(source, x, y) for x, y in zip(names, others, strict=True)]
        elif others:
            # A layer of several values ends with the one that its readers see.
            pairs.append((source, names[-1], others[-1]))
    facts = facts_of(a.model)
    dynamic_b = None if b.model is None else facts_of(b.model).dynamic
    order = {name: k for k, name in enumerate(facts.values)}
    marked: list[Pair] = []
    for source, x, y in sorted(pairs, key=lambda pair: order.get(pair[1], 0)):
        constant = x not in facts.dynamic
        if constant == (dynamic_b is not None and y not in dynamic_b):
            marked.append(Pair(source, x, y, constant))
    return tuple(marked)


def answer_pair(
    a: Runner, b: Runner, pair: Pair, batch: SampleBatch
) -> tuple[Array, Array | None]:
    """Return both sides' values for a pair, the second in the first's shape.

    The second is ``None`` where the two hold different things.
    """
    x = a.answer(batch, [pair.a])[pair.a]
    return x, aligned(x, b.answer(for_side(batch, b), [pair.b])[pair.b])
