"""``execute_onnx`` as the qonnx package has it, on this project's executor."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from qonnx_hub import api
from qonnx_hub.compat.data_types import NamedDatatype
from qonnx_hub_ir.annotations import DATATYPE
from qonnx_hub_ir.datatypes import parse_datatype
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.quantizers import Array

_Infos = Mapping[str, onnx.ValueInfoProto]


def execute_onnx(
    model: Any,
    input_dict: Mapping[str, Array],
    return_full_exec_context: bool = False,
    start_node: onnx.NodeProto | None = None,
    end_node: onnx.NodeProto | None = None,
) -> dict[str, Array]:
    """Return what a model computes, by tensor name.

    Values given for tensors that are annotated as integers are rounded to integers, as the
    qonnx package does it, by at most ``ERROR_THRESH`` (of the environment; 0.01 by default).

    Args:
        model: A ModelWrapper, ModelProto, or anything else that :func:`qonnx_hub.load` reads.
        input_dict: Tensor name -> array. An input that is not given is zero, as the qonnx
            package has it; a constant that is given is replaced. With ``start_node``, inner
            tensors are given as well; what the nodes to run make is computed all the same.
        return_full_exec_context: Return every tensor: inputs, constants, inner values.
        start_node: The first node to run; the first of the graph by default.
        end_node: The last node to run; the last of the graph by default.

    Raises:
        UsageError: A node that is not in the graph; nodes in the wrong order; a tensor that
            the nodes to run read, of which nothing is known; a value that is given for no
            tensor, or that is no integer where its tensor is annotated so.
        HubError: The model cannot be read or run.

    Example:
        >>> execute_onnx(model, {"x": x})["y"]  # doctest: +SKIP
    """
    message = _message(model)
    given = {name: _rounded(message, name, values) for name, values in input_dict.items()}
    piece = _between(message, start_node, end_node, given)
    if return_full_exec_context:
        # What nobody reads is computed as well, and what is constant keeps its name.
        ends = [n for node in piece.graph.node for n in node.output if n]
        _replace(piece.graph.output, [_info(n, _known(message), given) for n in ends])
    _set_constants(piece, given)
    feeds = _feeds(piece, given)
    found = api.run(piece, feeds, all_tensors=return_full_exec_context)
    if not return_full_exec_context:
        return found
    for node in piece.graph.node:
        # It makes a tensor of that name beside its output.
        marked = [a.s.decode() for a in node.attribute if a.name == "export_debug_name"]
        if node.op_type == "DebugMarker" and marked and node.output[0] in found:
            found[marked[0]] = found[node.output[0]]
    constants = {one.name: numpy_helper.to_array(one) for one in piece.graph.initializer}
    return {**given, **constants, **feeds, **found}


def _message(model: Any) -> onnx.ModelProto:
    if isinstance(model, onnx.ModelProto):
        return model
    held = getattr(model, "model", None)
    if isinstance(held, onnx.ModelProto):
        return held
    # Imported here because it is needed for other forms only.
    import onnx_ir

    return onnx_ir.to_proto(api.load(model))


def _known(proto: onnx.ModelProto) -> _Infos:
    graph = proto.graph
    return {one.name: one for one in (*graph.value_info, *graph.output, *graph.input)}


def _rounded(proto: onnx.ModelProto, name: str, values: Any) -> Array:
    """Return values as their tensor's annotation wants them: integers are rounded to such.

    Raises:
        UsageError: They are no integers, by more than an error of rounding.
    """
    array = np.asarray(values)
    texts = [
        entry.value
        for note in proto.graph.quantization_annotation
        for entry in note.quant_parameter_tensor_names
        if note.tensor_name == name and entry.key == DATATYPE
    ]
    if not texts or os.environ.get("SANITIZE_QUANT_TENSORS", "1") == "0":
        return array
    kind = NamedDatatype(parse_datatype(texts[0], f"the annotation of '{name}'"))
    if not kind.is_integer() or np.all(kind.allowed(array)):
        return array
    whole = np.round(array)
    error = float(np.max(np.abs(array - whole), initial=0.0))
    if not error <= float(os.environ.get("ERROR_THRESH", "0.01")):
        raise UsageError(
            f"execute_onnx: '{name}' is annotated as {kind.name}; a value given for it is "
            f"{error:.3g} away from an integer"
        )
    return whole


def _between(
    proto: onnx.ModelProto,
    start: onnx.NodeProto | None,
    end: onnx.NodeProto | None,
    given: Mapping[str, Array],
) -> onnx.ModelProto:
    """Return a copy of a model's part from a node to a node; of all of it by default."""
    nodes = list(proto.graph.node)
    first = 0 if start is None else _place(nodes, start)
    last = len(nodes) - 1 if end is None else _place(nodes, end)
    if first > last >= 0:
        raise UsageError(
            f"execute_onnx: node '{nodes[last].name}' stands before '{nodes[first].name}'"
        )
    part = onnx.ModelProto()
    part.CopyFrom(proto)
    graph, known = part.graph, _known(proto)
    is_whole = last - first == len(nodes) - 1
    inputs = [one.name for one in graph.input] if is_whole else []
    held = {one.name for one in graph.initializer}
    every = {*known, *held, *(name for node in nodes for name in node.output)}
    strange = [name for name in given if name not in every]
    del graph.node[:]
    graph.node.extend(nodes[first : last + 1])
    made = [name for node in graph.node for name in node.output if name]
    read = dict.fromkeys(n for node in graph.node for n in node.input if n and n not in made)
    strange = [name for name in strange if name not in read]
    if strange:
        raise UsageError(
            f"execute_onnx: no tensor is called {', '.join(strange)}; the model's inputs are "
            f"{', '.join(one.name for one in proto.graph.input) or 'none'}"
        )
    missing = [n for n in read if n not in held and n not in known and n not in given]
    if missing:
        raise UsageError(f"execute_onnx: nothing is known of {', '.join(missing)}")
    names = dict.fromkeys([*inputs, *(n for n in read if n not in held)])
    _replace(graph.input, [_info(n, known, given) for n in names])
    if not is_whole:
        kept = {out.name for out in proto.graph.output}
        later = {name for node in nodes[last + 1 :] for name in node.input}
        ends = [name for name in made if name in kept or name in later] or made[-1:]
        _replace(graph.output, [_info(name, known, given) for name in ends])
    return part


def _info(name: str, known: _Infos, given: Mapping[str, Array]) -> onnx.ValueInfoProto:
    if name in known or name not in given:
        return known.get(name, onnx.ValueInfoProto(name=name))
    kind = helper.np_dtype_to_tensor_dtype(given[name].dtype)
    return helper.make_tensor_value_info(name, kind, given[name].shape)


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


def _set_constants(proto: onnx.ModelProto, given: Mapping[str, Array]) -> None:
    """Put given values in the place of constants; float32 where no operator has a type.

    Operators of the qonnx package compute with whatever numpy gives them, float64 as well.
    """
    typed = {
        name
        for node in proto.graph.node
        for name in node.input
        if onnx.defs.has(node.op_type, node.domain)
    }
    for held in proto.graph.initializer:
        values, kind = given.get(held.name), held.data_type
        if kind == onnx.TensorProto.DOUBLE and held.name not in typed:
            kind = onnx.TensorProto.FLOAT
        if values is None and kind == held.data_type:
            continue
        values = numpy_helper.to_array(held) if values is None else values
        if values.shape != tuple(held.dims):
            raise UsageError(
                f"execute_onnx: '{held.name}' has shape {list(held.dims)}, "
                f"{list(values.shape)} is given"
            )
        held.CopyFrom(numpy_helper.from_array(_as_type(values, kind), held.name))
        for info in (*proto.graph.value_info, *proto.graph.input):
            if info.name == held.name:
                info.type.tensor_type.elem_type = held.data_type


def _as_type(values: Array, kind: int) -> Array:
    """Return values in the type of a tensor; unchanged where that would be other values."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    changed = values.astype(dtype)
    if np.issubdtype(dtype, np.floating) or np.array_equal(changed, values):
        return changed
    return values


def _feeds(proto: onnx.ModelProto, given: Mapping[str, Array]) -> dict[str, Array]:
    """Return an array for every input: what is given, else zeros."""
    held = {one.name for one in proto.graph.initializer}
    feeds: dict[str, Array] = {}
    for value in proto.graph.input:
        if value.name in held:
            continue
        tensor = value.type.tensor_type
        if value.name in given:
            feeds[value.name] = _as_type(given[value.name], tensor.elem_type)
            continue
        sizes = [size.dim_value for size in tensor.shape.dim]
        # An empty array, such as the region of a Resize, is written down with a size of 0.
        is_open = not all(size.HasField("dim_value") for size in tensor.shape.dim)
        if not tensor.HasField("shape") or is_open:
            raise UsageError(f"execute_onnx: input '{value.name}' has an open shape: give it")
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        feeds[value.name] = np.zeros(sizes, dtype=dtype)
    return feeds
