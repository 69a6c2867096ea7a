"""Model-local functions for the channels-last operators: their twins between Transposes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.defs
import onnx_ir
from onnx_ir import Attr, Function, Graph, Model, Node

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.errors import Gap
from qonnx_hub_ir.graph.permutations import to_first, to_last
from qonnx_hub_ir.graph.queries import attribute, by_operator, dims, rank_of
from qonnx_hub_ir.lowering.function_bodies import function_text

_TYPES = {"INT": "int", "INTS": "ints", "FLOAT": "float", "STRING": "string"}

_WEIGHTED = {"Conv": 2}
"""Operators with more inputs whose channels are last than the first, and how many."""


def function_gaps(model: Model) -> list[Gap]:
    """Return every channels-last node for which the file's one function cannot stand."""
    gaps = []
    for op_type, nodes in _operators(model).items():
        first = nodes[0]
        for node in nodes:
            reason = _refusal(node)
            if not reason and _rank(node) != _rank(first):
                reason = (
                    f"has another rank than '{first.name}'; one function does not fit both"
                )
            if reason:
                gaps.append(Gap(node.name or "", f"channels-last {op_type}", reason))
        automatic = any(attribute(node, "auto_pad", "NOTSET") != "NOTSET" for node in nodes)
        if not gaps and automatic and any("pads" in node.attributes for node in nodes):
            reason = "has auto_pad, and others of its kind explicit pads"
            gaps.append(Gap(first.name or "", f"channels-last {op_type}", reason))
    return gaps


def texts_for(model: Model) -> list[str]:
    """Return one function per operator in use.

    What nodes leave to its default is written out: attributes, and where some Convs have a
    bias, one of zeros for the others.
    """
    texts = []
    for op_type, nodes in _operators(model).items():
        has_bias = op_type == "Conv" and any(len(node.inputs) == 3 for node in nodes)
        for node in nodes if has_bias else ():
            _require_bias(node, model.graph)
        names = sorted({name for node in nodes for name in node.attributes})
        for node in nodes:
            for name in names:
                if name not in node.attributes:
                    node.attributes[name] = _default(node, name)
        texts.append(_text(op_type, len(nodes[0].inputs), names, _rank(nodes[0]) or 0))
    return texts


def text_like(function: Function) -> str | None:
    """Return the function of this operator with that signature; ``None`` if there is none."""
    if function.name not in operators.names(domain=dialect.CHANNELS_LAST_DOMAIN):
        return None
    known = onnx.defs.get_schema(function.name).attributes
    if any(name not in known for name in function.attributes):
        return None
    perms = [
        len(node.attributes["perm"].value)
        for node in function
        if node.op_type == "Transpose" and "perm" in node.attributes
    ]
    names, rank = sorted(function.attributes), perms[0] if perms else 2
    return _text(function.name, len(function.inputs), names, rank)


def _operators(model: Model) -> dict[str, list[Node]]:
    nodes = model.graph.all_nodes()
    return by_operator(n for n in nodes if n.domain == dialect.CHANNELS_LAST_DOMAIN)


def _refusal(node: Node) -> str:
    if any(value is None for value in node.inputs):
        return "leaves out an input between others"
    if len([v for v in node.outputs if v.uses() or v.is_graph_output()]) > 1:
        return "has more than one output"
    if _rank(node) is None:
        return "has an input of unknown rank"
    if node.op_type == "Conv" and (_kernel(node) is None or _channels(node) is None):
        return "has a weight of unknown shape"
    return ""


def _rank(node: Node) -> int | None:
    known = rank_of(node.inputs[0])
    return rank_of(node.outputs[0]) if known is None else known


def _require_bias(node: Node, graph: Graph) -> None:
    weight, channels = node.inputs[1], _channels(node)
    if len(node.inputs) == 3 or weight is None or channels is None:
        return
    dtype = np.float32 if weight.dtype is None else weight.dtype.numpy()
    nothing = np.zeros(channels, dtype=dtype)
    node.resize_inputs(3)
    node.replace_input_with(2, dialect.add_initializer(graph, f"{node.name}_bias", nothing))


def _kernel(node: Node) -> list[int] | None:
    shape = dims(node.inputs[1])
    sizes = [size for size in (shape or ())[1:-1] if isinstance(size, int)]
    return sizes if shape is not None and len(sizes) == len(shape) - 2 else None


def _channels(node: Node) -> int | None:
    size = (dims(node.inputs[1]) or (None,))[0]
    return size if isinstance(size, int) else None


def _default(node: Node, name: str) -> Attr:
    """Return what leaving an attribute out means."""
    spatial = (_rank(node) or 2) - 2
    sizes = {"strides": [1] * spatial, "dilations": [1] * spatial, "pads": [0] * 2 * spatial}
    if name in sizes:
        return onnx_ir.AttrInt64s(name, sizes[name])
    if name == "kernel_shape":
        return onnx_ir.AttrInt64s(name, _kernel(node) or [])
    proto = onnx.defs.get_schema(node.op_type).attributes[name].default_value
    return onnx_ir.serde.deserialize_attribute(proto)


def _text(op_type: str, count: int, names: list[str], rank: int) -> str:
    inputs = [f"x{index}" for index in range(count)]
    schema: Any = onnx.defs.get_schema(op_type).attributes
    # The sizes of a kernel are those of its weight.
    linked = [n for n in names if not (op_type == "Conv" and n == "kernel_shape")]
    links = ", ".join(f"{n}: {_TYPES[schema[n].type.name]} = @{n}" for n in linked)
    moved = 0 if rank == 2 else _WEIGHTED.get(op_type, 1)
    given = [f"{name}_first" if i < moved else name for i, name in enumerate(inputs)]
    result = "y_first" if moved else "y"
    first = list(to_first(rank))
    lines = [f"{name}_first = Transpose <perm = {first}> ({name})" for name in inputs[:moved]]
    lines.append(f"{result} = {op_type} {f'<{links}> ' if links else ''}({', '.join(given)})")
    if moved:
        lines.append(f"y = Transpose <perm = {list(to_last(rank))}> (y_first)")
    body = "\n".join(lines)
    return function_text(dialect.CHANNELS_LAST_DOMAIN, op_type, names, inputs, body)
