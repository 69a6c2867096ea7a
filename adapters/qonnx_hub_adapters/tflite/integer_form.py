"""The graph of a net in standard integer operators: codes as int8 or uint8, sums as int64."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from qonnx_hub_adapters.tflite.graph_writer import FIRST, LAST, PROTO_TYPES, StandardGraph
from qonnx_hub_adapters.tflite.kernels.fixed_point import Factor
from qonnx_hub_adapters.tflite.kernels.grids import limits
from qonnx_hub_adapters.tflite.net import CODE_TYPES, KernelCall, NetTensor, Operation
from qonnx_hub_ir.quantizers import Array

_INT64 = int(TensorProto.INT64)


class IntegerForm:
    """The graph so far; every value holds codes, or floats at the borders."""

    def __init__(self, graph: StandardGraph) -> None:
        """Start from a graph that holds the inputs."""
        self.graph = graph
        self.net = graph.net

    def output(self, tensor: int) -> str:
        """Return the value of an output."""
        return self.graph.codes(tensor)

    def levels(self, tensor: int, layout: str = LAST) -> str:
        """Return codes minus zero point, as int64."""
        record = self.net.tensors[tensor]
        wide = self.cast(self.graph.codes(tensor, layout), _INT64)
        return self.minus(wide, record.zero)

    def cast(self, value: str, to: int) -> str:
        """Return a value in another type."""
        return self.graph.emit("Cast", value, to=to)

    def whole(self, number: Any) -> str:
        """Return an int64 constant."""
        return self.graph.constant(np.asarray(number, dtype=np.int64))

    def plus(self, value: str, number: Any) -> str:
        """Return an int64 value plus a constant; itself where that is zero."""
        return self.graph.emit("Add", value, self.whole(number)) if np.any(number) else value

    def minus(self, value: str, number: int) -> str:
        """Return an int64 value minus a constant."""
        return self.plus(value, -number)

    def high_product(self, value: str, other: str) -> str:
        """Return the upper half of a doubled 32-bit product, halves rounded up."""
        product = self.graph.emit("Mul", value, other)
        nudge = self.chosen(product, 2**30, 1 - 2**30)
        total = self.graph.emit("Add", product, nudge)
        return self.graph.emit("Div", total, self.whole(2**31))

    def chosen(self, value: str, above: Any, below: Any) -> str:
        """Return one constant where a value is not negative, and another where it is."""
        negative = self.graph.emit("Less", value, self.whole(0))
        return self.graph.emit("Where", negative, self.whole(below), self.whole(above))

    def shift_right(self, value: str, by: Array) -> str:
        """Return a value divided by powers of two, halves away from zero."""
        if not np.any(by):
            return value
        half = np.where(by > 0, 2 ** np.maximum(by - 1, 0), 0)
        total = self.graph.emit("Add", value, self.chosen(value, half, -half))
        return self.graph.emit("Div", total, self.whole(2 ** by.astype(np.int64)))

    def rescale(self, value: str, by: Factor) -> str:
        """Return int64 values times factors, rounded twice."""
        if np.any(by.left):
            value = self.wrapped(self.graph.emit("Mul", value, self.whole(2**by.left)))
        return self.shift_right(self.high_product(value, self.whole(by.multiplier)), by.right)

    def wrapped(self, value: str) -> str:
        """Return int64 values as 32 bits hold them."""
        above = self.graph.emit("Mod", self.plus(value, 2**31), self.whole(2**32))
        return self.minus(above, 2**31)

    def looked_up(self, value: str, tensor: NetTensor, table: Array) -> str:
        """Return a table's entry for every code of a tensor of 8 bits.

        Args:
            value: The codes.
            tensor: What they are.
            table: 256 entries, the lowest code first.
        """
        index = self.cast(value, PROTO_TYPES["INT32"])
        low = CODE_TYPES[tensor.type][0]
        if low:
            first = self.graph.constant(np.int32(-low))
            index = self.graph.emit("Add", index, first)
        return self.graph.emit("Gather", self.graph.constant(table, "table"), index)

    def finish(
        self,
        operation: Operation,
        call: KernelCall,
        value: str,
        layout: str = LAST,
        fused: int | None = None,
    ) -> None:
        """Take int64 levels as what an operation makes: zero point, range, type."""
        kind = (
            operation.options.get("fused_activation_function", 0) if fused is None else fused
        )
        codes = self.plus(value, call.output.zero)
        low, high = limits(call.output, kind)
        codes = self.graph.emit("Clip", codes, self.whole(low), self.whole(high))
        codes = self.cast(codes, PROTO_TYPES[call.output.type])
        self.made(operation, codes, layout)

    def made(
        self, operation: Operation, codes: str, layout: str = LAST, index: int = 0
    ) -> None:
        """Take codes as what an operation makes."""
        self.graph.put(operation.outputs[index], "codes", codes, layout)

    def layout_of(self, operation: Operation) -> str:
        """Return the layout in which an operation element by element is best done."""
        given = [i for i in operation.inputs if i >= 0 and self.net.tensors[i].data is None]
        fours = all(len(self.net.tensors[i].shape) == 4 for i in operation.inputs)
        return FIRST if fours and any(map(self.graph.is_first, given)) else LAST


def codes_of_type(type_: str) -> Array:
    """Return all 256 codes of a type of 8 bits, the lowest first."""
    low, high = CODE_TYPES[type_]
    return np.arange(low, high + 1, dtype=np.int64).astype(np.int8 if low else np.uint8)
