"""Graphs inside of nodes by their structure: equal forms compute equal values.

A form names every value by where it comes from: an input of the body, a stored array, an outer
value by its place among those that the node reads, an output of an earlier node.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping

from onnx_ir import Graph, Node, Value

from qonnx_hub_ir.graph.subgraphs import captured_values


def body_form(
    body: Graph, outer: Mapping[Value, int], signature: Callable[[Node], Hashable | None]
) -> Hashable | None:
    """Return what a body computes of its inputs and of outer values.

    Args:
        body: The graph.
        outer: Outer values, each with the place at which the node reads it.
        signature: What a node computes apart from what it reads; ``None`` where that is open.

    Returns:
        ``None`` where a node or a stored array is not known.
    """
    places: dict[Value, Hashable] = {value: ("outer", at) for value, at in outer.items()}
    places |= {value: ("input", at) for at, value in enumerate(body.inputs)}
    for value in body.initializers.values():
        if value.const_value is None:
            return None
        array = value.const_value.numpy()
        data = repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes()
        digest = hashlib.sha256(data).digest()
        places[value] = ("stored", str(value.const_value.dtype), array.shape, digest)
    rows: list[Hashable] = []
    for index, node in enumerate(body):
        own = signature(node)
        if own is None:
            return None
        read = (*node.inputs, *captured_values(node))
        rows.append((own, tuple(None if v is None else places.get(v) for v in read)))
        places |= {value: ("made", index, at) for at, value in enumerate(node.outputs)}
        if any(v is not None and v not in places for v in read):
            return None
    types = tuple(str(value.dtype) for value in body.inputs)
    return types, tuple(rows), tuple(places.get(value) for value in body.outputs)
