"""One walk that gives every value of a graph the layout that its readers require.

A value of the graph as it was (its *logical* value) is stored as ``transpose(logical, perm)``,
or as it is where ``perm`` is ``None``. A Transpose is noted, and written only where a reader
requires another order of axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.annotations import permute_layout
from qonnx_hub_ir.graph.builder import set_constant, transpose_node
from qonnx_hub_ir.graph.constants import is_constant_tree
from qonnx_hub_ir.graph.deferral import DeferredRewrite
from qonnx_hub_ir.graph.permutations import (
    Perm,
    compose,
    identity,
    inverse,
    perm_of,
    permuted,
    simplified,
)
from qonnx_hub_ir.graph.queries import (
    Dims,
    attribute,
    dims,
    input_of,
    is_standard,
    only_reader,
    rank_of,
)
from qonnx_hub_ir.graph.rearrange import Rearranger, transposing
from qonnx_hub_ir.quantizers import Array


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a logical value is found: ``value = transpose(logical, perm)``."""

    value: Value
    perm: Perm | None = None


Rule = Callable[["Relayout", Node], bool]
"""Handles one node and sets its outputs; returns False where it cannot, having changed
nothing."""

Requirement = Callable[[Node], Perm | None]
"""The layout that a node requires of its first input; ``None`` where any will do."""


class Relayout(DeferredRewrite[Stored]):
    """The state of one walk over a graph.

    Attributes:
        target: The permutation to the target layout, by rank.
        required: The layout that a node requires of its first input.
        passing: Operators that hand the layout of their output on to their first input, or to
            all of them.
        demands: The one layout that the readers of a value require; ``None`` for several.
        ends: Names of the graph inputs and outputs that have another layout now.
    """

    def __init__(
        self,
        model: Model,
        target: Callable[[int], Perm],
        required: Requirement,
        rules: Mapping[tuple[str, str], Rule],
        passing: Callable[[Node], Iterable[Value]],
    ) -> None:
        """Find which layouts readers require, from the outputs up."""
        super().__init__(model, rules)
        self.target, self.required, self.passing = target, required, passing
        self.demands = _find_demands(self)
        self.ends: list[str] = []
        self.rearranger = Rearranger(self.graph)
        self._transposed: dict[tuple[Value, Perm], Value] = {}
        # The output of a new node is called as the node, with "_out" behind it.
        values = {str(value.name) for node in self.graph for value in node.outputs}
        self.node_names |= values | {name.removesuffix("_out") for name in values}

    def place(self, value: Value) -> Stored:
        """Return where a logical value is found."""
        return self.places.get(value) or Stored(value)

    def demand(self, value: Value) -> Perm | None:
        """Return the one layout that readers require; ``None`` for none or several."""
        return simplified(self.demands.get(value))

    def get(self, value: Value, perm: Perm | None, before: Node | None) -> Value:
        """Return ``transpose(logical value, perm)``, written before a node if it must be."""
        stored = self.place(value)
        perm = simplified(perm)
        if stored.perm == perm:
            return stored.value
        if perm is not None and before is not None and is_constant_tree(stored.value):
            return self.constant(stored.value, _step(stored.perm, perm), before, len(perm))
        move = _step(stored.perm, perm)
        key = (stored.value, move)
        if perm is not None and stored.perm is None and self._transpose_parts(value, perm):
            return value
        if key not in self._transposed:
            self._transposed[key] = self._write(value, stored, perm, before)
        return self._transposed[key]

    def constant(self, value: Value, perm: Perm, reader: Node, rank: int) -> Value:
        """Return a constant of at most that rank, transposed."""
        self.modified = True
        return self.rearranger(value, transposing(perm), perm, reader, rank)

    def _transpose_parts(self, value: Value, perm: Perm) -> bool:
        """Transpose the constants from which a node makes a weight; return whether it did.

        Such weights are integers with a scale: a product of constants, or dequantized.
        """
        node, rank = value.producer(), len(perm)
        if node is None or node.domain != "" or not only_reader(value):
            return False
        dequantizes = is_standard(node, "DequantizeLinear")
        if not (operators.is_affine(node) or dequantizes or is_standard(node, "Cast")):
            return False
        if value.shape is None or len(value.shape) != rank:
            return False
        if any(v is not None and not is_constant_tree(v) for v in node.inputs):
            return False
        if dequantizes:
            if "block_size" in node.attributes:
                return False
            moved = inverse(perm)[int(attribute(node, "axis", 1)) % rank]
            node.attributes["axis"] = onnx_ir.AttrInt64("axis", moved)
        parts = node.inputs[:1] if dequantizes else node.inputs
        for index, one in enumerate(parts):
            if one is not None:
                node.replace_input_with(index, self.constant(one, perm, node, rank))
        value.shape = permuted(value.shape, perm)
        permute_layout(value, perm)
        return True

    def _write(
        self, value: Value, stored: Stored, perm: Perm | None, before: Node | None
    ) -> Value:
        own, move = value.producer(), _step(stored.perm, perm)
        if perm is None and own is not None and perm_of(own) is not None:
            # The value is what this Transpose made: it stays, with another source perhaps.
            if own.inputs[0] is not stored.value or perm_of(own) != move:
                own.replace_input_with(0, stored.value)
                own.attributes["perm"] = onnx_ir.AttrInt64s("perm", move)
                self.modified = True
            return value
        node = transpose_node(stored.value, move, self.node_name(f"{value.name}_layout"))
        node.outputs[0].shape = permuted(stored.value.shape, move)
        return self.insert(node, before)

    def set_constant(self, node: Node, index: int, array: Array) -> None:
        """Give a node another constant input, unless it has that already."""
        old = dialect.constant_value(input_of(node, index))
        if old is not None and np.array_equal(old, array):
            return
        name = self.node_name(f"{node.name}_{operators.input_role(node, index)}")
        set_constant(self.graph, node, index, array, name)
        self.modified = True

    def restored(self, value: Value, before: Node | None) -> Value:
        """Return a logical value as it was."""
        return self.get(value, None, before)

    def put(self, output: Value, perm: Perm | None) -> None:
        """Say that a node now makes its output in another layout."""
        perm = simplified(perm)
        if perm is None:
            return
        self.places[output] = Stored(output, perm)
        output.shape = permuted(output.shape, perm)
        permute_layout(output, perm)
        self.modified = True

    def transpose_inputs(self) -> None:
        """Transpose the graph inputs whose readers all require the target layout."""
        for value in self.graph.inputs:
            perm = self.demand(value)
            if perm is not None and perm == self.target(len(perm)):
                self.ends.append(str(value.name))
                self.put(value, perm)

    def finish(self, *, keep_target: bool) -> None:
        """Give the graph its outputs, in their old layout or in the target layout.

        Args:
            keep_target: Whether an output that is stored in the target layout stays so.
        """
        for index, output in enumerate(list(self.graph.outputs)):
            stored = self.places.get(output)
            if stored is None:
                continue
            name, found, perm = str(output.name), stored.value, stored.perm
            if keep_target and perm is not None and perm == self.target(len(perm)):
                self.ends.append(name)
            elif perm is not None:
                found = self._write(output, stored, None, None)
            self.expose(index, name, found)


def pass_by(engine: Relayout, node: Node) -> bool:
    """Note that a Transpose's output is its input in another order: the rule of Transpose."""
    perm, source = perm_of(node), node.inputs[0]
    if perm is None or source is None or is_constant_tree(source):
        return False
    stored = engine.place(source)
    old = stored.perm or identity(len(perm))
    place = Stored(stored.value, simplified(compose(inverse(perm), old)))
    engine.places[node.outputs[0]] = place
    return True


def logical_sizes(engine: Relayout, value: Value) -> Dims:
    """Return the sizes of a logical value, wherever it is stored; none where unknown."""
    stored = engine.place(value)
    sizes = dims(stored.value) or ()
    if stored.perm is None or not sizes:
        return sizes
    return tuple(sizes[axis] for axis in inverse(stored.perm))


def _step(have: Perm | None, want: Perm | None) -> Perm:
    """Return the permutation from one storage of a value to another."""
    same = identity(len(have or want or ()))
    return compose(inverse(have or same), want or same)


def _find_demands(engine: Relayout) -> dict[Value, Perm | None]:
    """Return the layout that the readers of each value require, from the outputs up."""
    demands: dict[Value, Perm | None] = {}

    def ask(value: Value | None, perm: Perm) -> None:
        if value is None or is_constant_tree(value):
            return
        if value in demands and demands[value] != perm:
            demands[value] = None
            return
        demands[value] = perm

    for node in reversed(engine.graph):
        wanted = engine.required(node)
        if wanted is not None:
            ask(node.inputs[0], wanted)
            continue
        below = demands.get(node.outputs[0]) if node.outputs else None
        if below is None:
            continue
        move = perm_of(node)
        if move is not None:
            if len(move) == len(below):
                ask(node.inputs[0], compose(move, below))
            continue
        for value in engine.passing(node):
            if rank_of(value) == len(below):
                ask(value, below)
    return demands
