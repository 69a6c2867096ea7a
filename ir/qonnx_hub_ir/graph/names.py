"""Names that nobody else has."""

from __future__ import annotations

from collections.abc import Collection, Sequence

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


def separate_names(model: Model, keep: Collection[Value]) -> None:
    """Give values whose name somebody else has a name of their own.

    A name that is made of a node's can be one that the file has already.

    Args:
        model: Changed in place.
        keep: Values that keep their names, as inputs and outputs of the model do.
    """
    fixed = {*keep, *model.graph.inputs, *model.graph.outputs}
    values = dict.fromkeys(every_value(model))
    taken = {str(value.name) for value in values if value in fixed and value.name}
    for value in values:
        if value in fixed or not value.name:
            continue
        free = free_name(value.name, taken)
        if free != value.name:
            value.name = free
