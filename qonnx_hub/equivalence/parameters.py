"""Parameters of two graphs: which differ from their counterpart, have none, or were folded.

What is stored in another form is compared by the values it makes: codes and scales of weights
by the weights, an epilogue's factor by the product of both scales, a bias inside a product
with one that is added behind it. A layer that has lost a factor or an offset is compared by
what its parameters make together, which may be off by the roundings of folding and half a step
of a quantized bias; or by the codes that it gives for every whole sum that can reach it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from onnx_ir import Model, Node

from qonnx_hub.equivalence.parameter_layers import (
    ParameterLayer,
    ParameterSide,
    constant_operand,
    find_layers,
)
from qonnx_hub.equivalence.rewriting import ROUNDED, Rewriting, find_rewriting
from qonnx_hub.equivalence.sum_enclosures import FOLD_ROUNDINGS
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.analysis.float_error import FLOAT32_UNIT, sum_error
from qonnx_hub_ir.graph.affine import batchnorm_parameters
from qonnx_hub_ir.graph.queries import only_reader, readers
from qonnx_hub_ir.quantizers import Array, IntQuant, integer_bounds, single_value
from qonnx_hub_ir.semantics import quantize
from qonnx_hub_ir.validity import label

FOLDED = "parameters of {} are folded into others"
"""Why parameters need not be the same, where folding explains that they are not."""

_MOST_SUMS = 1 << 23
"""Whole sums, of all channels, up to which integer layers are compared code by code."""


@dataclass(frozen=True, slots=True)
class ParameterComparison:
    """How the parameters of two graphs compare.

    Attributes:
        changed: Those that differ from their counterpart, in words.
        unmatched: Factors, offsets and quantizers' scales that have none, and that no folding
            explains, in words.
        folded: Names of layers whose parameters were folded.
        rewriting: In how many places they are written otherwise.
    """

    changed: tuple[str, ...] = ()
    unmatched: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    rewriting: Rewriting = field(default_factory=Rewriting)

    @property
    def is_folding(self) -> bool:
        """Whether all that differs is parameters folded into others."""
        is_left = self.changed or self.unmatched or self.rewriting.strangers
        return bool(self.folded) and not is_left


def compare_parameters(a: Model | None, b: Model | None) -> ParameterComparison:
    """Return what is stored in both models and differs, or in one of them only.

    Compared bit by bit are parameters of quantizers, weights, and numbers among attributes, of
    nodes that are counterparts; nothing is compared without two graphs.
    """
    if a is None or b is None:
        return ParameterComparison()
    from qonnx_hub.analysis.diff import find_differences

    found = find_differences(a, b)
    if not found:
        return ParameterComparison()
    sides = ParameterSide(a), ParameterSide(b)
    explained, folded, is_near = _explained(*sides)
    changed = []
    for change in found.changes:
        nodes = [
            side.named.get(n) for side, n in zip(sides, (change.a, change.b), strict=True)
        ]
        is_known = all(node in explained for node in nodes) or _same_values(sides, nodes)
        is_known = is_known or _differ_in_type_alone(nodes)
        is_written = change.kind == "attribute" and "not given" not in {
            change.before,
            change.after,
        }
        # What is explained was compared with its weights turned as each layer reads them.
        is_written = is_written and not (is_known and change.field == "transB")
        if is_written or (change.kind == "quantizer" and not is_known):
            changed.append(str(change))
    # Differences of weights bear the names of the first model.
    own = (node for node in sides[0].nodes if node in explained)
    names = {str(v.name) for node in own for v in node.inputs if v is not None}
    weights = [w for w in found.weights if np.isfinite(w.largest) and w.name not in names]
    gone = {c.a or c.b for c in found.changes if c.kind in {"missing", "added"}}
    lost = [
        (node, numbers, other)
        for own, other in (sides, sides[::-1])
        for node in own.nodes
        if node not in explained and label(node) in gone
        if not _is_stored(numbers := _moving(own, node), other)
    ]
    unmatched = tuple(
        f"{label(node)} has no counterpart, and no folding explains it" for node, _, _ in lost
    )
    is_near |= any(_is_nearly_stored(numbers, other) for _, numbers, other in lost)
    stored = sides[0].stored(), sides[1].stored()
    left = [w for w in found.weights if w.name not in names]
    named = sides[0].named, sides[1].named
    rewriting = find_rewriting(found.changes, left, named, stored, explained)
    rewriting = replace(rewriting, moved=rewriting.moved and not is_near)
    return ParameterComparison((*changed, *map(str, weights)), unmatched, folded, rewriting)


def _explained(a: ParameterSide, b: ParameterSide) -> tuple[set[Node], tuple[str, ...], bool]:
    """Return the nodes whose parameters are right, and the names of layers that folded.

    Also returned is whether weights of a layer are near its counterpart's, and not right.
    """
    nodes: set[Node] = set()
    folded = []
    is_near = False
    for with_product in (True, False):
        first, second = (list(find_layers(side, products=with_product)) for side in (a, b))
        if len(first) != len(second):
            continue
        for one, other in zip(first, second, strict=True):
            if one.weights.shape != other.weights.shape:
                continue
            same = [k for k, _ in one.parts] == [k for k, _ in other.parts]
            is_right = _are_same(one, other) if same else _are_folded(one, other)
            if not is_right and not _make_equal_codes(a, one, b, other):
                whole = [one.weights * one.factor[:, np.newaxis]]
                whole += [other.weights * other.factor[:, np.newaxis]]
                reach = ROUNDED * np.maximum(*map(np.abs, whole))
                is_near |= bool(np.all(np.abs(whole[0] - whole[1]) <= reach))
                continue
            nodes.update(one.nodes, other.nodes)
            # A factor behind an integer product holds two scales, rounded once.
            if not (same and is_right and np.array_equal(one.weights, other.weights)):
                folded.append(label(one.nodes[0]))
    return nodes, tuple(folded), is_near


def _are_same(one: ParameterLayer, other: ParameterLayer) -> bool:
    parts = zip(one.parts, other.parts, strict=True)
    if not all(np.array_equal(x, y) for (_, x), (_, y) in parts):
        return False
    if np.array_equal(one.weights, other.weights):
        return True
    first, second = one.codes, other.codes
    if first is None or second is None or not np.array_equal(first.weights, second.weights):
        return False
    if not np.array_equal(first.unit, second.unit):
        return False
    # A factor behind an integer product holds both scales, rounded once.
    return np.array_equal(*(np.float32(codes.read) * codes.scale for codes in (first, second)))


def _are_folded(one: ParameterLayer, other: ParameterLayer) -> bool:
    """Return whether both layers are one function of reals, but for roundings of folding."""
    if all(map(_adds_one_offset, (one, other))) and np.any(one.offset != other.offset):
        return False  # no folding reaches what is added last
    rows = one.factor[:, np.newaxis], other.factor[:, np.newaxis]
    whole = [layer.weights * row for layer, row in zip((one, other), rows, strict=True)]
    apart = np.abs(whole[0] - whole[1])
    largest = np.maximum(*map(np.abs, whole))
    if np.any(apart > sum_error(FOLD_ROUNDINGS, largest, FLOAT32_UNIT)):
        return False
    # What nothing took up was not folded, however near to one it is.
    quotient = rows[0] / rows[1]
    left = np.abs(one.weights * (quotient - 1)) if quotient.size else apart
    untouched = (one.weights == other.weights) & (left > 0)
    if np.any(untouched) and not _are_respelled(one, other):
        return False
    error = sum_error(FOLD_ROUNDINGS, one.size + other.size, FLOAT32_UNIT)
    slack = one.half_step + other.half_step
    return bool(np.all(np.abs(one.offset - other.offset) <= error + slack))


def _are_respelled(one: ParameterLayer, other: ParameterLayer) -> bool:
    """Return whether normalizations of one side are a product and a sum on the other.

    A quotient is no product: a tenth in float32 is another number than the one of 10.
    """
    first, second = ([k for k, _ in layer.parts if k != "add"] for layer in (one, other))
    pairs = [{*kinds} for kinds in zip(first, second, strict=False)]
    return len(first) == len(second) and all(kinds == {"norm", "Mul"} for kinds in pairs)


def _adds_one_offset(layer: ParameterLayer) -> bool:
    """Return whether a stored offset is added last, and is the only one."""
    offsets = [kind for kind, _ in layer.parts if kind in {"add", "norm"}]
    is_last = offsets == ["add"] and layer.parts[-1][0] == "add"
    return is_last and not np.any(layer.half_step)


def _make_equal_codes(
    a: ParameterSide, one: ParameterLayer, b: ParameterSide, other: ParameterLayer
) -> bool:
    """Return whether both layers make the same code of every whole sum that can reach them.

    An integer layer may have another factor and bias than the layer that it stands for, chosen
    so that the quantizer behind gives the same codes. Sums are exact in both; what a factor
    makes of them is compared as a real number.
    """
    first, second = one.codes, other.codes
    if first is None or second is None or not np.array_equal(first.weights, second.weights):
        return False
    ends = _steps_behind(a, one.last), _steps_behind(b, other.last)
    if ends[0] is None or ends[1] is None:
        return False
    low, high = np.minimum(first.low, second.low), np.maximum(first.high, second.high)
    if np.sum(high - low + 1) > _MOST_SUMS:
        return False
    for channel, (start, end) in enumerate(zip(low, high, strict=True)):
        sums = np.arange(start, end + 1, dtype=np.float64)
        made = []
        for layer, codes, steps in ((one, first, ends[0]), (other, second, ends[1])):
            scale = float(codes.scale[channel if codes.scale.size > 1 else 0])
            gain = layer.factor[channel] * scale * codes.read * int(codes.unit[channel])
            made.append(_run_steps(steps, sums * gain + layer.offset[channel]))
        if not np.array_equal(made[0], made[1]):
            return False
    return True


def _steps_behind(side: ParameterSide, node: Node) -> list[Node] | None:
    """Return the nodes behind a layer up to a quantizer of one scale; ``None`` without one."""
    found: list[Node] = []
    while only_reader(node.outputs[0]):
        (node,) = readers(node.outputs[0])
        found.append(node)
        if dialect.is_quantizer(node):
            quant = dialect.read_quantizer(node)
            known = isinstance(quant, IntQuant) and single_value(quant.scale) is not None
            return found if known else None
        if node.domain not in dialect.STANDARD_DOMAINS or node.op_type != "Relu":
            return None
    return None


def _run_steps(steps: Sequence[Node], x: Array) -> Array:
    for node in steps:
        is_last = dialect.is_quantizer(node)
        x = quantize(x, dialect.read_quantizer(node)) if is_last else np.maximum(x, 0.0)
    return x


def _differ_in_type_alone(nodes: Sequence[Node | None]) -> bool:
    """Return whether quantizers make the same levels, stored in codes of another type.

    int8 with the zero point 0 and uint8 with 128, added behind rounding, are one function.
    """
    quants = [
        dialect.read_quantizer(n) for n in nodes if n is not None and dialect.is_quantizer(n)
    ]
    levels = []
    for quant in quants:
        if not isinstance(quant, IntQuant):
            return False
        bits, zero = single_value(quant.bits), single_value(quant.zero_point)
        if bits is None or zero is None or (zero and not quant.zero_point_after_rounding):
            return False
        ends = integer_bounds(bits, signed=quant.signed, narrow=quant.narrow)
        levels.append((ends[0] - zero, ends[1] - zero, quant.rounding))
    if len(levels) < 2 or levels[0] != levels[1]:
        return False
    first, second = (np.asarray(quant.scale) for quant in quants)
    return first.shape == second.shape and bool(np.array_equal(first, second))


def _same_values(sides: Sequence[ParameterSide], nodes: Sequence[Node | None]) -> bool:
    """Return whether two quantizers of constants make the same values."""
    made = [
        side.constant(node.outputs[0])
        for side, node in zip(sides, nodes, strict=True)
        if node is not None and dialect.is_quantizer(node)
    ]
    one, other = made if len(made) == 2 else (None, None)
    return one is not None and other is not None and np.array_equal(one, other)


def _moving(side: ParameterSide, node: Node) -> list[Array]:
    """Return the numbers by which a node multiplies, adds or quantizes what is computed.

    Powers of two are left out, which round nothing: what they change is no noise by itself.
    """
    if dialect.is_quantizer(node) or operators.is_qdq(node):
        own = None if node.inputs[0] in side.known else side.constant(node.inputs[1])
    elif node.op_type == "BatchNormalization":
        known = [x for v in node.inputs if (x := side.constant(v)) is not None]
        return [] if batchnorm_parameters(node) is None else known
    else:
        own = constant_operand(side, node)
    if own is None:
        return []
    moves = np.any(own) if operators.adds(node) else np.any(np.abs(np.frexp(own)[0]) != 0.5)
    return [own] if moves else []


def _is_nearly_stored(numbers: Sequence[Array], other: ParameterSide) -> bool:
    """Return whether the other side holds one of some numbers, but for a rounding."""
    return any(
        x.size == known.values.size
        and known.values.dtype == x.dtype
        and np.any(x)
        and np.allclose(known.values.reshape(-1), x.reshape(-1), rtol=ROUNDED, atol=0.0)
        for x in numbers
        for known in other.known.values()
    )


def _is_stored(numbers: Sequence[Array], other: ParameterSide) -> bool:
    """Return whether the other side holds all numbers too, in any shape."""
    theirs = {x.values.tobytes() for x in other.known.values()}
    return all(x.tobytes() in theirs for x in numbers)
