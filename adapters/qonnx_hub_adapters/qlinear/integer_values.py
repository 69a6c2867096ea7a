"""Activations as integers in a graph: which type, which zero point, and the nodes at borders.

A model uses one 8-bit type throughout, for onnxruntime's QLinear operators take and make one:
int8 where every quantizer's codes fit into it, else uint8 with signed codes moved up by half
their range. A model that was read from integer operators keeps the types it had. Everything
here speaks of *levels*: code minus zero point, so that a value is ``level * scale`` whatever
the type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value

from qonnx_hub_adapters.qcdq.float_forms import peeled_constant
from qonnx_hub_adapters.qcdq.parameters import NoMatchError, read_linear
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import is_standard, readers
from qonnx_hub_ir.lowering.onnxruntime_operators import DOMAIN as CONTRIB
from qonnx_hub_ir.lowering.quantizer_operators import write_rounded, write_scaled
from qonnx_hub_ir.quantizers import (
    Array,
    BipolarQuant,
    IntQuant,
    Rounding,
    integer_bounds,
    is_bipolar,
    is_whole,
    single_value,
)
from qonnx_hub_ir.semantics import quantize_to_integers

LARGEST_BITS = 8

_OPSET_OF_CLIP = 12
"""The first opset whose Clip and MaxPool take 8-bit integers."""


@dataclass(frozen=True, slots=True)
class Form:
    """What all integers of a file share.

    Attributes:
        signed: Whether their type is int8, else uint8.
        contrib: Whether onnxruntime's own operators may be used.
        keeps_types: Whether quantizers keep their own types where they have one.
        clips: Whether Clip and MaxPool take the type.
    """

    signed: bool
    contrib: bool = False
    keeps_types: bool = False
    clips: bool = True

    def of(self, quant: IntQuant | BipolarQuant) -> Form:
        """Return the type of one quantizer's integers."""
        if not self.keeps_types or not isinstance(quant, IntQuant) or is_bipolar(quant):
            return self
        return replace(self, signed=quant.signed)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type."""
        return np.dtype(np.int8 if self.signed else np.uint8)

    @property
    def low(self) -> int:
        """Lowest code of the type."""
        return -128 if self.signed else 0

    @property
    def high(self) -> int:
        """Highest code of the type."""
        return 127 if self.signed else 255


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """What an activation quantizer makes, apart from any type.

    Attributes:
        quant: The quantizer, every parameter known.
        scale: Step size, float32 scalar.
        zero: Its own zero point.
        low: Lowest level.
        high: Highest level.
    """

    quant: IntQuant | BipolarQuant
    scale: Array
    zero: int
    low: int
    high: int

    @property
    def adds_last(self) -> bool:
        """Whether it adds its zero point after rounding, or has none to add."""
        quant = self.quant
        return self.zero == 0 or (
            isinstance(quant, IntQuant) and quant.zero_point_after_rounding
        )


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """A value of the graph, as integers.

    Attributes:
        value: The integers, in the model's type.
        scale: Step size, float32 scalar.
        zero: Code of level 0.
        low: Lowest level that can occur.
        high: Highest level that can occur.
        form: The model's type.
    """

    value: Value
    scale: Array
    zero: int
    low: int
    high: int
    form: Form

    @property
    def ends(self) -> tuple[int, int]:
        """Lowest and highest code that can occur."""
        return self.low + self.zero, self.high + self.zero

    @property
    def is_full(self) -> bool:
        """Whether every code of the type can occur."""
        return self.ends[0] <= self.form.low and self.ends[1] >= self.form.high

    @property
    def reach(self) -> int:
        """Largest code as an unsigned byte; x86 processors move signed ones up by 128."""
        return self.high + self.zero - self.form.low

    def same_grid(self, other: Codes) -> bool:
        """Return whether equal codes mean equal values."""
        same_type = self.form.signed == other.form.signed
        return same_type and self.zero == other.zero and bool(self.scale == other.scale)


def read_steps(node: Node) -> Steps | str:
    """Return what an activation quantizer makes, or why it makes no 8-bit integers."""
    quant = dialect.read_quantizer(node)
    if not isinstance(quant, (IntQuant, BipolarQuant)):
        return f"{node.op_type} has no integers"
    x = node.inputs[0]
    if x is None or x.dtype != onnx_ir.DataType.FLOAT:
        return "its values are not float32"
    return steps_of(quant)


def read_bytes(node: Node) -> IntQuant | None:
    """Return a QuantizeLinear or DequantizeLinear of 8 bits as the quantizer on its grid.

    ``None`` for other types, and where scale or zero point are dynamic or per channel.
    """
    try:
        linear = read_linear(node)
    except NoMatchError:
        return None
    if linear.type_name not in ("INT8", "UINT8") or not linear.is_scalar():
        return None
    zero = np.asarray(linear.zero, dtype=np.float32)
    bits = np.array(LARGEST_BITS, dtype=np.float32)
    quant = IntQuant(linear.scale, zero, bits, signed=linear.type_name == "INT8")
    return replace(quant, zero_point_after_rounding=True)


def read_output(node: Node) -> tuple[IntQuant, Value] | None:
    """Return the known quantizer of 8 bits whose codes a QuantizeLinear gives, and its input.

    Behind ``Div(x, s)`` and ``Add(z)`` one of scale 1 rounds the sum: a quantizer of ``x``.
    """
    quant, x = read_bytes(node), node.inputs[0]
    if quant is None or x is None:
        return None
    if quant.scale is None or quant.zero_point is None:
        return None  # computed at run time
    if single_value(quant.scale) == 1 and single_value(quant.zero_point) == 0:
        quotient, zero = peeled_constant(x, "Add")
        inner, scale = peeled_constant(quotient, "Div")
        known = zero.size == scale.size == 1 and is_whole(zero) and scale.dtype == np.float32
        if inner is not quotient and known and scale > 0 and np.isfinite(scale):
            own = replace(quant, scale=scale, zero_point=zero, zero_point_after_rounding=False)
            return own, inner
    return quant, x


def quantize_before(
    node: Node, quant: IntQuant, x: Value, quantized: Value | None = None
) -> Node:
    """Put a quantizer in front of a QuantizeLinear that gives its codes.

    Args:
        node: The QuantizeLinear; see :func:`read_output`.
        quant: Its quantizer.
        x: What that quantizes.
        quantized: Its result, where there is one already.

    Returns:
        The QuantizeLinear behind the quantizer, which is another where sums stood before it.
    """
    emit = Emitter(node)
    values = quantized or emit.quantizer(x, quant)
    before = node.inputs[0]
    if before is x:
        node.replace_input_with(0, values)
        return node
    dtype = np.int8 if quant.signed else np.uint8
    zero = np.asarray(quant.zero_point).reshape(()).astype(dtype)
    scale = np.asarray(quant.scale, dtype=np.float32).reshape(())
    inputs = [values, emit.constant("scale", scale), emit.constant("zero_point", zero)]
    codes = emit.add("QuantizeLinear", inputs)
    emit.replace_with(codes)
    # What stood before it reads the values too, until it is gone.
    while before is not None and before is not x and not before.uses():
        left = before.producer()
        if left is None or left.graph is None:
            break
        moving = [v for v in left.inputs if dialect.constant_tensor(v) is None]
        left.graph.remove(left, safe=True)
        before = moving[0] if moving else None
    made = codes.producer()
    assert made is not None, "a node was just made"
    return made


def join_outputs(model: Model) -> None:
    """Let a QuantizeLinear read the quantizer beside it that makes the same codes.

    Integers that go to a DequantizeLinear and elsewhere are both in a model that was read.
    """
    joined = False
    for node in list(model.graph.all_nodes()):
        found = read_output(node) if is_standard(node, "QuantizeLinear") else None
        if found is None:
            continue
        quant, x = found
        near = (other for other in readers(x) if other.graph is node.graph)
        beside = (other for other in near if dialect.is_quantizer(other))
        same = next((one for one in beside if dialect.read_quantizer(one) == quant), None)
        if same is not None and same.inputs[0] is x:
            quantize_before(node, quant, x, same.outputs[0])
            joined = True
    if joined:
        model.graph.sort()


def steps_of(quant: IntQuant | BipolarQuant) -> Steps | str:
    """Return what a quantizer makes, or why it makes no 8-bit integers."""
    if any(value is None for value in dialect.parameters(quant)):
        return "it has parameters that are computed at run time"
    scale = single_value(quant.scale)
    if scale is None or quant.scale is None:
        return "it has a scale per channel"
    if not np.isfinite(scale):
        return "its scale is not finite"
    single = quant.scale.astype(np.float32).reshape(-1)[0].reshape(())
    if is_bipolar(quant):
        if isinstance(quant, IntQuant) and single_value(quant.zero_point) != 0:
            return "it has two levels and a zero point"
        return Steps(quant, single, 0, -1, 1)
    assert isinstance(quant, IntQuant)
    zero, bits = single_value(quant.zero_point), single_value(quant.bits)
    if bits is None or bits > LARGEST_BITS:
        return f"it has {'several bit widths' if bits is None else f'{bits:g} bits'}"
    if zero is None or zero != np.rint(zero):
        return "its zero point is no whole number"
    low, high = integer_bounds(int(bits), signed=quant.signed, narrow=quant.narrow)
    return Steps(quant, single, int(zero), int(low - zero), int(high - zero))


def activation_steps(model: Model) -> list[Steps]:
    """Return what the activation quantizers of a model make that have 8 bits or less."""
    found: list[Steps | str] = []
    for node in model.graph.all_nodes():
        if not node.inputs or dialect.constant_tensor(node.inputs[0]) is not None:
            continue
        if dialect.is_quantizer(node):
            found.append(read_steps(node))
        elif is_standard(node, "QuantizeLinear", "DequantizeLinear"):
            quant = read_bytes(node)
            found += [] if quant is None else [steps_of(quant)]
    return [steps for steps in found if isinstance(steps, Steps)]


def choose_form(
    steps: list[Steps], opset: int, *, contrib: bool = False, keeps_types: bool = False
) -> Form:
    """Return the type that takes all codes; unsigned from opset 21 on.

    From opset 21 on, onnxruntime moves quantizers across MaxPool and Transpose and writes a
    type that contradicts a signed 8-bit zero point.
    """
    fits = all(s.low + s.zero >= -128 and s.high + s.zero <= 127 for s in steps)
    return Form(fits and opset < 21, contrib, keeps_types, opset >= _OPSET_OF_CLIP)


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """What a quantizer makes, in the model's type.

    Attributes:
        steps: The quantizer.
        zero: Code of its level 0.
        form: The model's type.
        low: Lowest level that can occur.
        high: Highest level that can occur.
    """

    steps: Steps
    zero: int
    form: Form
    low: int
    high: int

    def codes_of(self, values: Array) -> Array:
        """Return the codes of floats."""
        codes = quantize_to_integers(values, self.steps.quant)
        return codes - self.steps.zero + self.zero

    def within(self, low: int, high: int) -> Target:
        """Return the same with other levels that can occur."""
        return replace(self, low=low, high=high)

    def holds(self, value: Value) -> Codes:
        """Return a value of the graph as its codes."""
        return Codes(value, self.steps.scale, self.zero, self.low, self.high, self.form)

    def clips(self, emit: Emitter, value: Value) -> Codes:
        """Return a value as its codes, held to the levels that can occur."""
        low, high = self.low + self.zero, self.high + self.zero
        return self.holds(clipped(emit, value, low, high, self.form))


def target_in(form: Form, steps: Steps) -> Target | None:
    """Return what a quantizer makes in the model's type, ``None`` where codes do not fit."""
    lowest = steps.low + steps.zero
    shift = 0
    if not form.signed and lowest < 0:
        # Half the range rather than just enough: 128 is the usual zero point of 8 bits.
        shift = 1 << (-lowest - 1).bit_length()
    zero = steps.zero + shift
    fits = form.low <= steps.low + zero and steps.high + zero <= form.high
    known = fits and form.low <= zero <= form.high
    return Target(steps, zero, form, steps.low, steps.high) if known else None


def contrib(emit: Emitter, op_type: str, inputs: Sequence[Value | None], form: Form) -> Value:
    """Return the output of one of onnxruntime's own operators, which makes codes."""
    value = emit.add(op_type, inputs)
    node = value.producer()
    assert node is not None, "a node was just made"
    node.domain = CONTRIB
    # No schema tells the type, and shape inference needs it for what follows.
    value.type = onnx_ir.TensorType(onnx_ir.DataType.from_numpy(form.dtype))
    value.shape = emit.node.outputs[0].shape
    return value


def integer(emit: Emitter, label: str, number: int, form: Form) -> Value:
    """Return a scalar constant in the model's type."""
    return emit.constant(label, np.array(number, dtype=form.dtype))


def clipped(emit: Emitter, codes: Value, low: int, high: int, form: Form) -> Value:
    """Return codes held to a range; as they are where it is that of the type."""
    if low <= form.low and high >= form.high:
        return codes
    ends = [integer(emit, "low", low, form), integer(emit, "high", high, form)]
    return emit.add("Clip", [codes, *ends])


def quantized(emit: Emitter, target: Target) -> Codes:
    """Return the codes of the quantizer of the emitter's node: the border into the integers.

    QuantizeLinear rounds half to even before it adds its zero point. Where that is not the
    quantizer's order, sum and rounding are written out and QuantizeLinear only converts.
    """
    x, steps, zero, form = emit.node.inputs[0], target.steps, target.zero, target.form
    quant = steps.quant
    if is_bipolar(quant) or isinstance(quant, BipolarQuant):
        if isinstance(quant, IntQuant):
            x = write_scaled(emit, quant)
        nil = emit.constant("nil", np.zeros((), dtype=np.float32))
        positive = emit.add("GreaterOrEqual", [x, nil])
        ends = [integer(emit, f"code_{n}", zero + n, form) for n in (1, -1)]
        return target.holds(emit.add("Where", [positive, *ends]))
    if steps.adds_last and quant.rounding is Rounding.ROUND:
        scale = emit.constant("scale", steps.scale)
        inputs = [x, scale, integer(emit, "zero_point", zero, form)]
    else:
        t = write_scaled(emit, quant)
        if quant.rounding is not Rounding.ROUND:
            t = write_rounded(emit, quant, t)
        one = emit.constant("unit_scale", np.ones((), dtype=np.float32))
        inputs = [t, one, integer(emit, "unit_zero_point", zero - steps.zero, form)]
    return target.clips(emit, emit.add("QuantizeLinear", inputs))


def dequantized(emit: Emitter, codes: Codes) -> Value:
    """Return the float values of codes: the border out of the integers."""
    scale = emit.constant("scale", codes.scale)
    zero = integer(emit, "zero_point", codes.zero, codes.form)
    return emit.add("DequantizeLinear", [codes.value, scale, zero])
