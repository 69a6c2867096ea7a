"""What a value of the source is in the graph for hls4ml: a value, and what is yet to be done.

Scaling by a quantizer's step, a batch normalization, additions of constants are all
``y = x * factor + offset`` per channel. They are not written where the source has them but
collected, moved across layers that allow it, and written as one operation where the first
reader needs the result. So the layers in between compute on integers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from onnx_ir import Value

from qonnx_hub_ir.graph import permutations
from qonnx_hub_ir.graph.affine import batchnorm_affine
from qonnx_hub_ir.quantizers import Array, is_power_of_two

Norm: TypeAlias = tuple[Array, Array, Array, Array, float]
"""Scale, bias, mean and variance of a batch normalization, and its epsilon."""


@dataclass(frozen=True, slots=True, eq=False)
class AffineStep:
    """One operation ``y = x * factor + offset`` of the source.

    Attributes:
        factor: float64, of shape () or (C,) along the last axis as it is stored.
        offset: Likewise.
        divisor: What the source divides by, float32, where it does.
        norm: The source's batch normalization, where it is one.
    """

    factor: Array
    offset: Array
    divisor: Array | None = None
    norm: Norm | None = None

    def is_product(self) -> bool:
        """Return whether nothing is added."""
        return not np.any(self.offset)

    def is_positive(self) -> bool:
        """Return whether it keeps order and signs: a product with positive factors."""
        return self.is_product() and bool(np.all(self.factor > 0))

    def is_scalar(self) -> bool:
        """Return whether it is the same for every channel."""
        return self.factor.size == 1 and self.offset.size == 1

    def moved(self, order: Array) -> AffineStep:
        """Return the step for channels in another order, or repeated."""
        norm = self.norm
        if norm is not None:
            gain, shift, mean, variance = (_pick(p, order) for p in norm[:4])
            norm = (gain, shift, mean, variance, norm[4])
        divisor = None if self.divisor is None else _pick(self.divisor, order)
        return AffineStep(_pick(self.factor, order), _pick(self.offset, order), divisor, norm)


def _pick(values: Array, order: Array) -> Array:
    return values if values.size == 1 else values[order]


def multiply(factor: Array) -> AffineStep:
    """Return the step that multiplies."""
    return AffineStep(_double(factor), np.zeros((), dtype=np.float64))


def divide(divisor: Array) -> AffineStep:
    """Return the step that divides, as the source does: in float32, by this number."""
    single = _flat(divisor).astype(np.float32)
    return AffineStep(
        1.0 / single.astype(np.float64), np.zeros((), dtype=np.float64), divisor=single
    )


def add(offset: Array) -> AffineStep:
    """Return the step that adds."""
    return AffineStep(np.ones((), dtype=np.float64), _double(offset))


def normalize(norm: Norm) -> AffineStep:
    """Return the step that a batch normalization is, folded in float32."""
    gain, shift, mean, variance = (values.astype(np.float32) for values in norm[:4])
    factor, offset = batchnorm_affine(gain, shift, mean, variance, norm[4])
    return AffineStep(_double(factor), _double(offset), norm=norm)


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
    steps: tuple[AffineStep, ...] = ()
    relu: bool = False
    order: Array | None = None
    bits: bool = False
    flat: bool = False

    def then(self, *steps: AffineStep) -> Term:
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
        return tuple(self.shape[axis] for axis in permutations.inverse(self.axes))

    def is_as_in_source(self) -> bool:
        """Return whether it is stored in the source's shape and order."""
        return self.is_in_order() and not self.flat

    def is_in_order(self) -> bool:
        """Return whether elements are stored in the source's order."""
        return self.order is None and permutations.simplified(self.axes) is None


def fused(steps: tuple[AffineStep, ...]) -> tuple[Array, Array]:
    """Return factor and offset, float64, of steps done one after another."""
    factor, offset = np.ones((), dtype=np.float64), np.zeros((), dtype=np.float64)
    for step in steps:
        factor, offset = factor * step.factor, offset * step.factor + step.offset
    return factor, offset


def is_exact(steps: tuple[AffineStep, ...]) -> bool:
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
