"""Operations that pick, number and add up elements, and division to whole numbers."""

from __future__ import annotations

import functools
import itertools

import numpy as np
from onnx_ir import Value

from qonnx_hub_adapters.keras_files.layers.arguments import Arguments, Writes, of_one_type
from qonnx_hub_adapters.keras_files.scope import Scope

_INT32, _INT64 = 6, 7
_MOST_SUMMED = 64
"""Elements that a running sum is written for, one addition each."""


def gather(s: Scope, a: Arguments) -> Value:
    """Return elements by their numbers along an axis."""
    x, numbers = a.tensor(0, "x", "params"), a.plain(1, "indices")
    axis = a.plain(-1, "axis")
    if a.plain(-1, "batch_dims", default=0):
        raise s.fail("gathers by sample (batch_dims), which is not supported")
    if axis is None and s.net.generation == 3:
        x = s.reshape(x, [-1])
    if not isinstance(numbers, Value):
        numbers = np.asarray(numbers, dtype=np.int64)
    elif numbers.dtype not in (_INT32, _INT64):
        numbers = s.op("Cast", numbers, to=_INT64)
    return s.op("Gather", x, numbers, axis=int(axis or 0))


def argument_of(op_type: str) -> Writes:
    """Return what writes the place of the largest or smallest element."""

    def write(s: Scope, a: Arguments) -> Value:
        x, axis = a.tensor(0, "x", "input"), a.plain(1, "axis")
        keeps = bool(a.plain(-1, "keepdims", default=False))
        is_3, rank = s.net.generation == 3, s.rank(x)
        if is_3 and x.dtype is not None and x.dtype.is_floating_point():
            # Keras 3 puts -0 below +0.
            is_minus = s.op("Less", s.op("Reciprocal", x), 0.0)
            is_minus_0 = s.op("And", s.op("Equal", x, 0.0), is_minus)
            x = s.op("Where", is_minus_0, -np.finfo(np.float32).tiny, x)
        if axis is None and is_3:
            x = s.reshape(x, [-1])
        y = s.op(op_type, x, axis=int(axis or 0), keepdims=int(keeps and axis is not None))
        if keeps and axis is None:
            y = s.reshape(y, [1] * rank)
        wanted = "int32" if is_3 else str(a.plain(-1, "output_type", default="int64"))
        if not wanted.endswith(("int32", "int64")) or "uint" in wanted:
            raise s.fail(f"counts places in {wanted}; int32 and int64 are supported")
        return s.op("Cast", y, to=_INT32) if wanted.endswith("int32") else y

    return write


def cut(s: Scope, a: Arguments) -> Value:
    """Return a block by its start and sizes; size -1 goes to the end."""
    x, starts = a.tensor(0, "inputs", "input_"), a.plain(1, "start_indices", "begin")
    sizes = a.plain(2, "shape", "size")
    given = [starts, sizes]
    if not all(isinstance(one, (list, tuple)) for one in given) or not all(
        isinstance(number, int) for one in given for number in one
    ):
        raise s.fail("cuts at places that are computed")
    most = np.iinfo(np.int64).max
    ends = [most if n == -1 else at + n for at, n in zip(starts, sizes, strict=True)]
    return s.op("Slice", x, s.integers(starts, "starts"), s.integers(ends, "ends"))


def unstack(s: Scope, a: Arguments) -> list[Value]:
    """Return the slices of a value along an axis, one by one; their number is its size."""
    x, axis = a.tensor(0, "x", "value"), int(a.plain(2, "axis", default=0))
    if a.plain(1, "num") not in (None, s.known(x, axis)):
        raise s.fail(f"unstacks {a.plain(1, 'num')} of {s.known(x, axis)} slices")
    return _slices(s, x, axis, keeps=False)


def _slices(s: Scope, x: Value, axis: int, *, keeps: bool) -> list[Value]:
    size, rank = s.known(x, axis), s.rank(x)
    parts = s.ops("Split", [x, s.integers([1] * size, "split")], size, axis=axis % rank)
    if keeps:
        return parts
    return [s.op("Squeeze", part, s.integers([axis % rank], "axes")) for part in parts]


def running_sum(s: Scope, a: Arguments) -> Value:
    """Return the sums of the elements so far along an axis, one after the other."""
    x, axis = a.tensor(0, "x"), a.plain(1, "axis")
    if axis is None and s.net.generation == 3:
        x = s.reshape(x, [-1])
    axis = int(axis or 0)
    if s.known(x, axis) > _MOST_SUMMED:
        raise s.fail(f"sums over {s.known(x, axis)} elements; {_MOST_SUMMED} are supported")
    step = -1 if a.plain(-1, "reverse") else 1
    parts = _slices(s, x, axis, keeps=True)[::step]
    sums = list(itertools.accumulate(parts, lambda left, right: s.op("Add", left, right)))
    return s.op("Concat", *sums[::step], axis=axis % s.rank(x))


def broadcast_to(s: Scope, a: Arguments) -> Value:
    """Return a value repeated to sizes."""
    x, sizes = a.tensor(0, "x", "input"), a.plain(1, "shape")
    if not isinstance(sizes, (list, tuple)) or not all(isinstance(n, int) for n in sizes):
        raise s.fail("repeats to sizes that are computed")
    return s.op("Expand", x, s.integers(sizes, "shape"))


def sum_of_all(s: Scope, a: Arguments) -> Value:
    """Return the sum of a list of values, from left to right."""
    given = a.plain(0, "inputs")
    values: list[Value] = list(given) if isinstance(given, (list, tuple)) else [given]
    return functools.reduce(lambda left, right: s.op("Add", left, right), values)


def squared_difference(s: Scope, a: Arguments) -> Value:
    """Return the square of a difference."""
    difference = s.op("Sub", *of_one_type(s, a, "Sub"))
    return s.op("Mul", difference, difference)


def floor_divide(s: Scope, a: Arguments) -> Value:
    """Return the whole number below a quotient."""
    x, y = of_one_type(s, a, "Mod")
    if _is_float(x):
        return s.op("Floor", s.op("Div", x, y))
    return s.op("Div", s.op("Sub", x, s.op("Mod", x, y)), y)


def modulo(s: Scope, a: Arguments) -> Value:
    """Return what a division to whole numbers leaves, with the sign of the divisor."""
    x, y = of_one_type(s, a, "Mod")
    if not _is_float(x):
        return s.op("Mod", x, y)
    rest = s.op("Mod", x, y, fmod=1)
    other_sign = s.op("Xor", s.op("Less", rest, 0.0), s.op("Less", y, 0.0))
    wrong = s.op("And", s.op("Not", s.op("Equal", rest, 0.0)), other_sign)
    return s.op("Where", wrong, s.op("Add", rest, y), rest)


def _is_float(x: Value) -> bool:
    return x.dtype is None or x.dtype.is_floating_point()


def l2_normalize(s: Scope, a: Arguments) -> Value:
    """Return a value divided by its Euclidean length, which is at least ``sqrt(epsilon)``."""
    x = a.tensor(0, "x")
    axes = a.axes(s, x)
    at = None if axes is None else s.integers(axes, "axes")
    square = s.op("ReduceSum", s.op("Mul", x, x), at, keepdims=1)
    epsilon = float(a.plain(2, "epsilon", default=1e-12))
    size = s.op("Sqrt", s.op("Max", square, np.float32(epsilon)))
    return s.op("Mul", x, s.op("Reciprocal", size))
