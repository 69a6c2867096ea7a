"""Which tensor of one side stands for which tensor of the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qonnx_hub.equivalence.runners.recorded import RecordedRunner
from qonnx_hub.equivalence.runners.sides import Runner
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.facts import facts_of


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
    _require_known(given, a, b)
    inner = _match_layers(a, b, given) if layers else ()
    outputs, notes = _match_outputs(a, b, given, inner)
    if not outputs:
        raise UsageError(
            f"no output of {a.label} ({', '.join(a.output_names)}) has a counterpart in "
            f"{b.label} ({_listed(b.output_names)}): nothing would be compared; give a "
            f"mapping of names"
        )
    named = {(pair.a, pair.b) for pair in outputs}
    layers_left = tuple(pair for pair in inner if (pair.a, pair.b) not in named)
    return Pairs(outputs, layers_left, notes)


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:8])
    return f"{shown}, and {len(names) - 8} more" if len(names) > 8 else shown


def _require_known(mapping: Mapping[str, str], a: Runner, b: Runner) -> None:
    names_a = {*a.output_names, *a.inner_names(), *_sources(a)}
    names_b = {*b.output_names, *b.inner_names(), *_sources(b)}
    for name, other in mapping.items():
        if name not in names_a:
            raise UsageError(f"the mapping names '{name}', which {a.label} does not have")
        if other not in names_b:
            raise UsageError(f"the mapping names '{other}', which {b.label} does not have")


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
    names_a, names_b = a.output_names, b.output_names
    if isinstance(a, RecordedRunner):
        # A record does not say which of its tensors are outputs; the model beside it does.
        turned = {other: name for name, other in mapping.items()}
        found, notes = _match_outputs(b, a, turned, ())
        return tuple(Pair(p.source, p.b, p.a) for p in found), notes
    known_a, known_b = _source_of_outputs(a), _source_of_outputs(b)
    by_source = {source: name for name, source in known_b.items()}
    pairs: list[Pair] = []
    for name in names_a:
        source = known_a.get(name, name)
        other = mapping.get(name) or mapping.get(source)
        if other is None and name in names_b:
            other = name
        other = other or by_source.get(source)
        if other in names_b:
            pairs.append(Pair(source, name, str(other)))
    if len(pairs) == len(names_a):
        return tuple(pairs), ()
    is_record = isinstance(b, RecordedRunner)
    if not pairs and len(names_a) == len(names_b) and not is_record:
        # Other names altogether: outputs have an order.
        both = zip(names_a, names_b, strict=True)
        return tuple(Pair(known_a.get(x, x), x, y) for x, y in both), ()
    if not pairs and is_record and inner:
        return inner, ("no output was recorded: the verdict is that of the inner tensors",)
    left = [n for n in names_a if n not in {p.a for p in pairs}]
    note = f"not compared, for want of a counterpart: output {', '.join(left)}"
    return tuple(pairs), (note,)


def _source_of_outputs(side: Runner) -> dict[str, str]:
    if side.model is None:
        return {name: name for name in side.output_names}
    found = {n: source for source, names in facts_of(side.model).layers.items() for n in names}
    return {name: found.get(name, name) for name in side.output_names}


def _match_layers(a: Runner, b: Runner, mapping: Mapping[str, str]) -> tuple[Pair, ...]:
    if a.model is None and b.model is None:
        return ()
    if a.model is None:
        turned = {other: name for name, other in mapping.items()}
        found = _match_layers(b, a, turned)
        return tuple(Pair(p.source, p.b, p.a, p.constant) for p in found)
    sources_a, sources_b = _sources(a), _sources(b)
    pairs: list[Pair] = []
    for source, names in sources_a.items():
        others = sources_b.get(source) or _recorded_names(b, names)
        mapped = mapping.get(source) or next((mapping[n] for n in names if n in mapping), None)
        if mapped is not None:
            others = sources_b.get(mapped, [mapped])
        if not others:
            continue
        # A layer of several values ends with the one that its readers see.
        same = len(names) == len(others)
        matched = zip(names, others, strict=True) if same else [(names[-1], others[-1])]
        pairs += [Pair(source, x, y) for x, y in matched]
    return _in_order(pairs, a, b)


def _recorded_names(side: Runner, names: list[str]) -> list[str]:
    if side.model is not None:
        return []
    known = set(side.inner_names())
    return [name for name in names if name in known]


def _in_order(pairs: list[Pair], a: Runner, b: Runner) -> tuple[Pair, ...]:
    if a.model is None:
        return tuple(pairs)
    facts = facts_of(a.model)
    order = {name: k for k, name in enumerate(facts.values)}
    moving = facts.dynamic
    moving_b = frozenset[str]() if b.model is None else facts_of(b.model).dynamic
    marked = [Pair(p.source, p.a, p.b, p.a not in moving) for p in pairs]
    if b.model is not None:
        marked = [p for p in marked if (p.b not in moving_b) == p.constant]
    else:
        marked = [p for p in marked if not p.constant]
    return tuple(sorted(marked, key=lambda p: order.get(p.a, 0)))
