"""Why a layer that is no quantizer differs: suspects are mended in a copy, one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value

from qonnx_hub.equivalence.comparison.compare import aligned
from qonnx_hub.equivalence.comparison.matching import Pair
from qonnx_hub.equivalence.diagnosis.isolation import Edit, Side
from qonnx_hub.equivalence.diagnosis.quantizer_causes import Cause, Reason
from qonnx_hub.equivalence.graph_slices import quantizer_nodes, reroute
from qonnx_hub.equivalence.inputs.batches import Feeds
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.facts import named_values
from qonnx_hub_ir.quantizers import Array

_UNIT = 2.0**-24
"""Half the distance of float32 numbers around one, relative."""

_BORDER = 3


def _places(node: Node) -> bool:
    """Return whether the attributes of a node say which values go where."""
    moves = operators.moves_or_inserts(node) and not operators.is_identity(node)
    return moves or operators.pool_of(node, any_layout=True) is not None


def _computes(node: Node) -> bool:
    return not operators.is_identity(node) and node.op_type != "Constant"


def _quantizes(node: Node) -> bool:
    """Return whether a node may be a part of a quantizer."""
    parts = operators.is_qdq(node) or operators.clamps(node) or node.op_type == "Cast"
    return parts or dialect.is_quantizer(node)


@dataclass(frozen=True, slots=True)
class Piece:
    """One layer of both sides, cut out, with the values before it.

    Attributes:
        a: The reference's graph.
        b: The other graph; ``None`` where it cannot be run in pieces.
        pair: The layer's value in both.
        known_a: Values that the reference's piece starts from.
        known_b: Values that the other piece starts from: the reference's.
        feeds_a: Inputs of the reference.
        feeds_b: Inputs of the other side.
        ours: The reference's answer.
        theirs: The other piece's answer, in the reference's layout.
        nodes_a: Nodes of the reference's piece.
        nodes_b: Nodes of the other piece.
    """

    a: Side
    b: Side | None
    pair: Pair
    known_a: dict[str, Array]
    known_b: dict[str, Array]
    feeds_a: Feeds
    feeds_b: Feeds
    ours: Array
    theirs: Array
    nodes_a: tuple[Node, ...]
    nodes_b: tuple[Node, ...]

    def rerun(self, edit: Edit, *, other: bool) -> Array | None:
        """Return a side's answer after a change of its graph, in the reference's layout."""
        if other:
            if self.b is None:
                return None
            found = self.b.run([self.pair.b], self.known_b, self.feeds_b, edit)
            value = None if found is None else found[self.pair.b]
        else:
            found = self.a.run([self.pair.a], self.known_a, self.feeds_a, edit)
            value = None if found is None else found[self.pair.a]
        return None if value is None else aligned(self.ours, value)


def explain_piece(piece: Piece) -> tuple[Reason, str | None]:
    """Return why two pieces differ, and the layer at fault where it is not the piece's own."""
    if piece.ours.dtype.kind not in "fiub":
        return Reason(Cause.UNKNOWN, "the values are no numbers"), None
    noise = noise_of(piece)
    apart = _furthest(piece.ours, piece.theirs)
    # Where the difference itself is as small as noise, mending must undo it altogether.
    slack = noise if apart > noise else 0.0
    for reason, layer in (
        *_missing_quantizers(piece, slack),
        *_mended(piece, slack),
        *_moved(piece),
    ):
        return reason, layer
    if apart <= noise:
        words = f"at most {apart:.3g} apart, within the rounding of sums ({noise:.3g})"
        return Reason(Cause.NOISE, words), None
    for reason in _by_place(piece):
        return reason, None
    return Reason(Cause.UNKNOWN, f"at most {apart:.3g} apart, no known fault fits"), None


def _furthest(x: Array, y: Array) -> float:
    with np.errstate(all="ignore"):
        apart = np.abs(x.astype(np.float64) - y.astype(np.float64))
    apart = np.where((x == y) | ((x != x) & (y != y)), 0.0, apart)
    return float(np.max(np.where(np.isnan(apart), np.inf, apart)))


def _agrees(x: Array, y: Array | None, noise: float) -> bool:
    return y is not None and x.shape == y.shape and _furthest(x, y) <= noise


def noise_of(piece: Piece) -> float:
    """Return how far apart two orders of float32 arithmetic may bring the piece's answer.

    A sum of K products is off by at most ``K u sum(|x w|)``; rounding errors of both signs
    leave about the square root of K of that. Eight times as much is allowed for, and
    ``sum(|x w|)`` is taken as the largest ``|x|`` times the largest sum of ``|w|``.
    """
    names = [str(n.outputs[0].name) for n in piece.nodes_a if n.outputs[0].name]
    wanted = [name for name in names if name in piece.a.values]
    values = piece.a.run(wanted, piece.known_a, piece.feeds_a) or {}
    noise = 0.0
    for node in piece.nodes_a:
        noise = _noise_after(node, noise, piece, values)
    return noise


def _noise_after(node: Node, noise: float, piece: Piece, values: dict[str, Array]) -> float:
    if dialect.is_quantizer(node) or not _computes(node):
        return noise
    out = _largest(values.get(str(node.outputs[0].name)))
    sources = [_value_of(v, piece, values) for v in node.inputs]
    constants = [piece.a.constant(v) for v in node.inputs]
    reads = max((_largest(s) for s in sources if s is not None), default=0.0)
    if operators.is_product(node):
        weights = constants[1] if len(constants) > 1 else None
        if weights is None:
            other = sources[1] if len(sources) > 1 else None
            weights = other if other is not None else np.ones(1, dtype=np.float32)
        length, gain = _sum_of_weights(node, weights)
        data = _largest(sources[0])
        return noise * gain + 8 * _UNIT * math.sqrt(length) * data * gain + 4 * _UNIT * out
    if operators.sums_elements(node):
        count = 1.0 if sources[0] is None else sources[0].size / max(piece.ours.size, 1)
        size = reads if node.op_type != "ReduceSum" else reads * count
        return noise * max(count, 1.0) + 8 * _UNIT * math.sqrt(max(count, 1.0)) * size
    if node.op_type == "BatchNormalization":
        scale, variance = constants[1], constants[4]
        gain = 1.0
        if scale is not None and variance is not None:
            gain = float(np.max(np.abs(scale) / np.sqrt(variance.astype(np.float64) + 1e-12)))
        shift = _largest(constants[2]) + gain * _largest(constants[3])
        return noise * gain + 8 * _UNIT * (gain * reads + shift)
    if operators.multiplies(node):
        gain = max((_largest(c) for c in constants if c is not None), default=1.0)
        if node.op_type == "Div" and constants[1] is not None:
            smallest = float(np.min(np.abs(constants[1])))
            gain = 1.0 / smallest if smallest else 1.0
        return noise * max(gain, 1e-30) + 4 * _UNIT * out
    sums = operators.adds(node) or node.op_type == "Sum"
    return noise + 8 * _UNIT * max(out, reads if sums else 0)


def _sum_of_weights(node: Node, weights: Array) -> tuple[int, float]:
    """Return (terms of a sum, largest sum of magnitudes) over the weights' outputs."""
    w = np.abs(weights.astype(np.float64))
    if operators.is_convolution(node) and w.ndim > 1:
        sums = w.reshape(w.shape[0], -1).sum(axis=1)
        return int(np.prod(w.shape[1:], dtype=np.int64)), float(sums.max(initial=0.0))
    if w.ndim < 2:
        return max(w.size, 1), float(w.sum())
    # Which axis is summed over depends on transposition: the larger answer covers both.
    return max(w.shape[-2:]), float(max(w.sum(axis=-1).max(), w.sum(axis=-2).max()))


def _value_of(value: Value | None, piece: Piece, values: dict[str, Array]) -> Array | None:
    if value is None:
        return None
    name = str(value.name)
    for known in (piece.known_a, values, piece.feeds_a):
        if name in known:
            return known[name]
    return piece.a.constant(value)


def _largest(x: Array | None) -> float:
    if x is None or x.size == 0 or x.dtype.kind not in "fiu":
        return 0.0
    finite = np.abs(x[np.isfinite(x)])
    return float(finite.max()) if finite.size else 0.0


def _missing_quantizers(piece: Piece, noise: float) -> Iterator[tuple[Reason, str | None]]:
    """Give the quantizers inside one piece that the other piece does without."""
    for other in (False, True):
        if other and piece.b is None:
            return
        nodes = piece.nodes_b if other else piece.nodes_a
        own = piece.pair.b if other else piece.pair.a
        target = piece.ours if other else piece.theirs
        names = [
            str(n.outputs[0].name)
            for n in quantizer_nodes(nodes)
            if str(n.outputs[0].name) != own
        ]
        trials = [[name] for name in names] + ([names] if len(names) > 1 else [])
        for trial in trials:
            answer = piece.rerun(_without(trial), other=other)
            if not _agrees(target, answer, noise):
                continue
            side = piece.b if other and piece.b is not None else piece.a
            value = side.values[trial[0]]
            layer = value.metadata_props.get(dialect.PROVENANCE) or trial[0]
            where = "here" if other else "there"
            listed = ", ".join(f"'{name}'" for name in trial)
            words = f"quantizer {listed} is not {where}; without it both sides agree"
            yield Reason(Cause.MISSING, words), layer


def _without(names: Sequence[str]) -> Edit:
    def edit(model: Model) -> None:
        values = named_values(model)
        for name in names:
            node = values[name].producer() if name in values else None
            if node is not None and node.inputs[0] is not None:
                reroute(node.outputs[0], node.inputs[0])

    return edit


@dataclass(frozen=True, slots=True)
class _Suspect:
    """A difference between two nodes that stand for each other, and how to mend it."""

    reason: Reason
    mend: Edit


def _mended(piece: Piece, noise: float) -> Iterator[tuple[Reason, str | None]]:
    """Give the differences of nodes whose mending brings the other side's answer back."""
    suspects = list(_suspects(piece))
    for suspect in suspects:
        if _agrees(piece.ours, piece.rerun(suspect.mend, other=True), noise):
            yield suspect.reason, None
    if len(suspects) > 1:

        def mend_all(model: Model) -> None:
            for suspect in suspects:
                suspect.mend(model)

        if _agrees(piece.ours, piece.rerun(mend_all, other=True), noise):
            words = "; ".join(suspect.reason.words for suspect in suspects)
            yield Reason(suspects[0].reason.cause, words), None
    # A suspect whose mending shows nothing, beside other faults, is still a difference.
    weights = [s for s in suspects if s.reason.cause in {Cause.WEIGHTS, Cause.LAYOUT}]
    if weights:
        yield weights[0].reason, None


def _suspects(piece: Piece) -> Iterator[_Suspect]:
    if piece.b is None:
        return
    for ours, theirs in _partners(piece.nodes_a, piece.nodes_b):
        yield from _other_attributes(ours, theirs)
        yield from _other_constants(piece, ours, theirs)


def _partners(a: Sequence[Node], b: Sequence[Node]) -> list[tuple[Node, Node]]:
    """Return the nodes that stand for each other: same operators in the same order."""
    keeps: tuple[Callable[[Node], bool], ...] = (
        _computes,
        lambda n: _computes(n) and not _quantizes(n),
        lambda n: operators.is_product(n) or n.op_type == "BatchNormalization",
    )
    for keep in keeps:
        first, second = [n for n in a if keep(n)], [n for n in b if keep(n)]
        if first and [n.op_type for n in first] == [n.op_type for n in second]:
            return list(zip(first, second, strict=True))
    return []


def _other_attributes(ours: Node, theirs: Node) -> Iterator[_Suspect]:
    names = sorted({*ours.attributes, *theirs.attributes})
    changed = [n for n in names if _attribute(ours, n) != _attribute(theirs, n)]
    if not changed:
        return
    words = ", ".join(
        f"{n} {_attribute(ours, n)} against {_attribute(theirs, n)}" for n in changed
    )
    in_place = _places(ours) or operators.is_product(ours)
    cause = Cause.LAYOUT if in_place else Cause.OPERATOR
    target = str(theirs.outputs[0].name)

    def mend(model: Model) -> None:
        node = named_values(model)[target].producer()
        if node is None:
            return
        for name in changed:
            node.attributes.pop(name, None)
            if name in ours.attributes:
                node.attributes[name] = ours.attributes[name]

    yield _Suspect(Reason(cause, f"{ours.op_type}: {words}"), mend)


def _attribute(node: Node, name: str) -> Any:
    attr = node.attributes.get(name)
    if attr is None:
        return None
    if attr.type == onnx_ir.AttributeType.TENSOR:
        return attr.value.numpy().tolist()
    return list(attr.value) if isinstance(attr.value, (list, tuple)) else attr.value


def _other_constants(piece: Piece, ours: Node, theirs: Node) -> Iterator[_Suspect]:
    if piece.b is None:
        return
    for index, (left, right) in enumerate(zip(ours.inputs, theirs.inputs, strict=False)):
        if right is None or str(right.name) in piece.known_b:
            continue
        x, y = piece.a.constant(left), piece.b.constant(right)
        if x is None or y is None or (x.shape == y.shape and np.array_equal(x, y)):
            continue
        yield _Suspect(_constant_reason(ours, index, x, y), _put(theirs, index, x))


def _put(node: Node, index: int, array: Array) -> Edit:
    target = str(node.outputs[0].name)

    def mend(model: Model) -> None:
        found = named_values(model)[target].producer()
        if found is not None:
            value = dialect.add_initializer(model.graph, f"{target}_mended_{index}", array)
            found.replace_input_with(index, value)

    return mend


def _constant_reason(node: Node, index: int, x: Array, y: Array) -> Reason:
    what = f"{node.op_type} '{node.name}', input {index}"
    if _places(node):
        return Reason(Cause.LAYOUT, f"{what}: {x.tolist()} against {y.tolist()}")
    if x.shape != y.shape:
        return Reason(Cause.WEIGHTS, f"{what}: shape {x.shape} against {y.shape}")
    if np.array_equal(np.sort(x, axis=None), np.sort(y, axis=None)):
        return Reason(Cause.LAYOUT, f"{what}: the same weights in another order")
    count = int(np.count_nonzero(x != y))
    gap = float(np.max(np.abs(x.astype(np.float64) - y.astype(np.float64))))
    return Reason(
        Cause.WEIGHTS, f"{what}: {count} of {x.size} values differ, by {gap:.3g} at most"
    )


def _moved(piece: Piece) -> Iterator[tuple[Reason, str | None]]:
    """Give that both answers hold the same values in other places."""
    x, y = piece.ours, piece.theirs
    if x.ndim < 2 or x.shape != y.shape or x.shape[0] == 0:
        return
    rows = [np.sort(v.reshape(v.shape[0], -1), axis=1) for v in (x, y)]
    if rows[0].shape[1] > 1 and np.array_equal(rows[0], rows[1]):
        yield Reason(Cause.LAYOUT, "the same values in other places"), None
        return
    for name in _extra_moves(piece):
        answer = piece.rerun(_without([name]), other=True)
        if answer is not None and np.array_equal(answer, x):
            yield Reason(Cause.LAYOUT, f"'{name}' moves values there, not here"), None


def _extra_moves(piece: Piece) -> list[str]:
    kinds = [n.op_type for n in piece.nodes_a]
    return [
        str(n.outputs[0].name) for n in piece.nodes_b if _places(n) and n.op_type not in kinds
    ]


def _by_place(piece: Piece) -> Iterator[Reason]:
    """Give the causes that only the places of the differences, or the operators, speak for."""
    x, y = piece.ours, piece.theirs
    differs = ~((x == y) | ((x != x) & (y != y)))
    if x.ndim > 2 and min(x.shape[2:]) > 2 * _BORDER:
        inner = tuple(slice(_BORDER, -_BORDER) for _ in x.shape[2:])
        places = (slice(None), slice(None), *inner)
        if not differs[places].any():
            yield Reason(Cause.LAYOUT, "only values at the border differ: padding")
    moves = [
        [n.op_type for n in nodes if _places(n)] for nodes in (piece.nodes_a, piece.nodes_b)
    ]
    if piece.b is not None and moves[0] != moves[1]:
        words = (
            f"values are moved by {moves[0] or 'nothing'} here, {moves[1] or 'nothing'} there"
        )
        yield Reason(Cause.LAYOUT, words)
