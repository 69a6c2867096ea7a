"""Layers of a graph by their parameters: weights, and the factors and offsets around them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.analysis import Constant, infer_constants
from qonnx_hub_ir.graph.affine import batchnorm_affine, batchnorm_parameters
from qonnx_hub_ir.graph.queries import attribute, only_reader, producer, readers
from qonnx_hub_ir.quantizers import Array, IntQuant, integer_bounds, single_value
from qonnx_hub_ir.validity import label


class ParameterSide:
    """A graph with its constants and its layers.

    Attributes:
        nodes: Its nodes.
        known: Value -> what it is for all inputs.
        named: Label -> the only node of that label.
    """

    def __init__(self, model: Model) -> None:
        """Compute the constants of a graph."""
        found = infer_constants(model)
        self.nodes = list(model.graph)
        values = [*model.graph.initializers.values()]
        values += [value for node in self.nodes for value in node.outputs]
        self.known: Mapping[Value, Constant] = {
            v: found[name] for v in values if (name := str(v.name)) in found
        }
        count = Counter(map(label, self.nodes))
        self.named = {label(n): n for n in self.nodes if count[label(n)] == 1}

    def stored(self) -> dict[str, Array]:
        """Return name of a value -> what it is for all inputs."""
        return {str(value.name): known.values for value, known in self.known.items()}

    def constant_of(self, value: Value | None) -> Constant | None:
        """Return what is known of a value that depends on no input."""
        return None if value is None else self.known.get(value)

    def constant(self, value: Value | None) -> Array | None:
        """Return what a value is for all inputs, or ``None``."""
        known = self.constant_of(value)
        return None if known is None else known.values


@dataclass(frozen=True, slots=True)
class ProductCodes:
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
class ParameterLayer:
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
    codes: ProductCodes | None
    last: Node


def find_layers(side: ParameterSide, *, products: bool) -> Iterator[ParameterLayer]:
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


def _weights_of(side: ParameterSide, node: Node) -> Array | None:
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


def _affine_behind(side: ParameterSide, value: Value, width: int) -> Iterator[Node]:
    """Give the factors and offsets that follow a value, one after another.

    Behind what moves elements only those of one number for all are the layer's still.
    """
    moved = False
    while only_reader(value):
        (node,) = readers(value)
        if value not in node.inputs:
            return
        if operators.moves_values(node) and value is node.inputs[0]:
            moved = True
        elif _width(side, node, width) is None or (moved and not _is_single(side, node)):
            return
        else:
            yield node
        value = node.outputs[0]


def _is_single(side: ParameterSide, node: Node) -> bool:
    own = constant_operand(side, node)
    return own is not None and own.size == 1 and operators.multiplies(node)


def _width(side: ParameterSide, node: Node, width: int | None = None) -> int | None:
    """Return the channels of a constant factor or offset, which may be one number for all."""
    if node.domain not in dialect.STANDARD_DOMAINS:
        return None
    if node.op_type == "BatchNormalization":
        known = batchnorm_parameters(node)
        return None if known is None or width not in {None, known[0].size} else known[0].size
    own = constant_operand(side, node)
    if own is None or (
        not operators.is_commutative(node) and node.inputs[1] not in side.known
    ):
        return None
    size = max(own.shape, default=1)
    if own.size != size or (width not in {None, size} and size != 1):
        return None
    return size if width is None else width


def constant_operand(side: ParameterSide, node: Node) -> Array | None:
    """Return the one constant of a factor or an offset, in floats."""
    if not operators.is_affine(node) or node.domain not in dialect.STANDARD_DOMAINS:
        return None
    known = [x for v in node.inputs if (x := side.constant(v)) is not None]
    return known[0] if len(known) == 1 and known[0].dtype.kind == "f" else None


def _layer_of(
    side: ParameterSide, product: Node | None, weights: Array, behind: Sequence[Node]
) -> ParameterLayer | None:
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
    return ParameterLayer(
        nodes, weights, tuple(parts), factor, offset, size, half, codes, last
    )


def _step(side: ParameterSide, node: Node) -> tuple[str, Array, Array, Array, Array]:
    """Return the kind of a factor or offset, its numbers, and what it makes of a value."""
    known = batchnorm_parameters(node) if node.op_type == "BatchNormalization" else None
    if known is not None:
        *arrays, epsilon = known
        gain, shift, mean, variance = (x.astype(np.float64) for x in arrays)
        factor, offset = batchnorm_affine(gain, shift, mean, variance, epsilon)
        stored = np.append(np.concatenate(arrays), np.float32(epsilon))
        return "norm", stored, factor, offset, np.abs(shift) + np.abs(mean * factor)
    own = constant_operand(side, node)
    assert own is not None, "only factors and offsets are steps"
    flat, nothing = own.reshape(-1), np.zeros(1, np.float64)
    wide = flat.astype(np.float64)
    if operators.multiplies(node):
        gain = wide if node.op_type == "Mul" else 1 / wide
        return "" if np.all(gain == 1) else node.op_type, flat, gain, nothing, nothing
    added = wide if node.op_type == "Add" else -wide
    kind = "add" if np.any(wide) else ""
    return kind, added.astype(flat.dtype), np.ones(1, np.float64), added, np.abs(added)


def _codes_of(side: ParameterSide, product: Node) -> ProductCodes | None:
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
    return ProductCodes(rows, unit, scale, read, *reach)
