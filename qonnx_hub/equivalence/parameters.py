"""Parameters of two graphs: which differ from their counterpart, have none, or were folded.

What is stored in another form is compared by the values it makes: codes and scales of weights
by the weights, an epilogue's factor by the product of both scales, a bias inside a product
with one that is added behind it. A layer that has lost a factor or an offset is compared by
what its parameters make together, which may be off by the roundings of folding and half a step
of a quantized bias; or by the codes that it gives for every whole sum that can reach it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub.equivalence.sum_enclosures import FOLD_ROUNDINGS
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.analysis import Constant, infer_constants
from qonnx_hub_ir.analysis.float_error import FLOAT32_UNIT, sum_error
from qonnx_hub_ir.graph.affine import batchnorm_affine, batchnorm_parameters
from qonnx_hub_ir.graph.queries import attribute, only_reader, producer, readers
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
    """

    changed: tuple[str, ...] = ()
    unmatched: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()


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
    sides = _Side(a), _Side(b)
    explained, folded = _explained(*sides)
    changed = []
    for change in found.changes:
        nodes = [
            side.named.get(n) for side, n in zip(sides, (change.a, change.b), strict=True)
        ]
        is_known = all(node in explained for node in nodes) or _same_values(sides, nodes)
        is_written = change.kind == "attribute" and "not given" not in {
            change.before,
            change.after,
        }
        if is_written or (change.kind == "quantizer" and not is_known):
            changed.append(str(change))
    # Differences of weights bear the names of the first model.
    own = (node for node in sides[0].nodes if node in explained)
    names = {str(v.name) for node in own for v in node.inputs if v is not None}
    weights = [w for w in found.weights if np.isfinite(w.largest) and w.name not in names]
    gone = {c.a or c.b for c in found.changes if c.kind in {"missing", "added"}}
    unmatched = tuple(
        f"{label(node)} has no counterpart, and no folding explains it"
        for own, other in (sides, sides[::-1])
        for node in own.nodes
        if node not in explained and label(node) in gone
        if not _is_stored(_moving(own, node), other)
    )
    return ParameterComparison((*changed, *map(str, weights)), unmatched, folded)


class _Side:
    """A graph with its constants and its layers.

    Attributes:
        nodes: Its nodes.
        known: Value -> what it is for all inputs.
        named: Label -> the only node of that label.
    """

    def __init__(self, model: Model) -> None:
        found = infer_constants(model)
        self.nodes = list(model.graph)
        values = [*model.graph.initializers.values()]
        values += [value for node in self.nodes for value in node.outputs]
        self.known: Mapping[Value, Constant] = {
            v: found[name] for v in values if (name := str(v.name)) in found
        }
        count = Counter(map(label, self.nodes))
        self.named = {label(n): n for n in self.nodes if count[label(n)] == 1}

    def constant_of(self, value: Value | None) -> Constant | None:
        return None if value is None else self.known.get(value)

    def constant(self, value: Value | None) -> Array | None:
        known = self.constant_of(value)
        return None if known is None else known.values


@dataclass(frozen=True, slots=True)
class _Codes:
    """What a product multiplies, in codes.

    Attributes:
        weights: Whole numbers of shape (channels, terms), without a common divisor.
        unit: The divisor that was taken out, of shape (channels,).
        scale: float32, of the weights: one for all, or for each channel.
        read: Scale of what they are multiplied with.
        low: Lowest whole sum of each channel.
        high: Highest one.
    """

    weights: Array
    unit: Array
    scale: Array
    read: float
    low: Array
    high: Array


@dataclass(frozen=True, slots=True)
class _Layer:
    """A product with constant weights, or none, and the factors and offsets around it.

    Attributes:
        nodes: All of its nodes, quantizers of its parameters among them.
        weights: float64 of shape (channels, terms).
        parts: Kind and numbers of what follows, each as stored.
        factor: What multiplies the weights, of shape (channels,).
        offset: What is added in the end, likewise.
        size: Magnitude of all that is added, likewise.
        half_step: Half a step of a quantized bias, likewise.
        codes: What its product multiplies, in codes, where these are known.
        last: The node that makes its result.
    """

    nodes: tuple[Node, ...]
    weights: Array
    parts: tuple[tuple[str, Array], ...]
    factor: Array
    offset: Array
    size: Array
    half_step: Array
    codes: _Codes | None
    last: Node


def _explained(a: _Side, b: _Side) -> tuple[set[Node], tuple[str, ...]]:
    """Return the nodes whose parameters are right, and the names of layers that folded."""
    nodes: set[Node] = set()
    folded = []
    for with_product in (True, False):
        first, second = (list(_layers(side, products=with_product)) for side in (a, b))
        if len(first) != len(second):
            continue
        for one, other in zip(first, second, strict=True):
            if one.weights.shape != other.weights.shape:
                continue
            same = [k for k, _ in one.parts] == [k for k, _ in other.parts]
            is_right = _are_same(one, other) if same else _are_folded(one, other)
            if not is_right and not _make_equal_codes(a, one, b, other):
                continue
            nodes.update(one.nodes, other.nodes)
            if not (same and is_right):
                folded.append(label(one.nodes[0]))
    return nodes, tuple(folded)


def _are_same(one: _Layer, other: _Layer) -> bool:
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


def _are_folded(one: _Layer, other: _Layer) -> bool:
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
    if np.any(untouched):
        return False
    error = sum_error(FOLD_ROUNDINGS, one.size + other.size, FLOAT32_UNIT)
    slack = one.half_step + other.half_step
    return bool(np.all(np.abs(one.offset - other.offset) <= error + slack))


def _adds_one_offset(layer: _Layer) -> bool:
    """Return whether a stored offset is added last, and is the only one."""
    offsets = [kind for kind, _ in layer.parts if kind in {"add", "norm"}]
    is_last = offsets == ["add"] and layer.parts[-1][0] == "add"
    return is_last and not np.any(layer.half_step)


def _layers(side: _Side, *, products: bool) -> Iterator[_Layer]:
    """Give the layers of a graph in order: around products, or of factors alone."""
    taken: set[Node] = set()
    for node in filter(operators.is_product, side.nodes):
        weights = _weights_of(side, node)
        if weights is None:
            continue
        behind = tuple(_affine_behind(side, node.outputs[0], len(weights)))
        taken.update(behind)
        if products and (found := _layer_of(side, node, weights, behind)) is not None:
            yield found
    if products:
        return
    for node in side.nodes:
        if node in taken or (width := _width(side, node)) is None:
            continue
        nodes = (node, *_affine_behind(side, node.outputs[0], width))
        taken.update(nodes)
        found = _layer_of(side, None, np.ones((width, 1), np.float64), nodes)
        if found is not None:
            yield found


def _weights_of(side: _Side, node: Node) -> Array | None:
    """Return constant weights as float64 of shape (channels, terms)."""
    weights = side.constant(node.inputs[1])
    if weights is None or weights.dtype.kind != "f" or weights.ndim < 2:
        return None
    is_plain = operators.is_matrix_product(node) and weights.ndim == 2
    if not is_plain and node.op_type != "Conv":
        return None
    return _rows(node, weights).astype(np.float64)


def _rows(product: Node, weights: Array) -> Array:
    """Return weights of a product in the shape (channels, terms)."""
    if operators.is_convolution(product):
        return weights.reshape(len(weights), -1)
    is_turned = product.op_type == "Gemm" and attribute(product, "transB", 0)
    return np.asarray(weights if is_turned else weights.T)


def _affine_behind(side: _Side, value: Value, width: int) -> Iterator[Node]:
    """Give the factors and offsets that follow a value, one after another."""
    while only_reader(value):
        (node,) = readers(value)
        if value not in node.inputs or _width(side, node, width) is None:
            return
        yield node
        value = node.outputs[0]


def _width(side: _Side, node: Node, width: int | None = None) -> int | None:
    """Return the channels of a constant factor or offset, which may be one number for all."""
    if node.domain not in dialect.STANDARD_DOMAINS:
        return None
    if node.op_type == "BatchNormalization":
        known = batchnorm_parameters(node)
        return None if known is None or width not in {None, known[0].size} else known[0].size
    own = _operand(side, node)
    if own is None or (
        not operators.is_commutative(node) and node.inputs[1] not in side.known
    ):
        return None
    size = max(own.shape, default=1)
    if own.size != size or (width not in {None, size} and size != 1):
        return None
    return size if width is None else width


def _operand(side: _Side, node: Node) -> Array | None:
    """Return the one constant of a factor or an offset, in floats."""
    if not operators.is_affine(node) or node.domain not in dialect.STANDARD_DOMAINS:
        return None
    known = [x for v in node.inputs if (x := side.constant(v)) is not None]
    return known[0] if len(known) == 1 and known[0].dtype.kind == "f" else None


def _layer_of(
    side: _Side, product: Node | None, weights: Array, behind: Sequence[Node]
) -> _Layer | None:
    count = len(weights)
    factor, offset, size, half = (np.full(count, x, np.float64) for x in (1.0, 0.0, 0.0, 0.0))
    parts: list[tuple[str, Array]] = []
    place = None if product is None else operators.bias_input(product)
    bias = None
    if product is not None and place is not None and len(product.inputs) > place:
        bias = product.inputs[place]
    if bias is not None:
        known = side.known.get(bias)
        if known is None or known.values.size not in {1, count}:
            return None
        offset = offset + known.values.astype(np.float64).reshape(-1)
        size = np.abs(offset)
        parts += [("add", known.values.reshape(-1))] if np.any(offset) else []
        is_grid = known.declared is not None and known.scale is not None
        half = half + (
            known.scale.reshape(-1) / 2 if is_grid and known.scale is not None else 0
        )
    for node in behind:
        kind, stored, gain, added, extent = _step(side, node)
        factor, offset = factor * gain, offset * gain + added
        size, half = size * np.abs(gain) + extent, half * np.abs(gain)
        if kind:
            parts.append((kind, stored))
    codes = None if product is None else _codes_of(side, product)
    first = [] if product is None else [product, *map(producer, product.inputs[1:])]
    own = (n for n in first if n is not None and (n is product or dialect.is_quantizer(n)))
    nodes = (*own, *behind)
    last = behind[-1] if behind else nodes[0]
    return _Layer(nodes, weights, tuple(parts), factor, offset, size, half, codes, last)


def _step(side: _Side, node: Node) -> tuple[str, Array, Array, Array, Array]:
    """Return the kind of a factor or offset, its numbers, and what it makes of a value."""
    known = batchnorm_parameters(node) if node.op_type == "BatchNormalization" else None
    if known is not None:
        *arrays, epsilon = known
        gain, shift, mean, variance = (x.astype(np.float64) for x in arrays)
        factor, offset = batchnorm_affine(gain, shift, mean, variance, epsilon)
        stored = np.append(np.concatenate(arrays), np.float32(epsilon))
        return "norm", stored, factor, offset, np.abs(shift) + np.abs(mean * factor)
    own = _operand(side, node)
    assert own is not None, "only factors and offsets are steps"
    flat, nothing = own.reshape(-1), np.zeros(1, np.float64)
    wide = flat.astype(np.float64)
    if operators.multiplies(node):
        gain = wide if node.op_type == "Mul" else 1 / wide
        return "" if np.all(gain == 1) else node.op_type, flat, gain, nothing, nothing
    added = wide if node.op_type == "Add" else -wide
    kind = "add" if np.any(wide) else ""
    return kind, added.astype(flat.dtype), np.ones(1, np.float64), added, np.abs(added)


def _codes_of(side: _Side, product: Node) -> _Codes | None:
    """Return what a product multiplies, in codes; ``None`` where these are not known."""
    weights = side.constant_of(product.inputs[1])
    source = producer(product.inputs[0])
    while source is not None and operators.keeps_values(source):
        source = producer(source.inputs[0])
    if source is None or not dialect.is_quantizer(source) or weights is None:
        return None
    quant = dialect.read_quantizer(source)
    if not isinstance(quant, IntQuant) or weights.integers is None or weights.scale is None:
        return None
    read, bits = single_value(quant.scale), single_value(quant.bits)
    zero = 0.0 if quant.zero_point is None else single_value(quant.zero_point)
    if read is None or bits is None or zero is None or weights.scale.size < 1:
        return None
    ends = integer_bounds(bits, signed=quant.signed, narrow=quant.narrow)
    low, high = (min(ends[0] - zero, 0.0), max(ends[1] - zero, 0.0))
    whole = _rows(product, weights.integers)
    unit = np.maximum(np.gcd.reduce(whole, axis=1), 1)
    rows = (whole // unit[:, np.newaxis]).astype(np.float64)
    above, below = np.maximum(rows, 0).sum(axis=1), np.minimum(rows, 0).sum(axis=1)
    scale = weights.scale.astype(np.float32).reshape(-1)
    reach = above * low + below * high, above * high + below * low
    return _Codes(rows, unit, scale, read, *reach)


def _make_equal_codes(a: _Side, one: _Layer, b: _Side, other: _Layer) -> bool:
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


def _steps_behind(side: _Side, node: Node) -> list[Node] | None:
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


def _same_values(sides: Sequence[_Side], nodes: Sequence[Node | None]) -> bool:
    """Return whether two quantizers of constants make the same values."""
    made = [
        side.constant(node.outputs[0])
        for side, node in zip(sides, nodes, strict=True)
        if node is not None and dialect.is_quantizer(node)
    ]
    one, other = made if len(made) == 2 else (None, None)
    return one is not None and other is not None and np.array_equal(one, other)


def _moving(side: _Side, node: Node) -> list[Array]:
    """Return the numbers by which a node multiplies, adds or quantizes what is computed.

    Powers of two are left out, which round nothing: what they change is no noise by itself.
    """
    if dialect.is_quantizer(node) or operators.is_qdq(node):
        own = None if node.inputs[0] in side.known else side.constant(node.inputs[1])
    elif node.op_type == "BatchNormalization":
        known = [x for v in node.inputs if (x := side.constant(v)) is not None]
        return [] if batchnorm_parameters(node) is None else known
    else:
        own = _operand(side, node)
    if own is None:
        return []
    moves = np.any(own) if operators.adds(node) else np.any(np.abs(np.frexp(own)[0]) != 0.5)
    return [own] if moves else []


def _is_stored(numbers: Sequence[Array], other: _Side) -> bool:
    """Return whether the other side holds all numbers too, in any shape."""
    theirs = {x.values.tobytes() for x in other.known.values()}
    return all(x.tobytes() in theirs for x in numbers)
