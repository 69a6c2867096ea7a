"""The quantizers as nodes of standard operators in a graph.

The steps are those of :mod:`qonnx_hub_ir.lowering.quantizer_steps`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx_ir
from onnx_ir import Value

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.lowering.quantizer_steps import (
    HALF_FLOATS,
    StepWriter,
    scaled,
    variant_of,
    write_rounding,
    write_steps,
)
from qonnx_hub_ir.quantizers import Array, BipolarQuant, FloatQuant, IntQuant, Quantizer, Trunc


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """A constant that is not in the graph yet: its values, and what its name ends in."""

    label: str
    values: Array


Operand: TypeAlias = Value | Known


class NodeWriter(StepWriter[Operand]):
    """Writes the steps of one quantizer as nodes in front of it.

    Constants get into the graph when a node first takes them, in one float type; parameters
    may be computed at run time, and may have any shape that broadcasts.
    """

    def __init__(self, emit: Emitter, quant: Quantizer, x: Operand, dtype: Any) -> None:
        """Take the emitter of the quantizer's node, and what it quantizes.

        Args:
            emit: Writes before the node.
            quant: The node's quantizer.
            x: What is quantized, in the computing type.
            dtype: numpy type to compute in.
        """
        self.emit, self.quant, self.x = emit, quant, x
        self.dtype: np.dtype[Any] = np.dtype(dtype)

    def value(self, operand: Operand) -> Value:
        """Return an operand as a value of the graph."""
        if isinstance(operand, Value):
            return operand
        array = operand.values.astype(self.dtype)
        return self.emit.constant(
            operand.label, array.reshape(()) if array.size == 1 else array
        )

    def parameter(self, field: str, name: str, *, double: bool = False) -> Operand:
        """Return a parameter; what is computed at run time is in the computing type."""
        value = self.emit.node.inputs[1 + dialect.parameter_fields(self.quant).index(field)]
        known = dialect.constant_value(value)
        if known is None:
            dtype = onnx_ir.DataType.from_numpy(self.dtype)
            return self.emit.add("Cast", [value], to=int(dtype))
        # A bound is rounded once, from its exact value.
        exact = double or field.endswith("bits")
        return Known(field, known.astype(np.float64 if exact else self.dtype))

    def flags(self) -> tuple[Operand, Operand]:
        """Return ``signed`` and ``narrow``, which are known."""
        signed, narrow = (bool(getattr(self.quant, name)) for name in ("signed", "narrow"))
        return self.number("sign_bit", signed), self.number("narrow", narrow)

    def number(self, name: str, value: float, label: str = "") -> Operand:
        """Return a constant of the computing type."""
        return Known(label or name, np.array(value, dtype=self.dtype))

    def double(self, name: str, value: float) -> Operand:
        """Return a constant in double precision."""
        return Known(name, np.array(value, dtype=np.float64))

    def type_limit(self, name: str) -> Operand:
        """Return a limit of the computing type."""
        info = np.finfo(self.dtype)
        return self.number(name, info.tiny if name == "tiny" else info.max)

    def holds(self, value: Operand, number: float) -> bool:
        """Return whether a value is known to be that number everywhere."""
        return isinstance(value, Known) and bool(np.all(value.values == number))

    def cast(self, name: str, value: Operand, label: str = "") -> Operand:
        """Return a value in the computing type, as those of the graph are."""
        if isinstance(value, Value):
            return value
        return Known(label or name, value.values.astype(self.dtype))

    def add(self, name: str, op_type: str, *operands: Operand) -> Operand:
        """Return the output of a new node."""
        return self.emit.add(op_type, [self.value(operand) for operand in operands])

    def compute(self, name: str, op_type: str, *operands: Operand, label: str = "") -> Operand:
        """Return a constant where all operands are known, else the output of a new node."""
        arrays = [operand.values for operand in operands if isinstance(operand, Known)]
        if len(arrays) < len(operands):
            return self.add(name, op_type, *operands)
        function = operators.find("", op_type).in_numpy
        assert function is not None, "quantizers are written with numpy's operators"
        with np.errstate(all="ignore"):
            return Known(label or name, np.asarray(function(*arrays)))

    def placed(self, *values: Operand) -> tuple[Operand, ...]:
        """Put constants into the graph."""
        return tuple(self.value(value) for value in values)

    def exponent_of_ratio(self, above: Operand, below: Operand) -> Operand:
        """Return the exponent next to a ratio of known scales."""
        assert isinstance(above, Known), "refused where it is computed at run time"
        assert isinstance(below, Known), "refused where it is computed at run time"
        return Known("exponent", np.rint(np.log2(above.values / below.values)))

    def clamp(self, t: Operand, low: Operand, high: Operand) -> Operand:
        """Return ``t`` within bounds, by one node where each is one number."""
        if all(isinstance(end, Known) and end.values.size == 1 for end in (low, high)):
            return self.add("clamped", "Clip", t, low, high)
        return super().clamp(t, low, high)

    def rounded(self, t: Operand, name: str) -> Operand:
        """Return ``t`` rounded by the quantizer's mode."""
        assert not isinstance(self.quant, BipolarQuant), "two levels are not rounded"
        return write_rounding(self, self.quant.rounding, t, name)

    def special(self) -> Operand:
        """Return infinity or NaN."""
        assert isinstance(self.quant, FloatQuant), "only minifloats overflow"
        return self.number("over", np.inf if self.quant.has_inf else np.nan)


def refusal(quant: Quantizer) -> str:
    """Return why the quantizer cannot be lowered to nodes, or an empty string."""
    if isinstance(quant, (IntQuant, BipolarQuant)):
        return ""
    if all(value is not None for value in dialect.parameters(quant)):
        return ""
    if isinstance(quant, Trunc) and quant.version == 1:
        return ""
    return "has parameters that are computed at run time"


def lower(emit: Emitter, quant: Quantizer) -> Value:
    """Emit the quantizer of the emitter's node in float operators and return its value.

    Raises:
        ValueError: :func:`refusal` has a reason.
    """
    x = emit.node.inputs[0]
    if x is None or refusal(quant):
        raise ValueError(f"'{emit.node.name}' cannot be lowered: {refusal(quant)}")
    halves = x.dtype in HALF_FLOATS
    wide = np.float64 if x.dtype == onnx_ir.DataType.DOUBLE else np.float32
    given = emit.add("Cast", [x], to=int(onnx_ir.DataType.FLOAT)) if halves else x
    writer = NodeWriter(emit, quant, given, wide)
    y = writer.value(write_steps(writer, variant_of([quant])))
    return emit.add("Cast", [y], to=int(x.dtype)) if halves and x.dtype is not None else y


def write_scaled(emit: Emitter, quant: IntQuant) -> Value:
    """Emit ``x / scale + zero_point`` in float32, for the quantizer of the emitter's node."""
    x = emit.node.inputs[0]
    assert x is not None, "a quantizer has an input"
    w = NodeWriter(emit, quant, x, np.float32)
    scale, zero = w.parameter("scale", "s"), w.parameter("zero_point", "z")
    return w.value(scaled(w, x, scale, zero))


def write_rounded(emit: Emitter, quant: IntQuant, t: Value) -> Value:
    """Emit the rounding of float32 values by a quantizer's mode."""
    w = NodeWriter(emit, quant, t, np.float32)
    return w.value(w.rounded(t, "codes"))
