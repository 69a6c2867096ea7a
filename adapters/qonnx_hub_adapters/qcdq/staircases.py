"""Quantizers in float operators of any order, recognized where every value is proven equal.

A chain of positive factors, offsets, clips and one rounding never falls, so that it is a
staircase. It is a quantizer if both give the same at the two ends of every stair: the floats
where the quantizer's levels begin, and those right below.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir import Node, Value

from qonnx_hub_adapters.qcdq.float_forms import clamp_of, peeled_constant
from qonnx_hub_ir import operators
from qonnx_hub_ir.graph.queries import is_standard
from qonnx_hub_ir.lowering.quantizer_steps import PLAIN_ROUNDINGS
from qonnx_hub_ir.operators.row import Arithmetic
from qonnx_hub_ir.quantizers import (
    Array,
    IntQuant,
    Rounding,
    bits_of_bounds,
    integer_bounds,
)
from qonnx_hub_ir.semantics import quantize
from qonnx_hub_ir.thresholds import find_thresholds, keys_of, values_of

MOST_STAIRS = 1 << 20
"""Stairs of all channels together that are compared."""

_ROUNDS = {op_type: mode for mode, op_type in PLAIN_ROUNDINGS.items()}
_FACTORS = operators.names(arithmetic=Arithmetic.MULTIPLIES)
_SMALLEST_FORM = 2


@dataclass(frozen=True, slots=True)
class _Step:
    """One operator of a chain.

    Attributes:
        op_type: Its name; every clamp is a Clip.
        constants: Its constants, in float32.
    """

    op_type: str
    constants: tuple[Array, ...] = ()


@dataclass(frozen=True, slots=True)
class _Chain:
    """Operators in the order in which they compute.

    Attributes:
        x: What the first one takes.
        steps: They themselves.
    """

    x: Value
    steps: tuple[_Step, ...]

    def rounding_at(self) -> int | None:
        """Return the position of the one rounding; ``None`` if there are more or none."""
        places = [i for i, step in enumerate(self.steps) if step.op_type in _ROUNDS]
        return places[0] if len(places) == 1 else None

    def shape(self) -> tuple[int, ...]:
        """Return the shape of all constants together."""
        return np.broadcast_shapes(*(c.shape for step in self.steps for c in step.constants))

    def compute(self, x: Array) -> Array:
        """Return what the chain makes of rows of float32 values, one row per channel."""
        shape = self.shape()
        with np.errstate(all="ignore"):
            for step in self.steps:
                ends = [np.broadcast_to(c, shape).reshape(-1, 1) for c in step.constants]
                x = _apply(step.op_type, x, ends)
        return x


def match_staircase(node: Node) -> tuple[Value, IntQuant] | str | None:
    """Return (x, quantizer) of a chain that ends with a node, or why it is none.

    Returns:
        ``None`` for what does not look like a quantizer at all.
    """
    is_offset = is_standard(node, *operators.names(arithmetic=Arithmetic.ADDS))
    if not (is_offset or is_standard(node, "Mul", "Div", "Clip", "Max", "Min", *_ROUNDS)):
        return None
    chain = _read(node)
    if chain is None or len(chain.steps) < _SMALLEST_FORM:
        return None
    place = chain.rounding_at()
    if place is None or chain.x.dtype != onnx_ir.DataType.FLOAT:
        return None
    behind = chain.steps[place + 1 :]
    if not any(step.op_type in _FACTORS for step in behind):
        return None  # codes: Clip and rounding alone are a quantizer
    candidates = list(_candidates(chain, place))
    for quant in candidates:
        if _is_equal(chain, quant):
            scale, zero = (
                np.reshape(np.asarray(p), chain.shape())
                for p in (quant.scale, quant.zero_point)
            )
            if np.all(scale == scale.flat[0]):
                scale, zero = scale.flat[0].reshape(()), zero.flat[0].reshape(())
            return chain.x, dataclasses.replace(quant, scale=scale, zero_point=zero)
    if is_offset:
        return None  # a bias, as far as is known
    if not any(step.op_type == "Clip" for step in chain.steps):
        return "looks like a quantizer, is none: nothing limits its integers"
    if not candidates:
        return "looks like a quantizer, is none: its limits are no codes of a bit width"
    step = float(np.asarray(candidates[0].scale).flat[0])
    return f"looks like a quantizer of step {step:g}, is none: levels begin elsewhere"


def _read(node: Node) -> _Chain | None:
    """Return the longest chain that ends with a node; ``None`` where constants fall."""
    value, steps = node.outputs[0], list[_Step]()
    while (found := _step_of(value)) is not None:
        if steps and len(value.uses()) > 1:
            break  # somebody else reads what is in between
        step, value = found
        steps.append(step)
    for step in steps:
        if step.op_type in _FACTORS and not all(np.all(c > 0) for c in step.constants):
            return None
        if not all(np.all(np.isfinite(c)) for c in step.constants if step.op_type != "Clip"):
            return None
    return _Chain(value, tuple(reversed(steps)))


def _step_of(value: Value) -> tuple[_Step, Value] | None:
    """Return the step that makes a value, and what it takes."""
    node = value.producer()
    if node is None:
        return None
    if is_standard(node, *_ROUNDS):
        x = node.inputs[0]
        return None if x is None else (_Step(node.op_type), x)
    clamp = clamp_of(value)
    if clamp is not None:
        return _Step("Clip", clamp[:2]), clamp[2]
    if not operators.is_affine(node):
        return None
    x, constant = peeled_constant(value, node.op_type)
    return None if x is value else (_Step(node.op_type, (constant,)), x)


def _apply(op_type: str, x: Array, constants: list[Array]) -> Array:
    if op_type == "Clip":
        return np.minimum(np.maximum(x, constants[0]), constants[1])
    function = operators.find("", op_type).in_numpy
    assert function is not None
    return np.asarray(function(x, *constants), dtype=np.float32)


def _candidates(chain: _Chain, place: int) -> Iterator[IntQuant]:
    """Give the quantizers that a chain could be, by its steps and limits."""
    shape, mode = chain.shape(), _ROUNDS[chain.steps[place].op_type]
    one = np.ones((math.prod(shape), 1), dtype=np.float32)
    scale = one
    for step in chain.steps[place + 1 :]:
        if step.op_type in _FACTORS:
            constant = np.broadcast_to(step.constants[0], shape).reshape(-1, 1)
            scale = _apply(step.op_type, scale, [constant])
    ends = chain.compute(one * np.array([-np.inf, np.inf], dtype=np.float32))
    with np.errstate(all="ignore"):
        codes = np.rint(ends / scale)
    if not np.all(np.isfinite(codes)) or np.any(np.ptp(codes, axis=0)):
        return
    low, high = int(codes[0, 0]), int(codes[0, 1])
    bits, zero = bits_of_bounds(low, high), 0
    if bits is None:
        count = high - low + 1
        if count < 2 or count & (count - 1):
            return
        bits, zero = (count.bit_length() - 1, False, False), -low
    for rounding in dict.fromkeys((mode, *Rounding)):
        yield IntQuant(
            scale,
            np.full_like(scale, zero),
            np.array(bits[0], dtype=np.float32),
            bits[1],
            bits[2],
            rounding,
            zero_point_after_rounding=zero != 0,
        )


def _is_equal(chain: _Chain, quant: IntQuant) -> bool:
    """Return whether a chain gives what the quantizer gives, for every float32 number."""
    channels, width = np.asarray(quant.scale).size, float(np.asarray(quant.bits))
    lowest, highest = integer_bounds(width, signed=quant.signed, narrow=quant.narrow)
    stairs = int(highest - lowest)
    if stairs * channels > MOST_STAIRS:
        return False
    begin = find_thresholds(quant, int(lowest), stairs)
    before = values_of(keys_of(begin) - 1)
    infinite = np.full((channels, 1), np.inf, dtype=np.float32)
    before = np.where(np.isnan(before), begin, before)
    points = np.concatenate([-infinite, infinite, begin, before], axis=1)
    with np.errstate(all="ignore"):
        return bool(np.array_equal(chain.compute(points), quantize(points, quant)))
