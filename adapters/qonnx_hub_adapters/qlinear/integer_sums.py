"""Products whose sums become floats: MatMulInteger, ConvInteger and what stands for them.

``Mul(Cast(MatMulInteger(x, w, x_zero, w_zero)), unit)`` is a float product of dequantized
factors. The unit of the sum is shared out between both where their product gives it back;
otherwise the integers themselves become floats, which hold sums up to 2^24.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Node, Value

from qonnx_hub_adapters.qlinear.integer_nodes import IntegerNode
from qonnx_hub_adapters.qlinear.layouts import WINDOW, note_origin
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.queries import input_of, is_standard, only_reader, producer, rank_of
from qonnx_hub_ir.quantizers import Array


def leaves_on_grid(node: Node) -> bool:
    """Return whether a node leaves integers on their grid: it moves, pads or clips them."""
    moves = operators.moves_or_inserts(node) and 0 in operators.data_inputs(node)
    return moves or is_standard(node, "Clip", "MaxPool")


_SCALE_AT = {"QuantizeLinear": 1, "QLinearConv": 6, "QLinearMatMul": 6}


def integer_product(site: IntegerNode) -> bool:
    """Rewrite MatMulInteger or ConvInteger, with the Cast and Mul behind it where it has them.

    A product with a zero point that is computed at run time, as DynamicQuantizeLinear does,
    stays as it is: its sums are exact, and float ones of a scale at run time are not.

    Returns:
        Whether it was rewritten.
    """
    attributes = site.attributes(*(WINDOW if site.node.op_type == "ConvInteger" else ()))
    if not _is_known(site.input(2)) or not _is_known(site.input(3)):
        return False
    tail = scaled_sum(site.node)
    unit = None if tail is None else dialect.constant_value(tail.factor)
    scales = None if unit is None else _shared_out(site, unit)
    if tail is not None and scales is not None:
        place = IntegerNode(tail.mul)
        place.emit.replace_with(_product_of(place, site, scales, attributes))
        return True
    one = np.ones((), dtype=np.float32)
    values = _product_of(site, site, (one, one), attributes)
    note_origin(values, site.node)
    site.emit.replace_with(site.emit.add("Cast", [values], to=int(onnx_ir.DataType.INT32)))
    return True


def _is_known(value: Value | None) -> bool:
    return value is None or dialect.constant_value(value) is not None


def _product_of(
    place: IntegerNode,
    site: IntegerNode,
    scales: tuple[Array, Array],
    attributes: Mapping[str, Any],
) -> Value:
    """Return the float product of a site's factors, with these scales, written at a place."""
    conv, factors = site.node.op_type == "ConvInteger", []
    for index, given in enumerate(scales):
        codes, zero = site.required(index), site.input(2 + index)
        axis = None if index == 0 else 0 if conv else _last_axis(codes)
        scale = place.emit.constant(f"scale_{index}", given)
        known = dialect.constant_value(zero)
        if known is not None and known.size > 1 and axis is None:
            raise site.fail("has a zero point per row")
        if known is not None and not np.any(known):
            zero = None
        factors.append(place.values_of(codes, scale, zero, axis))
    return place.emit.add("Conv" if conv else "MatMul", factors, **attributes)


def _last_axis(value: Value) -> int:
    return (rank_of(value) or 2) - 1


@dataclass(frozen=True, slots=True)
class Tail:
    """The Mul behind a Cast of a sum, and the sum's unit."""

    mul: Node
    factor: Value


def scaled_sum(node: Node) -> Tail | None:
    """Return the Mul behind an integer product and its Cast."""
    cast = _reader_of(node, "Cast")
    mul = None if cast is None else _reader_of(cast, "Mul")
    if cast is None or mul is None or cast.attributes["to"].value != 1:
        return None
    others = [value for value in mul.inputs if value is not cast.outputs[0]]
    if len(others) != 1 or others[0] is None:
        return None
    unit = dialect.constant_value(others[0])
    if unit is not None and (unit.dtype != np.float32 or not np.all(unit > 0)):
        return None
    return Tail(mul, others[0])


def _reader_of(node: Node, op_type: str) -> Node | None:
    """Return the only reader of a node's result, where it is that operator."""
    value = node.outputs[0]
    reader = next(iter(value.consumers()), None) if only_reader(value) else None
    return reader if reader is not None and is_standard(reader, op_type) else None


def _shared_out(site: IntegerNode, unit: Array) -> tuple[Array, Array] | None:
    """Return float32 scales of both factors whose product is the unit, if there are any."""
    scale = scale_of(site.required(0))
    if scale is None or not _fits_channels(site, unit):
        return None
    own = scale_of(site.required(1))
    flat = unit.reshape(-1)
    if own is not None and np.all(scale * own == flat):
        return scale, own
    factor = (flat.astype(np.float64) / float(scale)).astype(np.float32)
    below, above = (np.nextafter(factor, np.float32(end)) for end in (0, np.inf))
    for candidate in (below, above):
        factor = np.where(scale * factor == flat, factor, candidate)
    if not np.all(scale * factor == flat):
        return None
    return scale, factor.reshape(()) if factor.size == 1 else factor


def _fits_channels(site: IntegerNode, unit: Array) -> bool:
    """Return whether a unit varies along the output's channels, or not at all."""
    if unit.size == 1:
        return True
    weight = dialect.constant_value(site.required(1))
    if weight is None:
        return False
    wide = [axis for axis, size in enumerate(unit.shape) if size != 1]
    if site.node.op_type == "ConvInteger":
        along = unit.ndim - wide[0] == weight.ndim - 1 if len(wide) == 1 else False
        return along and unit.size == len(weight)
    return wide == [unit.ndim - 1] and unit.size == weight.shape[-1]


def scale_of(value: Value) -> Array | None:
    """Return the scale of integers, from the node that made them."""
    node = value.producer()
    while node is not None and node.op_type not in _SCALE_AT:
        node = producer(node.inputs[0]) if leaves_on_grid(node) else None
    known = dialect.constant_value(input_of(node, _SCALE_AT[node.op_type])) if node else None
    return known.reshape(()) if known is not None and known.size == 1 else None


def matmul_to_float(site: IntegerNode) -> bool:
    """Rewrite MatMulIntegerToFloat: scales and zero points stand beside both factors.

    Where those of the left factor are computed at run time, it becomes an integer product and
    what scales its sums.
    """
    site.attributes()
    scale, zero = site.required(2), site.input(4)
    if _is_known(scale) and _is_known(zero):
        a = site.values_of(site.required(0), scale, zero)
        codes, scale, zero = site.required(1), site.required(3), site.input(5)
        b = site.values_of(codes, scale, zero, _last_axis(codes))
        _put(site, site.emit.add("MatMul", [a, b]), 6)
    else:
        _scale_sums(site, (site.required(0), scale, zero), (1, 3, 5), 6)
    return True


def dynamic_matmul(site: IntegerNode) -> bool:
    """Rewrite DynamicQuantizeMatMul: its left factor is quantized by its own range."""
    site.attributes()
    name = f"{site.node.name}_DynamicQuantizeLinear"
    source = onnx_ir.node(
        "DynamicQuantizeLinear", [site.required(0)], num_outputs=3, name=name
    )
    for output, label in zip(source.outputs, ("codes", "scale", "zero_point"), strict=True):
        output.name = f"{site.node.name}_{label}"
    site.node.prepend(source)
    codes, scale, zero = source.outputs
    _scale_sums(site, (codes, scale, zero), (1, 2, 3), 4)
    return True


def _scale_sums(
    site: IntegerNode,
    left: tuple[Value, Value, Value | None],
    right: tuple[int, int, int],
    bias: int,
) -> None:
    """Put an integer product in the place of a node, cast, scaled, with its bias.

    Args:
        site: The node.
        left: Integers, scale and zero point of its left factor.
        right: Positions of those of its right factor.
        bias: Position of its bias.
    """
    codes, scale, zero = left
    factors = [codes, site.required(right[0]), zero, site.input(right[2])]
    while factors[-1] is None:
        factors.pop()
    sums = site.emit.add("MatMulInteger", factors)
    unit = site.emit.add("Mul", [scale, site.required(right[1])])
    values = site.emit.add("Cast", [sums], to=int(onnx_ir.DataType.FLOAT))
    _put(site, site.emit.add("Mul", [values, unit]), bias)


def _put(site: IntegerNode, values: Value, bias: int) -> None:
    """Put values, with a bias where there is one, in the place of a node."""
    addend = site.input(bias)
    if addend is not None:
        values = site.emit.add("Add", [values, addend])
    note_origin(values, site.node)
    site.emit.replace_with(values)
