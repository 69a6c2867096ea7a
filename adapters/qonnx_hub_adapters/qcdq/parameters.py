"""Scale, zero point and type of QuantizeLinear and DequantizeLinear nodes, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Node, Value

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.constants import squeezed
from qonnx_hub_ir.graph.queries import Dims, attribute, dims, input_of
from qonnx_hub_ir.quantizers import Array, FloatQuant, integer_bounds

INTEGER_RANGES: Mapping[str, tuple[int, int]] = {
    f"{'' if signed else 'U'}INT{width}": (
        int(integer_bounds(width, signed=signed, narrow=False)[0]),
        int(integer_bounds(width, signed=signed, narrow=False)[1]),
    )
    for width in (2, 4, 8, 16, 32, 64)
    for signed in (True, False)
}
"""Name of an ONNX integer type -> lowest and highest value."""


def _minifloat(
    exponent_bits: int, mantissa_bits: int, bias: int, max_val: float, **special: Any
) -> FloatQuant:
    numbers = (exponent_bits, mantissa_bits, bias, max_val)
    e, m, b, top = (np.array(number, dtype=np.float32) for number in numbers)
    return FloatQuant(None, e, m, b, top, has_subnormal=True, **special)


MINIFLOATS: Mapping[str, FloatQuant] = {
    "FLOAT8E4M3FN": _minifloat(4, 3, 7, 448.0, has_nan=True),
    "FLOAT8E4M3FNUZ": _minifloat(4, 3, 8, 240.0, has_nan=True),
    "FLOAT8E5M2": _minifloat(5, 2, 15, 57344.0, has_nan=True, has_inf=True),
    "FLOAT8E5M2FNUZ": _minifloat(5, 2, 16, 57344.0, has_nan=True),
    "FLOAT4E2M1": _minifloat(2, 1, 1, 6.0),
}
"""Name of an ONNX type -> the quantizer that rounds to it, without its scale; what has neither
infinity nor NaN always saturates. Source: ONNX, technical details of float8 and float4."""


class NoMatchError(Exception):
    """Nodes that are not one quantizer of the IR; the text says why they stay."""


@dataclass(frozen=True, slots=True, eq=False)
class LinearParameters:
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
    def minifloat(self) -> FloatQuant | None:
        """The quantizer of a small float type, ``None`` for integers."""
        return MINIFLOATS.get(self.type_name)

    def is_scalar(self) -> bool:
        """Return whether scale and zero point are one number each."""
        return (self.scale is None or self.scale.size == 1) and self.zero.size == 1


def constant_of(value: Value | None, what: str) -> Array:
    """Return the array of a value that must be known.

    Raises:
        NoMatchError: It is computed at run time.
    """
    known = dialect.constant_value(value)
    if known is None:
        raise NoMatchError(f"its {what} is computed at run time")
    return known


def read_linear(node: Node) -> LinearParameters:
    """Return scale, zero point and type of a QuantizeLinear or DequantizeLinear.

    Args:
        node: A node of a model whose types and shapes are inferred.

    Raises:
        NoMatchError: It computes in another type than float32, or has parameters that are
            dynamic, not above zero, or of unknown shape.
    """
    _require_float32(node)
    zero, type_name = _zero_point(node)
    return LinearParameters(_scale(node), zero, type_name)


def _require_float32(node: Node) -> None:
    is_quantize = node.op_type == "QuantizeLinear"
    ends = {"scale": node.inputs[1]}
    ends.update({"input": node.inputs[0]} if is_quantize else {"output": node.outputs[0]})
    for what, value in ends.items():
        if value is None or value.dtype is None:
            raise NoMatchError(f"the type of its {what} is not known")
        if value.dtype != onnx_ir.DataType.FLOAT:
            raise NoMatchError(f"its {what} is {value.dtype.name}, not FLOAT")
    precision = attribute(node, "precision", 0)
    if precision not in (0, int(onnx_ir.DataType.FLOAT)):
        raise NoMatchError(f"its precision is {onnx_ir.DataType(precision).name}, not FLOAT")


def _scale(node: Node) -> Array | None:
    scale = dialect.constant_value(node.inputs[1])
    if scale is None:
        shape = dims(node.inputs[1])
        if shape is None or any(size != 1 for size in shape):
            raise NoMatchError("its scale is computed at run time and not known to be scalar")
        return None
    if not np.all(np.isfinite(scale) & (scale > 0)):
        raise NoMatchError("its scale is not a finite number above zero")
    return _placed(node, scale, "scale")


def _zero_point(node: Node) -> tuple[Array, str]:
    value = input_of(node, 2)
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
        asked = attribute(node, "output_dtype", 0)
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
    shape = dims(node.inputs[0])
    if shape is None:
        raise NoMatchError(f"it has a {what} per channel on a value of unknown rank")
    axis = attribute(node, "axis", 1)
    axis += len(shape) if axis < 0 else 0
    if not 0 <= axis < len(shape):
        raise NoMatchError(f"its axis {axis} is none of an input of rank {len(shape)}")
    block = attribute(node, "block_size", 0)
    if block:
        return _unblocked(values, shape, axis, block, what)
    size = shape[axis]
    if values.ndim != 1 or (isinstance(size, int) and size != values.size):
        raise NoMatchError(
            f"its {what} of shape {values.shape} does not fit axis {axis} of its input"
        )
    return values.reshape([values.size if i == axis else 1 for i in range(len(shape))])


def _unblocked(values: Array, shape: Dims, axis: int, block: int, what: str) -> Array:
    """Return blocked parameters with one entry per element, axes that do not vary as 1."""
    size = shape[axis]
    if values.ndim != len(shape) or not isinstance(size, int):
        raise NoMatchError(f"its blocked {what} is on a value of unknown shape")
    if values.shape[axis] != -(-size // block):
        raise NoMatchError(
            f"its blocked {what} of shape {values.shape} does not fit its input"
        )
    expanded = np.take(np.repeat(values, block, axis=axis), range(size), axis=axis)
    found = squeezed(expanded)
    return found.reshape(()) if found.size == 1 else found


def same_values(a: Array, b: Array) -> bool:
    """Return whether two parameters say the same wherever they are broadcast to."""
    try:
        left, right = np.broadcast_arrays(a, b)
    except ValueError:
        return False
    return bool(np.array_equal(left, right))
