"""A graph of float layers and quantizers as a net: what stands between two quantizers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub_adapters.tflite.net import CODE_TYPES, CodeGrid
from qonnx_hub_adapters.tflite.net_builder import Held, NetBuilder, one_grid
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.errors import Gap
from qonnx_hub_ir.graph.queries import dims, producer, readers
from qonnx_hub_ir.operators.row import Moves
from qonnx_hub_ir.quantizers import (
    Array,
    BipolarQuant,
    IntQuant,
    Quantizer,
    Rounding,
    integer_bounds,
    single_value,
)
from qonnx_hub_ir.semantics import quantize_to_integers

RESHAPES = operators.names(moves=Moves.NOTHING)
"""Operators that keep all elements in their order."""

TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


class Unsaid(Exception):  # noqa: N818 - a signal between rules and their caller, not an error
    """A node that a TFLite file cannot say; the reason, and what to do about it."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        """Keep both."""
        super().__init__(reason)
        self.remedy = remedy


@dataclass(frozen=True, slots=True, eq=False)
class CodeTarget:
    """The quantizer behind a layer.

    Attributes:
        type: The type of its codes.
        grid: Its scale and zero point.
        low: Lowest code.
        high: Highest code.
    """

    type: str
    grid: CodeGrid
    low: int
    high: int


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """A float layer that no quantizer stands behind yet.

    Attributes:
        node: The layer.
        activation: The number of the activation behind it.
        bias: A constant that is added to its result.
        moves: What moves its result, in front of the quantizer.
    """

    node: Node
    activation: int = 0
    bias: Array | None = None
    moves: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class ConstantCodes:
    """Constants as integers.

    Attributes:
        codes: Minus their zero point, int64.
        scale: float32, one or one per channel.
        bits: How many bits they need.
    """

    codes: Array
    scale: Array
    bits: int
    grid: Array


@dataclass(slots=True)
class GraphReader:
    """What was read so far.

    Attributes:
        net: The net.
        held: Value -> its tensor.
        waiting: Value -> the float layer that makes it.
    """

    net: NetBuilder = field(default_factory=NetBuilder)
    held: dict[Value, Held] = field(default_factory=dict)
    waiting: dict[Value, Waiting] = field(default_factory=dict)

    def shape(self, value: Value | None) -> tuple[int, ...]:
        """Return the shape of a value; an open batch is 1."""
        sizes = dims(value)
        if sizes is None:
            raise Unsaid("has no known shape", "give the model's inputs fixed shapes")
        known = [1 if i == 0 and not isinstance(n, int) else n for i, n in enumerate(sizes)]
        if not all(isinstance(n, int) for n in known):
            raise Unsaid("has open sizes", "give the model's inputs fixed shapes")
        return tuple(int(n) for n in known if isinstance(n, int))

    def find(self, value: Value | None) -> Held:
        """Return what holds a value that lies on a grid.

        Raises:
            Unsaid: It is a sum without a quantizer, or was never quantized.
        """
        if value is not None and value in self.held:
            return self.held[value]
        if value is not None and (constant := self.constant_tensor(value)) is not None:
            self.held[value] = Held(constant)
            return self.held[value]
        name = "" if value is None else value.name
        raise Unsaid(
            f"reads '{name}', a value without a quantizer of its own",
            "put a quantizer behind every layer",
        )

    def plain(self, value: Value | None) -> int:
        """Return the tensor of a value with its axes as the graph has them."""
        found = self.find(value)
        if not found.is_first:
            return found.tensor
        return self.net.turned(found.tensor, TO_FIRST)

    def last(self, value: Value | None) -> int:
        """Return the tensor of a value with four axes, channels last."""
        found = self.find(value)
        if found.is_first:
            return found.tensor
        if len(self.net.tensors[found.tensor].shape) != 4:
            raise Unsaid(
                "does not have four axes", "write one-dimensional layers with height 1"
            )
        return self.net.turned(found.tensor, TO_LAST)

    def constant_tensor(self, value: Value) -> int | None:
        """Return quantized constants as a tensor of codes; ``None`` for other values."""
        found = self.constant_codes(value)
        if found is None or found.scale.size != 1:
            return None
        low, high = int(found.codes.min(initial=0)), int(found.codes.max(initial=0))
        if high - low > 255:
            return self._wide_constant(value, found, low, high)
        # the zero point nearest to none with which all codes fit
        zero = int(np.clip(0, max(-128, -128 - low), min(127, 127 - high)))
        codes, grid = found.codes + zero, one_grid(found.scale, zero)
        return self.net.tensor(
            str(value.name), "INT8", codes.shape, grid, codes.astype(np.int8)
        )

    def _wide_constant(
        self, value: Value, found: ConstantCodes, low: int, high: int
    ) -> int | None:
        """Return constants of 16 bits, which have no zero point."""
        least, most = CODE_TYPES["INT16"]
        if low < least or high > most:
            return None
        data = found.codes.astype(np.int16)
        return self.net.tensor(
            str(value.name), "INT16", data.shape, one_grid(found.scale), data
        )

    def constant_codes(self, value: Value | None) -> ConstantCodes | None:
        """Return quantized constants as integers; ``None`` for what is not constant."""
        node = producer(value)
        if node is None:
            return None
        if not dialect.is_quantizer(node):
            return self._moved_constant(node)
        tensor = dialect.constant_value(node.inputs[0])
        if tensor is None:
            return None
        quant = dialect.read_quantizer(node)
        if not isinstance(quant, (IntQuant, BipolarQuant)) or quant.scale is None:
            return None
        scale = np.asarray(quant.scale, dtype=np.float32)
        codes = quantize_to_integers(tensor, quant).astype(np.int64)
        if isinstance(quant, BipolarQuant):
            return ConstantCodes(codes, scale.reshape(-1), 2, scale)
        if quant.zero_point is None or quant.bits is None:
            return None
        zero = np.asarray(quant.zero_point, dtype=np.float64)
        if not np.array_equal(zero, np.rint(zero)):
            return None
        return ConstantCodes(
            codes - zero.astype(np.int64), scale.reshape(-1), int(np.max(quant.bits)), scale
        )

    def _moved_constant(self, node: Node) -> ConstantCodes | None:
        """Return quantized constants behind a Transpose or a Reshape."""
        if node.op_type != "Transpose" and node.op_type not in RESHAPES:
            return None
        inner = self.constant_codes(node.inputs[0])
        if inner is None or inner.scale.size != 1:
            return None
        codes = inner.codes
        if node.op_type == "Transpose":
            perm = node.attributes.get("perm")
            codes = codes.transpose(None if perm is None else list(perm.as_ints()))
        else:
            codes = codes.reshape(self.shape(node.outputs[0]))
        return ConstantCodes(codes, inner.scale, inner.bits, inner.scale.reshape(()))

    def floats(self, value: Value | None) -> Array | None:
        """Return constants as float64, quantized or not; ``None`` for other values."""
        plain = dialect.constant_value(value)
        if plain is not None:
            return np.asarray(plain, dtype=np.float64)
        found = self.constant_codes(value)
        if found is None:
            return None
        shape = [1] * found.codes.ndim
        if found.scale.size > 1:
            shape[[n == found.scale.size for n in found.codes.shape].index(True)] = -1
        return found.codes * found.scale.astype(np.float64).reshape(shape)


def target_of(quant: Quantizer) -> CodeTarget:
    """Return the codes that a quantizer makes.

    Raises:
        Unsaid: TFLite has no such codes.
    """
    if not isinstance(quant, IntQuant):
        raise Unsaid("has no codes in TFLite", "write quantizers of 2 to 8, or 16 bits")
    if quant.scale is None or quant.zero_point is None or quant.bits is None:
        raise Unsaid("has parameters that are computed", "give it constant ones")
    scale, zero = single_value(quant.scale), single_value(quant.zero_point)
    bits = single_value(quant.bits)
    if scale is None or zero is None or bits is None:
        raise Unsaid("has a scale per channel, and TFLite's activations have one")
    if quant.rounding is not Rounding.ROUND and quant.rounding is not Rounding.HALF_UP:
        raise Unsaid(f"rounds {quant.rounding}, and kernels round to the nearest code")
    if zero != np.rint(zero) or bits > 16:
        raise Unsaid(f"has {bits:g} bits and zero point {zero:g}")
    low, high = (
        int(n) for n in integer_bounds(bits, signed=quant.signed, narrow=quant.narrow)
    )
    type_, shift = ("INT8", 0) if bits <= 8 else ("INT16", 0)
    if high > CODE_TYPES[type_][1]:
        shift = 2 ** (7 if bits <= 8 else 15)
    if not quant.signed and bits <= 8 and bits == 8:
        shift = 128
    if type_ == "INT16" and zero - shift:
        raise Unsaid("has 16 bits and a zero point, and TFLite's 16 bits have none")
    grid = one_grid(np.float32(scale), int(zero) - shift)
    if not CODE_TYPES[type_][0] <= int(grid.zero[0]) <= CODE_TYPES[type_][1]:
        raise Unsaid("has a zero point that does not fit its codes")
    return CodeTarget(type_, grid, low - shift, high - shift)


def gap_of(node: Node, why: Unsaid) -> Gap:
    """Return the gap of a node that was not said."""
    name = node.name or str(node.outputs[0].name)
    return Gap(name, node.op_type, str(why), why.remedy)


def is_alone(value: Value) -> bool:
    """Return whether one node reads a value and nothing else."""
    return len(readers(value)) == 1


def attributes_of(node: Node) -> dict[str, Any]:
    """Return the attributes of a node, by name."""
    return {name: one.value for name, one in node.attributes.items()}


__all__ = [
    "RESHAPES",
    "TO_FIRST",
    "TO_LAST",
    "CodeTarget",
    "ConstantCodes",
    "GraphReader",
    "Model",
    "Unsaid",
    "Waiting",
    "attributes_of",
    "gap_of",
    "is_alone",
    "target_of",
]
