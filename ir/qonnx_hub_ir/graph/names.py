"""Names that nobody else has."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_ir import Graph, Model, Value

from qonnx_hub_ir.graph.subgraphs import every_value, nested_graphs, own_values


def free_name(name: str, taken: set[str]) -> str:
    """Return the name, or the first with a number behind it that is not taken; claim it."""
    free, count = name, 0
    while free in taken:
        count += 1
        free = f"{name}_{count}"
    taken.add(free)
    return free


def value_names(graph: Graph) -> set[str]:
    """Return the names of all values of a graph and of the bodies inside it."""
    return {str(value.name) for one in nested_graphs(graph) for value in own_values(one)}


def node_names(graph: Graph) -> set[str]:
    """Return the names of all nodes of a graph and of the bodies inside it."""
    return {str(node.name) for one in nested_graphs(graph) for node in one}


def rename_values(model: Model, names: Sequence[tuple[Value, str]]) -> None:
    """Give values new names, which may be names that others of them have now."""
    taken = {str(value.name) for value in every_value(model)} | {name for _, name in names}
    for count, (value, _) in enumerate(names):
        # For a moment nobody has any of the names.
        value.name = free_name(f"unnamed_{count}", taken)
    for value, name in names:
        value.name = name
