"""Names that nobody else has."""

from __future__ import annotations

from onnx_ir import Graph

from qonnx_hub_ir.graph.subgraphs import own_values


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
    graphs = (graph, *graph.subgraphs())
    return {str(value.name) for one in graphs for value in own_values(one)}


def node_names(graph: Graph) -> set[str]:
    """Return the names of all nodes of a graph and of the bodies inside it."""
    return {str(node.name) for node in graph.all_nodes()}
