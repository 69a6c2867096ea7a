"""The quantizers as data: what is static about them, and nothing that runs.

The formulas are in :mod:`qonnx_hub_ir.semantics`; how nodes spell these is in
:mod:`qonnx_hub_ir.dialect`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Parameter: TypeAlias = Array | None
"""A quantizer's parameter: its exact values, or ``None`` where it is computed at run time."""


class Rounding(str, Enum):
    """How a real number becomes an integer. ROUND is half to even.

    The names are those of the QONNX operator documents; DPU is Brevitas' own mode: nearest,
    negative ties toward plus infinity, the other ties to even.
    """

    ROUND = "ROUND"
    CEIL = "CEIL"
    FLOOR = "FLOOR"
    UP = "UP"
    DOWN = "DOWN"
    HALF_UP = "HALF_UP"
    HALF_DOWN = "HALF_DOWN"
    DPU = "DPU"

    def __str__(self) -> str:
        """Return the ONNX spelling."""
        return self.value


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return type(a) is type(b) and bool(a == b)


class Comparable:
    """Equality of data with arrays: they are equal when dtype, shape and every bit are."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        names = [f.name for f in fields(self)]  # type: ignore[arg-type]
        return all(_same(getattr(self, n), getattr(other, n)) for n in names)

    def __hash__(self) -> int:
        values = (getattr(self, f.name) for f in fields(self))  # type: ignore[arg-type]
        return hash(
            tuple(
                (v.dtype.str, v.shape, v.tobytes()) if isinstance(v, np.ndarray) else v
                for v in values
            )
        )


@dataclass(frozen=True, slots=True, eq=False)
class IntQuant(Comparable):
    """Uniform integer quantizer (operator ``Quant``).

    Attributes:
        scale: Step size, positive; a scalar or any shape that broadcasts to the input.
        zero_point: Shaped like scale. Added before clamping and rounding, where it need not
            be whole, or after rounding.
        bits: Bit width, a positive whole number.
        signed: Whether the integers are signed.
        narrow: Whether one code is left out (the lowest if signed, else the highest).
        rounding: How ``x / scale + zero_point`` becomes an integer.
        zero_point_after_rounding: The order of QuantizeLinear, torch and TFLite:
            ``clamp(round(x / scale) + zero_point)``, and a NaN becomes the lowest code. The
            default is QONNX's order, ``round(clamp(x / scale + zero_point))``. For a zero
            point of 0 there is one order, and this is always false.

    Example:
        >>> quant = IntQuant(np.float32(1), np.float32(3), np.float32(8), signed=False)
        >>> after = dataclasses.replace(quant, zero_point_after_rounding=True)
        >>> x = np.array([0.5], dtype=np.float32)
        >>> semantics.quantize_to_integers(x, quant), semantics.quantize_to_integers(x, after)
        (array([4]), array([3]))
    """

    scale: Parameter
    zero_point: Parameter
    bits: Parameter
    signed: bool = True
    narrow: bool = False
    rounding: Rounding = Rounding.ROUND
    zero_point_after_rounding: bool = False

    def __post_init__(self) -> None:
        """Make the two spellings of a zero point of 0 one."""
        if self.zero_point is not None and not np.any(self.zero_point):
            object.__setattr__(self, "zero_point_after_rounding", False)


@dataclass(frozen=True, slots=True, eq=False)
class BipolarQuant(Comparable):
    """Sign quantizer with two levels, ``-scale`` and ``+scale``.

    Attributes:
        scale: Magnitude of both levels.
    """

    scale: Parameter


@dataclass(frozen=True, slots=True, eq=False)
class FloatQuant(Comparable):
    """Minifloat quantizer.

    Attributes:
        scale: Divided out before and multiplied back after.
        exponent_bits: Exponent bit width.
        mantissa_bits: Mantissa bit width, without the hidden bit.
        exponent_bias: Subtracted from the stored exponent.
        max_val: Largest magnitude of the format before scaling.
        has_inf: Whether overflow can become infinity (when not saturating).
        has_nan: Whether overflow can become NaN (when not saturating, without infinities).
        has_subnormal: Informs back ends; the numbers always use subnormals.
        saturation: Whether values beyond ``max_val`` become ``max_val``.
        rounding: How the scaled mantissa becomes an integer.
    """

    scale: Parameter
    exponent_bits: Parameter
    mantissa_bits: Parameter
    exponent_bias: Parameter
    max_val: Parameter
    has_inf: bool = False
    has_nan: bool = False
    has_subnormal: bool = False
    saturation: bool = True
    rounding: Rounding = Rounding.ROUND


@dataclass(frozen=True, slots=True, eq=False)
class Trunc(Comparable):
    """Drops low bits of values that lie on an integer grid.

    Attributes:
        scale: Step size of the input.
        zero_point: Zero point of the input.
        in_bits: Bit width of the input.
        out_scale: Step size of the output (version 2); ``None`` in version 1 and if dynamic.
        out_bits: Bit width of the output.
        signed: Whether the output is signed (version 2; it decides the clamp).
        narrow: Whether the output is narrow (version 2).
        rounding: How the shifted integer is rounded.
        version: 1 (no clamp, the scale stays) or 2 (clamped, rescaled to ``out_scale``).
    """

    scale: Parameter
    zero_point: Parameter
    in_bits: Parameter
    out_scale: Parameter
    out_bits: Parameter
    signed: bool = True
    narrow: bool = False
    rounding: Rounding = Rounding.FLOOR
    version: int = 2


Quantizer: TypeAlias = IntQuant | BipolarQuant | FloatQuant | Trunc


def changed_fields(first: Quantizer, second: Quantizer) -> list[str]:
    """Return the fields in which two quantizers of one kind differ in meaning.

    One number and the same number in every channel mean the same.
    """
    names = [field.name for field in fields(first)]
    return [n for n in names if not _means_same(getattr(first, n), getattr(second, n))]


def _means_same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        single = single_value(a)
        return np.array_equal(a, b) or (single is not None and single == single_value(b))
    return type(a) is type(b) and bool(a == b)


def is_power_of_two(values: Parameter) -> bool:
    """Return whether every value is a power of two (so that dividing by it is exact)."""
    if values is None or values.size == 0:
        return False
    array = np.asarray(values, dtype=np.float64)
    if not np.all(np.isfinite(array) & (array > 0)):
        return False
    mantissa, _ = np.frexp(array)
    return bool(np.all(mantissa == 0.5))


def single_value(values: Parameter) -> float | None:
    """Return the one value that all elements share, or ``None``."""
    if values is None or values.size == 0:
        return None
    flat = values.reshape(-1)
    return float(flat[0]) if bool(np.all(flat == flat[0])) else None


def is_whole(values: Any) -> bool:
    """Return whether every value is a finite whole number."""
    numbers = np.asarray(values)
    return bool(np.all(np.isfinite(numbers) & (numbers == np.rint(numbers))))


def integer_bounds(bits: float, *, signed: bool, narrow: bool) -> tuple[float, float]:
    """Return (lowest, highest) integer of the range, as Python numbers.

    Source: QONNX operator document IntQuant v1, ``min_int`` and ``max_int``.
    """
    if signed:
        return -(2 ** (bits - 1)) + int(narrow), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1 - int(narrow)


def signed_bits(low: int, high: int) -> int:
    """Return how many bits a two's complement integer needs for both ends."""
    return 1 + max((-low - 1).bit_length() if low < 0 else 0, max(high, 0).bit_length())


def bits_of_range(low: int, high: int, *, least_signed: int = 1) -> tuple[int, bool]:
    """Return (bits, signed) of the narrowest integer type that holds both ends.

    Args:
        low: Lowest integer.
        high: Highest integer, not below it.
        least_signed: Fewest bits of a signed type: 2 for a ``Quant``, whose one signed bit
            means the two levels of :class:`BipolarQuant`.
    """
    if low >= 0:
        return max(high.bit_length(), 1), False
    return max(signed_bits(low, high), least_signed), True


def bits_of_bounds(low: int, high: int) -> tuple[int, bool, bool] | None:
    """Return (bits, signed, narrow) of the ``Quant`` with exactly these bounds, if any.

    It is the inverse of :func:`integer_bounds`.
    """
    bits, signed = bits_of_range(low, high, least_signed=2)
    for narrow in (False, True):
        if low < high and integer_bounds(bits, signed=signed, narrow=narrow) == (low, high):
            return bits, signed, narrow
    return None


def is_bipolar(quant: Quantizer) -> bool:
    """Return whether the quantizer has the two levels minus and plus one step only.

    A signed one-bit ``Quant`` means that as well (there is no useful range of one signed bit).
    """
    if isinstance(quant, BipolarQuant):
        return True
    return isinstance(quant, IntQuant) and quant.signed and single_value(quant.bits) == 1
