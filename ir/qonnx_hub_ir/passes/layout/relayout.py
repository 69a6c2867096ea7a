"""One walk that gives every value of a graph the layout that its readers want.

A value of the graph as it was (its *logical* value) is stored as ``transpose(logical, perm)``,
or as it is where ``perm`` is ``None``. Transposes become a bookkeeping entry, and are written
only where somebody insists on another order of axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import onnx_ir
from onnx_ir import Graph, Model, Node, Value

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import transpose_node
from qonnx_hub_ir.graph.constants import is_constant_tree
from qonnx_hub_ir.graph.permutations import (
    Perm,
    compose,
    identity,
    inverse,
    perm_of,
    permuted,
    simplified,
)
from qonnx_hub_ir.graph.queries import is_read, only_reader, rank_of
from qonnx_hub_ir.graph.rearrange import Rearranger, transposing

Sizes = list[int | str | None]

_WEIGHT_MAKERS = frozenset({"Add", "Cast", "DequantizeLinear", "Div", "Mul", "Sub"})


def sizes_of(value: Value) -> Sizes:
    """Return the lengths of a value's axes, ``None`` or a name where one is not a number."""
    if value.shape is None:
        return []
    return [d if isinstance(d, int) else (d.value or None) for d in value.shape]


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a logical value is found: ``value = transpose(logical, perm)``."""

    value: Value
    perm: Perm | None = None


Rule = Callable[["Relayout", Node], bool]
"""Handles one node and sets its outputs; returns False where it cannot, having changed
nothing."""

Wish = Callable[[Node], Perm | None]
"""The layout in which a node wants its first input; ``None`` where it does not care."""


@dataclass
class Relayout:
    """The state of one walk over a graph.

    Attributes:
        model: The model, changed in place.
        target: The permutation to the wanted layout, by rank.
        wish: Which layout a node insists on.
        rules: (domain, operator) -> rule.
        passing: Operators that hand the layout of their output on to their first input, or to
            all of them.
    """

    model: Model
    target: Callable[[int], Perm]
    wish: Wish
    rules: Mapping[tuple[str, str], Rule]
    passing: Callable[[Node], Iterable[Value]]
    modified: bool = False
    turned_inputs: list[str] = field(default_factory=list)
    turned_outputs: list[str] = field(default_factory=list)
    places: dict[Value, Stored] = field(default_factory=dict)
    demands: dict[Value, Perm | None] = field(default_factory=dict)
    _transposed: dict[tuple[Value, Perm], Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rearranger = Rearranger(self.graph)
        self._taken = {str(node.name) for node in self.graph}
        self._taken.update(str(v.name) for node in self.graph for v in node.outputs)

    @property
    def graph(self) -> Graph:
        """Return the graph that is walked over."""
        return self.model.graph

    def place(self, value: Value) -> Stored:
        """Return where a logical value is found."""
        return self.places.get(value) or Stored(value)

    def demand(self, value: Value) -> Perm | None:
        """Return the one layout that readers want; ``None`` for none, several, or as it is."""
        return simplified(self.demands.get(value))

    def get(self, value: Value, perm: Perm | None, before: Node) -> Value:
        """Return ``transpose(logical value, perm)``, written before a node if it must be."""
        stored = self.place(value)
        perm = simplified(perm)
        if stored.perm == perm:
            return stored.value
        if perm is not None and is_constant_tree(stored.value):
            return self.constant(stored.value, _step(stored.perm, perm), before, len(perm))
        move = _step(stored.perm, perm)
        key = (stored.value, move)
        if perm is not None and stored.perm is None and self._turn_maker(value, perm):
            return value
        if key not in self._transposed:
            self._transposed[key] = self._write(value, stored, perm, move, before)
        return self._transposed[key]

    def constant(self, value: Value, perm: Perm, reader: Node, rank: int) -> Value:
        """Return a constant of at most that rank, transposed."""
        self.modified = True
        return self.rearranger(value, transposing(perm), perm, reader, rank)

    def _turn_maker(self, value: Value, perm: Perm) -> bool:
        """Turn the constants from which a node makes a weight; return whether that was done.

        Such weights are integers with a scale: a product of constants, or dequantized.
        """
        node, rank = value.producer(), len(perm)
        if node is None or node.domain != "" or not only_reader(value):
            return False
        if (
            node.op_type not in _WEIGHT_MAKERS
            or value.shape is None
            or len(value.shape) != rank
        ):
            return False
        if any(v is not None and not is_constant_tree(v) for v in node.inputs):
            return False
        axis = node.attributes.get("axis")
        if node.op_type == "DequantizeLinear":
            if "block_size" in node.attributes:
                return False
            turned = inverse(perm)[(1 if axis is None else int(axis.value)) % rank]
            node.attributes["axis"] = onnx_ir.AttrInt64("axis", turned)
        moved = node.inputs[:1] if node.op_type == "DequantizeLinear" else node.inputs
        for index, one in enumerate(moved):
            if one is not None:
                node.replace_input_with(index, self.constant(one, perm, node, rank))
        value.shape = permuted(value.shape, perm)
        return True

    def _write(
        self, value: Value, stored: Stored, perm: Perm | None, move: Perm, before: Node
    ) -> Value:
        own = value.producer()
        if perm is None and own is not None and perm_of(own) is not None:
            # The value is what this Transpose made: it stays, with another source perhaps.
            if own.inputs[0] is not stored.value or perm_of(own) != move:
                own.replace_input_with(0, stored.value)
                own.attributes["perm"] = onnx_ir.AttrInt64s("perm", move)
                self.modified = True
            return value
        node = transpose_node(stored.value, move, self.free_name(f"{value.name}_layout"))
        node.outputs[0].shape = permuted(stored.value.shape, move)
        before.prepend(node)
        self.modified = True
        return node.outputs[0]

    def free_name(self, name: str) -> str:
        """Return a node name that nobody else has, nor a value with ``_out`` behind it."""
        free, count = name, 0
        while free in self._taken or f"{free}_out" in self._taken:
            count += 1
            free = f"{name}_{count}"
        self._taken.add(free)
        return free

    def put(self, output: Value, perm: Perm | None, shape_known: bool = True) -> None:
        """Say that a node now makes its output in another layout."""
        perm = simplified(perm)
        if perm is None:
            return
        self.places[output] = Stored(output, perm)
        output.shape = permuted(output.shape, perm) if shape_known else None
        self.modified = True

    def walk(self, captured: Mapping[Node, list[tuple[Node, int]]]) -> None:
        """Visit every node in order.

        Args:
            captured: What nodes inside subgraphs read, by the node that holds them.
        """
        for node in list(self.graph):
            for user, index in captured.get(node, ()):
                self._feed(user, index, node)
            self.visit(node)

    def sweep(self) -> None:
        """Remove the Transposes that nobody reads any more."""
        for node in reversed(list(self.graph)):
            if perm_of(node) is None or node.outputs[0] not in self.places:
                continue
            if not is_read(node.outputs[0]):
                self.graph.remove(node, safe=True)
                self.modified = True

    def visit(self, node: Node) -> None:
        """Handle one node."""
        perm = perm_of(node)
        source = node.inputs[0] if node.inputs else None
        if perm is not None and source is not None and not is_constant_tree(source):
            self._pass_by(node.outputs[0], self.place(source), perm)
            return
        rule = self.rules.get((node.domain, node.op_type))
        if rule is not None and rule(self, node):
            return
        self.keep(node)

    def keep(self, node: Node) -> None:
        """Give a node its inputs as they were."""
        for index in range(len(node.inputs)):
            self._feed(node, index, node)

    def _feed(self, node: Node, index: int, before: Node) -> None:
        value = node.inputs[index]
        if value is None or value not in self.places:
            return
        found = self.get(value, None, before)
        if found is not value:
            node.replace_input_with(index, found)
            self.modified = True

    def _pass_by(self, output: Value, source: Stored, perm: Perm) -> None:
        """Note that a Transpose's output is its input in another order."""
        old = source.perm or identity(len(perm))
        self.places[output] = Stored(source.value, simplified(compose(inverse(perm), old)))

    def finish(self, turn: bool) -> None:
        """Give the graph its outputs, in their old layout, or turned where they are stored so.

        Args:
            turn: Whether an output that is stored in the wanted layout stays so.
        """
        for index, output in enumerate(list(self.graph.outputs)):
            stored = self.places.get(output)
            if stored is None:
                continue
            if (
                turn
                and stored.perm is not None
                and stored.perm == self.target(len(stored.perm))
            ):
                self.turned_outputs.append(str(output.name))
                self._expose(index, output, stored.value)
            elif stored.perm is None:
                self._expose(index, output, stored.value)
            else:
                self._turn_back(index, output, stored)

    def _turn_back(self, index: int, output: Value, stored: Stored) -> None:
        own = output.producer()
        move = _step(stored.perm, None)
        if own is not None and perm_of(own) is not None:
            if own.inputs[0] is not stored.value or perm_of(own) != move:
                own.replace_input_with(0, stored.value)
                own.attributes["perm"] = onnx_ir.AttrInt64s("perm", move)
                self.modified = True
            return
        node = transpose_node(stored.value, move, self.free_name(f"{output.name}_layout"))
        node.outputs[0].shape = permuted(stored.value.shape, move)
        self.graph.append(node)
        self.modified = True
        self._expose(index, output, node.outputs[0])

    def _expose(self, index: int, output: Value, found: Value) -> None:
        """Make a value the graph output of the name that the output had."""
        if found is output:
            return
        self.modified = True
        if found.is_graph_input() or found.is_graph_output() or found.is_initializer():
            copy = Node("", "Identity", [found], name=self.free_name(f"{output.name}_copy"))
            copy.outputs[0].type, copy.outputs[0].shape = found.type, found.shape
            self.graph.append(copy)
            found = copy.outputs[0]
        name = output.name
        self.graph.outputs[index] = found
        output.name = f"{name}_before"
        found.name = name
        found.metadata_props.update(output.metadata_props)


def logical_sizes(engine: Relayout, value: Value) -> Sizes:
    """Return the sizes of a logical value, wherever it is stored."""
    stored = engine.place(value)
    sizes = sizes_of(stored.value)
    if stored.perm is None or not sizes:
        return sizes
    return [sizes[axis] for axis in inverse(stored.perm)]


def _step(have: Perm | None, want: Perm | None) -> Perm:
    """Return the permutation from one storage of a value to another."""
    same = identity(len(have or want or ()))
    return compose(inverse(have or same), want or same)


def find_demands(engine: Relayout) -> None:
    """Fill in which layout the readers of every value want, walking from the outputs up."""
    demands: dict[Value, Perm | None] = {}

    def ask(value: Value | None, perm: Perm) -> None:
        if value is None or is_constant_tree(value):
            return
        if value in demands and demands[value] != perm:
            demands[value] = None
            return
        demands[value] = perm

    for node in reversed(engine.graph):
        wanted = engine.wish(node)
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
    engine.demands = demands


def turn_inputs(engine: Relayout) -> None:
    """Turn the graph inputs whose readers all want them in another layout."""
    for value in engine.graph.inputs:
        perm = engine.demand(value)
        if perm is None or perm != engine.target(len(perm)):
            continue
        engine.turned_inputs.append(str(value.name))
        engine.put(value, perm)


def used_domains(model: Model) -> None:
    """Import the channels-last domain where it is used, and only there."""
    domain = dialect.CHANNELS_LAST_DOMAIN
    if any(node.domain == domain for node in model.graph):
        model.opset_imports[domain] = model.opset_imports[""]
    else:
        model.opset_imports.pop(domain, None)
