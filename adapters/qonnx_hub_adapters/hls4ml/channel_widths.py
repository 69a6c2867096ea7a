"""Widths per channel, bounds and whole numbers, in quantizers of one type each.

hls4ml's types hold for a whole tensor.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx_ir import Node

from qonnx_hub_adapters.hls4ml.context import Context, channel_values
from qonnx_hub_adapters.hls4ml.fixed_point import WHOLE_BITS
from qonnx_hub_adapters.hls4ml.pending_affine import Term, add, divide, multiply
from qonnx_hub_adapters.hls4ml.refusals import RefusedError, refuse
from qonnx_hub_adapters.hls4ml.weights import integer_quantizer
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.queries import producer
from qonnx_hub_ir.quantizers import Array, IntQuant, Rounding

_EXACT_BITS = 24
"""Bits of a whole number that float32 always holds: scaled codes of more are rounded."""


def lower_whole(context: Context, node: Node) -> Term:
    """Return the term of Floor, Ceil or Round: a quantizer of step 1 that nothing exceeds."""
    term, sign = context.data(node), np.float32(-1 if node.op_type == "Ceil" else 1)
    if sign < 0:
        term = context.settle(term) if term.relu else term
        term = term.then(multiply(sign))
    settled = context.settle(term, for_quantizer=True)
    rounding = Rounding.ROUND if node.op_type == "Round" else Rounding.FLOOR
    quant = integer_quantizer(WHOLE_BITS, rounding=rounding)
    made = replace(settled, value=context.builder.quantize(settled.value, quant))
    return made if sign > 0 else made.then(multiply(sign))


def lower_channel_widths(
    context: Context, node: Node, quant: IntQuant, rounding: Rounding
) -> Term:
    """Return the term of a quantizer whose width differs by channel.

    Codes are scaled so that every channel saturates at -1 and 1 in steps that are finer than
    a code, and are then rounded down to codes again: the highest number of such a type is
    rounded down to the highest code.

    Args:
        context: The walk.
        node: The quantizer.
        quant: Its parameters: widths are whole numbers.
        rounding: ROUND or FLOOR.

    Raises:
        RefusedError: Widths differ within a channel, or codes are no numbers of float32.
    """
    assert quant.bits is not None
    assert quant.scale is not None
    term = context.data(node)
    if np.any(quant.zero_point):
        raise refuse(node, "widths that differ, with a zero point")
    try:
        bits = channel_values(term, quant.bits, node)
        scale = channel_values(term, quant.scale, node)
    except RefusedError as refused:
        raise refuse(
            node,
            f"bit widths that differ within a channel ({refused.gap.reason})",
            "train with one width for a tensor or for a channel",
        ) from refused
    widest = int(np.max(bits))
    if widest - int(quant.signed) > _EXACT_BITS:
        raise refuse(node, f"widths that differ, of {widest} bits: float32 has {_EXACT_BITS}")
    top = np.exp2(bits.astype(np.float64) - int(quant.signed)).astype(np.float32)
    codes = context.settle(term.then(divide(scale)), for_quantizer=True)
    if rounding is not Rounding.FLOOR:
        # One bit more than the widest: what lies beyond saturates behind.
        whole = integer_quantizer(widest + 1, rounding=rounding)
        codes = replace(codes, value=context.builder.quantize(codes.value, whole))
    codes = _saturated(context, codes, top, widest, signed=quant.signed)
    if quant.narrow and quant.signed:
        # The lowest code goes as the highest one does, with signs turned.
        codes = _saturated(context, codes, -top, widest, signed=True)
        scale = -scale
    context.record(node.name or "", quant, "scales + Quants of one type + scales")
    return codes.then(multiply(scale))


def _saturated(
    context: Context, codes: Term, top: Array, widest: int, *, signed: bool
) -> Term:
    """Return codes, times the sign of ``top``, at most the code below its magnitude."""
    step = 2.0 ** (int(signed) - widest)
    down = Rounding.FLOOR
    fine = integer_quantizer(widest, scale=step, signed=signed, rounding=down)
    whole = integer_quantizer(widest, signed=signed, rounding=down)
    for factor, quant in ((1 / top, fine), (np.abs(top), whole)):
        codes = context.settle(codes.then(multiply(factor)), for_quantizer=True)
        codes = replace(codes, value=context.builder.quantize(codes.value, quant))
    return codes


def lower_bounds(context: Context, node: Node) -> Term:
    """Return the term of Max or Min with a constant per channel, behind a quantizer.

    ``max(x, c) = relu(x - c) + c``, exact on a quantizer's grid.
    """
    constants = [context.constant(node, index) for index in range(len(node.inputs))]
    position = 0 if constants[0] is not None else 1
    known = constants[position]
    assert known is not None
    term = context.data(node, 1 - position)
    bound = channel_values(term, known, node).astype(np.float32)
    if not _is_on_a_grid(node, 1 - position):
        raise refuse(node, "a bound on what is not quantized, which hls4ml cannot compare")
    term = context.settle(term)
    if node.op_type == "Max":
        return context.settle(replace(term.then(add(-bound)), relu=True)).then(add(bound))
    minus = -np.ones((), dtype=np.float32)
    flipped = replace(term.then(multiply(minus), add(bound)), relu=True)
    return context.settle(flipped).then(multiply(minus), add(bound))


def _is_on_a_grid(node: Node, position: int) -> bool:
    maker = producer(node.inputs[position])
    while maker is not None and operators.clamps(maker):
        maker = next(
            (made for value in maker.inputs if (made := producer(value)) is not None), None
        )
    return maker is not None and dialect.is_quantizer(maker)
