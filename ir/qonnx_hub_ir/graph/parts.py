"""Nodes taken out of a graph into models of their own, and put back."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir
from onnx_ir import Model, Node, Value

from qonnx_hub_ir import dialect
from qonnx_hub_ir.annotations import carry
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.graph.constants import drop_unread, read_initializers
from qonnx_hub_ir.graph.partition import extract_model, free_names, take_imports
from qonnx_hub_ir.graph.rewriting import can_be_output, replace_value
from qonnx_hub_ir.graph.subgraphs import read_values
from qonnx_hub_ir.graph.unused import import_used

PARTITION = "GenericPartition"
"""The operator that stands for a model in a file, which its attribute ``model`` names."""


def is_partition(node: Node) -> bool:
    """Return whether a node stands for a model in a file."""
    return (node.domain, node.op_type) == (dialect.DOMAIN, PARTITION)


def cut_part(model: Model, chosen: Collection[Node], name: str, path: str) -> Model:
    """Put one node in the place of others, in place, and return the model it stands for.

    Tensors keep their names in both. What the part reads is its inputs, in the order in which
    it is read; what others read of it, or the model returns, is its outputs.

    Args:
        model: An IR model.
        chosen: Nodes of its graph.
        name: Name of the node that is written.
        path: The file that it will name.

    Raises:
        PassError: Nobody needs what these nodes make, or what lies between two of them is not
            among them: one node cannot stand for both.
    """
    graph = model.graph
    ordered = [node for node in graph if node in chosen]
    _require_closed(model, chosen, name)
    made = {value for node in ordered for value in node.outputs}
    read = [value for node in ordered for value in read_values(node) if value not in made]
    given = [v for v in dict.fromkeys(read) if v.is_graph_input() or not v.is_initializer()]
    others = {v for node in graph if node not in chosen for v in read_values(node)}
    needed = others | set(graph.outputs)
    left = [value for node in ordered for value in node.outputs if value in needed]
    if not left:
        raise PassError(f"nobody needs what part '{name}' makes")
    part = extract_model(model, _names(given), _names(left))
    entries = {str(value.name): value for value in part.graph.inputs}
    part.graph.inputs[:] = [entries[key] for key in _names(given) if key in entries]
    given = [value for value in given if value.name in entries]
    node = onnx_ir.node(
        PARTITION,
        given,
        {"model": path},
        domain=dialect.DOMAIN,
        num_outputs=len(left),
        name=name,
    )
    constants = read_initializers(graph)
    graph.insert_after(ordered[-1], node)
    for old, new in zip(left, node.outputs, strict=True):
        replace_value(old, new)
    graph.remove(ordered, safe=True)
    drop_unread(graph, constants)
    graph.sort()
    import_used(model)
    return part


def _names(values: list[Value]) -> list[str]:
    return [str(value.name) for value in values]


def _require_closed(model: Model, chosen: Collection[Node], name: str) -> None:
    """Refuse nodes of which one needs another through something that is not among them."""
    inside: set[Value] = set()
    behind: set[Value] = set()
    for node in model.graph:
        read = read_values(node)
        if node not in chosen:
            if any(value in inside or value in behind for value in read):
                behind.update(node.outputs)
            continue
        inside.update(node.outputs)
        if through := [str(value.name) for value in read if value in behind]:
            raise PassError(
                f"part '{name}' needs itself: '{node.name}' reads '{through[0]}', which is "
                "made outside of it from what it makes"
            )


def inline_part(model: Model, node: Node, part: Model) -> None:
    """Put a model in the place of the node that stands for it, in place.

    The tensors that the node reads and makes keep their names; those inside, and nodes, get a
    number behind theirs where the model has the name already.

    Args:
        model: An IR model.
        node: A node of its graph.
        part: What the node stands for. It is not changed.

    Raises:
        PassError: Other numbers of inputs or outputs, or opsets that differ.
    """
    held, graph = part.clone(), model.graph
    inner = held.graph
    if (len(inner.inputs), len(inner.outputs)) != (len(node.inputs), len(node.outputs)):
        raise PassError(
            f"'{node.name}' has {len(node.inputs)} inputs and {len(node.outputs)} outputs, "
            f"its model {len(inner.inputs)} and {len(inner.outputs)}"
        )
    take_imports(model, held)
    entries, results = list(inner.inputs), list(inner.outputs)
    inner.outputs.clear()
    inner.inputs.clear()
    for entry in entries:
        entry.name = None
    free_names(model, held, set())
    given = dict(zip(entries, node.inputs, strict=True))
    for entry, value in given.items():
        if value is None:
            raise PassError(f"'{node.name}' leaves an input of its model open")
        entry.replace_all_uses_with(value)
    initializers, nodes = list(inner.initializers.values()), list(inner)
    inner.initializers.clear()
    inner.remove(nodes)
    for value in initializers:
        graph.register_initializer(value)
    graph.insert_before(node, nodes)
    for old, result in zip(node.outputs, results, strict=True):
        _hand_over(node, old, given.get(result) or result)
    graph.remove(node, safe=True)
    import_used(model)


def _hand_over(node: Node, old: Value, new: Value) -> None:
    """Let what read an output of a node read a value of the model that it stood for."""
    if not can_be_output(new) or new.name == old.name:
        copy = onnx_ir.node("Identity", [new], name=f"{node.name}_{old.name}")
        node.prepend(copy)
        copy.outputs[0].type, copy.outputs[0].shape = new.type, new.shape
        carry(new, copy.outputs[0])
        new = copy.outputs[0]
    replace_value(old, new)
