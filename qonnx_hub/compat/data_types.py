"""``DataType["INT4"]`` as the qonnx package has it."""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from enum import Enum, EnumMeta
from typing import Any

import numpy as np

from qonnx_hub_adapters.dependencies import is_installed
from qonnx_hub_ir.datatypes import TensorDatatype, parse_datatype
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.quantizers import Array, FloatQuant
from qonnx_hub_ir.semantics import quantize


@dataclass(frozen=True, slots=True)
class NamedDatatype:
    """A datatype with the questions that the qonnx package's datatypes answer.

    Two are equal if their names are; one is equal to its name as well.

    Attributes:
        known: What its name says.
    """

    known: TensorDatatype

    @property
    def name(self) -> str:
        """Return the canonical name."""
        return self.known.name

    def __eq__(self, other: object) -> bool:
        """Return whether the other has the same name, or is it."""
        return self.name == (other if isinstance(other, str) else getattr(other, "name", None))

    def __hash__(self) -> int:
        """Return the hash of the name."""
        return hash(self.name)

    def __str__(self) -> str:
        """Return the name."""
        return self.name

    __repr__ = __str__

    def get_canonical_name(self) -> str:
        """Return the canonical name."""
        return self.name

    def bitwidth(self) -> int:
        """Return how many bits a value has."""
        return self.known.bits

    def signed(self) -> bool:
        """Return whether values can be below zero."""
        return self.known.signed

    def is_integer(self) -> bool:
        """Return whether all values are integers."""
        return self.known.is_integer

    def is_fixed_point(self) -> bool:
        """Return whether values have a fixed number of bits behind the point."""
        return self.name.startswith("FIXED")

    def min(self) -> float:
        """Return the lowest value; an int for integers.

        Raises:
            UsageError: The name says none.
        """
        return self._end(low=True)

    def max(self) -> float:
        """Return the highest value; an int for integers.

        Raises:
            UsageError: The name says none.
        """
        return self._end(low=False)

    def _end(self, *, low: bool) -> float:
        end = self.known.low if low else self.known.high
        if end is None and self.name.startswith("FLOAT"):
            limits = np.finfo(self.to_numpy_dt())
            end = float(limits.min if low else limits.max)
        if end is None:
            raise UsageError(f"the values of {self.name} have no known ends")
        return int(end) if self.is_integer() else end

    def allowed(self, value: Any) -> Any:
        """Return whether a value is one of the datatype's; an array of answers for an array.

        Raises:
            UsageError: The name does not say which values there are.
        """
        array = np.asarray(value)
        answers = self._allowed(array)
        return answers if array.ndim else bool(answers)

    def _allowed(self, array: Array) -> Array:
        if self.name in ("FLOAT16", "FLOAT32", "FLOAT64"):
            return np.ones(array.shape, dtype=np.bool_)
        within = np.logical_and(self.min() <= array, array <= self.max())
        step = self.known.step
        if step is None:
            return np.asarray(within & self._on_minifloat(array), dtype=np.bool_)
        places = (array - (self.min() if step > 1 else 0)) / step
        return np.asarray(within & (places == np.rint(places)), dtype=np.bool_)

    def _on_minifloat(self, array: Array) -> Array:
        known = self.known
        numbers = (1, known.exponent, known.mantissa, known.bias, self.max())
        scale, *parameters = (np.asarray(number, dtype=np.float32) for number in numbers)
        quant = FloatQuant(
            scale=scale,
            exponent_bits=parameters[0],
            mantissa_bits=parameters[1],
            exponent_bias=parameters[2],
            max_val=parameters[3],
            has_subnormal=True,
        )
        return np.asarray(quantize(array.astype(np.float32), quant) == array, dtype=np.bool_)

    def get_num_possible_values(self) -> int:
        """Return how many values there are.

        Raises:
            UsageError: The name does not say it.
        """
        if self.known.mantissa or self.known.exponent:
            return int(2**self.known.bits)
        if self.known.step is None:
            raise UsageError(f"how many values {self.name} has is not known")
        return round((self.max() - self.min()) / self.known.step) + 1

    def to_numpy_dt(self) -> np.dtype[Any]:
        """Return a numpy dtype that holds all values."""
        if not self.is_integer():
            plain = {"FLOAT16": np.float16, "FLOAT64": np.float64}
            return np.dtype(plain.get(self.name, np.float32))
        signed = self.signed()
        bits = next((bits for bits in (8, 16, 32, 64) if bits >= self.bitwidth()), None)
        if bits is None:
            raise UsageError(f"numpy has no integers of {self.bitwidth()} bits")
        return np.dtype(f"{'int' if signed else 'uint'}{bits}")

    def get_hls_datatype_str(self) -> str:
        """Return the name of the type in C++ of Vivado and Vitis HLS.

        Raises:
            UsageError: There is none.
        """
        named = {"FLOAT32": "float", "FLOAT16": "half"}.get(self.name)
        if named is not None:
            return named
        if self.is_integer():
            return f"ap_{'' if self.signed() else 'u'}int<{self.bitwidth()}>"
        if self.is_fixed_point():
            whole = self.name[len("FIXED<") : -1].split(",")[1]
            return f"ap_fixed<{self.bitwidth()}, {whole}>"
        raise UsageError(f"HLS has no type for {self.name}")


class _ByName(EnumMeta):
    def __getitem__(cls, name: str) -> Any:
        return NamedDatatype(parse_datatype(name, "DataType"))


class _OwnDataType(Enum, metaclass=_ByName):
    """Datatypes by name: ``DataType["INT4"]``."""


_OwnDataType.__name__ = "DataType"


@functools.cache
def datatype_class() -> Any:
    """Return the qonnx package's DataType where it is installed, else one that does the same.

    Example:
        >>> datatype_class()["FIXED<8,4>"].max()
        7.9375
    """
    if not is_installed("qonnx"):
        return _OwnDataType
    return importlib.import_module("qonnx.core.datatype").DataType
