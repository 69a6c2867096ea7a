"""A net as float layers between quantizers, in standard ONNX: near what kernels compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from qonnx_hub_adapters.tflite.graph_writer import FIRST, LAST, PROTO_TYPES, StandardGraph
from qonnx_hub_adapters.tflite.net import (
    RELU,
    RELU6,
    RELU_N1_TO_1,
    KernelCall,
    NetTensor,
    Operation,
)
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.quantizers import Array

ENDS = {RELU: (0.0, None), RELU6: (0.0, 6.0), RELU_N1_TO_1: (-1.0, 1.0)}
"""The ends of fused activations."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a value of the graph was made of.

    Attributes:
        tensor: The number of a tensor.
        order: The order of the tensor's axes in the value; empty for its own.
    """

    tensor: int
    order: tuple[int, ...] = ()


class FloatForm:
    """The graph so far, with values as floats or as codes.

    Attributes:
        sources: Constants, and what quantizes them and others -> the tensor it stands for.
    """

    def __init__(self, writer: StandardGraph) -> None:
        """Start from a graph that holds the inputs."""
        self.writer = writer
        self.net = writer.net
        self.sources: dict[str, Source] = {}

    def output(self, tensor: int) -> str:
        """Return the value of an output."""
        if self.net.tensors[tensor].type == "FLOAT32":
            return self.floats(tensor)
        record = self.net.tensors[tensor]
        held = self.writer.held_value(tensor, "codes", LAST)
        if held is None and record.data is None:
            # integers without a scale, which were moved as floats
            return self.writer.emit("Cast", self.floats(tensor), to=PROTO_TYPES[record.type])
        return self.writer.codes(tensor)

    def floats(self, tensor: int, layout: str = LAST) -> str:
        """Return the float32 values of a tensor."""
        found = self.writer.held_value(tensor, "floats", layout)
        if found is not None:
            return found
        record = self.net.tensors[tensor]
        if record.grid is None and record.data is not None:
            value = self.constant(record, record.data, layout)
        elif record.grid is None:
            value = self.writer.emit("Cast", self.writer.codes(tensor, layout), to=1)
        else:
            value = self.dequantized(record, self.writer.codes(tensor, layout))
        self.writer.put(tensor, "floats", value, layout)
        return value

    def constant(self, record: NetTensor, data: Array, layout: str) -> str:
        """Return constants as floats."""
        numbers = data.astype(np.float32)
        turned = numbers.transpose(0, 3, 1, 2) if layout == FIRST else numbers
        return self.writer.constant(turned, record.name)

    def dequantized(self, record: NetTensor, codes: str, axis: int | None = None) -> str:
        """Return the floats of codes."""
        scale, zero = self.grid(record, axis)
        extra: dict[str, Any] = (
            {}
            if axis is None or record.grid is None or record.grid.scale.size == 1
            else {"axis": axis}
        )
        value = self.writer.emit(
            "DequantizeLinear", codes, scale, zero, hint=record.name, **extra
        )
        return self.noted(record, value)

    def noted(self, record: NetTensor, value: str, order: tuple[int, ...] = ()) -> str:
        """Note what a value was made of, and return it."""
        self.sources[value] = Source(self.net.tensors.index(record), order)
        return value

    def grid(self, record: NetTensor, axis: int | None) -> tuple[str, str]:
        """Return scale and zero point of a tensor as values."""
        if record.grid is None:
            raise SourceError(f"tensor '{record.name}': has no scale")
        scale: Any = record.grid.scale
        zero: Any = record.grid.zero.astype(record.dtype)
        if scale.size == 1:
            scale, zero = scale.reshape(()), zero.reshape(())
        if record.type == "INT4":
            hint = f"{record.name}_zero_point"
            return self.writer.constant(
                scale, f"{record.name}_scale"
            ), self.writer.constant_int4(zero, hint)
        return (
            self.writer.constant(scale, f"{record.name}_scale"),
            self.writer.constant(zero, f"{record.name}_zero_point"),
        )

    def weights(
        self, record: NetTensor, numbers: Array, axis: int, order: tuple[int, ...] = ()
    ) -> str:
        """Return constant weights as floats.

        Args:
            record: Their tensor.
            numbers: Its numbers.
            axis: Where their channels lie afterwards.
            order: In which order their axes are wanted; empty for as they are.
        """
        data = numbers.transpose(order) if order else numbers
        if record.grid is None:
            plain = self.writer.constant(data.astype(np.float32), record.name)
            return self.noted(record, plain, order)
        if record.type == "INT4":
            codes = self.writer.constant_int4(data, record.name)
        else:
            codes = self.writer.constant(data, record.name)
        return self.noted(record, self.dequantized(record, codes, axis), order)

    def bias(self, call: KernelCall, index: int, data: int = 0) -> list[str]:
        """Return the bias of a dense layer as floats, if it has one.

        Args:
            call: The layer.
            index: Which input is the bias.
            data: Which input holds the data.
        """
        if not call.has(index):
            return []
        record = call.tensor(index)
        if record.data is None:
            raise SourceError(f"tensor '{record.name}': a bias that is computed is not read")
        x, weights = call.tensor(data), call.tensor(1)
        if record.type == "FLOAT32" or x.grid is None or weights.grid is None:
            plain = self.writer.constant(record.data.astype(np.float32), record.name)
            return [self.noted(record, plain)]
        scale = (np.float32(x.scale) * weights.grid.scale).astype(np.float32)
        if record.data.dtype == np.int64 and np.abs(record.data).max(initial=0) >= 2**31:
            values = record.data * scale.astype(np.float64)
            return [self.writer.constant(values.astype(np.float32), record.name)]
        codes = self.writer.constant(record.data.astype(np.int32), record.name)
        one = scale.size == 1
        step = self.writer.constant(
            scale.reshape(()) if one else scale, f"{record.name}_scale"
        )
        zeros = np.zeros(() if one else scale.shape, dtype=np.int32)
        zero = self.writer.constant(zeros, f"{record.name}_zero_point")
        extra: dict[str, Any] = {} if one else {"axis": 0}
        value = self.writer.emit("DequantizeLinear", codes, step, zero, **extra)
        return [self.noted(record, value)]

    def made(
        self,
        operation: Operation,
        value: str,
        layout: str = LAST,
        index: int = 0,
        fused: int | None = None,
    ) -> None:
        """Take floats as what an operation makes: activated, then quantized."""
        tensor = operation.outputs[index]
        record = self.net.tensors[tensor]
        kind = (
            operation.options.get("fused_activation_function", 0) if fused is None else fused
        )
        value = self.activated(value, kind if kind in ENDS else 0)
        if record.grid is None:
            self.writer.put(tensor, "floats", value, layout)
            return
        codes = self.quantized(record, value)
        self.writer.put(tensor, "codes", codes, layout)

    def quantized(self, record: NetTensor, value: str) -> str:
        """Return the codes of floats; those of 32 bits by standard arithmetic."""
        hint = f"{record.name}_codes"
        scale, zero = self.grid(record, None)
        if record.type != "INT32":
            codes = self.writer.emit("QuantizeLinear", value, scale, zero, hint=hint)
            return self.noted(record, codes)
        ratio = self.writer.emit("Round", self.writer.emit("Div", value, scale))
        return self.writer.emit("Cast", ratio, hint=hint, to=onnx.TensorProto.INT32)

    def activated(self, value: str, kind: int) -> str:
        """Return floats cut by an activation."""
        if kind == RELU:
            return self.writer.emit("Relu", value)
        if not kind:
            return value
        ends = [self.writer.constant(np.float32(end), "end") for end in ENDS[kind]]
        return self.writer.emit("Clip", value, *ends)

    def layout_of(self, operation: Operation) -> str:
        """Return the layout in which an operation element by element is best done."""
        given = [i for i in operation.inputs if i >= 0 and self.net.tensors[i].data is None]
        fours = [i for i in given if len(self.net.tensors[i].shape) == 4]
        is_first = len(fours) == len(given) and any(map(self.writer.is_first, fours))
        constants = [i for i in operation.inputs if i >= 0 and i not in given]
        fits = all(len(self.net.tensors[i].shape) in (0, 4) for i in constants)
        return FIRST if is_first and fits else LAST
