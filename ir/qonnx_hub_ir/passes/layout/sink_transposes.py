"""Transposes move down until they meet their inverse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir import Graph, Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.builder import transpose_node
from qonnx_hub_ir.graph.constants import (
    constant_shape,
    full_rank,
    is_constant_tree,
    is_single,
    known_integers,
    shape_of_constant,
)
from qonnx_hub_ir.graph.permutations import Perm, compose, identity, inverse, perm_of, without
from qonnx_hub_ir.graph.queries import attribute, input_of, is_read, is_standard
from qonnx_hub_ir.graph.rewriting import replace_node


@dataclass(frozen=True)
class SinkTransposes(InPlacePass):
    """Move every Transpose down through what does not care, and cancel it with its inverse.

    Before -> after::

        t = Transpose{0,2,3,1}(x);  q = Quant(t, scale[C]);  u = Transpose{0,3,1,2}(q)
        u = Quant(x, scale[C, 1, 1])

    1. Two Transposes in a row become one, or none.
    2. Elementwise operators and quantizers: constants and parameters are transposed back.
       Every other input must be a Transpose of the same kind, or (where the Transpose turns to
       channels last) be read by the inverse Transpose already.
    3. Concat and reductions: the axes are renamed.

    Does not fire on what reads a layout (Conv, MatMul, Reshape), nor inside subgraphs. Values
    are only moved, never computed anew.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        modified = False
        # Each step moves one Transpose down or removes one; a graph has an end.
        while _sink_all(model.graph):
            modified = True
        if modified and not _is_in_order(model.graph):
            model.graph.sort()
        return PassResult(model, modified=modified)


def _sink_all(graph: Graph) -> bool:
    """Take steps, each beside the one before where possible; return whether there were any."""
    modified = False
    waiting = [node for node in graph if perm_of(node) is not None][::-1]
    while waiting:
        node = waiting.pop()
        if node.graph is not graph:
            continue
        readers = [usage.node for usage in node.outputs[0].uses()]
        if not _step(graph, node):
            continue
        modified = True
        below = [v for reader in (node, *readers) for v in reader.outputs]
        fresh = [usage.node for value in below for usage in value.uses()]
        waiting.extend(one for one in (*reversed(fresh), node) if perm_of(one) is not None)
    return modified


def _is_in_order(graph: Graph) -> bool:
    """Return whether every node stands behind what it reads."""
    later = {value for node in graph for value in node.outputs}
    for node in graph:
        if any(value in later for value in node.inputs):
            return False
        later.difference_update(node.outputs)
    return True


def _step(graph: Graph, node: Node) -> bool:
    """Move or remove one Transpose; return whether anything changed."""
    perm, source = perm_of(node), node.inputs[0]
    if node.graph is not graph or perm is None or source is None:
        return False
    if perm == identity(len(perm)):
        ends = node.outputs[0].is_graph_output()
        replace_node(node, source, keep_name=ends, keep_type=ends, keep_metadata=ends)
        return True
    if not is_read(node.outputs[0]):
        graph.remove(node, safe=True)
        return True
    above = source.producer()
    first = perm_of(above)
    if first is not None and above is not None and above.inputs[0] is not None:
        node.replace_input_with(0, above.inputs[0])
        node.attributes["perm"] = onnx_ir.AttrInt64s("perm", compose(first, perm))
        return True
    readers = {id(usage.node): usage.node for usage in node.outputs[0].uses()}
    for reader in readers.values():
        if reader.graph is graph and _sink(graph, reader, perm):
            return True
    return False


def _sink(graph: Graph, reader: Node, perm: Perm) -> bool:
    """Move the Transposes above a reader below it, if that is possible."""
    if len([v for v in reader.outputs if v.name]) != 1:
        return False
    if operators.is_elementwise(reader):
        return _sink_elementwise(graph, reader, perm)
    if is_standard(reader, "Concat"):
        return _sink_concat(reader, perm)
    return operators.is_reduction(reader) and _sink_reduction(graph, reader, perm)


def _untransposed(value: Value, perm: Perm) -> Value | None:
    """Return what a value is before a Transpose of that kind, if it is known."""
    node = value.producer()
    if node is not None and perm_of(node) == perm:
        return node.inputs[0]
    graph = value.graph if node is None else node.graph
    back = inverse(perm)
    if perm == back or perm[-1] != 1:
        # Only what turns to channels last may use a twin: the other way round, both would
        # take turns forever.
        return None
    for usage in value.uses():
        if perm_of(usage.node) == back and usage.node.graph is graph:
            return usage.node.outputs[0]
    return None


def _sink_elementwise(graph: Graph, reader: Node, perm: Perm) -> bool:
    plan: list[Value | None] = []
    for value in reader.inputs:
        if value is None or _is_scalar(value):
            plan.append(value)
            continue
        if is_constant_tree(value):
            if len(shape_of_constant(value)) > len(perm):
                return False
            plan.append(None)
            continue
        before = _untransposed(value, perm)
        if before is None or before is reader.outputs[0]:
            return False
        plan.append(before)
    for index, (value, before) in enumerate(zip(reader.inputs, plan, strict=True)):
        if value is None or before is value:
            continue
        if before is None:
            before = _aligned(graph, value, perm, reader)
        reader.replace_input_with(index, before)
    _put_below(reader, perm)
    return True


def _is_scalar(value: Value) -> bool:
    shape = constant_shape(value)
    return shape == () or (shape is not None and is_single(value) and value.is_initializer())


def _aligned(graph: Graph, value: Value, perm: Perm, reader: Node) -> Value:
    """Return a constant with its axes where the untransposed value has them."""
    shape = shape_of_constant(value)
    full, back = (1,) * (len(perm) - len(shape)) + shape, inverse(perm)
    known = dialect.constant_value(value)
    if known is not None:
        moved = np.transpose(full_rank(known, len(perm)), back)
        return dialect.add_initializer(graph, str(value.name), moved)
    # A quantized constant: FoldWeightLayout takes these two nodes in.
    label = f"{reader.name}_{value.name}"
    sizes = dialect.add_initializer(graph, f"{label}_shape", np.array(full, dtype=np.int64))
    reshape = Node("", "Reshape", [value, sizes], name=f"{label}_reshape")
    reshape.outputs[0].name = f"{label}_reshaped"
    reader.prepend(reshape)
    move = transpose_node(reshape.outputs[0], back, f"{label}_transpose")
    reader.prepend(move)
    return move.outputs[0]


def _put_below(reader: Node, perm: Perm) -> None:
    """Transpose a reader's output, for everybody who reads it."""
    old = reader.outputs[0]
    usages = [(usage.node, usage.idx) for usage in old.uses()]
    move = transpose_node(old, perm, f"{reader.name}_transpose")
    fresh = move.outputs[0]
    fresh.shape = old.shape
    fresh.metadata_props.update(old.metadata_props)
    old.shape = None
    old.metadata_props.pop(dialect.PROVENANCE, None)
    reader.append(move)
    for node, index in usages:
        node.replace_input_with(index, fresh)
    graph = reader.graph
    if old.is_graph_output() and graph is not None:
        name = old.name
        old.name = f"{name}_before"
        fresh.name = name
        for index, output in enumerate(graph.outputs):
            if output is old:
                graph.outputs[index] = fresh


def _sink_concat(reader: Node, perm: Perm) -> bool:
    before = [None if v is None else _untransposed(v, perm) for v in reader.inputs]
    if any(value is None for value in before):
        return False
    axis = int(reader.attributes["axis"].value) % len(perm)
    for index, value in enumerate(before):
        reader.replace_input_with(index, value)
    reader.attributes["axis"] = onnx_ir.AttrInt64("axis", perm[axis])
    _put_below(reader, perm)
    return True


def _sink_reduction(graph: Graph, reader: Node, perm: Perm) -> bool:
    source = reader.inputs[0]
    before = None if source is None else _untransposed(source, perm)
    given = attribute(reader, "axes", None)
    known = known_integers(input_of(reader, 1)) if given is None else list(given)
    if before is None or not known:
        return False
    axes = [int(axis) % len(perm) for axis in known]
    renamed = sorted(perm[axis] for axis in axes)
    reader.replace_input_with(0, before)
    if given is not None:
        reader.attributes["axes"] = onnx_ir.AttrInt64s("axes", renamed)
    else:
        array = np.array(renamed, dtype=np.int64)
        fresh = dialect.add_initializer(graph, f"{reader.name}_axes", array)
        reader.replace_input_with(1, fresh)
    order = perm if attribute(reader, "keepdims", 1) else without(perm, set(renamed))
    if order != identity(len(order)):
        _put_below(reader, order)
    return True
