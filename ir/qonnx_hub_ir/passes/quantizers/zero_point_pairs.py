"""A zero point that is added after rounding, in QONNX that every reader computes exactly.

QONNX adds a zero point before rounding. Two of its quantizers in a row add it afterwards: the
first rounds, without a zero point and wide enough to lose nothing; the second gets whole
numbers, which it does not round again, and clamps.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir import Model, Node
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import every_quantizer
from qonnx_hub_ir.quantizers import (
    Array,
    IntQuant,
    Rounding,
    integer_bounds,
    is_bipolar,
    is_whole,
    signed_bits,
    single_value,
)
from qonnx_hub_ir.semantics import quantize

_MOST_BITS = 20
"""Up to here a whole number survives being scaled and scaled back in float32, rounded."""


@dataclass(frozen=True)
class SplitZeroPoint(InPlacePass):
    """Write a zero point that is added after rounding as a second quantizer.

    Before -> after::

        y = Quant{8 bits, unsigned, zero_point_after_rounding}(x, s, z)
        t = Quant{9 bits, signed}(x, s, 0);  y = Quant{8 bits, unsigned}(t, s, z)

    The same for every value but NaN, which stays NaN instead of becoming the lowest code.
    Constants that lie on the grid keep one quantizer, for there the order changes nothing.
    Does not fire where this would not be exact: float types other than float32, more than 19
    bits, bit widths or zero points computed at run time.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        nodes = [node for node in every_quantizer(model) if split_form(node)]
        for node in nodes:
            _split(node)
        return PassResult(model, modified=bool(nodes))


def split_form(node: Node) -> IntQuant | None:
    """Return the first quantizer of the pair for this one; ``None`` where there is no pair.

    A constant on the grid needs none: for it the quantizer itself is returned, with the order
    of QONNX.
    """
    quant = dialect.read_quantizer(node) if dialect.is_quantizer(node) else None
    if not isinstance(quant, IntQuant) or not quant.zero_point_after_rounding:
        return None
    zero, bits, x = quant.zero_point, single_value(quant.bits), node.inputs[0]
    if zero is None or bits is None or x is None or not is_whole(zero):
        return None
    if x.dtype not in (None, onnx_ir.DataType.FLOAT):
        return None
    constant = dialect.constant_value(x)
    if constant is not None and quant.scale is not None:
        plain = dataclasses.replace(quant, zero_point_after_rounding=False)
        values = quantize(constant, quant)
        if np.array_equal(quantize(constant, plain), values):
            return plain
    low, high = _levels(quant, bits, zero)
    width = max(signed_bits(low, high), int(bits) + 1)
    if width > _MOST_BITS:
        return None
    nothing, size = (np.array(n, dtype=np.float32) for n in (0, width))
    return IntQuant(quant.scale, nothing, size, rounding=quant.rounding)


def _levels(quant: IntQuant, bits: float, zero: Array) -> tuple[int, int]:
    """Return the lowest and the highest level, in any channel."""
    low, high = integer_bounds(bits, signed=quant.signed, narrow=quant.narrow)
    return int(low - zero.max()), int(high - zero.min())


def _split(node: Node) -> None:
    first, (x, scale) = split_form(node), node.inputs[:2]
    assert first is not None, "it was chosen so"
    assert x is not None, "the model is valid"
    assert scale is not None, "the model is valid"
    del node.attributes[dialect.ORDER]
    if np.any(first.zero_point):
        return
    mode = onnx_ir.AttrString(dialect.ROUNDING, str(Rounding.ROUND))
    node.attributes[dialect.ROUNDING] = mode
    emit = Emitter(node)
    levels = emit.quantizer(x, first, name=f"{node.name}_levels", dynamic={1: scale})
    node.replace_input_with(0, levels)


def use_order_of_qonnx(model: Model) -> None:
    """Let quantizers add their zero points before rounding, and mark them as near.

    Those of :class:`SplitZeroPoint` are meant; constants on the grid, for which the order
    changes nothing, are left alone.
    """
    for node in every_quantizer(model):
        first = split_form(node)
        if first is not None and not np.any(first.zero_point):
            del node.attributes[dialect.ORDER]
            node.metadata_props[dialect.NEAR] = "its source adds the zero point after rounding"


def restore_order(model: Model) -> list[str]:
    """Let marked quantizers add their zero points after rounding, as their source did.

    Args:
        model: Changed in place.

    Returns:
        The names of those that were changed. A mark on anything but a quantizer that adds a
        zero point before rounding means nothing.
    """
    changed: list[str] = []
    for node in every_quantizer(model):
        quant = dialect.read_quantizer(node)
        marked = node.metadata_props.pop(dialect.NEAR, None) is not None
        if not marked or not isinstance(quant, IntQuant) or is_bipolar(quant):
            continue
        zero = quant.zero_point
        if zero is not None and np.any(zero) and is_whole(zero):
            if not quant.zero_point_after_rounding:
                changed.append(str(node.name))
            node.attributes[dialect.ORDER] = onnx_ir.AttrInt64(dialect.ORDER, 1)
    return changed


@dataclass(frozen=True)
class JoinZeroPoint(InPlacePass):
    """Read two quantizers that add a zero point after rounding as one.

    Before -> after::

        t = Quant{9 bits, signed}(x, s, 0);  y = Quant{8 bits, unsigned}(t, s, z)
        y = Quant{8 bits, unsigned, zero_point_after_rounding}(x, s, z)

    The same for every value but NaN, which becomes the lowest code instead of staying NaN.
    Fires where the scales are equal, the first range holds all levels of the second, and
    nobody else reads what the first makes.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        pairs = [(n, first) for n in every_quantizer(model) if (first := _first_of(n))]
        for node, first in pairs:
            _join(node, first)
        return PassResult(model, modified=bool(pairs))


def _first_of(node: Node) -> Node | None:
    """Return the first quantizer of a pair that ends in a node."""
    quant, t = dialect.read_quantizer(node), node.inputs[0]
    first = None if t is None else t.producer()
    if first is None or t is None or not dialect.is_quantizer(first):
        return None
    if len(t.uses()) != 1 or t.is_graph_output() or t.dtype != onnx_ir.DataType.FLOAT:
        return None
    wide = dialect.read_quantizer(first)
    if not (isinstance(quant, IntQuant) and isinstance(wide, IntQuant)):
        return None
    return first if _is_pair(node, first, quant, wide) else None


def _is_pair(node: Node, first: Node, quant: IntQuant, wide: IntQuant) -> bool:
    zero, bits, width = quant.zero_point, single_value(quant.bits), single_value(wide.bits)
    if zero is None or bits is None or width is None or width > _MOST_BITS:
        return False
    if is_bipolar(quant) or is_bipolar(wide) or quant.rounding is not Rounding.ROUND:
        return False
    if not is_whole(zero) or not np.any(zero) or quant.zero_point_after_rounding:
        return False
    if single_value(wide.zero_point) != 0 or not _same_scale(node, first, quant, wide):
        return False
    low, high = _levels(quant, bits, zero)
    least, most = integer_bounds(width, signed=wide.signed, narrow=wide.narrow)
    return least <= low and high <= most


def _same_scale(node: Node, first: Node, quant: IntQuant, wide: IntQuant) -> bool:
    if quant.scale is None or wide.scale is None:
        return node.inputs[1] is first.inputs[1]
    same_type = quant.scale.dtype == wide.scale.dtype == np.float32
    same_shape = quant.scale.shape == wide.scale.shape
    return same_type and same_shape and np.array_equal(quant.scale, wide.scale)


def _join(node: Node, first: Node) -> None:
    x, graph = first.inputs[0], first.graph
    assert x is not None, "the model is valid"
    node.replace_input_with(0, x)
    node.attributes[dialect.ORDER] = onnx_ir.AttrInt64(dialect.ORDER, 1)
    if dialect.ROUNDING in first.attributes:
        node.attributes[dialect.ROUNDING] = first.attributes[dialect.ROUNDING]
    if graph is not None:
        graph.remove(first, safe=True)
