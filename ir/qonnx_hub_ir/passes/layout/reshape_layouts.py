"""Layouts at the places where axes are merged and split: Flatten, Reshape, Unsqueeze."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from onnx_ir import Node, Value

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.constants import is_constant_tree, shape_of_constant
from qonnx_hub_ir.graph.permutations import Perm
from qonnx_hub_ir.graph.queries import Dims, dims, rank_of
from qonnx_hub_ir.graph.rearrange import Rearrange, taking
from qonnx_hub_ir.passes.layout.relayout import Relayout, logical_sizes
from qonnx_hub_ir.quantizers import Array


def flatten(engine: Relayout, node: Node) -> bool:
    """Flatten (N, C, *size) to (N, features): the features come in another order."""
    source, output = node.inputs[0], node.outputs[0]
    axis = node.attributes.get("axis")
    if source is None or (axis is not None and int(axis.value) != 1):
        return False
    perm = engine.place(source).perm
    if perm is None or perm[0] != 0:
        return False
    return _merge(engine, node, source, output, perm)


def reshape(engine: Relayout, node: Node) -> bool:
    """Reshape that merges all axes but the first, or that keeps the order of elements."""
    source, output = node.inputs[0], node.outputs[0]
    if source is None or _has_zero(node):
        return False
    perm, wanted = engine.place(source).perm, engine.demand(output)
    before = logical_sizes(engine, source)
    after = dims(output) or ()
    if not before or not after:
        return False
    if perm is None and wanted is None:
        return False
    if _same_order(before, perm) and _same_order(after, wanted):
        return _reshape_stored(engine, node, source, after, wanted)
    if perm is not None and _same_order(before, perm):
        return _reshape_stored(engine, node, source, after, None)
    if perm is None or perm[0] != 0 or len(after) != 2:
        return False
    if any(not isinstance(size, int) for size in before[1:]):
        return False
    if after[1] != math.prod(int(size) for size in before[1:] if isinstance(size, int)):
        return False
    return _merge(engine, node, source, output, perm)


def _has_zero(node: Node) -> bool:
    attr = node.attributes.get("allowzero")
    return dialect.constant_value(node.inputs[1]) is None or bool(attr and attr.value)


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
    numbers = [_number(size, index, first) for index, size in enumerate(sizes)]
    if numbers.count(-1) > 1:
        return False
    if stored.value is not source:
        node.replace_input_with(0, stored.value)
        engine.modified = True
    if node.op_type == "Reshape":
        given = dialect.constant_value(node.inputs[1])
        if wanted is not None or (given is not None and 0 in given):
            label = engine.node_name(f"{node.name}_shape")
            array = np.array(numbers, dtype=np.int64)
            node.replace_input_with(1, dialect.add_initializer(engine.graph, label, array))
            engine.modified = True
    engine.put(node.outputs[0], wanted)
    return True


def _number(size: int | str | None, index: int, first: int | str | None) -> int:
    if isinstance(size, int):
        return size
    return 0 if index == 0 and size == first and size is not None else -1


def _merge(engine: Relayout, node: Node, source: Value, output: Value, perm: Perm) -> bool:
    """Merge the axes in the order in which they are stored, if all readers can do with it."""
    sizes = logical_sizes(engine, source)
    if not _same_order(sizes, perm):
        inner = [size for size in sizes[1:] if isinstance(size, int)]
        if len(inner) != len(sizes) - 1:
            return False
        order = _feature_order(inner, perm)
        if not FeatureOrder(engine, output, order).apply():
            return False
    elif node.op_type == "Reshape":
        return False
    node.replace_input_with(0, engine.get(source, perm, node))
    engine.modified = True
    return True


def _feature_order(inner: list[int], perm: Perm) -> Array:
    """Return, for each feature as it is stored, where it was: int64 of shape (features,)."""
    count = int(np.prod(inner, dtype=np.int64))
    places = np.arange(count, dtype=np.int64).reshape(1, *inner)
    return np.transpose(places, perm).reshape(-1)


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
            if not is_constant_tree(value) or len(shape_of_constant(value)) > 2:
                return False
            shape = shape_of_constant(value)
            if shape and shape[-1] != 1:
                self._plan.append((node, other, 1))
        self._values.append(node.outputs[0])
        return True

    def _reach_product(self, node: Node) -> bool:
        weight = node.inputs[1]
        if (
            weight is None
            or not is_constant_tree(weight)
            or len(shape_of_constant(weight)) != 2
        ):
            return False
        flips = {name: node.attributes.get(name) for name in ("transA", "transB")}
        if flips["transA"] is not None and flips["transA"].value:
            return False
        turned = flips["transB"] is not None and bool(flips["transB"].value)
        axis = 1 if turned else 0
        if shape_of_constant(weight)[axis] != self.order.size:
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
    label = engine.node_name(f"{node.name}_axes")
    array = np.array(where, dtype=np.int64)
    node.replace_input_with(1, dialect.add_initializer(engine.graph, label, array))
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
