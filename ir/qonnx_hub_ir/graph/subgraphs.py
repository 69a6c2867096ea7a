"""All graphs of a model: the main graph, the bodies of If, Loop and Scan, local functions."""

from __future__ import annotations

from collections.abc import Iterator

from onnx_ir import AttributeType, Function, Graph, Model, Node, Value

_HOLDS_GRAPHS = (AttributeType.GRAPH, AttributeType.GRAPHS)


def bodies(node: Node) -> list[Graph]:
    """Return the graphs that a node holds in its attributes, in order."""
    found: list[Graph] = []
    # The plain dictionary: the class around it takes several times as long on many nodes.
    for attribute in node.attributes.data.values():
        if attribute.type in _HOLDS_GRAPHS:
            held = attribute.value
            parts = held if isinstance(held, (list, tuple)) else (held,)
            found.extend(part for part in parts if isinstance(part, Graph))
    return found


def named_bodies(node: Node) -> list[tuple[str, Graph]]:
    """Return the attributes of a node that are one graph each: name and graph, in order."""
    held = ((name, attribute.value) for name, attribute in node.attributes.items())
    return [(name, value) for name, value in held if isinstance(value, Graph)]


def nested_graphs(graph: Graph) -> list[Graph]:
    """Return a graph and every body inside it, at any depth, in order."""
    found = [graph]
    for node in graph:
        for body in bodies(node):
            found += nested_graphs(body)
    return found


def nodes_within(graph: Graph) -> Iterator[Node]:
    """Yield the nodes of a graph, each followed by those of the bodies that it holds."""
    for node in graph:
        yield node
        for body in bodies(node):
            yield from nodes_within(body)


def every_graph(model: Model, *, functions: bool = True) -> Iterator[Graph]:
    """Yield the main graph, then every body inside it, then local functions with theirs.

    Args:
        model: A model; graphs may be changed while this runs, but not added.
        functions: Whether local functions count. Importers inline them; a model that was not
            read by one may have them.
    """
    yield from nested_graphs(model.graph)
    for function in model.functions.values() if functions else ():
        yield from nested_graphs(function.graph)


def every_node(model: Model, *, functions: bool = True) -> Iterator[Node]:
    """Yield the nodes of :func:`every_graph`; a node that is yielded may be removed."""
    for graph in every_graph(model, functions=functions):
        yield from tuple(graph)


def own_values(graph: Graph | Function) -> Iterator[Value]:
    """Yield inputs, initializers and results of the nodes of one graph, each once."""
    seen: set[Value] = set()
    constants = graph.initializers.values() if isinstance(graph, Graph) else ()
    for value in (*graph.inputs, *constants, *(v for node in graph for v in node.outputs)):
        if value not in seen:
            seen.add(value)
            yield value


def every_value(model: Model, *, functions: bool = True) -> Iterator[Value]:
    """Yield every value of :func:`every_graph` that has a name, once."""
    for graph in every_graph(model, functions=functions):
        yield from (value for value in own_values(graph) if value.name)


def captured_values(node: Node) -> list[Value]:
    """Return the outer values that the bodies of a node read, each once, in order.

    They are read by nodes, at any depth, or are outputs of a body as they are.
    """
    found: dict[Value, None] = {}
    for body in bodies(node):
        own = set(own_values(body))
        for inner in body:
            read = (*(v for v in inner.inputs if v is not None), *captured_values(inner))
            found.update(dict.fromkeys(v for v in read if v not in own))
        found.update(dict.fromkeys(v for v in body.outputs if v not in own))
    return list(found)


def read_values(node: Node) -> list[Value]:
    """Return what a node reads: its inputs, and what its bodies capture."""
    return [*(value for value in node.inputs if value is not None), *captured_values(node)]


def captured_reads(graph: Graph) -> dict[Node, list[tuple[Node, int]]]:
    """Return, for each node with bodies, which inner node reads an outer value at which input.

    It serves to give inner readers another value before the node that holds them runs.
    """
    found: dict[Node, list[tuple[Node, int]]] = {}
    for owner in graph:
        inner = [node for body in bodies(owner) for node in body.all_nodes()]
        own = {value for node in inner for value in node.outputs}
        reads = [
            (node, index)
            for node in inner
            for index, value in enumerate(node.inputs)
            if value is not None and value not in own
        ]
        if reads:
            found[owner] = reads
    return found
