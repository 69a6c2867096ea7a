"""Parts of two graphs that are affine in one value: whether they are one function of reals.

A part is run on zeros and on every unit vector, in float64: that is its matrix. Two parts
compute the same in exact arithmetic where their matrices are equal, whatever layers they are
made of. What float32 makes of each is off by at most the bound of its sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx_ir import Node, Value

from qonnx_hub.equivalence.proof.deadline import Deadline
from qonnx_hub.equivalence.proof.proof_model import ProofModel
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.analysis.float_error import FLOAT32_UNIT, sum_error
from qonnx_hub_ir.graph.queries import attribute, dims, element_count
from qonnx_hub_ir.quantizers import Array

MOST_ELEMENTS = 4096
"""Elements of a part's input up to which its matrix is computed."""

_SAME = 2.0**-46
"""Relative difference of two matrix entries that rounding to float64 explains."""


_NEAR = 1e-3
"""Entries further apart, relative to the largest of their column, are of other layers."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a graph that is affine in one value.

    Attributes:
        side: The model.
        source: The value.
        target: What it makes.
        nodes: Its nodes, in order.
    """

    side: ProofModel
    source: Value
    target: Value
    nodes: tuple[Node, ...]

    @property
    def terms(self) -> int:
        """Products in one sum, of all layers together, and the other operations."""
        products = [node for node in self.nodes if operators.is_product(node)]
        return len(self.nodes) + 2 + sum(self._terms_of(node) for node in products)

    def _terms_of(self, node: Node) -> int:
        known = [self.side.constants[v] for v in node.inputs[:2] if v in self.side.constants]
        if not operators.is_convolution(node):
            return int(max(known[0].shape))
        return int(known[0].size // min(known[0].shape[:2]))


def is_reshape(node: Node) -> bool:
    """Return whether a node keeps all elements in their order in memory."""
    return node.domain in dialect.STANDARD_DOMAINS and operators.reshapes(node)


def is_affine(side: ProofModel, node: Node) -> bool:
    """Return whether a node is affine in its one input that is not constant."""
    moving = [v for v in node.inputs if v is not None and v not in side.constants]
    if node.domain not in dialect.STANDARD_DOMAINS or len(moving) != 1:
        return False
    if is_reshape(node) or operators.permutes(node) or operators.is_product(node):
        return True
    if node.op_type == "BatchNormalization":
        return not attribute(node, "training_mode", 0)
    # A number divided by a value is not affine in it.
    return operators.is_affine(node) and (node.op_type != "Div" or node.inputs[0] is moving[0])


def scales(node: Node) -> bool:
    """Return whether a node is affine in every element by itself."""
    return operators.is_affine(node) or node.op_type == "BatchNormalization"


def segment_to(side: ProofModel, target: Value, stops: Any) -> Segment | None:
    """Return the affine part that ends in a value and starts at one that ``stops`` holds."""
    nodes: list[Node] = []
    value = target
    while not stops(value):
        node = value.producer()
        if node is None or value in side.constants or not is_affine(side, node):
            return None
        nodes.append(node)
        (value,) = side.sources(node)
    if not any(operators.is_product(node) for node in nodes):
        return None
    return Segment(side, value, target, tuple(reversed(nodes)))


def run(part: Segment, x: Array, *, magnitudes: bool = False) -> Array:
    """Return what a part makes of a value in float64.

    Args:
        part: The part.
        x: The value.
        magnitudes: Take the magnitude of every factor and addend: sums of magnitudes of all
            terms, of a value whose elements are not negative.
    """
    values: dict[Value, Array] = {part.source: x.astype(np.float64)}
    for node in part.nodes:
        fed: list[Array | None] = []
        for value in node.inputs:
            if value is None:
                fed.append(None)
                continue
            given = values.get(value)
            if given is None:
                given = part.side.constants[value]
                given = given.astype(np.float64) if given.dtype.kind == "f" else given
                given = np.abs(given) if magnitudes and given.dtype.kind == "f" else given
            fed.append(given)
        made = _magnitude(node, fed) if magnitudes else None
        if made is None:
            made = np.asarray(part.side.free_kernel(node)(*fed))
        values[node.outputs[0]] = made
    return values[part.target]


def _magnitude(node: Node, fed: Sequence[Any]) -> Array | None:
    """Return the sum of magnitudes where magnitudes of constants do not give it."""
    if node.op_type == "Sub":
        return np.asarray(fed[0] + fed[1])
    if node.op_type == "Gemm":
        a, b, *rest = fed
        a = a.T if attribute(node, "transA", 0) else a
        b = b.T if attribute(node, "transB", 0) else b
        sums = abs(attribute(node, "alpha", 1.0)) * (a @ b)
        addend = rest[0] if rest else None
        if addend is not None:
            sums = sums + abs(attribute(node, "beta", 1.0)) * addend
        return np.asarray(sums)
    if node.op_type != "BatchNormalization":
        return None
    x, gain, shift, mean, variance = fed
    along = (-1, *(1,) * (x.ndim - 2))
    factor = gain / np.sqrt(variance + float(attribute(node, "epsilon", 1e-5)))
    return np.asarray((x + mean.reshape(along)) * factor.reshape(along) + shift.reshape(along))


def input_shape(part: Segment) -> tuple[int, ...] | None:
    """Return the shape of a part's input, open sizes as 1; ``None`` if it is too large."""
    sizes = dims(part.source)
    if sizes is None:
        return None
    shape = tuple(size if isinstance(size, int) else 1 for size in sizes)
    count = element_count(shape)
    return shape if count and count <= MOST_ELEMENTS else None


@dataclass(frozen=True, slots=True)
class SegmentDifference:
    """How two affine parts compare.

    Attributes:
        same: Whether they are one function in exact arithmetic.
        bound: How far apart float32 runs of both can be.
    """

    same: bool
    bound: float


def seem_near(one: Segment, other: Segment) -> bool:
    """Return whether two parts make nearly the same of some numbers: a quick first look."""
    shape, theirs = input_shape(one), input_shape(other)
    if shape is None or theirs is None or element_count(shape) != element_count(theirs):
        return False
    x = np.random.default_rng(0).normal(size=element_count(shape) or 0)
    first, second = _flat(one, x, shape), _flat(other, x, theirs)
    if first.shape != second.shape:
        return False
    largest = float(np.max(np.abs(first) + np.abs(second), initial=0.0))
    return bool(np.all(np.abs(first - second) <= _NEAR * largest))


def compare_segments(
    one: Segment, other: Segment, reach: float, deadline: Deadline
) -> SegmentDifference | None:
    """Return how far apart two affine parts are on inputs up to a magnitude.

    Args:
        one: A part.
        other: Another one, whose input has the same elements.
        reach: Largest magnitude of the input's elements.
        deadline: When to give up.

    Returns:
        ``None`` where their matrices are not computed, or are not near each other.
    """
    shape, theirs = input_shape(one), input_shape(other)
    if shape is None or theirs is None or element_count(shape) != element_count(theirs):
        return None
    count = element_count(shape) or 0
    zeros = np.zeros(count, dtype=np.float64)
    at_zero = [_flat(part, zeros, s) for part, s in ((one, shape), (other, theirs))]
    if at_zero[0].shape != at_zero[1].shape:
        return None
    rest = np.abs(at_zero[0] - at_zero[1])
    same = bool(np.all(rest <= _SAME * (np.abs(at_zero[0]) + np.abs(at_zero[1]))))
    total = rest
    for index in range(count):
        if deadline.passed():
            return None
        unit = zeros.copy()
        unit[index] = 1.0
        first, second = (
            _flat(part, unit, s) - zero
            for part, s, zero in ((one, shape, at_zero[0]), (other, theirs, at_zero[1]))
        )
        apart, size = np.abs(first - second), np.abs(first) + np.abs(second)
        # The bias has been added and taken off again.
        margin = _SAME * (size + np.abs(at_zero[0]) + np.abs(at_zero[1]))
        if np.any(apart > _NEAR * np.max(size) + margin):
            return None
        same &= bool(np.all(apart <= margin))
        total = total + apart * reach
    error = 0.0
    for part, sizes in ((one, shape), (other, theirs)):
        sums = run(part, np.full(sizes, reach, dtype=np.float64), magnitudes=True)
        error += sum_error(part.terms, float(np.max(sums, initial=0.0)), FLOAT32_UNIT)
    return SegmentDifference(same, float(np.max(total, initial=0.0)) + error)


def _flat(part: Segment, x: Array, shape: tuple[int, ...]) -> Array:
    return run(part, x.reshape(shape)).reshape(-1)
