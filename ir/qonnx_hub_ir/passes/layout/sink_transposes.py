"""Transposes move down until they meet their inverse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir import Graph, Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.builder import transpose_node
from qonnx_hub_ir.graph.constants import full_rank, shape_of_constant
from qonnx_hub_ir.graph.permutations import Perm, compose, identity, inverse, perm_of, permuted
from qonnx_hub_ir.graph.queries import is_read, is_standard
from qonnx_hub_ir.graph.rewriting import replace_node
from qonnx_hub_ir.passes.layout.operator_layouts import RULES, computed_inputs
from qonnx_hub_ir.passes.layout.relayout import Relayout, Stored
from qonnx_hub_ir.quantizers import Array


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

    How an operator computes on untransposed inputs is what the layout engine's rules say.

    Does not fire on what reads a layout (Conv, MatMul, Reshape), nor inside subgraphs. Values
    are only moved, never computed anew.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        modified = False
        # Each step moves one Transpose down or removes one; a graph has an end.
        engine = _Sinking(model)
        while _sink_all(engine):
            modified = True
        if modified and not _is_in_order(model.graph):
            model.graph.sort()
        return PassResult(model, modified=modified)


class _Sinking(Relayout):
    """The layout engine at one node: its rules say how the node computes untransposed."""

    def __init__(self, model: Model) -> None:
        """Start with no reader that requires a layout."""
        super().__init__(model, identity, lambda node: None, RULES, lambda node: ())

    def constant(self, value: Value, perm: Perm, reader: Node, rank: int) -> Value:
        """Return a constant transposed for one reader; the others keep it."""
        return _aligned(self.graph, value, perm, reader)

    def set_constant(self, node: Node, index: int, array: Array, label: str = "axes") -> None:
        """Give a node another constant input."""
        super().set_constant(node, index, array, label)


def _sink_all(engine: _Sinking) -> bool:
    """Take steps, each beside the one before where possible; return whether there were any."""
    graph, modified = engine.graph, False
    waiting = [node for node in graph if perm_of(node) is not None][::-1]
    while waiting:
        node = waiting.pop()
        if node.graph is not graph:
            continue
        readers = [usage.node for usage in node.outputs[0].uses()]
        if not _step(engine, node):
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


def _step(engine: _Sinking, node: Node) -> bool:
    """Move or remove one Transpose; return whether anything changed."""
    graph = engine.graph
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
        if reader.graph is graph and _sink(engine, reader, perm):
            return True
    return False


def _sink(engine: _Sinking, reader: Node, perm: Perm) -> bool:
    """Move the Transposes above a reader below it, if that is possible."""
    moves = operators.is_elementwise(reader) or operators.is_reduction(reader)
    if not (moves or is_standard(reader, "Concat")):
        return False
    output, back = reader.outputs[0], inverse(perm)
    places: dict[Value, Stored] = {}
    for value in computed_inputs(reader):
        before = _untransposed(value, perm)
        if before is None or before is output:
            return False
        if before.shape is None and before.producer() is not None:
            known = permuted(value.shape, back)
            before.shape = onnx_ir.Shape([None] * len(perm)) if known is None else known
        places[value] = Stored(before, back)
    shape, engine.places = output.shape, places
    rule = RULES.get((reader.domain, reader.op_type))
    if rule is None or any(v.name for v in reader.outputs[1:]) or not rule(engine, reader):
        return False
    stored = engine.places.get(output)
    if stored is not None and stored.perm is not None:
        _put_below(reader, inverse(stored.perm), shape)
    return True


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


def _aligned(graph: Graph, value: Value, perm: Perm, reader: Node) -> Value:
    """Return a constant with its axes where the untransposed value has them."""
    shape = shape_of_constant(value)
    full = (1,) * (len(perm) - len(shape)) + shape
    known = dialect.constant_value(value)
    if known is not None:
        moved = np.transpose(full_rank(known, len(perm)), perm)
        return dialect.add_initializer(graph, str(value.name), moved)
    # A quantized constant: FoldWeightLayout takes these two nodes in.
    label = f"{reader.name}_{value.name}"
    sizes = dialect.add_initializer(graph, f"{label}_shape", np.array(full, dtype=np.int64))
    reshape = Node("", "Reshape", [value, sizes], name=f"{label}_reshape")
    reshape.outputs[0].name = f"{label}_reshaped"
    reader.prepend(reshape)
    move = transpose_node(reshape.outputs[0], perm, f"{label}_transpose")
    reader.prepend(move)
    return move.outputs[0]


def _put_below(reader: Node, perm: Perm, shape: onnx_ir.Shape | None) -> None:
    """Transpose a reader's output, for everybody who reads it."""
    old = reader.outputs[0]
    usages = [(usage.node, usage.idx) for usage in old.uses()]
    move = transpose_node(old, perm, f"{reader.name}_transpose")
    fresh = move.outputs[0]
    fresh.shape = shape
    fresh.metadata_props.update(old.metadata_props)
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
