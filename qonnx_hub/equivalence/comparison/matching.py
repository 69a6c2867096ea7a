"""Which tensor of one side stands for which tensor of the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qonnx_hub.equivalence.comparison.compare import aligned
from qonnx_hub.equivalence.inputs.batches import SampleBatch
from qonnx_hub.equivalence.runners.recorded import RecordedRunner
from qonnx_hub.equivalence.runners.sides import Runner, for_side
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.facts import facts_of
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
        notes: What could not be paired.
    """

    outputs: tuple[Pair, ...]
    layers: tuple[Pair, ...] = ()
    notes: tuple[str, ...] = ()


def match_tensors(
    a: Runner, b: Runner, *, layers: bool, mapping: Mapping[str, str] | None = None
) -> Pairs:
    """Return what is to be compared with what.

    Outputs are matched by the mapping, by name, by source layer, and, where both sides have
    the same number, by position. Inner values are matched by the mapping and by source layer.

    Args:
        a: The reference side.
        b: The other side.
        layers: Match inner values too.
        mapping: Tensor or layer of ``a`` -> tensor of ``b``.

    Raises:
        UsageError: Nothing can be matched, or the mapping names what is not there.
    """
    given = dict(mapping or {})
    for side, names in ((a, given.keys()), (b, given.values())):
        known = {*side.output_names, *side.inner_names(), *_sources(side)}
        for name in names:
            if name not in known:
                raise UsageError(
                    f"the mapping names '{name}', which {side.label} does not have"
                )
    inner = _match_layers(a, b, given) if layers else ()
    outputs, notes = _match_outputs(a, b, given, inner)
    if not outputs:
        shown, more = ", ".join(b.output_names[:8]), len(b.output_names) - 8
        shown += f", and {more} more" if more > 0 else ""
        raise UsageError(
            f"no output of {a.label} ({', '.join(a.output_names)}) has a counterpart in "
            f"{b.label} ({shown}): nothing would be compared; give a mapping of names"
        )
    named = {(pair.a, pair.b) for pair in outputs}
    layers_left = tuple(pair for pair in inner if (pair.a, pair.b) not in named)
    return Pairs(outputs, layers_left, notes)


def _sources(side: Runner) -> dict[str, list[str]]:
    """Return source layer -> names of inner values that the side can show."""
    shown = set(side.inner_names())
    if side.model is None:
        return {name: [name] for name in side.inner_names()}
    found = facts_of(side.model).layers
    kept = {source: [n for n in names if n in shown] for source, names in found.items()}
    return {source: names for source, names in kept.items() if names}


def _match_outputs(
    a: Runner, b: Runner, mapping: Mapping[str, str], inner: tuple[Pair, ...]
) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    if isinstance(a, RecordedRunner):
        # A record does not say which of its tensors are outputs; the model beside it does.
        inverse = {other: name for name, other in mapping.items()}
        found, notes = _match_outputs(b, a, inverse, ())
        return tuple(Pair(p.source, p.b, p.a) for p in found), notes
    sources_a, sources_b = _source_of_outputs(a), _source_of_outputs(b)
    by_source = {source: name for name, source in sources_b.items()}
    pairs: list[Pair] = []
    for name, source in sources_a.items():
        by_name = name if name in sources_b else by_source.get(source)
        other = mapping.get(name) or mapping.get(source) or by_name
        if other is not None and other in sources_b:
            pairs.append(Pair(source, name, other))
    unmatched = sources_a.keys() - {pair.a for pair in pairs}
    if not unmatched:
        return tuple(pairs), ()
    if not pairs and isinstance(b, RecordedRunner):
        if inner:
            return inner, ("no output was recorded: the verdict is that of the inner tensors",)
    elif not pairs and len(sources_a) == len(sources_b):
        # Other names altogether: outputs have an order.
        both = zip(sources_a.items(), sources_b, strict=True)
        return tuple(Pair(source, x, y) for (x, source), y in both), ()
    left = ", ".join(name for name in sources_a if name in unmatched)
    return tuple(pairs), (f"not compared: output {left} has no counterpart",)


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
