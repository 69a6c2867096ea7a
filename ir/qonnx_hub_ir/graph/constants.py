"""Constants of a graph: initializers, and quantizers of initializers."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from onnx_ir import Graph, Value

from qonnx_hub_ir import dialect
from qonnx_hub_ir.quantizers import Array


def is_constant_tree(value: Value | None) -> bool:
    """Return whether a value is a constant, or a quantizer of constants."""
    if value is None:
        return False
    if dialect.constant_tensor(value) is not None:
        return True
    node = value.producer()
    return (
        node is not None
        and dialect.is_quantizer(node)
        and all(dialect.constant_tensor(one) is not None for one in node.inputs)
    )


def shape_of_constant(value: Value) -> tuple[int, ...]:
    """Return the shape of a value that :func:`is_constant_tree`."""
    node = value.producer()
    tensor = dialect.constant_tensor(value if node is None else node.inputs[0])
    if tensor is None:
        raise ValueError(f"'{value.name}' is not a constant")
    return tuple(int(size) for size in tensor.shape if isinstance(size, int))


def constant_shape(value: Value | None) -> tuple[int, ...] | None:
    """Return the shape of a constant or a quantizer of constants; ``None`` for the others."""
    if value is None or not is_constant_tree(value):
        return None
    return shape_of_constant(value)


def is_single(value: Value) -> bool:
    """Return whether a value that :func:`is_constant_tree` has one element."""
    return int(np.prod(shape_of_constant(value), dtype=np.int64)) == 1


def known_integers(value: Value | None) -> list[int] | None:
    """Return a constant as a flat list of integers: axes, pads, sizes."""
    array = dialect.constant_value(value)
    return None if array is None else [int(number) for number in array.reshape(-1)]


def full_rank(array: Array, rank: int) -> Array:
    """Return the array with leading axes of length 1 up to a rank."""
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def along_channels(values: Array, rank: int, *, last: bool = False) -> Array:
    """Return one value per channel, shaped to broadcast with a value of a rank.

    Args:
        values: One entry per channel.
        rank: Rank of what they apply to, from 2 on.
        last: Whether its channels are on the last axis, else on axis 1.
    """
    return values.reshape(channel_shape(rank, last=last))


def channel_shape(rank: int, *, last: bool = False) -> tuple[int, ...]:
    """Return the shape, -1 for the channels, in which :func:`along_channels` gives values."""
    if last:
        return (1,) * (rank - 1) + (-1,)
    return (1, -1) + (1,) * (rank - 2)


def squeezed(values: Array) -> Array:
    """Return the values with length 1 along every axis on which they do not differ."""
    for axis in range(values.ndim):
        first = np.take(values, [0], axis=axis)
        if np.array_equal(np.broadcast_to(first, values.shape), values):
            values = first
    return np.ascontiguousarray(values)


def without_extra_axes(values: Array) -> Array:
    """Return a quantizer's parameter as float32 that cannot add axes to another operand."""
    array = values.astype(np.float32)
    return array.reshape(()) if array.size == 1 else array


def read_initializers(graph: Graph) -> list[Value]:
    """Return the initializers that somebody reads."""
    return [value for value in graph.initializers.values() if value.uses()]


def drop_unread(graph: Graph, candidates: Iterable[Value]) -> None:
    """Drop those initializers among the candidates that nobody reads any more."""
    for value in candidates:
        known = graph.initializers.get(str(value.name))
        if known is value and not value.uses() and not value.is_graph_output():
            graph.initializers.pop(str(value.name))
