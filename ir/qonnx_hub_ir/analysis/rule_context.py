"""A node with what is known about its inputs: what every rule of the inference works on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from onnx_ir import Node, Value

from qonnx_hub_ir.analysis.grids import digits_of
from qonnx_hub_ir.analysis.value_info import Shape, ValueInfo, between
from qonnx_hub_ir.quantizers import Array


@dataclass(frozen=True, slots=True, eq=False)
class NodeInfo:
    """A node and what is known about its inputs.

    Attributes:
        node: The node.
        inputs: What is known about each input, ``None`` for one that is left out.
        shapes: Shape of each input.
        shape: Shape of the first output.
        dtype: Type of the first output; ``None`` where it is not known or numpy has none.
    """

    node: Node
    inputs: tuple[ValueInfo | None, ...]
    shapes: tuple[Shape, ...]
    shape: Shape
    dtype: np.dtype[Any] | None

    def attr(self, name: str, default: Any = None) -> Any:
        """Return the value of an attribute."""
        found = self.node.attributes.get(name)
        return default if found is None else found.value

    def has(self, index: int) -> bool:
        """Return whether an input is connected."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def info(self, index: int) -> ValueInfo:
        """Return what is known about a connected input."""
        found = self.inputs[index]
        assert found is not None, "a required input is connected"
        return found

    def array(self, index: int) -> Array | None:
        """Return the values of an input, if they are known."""
        if not self.has(index):
            return None
        constant = self.info(index).constant
        return None if constant is None else constant.values

    @property
    def is_float(self) -> bool:
        """Whether the output is of a float type that the inference knows."""
        return self.dtype is not None and digits_of(self.dtype) > 0

    @property
    def float_type(self) -> np.dtype[Any]:
        """The output's float type."""
        assert self.dtype is not None
        return self.dtype

    @property
    def rounding_unit(self) -> float:
        """Largest relative error of one operation of the output's float type."""
        return float(2.0 ** -digits_of(self.float_type))


Rule: TypeAlias = Callable[[NodeInfo], ValueInfo | Sequence[ValueInfo] | None]
"""What is known about a node's outputs; ``None`` where nothing is."""

# Rules are called with numpy's warnings off: infinite ends are what unbounded inputs have.
RuleTable: TypeAlias = Mapping[str, Rule]


def shape_of(value: Value | None) -> Shape:
    """Return the sizes of a value, ``None`` for those that are not known."""
    if value is None or value.shape is None:
        return None
    return tuple(size if isinstance(size, int) else None for size in value.shape)


def numpy_type(value: Value) -> np.dtype[Any] | None:
    """Return the numpy type of a value's elements, ``None`` where there is none."""
    if value.dtype is None:
        return None
    try:
        return np.dtype(value.dtype.numpy())
    except (TypeError, ValueError):
        return None


def is_padded(site: NodeInfo) -> bool:
    """Return whether a convolution or pooling pads its input."""
    auto = site.attr("auto_pad", "NOTSET")
    return auto.startswith("SAME") or (auto == "NOTSET" and any(site.attr("pads") or ()))


def rounded_outward(low: Array, high: Array, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Return both ends as floats of a type, moved apart where the type cannot hold them."""
    with np.errstate(all="ignore"):
        below, above = low.astype(dtype), high.astype(dtype)
        minus, plus = np.array(-np.inf, dtype=dtype), np.array(np.inf, dtype=dtype)
        below = np.where(below.astype(np.float64) > low, np.nextafter(below, minus), below)
        above = np.where(above.astype(np.float64) < high, np.nextafter(above, plus), above)
    return np.asarray(below), np.asarray(above)


def widened(low: Array, high: Array, margin: float | Array) -> ValueInfo:
    """Return the range with a margin on both sides; infinite ends stay."""
    return between(
        np.where(np.isfinite(low), low - margin, low),
        np.where(np.isfinite(high), high + margin, high),
    )


def without_nan(low: Array, high: Array) -> tuple[Array, Array]:
    """Return both ends, infinite where they are NaN: what lies between can be anything."""
    return np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)


def within_grid(info: ValueInfo) -> ValueInfo:
    """Return the range cut to the ends of its grid, where that holds to the bit."""
    if info.grid is None or not info.grid.exact:
        return info
    low, high = info.grid.ends()
    return ValueInfo(
        np.maximum(info.low, low), np.minimum(info.high, high), info.grid, info.constant
    )
