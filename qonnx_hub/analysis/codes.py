"""Which tensors are held as codes of a type: what a file stores, not what its levels need.

Levels of an 8-bit quantizer with a zero point need nine bits where they go from -3 to 252; its
codes are 8 bits, and so are the multipliers that integer operators use.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from onnx_ir import Node, Value

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.analysis import IntegerType
from qonnx_hub_ir.graph.queries import input_of
from qonnx_hub_ir.quantizers import Array, IntQuant, Quantizer, single_value

_WIDEST = 16
"""Bits of the widest type that counts as quantized; int32 are sums, and int64 indices."""


@dataclass(frozen=True, slots=True)
class Coded:
    """What a tensor's codes are.

    Attributes:
        type: Their integer type.
        scale: Distance of neighbours; ``None`` where it is computed at run time.
        zero: Code of 0.0; likewise.
    """

    type: IntegerType
    scale: Array | None
    zero: Array | None


def stored_type(value: Value | None) -> IntegerType | None:
    """Return the type of a tensor of integers of at most 16 bits; ``None`` for others."""
    kind = None if value is None else value.dtype
    if kind is None or not kind.is_integer() or kind.bitwidth > _WIDEST:
        return None
    return IntegerType(int(kind.bitwidth), signed=kind.is_signed())


def coded_values(order: Iterable[Node]) -> dict[Value, Coded]:
    """Return what is known of tensors that are held as codes with a zero point or a type.

    These are results of quantizers with a zero point and of DequantizeLinear, and what is
    made of them by operators that only move, select or bound values.

    Args:
        order: Nodes, in order.
    """
    known: dict[Value, Coded] = {}
    for node in order:
        found = _made_by(node)
        if found is None and operators.keeps_grid(node) and node.inputs:
            flowing = [node.inputs[k] for k in operators.data_inputs(node)]
            coded = [known.get(value) for value in flowing if value is not None]
            first = coded[0] if coded else None
            alike = first is not None and all(c is not None and _same(first, c) for c in coded)
            found = first if alike else None
        if found is not None:
            known[node.outputs[0]] = found
    return known


def _made_by(node: Node) -> Coded | None:
    if dialect.is_quantizer(node):
        return _quantized(dialect.read_quantizer(node))
    if operators.dequantizes(node):
        found = stored_type(node.inputs[0])
        scale = dialect.constant_value(input_of(node, 1))
        zero = input_of(node, 2)
        known = np.zeros((), dtype=np.int64) if zero is None else dialect.constant_value(zero)
        return None if found is None else Coded(found, scale, known)
    return None


def _quantized(quant: Quantizer) -> Coded | None:
    """Return the codes of a quantizer with a zero point; without one, codes are levels."""
    if not isinstance(quant, IntQuant):
        return None
    bits = single_value(quant.bits)
    if bits is None or single_value(quant.zero_point) == 0:
        return None
    return Coded(IntegerType(int(bits), signed=quant.signed), quant.scale, quant.zero_point)


def _same(a: Coded, b: Coded) -> bool:
    if a is b:
        return True
    known: list[Array] = [v for v in (a.scale, a.zero, b.scale, b.zero) if v is not None]
    if a.type != b.type or len(known) < 4:
        return False
    return np.array_equal(known[0], known[2]) and np.array_equal(known[1], known[3])
