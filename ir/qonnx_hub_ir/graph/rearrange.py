"""Constants, quantized or not, rearranged in place or in a copy for one reader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Graph, Node, Value

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.annotations import carry, forget_shape, permute_layout
from qonnx_hub_ir.graph.builder import copy_node
from qonnx_hub_ir.graph.constants import (
    drop_unread,
    full_rank,
    is_constant_tree,
    is_single,
    known_integers,
    read_initializers,
)
from qonnx_hub_ir.graph.queries import attribute, input_of, only_reader
from qonnx_hub_ir.quantizers import Array

Rearrange = Callable[[Array], Array]
"""Takes an array of the full rank, whose axes may have length 1, and returns it rearranged."""


def transposing(perm: tuple[int, ...]) -> Rearrange:
    """Return what transposes constants by ``perm``."""
    return lambda array: np.transpose(array, perm)


def taking(order: Array, axis: int) -> Rearrange:
    """Return what puts the elements of constants along an axis in another order."""

    def take(array: Array) -> Array:
        return array if array.shape[axis] == 1 else np.take(array, order, axis=axis)

    return take


def moved(node: Node, values: Array) -> Array | None:
    """Return what a Transpose, Reshape, Flatten, Squeeze or Unsqueeze makes of values.

    ``None`` where its axes or its shape are computed at run time, or zeros in it are sizes.

    Args:
        node: The node.
        values: An array in the place of the input.

    Raises:
        ValueError: The array does not have the shape that the node takes.
    """
    if operators.transposes(node):
        return np.ascontiguousarray(np.transpose(values, attribute(node, "perm", None)))
    if node.op_type == "Flatten":
        axis = int(attribute(node, "axis", 1)) % (values.ndim + 1)
        return values.reshape(int(np.prod(values.shape[:axis], dtype=np.int64)), -1)
    given = known_integers(input_of(node, 1))
    if given is None:
        return (
            np.squeeze(values) if node.op_type == "Squeeze" and len(node.inputs) < 2 else None
        )
    if node.op_type == "Squeeze":
        return np.squeeze(values, tuple(given))
    if node.op_type == "Unsqueeze":
        return np.expand_dims(values, tuple(given))
    if attribute(node, "allowzero", 0):
        return None
    return values.reshape(
        [values.shape[i] if size == 0 else size for i, size in enumerate(given)]
    )


class Rearranger:
    """Rearranges constants of one graph; equal requests share one copy."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._done: dict[tuple[Any, ...], Value] = {}

    def __call__(
        self, value: Value, change: Rearrange, key: object, reader: Node, rank: int
    ) -> Value:
        """Return the constant rearranged; in place where nobody else reads it.

        Args:
            value: A constant, or a quantizer of constants, that the reader reads.
            change: What to do with its array.
            key: Stands for ``change``: equal keys do equal things.
            reader: The node that will read the result.
            rank: Rank of what ``change`` takes; lower constants get leading axes.
        """
        if not is_constant_tree(value):
            raise ValueError(f"'{value.name}' is not a constant")
        if is_single(value):
            return value
        node = value.producer()
        if node is None:
            return self._array(value, change, key, rank)
        known = (value, key, rank)
        if known not in self._done:
            self._done[known] = self._quantized(node, change, known, reader)
        return self._done[known]

    def _array(
        self, value: Value, change: Rearrange, key: Any, rank: int, in_place: bool = True
    ) -> Value:
        """Return an initializer rearranged; in place only where nobody else reads it."""
        known = (value, key, rank)
        if known in self._done:
            return self._done[known]
        tensor = dialect.constant_tensor(value)
        if tensor is None:
            raise ValueError(f"'{value.name}' is not a constant")
        array = np.ascontiguousarray(change(full_rank(tensor.numpy(), rank)))
        name = str(value.name)
        fresh = onnx_ir.Tensor(array, dtype=tensor.dtype, name=name)
        found = value
        if in_place and only_reader(value):
            value.const_value = fresh
            value.shape = dialect.known_shape(fresh)
        else:
            found = dialect.register_tensor(self.graph, f"{name}_turned", fresh)
            found.metadata_props.update(value.metadata_props)
            carry(value, found)
        _annotate(found, tensor.shape.rank(), key)
        self._done[known] = found
        return found

    def _quantized(
        self, node: Node, change: Rearrange, known: tuple[Any, ...], reader: Node
    ) -> Value:
        _, key, rank = known
        alone = only_reader(node.outputs[0])
        target = node
        if not alone:
            target = copy_node(node, node.inputs, name=f"{node.name}_{reader.name}")
            reader.prepend(target)
        out = target.outputs[0]
        for index, value in enumerate(node.inputs):
            if value is None or (index and is_single(value)):
                continue
            target.replace_input_with(index, self._array(value, change, key, rank, alone))
        data = target.inputs[0]
        out.shape = None if data is None else data.shape
        _annotate(out, rank, key)
        return out


def _annotate(value: Value, rank: int, key: object) -> None:
    """Rearrange what is annotated of the axes of a constant that had a rank."""
    if isinstance(key, tuple) and sorted(map(str, key)) == sorted(map(str, range(rank))):
        permute_layout(value, key)
    elif value.shape is None or len(value.shape) != rank:
        forget_shape(value)


def rearrange_at(
    graph: Graph, nodes: Sequence[Node], rule: Callable[[Node, Rearranger], None]
) -> bool:
    """Apply a rule that rearranges constants to nodes, and drop what is not read any more.

    Returns whether there were any nodes.
    """
    read, rearranger = read_initializers(graph), Rearranger(graph)
    for node in nodes:
        rule(node, rearranger)
    drop_unread(graph, read if nodes else ())
    return bool(nodes)
