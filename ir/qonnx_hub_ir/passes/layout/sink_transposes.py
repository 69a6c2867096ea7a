"""Transposes move down until they meet their inverse."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir
from onnx_ir import Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import operators
from qonnx_hub_ir.graph.builder import transpose_node
from qonnx_hub_ir.graph.permutations import Perm, compose, identity, inverse, perm_of, permuted
from qonnx_hub_ir.graph.queries import is_read, is_standard
from qonnx_hub_ir.graph.rearrange import Rearranger
from qonnx_hub_ir.graph.rewriting import read_behind, replace_node
from qonnx_hub_ir.passes.layout.operator_layouts import RULES, computed_inputs
from qonnx_hub_ir.passes.layout.relayout import Relayout, Stored


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
        engine = Relayout(model, identity, lambda node: None, RULES, lambda node: ())
        while _sink_all(engine):
            modified = True
        if modified:
            model.graph.sort()
        return PassResult(model, modified=modified)


def _sink_all(engine: Relayout) -> bool:
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


def _step(engine: Relayout, node: Node) -> bool:
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


def _sink(engine: Relayout, reader: Node, perm: Perm) -> bool:
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
    engine.rearranger = Rearranger(engine.graph)  # a constant may move once more
    rule = RULES.get((reader.domain, reader.op_type))
    if rule is None or any(v.name for v in reader.outputs[1:]) or not rule(engine, reader):
        return False
    stored = engine.places.get(output)
    if stored is not None and stored.perm is not None:
        move = transpose_node(output, inverse(stored.perm), f"{reader.name}_transpose")
        move.outputs[0].shape = shape
        reader.append(move)
        read_behind(move, f"{output.name}_before")
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
