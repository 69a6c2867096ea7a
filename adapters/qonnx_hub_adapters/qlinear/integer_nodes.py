"""One integer operator of a file, and the nodes that say the same in QDQ form."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx_ir import Graph, Node, Value

from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.quantizers import Array


class Site:
    """One node that is rewritten.

    Attributes:
        graph: The graph that it is in.
        node: The node.
        emit: Writes nodes before it.
    """

    def __init__(self, graph: Graph, node: Node) -> None:
        """Take a node of a graph."""
        self.graph, self.node = graph, node
        self.emit = Emitter(node)

    def fail(self, reason: str) -> SourceError:
        """Return the error that says what about this node cannot be read."""
        return SourceError(f"{self.node.op_type} '{self.node.name}' {reason}")

    def input(self, index: int) -> Value | None:
        """Return an input, ``None`` where it is left out."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

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

    def constant(self, index: int, what: str) -> Array:
        """Return an input that must be known without running."""
        known = dialect.constant_value(self.input(index))
        if known is None:
            raise self.fail(f"has a {what} that is computed at run time")
        return known

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
            return self.emit.add("DequantizeLinear", [codes, *map(self._scalar, parameters)])
        if axis is None:
            raise self.fail("has a scale or zero point per row or per element")
        flat = [self._flat(value) for value in parameters]
        if single and zero is not None:
            # One scale for all, but a zero point per channel: both have to be alike.
            known = self._known(scale, "scale")
            count = self._known(zero, "zero point").size
            repeated = np.full(count, known.reshape(()), dtype=known.dtype)
            flat[0] = self.emit.constant(f"{scale.name}_per_channel", repeated)
        elif zero is not None and not _is_many(zero):
            known = self._known(zero, "zero point")
            count = self._known(scale, "scale").size
            repeated = np.full(count, known.reshape(()), dtype=known.dtype)
            flat[1] = self.emit.constant(f"{zero.name}_per_channel", repeated)
        return self.emit.add("DequantizeLinear", [codes, *flat], axis=axis)

    def _known(self, value: Value, what: str) -> Array:
        known = dialect.constant_value(value)
        if known is None:
            raise self.fail(f"has a {what} that is computed at run time")
        return known

    def _scalar(self, value: Value | None) -> Value | None:
        known = dialect.constant_value(value)
        if known is None or value is None or known.ndim == 0:
            return value
        return self.emit.constant(f"{value.name}_scalar", known.reshape(-1)[0].reshape(()))

    def _flat(self, value: Value | None) -> Value | None:
        known = dialect.constant_value(value)
        if known is None or value is None or known.ndim == 1:
            return value
        return self.emit.constant(f"{value.name}_flat", known.reshape(-1))

    def quantized(self, value: Value, scale: int) -> None:
        """Put the codes of ``value``, by inputs scale and scale + 1, in the node's place.

        They are ``rint(value / scale) + zero_point``, as QuantizeLinear rounds.
        """
        inputs = [value, self._scalar(self.required(scale))]
        if self.input(scale + 1) is not None:
            inputs.append(self._scalar(self.required(scale + 1)))
        elif self.type_of_codes(0) != np.uint8:
            raise self.fail("has no zero point that tells the type of its integers")
        self.emit.replace_with(self.emit.add("QuantizeLinear", inputs))

    def quantized_with_zero(self, value: Value, scale: int) -> None:
        """Put ``rint(value / scale + zero_point)`` in the node's place.

        Behind an even zero point that is what QuantizeLinear gives; behind an odd one ties go
        to the other neighbour, and the sum is written out.
        """
        zero = dialect.constant_value(self.input(scale + 1))
        if self.input(scale + 1) is not None and zero is None:
            raise self.fail("has a zero point that is computed at run time")
        if zero is None or int(zero.reshape(-1)[0]) % 2 == 0:
            self.quantized(value, scale)
            return
        number = zero.reshape(-1)[0]
        step = self.constant(scale, "scale").reshape(()).astype(np.float32)
        quotient = self.emit.add("Div", [value, self.emit.constant("step", step)])
        offset = self.emit.constant("offset", np.array(number, dtype=np.float32))
        unit = self.emit.constant("unit", np.ones((), dtype=np.float32))
        none = self.emit.constant("none", np.zeros((), dtype=zero.dtype))
        total = self.emit.add("Add", [quotient, offset])
        self.emit.replace_with(self.emit.add("QuantizeLinear", [total, unit, none]))

    def type_of_codes(self, index: int) -> Any:
        """Return the numpy type of an input's integers, ``None`` where it is not told."""
        value = self.input(index)
        return None if value is None or value.dtype is None else value.dtype.numpy()

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
        scales = [self.constant(i, "scale").astype(np.float32) for i in (x_scale, w_scale)]
        product = np.float32(factor) * scales[0].reshape(()) * scales[1].reshape(-1)
        scale = np.asarray(product, dtype=np.float32)
        if scale.size == 1:
            one = self.emit.constant("bias_scale", scale.reshape(()))
            return self.emit.add("DequantizeLinear", [value, one])
        axis = max(len(value.shape) - 1, 0) if value.shape is not None else 0
        return self.emit.add(
            "DequantizeLinear", [value, self.emit.constant("bias_scale", scale)], axis=axis
        )


def _is_many(value: Value | None) -> bool:
    known = dialect.constant_value(value)
    return known is not None and known.size > 1
