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

from qonnx_hub_adapters.qlinear.epilogue import Layout, Step, apply_steps, read_chain
from qonnx_hub_adapters.qlinear.integer_values import (
    Codes,
    Form,
    Steps,
    clipped,
    contrib,
    integer,
)
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.quantizers import Array, is_power_of_two
from qonnx_hub_ir.semantics import quantize_to_integers

PAIRS: dict[str, Any] = {
    "Add": np.add,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mul": np.multiply,
    "Sub": np.subtract,
}
"""Operators of two values that a table can hold."""


def read_scalar_chain(chain: list[Node], value: Value) -> list[Step] | str:
    """Return what a chain computes where it does the same to every value."""
    rank = 4 if value.shape is None else len(value.shape)
    return read_chain(chain, Layout(rank, 1, 1))


def _codes_of(t: Array, steps: Steps, zero: int) -> Array:
    return quantize_to_integers(t, steps.quant) - steps.zero + zero


def _values(codes: Codes) -> Array:
    levels = np.arange(codes.low, codes.high + 1, dtype=np.int64)
    return np.asarray(levels.astype(np.float32) * codes.scale, dtype=np.float32)


def look_up(
    emit: Emitter, codes: Codes, chain: list[Step], steps: Steps, zero: int, form: Form
) -> Codes | str:
    """Return the codes of a quantizer of integers, or why there are none.

    Args:
        emit: Where to write.
        codes: The integers.
        chain: Float operators between, the same for every value.
        steps: The quantizer.
        zero: Code of its level 0.
        form: The model's type.
    """
    with np.errstate(all="ignore"):
        t = apply_steps(chain, _values(codes)[np.newaxis])
        if np.any(np.isnan(t)):
            return "an operator before it gives no number"
        answers = _codes_of(t, steps, zero)[0]
    low, high = int(answers.min()) - zero, int(answers.max()) - zero
    levels = np.arange(codes.low, codes.high + 1, dtype=np.int64)
    same = np.clip(levels, low, high) + codes.zero
    if zero == codes.zero and np.array_equal(answers, same):
        value = codes.value
        if low > codes.low or high < codes.high:
            value = clipped(emit, value, low + zero, high + zero, form)
        return Codes(value, steps.scale, zero, low, high, form)
    first = codes.low + codes.zero
    # A negative index counts from the end: codes of int8 need no shift.
    size = 256 if first < 0 else first + len(answers)
    table = np.full(size, zero, dtype=np.int64)
    table[np.arange(first, first + len(answers))] = answers
    index = emit.add("Cast", [codes.value], to=int(onnx_ir.DataType.INT32))
    value = emit.add("Gather", [emit.constant("table", table.astype(form.dtype)), index])
    return Codes(value, steps.scale, zero, low, high, form)


def look_up_pair(
    emit: Emitter,
    op_type: str,
    pair: tuple[Codes, Codes],
    chain: list[Step],
    steps: Steps,
    zero: int,
    form: Form,
) -> Codes | str:
    """Return the codes of a quantizer behind an operator of two integers, or why not.

    Args:
        emit: Where to write.
        op_type: One of :data:`PAIRS`.
        pair: The operator's inputs.
        chain: Float operators behind it, the same for every value.
        steps: The quantizer.
        zero: Code of its level 0.
        form: The model's type.
    """
    a, b = pair
    with np.errstate(all="ignore"):
        both = PAIRS[op_type](_values(a)[:, np.newaxis], _values(b)[np.newaxis])
        t = apply_steps(chain, both)
        if np.any(np.isnan(t)):
            return "an operator before it gives no number"
        answers = _codes_of(t, steps, zero)
    if form.contrib and op_type == "Add":
        added = _added(emit, pair, answers, steps, zero, form)
        if added is not None:
            return added
    width = answers.shape[1]
    offset = (a.low + a.zero) * width + b.low + b.zero
    to_int32 = int(onnx_ir.DataType.INT32)
    row = emit.add("Cast", [a.value], to=to_int32)
    column = emit.add("Cast", [b.value], to=to_int32)
    row = emit.add("Mul", [row, emit.constant("width", np.array(width, dtype=np.int32))])
    index = emit.add("Add", [row, column])
    if offset:
        first = emit.constant("first", np.array(offset, dtype=np.int32))
        index = emit.add("Sub", [index, first])
    table = emit.constant("table", answers.reshape(-1).astype(form.dtype))
    low, high = int(answers.min()) - zero, int(answers.max()) - zero
    return Codes(emit.add("Gather", [table, index]), steps.scale, zero, low, high, form)


_FROM_A_TIE = 1e-3
"""Distance in steps that sums must keep from ties, for any order of float32 operations."""


def _added(
    emit: Emitter,
    pair: tuple[Codes, Codes],
    answers: Array,
    steps: Steps,
    zero: int,
    form: Form,
) -> Codes | None:
    """Return the sum by onnxruntime's QLinearAdd and Clip; ``None`` where it may differ.

    Every pair of codes is tried. The operator's order of float operations is its own, so sums
    must keep away from ties, unless all scales are powers of two and nothing rounds at all.
    """
    a, b = pair
    low, high = int(answers.min()), int(answers.max())
    sums = _steps_of(a, steps)[:, np.newaxis] + _steps_of(b, steps)[np.newaxis]
    if not np.array_equal(np.clip(np.rint(sums) + zero, low, high), answers):
        return None
    scales = np.array([a.scale, b.scale, steps.scale], dtype=np.float32)
    inside = (np.rint(sums) + zero >= low - 1) & (np.rint(sums) + zero <= high + 1)
    distance = np.abs(sums - np.floor(sums) - 0.5)
    if not is_power_of_two(scales) and np.any(inside & (distance < _FROM_A_TIE)):
        return None
    inputs: list[Value] = []
    for index, codes in enumerate(pair):
        inputs += [codes.value, emit.constant(f"scale_{index}", codes.scale)]
        inputs.append(integer(emit, f"zero_{index}", codes.zero, form))
    inputs += [emit.constant("y_scale", steps.scale), integer(emit, "y_zero", zero, form)]
    value = clipped(emit, contrib(emit, "QLinearAdd", inputs, form), low, high, form)
    return Codes(value, steps.scale, zero, low - zero, high - zero, form)


def _steps_of(codes: Codes, steps: Steps) -> Array:
    levels = np.arange(codes.low, codes.high + 1, dtype=np.float64)
    return np.asarray(levels * float(codes.scale) / float(steps.scale))
