"""One walk over a graph in which what nodes do to values is noted, and written when needed.

A value of the graph as it was is a *logical* value; what is stored for it may still lack a
Transpose, a factor, an offset. A rule per operator goes on with what is stored; a node without
a rule, or whose rule declines, gets its inputs as they were.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from onnx_ir import Graph, Model, Node, Value
from onnx_ir import node as new_node

from qonnx_hub_ir.annotations import LAYOUT, annotate, annotations_of
from qonnx_hub_ir.graph.names import free_name
from qonnx_hub_ir.graph.queries import is_read
from qonnx_hub_ir.graph.rewriting import can_be_output
from qonnx_hub_ir.graph.subgraphs import captured_reads

Place = TypeVar("Place")
"""What is known of a logical value that is not stored as it was."""


class DeferredRewrite(Generic[Place]):
    """The state of one walk.

    Attributes:
        model: The model, changed in place.
        graph: Its main graph, over which the walk goes.
        rules: (domain, operator) -> rule, which handles one node and notes its outputs. It
            returns False where it cannot, having changed nothing.
        node_names: Names that new nodes cannot have.
        places: Logical values that are not stored as they were.
        modified: Whether anything changed.
    """

    def __init__(
        self, model: Model, rules: Mapping[tuple[str, str], Callable[[Any, Node], bool]]
    ) -> None:
        """Start with every value stored as it is."""
        self.model = model
        self.graph: Graph = model.graph
        self.rules = rules
        self.places: dict[Value, Place] = {}
        self.node_names = {str(node.name) for node in self.graph}
        self.modified = False

    @abstractmethod
    def restored(self, value: Value, before: Node | None) -> Value:
        """Return a logical value as it was, written before a node or at the graph's end."""

    def node_name(self, name: str) -> str:
        """Return a name that no node has, and claim it."""
        return free_name(name, self.node_names)

    def keep(self, node: Node) -> None:
        """Give a node its inputs as they were."""
        for index in range(len(node.inputs)):
            self.feed(node, index, node)

    def feed(self, node: Node, index: int, before: Node) -> None:
        """Give a node one input as it was."""
        value = node.inputs[index]
        if value is None or value not in self.places:
            return
        found = self.restored(value, before)
        if found is not value:
            node.replace_input_with(index, found)
            self.modified = True

    def walk(self) -> None:
        """Visit every node in order; inner graphs read values as they were."""
        captured = captured_reads(self.graph)
        for node in list(self.graph):
            for reader, index in captured.get(node, ()):
                self.feed(reader, index, node)
            rule = self.rules.get((node.domain, node.op_type))
            if rule is None or not rule(self, node):
                self.keep(node)

    def insert(self, node: Node, before: Node | None) -> Value:
        """Put a node before another, or at the end of the graph; return its first output."""
        if before is None:
            self.graph.append(node)
        else:
            before.prepend(node)
        self.modified = True
        return node.outputs[0]

    def sweep(self, waits: Callable[[Node], bool]) -> None:
        """Remove the nodes that wait to be written, and that nobody reads.

        Args:
            waits: Whether a node is of the kind that this walk defers.
        """
        for node in reversed(list(self.graph)):
            result = node.outputs[0]
            if waits(node) and result in self.places and not is_read(result):
                self.graph.remove(node, safe=True)
                self.modified = True

    def expose(self, index: int, name: str, found: Value) -> None:
        """Make a value the graph output at a position, under the name that it had.

        A value that cannot be renamed is copied by an Identity.
        """
        output = self.graph.outputs[index]
        if found is output:
            return
        self.modified = True
        if not can_be_output(found):
            copy = new_node("Identity", [found], name=self.node_name(f"{name}_copy"))
            copy.outputs[0].type, copy.outputs[0].shape = found.type, found.shape
            found = self.insert(copy, None)
        self.graph.outputs[index] = found
        if found.name != name:
            output.name = f"{name}_before"
            found.name = name
            found.metadata_props.update(output.metadata_props)
            # The layout is that of what is stored.
            kept = {k: v for k, v in annotations_of(output).items() if k != LAYOUT}
            annotate(found, kept)
