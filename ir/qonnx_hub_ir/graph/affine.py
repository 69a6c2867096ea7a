"""Affine functions of a value, ``y = x * factor + offset``, kept as numbers until needed.

What scales and shifts by constants (Mul, Add, Sub, Div, BatchNormalization, the scale of a
quantizer) is one such function, and one after another is one again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx_ir import Node, Value

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.queries import attribute, input_of
from qonnx_hub_ir.quantizers import Array


def batchnorm_affine(
    gain: Array, shift: Array, mean: Array, variance: Array, epsilon: float
) -> tuple[Array, Array]:
    """Return factor and offset of a batch normalization: ``y = x * factor + offset``.

    ``factor = reciprocal(sqrt(variance + epsilon)) * gain`` and
    ``offset = shift - mean * factor``: every operation is rounded by itself, in the type of
    the parameters (give float64 for real numbers). In float32 this order gives the bits that
    onnxruntime gives (checked for version 1.32 without optimizations);
    ``(x - mean) / std * gain + shift`` does not.

    Args:
        gain: Floats of shape (C,); likewise the others.
        shift: Added at the end.
        mean: Subtracted from the input.
        variance: Divided by its root.
        epsilon: Added to the variance.
    """
    with np.errstate(all="ignore"):
        root = np.sqrt(variance + np.asarray(epsilon, dtype=variance.dtype))
        factor = np.reciprocal(root) * gain
        offset = shift - mean * factor
    return factor, offset


def batchnorm_parameters(node: Node) -> tuple[Array, Array, Array, Array, float] | None:
    """Return gain, shift, mean, variance and epsilon of a BatchNormalization.

    ``None`` where one of them is computed at run time, or the node trains.
    """
    known = [dialect.constant_value(input_of(node, index)) for index in range(1, 5)]
    arrays = [array for array in known if array is not None]
    if len(arrays) < 4 or attribute(node, "training_mode", 0):
        return None
    gain, shift, mean, variance = arrays
    return gain, shift, mean, variance, float(attribute(node, "epsilon", 1e-5))


def product(
    first: Array | None, second: Array | None, dtype: Any = np.float32
) -> Array | None:
    """Return the product of two factors, rounded once to a type; ``None`` stands for 1."""
    if first is None or second is None:
        return second if first is None else first
    return _rounded(first.astype(np.float64) * second.astype(np.float64), dtype)


def total(first: Array | None, second: Array | None, dtype: Any = np.float32) -> Array | None:
    """Return the sum of two offsets, rounded once to a type; ``None`` stands for 0."""
    if first is None or second is None:
        return second if first is None else first
    return _rounded(first.astype(np.float64) + second.astype(np.float64), dtype)


def _rounded(wide: Array, dtype: Any) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(wide, dtype=np.float64).astype(dtype)


def same(first: Array | None, second: Array | None) -> bool:
    """Return whether two factors or offsets are equal."""
    if first is None or second is None:
        return first is second
    return first.shape == second.shape and bool(np.array_equal(first, second))


def is_scalar(array: Array | None) -> bool:
    """Return whether an array is the same for all elements, or stands for nothing."""
    return array is None or array.size == 1


@dataclass(frozen=True, slots=True)
class PendingAffine:
    """A value that still is to be scaled and shifted: ``value * factor + offset``.

    Attributes:
        value: The stored value.
        factor: Multiplies it, of shape () or of the value's rank; ``None`` for 1.
        offset: Added then, likewise; ``None`` for 0.
        written: Whether the nodes of the graph say just that already.
    """

    value: Value
    factor: Array | None = None
    offset: Array | None = None
    written: bool = False

    @property
    def positive(self) -> bool:
        """Return whether the factor keeps the order of values."""
        return self.factor is None or bool(np.all(self.factor > 0))

    @property
    def plain(self) -> bool:
        """Return whether nothing is left to be done."""
        return self.factor is None and self.offset is None

    def times(self, factor: Array, dtype: Any = np.float32) -> PendingAffine:
        """Return what is pending once the result is multiplied too."""
        offset = None if self.offset is None else product(self.offset, factor, dtype)
        return PendingAffine(
            self.value, product(self.factor, factor, dtype), offset, written=self.plain
        )

    def plus(self, offset: Array, dtype: Any = np.float32) -> PendingAffine:
        """Return what is pending once something is added to the result too."""
        written = self.offset is None and (self.factor is None or self.written)
        return PendingAffine(
            self.value, self.factor, total(self.offset, offset, dtype), written
        )
