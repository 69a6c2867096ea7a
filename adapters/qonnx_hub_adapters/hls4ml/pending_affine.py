"""What a value of the source is in the graph for hls4ml: a value, and what is yet to be done.

Scaling by a quantizer's step, a batch normalization, additions of constants are all
``y = x * factor + offset`` per channel. They are not written where the source has them but
collected, moved across layers that allow it, and written as one operation where the first
reader needs the result. So the layers in between compute on integers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from onnx_ir import Value

from qonnx_hub_ir.quantizers import Array, is_power_of_two


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One operation ``y = x * factor + offset`` of the source.

    Attributes:
        factor: float64, of shape () or (C,) along the last axis as it is stored.
        offset: Likewise.
        divisor: What the source divides by, float32, where it does.
        norm: Scale, bias, mean and variance of the source's batch normalization, with its
            epsilon, where it is one.
    """

    factor: Array
    offset: Array
    divisor: Array | None = None
    norm: tuple[Array, Array, Array, Array, float] | None = None

    def is_product(self) -> bool:
        """Return whether nothing is added."""
        return not np.any(self.offset)

    def is_positive(self) -> bool:
        """Return whether it keeps order and signs: a product with positive factors."""
        return self.is_product() and bool(np.all(self.factor > 0))

    def is_scalar(self) -> bool:
        """Return whether it is the same for every channel."""
        return self.factor.size == 1 and self.offset.size == 1

    def moved(self, order: Array) -> Step:
        """Return the step for channels in another order, or repeated."""
        norm = self.norm
        if norm is not None:
            scale, bias, mean, variance = (_pick(p, order) for p in norm[:4])
            norm = (scale, bias, mean, variance, norm[4])
        divisor = None if self.divisor is None else _pick(self.divisor, order)
        return Step(_pick(self.factor, order), _pick(self.offset, order), divisor, norm)


def _pick(values: Array, order: Array) -> Array:
    return values if values.size == 1 else values[order]


def multiply(factor: Array) -> Step:
    """Return the step that multiplies."""
    return Step(_double(factor), np.zeros((), dtype=np.float64))


def divide(divisor: Array) -> Step:
    """Return the step that divides, as the source does: in float32, by this number."""
    single = _flat(divisor).astype(np.float32)
    return Step(
        1.0 / single.astype(np.float64), np.zeros((), dtype=np.float64), divisor=single
    )


def add(offset: Array) -> Step:
    """Return the step that adds."""
    return Step(np.ones((), dtype=np.float64), _double(offset))


def normalize(scale: Array, bias: Array, mean: Array, variance: Array, epsilon: float) -> Step:
    """Return the step that a batch normalization is, folded in float32.

    The order of operations is that of onnxruntime: reciprocal of the root, times scale.
    """
    spread = variance.astype(np.float32) + np.asarray(epsilon, dtype=np.float32)
    factor = np.reciprocal(np.sqrt(spread)) * scale.astype(np.float32)
    offset = bias.astype(np.float32) - mean.astype(np.float32) * factor
    given = (scale, bias, mean, variance, epsilon)
    return Step(_double(factor), _double(offset), norm=given)


def _flat(values: Array) -> Array:
    return values.reshape(()) if values.size == 1 else values.reshape(-1)


def _double(values: Array) -> Array:
    return _flat(np.asarray(values)).astype(np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """A value of the source as it stands in the new graph.

    Attributes:
        value: What is stored.
        shape: The source's shape, with batch 1.
        axes: For each axis of the source, the axis on which it is stored.
        steps: What is yet to be done, in order.
        relu: Whether negative values become 0 after the steps.
        order: For stored rows that are in another order than the source's: the source's
            position of each stored element.
        bits: Whether the stored values are bits that stand for -1 and +1.
        flat: Whether it is stored as one row, in the source's order.
    """

    value: Value
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    steps: tuple[Step, ...] = ()
    relu: bool = False
    order: Array | None = None
    bits: bool = False
    flat: bool = False

    def then(self, *steps: Step) -> Term:
        """Return the term with more to be done."""
        return replace(self, steps=(*self.steps, *steps))

    def is_plain(self) -> bool:
        """Return whether nothing is left to be done."""
        return not self.steps and not self.relu and not self.bits

    def is_scaled(self) -> bool:
        """Return whether all that is left is a product with positive factors."""
        return not self.relu and all(step.is_positive() for step in self.steps)

    def is_scaled_alike(self) -> bool:
        """Return whether all that is left is a product with one factor."""
        return not self.relu and all(s.is_product() and s.is_scalar() for s in self.steps)

    def stored_shape(self) -> tuple[int, ...]:
        """Return the shape in which the value is stored."""
        if self.flat:
            return (1, int(np.prod(self.shape)))
        sizes = [0] * len(self.shape)
        for axis, place in enumerate(self.axes):
            sizes[place] = self.shape[axis]
        return tuple(sizes)

    def is_in_order(self) -> bool:
        """Return whether elements are stored in the source's order."""
        return self.order is None and self.axes == tuple(range(len(self.axes)))


def fused(steps: tuple[Step, ...]) -> tuple[Array, Array]:
    """Return factor and offset, float64, of steps done one after another."""
    factor, offset = np.ones((), dtype=np.float64), np.zeros((), dtype=np.float64)
    for step in steps:
        factor, offset = factor * step.factor, offset * step.factor + step.offset
    return factor, offset


def is_exact(steps: tuple[Step, ...]) -> bool:
    """Return whether the fused steps round exactly as the single ones do, in float32.

    Products with powers of two do not round; apart from them there may be one product, and
    after it one sum.
    """
    products = sums = 0
    for step in steps:
        if not is_power_of_two(np.abs(step.factor)):
            if products or sums or step.divisor is not None:
                return False
            products += 1
        if not step.is_product():
            sums += 1
    return sums <= 1
