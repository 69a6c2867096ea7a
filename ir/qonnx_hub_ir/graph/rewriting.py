"""Nodes taken out of a graph, and what passes ask of nodes and values."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx_ir import Graph, Node, SymbolicDim, Value

from qonnx_hub_ir.quantizers import Array

Dims = tuple[int | str | None, ...]
"""Sizes: numbers, names of symbolic sizes, ``None`` where nothing is known."""


def attribute(node: Node, name: str, default: Any) -> Any:
    """Return the value of an attribute, or the default where the node does not have it."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def dims(value: Value | None) -> Dims | None:
    """Return the sizes of a value; ``None`` where not even the rank is known."""
    if value is None or value.shape is None:
        return None
    return tuple(d.value if isinstance(d, SymbolicDim) else d for d in value.shape)


def fits_into(shape: tuple[int, ...], target: Dims | None) -> bool:
    """Return whether broadcasting with ``shape`` leaves the target's shape as it is."""
    if not shape:
        return True
    if target is None or len(shape) > len(target):
        return False
    pairs = zip(shape, target[len(target) - len(shape) :], strict=True)
    return all(own in (1, size) for own, size in pairs)


def is_standard(node: Node, *operators: str) -> bool:
    """Return whether the node is one of these standard operators."""
    return node.domain == "" and node.op_type in operators


def bypass(node: Node, value: Value) -> bool:
    """Take a node out: its readers read ``value`` instead of its first output.

    A graph output keeps its name, so that what computes ``value`` takes it over.

    Returns:
        Whether that was done. It is not where a graph output would be an input, an
        initializer or another output.
    """
    old, graph = node.outputs[0], node.graph
    if not isinstance(graph, Graph):
        return False
    if not old.is_graph_output():
        old.replace_all_uses_with(value)
        graph.remove(node, safe=True)
        return True
    inner = value.producer()
    if inner is None or inner.graph is not graph or value.is_graph_output():
        return False
    name = old.name
    value.type = value.type or old.type
    value.shape = value.shape if value.shape is not None else old.shape
    old.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    old.name = None
    value.name = name
    return True


def free_name(name: str, taken: set[str]) -> str:
    """Return the name, or the first with a number behind it that is not taken; claim it."""
    free, count = name, 0
    while free in taken:
        count += 1
        free = f"{name}_{count}"
    taken.add(free)
    return free


def value_names(graph: Graph) -> set[str]:
    """Return the names of all values of a graph and of the graphs inside it."""
    names = {str(value.name) for value in (*graph.inputs, *graph.initializers.values())}
    for inner in graph.subgraphs():
        names.update(str(v.name) for v in (*inner.inputs, *inner.initializers.values()))
    names.update(str(value.name) for node in graph.all_nodes() for value in node.outputs)
    return names


def without_extra_axes(values: Array) -> Array:
    """Return a quantizer's parameter as float32 that cannot add axes to another operand."""
    array = values.astype(np.float32)
    return array.reshape(()) if array.size == 1 else array


def like(value: Value, other: Value) -> Value:
    """Return the value, with type and shape of another one."""
    value.type, value.shape = other.type, other.shape
    return value
