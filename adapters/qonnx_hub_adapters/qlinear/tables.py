"""Quantizers of what is integer already: every answer worked out beforehand, in a table.

A function of one 8-bit integer has at most 256 answers, one of two has at most 65536. A table
of them, computed once with the very float operations of the graph, is exact for any scales and
any rounding, and needs integers only: codes become the index of a Gather.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Node, Value

from qonnx_hub_adapters.qlinear.epilogue import (
    ChannelLayout,
    EpilogueStep,
    apply_steps,
    read_chain,
)
from qonnx_hub_adapters.qlinear.integer_values import Codes, Target, contrib, integer
from qonnx_hub_ir import operators
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.operators import Family
from qonnx_hub_ir.quantizers import Array, is_power_of_two

PAIRS: dict[str, Any] = {
    row.name: row.in_numpy
    for row in operators.where(lambda row: row.in_numpy, order_is_exact=True)
    if row.family is Family.ARITHMETIC and row.name != "Div"
}
"""Operators of two values that a table can hold."""


def read_scalar_chain(chain: list[Node], value: Value) -> list[EpilogueStep] | str:
    """Return what a chain computes where it does the same to every value."""
    rank = 4 if value.shape is None else len(value.shape)
    return read_chain(chain, ChannelLayout(rank, 1, 1))


def _levels(codes: Codes) -> Array:
    return np.arange(codes.low, codes.high + 1, dtype=np.int64)


def _values(codes: Codes) -> Array:
    return np.asarray(_levels(codes).astype(np.float32) * codes.scale, dtype=np.float32)


def _answers(values: Array, chain: list[EpilogueStep], target: Target) -> Array | None:
    """Return the codes of values (n, m) behind a chain; ``None`` where one gives no number."""
    with np.errstate(all="ignore"):
        t = apply_steps(chain, values)
        return None if np.any(np.isnan(t)) else target.codes_of(t)


def _within(answers: Array, target: Target) -> Target:
    low, high = (int(end) - target.zero for end in (answers.min(), answers.max()))
    return target.within(low, high)


def look_up(
    emit: Emitter, codes: Codes, chain: list[EpilogueStep], target: Target
) -> tuple[Codes, str] | None:
    """Return the codes of a quantizer of integers and their encoding, if there are some.

    Args:
        emit: Where to write.
        codes: The integers.
        chain: Float operators between, the same for every value.
        target: What the quantizer makes.
    """
    found = _answers(_values(codes)[np.newaxis], chain, target)
    if found is None:
        return None
    answers, zero, encoding = found[0], target.zero, "table of its input's codes"
    made = _within(answers, target)
    same = np.clip(_levels(codes), made.low, made.high) + codes.zero
    alike = zero == codes.zero and made.form.signed == codes.form.signed
    if alike and np.array_equal(answers, same):
        if made.low <= codes.low and made.high >= codes.high:
            return made.holds(codes.value), "its input's codes"
        if not made.form.clips:
            return None
        return made.clips(emit, codes.value), encoding
    first = codes.low + codes.zero
    # A negative index counts from the end: codes of int8 need no shift.
    size = 256 if first < 0 else first + len(answers)
    table = np.full(size, zero, dtype=np.int64)
    table[np.arange(first, first + len(answers))] = answers
    index = emit.add("Cast", [codes.value], to=int(onnx_ir.DataType.INT32))
    constant = emit.constant("table", table.astype(made.form.dtype))
    return made.holds(emit.add("Gather", [constant, index])), encoding


def look_up_pair(
    emit: Emitter,
    op_type: str,
    pair: tuple[Codes, Codes],
    chain: list[EpilogueStep],
    target: Target,
) -> tuple[Codes, str] | None:
    """Return codes and encoding of a quantizer behind an operator of two integers.

    Args:
        emit: Where to write.
        op_type: One of :data:`PAIRS`.
        pair: The operator's inputs.
        chain: Float operators behind it, the same for every value.
        target: What the quantizer makes.

    Returns:
        ``None`` where some pair gives no number.
    """
    a, b = pair
    with np.errstate(all="ignore"):
        both = PAIRS[op_type](_values(a)[:, np.newaxis], _values(b)[np.newaxis])
    answers = _answers(both, chain, target)
    if answers is None:
        return None
    if target.form.contrib and op_type == "Add":
        added = _added(emit, pair, answers, target)
        if added is not None:
            return added, "QLinearAdd + Clip"
    width = answers.shape[1]
    offset = (a.low + a.zero) * width + b.low + b.zero
    row, column = (
        emit.add("Cast", [codes.value], to=int(onnx_ir.DataType.INT32)) for codes in pair
    )
    row = emit.add("Mul", [row, emit.constant("width", np.array(width, dtype=np.int32))])
    index = emit.add("Add", [row, column])
    if offset:
        first = emit.constant("first", np.array(offset, dtype=np.int32))
        index = emit.add("Sub", [index, first])
    table = emit.constant("table", answers.reshape(-1).astype(target.form.dtype))
    found = _within(answers, target).holds(emit.add("Gather", [table, index]))
    return found, f"table of {op_type}"


_FROM_A_TIE = 1e-3
"""Distance in steps that sums must keep from ties, for any order of float32 operations."""


def _added(
    emit: Emitter, pair: tuple[Codes, Codes], answers: Array, target: Target
) -> Codes | None:
    """Return the sum by onnxruntime's QLinearAdd and Clip; ``None`` where it may differ.

    Every pair of codes is tried. The operator's order of float operations is its own, so sums
    must keep away from ties, unless all scales are powers of two and nothing rounds at all.
    """
    steps, zero, form = target.steps, target.zero, target.form
    if any(codes.form.signed != form.signed for codes in pair):
        return None
    low, high = int(answers.min()), int(answers.max())
    in_steps = [_levels(c) * float(c.scale) / float(steps.scale) for c in pair]
    sums = in_steps[0][:, np.newaxis] + in_steps[1][np.newaxis]
    if not np.array_equal(np.clip(np.rint(sums) + zero, low, high), answers):
        return None
    scales = np.array([*(codes.scale for codes in pair), steps.scale], dtype=np.float32)
    inside = (np.rint(sums) + zero >= low - 1) & (np.rint(sums) + zero <= high + 1)
    distance = np.abs(sums - np.floor(sums) - 0.5)
    if not is_power_of_two(scales) and np.any(inside & (distance < _FROM_A_TIE)):
        return None
    inputs: list[Value] = []
    for index, codes in enumerate(pair):
        inputs += [codes.value, emit.constant(f"scale_{index}", codes.scale)]
        inputs.append(integer(emit, f"zero_{index}", codes.zero, form))
    inputs += [emit.constant("y_scale", steps.scale), integer(emit, "y_zero", zero, form)]
    value = contrib(emit, "QLinearAdd", inputs, form)
    return _within(answers, target).clips(emit, value)
