"""Layouts at the places where axes are merged and split: Flatten, Reshape, Unsqueeze."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from onnx_ir import Node, Value

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.constants import constant_shape
from qonnx_hub_ir.graph.permutations import Perm
from qonnx_hub_ir.graph.queries import (
    Dims,
    attribute,
    dims,
    element_count,
    rank_of,
    weight_axes,
)
from qonnx_hub_ir.graph.rearrange import Rearrange, taking
from qonnx_hub_ir.passes.layout.relayout import Relayout, logical_sizes
from qonnx_hub_ir.quantizers import Array


def flatten(engine: Relayout, node: Node) -> bool:
    """Flatten (N, C, *size) to (N, features): the features come in another order."""
    source = node.inputs[0]
    if source is None or int(attribute(node, "axis", 1)) != 1:
        return False
    perm = engine.place(source).perm
    return perm is not None and perm[0] == 0 and _merge(engine, node, source, perm)


def reshape(engine: Relayout, node: Node) -> bool:
    """Reshape that merges all axes but the first, or that keeps the order of elements."""
    source, target = node.inputs[0], dialect.constant_value(node.inputs[1])
    if source is None or target is None or attribute(node, "allowzero", 0):
        return False
    perm, wanted = engine.place(source).perm, engine.demand(node.outputs[0])
    before, after = logical_sizes(engine, source), dims(node.outputs[0])
    if not before or not after or (perm is None and wanted is None):
        return False
    if _same_order(before, perm):
        if not _same_order(after, wanted):
            wanted = None
        if perm is not None or wanted is not None:
            return _reshape_stored(engine, node, source, after, wanted)
    if perm is None or perm[0] != 0 or len(after) != 2:
        return False
    count = element_count(before[1:])
    return count is not None and after[1] == count and _merge(engine, node, source, perm)


def _same_order(sizes: Dims, perm: Perm | None) -> bool:
    """Return whether a Transpose moves only axes of length 1, so that elements keep order."""
    if perm is None:
        return True
    moved = [axis for axis in perm if sizes[axis] != 1]
    return moved == sorted(moved)


def _reshape_stored(
    engine: Relayout, node: Node, source: Value, after: Dims, wanted: Perm | None
) -> bool:
    """Reshape the stored value to what the output is in the wanted layout."""
    stored = engine.place(source)
    sizes = after if wanted is None else [after[axis] for axis in wanted]
    first = (dims(stored.value) or ())[0]
    numbers = [size if isinstance(size, int) else -1 for size in sizes]
    if numbers[0] == -1 and sizes[0] == first is not None:
        numbers[0] = 0
    if numbers.count(-1) > 1:
        return False
    if stored.value is not source:
        node.replace_input_with(0, stored.value)
        engine.modified = True
    given = dialect.constant_value(node.inputs[1])
    if wanted is not None or (given is not None and 0 in given):
        engine.set_constant(node, 1, np.array(numbers, dtype=np.int64), "shape")
    engine.put(node.outputs[0], wanted)
    return True


def _merge(engine: Relayout, node: Node, source: Value, perm: Perm) -> bool:
    """Merge the axes in the order in which they are stored, if all readers can do with it."""
    sizes = logical_sizes(engine, source)
    if _same_order(sizes, perm):
        if node.op_type == "Reshape":
            return False
    else:
        inner = [size for size in sizes[1:] if isinstance(size, int)]
        if len(inner) != len(sizes) - 1:
            return False
        # For each feature as it will be stored, where it is now.
        places = np.arange(math.prod(inner), dtype=np.int64).reshape(1, *inner)
        order = np.transpose(places, perm).reshape(-1)
        if not FeatureOrder(engine, node.outputs[0], order).apply():
            return False
    node.replace_input_with(0, engine.get(source, perm, node))
    engine.modified = True
    return True


class FeatureOrder:
    """Another order of the features of a flat value, taken in by the weights behind it.

    Between the value and the matrix products that read it there may be elementwise operators
    and quantizers of constants; their constants are reordered as well.
    """

    def __init__(self, engine: Relayout, value: Value, order: Array) -> None:
        """Look for all readers.

        Args:
            engine: The walk.
            value: The flat value, (N, features).
            order: For each feature as it will be, where it is now.
        """
        self.engine = engine
        self.order = order
        self.possible = not value.is_graph_output()
        self._plan: list[tuple[Node, int, int]] = []
        self._values: list[Value] = [value]
        for reached in self._values:
            for usage in reached.uses():
                self.possible = self.possible and self._reach(usage.node, usage.idx)

    def _reach(self, node: Node, index: int) -> bool:
        """Add a reader to the plan; return whether it can take the order in."""
        if node.graph is not self.engine.graph:
            return False
        if operators.is_matrix_product(node):
            return index == 0 and self._reach_product(node)
        if (
            not operators.is_elementwise(node)
            or len(node.outputs) != 1
            or node.outputs[0].is_graph_output()
        ):
            return False
        for other, value in enumerate(node.inputs):
            if value is None or other == index:
                continue
            shape = constant_shape(value)
            if shape is None or len(shape) > 2:
                return False
            if shape and shape[-1] != 1:
                self._plan.append((node, other, 1))
        self._values.append(node.outputs[0])
        return True

    def _reach_product(self, node: Node) -> bool:
        shape, axes = constant_shape(node.inputs[1]), weight_axes(node)
        if shape is None or len(shape) != 2 or axes is None or attribute(node, "transA", 0):
            return False
        axis = axes[1] % 2
        if shape[axis] != self.order.size:
            return False
        self._plan.append((node, 1, axis))
        return True

    def apply(self) -> bool:
        """Reorder every constant of the plan; return False where some reader cannot."""
        if not self.possible:
            return False
        for node, index, axis in self._plan:
            value = node.inputs[index]
            if value is None:
                continue
            key = ("features", self.order.tobytes(), axis)
            change: Rearrange = taking(self.order, axis)
            found = self.engine.rearranger(value, change, key, node, 2)
            if found is not value:
                node.replace_input_with(index, found)
        for value in self._values:
            value.metadata_props.pop(dialect.PROVENANCE, None)
        return True


def unsqueeze(engine: Relayout, node: Node) -> bool:
    """Unsqueeze: the new axes go where the readers want them."""
    source, output = node.inputs[0], node.outputs[0]
    axes = dialect.constant_value(node.inputs[1])
    rank = rank_of(engine.place(source).value) if source is not None else None
    if source is None or axes is None or rank is None:
        return False
    total = rank + axes.size
    added = {int(axis) % total for axis in axes.reshape(-1)}
    if len(added) != axes.size:
        return False
    stored = engine.place(source).perm
    perm = stored or tuple(range(rank))
    wanted = _placed_around(engine, output, added, perm, total)
    if wanted is None:
        return False
    where = sorted(index for index, axis in enumerate(wanted) if axis in added)
    if stored is None and wanted == tuple(range(total)):
        return False
    node.replace_input_with(0, engine.get(source, stored, node))
    engine.set_constant(node, 1, np.array(where, dtype=np.int64), "axes")
    engine.modified = True
    engine.put(output, wanted)
    return True


def _placed_around(
    engine: Relayout, output: Value, added: set[int], perm: Perm, total: int
) -> Perm | None:
    """Return a layout of the output whose old axes are stored as the input's are."""
    old = [axis for axis in range(total) if axis not in added]
    stored = [old[axis] for axis in perm]

    def candidates() -> Iterator[Perm]:
        wanted = engine.demand(output)
        if wanted is not None:
            yield wanted
        yield tuple(range(total))
        if total > 2:
            yield engine.target(total)

    for layout in candidates():
        if [axis for axis in layout if axis not in added] == stored:
            return layout
    return None
