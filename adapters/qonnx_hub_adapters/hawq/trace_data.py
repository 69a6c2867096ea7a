"""What a trace holds: the calls of one forward pass, with the numbers seen at each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from qonnx_hub_ir.quantizers import Array, Comparable

RANK = "rank"
"""Key beside the attributes of a batch norm: the number of axes of its input."""


@dataclass(frozen=True, slots=True)
class Ref:
    """A traced value, by number."""

    index: int


Operand: TypeAlias = Ref | Array
"""A traced value, or a constant of the model."""


def shaped(values: Array, shape: Sequence[int]) -> Array:
    """Return one number as a scalar, one per channel in a shape."""
    return values.reshape(() if values.size == 1 else shape)


@dataclass(frozen=True, slots=True, eq=False)
class SourceGrid(Comparable):
    """The grid of integers that HAWQ's fixed-point arithmetic requantizes from.

    Attributes:
        act_scale: Scale of the activation that came before, shaped for broadcasting.
        weight_scale: Scale of the weights that came before, likewise; ones where not given.
    """

    act_scale: Array
    weight_scale: Array

    @property
    def step(self) -> Array:
        """Its step, rounded once to float32 as HAWQ does."""
        wide = self.act_scale.astype(np.float64) * self.weight_scale.astype(np.float64)
        return np.asarray(wide.astype(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class Branch(Comparable):
    """The other branch of a residual sum.

    Attributes:
        x: Its value.
        source: The grid that it comes from.
    """

    x: Ref
    source: SourceGrid


@dataclass(frozen=True, slots=True, eq=False)
class ActCall(Comparable):
    """One call of a QuantAct.

    Attributes:
        layer: Its name.
        x: What it quantizes.
        output: The value it makes.
        bits: Bit width.
        signed: Whether symmetric.
        scale: The step of its output, one float32.
        source: The grid that the input comes from; ``None`` where it is quantized directly.
        beside: The other branch, where ``x`` is a residual sum.
    """

    layer: str
    x: Ref
    output: Ref
    bits: int
    signed: bool
    scale: Array
    source: SourceGrid | None = None
    beside: Branch | None = None


@dataclass(frozen=True, slots=True, eq=False)
class WeightCall(Comparable):
    """One call of a QuantLinear, QuantConv2d or QuantBnConv2d.

    Attributes:
        layer: Its name.
        x: Its input.
        output: The value it makes.
        weight: Integer weights as float32, (out, in) or (out, in / groups, h, w).
        weight_scale: Their steps: (1,) or (out,).
        bits: Their bit width.
        bias: Integer biases as float32, (out,); ``None`` without.
        bias_bits: Their bit width; 0 without.
        act_scale: What the input is divided by, shaped for broadcasting.
        out_scale: What the sums are multiplied with, shaped for broadcasting.
        attributes: Attributes of ``Conv``; ``None`` for a linear layer.
    """

    layer: str
    x: Ref
    output: Ref
    weight: Array
    weight_scale: Array
    bits: int
    bias: Array | None
    bias_bits: int
    act_scale: Array
    out_scale: Array
    attributes: Mapping[str, Any] | None = None

    @property
    def stored_weight(self) -> Array:
        """The integer weights as the operator takes them: (in, out) for MatMul."""
        if self.attributes is not None:
            return self.weight
        return np.ascontiguousarray(self.weight.T)


@dataclass(frozen=True, slots=True, eq=False)
class PoolCall(Comparable):
    """One call of a QuantAveragePool2d that was given a scale.

    Attributes:
        layer: Its name.
        x: Its input.
        output: The value it makes.
        scale: The step of input and output, one float32.
        op_type: ``AveragePool`` or ``GlobalAveragePool``.
        attributes: Attributes of that operator.
    """

    layer: str
    x: Ref
    output: Ref
    scale: Array
    op_type: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class PlainCall(Comparable):
    """One call of a torch function outside of HAWQ's layers, as an ONNX operator.

    Attributes:
        layer: The module it was called by, or the function's name.
        op_type: The operator.
        inputs: Its inputs.
        output: The value it makes.
        attributes: Its attributes; a batch norm has :data:`RANK` as well.
    """

    layer: str
    op_type: str
    inputs: tuple[Operand, ...]
    output: Ref
    attributes: Mapping[str, Any] = field(default_factory=dict)


Call: TypeAlias = ActCall | WeightCall | PoolCall | PlainCall


@dataclass(frozen=True, slots=True)
class ForwardTrace:
    """One forward pass.

    Attributes:
        name: Name of the model.
        inputs: Names and shapes of the model's inputs.
        calls: In order.
        outputs: The model's outputs.
        shapes: Shape of each traced value.
        recorded: Output of each QuantAct call, and of the model.
        notes: Sentences that a user should read.
        open_batch: Whether it holds for every size of the first axis.
    """

    name: str
    inputs: tuple[tuple[str, tuple[int, ...]], ...]
    calls: tuple[Call, ...]
    outputs: tuple[Ref, ...]
    shapes: Mapping[Ref, tuple[int, ...]]
    recorded: Mapping[Ref, Array]
    notes: tuple[str, ...] = ()
    open_batch: bool = False
