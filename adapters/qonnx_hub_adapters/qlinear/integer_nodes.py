"""One integer operator of a file, and the nodes that say the same in QDQ form."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Node, Value

from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import dims, input_of, is_standard, rank_of
from qonnx_hub_ir.quantizers import Array


class IntegerNode:
    """One node that is rewritten.

    Attributes:
        node: The node.
        emit: Writes nodes before it.
    """

    def __init__(self, node: Node) -> None:
        """Take a node of a graph."""
        self.node = node
        self.emit = Emitter(node)

    def fail(self, reason: str) -> SourceError:
        """Return an error with the node's operator, its name and the reason."""
        return SourceError(f"{self.node.op_type} '{self.node.name}' {reason}")

    def input(self, index: int) -> Value | None:
        """Return an input, ``None`` where it is left out."""
        return input_of(self.node, index)

    def required(self, index: int) -> Value:
        """Return an input that must be there."""
        value = self.input(index)
        if value is None:
            raise self.fail(f"lacks its input {index}")
        return value

    def attributes(self, *known: str) -> dict[str, Any]:
        """Return the attributes by name; all of them must be known."""
        given = {name: attribute.value for name, attribute in self.node.attributes.items()}
        unknown = set(given) - set(known)
        if unknown:
            raise self.fail(f"has an unknown attribute '{sorted(unknown)[0]}'")
        return given

    def dequantized(self, first: int, axis: int | None = None) -> Value:
        """Return the values of the integers at inputs first, first + 1, first + 2.

        Args:
            first: Position of the integers; scale and zero point follow them.
            axis: Axis of scales per channel; ``None`` where there must be one for all.
        """
        zero = self.input(first + 2)
        return self.values_of(self.required(first), self.required(first + 1), zero, axis)

    def values_of(
        self, codes: Value, scale: Value, zero: Value | None, axis: int | None = None
    ) -> Value:
        """Return the values of integers with this scale and zero point."""
        parameters = [scale] if zero is None else [scale, zero]
        single = scale.shape is None or all(size == 1 for size in scale.shape)
        if single and not _is_many(zero):
            scalars = [self._shaped(value, 0) for value in parameters]
            return self.emit.add("DequantizeLinear", [codes, *scalars])
        if axis is None:
            raise self.fail("has a scale or zero point per row or per element")
        self._require_one_per_channel(codes, parameters, axis)
        flat = [self._shaped(value, 1) for value in parameters]
        # Both have to be alike: one for all is repeated beside one per channel.
        if single and zero is not None:
            flat[0] = self._repeated(scale, "scale", zero, "zero point")
        elif zero is not None and not _is_many(zero):
            flat[1] = self._repeated(zero, "zero point", scale, "scale")
        return self.emit.add("DequantizeLinear", [codes, *flat], axis=axis)

    def _require_one_per_channel(self, codes: Value, given: list[Value], axis: int) -> None:
        shape = dims(codes)
        channels = None if shape is None else shape[axis]
        for known in map(dialect.constant_value, given):
            size = 1 if known is None else known.size
            if isinstance(channels, int) and size not in (1, channels):
                raise self.fail(
                    f"has {size} scales or zero points for the {channels} channels of "
                    f"axis {axis}; one for all or one per channel can be read"
                )

    def _repeated(self, value: Value, what: str, other: Value, per_channel: str) -> Value:
        known, like = self._known(value, what), self._known(other, per_channel)
        repeated = np.full(like.size, known.reshape(()), dtype=known.dtype)
        return self.emit.constant(f"{value.name}_per_channel", repeated)

    def _known(self, value: Value | None, what: str) -> Array:
        known = dialect.constant_value(value)
        if known is None:
            raise self.fail(f"has a {what} that is computed at run time")
        return known

    def _shaped(self, value: Value, rank: int) -> Value:
        """Return a parameter as a scalar (rank 0), or with one axis."""
        known = dialect.constant_value(value)
        if known is None or known.ndim == rank:
            return value
        flat = known.reshape(-1)
        if rank == 0:
            return self.emit.constant(f"{value.name}_scalar", flat[0].reshape(()))
        return self.emit.constant(f"{value.name}_flat", flat)

    def quantized(self, value: Value, scale: int, *, adds_first: bool = False) -> Value:
        """Return the codes of ``value`` by the node's inputs scale and scale + 1.

        They are ``rint(value / scale) + zero_point``, as QuantizeLinear rounds. With
        ``adds_first`` they are ``rint(value / scale + zero_point)``: behind an even zero point
        that is what QuantizeLinear gives; behind an odd one ties go to the other neighbour,
        and the sum is written out.
        """
        given = self.input(scale + 1)
        if any(_is_many(self.input(index)) for index in (scale, scale + 1)):
            raise self.fail("has several scales or zero points of its output")
        zero = self._known(given, "zero point") if adds_first and given is not None else None
        if zero is not None and int(zero.reshape(-1)[0]) % 2:
            return self._rounded_with_zero(value, scale, zero)
        inputs = [value, self._shaped(self.required(scale), 0)]
        if given is not None:
            inputs.append(self._shaped(given, 0))
        elif self.required(0).dtype is not onnx_ir.DataType.UINT8:
            raise self.fail("has no zero point that tells the type of its integers")
        return self.emit.add("QuantizeLinear", inputs)

    def _rounded_with_zero(self, value: Value, scale: int, zero: Array) -> Value:
        step = self._known(self.input(scale), "scale").reshape(()).astype(np.float32)
        quotient = self.emit.add("Div", [value, self.emit.constant("step", step)])
        number = np.array(zero.reshape(-1)[0], dtype=np.float32)
        offset = self.emit.constant("offset", number)
        unit = self.emit.constant("unit", np.ones((), dtype=np.float32))
        none = self.emit.constant("none", np.zeros((), dtype=zero.dtype))
        total = self.emit.add("Add", [quotient, offset])
        return self.emit.add("QuantizeLinear", [total, unit, none])

    def bias(
        self, index: int, x_scale: int, w_scale: int, factor: float = 1.0
    ) -> Value | None:
        """Return an int32 bias as float values, whose scale is that of the sums.

        Args:
            index: Position of the bias.
            x_scale: Position of the activations' scale.
            w_scale: Position of the weights' scale.
            factor: What sums and bias are multiplied by.
        """
        value = self.input(index)
        if value is None:
            return None
        of_x, of_w = (
            self._known(self.input(index), "scale").astype(np.float32)
            for index in (x_scale, w_scale)
        )
        product = np.float32(factor) * of_x.reshape(()) * of_w.reshape(-1)
        scale = np.asarray(product, dtype=np.float32)
        is_one = scale.size == 1
        given = self.emit.constant("bias_scale", scale.reshape(()) if is_one else scale)
        axis = {} if is_one else {"axis": max((rank_of(value) or 0) - 1, 0)}
        return self.emit.add("DequantizeLinear", [value, given], **axis)


def shared_parameters(node: Node) -> tuple[Any, ...] | None:
    """Return what makes two DequantizeLinear nodes one, ``None`` for what is per channel."""
    if not is_standard(node, "DequantizeLinear"):
        return None
    known = [dialect.constant_value(value) for value in node.inputs[1:]]
    if any(array is None or array.size != 1 for array in known):
        return None
    return tuple((a.dtype.str, a.tobytes()) for a in known if a is not None)


def _is_many(value: Value | None) -> bool:
    known = dialect.constant_value(value)
    return known is not None and known.size > 1
