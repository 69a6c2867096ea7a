"""Fixed-point types of hls4ml, and grids of numbers that they have to hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from onnx_ir import Node

from qonnx_hub_ir import dialect
from qonnx_hub_ir.analysis import grids
from qonnx_hub_ir.quantizers import (
    Array,
    IntQuant,
    Rounding,
    bits_of_range,
    single_value,
)

SIGNIFICANT = 24
"""Bits of a float32 number."""

WIDEST_CONSTANT = 64
"""Bits of a type of constants; what lies below is rounded."""

WIDEST_RESULT = 40
"""Bits of a scaled result, from its largest magnitude on; float32 keeps 24."""

BEFORE_QUANTIZER = 24
"""Bits of a scaled result before a quantizer, from the largest magnitude on that does not
saturate. As in float32, what lies this near to a tie is rounded to it: products with scales
that stand for short fractions would else fall beside ties on which float32 meets them."""


WHOLE_BITS = 48
"""Bits of the type in which numbers are made whole, which no number may exceed."""


@dataclass(frozen=True, slots=True)
class FixedType:
    """A fixed-point type: ``width`` bits, of which ``integer`` before the point.

    Attributes:
        width: All bits.
        integer: Bits before the point with the sign; may be negative or above the width.
        signed: Whether one of them is a sign.
        rounding: hls4ml's name of the rounding mode; empty for truncation.
        saturation: hls4ml's name of the overflow mode; empty for wrapping.
    """

    width: int
    integer: int
    signed: bool
    rounding: str = ""
    saturation: str = ""

    def __str__(self) -> str:
        """Return the type as hls4ml parses it, for every backend."""
        parts = [str(self.width), str(self.integer)]
        if self.rounding or self.saturation:
            parts.append(self.rounding or "TRN")
        if self.saturation:
            parts.append(self.saturation)
        return f"{'' if self.signed else 'u'}fixed<{','.join(parts)}>"

    @property
    def wraps(self) -> bool:
        """Whether what does not fit loses its highest bits, instead of saturating."""
        return self.saturation in {"", "WRAP"}

    def reaching(self, lsb: int | None) -> FixedType:
        """Return a type whose highest bit is no lower than that below a step.

        Rounding to a step reads that bit, and fails where a type ends before it.
        """
        more = 0 if lsb is None else max(lsb - self.integer, 0)
        return replace(self, width=self.width + more, integer=self.integer + more)

    def lsb(self) -> int:
        """Return the exponent of the smallest step."""
        return self.integer - self.width

    def grid(self) -> FixedGrid:
        """Return all numbers of the type."""
        step = 2.0 ** self.lsb()
        high = 2.0 ** (self.integer - int(self.signed)) - step
        low = 0.0
        if self.signed:
            low = -high if self.saturation == "SAT_SYM" else -high - step
        return FixedGrid(number(low), number(high), self.lsb())


@dataclass(frozen=True, slots=True, eq=False)
class FixedGrid:
    """Multiples of a power of two between two limits.

    Attributes:
        low: float64, of shape () or one per element of the last axis.
        high: Likewise.
        lsb: Exponent of the power of two.
        bits: Whether stored as bits that stand for -1 and +1.
        rounded: Whether results are rounded to it, instead of lying on it.
    """

    low: Array
    high: Array
    lsb: int
    bits: bool = False
    rounded: bool = False

    def ends(self) -> tuple[float, float]:
        """Return the lowest and the highest number of all."""
        return float(np.min(self.low)), float(np.max(self.high))

    def magnitude(self) -> int:
        """Return the smallest ``e`` with ``2 ** e`` above the magnitude of every number."""
        return exponent(max(abs(end) for end in self.ends()))

    def mapped(self, function: Callable[[Array], Array]) -> FixedGrid:
        """Return the grid with a non-decreasing function of both limits."""
        return replace(self, low=function(self.low), high=function(self.high))

    def hull(self, other: FixedGrid) -> FixedGrid:
        """Return the grid with the same limits everywhere that holds both."""
        (a, b), (c, d) = self.ends(), other.ends()
        return FixedGrid(number(min(a, c)), number(max(b, d)), min(self.lsb, other.lsb))

    def with_zero(self) -> FixedGrid:
        """Return the grid with zero in it, as padding needs."""
        return replace(self, low=np.minimum(self.low, 0.0), high=np.maximum(self.high, 0.0))

    def overall(self) -> FixedGrid:
        """Return the grid with the same limits everywhere."""
        low, high = self.ends()
        return replace(self, low=number(low), high=number(high))

    def type(self) -> FixedType:
        """Return the narrowest type that holds every number of the grid."""
        low, high = self.ends()
        return type_between(low, high, self.lsb)

    def result_type(self) -> FixedType:
        """Return the type of what is computed onto the grid, rounded where it must be."""
        return replace(self.type(), rounding="RND") if self.rounded else self.type()

    def coarser(self, lsb: int) -> FixedGrid:
        """Return the grid of the results rounded to a step, if that is a larger one."""
        if self.lsb >= lsb:
            return self
        step = 2.0**lsb
        low, high = np.floor(self.low / step) * step, np.ceil(self.high / step) * step
        return FixedGrid(low, high, lsb, self.bits, True)

    def limited(self) -> FixedGrid:
        """Return the grid with no more bits than scaled results get."""
        return self.coarser(self.magnitude() - WIDEST_RESULT)


def number(value: float) -> Array:
    """Return a float64 array of no axes."""
    return np.asarray(value, dtype=np.float64)


def exponent(magnitude: float) -> int:
    """Return the smallest ``e`` with ``magnitude < 2 ** e``; 0 for zero."""
    return math.frexp(magnitude)[1] if magnitude else 0


def type_between(low: float, high: float, lsb: int) -> FixedType:
    """Return the narrowest type for multiples of ``2 ** lsb`` from low to high."""
    lowest = min(round(low * 2.0**-lsb), -1) if low < 0 else 0
    width, signed = bits_of_range(lowest, max(round(high * 2.0**-lsb), 0))
    return FixedType(width, width + lsb, signed)


def lowest_bit(values: Array) -> int:
    """Return the exponent of the largest power of two that divides all values."""
    lowest = float(np.min(grids.lowest_bit(values)))
    return 0 if math.isinf(lowest) else exponent(lowest) - 1


def constant_type(values: Array) -> FixedType:
    """Return a type that holds constants exactly, or rounded where that needs 64 bits."""
    low, high = float(np.min(values)), float(np.max(values))
    lsb = max(lowest_bit(values), exponent(max(abs(low), abs(high))) - WIDEST_CONSTANT + 2)
    exact = type_between(min(low, 0.0), max(high, 0.0), lsb)
    return replace(exact, rounding="RND")


def quantizer_type(quant: IntQuant) -> FixedType:
    """Return the type whose conversion is the quantizer: its scale is a power of two."""
    bits, scale = single_value(quant.bits), single_value(quant.scale)
    assert bits is not None
    assert scale is not None
    width = int(bits)
    rounding = "TRN" if quant.rounding is Rounding.FLOOR else "RND_CONV"
    saturation = "SAT_SYM" if quant.narrow else "SAT"
    integer = width + exponent(scale) - 1
    return FixedType(width, integer, quant.signed, rounding, saturation)


def type_of_quantizer(node: Node) -> FixedType | None:
    """Return the type that is an integer quantizer's node; ``None`` for other nodes."""
    quant = dialect.read_quantizer(node) if dialect.is_quantizer(node) else None
    return quantizer_type(quant) if isinstance(quant, IntQuant) else None
