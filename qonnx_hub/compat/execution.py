"""``execute_onnx`` as the qonnx package has it, on this project's executor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
from onnx import numpy_helper

from qonnx_hub import api
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.quantizers import Array


def execute_onnx(
    model: Any,
    input_dict: Mapping[str, Array],
    return_full_exec_context: bool = False,
    start_node: onnx.NodeProto | None = None,
    end_node: onnx.NodeProto | None = None,
) -> dict[str, Array]:
    """Return what a model computes, by tensor name.

    Args:
        model: A ModelWrapper, ModelProto, or anything else that :func:`qonnx_hub.load` reads.
        input_dict: Input name -> array. An input that is not given is zero, as the qonnx
            package has it; with ``start_node``, inner tensors are given as well.
        return_full_exec_context: Return every tensor: inputs, constants, inner values.
        start_node: The first node to run; the first of the graph by default.
        end_node: The last node to run; the last of the graph by default.

    Raises:
        UsageError: A node that is not in the graph; nodes in the wrong order; a tensor that
            the nodes to run read, of which nothing is known.
        HubError: The model cannot be read or run.

    Example:
        >>> execute_onnx(model, {"x": x})["y"]  # doctest: +SKIP
    """
    proto = _message(model)
    piece = _between(proto, start_node, end_node, input_dict)
    feeds = _feeds(piece, input_dict)
    found = api.run(piece, feeds, all_tensors=return_full_exec_context)
    if not return_full_exec_context:
        return found
    for node in piece.graph.node:
        # It makes a tensor of that name beside its output.
        marked = [a.s.decode() for a in node.attribute if a.name == "export_debug_name"]
        if node.op_type == "DebugMarker" and marked and node.output[0] in found:
            found[marked[0]] = found[node.output[0]]
    constants = {one.name: numpy_helper.to_array(one) for one in proto.graph.initializer}
    given = {name: array for name, array in input_dict.items() if name not in found}
    return {**constants, **given, **feeds, **found}


def _message(model: Any) -> onnx.ModelProto:
    if isinstance(model, onnx.ModelProto):
        return model
    held = getattr(model, "model", None)
    if isinstance(held, onnx.ModelProto):
        return held
    # Imported here because it is needed for other forms only.
    import onnx_ir

    return onnx_ir.to_proto(api.load(model))


def _between(
    proto: onnx.ModelProto,
    start: onnx.NodeProto | None,
    end: onnx.NodeProto | None,
    given: Mapping[str, Array],
) -> onnx.ModelProto:
    """Return the part of a model from a node to a node; the model itself for all of it."""
    nodes = list(proto.graph.node)
    first = 0 if start is None else _place(nodes, start)
    last = len(nodes) - 1 if end is None else _place(nodes, end)
    if first > last:
        raise UsageError(
            f"execute_onnx: node '{nodes[last].name}' stands before '{nodes[first].name}'"
        )
    if first == 0 and last == len(nodes) - 1:
        return proto
    part = onnx.ModelProto()
    part.CopyFrom(proto)
    graph = part.graph
    del graph.node[:]
    graph.node.extend(nodes[first : last + 1])
    made = [name for node in graph.node for name in node.output if name]
    known = {one.name: one for one in (*graph.input, *graph.output, *graph.value_info)}
    held = {one.name for one in graph.initializer}
    read = dict.fromkeys(n for node in graph.node for n in node.input if n and n not in made)
    missing = [n for n in read if n not in held and n not in known and n not in given]
    if missing:
        raise UsageError(f"execute_onnx: nothing is known of {', '.join(missing)}")
    kept = {out.name for out in proto.graph.output}
    later = {name for node in nodes[last + 1 :] for name in node.input}
    ends = [name for name in made if name in kept or name in later] or made[-1:]
    _replace(graph.input, [_info(n, known, given) for n in read if n not in held])
    _replace(graph.output, [_info(name, known, given) for name in ends])
    return part


def _info(
    name: str, known: Mapping[str, onnx.ValueInfoProto], given: Mapping[str, Array]
) -> onnx.ValueInfoProto:
    if name in known or name not in given:
        return known.get(name, onnx.ValueInfoProto(name=name))
    kind = onnx.helper.np_dtype_to_tensor_dtype(given[name].dtype)
    return onnx.helper.make_tensor_value_info(name, kind, given[name].shape)


def _replace(held: Any, fresh: list[onnx.ValueInfoProto]) -> None:
    copies = []
    for one in fresh:
        copies.append(onnx.ValueInfoProto())
        copies[-1].CopyFrom(one)
    del held[:]
    held.extend(copies)


def _place(nodes: list[onnx.NodeProto], wanted: onnx.NodeProto) -> int:
    for place, node in enumerate(nodes):
        if node == wanted:
            return place
    raise UsageError(f"execute_onnx: the graph does not hold the node '{wanted.name}'")


def _feeds(proto: onnx.ModelProto, given: Mapping[str, Array]) -> dict[str, Array]:
    """Return an array for every input: what is given, else zeros."""
    import numpy as np

    held = {one.name for one in proto.graph.initializer}
    feeds: dict[str, Array] = {}
    for value in proto.graph.input:
        if value.name in given:
            feeds[value.name] = given[value.name]
        elif value.name not in held:
            tensor = value.type.tensor_type
            sizes = [size.dim_value for size in tensor.shape.dim]
            if not tensor.HasField("shape") or not all(sizes):
                raise UsageError(
                    f"execute_onnx: input '{value.name}' has an open shape: give it"
                )
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            feeds[value.name] = np.zeros(sizes, dtype=dtype)
    return feeds
