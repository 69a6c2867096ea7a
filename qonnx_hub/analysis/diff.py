"""Differences between two models: nodes, quantizers, attributes, weights. Nothing is run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from typing import Any, ClassVar

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub.equivalence.proof.value_numbering import defaults_of
from qonnx_hub.executor.explained import explained
from qonnx_hub.reporting.plain_data import plain
from qonnx_hub.reporting.report import Part, Report
from qonnx_hub_ir import dialect
from qonnx_hub_ir.analysis import Constant, infer_constants
from qonnx_hub_ir.describe import describe_number
from qonnx_hub_ir.graph.queries import attribute, producer, rank_of
from qonnx_hub_ir.quantizers import Rounding, changed_fields
from qonnx_hub_ir.validity import label

_COMMON_SHARE = 0.8
"""Share of common names from which on two graphs are taken for versions of one."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that differs.

    Attributes:
        a: The node or value in the first model; empty where there is none.
        b: The node or value in the second model.
        kind: "quantizer", "attribute", "weight", "operator", "wiring", "missing", "added",
            "input" or "output".
        field: The part that differs.
        before: Its value in the first model.
        after: Its value in the second.
    """

    a: str
    b: str
    kind: str
    field: str
    before: str
    after: str

    def __str__(self) -> str:
        """Return the change as one line."""
        where = self.a or self.b
        if self.kind in {"missing", "added"}:
            return f"{self.kind}: {where}"
        renamed = f" (there {self.b})" if self.b and self.b != self.a else ""
        return f"{where}{renamed}: {self.field}: {self.before} -> {self.after}"


@dataclass(frozen=True, slots=True)
class WeightChange:
    """How the weights of a layer differ.

    Attributes:
        name: Name of the weight in the first model.
        elements: How many there are.
        different: How many differ.
        largest: Largest difference, in the unit named.
        unit: "LSB" where both lie on one grid, steps of the first model's quantizer; else
            "value".
    """

    name: str
    elements: int
    different: int
    largest: float
    unit: str

    def __str__(self) -> str:
        """Return the change as one line."""
        unit = " LSB" if self.unit == "LSB" else ""
        return (
            f"{self.name}: {self.different} of {self.elements} weights differ, "
            f"by {self.largest:g}{unit} at most"
        )


@dataclass(frozen=True, slots=True, repr=False)
class Difference(Report):
    """The differences between two models.

    Attributes:
        a: The first model.
        b: The second.
        matched: How many nodes were matched with one another.
        by_position: How many of them by their place, where they share no name.
        changes: All that differs but the weights.
        weights: Weights that differ.
        notes: Differences that change no value.
    """

    schema: ClassVar[str] = "diff/1"
    heading: ClassVar[str] = "Differences of two graphs"

    a: str
    b: str
    matched: int
    by_position: int
    changes: tuple[Change, ...]
    weights: tuple[WeightChange, ...]
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Return whether anything differs."""
        return bool(self.changes or self.weights)

    def to_dict(self) -> dict[str, Any]:
        """Return the differences as plain data, fit for JSON."""
        data: dict[str, Any] = plain({"different": bool(self), **asdict(self)})
        return data

    def summary(self) -> str:
        """Return whether anything differs, and how many nodes were matched, in one line."""
        placed = f", {self.by_position} of them by place" if self.by_position else ""
        verdict = "different" if self else "no difference"
        return f"{verdict}; {self.matched} nodes matched{placed}"

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per change, weights last."""
        weights = ({"kind": "weight", **plain(one)} for one in self.weights)
        return [*map(plain, self.changes), *weights]

    def parts(self) -> Iterator[Part]:
        """Give the changes by kind, the weights, notes, and whether anything differs."""
        for kind, title in (
            ("input", "inputs"),
            ("output", "outputs"),
            ("missing", f"only in {self.a}"),
            ("added", f"only in {self.b}"),
            ("quantizer", "quantizers"),
            ("operator", "operators"),
            ("attribute", "attributes"),
            ("wiring", "wiring"),
        ):
            changes = [change for change in self.changes if change.kind == kind]
            if changes:
                yield f"{title}:"
                yield from (f"  {change}" for change in changes)
        if self.weights:
            yield "weights:"
            yield from (f"  {weight}" for weight in self.weights)
        yield from (f"note: {note}" for note in self.notes)
        yield self.summary()


def find_differences(a: Model, b: Model, name_a: str = "a", name_b: str = "b") -> Difference:
    """Return the differences between two IR models.

    Nodes are matched by the source layer that their values stand for, or by the name of what
    they make; what is left is matched by its place among the nodes of the same kind.

    Args:
        a: The first model; neither is changed.
        b: The second.
        name_a: Name of the first in the report.
        name_b: Name of the second.
    """
    with explained(a, name_a), explained(b, name_b):
        return _differences(a, b, name_a, name_b)


def _differences(a: Model, b: Model, name_a: str, name_b: str) -> Difference:
    pairs, by_position = _match(list(a.graph), list(b.graph))
    matched_a, matched_b = set(pairs), set(pairs.values())
    changes = [*_signature_changes(a, b)]
    changes += [_gone(node, "missing") for node in a.graph if node not in matched_a]
    changes += [_gone(node, "added") for node in b.graph if node not in matched_b]
    weights: list[WeightChange] = []
    notes: list[str] = []
    constants = _constants(a) | _constants(b)
    for one, other in pairs.items():
        is_quantizer = dialect.is_quantizer(one) and dialect.is_quantizer(other)
        changes += (_quantizer_changes if is_quantizer else _attribute_changes)(one, other)
        changes += _wiring_changes(one, other, pairs)
        _compare_weights(one, other, constants, weights, notes)
    return Difference(
        name_a, name_b, len(pairs), by_position, tuple(changes), tuple(weights), tuple(notes)
    )


def _match(a: Sequence[Node], b: Sequence[Node]) -> tuple[dict[Node, Node], int]:
    """Return first node -> second node, in the first's order, and how many match by place."""
    pairs: dict[Node, Node] = {}
    keys: list[Callable[[Node], str]] = [
        lambda n: _without_counters(n.outputs[0].metadata_props.get(dialect.PROVENANCE, "")),
        _first_constant,
        lambda n: _without_counters(_result(n)),
    ]
    names_a, names_b = ({_result(node) for node in nodes} for nodes in (a, b))
    # Where nearly all names are common, numbered names match as well.
    if len(names_a & names_b) >= _COMMON_SHARE * max(len(names_a), len(names_b), 1):
        keys.insert(0, _result)
    for key_of in keys:
        _match_by(key_of, a, b, pairs)
    named = len(pairs)
    partners = {second: first for first, second in pairs.items()}
    # Matched nodes hold the others in their places.
    first = [node if node in pairs else _kind(node) for node in a]
    second = [partners.get(node) or _kind(node) for node in b]
    matcher = SequenceMatcher(None, first, second, autojunk=False)
    for start_a, start_b, size in matcher.get_matching_blocks():
        for one, other in zip(
            a[start_a : start_a + size], b[start_b : start_b + size], strict=True
        ):
            pairs.setdefault(one, other)
    ordered = {node: pairs[node] for node in a if node in pairs}
    return ordered, len(pairs) - named


def _match_by(
    key_of: Callable[[Node], str],
    a: Sequence[Node],
    b: Sequence[Node],
    pairs: dict[Node, Node],
) -> None:
    """Match the nodes of the same kind that share a key with one another alone."""
    taken = set(pairs.values())
    places: list[dict[tuple[Hashable, str], list[Node]]] = []
    for nodes in ([n for n in a if n not in pairs], [n for n in b if n not in taken]):
        found: dict[tuple[Hashable, str], list[Node]] = {}
        for node in nodes:
            if name := key_of(node):
                found.setdefault((_kind(node), name), []).append(node)
        places.append(found)
    for shared, nodes in places[0].items():
        others = places[1].get(shared, [])
        if len(nodes) == len(others):
            pairs.update(zip(nodes, others, strict=True))


def _kind(node: Node) -> Hashable:
    """Return the key that two matched nodes share."""
    if dialect.is_quantizer(node):
        return ("quantizer", dialect.constant_tensor(node.inputs[0]) is not None)
    return (node.domain, node.op_type)


def _first_constant(node: Node) -> str:
    for value in node.inputs[: 1 if dialect.is_quantizer(node) else None]:
        if dialect.constant_tensor(value) is not None and value is not None:
            return _without_counters(str(value.name))
    return ""


def _result(node: Node) -> str:
    return str(node.outputs[0].name)


def _without_counters(name: str) -> str:
    """Return a name, or "" for one that only counts, as exporters number their values."""
    return "" if name.removeprefix("_v").strip("_").partition("_")[0].isdigit() else name


def _gone(node: Node, kind: str) -> Change:
    name = label(node)
    ends = (name, "") if kind == "missing" else ("", name)
    return Change(*ends, kind, "node", ends[0], ends[1])


def _signature_changes(a: Model, b: Model) -> Iterator[Change]:
    for kind, first, second in (
        ("input", a.graph.inputs, b.graph.inputs),
        ("output", a.graph.outputs, b.graph.outputs),
    ):
        for k, (one, other) in enumerate(itertools.zip_longest(first, second)):
            before, after = _described(one), _described(other)
            if before != after:
                names = ["" if v is None else str(v.name) for v in (one, other)]
                yield Change(names[0], names[1], kind, f"{kind} {k}", before, after)


def _described(value: Value | None) -> str:
    if value is None:
        return "none"
    kind = "?" if value.dtype is None else value.dtype.name
    shape = "?" if value.shape is None else "x".join(str(size) for size in value.shape)
    return f"{value.name} {kind.lower()}[{shape}]"


def _quantizer_changes(a: Node, b: Node) -> Iterator[Change]:
    first, second = dialect.read_quantizer(a), dialect.read_quantizer(b)
    names = (label(a), label(b))
    if type(first) is not type(second):
        yield Change(*names, "quantizer", "operator", a.op_type, b.op_type)
        return
    for field in changed_fields(first, second):
        words = _change_in_words(getattr(first, field), getattr(second, field))
        yield Change(*names, "quantizer", field, *words)


def _change_in_words(before: Any, after: Any) -> tuple[str, str]:
    arrays = [value for value in (before, after) if isinstance(value, np.ndarray)]
    if len(arrays) == 2 and arrays[0].shape == arrays[1].shape and arrays[0].size > 1:
        differ = arrays[0] != arrays[1]
        place = tuple(int(k[0]) for k in np.nonzero(differ))
        count = int(np.count_nonzero(differ))
        old, new = float(arrays[0][place]), float(arrays[1][place])
        return f"{old:.9g}", f"{new:.9g} (and so {count} of {differ.size})"
    return _in_words(before), _in_words(after)


def _in_words(value: Any) -> str:
    if value is None or isinstance(value, np.ndarray):
        return describe_number(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, (Rounding, str, int, float)) else repr(value)


def _attribute_changes(a: Node, b: Node) -> Iterator[Change]:
    names = (label(a), label(b))
    if (a.domain, a.op_type) != (b.domain, b.op_type):
        yield Change(*names, "operator", "operator", a.op_type, b.op_type)
        return
    unsaid = [
        {} if node.graph is None else defaults_of(node, node.graph.opset_imports)
        for node in (a, b)
    ]
    for key in dict.fromkeys((*a.attributes, *b.attributes)):
        values = [
            attribute(node, key, known.get(key, "not given"))
            for node, known in zip((a, b), unsaid, strict=True)
        ]
        if key in {"axis", "axes"}:
            rank = _axes_of((a, b))
            values = [_counted(value, rank) for value in values]
        lists = [value if isinstance(value, (list, tuple)) else [value] for value in values]
        # ONNX keeps floats of attributes in 32 bits.
        before, after = (
            ", ".join(str(np.float32(k) if isinstance(k, float) else k) for k in items)
            for items in lists
        )
        if before != after:
            yield Change(*names, "attribute", key, before, after)


def _axes_of(nodes: Sequence[Node]) -> int | None:
    """Return how many axes counterparts count from the end, where one of them tells."""
    for node in nodes:
        if not node.inputs:
            continue
        rank, made = rank_of(node.inputs[0]), rank_of(node.outputs[0])
        # Where axes are added, they are those of the result.
        if rank is not None and made is not None and made <= rank:
            return rank
    return None


def _counted(found: Any, rank: int | None) -> Any:
    """Return axes as they count from 0."""
    if rank is None or found == "not given":
        return found
    listed = [found] if isinstance(found, int) else list(found)
    return [k + rank if -rank <= k < 0 else k for k in listed]


def _wiring_changes(a: Node, b: Node, pairs: Mapping[Node, Node]) -> Iterator[Change]:
    """Give the inputs that come from other nodes than those that were matched."""
    names = (label(a), label(b))
    if len(a.inputs) != len(b.inputs) and not dialect.is_quantizer(a):
        counts = (str(len(a.inputs)), str(len(b.inputs)))
        yield Change(*names, "wiring", "number of inputs", *counts)
    for index, (one, other) in enumerate(zip(a.inputs, b.inputs, strict=False)):
        first, second = producer(one), producer(other)
        if first is None or second is None or pairs.get(first, second) is second:
            continue
        if second in pairs.values():
            yield Change(*names, "wiring", f"input {index}", label(first), label(second))


def _constants(model: Model) -> dict[Value, Constant]:
    found = infer_constants(model)
    values = [*model.graph.initializers.values()]
    values += [value for node in model.graph for value in node.outputs]
    return {value: found[name] for value in values if (name := str(value.name)) in found}


def _compare_weights(
    a: Node,
    b: Node,
    constants: Mapping[Value, Constant],
    weights: list[WeightChange],
    notes: list[str],
) -> None:
    """Compare what two nodes read as constants; a quantizer's parameters are not weights.

    Quantized weights are compared as quantized: other floats that quantize to the same values
    are only noted.
    """
    is_quantizer = dialect.is_quantizer(a)
    inputs = list(zip(a.inputs, b.inputs, strict=False))
    for one, other in inputs[:1] if is_quantizer else inputs:
        if one is None or other is None or not {one, other} <= constants.keys():
            continue
        before, after = constants[one], constants[other]
        name, differ = str(one.name), _differ(before, after)
        made, other_made = a.outputs[0], b.outputs[0]
        if is_quantizer:
            if made in constants and other_made in constants:
                before, after = constants[made], constants[other_made]
        elif one.producer() is not None:
            # Compared where it was quantized.
            continue
        if _differ(before, after):
            weights.append(_weight_change(name, before, after))
        elif differ:
            notes.append(f"{name}: the stored floats differ, what they quantize to does not")


def _differ(a: Constant, b: Constant) -> bool:
    return not np.array_equal(a.values, b.values)


def _weight_change(name: str, before: Constant, after: Constant) -> WeightChange:
    if before.values.shape != after.values.shape:
        size = max(before.values.size, after.values.size)
        return WeightChange(f"{name}, of another shape", size, size, float("inf"), "value")
    unit, size = "value", before.values.size
    distance = np.abs(before.values.astype(np.float64) - after.values.astype(np.float64))
    count = int(np.count_nonzero(before.values != after.values))
    grids = (before.integers, after.integers, before.scale, after.scale)
    if before.declared is not None and all(part is not None for part in grids):
        same = np.broadcast_arrays(*[np.asarray(c.scale) for c in (before, after)])
        if bool(np.all(same[0] == same[1])):
            unit = "LSB"
            distance = np.abs(np.asarray(before.integers) - np.asarray(after.integers))
            count = int(np.count_nonzero(distance))
    return WeightChange(name, size, count, float(distance.max()), unit)
