"""What a QuantizeLinear or DequantizeLinear node says, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir import Node, Value

from qonnx_hub_ir import dialect
from qonnx_hub_ir.quantizers import Array, integer_bounds

INTEGER_RANGES: Mapping[str, tuple[int, int]] = {
    f"{'' if signed else 'U'}INT{width}": (
        int(integer_bounds(width, signed=signed, narrow=False)[0]),
        int(integer_bounds(width, signed=signed, narrow=False)[1]),
    )
    for width in (2, 4, 8, 16, 32, 64)
    for signed in (True, False)
}
"""Name of an ONNX integer type -> lowest and highest value."""


@dataclass(frozen=True, slots=True)
class Minifloat:
    """A small float type of ONNX.

    Attributes:
        exponent_bits: Exponent bit width.
        mantissa_bits: Mantissa bit width, without the hidden bit.
        bias: Subtracted from the stored exponent.
        max_val: Largest finite value.
        has_inf: Whether the type has infinities.
        has_nan: Whether the type has a NaN.
        always_saturates: Whether the conversion ignores the attribute ``saturate``.
    """

    exponent_bits: int
    mantissa_bits: int
    bias: int
    max_val: float
    has_inf: bool = False
    has_nan: bool = True
    always_saturates: bool = False


MINIFLOATS: Mapping[str, Minifloat] = {
    "FLOAT8E4M3FN": Minifloat(4, 3, 7, 448.0),
    "FLOAT8E4M3FNUZ": Minifloat(4, 3, 8, 240.0),
    "FLOAT8E5M2": Minifloat(5, 2, 15, 57344.0, has_inf=True),
    "FLOAT8E5M2FNUZ": Minifloat(5, 2, 16, 57344.0),
    "FLOAT4E2M1": Minifloat(2, 1, 1, 6.0, has_nan=False, always_saturates=True),
}
"""Name of an ONNX type -> its format. Source: ONNX, technical details of float8 and float4."""


class NoMatchError(Exception):
    """Nodes that are not one quantizer of the IR; the text says why they stay."""


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """Scale, zero point and type of a node.

    Attributes:
        scale: float32, a scalar or shaped to broadcast to the node's input; ``None`` where it
            is a scalar that is computed at run time.
        zero: int64, shaped likewise; a scalar where all are equal.
        type_name: ONNX name of the type of the integers (or small floats).
    """

    scale: Array | None
    zero: Array
    type_name: str

    @property
    def minifloat(self) -> Minifloat | None:
        """The format of a small float type, ``None`` for integers."""
        return MINIFLOATS.get(self.type_name)

    def is_scalar(self) -> bool:
        """Return whether scale and zero point are one number each."""
        return (self.scale is None or self.scale.size == 1) and self.zero.size == 1


def is_linear(node: Node | None, op_type: str) -> bool:
    """Return whether the node is the standard operator of that name."""
    return node is not None and node.domain == "" and node.op_type == op_type


def is_constant(value: Value | None) -> bool:
    """Return whether a value is known without running; its data is not read."""
    return value is not None and value.const_value is not None and not value.is_graph_input()


def constant_of(value: Value | None, what: str) -> Array:
    """Return the array of a value that must be known.

    Raises:
        NoMatchError: It is computed at run time.
    """
    known = dialect.constant_value(value)
    if known is None:
        raise NoMatchError(f"its {what} is computed at run time")
    return known


def read_linear(node: Node) -> Linear:
    """Return what a QuantizeLinear or DequantizeLinear node says.

    Args:
        node: A node of a model whose types and shapes are inferred.

    Raises:
        NoMatchError: It computes in another type than float32, or has parameters that are
            dynamic, not above zero, or of a shape that cannot be told.
    """
    _require_float32(node)
    zero, type_name = _zero_point(node)
    return Linear(_scale(node), zero, type_name)


def _require_float32(node: Node) -> None:
    is_quantize = node.op_type == "QuantizeLinear"
    ends = {"scale": node.inputs[1]}
    ends.update({"input": node.inputs[0]} if is_quantize else {"output": node.outputs[0]})
    for what, value in ends.items():
        if value is None or value.dtype is None:
            raise NoMatchError(f"the type of its {what} is not known")
        if value.dtype != onnx_ir.DataType.FLOAT:
            raise NoMatchError(f"its {what} is {value.dtype.name}, not FLOAT")
    precision = _attribute(node, "precision", 0)
    if precision not in (0, int(onnx_ir.DataType.FLOAT)):
        raise NoMatchError(f"its precision is {onnx_ir.DataType(precision).name}, not FLOAT")


def _attribute(node: Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else int(attribute.value)


def _scale(node: Node) -> Array | None:
    scale = dialect.constant_value(node.inputs[1])
    if scale is None:
        shape = None if node.inputs[1] is None else node.inputs[1].shape
        if shape is None or any(dim != 1 for dim in shape):
            raise NoMatchError("its scale is computed at run time and not known to be scalar")
        return None
    if not np.all(np.isfinite(scale) & (scale > 0)):
        raise NoMatchError("its scale is not a finite number above zero")
    return _placed(node, scale, "scale")


def _zero_point(node: Node) -> tuple[Array, str]:
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return np.zeros((), dtype=np.int64), _type_without_zero_point(node)
    zero = constant_of(value, "zero point")
    type_name = "" if value.dtype is None else value.dtype.name
    if type_name in MINIFLOATS and np.any(zero.astype(np.float32) != 0):
        raise NoMatchError("its zero point is a small float other than 0")
    if type_name not in MINIFLOATS and type_name not in INTEGER_RANGES:
        raise NoMatchError(f"its zero point is of type {type_name or 'unknown'}")
    placed = _placed(node, zero.astype(np.int64), "zero point")
    if np.all(placed == placed.reshape(-1)[0]):
        return placed.reshape(-1)[0].reshape(()), type_name
    return placed, type_name


def _type_without_zero_point(node: Node) -> str:
    if node.op_type == "QuantizeLinear":
        asked = _attribute(node, "output_dtype", 0)
        return onnx_ir.DataType(asked or onnx_ir.DataType.UINT8).name
    x = node.inputs[0]
    if x is None or x.dtype is None:
        raise NoMatchError("the type of its integers is not known")
    return x.dtype.name


def _placed(node: Node, values: Array, what: str) -> Array:
    """Return the values of one parameter, shaped to broadcast to the node's input."""
    if values.size == 1:
        return values.reshape(())
    if values.size == 0:
        raise NoMatchError(f"its {what} is empty")
    x = node.inputs[0]
    dims = None if x is None or x.shape is None else list(x.shape)
    if dims is None:
        raise NoMatchError(f"it has a {what} per channel on a value of unknown rank")
    axis = _attribute(node, "axis", 1)
    axis += len(dims) if axis < 0 else 0
    if not 0 <= axis < len(dims):
        raise NoMatchError(f"its axis {axis} is none of an input of rank {len(dims)}")
    block = _attribute(node, "block_size", 0)
    if block:
        return _unblocked(values, dims, axis, block, what)
    size = dims[axis]
    if values.ndim != 1 or (isinstance(size, int) and size != values.size):
        raise NoMatchError(
            f"its {what} of shape {values.shape} does not fit axis {axis} of its input"
        )
    shape = [1] * len(dims)
    shape[axis] = values.size
    return values.reshape(shape)


def _unblocked(
    values: Array, dims: list[int | onnx_ir.SymbolicDim], axis: int, block: int, what: str
) -> Array:
    """Return blocked parameters with one entry per element, axes that do not vary as 1."""
    size = dims[axis]
    if values.ndim != len(dims) or not isinstance(size, int):
        raise NoMatchError(f"its blocked {what} is on a value of unknown shape")
    if values.shape[axis] != -(-size // block):
        raise NoMatchError(
            f"its blocked {what} of shape {values.shape} does not fit its input"
        )
    expanded = np.take(np.repeat(values, block, axis=axis), range(size), axis=axis)
    for index in range(expanded.ndim):
        first = np.take(expanded, [0], axis=index)
        if np.all(expanded == first):
            expanded = first
    return expanded.reshape(()) if expanded.size == 1 else np.ascontiguousarray(expanded)


def same_values(a: Array, b: Array) -> bool:
    """Return whether two parameters say the same wherever they are broadcast to."""
    try:
        left, right = np.broadcast_arrays(a, b)
    except ValueError:
        return False
    return bool(np.array_equal(left, right))


def whole_range(low: int, high: int) -> tuple[int, bool, bool] | None:
    """Return (bits, signed, narrow) of the quantizer with exactly this range, if any.

    One signed bit is left out: that is the bipolar quantizer.
    """
    if low == 0:
        bits = (high + 1).bit_length() - 1
        if high >= 1 and high + 1 == 1 << bits:
            return bits, False, False
        bits = (high + 2).bit_length() - 1
        if high >= 2 and high + 2 == 1 << bits:
            return bits, False, True
        return None
    bits = (high + 1).bit_length()
    if high < 1 or high + 1 != 1 << (bits - 1):
        return None
    if low == -high - 1:
        return bits, True, False
    return (bits, True, True) if low == -high else None


def enclosing_bits(low: int, high: int) -> tuple[int, bool]:
    """Return (bits, signed) of the smallest full range that holds both ends."""
    if low >= 0:
        return max(1, high.bit_length()), False
    return max(2, 1 + max((-low - 1).bit_length(), max(high, 0).bit_length())), True
