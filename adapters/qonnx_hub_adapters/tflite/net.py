"""A TFLite net as data: tensors, operations on them, and which of them are its borders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qonnx_hub_ir.quantizers import Array

RELU, RELU_N1_TO_1, RELU6 = 1, 2, 3
"""The fused activations that kernels know, by their number."""

SAME, VALID = 0, 1
"""The paddings."""


@dataclass(frozen=True, slots=True, eq=False)
class CodeGrid:
    """How the codes of a tensor become values: ``scale * (code - zero)``.

    Attributes:
        scale: float32, one number or one per index along the axis.
        zero: int64, of the same length.
        axis: The axis along which they vary, where there are several.
    """

    scale: Array
    zero: Array
    axis: int = 0

    def same(self, other: CodeGrid) -> bool:
        """Return whether both say the same, in every bit."""
        ours, theirs = (self.scale, self.zero), (other.scale, other.zero)
        is_axis = self.scale.size == 1 or self.axis == other.axis
        return is_axis and all(map(np.array_equal, ours, theirs))


@dataclass(frozen=True, slots=True, eq=False)
class NetTensor:
    """One tensor of a net.

    Attributes:
        name: Its name in the file; names need not be unique there.
        type: Its type as the schema calls it.
        shape: Its shape; sizes that are open are 1 here.
        signature: Its shape with -1 for sizes that are open; equal to ``shape`` where none is.
        grid: How its codes are read; ``None`` for what is not quantized.
        data: Its numbers, where they are constant; int4 as int8.
        is_variable: Whether it keeps its numbers from one run to the next.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    grid: CodeGrid | None = None
    data: Array | None = None
    is_variable: bool = False

    @property
    def scale(self) -> np.float32:
        """The one scale, as float32."""
        one: np.float32 = np.float32(0)
        if self.grid is not None and self.grid.scale.size == 1:
            one = np.float32(float(self.grid.scale[0]))
        return one

    @property
    def zero(self) -> int:
        """The one zero point."""
        return 0 if self.grid is None else int(self.grid.zero[0])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type of its numbers."""
        return DTYPES[self.type]


DTYPES: Mapping[str, np.dtype[Any]] = {
    "FLOAT32": np.dtype(np.float32),
    "FLOAT16": np.dtype(np.float16),
    "FLOAT64": np.dtype(np.float64),
    "INT64": np.dtype(np.int64),
    "INT32": np.dtype(np.int32),
    "INT16": np.dtype(np.int16),
    "INT8": np.dtype(np.int8),
    "INT4": np.dtype(np.int8),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "BOOL": np.dtype(bool),
}
"""Type -> the numpy type of its numbers; what is not here is not read."""

STANDARD: Mapping[str, str] = {
    "ADD": "Add",
    "SUB": "Sub",
    "MUL": "Mul",
    "DIV": "Div",
    "MAXIMUM": "Max",
    "MINIMUM": "Min",
    "LOGISTIC": "Sigmoid",
    "TANH": "Tanh",
    "HARD_SWISH": "HardSwish",
    "LEAKY_RELU": "LeakyRelu",
    "SOFTMAX": "Softmax",
    "MEAN": "ReduceMean",
    "SUM": "ReduceSum",
    "REDUCE_MAX": "ReduceMax",
    "REDUCE_MIN": "ReduceMin",
}
"""Operators of TFLite that are one of ONNX on floats -> its name."""

CODE_TYPES: Mapping[str, tuple[int, int]] = {
    "INT4": (-8, 7),
    "INT8": (-128, 127),
    "UINT8": (0, 255),
    "INT16": (-32768, 32767),
    "INT32": (-(2**31), 2**31 - 1),
    "INT64": (-(2**63), 2**63 - 1),
}
"""Type of codes -> lowest and highest."""


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One operation of a net.

    Attributes:
        name: The operator, as the schema calls it.
        version: The version that the file asks for.
        inputs: Numbers of tensors; -1 where one is left out.
        outputs: Likewise.
        options: Field -> value.
        intermediates: Numbers of tensors that only carry the grids of inner sums.
    """

    name: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    intermediates: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class TfliteNet:
    """A net: one graph.

    Attributes:
        tensors: All tensors, by number.
        operations: In the order in which they run.
        inputs: Numbers of tensors.
        outputs: Likewise.
        input_names: Unique names of the inputs, as users give them.
        output_names: Unique names of the outputs.
    """

    tensors: tuple[NetTensor, ...]
    operations: tuple[Operation, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()

    def call(self, operation: Operation) -> KernelCall:
        """Return an operation with the tensors that it reads and makes."""
        find = self.tensors.__getitem__
        given = tuple(None if i < 0 else find(i) for i in operation.inputs)
        made = tuple(map(find, operation.outputs))
        inner = tuple(map(find, operation.intermediates))
        return KernelCall(operation.name, operation.options, given, made, inner)


@dataclass(frozen=True, slots=True, eq=False)
class KernelCall:
    """An operation as its kernel sees it.

    Attributes:
        name: The operator.
        options: Field -> value; a field that the file does not write has its default.
        inputs: What it reads; ``None`` where something is left out.
        outputs: What it makes.
        intermediates: Tensors that only carry grids.
    """

    name: str
    options: Mapping[str, Any]
    inputs: tuple[NetTensor | None, ...]
    outputs: tuple[NetTensor, ...]
    intermediates: tuple[NetTensor, ...] = ()

    def tensor(self, index: int) -> NetTensor:
        """Return an input that must be there."""
        found = self.inputs[index]
        if found is None:
            raise IndexError(f"{self.name}: input {index} is left out")
        return found

    def has(self, index: int) -> bool:
        """Return whether an input is there."""
        return index < len(self.inputs) and self.inputs[index] is not None

    @property
    def output(self) -> NetTensor:
        """The first output."""
        return self.outputs[0]
