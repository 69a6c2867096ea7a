"""A net under construction, and the values of a graph that its tensors hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qonnx_hub_adapters.tflite.net import CODE_TYPES, CodeGrid, NetTensor, Operation, TfliteNet
from qonnx_hub_adapters.tflite.operators import OPERATORS
from qonnx_hub_adapters.tflite.schema import fields_of
from qonnx_hub_ir.quantizers import Array

_VERSIONS: Mapping[str, tuple[int, int, int]] = {
    "CONV_2D": (3, 4, 7),
    "DEPTHWISE_CONV_2D": (3, 5, 6),
    "FULLY_CONNECTED": (5, 7, 10),
    "TRANSPOSE_CONV": (3, 4, 3),
    "QUANTIZE": (2, 3, 2),
    "DEQUANTIZE": (2, 3, 2),
    "RESHAPE": (1, 1, 1),
    "HARD_SWISH": (1, 1, 1),
    "PRELU": (1, 1, 1),
    "SQUEEZE": (1, 1, 1),
    "EXPAND_DIMS": (1, 1, 1),
    "MUL": (2, 4, 2),
    "TRANSPOSE": (2, 4, 2),
    "RESIZE_BILINEAR": (3, 4, 3),
}
"""Operator -> its version for 8 bits, for 16-bit data, for 4-bit weights; others 2, 3, 2."""

_OTHERS = (2, 3, 2)


@dataclass(frozen=True, slots=True)
class Held:
    """What holds a value of a graph.

    Attributes:
        tensor: The number of a tensor.
        is_first: Whether the value has its channels first, where the tensor has them last.
    """

    tensor: int
    is_first: bool = False


@dataclass(slots=True)
class NetBuilder:
    """Tensors and operations so far."""

    tensors: list[NetTensor] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)

    def tensor(
        self,
        name: str,
        type_: str,
        shape: Sequence[int],
        grid: CodeGrid | None = None,
        data: Array | None = None,
    ) -> int:
        """Return the number of a new tensor."""
        kept = tuple(int(n) for n in shape)
        numbers = None if data is None else np.asarray(data).reshape(kept)
        self.tensors.append(NetTensor(name, type_, kept, kept, grid, numbers))
        return len(self.tensors) - 1

    def constant(self, numbers: Any, dtype: Any = np.int32) -> int:
        """Return the number of a tensor of integers, such as axes."""
        data = np.asarray(numbers, dtype=dtype)
        type_ = {np.dtype(np.int32): "INT32", np.dtype(np.float32): "FLOAT32"}[data.dtype]
        return self.tensor(f"constant_{len(self.tensors)}", type_, data.shape, None, data)

    def operate(
        self, name: str, inputs: Sequence[int], outputs: Sequence[int], **options: Any
    ) -> None:
        """Add an operation; options that are not given have their defaults."""
        row = OPERATORS[name]
        listed = fields_of(f"{row.options}Options") or () if row.options else ()
        defaults = {f.name: f.default for f in listed if not f.is_vector}
        types = {self.tensors[i].type for i in (*inputs, *outputs) if i >= 0}
        kind = 1 if "INT16" in types else 2 if "INT4" in types else 0
        version = min(_VERSIONS.get(name, _OTHERS)[kind], row.version)
        if types <= {"FLOAT32", "INT32"}:
            version = 1
        found = defaults | options
        if "pot_scale_int16" in found:
            found["pot_scale_int16"] = False
        self.operations.append(Operation(name, version, tuple(inputs), tuple(outputs), found))

    def like(self, tensor: int, name: str, shape: Sequence[int]) -> int:
        """Return a new tensor on the grid of another."""
        record = self.tensors[tensor]
        return self.tensor(name, record.type, shape, record.grid)

    def moved(
        self,
        name: str,
        tensor: int,
        shape: Sequence[int],
        more: Sequence[int] = (),
        **options: Any,
    ) -> int:
        """Return what an operator that moves codes makes of a tensor."""
        made = self.like(tensor, f"{self.tensors[tensor].name}/{name.lower()}", shape)
        self.operate(name, (tensor, *more), (made,), **options)
        return made

    def turned(self, tensor: int, order: Sequence[int]) -> int:
        """Return a tensor with its axes in another order."""
        shape = [self.tensors[tensor].shape[axis] for axis in order]
        record = self.tensors[tensor]
        if record.data is not None:
            data = np.ascontiguousarray(record.data.transpose(list(order)))
            return self.tensor(record.name, record.type, shape, record.grid, data)
        return self.moved("TRANSPOSE", tensor, shape, (self.constant(list(order)),))

    def requantized(self, tensor: int, type_: str, grid: CodeGrid) -> int:
        """Return a tensor on another grid; itself where it is that grid."""
        record = self.tensors[tensor]
        if record.type == type_ and record.grid is not None and record.grid.same(grid):
            return tensor
        made = self.tensor(f"{record.name}/quantize", type_, record.shape, grid)
        self.operate("QUANTIZE", (tensor,), (made,))
        return made

    def clamped(self, tensor: int, low: int, high: int) -> int:
        """Return codes cut to a range, by MAXIMUM and MINIMUM where that is needed."""
        least, most = CODE_TYPES[self.tensors[tensor].type]
        for name, end, needed in (
            ("MAXIMUM", low, low > least),
            ("MINIMUM", high, high < most),
        ):
            if needed:
                record = self.tensors[tensor]
                data = np.array(end, dtype=record.dtype)
                limit = self.tensor(f"{record.name}/limit", record.type, (), record.grid, data)
                made = self.like(tensor, f"{record.name}/{name.lower()}", record.shape)
                self.operate(name, (tensor, limit), (made,))
                tensor = made
        return tensor

    def net(
        self, inputs: Sequence[tuple[int, str]], outputs: Sequence[tuple[int, str]]
    ) -> TfliteNet:
        """Return the finished net."""
        return TfliteNet(
            tuple(self.tensors),
            tuple(self.operations),
            tuple(i for i, _ in inputs),
            tuple(i for i, _ in outputs),
            tuple(n for _, n in inputs),
            tuple(n for _, n in outputs),
        )


def one_grid(scale: Any, zero: Any = 0) -> CodeGrid:
    """Return the grid of one scale and one zero point."""
    scales = np.asarray(scale, dtype=np.float32).reshape(1)
    return CodeGrid(scales, np.asarray(zero, dtype=np.int64).reshape(1))
