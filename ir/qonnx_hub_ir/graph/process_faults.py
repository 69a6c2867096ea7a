"""What ends the process inside ONNX's compiled functions, and cannot be caught there.

Found by running shape inference and the version converter on random nodes of every operator
and version in processes of their own: all else that is wrong with a node raises.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx_ir import Node

from qonnx_hub_ir import operators
from qonnx_hub_ir.graph.queries import attribute

_HIDDEN = "qonnx_hub.hidden"
_BOOL = int(onnx.TensorProto.BOOL)


def fatal_rule(node: Node) -> str:
    """Return the rule that a standard node breaks at the price of the process, or ``""``."""
    if node.domain:
        return ""
    parts = attribute(node, "num_outputs", None) if node.op_type == "Split" else None
    if isinstance(parts, int) and len(node.outputs) > parts:
        return f"has {len(node.outputs)} outputs, and 'num_outputs' is {parts}"
    batch = attribute(node, "batch_dims", 0) if node.op_type == "GatherND" else 0
    if isinstance(batch, int) and batch < 0:
        return f"attribute 'batch_dims' must be 0 or more, it is {batch}"
    return ""


def stand_in(node: onnx.NodeProto) -> None:
    """Make a node whose inference needs a type one that has the same result, if known."""
    if node.domain or not operators.find("", node.op_type).needs_type:
        return
    kinds = [one.i for one in node.attribute if one.name == "dtype"]
    kinds = [_BOOL] if node.op_type == "RegexFullMatch" else kinds
    node.op_type = "Cast" if kinds else "Identity"
    del node.input[1:], node.attribute[:]
    node.attribute.extend(onnx.helper.make_attribute("to", kind) for kind in kinds[:1])


def hide(message: onnx.ModelProto) -> None:
    """Give such nodes, which no version since theirs has changed, a domain of nobody's."""
    names = operators.names(needs_type=True)
    hidden = [n for n in _nodes(message.graph) if not n.domain and n.op_type in names]
    for node in hidden:
        node.domain = _HIDDEN
    if hidden:
        message.opset_import.append(onnx.helper.make_opsetid(_HIDDEN, 1))


def show(message: onnx.ModelProto) -> None:
    """Undo :func:`hide`."""
    for node in _nodes(message.graph):
        if node.domain == _HIDDEN:
            node.domain = ""


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for one in node.attribute:
            for body in (one.g, *one.graphs):
                yield from _nodes(body)
