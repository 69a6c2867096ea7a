"""Why a layer that is no quantizer differs: suspects are mended in a copy, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Model, Node

from qonnx_hub.equivalence.comparison.compare import (
    aligned,
    differs,
    distances,
    largest_magnitude,
)
from qonnx_hub.equivalence.diagnosis.isolation import Edit, SlicedGraph
from qonnx_hub.equivalence.diagnosis.named_differences import (
    attribute_in_words,
    padding_of,
    permutation_in_words,
    tells_same_from_even,
)
from qonnx_hub.equivalence.diagnosis.quantizer_causes import Cause, Reason, same_elements
from qonnx_hub.equivalence.graph_slices import reroute
from qonnx_hub.equivalence.sum_enclosures import SumEnclosures, unexplained
from qonnx_hub_adapters.protocol import Feeds
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.analysis.float_error import likely_sum_error, sum_error
from qonnx_hub_ir.facts import named_values
from qonnx_hub_ir.graph.affine import batchnorm_affine
from qonnx_hub_ir.graph.queries import attribute, producer
from qonnx_hub_ir.quantizers import Array

_BORDER = 3
"""Values from an edge that padding may reach."""


def _places(node: Node) -> bool:
    """Return whether the attributes of a node say which values go where."""
    moves = operators.moves_or_inserts(node) and not operators.is_identity(node)
    return moves or operators.pool_of(node, any_layout=True) is not None


def _computes(node: Node) -> bool:
    return not operators.is_identity(node) and node.op_type != "Constant"


@dataclass(frozen=True, slots=True)
class CutSide:
    """One layer of one side, cut out, with the values before it.

    Attributes:
        graph: The side's graph.
        name: The layer's value.
        known: Values that the slice starts from: the reference's.
        feeds: Inputs of the side.
        nodes: Nodes of the slice.
    """

    graph: SlicedGraph
    name: str
    known: Mapping[str, Array]
    feeds: Feeds
    nodes: tuple[Node, ...]

    def run(self, edit: Edit | None = None) -> Array | None:
        """Return the slice's answer, after a change of its graph if one is given."""
        found = self.graph.run([self.name], self.known, self.feeds, edit)
        return None if found is None else found[self.name]


@dataclass(frozen=True, slots=True)
class CutLayer:
    """One layer of both sides, cut out.

    Attributes:
        a: The reference's slice.
        b: The other slice; ``None`` where its graph cannot be run in slices.
        ours: The reference's answer.
        theirs: The other slice's answer, in the reference's layout.
    """

    a: CutSide
    b: CutSide | None
    ours: Array
    theirs: Array

    def agrees_after(self, edit: Edit, noise: float) -> bool:
        """Return whether a change of the other graph gives the reference's answer."""
        answer = None if self.b is None else self.b.run(edit)
        return _agrees(self.ours, answer, noise)


def explain_layer(layer: CutLayer) -> Reason:
    """Return why both sides' answers for a layer that is no quantizer differ."""
    if layer.ours.dtype.kind not in "fiub":
        return Reason(Cause.UNKNOWN, "the values are no numbers")
    noise = noise_of(layer)
    apart = float(np.max(distances(layer.ours, layer.theirs)))
    # Where the difference itself is as small as noise, mending must undo it altogether.
    slack = noise if apart > noise else 0.0
    for found in (
        _missing_quantizers(layer, slack),
        _mended(layer, slack),
        _moved(layer),
    ):
        for reason in found:
            return reason
    if apart <= noise:
        words = f"at most {apart:.3g} apart, within the rounding of sums ({noise:.3g})"
        return Reason(Cause.NOISE, words)
    unknown = Reason(Cause.UNKNOWN, f"at most {apart:.3g} apart, no known fault fits")
    return next(_by_place(layer), unknown)


def _agrees(x: Array, answer: Array | None, noise: float) -> bool:
    y = aligned(x, answer)
    return y is not None and float(np.max(distances(x, y))) <= noise


def noise_of(layer: CutLayer) -> float:
    """Return how far apart two orders of float32 arithmetic may bring the layer's answer.

    The sum of magnitudes of ``sum(x * w)`` is taken as the largest ``|x|`` times the largest
    sum of ``|w|``; see :mod:`qonnx_hub_ir.analysis.float_error` for the rest. Noise that
    reaches an inner quantizer ends there: a code that it flips is more than noise.
    """
    names = [str(n.outputs[0].name) for n in layer.a.nodes if n.outputs[0].name]
    wanted = [name for name in names if name in layer.a.graph.values]
    made = layer.a.graph.run(wanted, layer.a.known, layer.a.feeds) or {}
    values = {**layer.a.feeds, **made, **layer.a.known}
    noise = 0.0
    for node in layer.a.nodes:
        if dialect.is_quantizer(node):
            is_last = node.outputs[0].name == layer.a.name
            noise = noise if is_last else 0.0
        elif _computes(node):
            noise = _noise_after(node, noise, layer, values)
    return noise


def exceeds_sums(layer: CutLayer, bounds_a: SumEnclosures, bounds_b: SumEnclosures) -> Array:
    """Return where a layer's answers differ beyond what orders of its sums explain.

    Raises:
        UnboundedError: A node for which no bound is known.
    """
    assert layer.b is not None
    found = [
        bounds.enclose(side.nodes, side.name, side.known, side.feeds)
        for bounds, side in ((bounds_a, layer.a), (bounds_b, layer.b))
    ]
    return unexplained(found[0], found[1], layer.ours, layer.theirs)


def _noise_after(
    node: Node, noise: float, layer: CutLayer, values: Mapping[str, Array]
) -> float:
    constants = [layer.a.graph.constant(v) for v in node.inputs]
    sources = [
        values.get(str(v.name), c) if v is not None else None
        for v, c in zip(node.inputs, constants, strict=True)
    ]
    if operators.keeps_values(node) or operators.clamps(node):
        return noise
    out = _largest(values.get(str(node.outputs[0].name)))
    reads = max(map(_largest, sources), default=0.0)
    if operators.is_product(node):
        weights = sources[1] if constants[1] is None else constants[1]
        terms, gain = _sum_of_weights(node, weights)
        error = likely_sum_error(terms, _largest(sources[0]) * gain)
        return noise * gain + error + sum_error(4, out)
    if operators.sums_elements(node):
        count = 1.0 if sources[0] is None else sources[0].size / max(layer.ours.size, 1)
        size = reads if node.op_type != "ReduceSum" else reads * count
        count = max(count, 1.0)
        return noise * count + likely_sum_error(count, size)
    if node.op_type == "BatchNormalization":
        gain, shift = 1.0, 0.0
        arrays = [c.astype(np.float64) for c in constants[1:5] if c is not None]
        if len(arrays) == 4:
            factors, added, mean, variance = arrays
            epsilon = float(attribute(node, "epsilon", 1e-5))
            gain = _largest(batchnorm_affine(factors, added, mean, variance, epsilon)[0])
            shift = _largest(added) + gain * _largest(mean)
        return noise * gain + likely_sum_error(1, gain * reads + shift)
    if operators.multiplies(node):
        gain = max((_largest(c) for c in constants if c is not None), default=1.0)
        if node.op_type == "Div" and constants[1] is not None:
            smallest = float(np.min(np.abs(constants[1])))
            gain = 1.0 / smallest if smallest else 1.0
        return noise * gain + sum_error(4, out)
    sums = operators.adds(node) or node.op_type == "Sub"
    return noise + likely_sum_error(1, max(out, reads if sums else 0))


def _sum_of_weights(node: Node, weights: Array | None) -> tuple[int, float]:
    """Return (terms of a sum, largest sum of magnitudes) over the weights' outputs."""
    if weights is None:
        return 1, 1.0
    w = np.abs(weights.astype(np.float64))
    if operators.is_convolution(node) and w.ndim > 1:
        sums = w.reshape(w.shape[0], -1).sum(axis=1)
        return int(np.prod(w.shape[1:], dtype=np.int64)), float(sums.max(initial=0.0))
    if w.ndim < 2:
        return max(w.size, 1), float(w.sum())
    # Which axis is summed over depends on transposition: the larger answer covers both.
    return max(w.shape[-2:]), float(max(w.sum(axis=-1).max(), w.sum(axis=-2).max()))


def _largest(x: Array | None) -> float:
    return 0.0 if x is None or x.dtype.kind not in "fiu" else largest_magnitude(x)


def _missing_quantizers(layer: CutLayer, noise: float) -> Iterator[Reason]:
    """Give the quantizers inside one slice that the other slice does without."""
    sides = ((layer.a, layer.theirs, "there"), (layer.b, layer.ours, "here"))
    for side, target, where in sides:
        if side is None:
            continue
        results = [str(n.outputs[0].name) for n in side.nodes if dialect.is_quantizer(n)]
        names = [name for name in results if name != side.name]
        for trial in [[name] for name in names] + ([names] if len(names) > 1 else []):
            if _agrees(target, side.run(_without(trial)), noise):
                provenance = side.graph.values[trial[0]].metadata_props.get(dialect.PROVENANCE)
                listed = ", ".join(f"'{name}'" for name in trial)
                words = f"quantizer {listed} is not {where}; without it both sides agree"
                yield Reason(Cause.MISSING, words, provenance or trial[0])


def _change(name: str, change: Callable[[Model, Node], None]) -> Edit:
    """Return the edit that changes the node which makes a value, wherever it is in a copy."""

    def edit(model: Model) -> None:
        node = producer(named_values(model).get(name))
        if node is not None:
            change(model, node)

    return edit


def _all(edits: Sequence[Edit]) -> Edit:
    def edit(model: Model) -> None:
        for one in edits:
            one(model)

    return edit


def _without(names: Sequence[str]) -> Edit:
    """Return the edit that lets the readers of some nodes read their inputs instead."""

    def pass_on(_: Model, node: Node) -> None:
        if node.inputs[0] is not None:
            reroute(node.outputs[0], node.inputs[0])

    return _all([_change(name, pass_on) for name in names])


def _mended(layer: CutLayer, noise: float) -> Iterator[Reason]:
    """Give the differences of nodes whose mending brings the other side's answer back."""
    if layer.b is None:
        return
    suspects: list[tuple[Reason, Edit]] = []
    for ours, theirs in _partners(layer.a.nodes, layer.b.nodes):
        suspects += _other_attributes(ours, theirs)
        suspects += _other_constants(layer.a, layer.b, ours, theirs)
    for reason, mend in suspects:
        if layer.agrees_after(mend, noise):
            yield reason
    mend_all = _all([mend for _, mend in suspects])
    if len(suspects) > 1 and layer.agrees_after(mend_all, noise):
        words = "; ".join(reason.words for reason, _ in suspects)
        yield Reason(suspects[0][0].cause, words)
    # A suspect whose mending shows nothing, beside other faults, is still a difference.
    for reason, _ in suspects:
        if reason.cause in {Cause.WEIGHTS, Cause.LAYOUT, Cause.SAME_PADDING}:
            yield reason


def _partners(a: Sequence[Node], b: Sequence[Node]) -> list[tuple[Node, Node]]:
    """Return the nodes that stand for each other: same operators in the same order."""
    keeps: tuple[Callable[[Node], bool], ...] = (
        _computes,
        # Without what may be a part of a quantizer.
        lambda n: (
            _computes(n)
            and not (operators.is_qdq(n) or operators.clamps(n))
            and not (dialect.is_quantizer(n) or n.op_type == "Cast")
        ),
        lambda n: operators.is_product(n) or n.op_type == "BatchNormalization",
    )
    for keep in keeps:
        first, second = [n for n in a if keep(n)], [n for n in b if keep(n)]
        if first and [n.op_type for n in first] == [n.op_type for n in second]:
            return list(zip(first, second, strict=True))
    return []


def _other_attributes(ours: Node, theirs: Node) -> Iterator[tuple[Reason, Edit]]:
    names = sorted({*ours.attributes, *theirs.attributes})
    changed = [n for n in names if _attribute(ours, n) != _attribute(theirs, n)]
    if not changed:
        return
    pairs = {n: (_attribute(ours, n), _attribute(theirs, n)) for n in changed}
    words = ", ".join(
        f"{n} {attribute_in_words(ours, n, x)} against {attribute_in_words(theirs, n, y)}"
        for n, (x, y) in pairs.items()
    )
    in_place = _places(ours) or operators.is_product(ours)
    cause = Cause.LAYOUT if in_place else Cause.OPERATOR
    paddings = [padding_of(node, producer(node.inputs[0])) for node in (ours, theirs)]
    if {"pads", "auto_pad"} & {*changed} and tells_same_from_even(*paddings):
        cause = Cause.SAME_PADDING
        words += f"; its input is padded by {paddings[0]} against {paddings[1]}"

    def mend(_: Model, node: Node) -> None:
        for name in changed:
            node.attributes.pop(name, None)
            if name in ours.attributes:
                node.attributes[name] = ours.attributes[name]

    edit = _change(str(theirs.outputs[0].name), mend)
    yield Reason(cause, f"{ours.op_type}: {words}"), edit


def _attribute(node: Node, name: str) -> Any:
    attr = node.attributes.get(name)
    if attr is None:
        return None
    if attr.type == onnx_ir.AttributeType.TENSOR:
        return attr.value.numpy().tolist()
    return list(attr.value) if isinstance(attr.value, (list, tuple)) else attr.value


def _other_constants(
    a: CutSide, b: CutSide, ours: Node, theirs: Node
) -> Iterator[tuple[Reason, Edit]]:
    for index, (left, right) in enumerate(zip(ours.inputs, theirs.inputs, strict=False)):
        if right is None or str(right.name) in b.known:
            continue
        x, y = a.graph.constant(left), b.graph.constant(right)
        if x is None or y is None or (x.shape == y.shape and np.array_equal(x, y)):
            continue
        yield _constant_reason(ours, index, x, y), _put(theirs, index, x)


def _put(node: Node, index: int, array: Array) -> Edit:
    target = str(node.outputs[0].name)

    def mend(model: Model, found: Node) -> None:
        value = dialect.add_initializer(model.graph, f"{target}_mended_{index}", array)
        found.replace_input_with(index, value)

    return _change(target, mend)


def _constant_reason(node: Node, index: int, x: Array, y: Array) -> Reason:
    what = f"{node.op_type} '{node.name}', input {index}"
    if _places(node):
        return Reason(Cause.LAYOUT, f"{what}: {x.tolist()} against {y.tolist()}")
    if x.shape != y.shape:
        return Reason(Cause.WEIGHTS, f"{what}: shape {x.shape} against {y.shape}")
    if same_elements(x, y):
        named = permutation_in_words(x, y)
        order = f" ({named})" if named else ""
        return Reason(Cause.PERMUTED, f"{what}: the same weights in another order{order}")
    count = int(np.count_nonzero(x != y))
    apart = distances(x, y)
    at = [int(k) for k in np.unravel_index(int(apart.argmax()), x.shape)]
    words = f"{what}: {count} of {x.size} values differ, by {apart.max():.3g} at most, at {at}"
    return Reason(Cause.WEIGHTS, words)


def _moved(layer: CutLayer) -> Iterator[Reason]:
    """Give that both answers hold the same values in other places."""
    x, y = layer.ours, layer.theirs
    if x.ndim < 2 or x.shape != y.shape or x.shape[0] == 0:
        return
    rows = [np.sort(v.reshape(v.shape[0], -1), axis=1) for v in (x, y)]
    if rows[0].shape[1] > 1 and np.array_equal(rows[0], rows[1]):
        yield Reason(Cause.LAYOUT, "the same values in other places")
        return
    kinds = {node.op_type for node in layer.a.nodes}
    for node in layer.b.nodes if layer.b else ():
        if _places(node) and node.op_type not in kinds:
            name = str(node.outputs[0].name)
            if layer.agrees_after(_without([name]), 0.0):
                yield Reason(Cause.LAYOUT, f"'{name}' moves values there, not here")


def _by_place(layer: CutLayer) -> Iterator[Reason]:
    """Give the causes that only the places of the differences, or the operators, speak for."""
    differing = differs(layer.ours, layer.theirs)
    if differing.ndim > 2 and min(differing.shape[2:]) > 2 * _BORDER:
        inner = (slice(_BORDER, -_BORDER) for _ in differing.shape[2:])
        places = (slice(None), slice(None), *inner)
        if not differing[places].any():
            yield Reason(Cause.LAYOUT, "only values at the border differ: padding")
    if layer.b is None:
        return
    here, there = (
        [n.op_type for n in side.nodes if _places(n)] for side in (layer.a, layer.b)
    )
    if here != there:
        words = f"values are moved by {here or 'nothing'} here, {there or 'nothing'} there"
        yield Reason(Cause.LAYOUT, words)
