"""Values and nodes replaced by others: the one place that decides what travels along."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir
from onnx_ir import Graph, Node, Value

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.annotations import LAYOUT, carry, retract


def can_be_output(value: Value) -> bool:
    """Return whether a value can become a graph output under another name.

    Graph inputs, initializers and graph outputs cannot: they have a name already that others
    rely on.
    """
    return not (value.is_graph_input() or value.is_graph_output() or value.is_initializer())


def replace_value(
    old: Value,
    new: Value,
    *,
    keep_name: bool = True,
    keep_type: bool = True,
    keep_metadata: bool = True,
) -> None:
    """Let everything that reads ``old`` read ``new``: nodes, inner graphs, graph outputs.

    What travels from the old value to the new one:

    - Type and shape: with ``keep_type`` those of the old value where it has them, without
      it those of the new one where it has them; what one does not know comes from the other.
    - With ``keep_metadata`` the metadata, provenance among it, and the annotations; entries of
      the new value that the old one does not have stay.
    - With ``keep_name`` the name; the old value then has none. A graph output's name is the
      model's signature: it travels in any case.

    The node that makes the old value stays; see :func:`replace_node`.

    Args:
        old: The value that nobody will read any more.
        new: What is read instead. It must be in the same graph or one around it, before all
            readers.
        keep_name: Whether the new value is called as the old one is. Initializers that
            others read, and graph inputs, should keep their own name.
        keep_type: Whether the old value's type and shape win over the new one's.
        keep_metadata: Whether the old value's metadata travel.

    Raises:
        ValueError: ``old`` is a graph output, and ``new`` a graph input, an initializer or an
            output itself: an Identity is needed (:func:`replace_node` writes it).
    """
    is_output = old.is_graph_output()
    if is_output and not can_be_output(new):
        raise ValueError(f"'{new.name}' cannot become the graph output '{old.name}'")
    first, second = (old, new) if keep_type else (new, old)
    new.type = second.type if first.type is None else first.type
    new.shape = second.shape if first.shape is None else first.shape
    if keep_metadata:
        new.metadata_props.update(old.metadata_props)
        carry(old, new, own_first=not keep_name)
    name = old.name
    old.replace_all_uses_with(new, replace_graph_outputs=is_output)
    if keep_name or is_output:
        old.name = None
        new.name = name


def replace_node(
    node: Node,
    new: Value,
    *,
    keep_name: bool = True,
    keep_type: bool = True,
    keep_metadata: bool = True,
) -> None:
    """Put a value in the place of a node's first output, and remove the node.

    As :func:`replace_value`; where the node makes a graph output that the value cannot become,
    an Identity of the node's name makes it. No body returns a value of a graph around it.
    """
    old, graph = node.outputs[0], node.graph
    if old.is_graph_output() and not (can_be_output(new) and new.graph is graph):
        copy = onnx_ir.node("Identity", [new], name=node.name)
        node.prepend(copy)
        new = copy.outputs[0]
    replace_value(
        old, new, keep_name=keep_name, keep_type=keep_type, keep_metadata=keep_metadata
    )
    if graph is not None:
        graph.remove(node, safe=True)


def read_behind(node: Node, name: str, *, keep_name: bool = False) -> None:
    """Let everything that reads a node's first input read its first output instead.

    The metadata travel to the output; the provenance stays with it alone, for it is the
    output that stands for the source's value now.

    Args:
        node: A node of the graph; it goes on reading its input.
        name: What the input is called where the output takes its name over.
        keep_name: Whether it does so in any case; else only the name of a graph output
            travels.
    """
    old, new = node.inputs[0], node.outputs[0]
    if old is None:
        raise ValueError(f"'{node.name}' reads nothing")
    new.metadata_props.update(old.metadata_props)
    carry(old, new)
    old.metadata_props.pop(dialect.PROVENANCE, None)
    is_output = old.is_graph_output()
    old.replace_all_uses_with(new, replace_graph_outputs=is_output)
    node.replace_input_with(0, old)
    if keep_name or is_output:
        new.name, old.name = old.name, name


def bypass(node: Node, value: Value) -> bool:
    """Take a node out: its readers read ``value``, which is equal, instead of its output.

    ``value`` keeps name, type, shape and metadata; the name of a graph output travels to it,
    and so do annotations that it lacks.

    Returns:
        Whether that was done. It is not where a graph output would be an input, an
        initializer or another output.
    """
    old, graph = node.outputs[0], node.graph
    if not isinstance(graph, Graph):
        return False
    if old.is_graph_output():
        maker = value.producer()
        if maker is None or maker.graph is not graph or not can_be_output(value):
            return False
    if operators.moves_values(node):
        retract(old, LAYOUT)
    carry(old, value, own_first=True)
    replace_value(old, value, keep_name=False, keep_type=False, keep_metadata=False)
    graph.remove(node, safe=True)
    return True


def rewrite_nodes(graph: Graph, rule: Callable[[Node], bool], *, bodies: bool = True) -> bool:
    """Apply a rule to every node; return whether it changed anything.

    Args:
        graph: A graph; nodes that the rule adds are not visited, the visited one may go.
        rule: Changes the graph at one node; returns whether it did.
        bodies: Whether nodes inside of If, Loop and Scan are visited too.
    """
    modified = False
    for node in list(graph.all_nodes() if bodies else graph):
        modified |= rule(node)
    return modified
