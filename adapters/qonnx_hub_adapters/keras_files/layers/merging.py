"""Layers that merge several inputs, from left to right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from onnx_ir import Value

from qonnx_hub_adapters.keras_files.kinds import Kind, Use, Writes
from qonnx_hub_adapters.keras_files.scope import Scope


def aligned(s: Scope, values: Sequence[Value]) -> list[Value]:
    """Return values of one rank: axes of length 1 come behind the samples."""
    ranks = [s.rank(value) for value in values]
    return [
        value
        if rank == max(ranks)
        else s.op("Unsqueeze", value, s.integers(range(1, 1 + max(ranks) - rank), "axes"))
        for value, rank in zip(values, ranks, strict=True)
    ]


def _fold(op_type: str, *, chooses: bool = False) -> Writes:
    """Return what merges values one after the other.

    Args:
        op_type: The operator.
        chooses: Whether Keras 3 leaves out what a mask hides on one side.
    """

    def write(s: Scope, use: Use) -> Value:
        if chooses and s.net.generation == 3 and any(x in s.net.masks for x in use.x):
            raise s.fail("merges by a mask: Keras 3 leaves out what is masked on one side")
        values = aligned(s, use.x)
        y = values[0]
        for value in values[1:]:
            y = s.op(op_type, y, value)
        return y

    return write


def _dot(s: Scope, use: Use) -> Value:
    """Return the product along one axis of each, which is moved to where MatMul has it."""
    a, b = use.x
    axes = use.config["axes"]
    first, second = (axes, axes) if isinstance(axes, int) else axes
    ranks = s.rank(a), s.rank(b)
    first, second = first % ranks[0], second % ranks[1]
    if use.config.get("normalize"):
        a, b = _normalized(s, a, first), _normalized(s, b, second)
    a = s.transpose(a, [n for n in range(ranks[0]) if n != first] + [first])
    b = s.transpose(b, [0, second, *(n for n in range(1, ranks[1]) if n != second)])
    if ranks == (2, 2):
        a = s.op("Unsqueeze", a, s.integers([1], "axes"))
        b = s.op("Unsqueeze", b, s.integers([2], "axes"))
        return s.op("Squeeze", s.op("MatMul", a, b), s.integers([2], "axes"))
    if ranks != (3, 3):
        raise s.fail(f"a product of inputs of {ranks[0]} and {ranks[1]} axes")
    return s.op("MatMul", a, b)


def _normalized(s: Scope, x: Value, axis: int) -> Value:
    square = s.op("ReduceSum", s.op("Mul", x, x), s.integers([axis], "axes"), keepdims=1)
    size = s.op("Sqrt", s.op("Max", square, np.float32(1e-12)))
    return s.op("Mul", x, s.op("Reciprocal", size))


_MERGES: Mapping[str, Callable[[Scope, Use], Value]] = {
    "Add": _fold("Add"),
    "Subtract": _fold("Sub"),
    "Multiply": _fold("Mul", chooses=True),
    "Maximum": _fold("Max", chooses=True),
    "Minimum": _fold("Min", chooses=True),
    "Average": lambda s, use: s.op("Div", _fold("Add")(s, use), float(len(use.x))),
    "Concatenate": lambda s, use: s.op("Concat", *use.x, axis=int(use.config.get("axis", -1))),
    "Dot": _dot,
}

KINDS: Mapping[str, Kind] = {f"keras>{name}": Kind(write) for name, write in _MERGES.items()}
