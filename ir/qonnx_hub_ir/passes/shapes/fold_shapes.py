"""Shapes that a graph computes from sizes that are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from onnx_ir import Graph, Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.constants import known_integers
from qonnx_hub_ir.graph.queries import attribute, dims, input_of, is_read
from qonnx_hub_ir.graph.rewriting import replace_node
from qonnx_hub_ir.graph.unused import drop_unused


class _Size(NamedTuple):
    """The size of a value along an axis."""

    value: Value
    axis: int


_Element = int | _Size


@dataclass(frozen=True)
class FoldShapes(InPlacePass):
    """Fold what a graph computes from the sizes of its values, where they are known.

    Before -> after (``x`` of shape [1, 1, 28, 28])::

        y = Reshape(x, Concat(Unsqueeze(Gather(Shape(x), 0)), [-1]))
        y = Reshape(x, [0, -1])

    The first axis holds the samples, of which a user may give more than the file says: its
    size is not written down. A Reshape copies it (0) where it is that of its own data;
    otherwise what depends on it stays. Does not fire on sizes that are open.

    Attributes:
        static: Write the size of the first axis down as well: the file then takes as many
            samples as it says, and no others.
    """

    static: bool = False

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        walk = _Walk(model.graph, self.static)
        for node in list(model.graph):
            walk.visit(node)
        if walk.modified:
            drop_unused(model)
        return PassResult(model, modified=walk.modified)


@dataclass(slots=True)
class _Walk:
    """What is known of lists of sizes.

    Attributes:
        graph: The graph.
        static: Whether the size of the first axis is known.
        known: Value -> its elements.
        modified: Whether anything was written.
    """

    graph: Graph
    static: bool
    known: dict[Value, list[_Element]] = field(default_factory=dict)
    modified: bool = False

    def visit(self, node: Node) -> None:
        """Note what a node makes, and write it down where all of it is a number."""
        if node.domain != "" or not node.outputs:
            return
        if node.op_type == "Reshape":
            self._fix_target(node)
        rule = _RULES.get(node.op_type)
        found = None if rule is None else rule(self, node)
        if found is None or not is_read(node.outputs[0]):
            return
        numbers = [one for one in found if isinstance(one, int)]
        if len(numbers) == len(found) and not node.outputs[0].is_graph_output():
            self._write(node, numbers)
        else:
            self.known[node.outputs[0]] = found

    def _write(self, node: Node, numbers: list[int]) -> None:
        array = np.array(numbers, dtype=np.int64)
        scalar = node.outputs[0].shape is not None and len(node.outputs[0].shape) == 0
        value = Emitter(node).constant("sizes", array.reshape(()) if scalar else array)
        replace_node(node, value, keep_name=False, keep_type=False)
        self.modified = True

    def elements(self, value: Value | None) -> list[_Element] | None:
        """Return the elements of a value, ``None`` where they are not known."""
        if value is None:
            return None
        if value in self.known:
            return self.known[value]
        array = dialect.constant_value(value)
        if array is None or array.dtype.kind != "i" or array.ndim > 1:
            return None
        return list(known_integers(value) or ())

    def sizes(self, value: Value | None) -> list[_Element] | None:
        """Return the sizes of a value: numbers, and the open ones by place."""
        found = dims(value)
        if value is None or found is None:
            return None
        free = 0 if self.static else 1
        return [
            size if isinstance(size, int) and axis >= free else _Size(value, axis)
            for axis, size in enumerate(found)
        ]

    def _fix_target(self, node: Node) -> None:
        """Give a Reshape a constant shape that copies the axes which keep their place."""
        target, data = input_of(node, 1), node.inputs[0]
        if target not in self.known or data is None or attribute(node, "allowzero", 0):
            return
        fixed: list[int] = []
        for place, one in enumerate(self.known[target]):
            if isinstance(one, int):
                if one == 0:
                    return
                fixed.append(one)
            elif one.axis == place and _has_size_of(data, one):
                fixed.append(0)
            else:
                return
        shape = Emitter(node).integers("shape", fixed)
        node.replace_input_with(1, shape)
        self.modified = True


def _has_size_of(value: Value | None, size: _Size) -> bool:
    """Return whether a value has, along the same axis, the size of another one."""
    while value is not None:
        if value is size.value:
            return True
        node, shape = value.producer(), dims(value)
        if node is None or shape is None or not operators.is_elementwise(node):
            return False
        # What is not constant is followed; broadcasting must not be what makes the axis.
        source = next((v for v in node.inputs if v is not None and v.producer()), None)
        source = source or next((v for v in node.inputs if v is not None), None)
        if source is None or dims(source) != shape:
            return False
        value = source
    return False


def _shape(walk: _Walk, node: Node) -> list[_Element] | None:
    sizes = walk.sizes(node.inputs[0])
    if sizes is None:
        return None
    start, end = attribute(node, "start", 0), attribute(node, "end", None)
    return sizes[slice(int(start), None if end is None else int(end))]


def _gather(walk: _Walk, node: Node) -> list[_Element] | None:
    elements, places = walk.elements(node.inputs[0]), known_integers(node.inputs[1])
    if elements is None or places is None or node.inputs[0] not in walk.known:
        return None
    index = dialect.constant_value(node.inputs[1])
    if index is None or index.ndim > 1:
        return None
    inside = all(-len(elements) <= place < len(elements) for place in places)
    return [elements[place] for place in places] if inside else None


def _concat(walk: _Walk, node: Node) -> list[_Element] | None:
    parts = [walk.elements(value) for value in node.inputs]
    if all(value not in walk.known for value in node.inputs):
        return None
    return None if any(p is None for p in parts) else [e for part in parts for e in part or ()]


def _same(walk: _Walk, node: Node) -> list[_Element] | None:
    """Unsqueeze, Squeeze, Identity, Cast: lists of at most one axis stay lists."""
    found = walk.known.get(node.inputs[0]) if node.inputs[0] is not None else None
    shape = dims(node.outputs[0])
    is_cast = node.op_type == "Cast"
    kept = not is_cast or node.outputs[0].dtype == (node.inputs[0] or node.outputs[0]).dtype
    return found if shape is not None and len(shape) <= 1 and kept else None


def _slice(walk: _Walk, node: Node) -> list[_Element] | None:
    elements = walk.known.get(node.inputs[0]) if node.inputs[0] is not None else None
    limits = [known_integers(input_of(node, place)) for place in (1, 2)]
    steps = known_integers(input_of(node, 4))
    if elements is None or any(limit is None or len(limit) != 1 for limit in limits):
        return None
    if input_of(node, 4) is not None and steps != [1]:
        return None
    (start,), (end,) = (limit or [0] for limit in limits)
    return elements[start:end]


_RULES: Mapping[str, Callable[[_Walk, Node], list[_Element] | None]] = {
    "Shape": _shape,
    "Gather": _gather,
    "Concat": _concat,
    "Slice": _slice,
    "Unsqueeze": _same,
    "Squeeze": _same,
    "Identity": _same,
    "Cast": _same,
}
