"""Layouts at the places where axes are merged and split: Flatten, Reshape, Unsqueeze."""

from __future__ import annotations

import math

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
from qonnx_hub_ir.graph.rearrange import taking
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
        engine.set_constant(node, 1, np.array(numbers, dtype=np.int64))
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
        if not _reorder_features(engine, node.outputs[0], order):
            return False
    node.replace_input_with(0, engine.get(source, perm, node))
    engine.modified = True
    return True


def _reorder_features(engine: Relayout, value: Value, order: Array) -> bool:
    """Put the features of a flat value in another order, which the weights behind it take in.

    Between the value and the matrix products that read it there may be elementwise operators
    and quantizers of constants; their constants are reordered as well.

    Args:
        engine: The walk.
        value: The flat value, (N, features).
        order: For each feature as it will be, where it is now.

    Returns:
        Whether all readers can do with it; else nothing was changed.
    """
    if value.is_graph_output():
        return False
    constants: list[tuple[Node, int, int]] = []
    values = [value]
    for reached in values:
        for usage in reached.uses():
            node = usage.node
            found = _features_of(node, usage.idx, order.size)
            if found is None or node.graph is not engine.graph:
                return False
            constants += [(node, index, axis) for index, axis in found]
            values += () if operators.is_matrix_product(node) else node.outputs
    for node, index, axis in constants:
        value_read = node.inputs[index]
        if value_read is not None:
            key = ("features", order.tobytes(), axis)
            change = taking(order, axis)
            node.replace_input_with(index, engine.rearranger(value_read, change, key, node, 2))
    for reached in values:
        reached.metadata_props.pop(dialect.PROVENANCE, None)
    return True


def _features_of(node: Node, position: int, count: int) -> list[tuple[int, int]] | None:
    """Return the constants that go along with the features that a node reads at a position.

    Each is an input and the axis of the features in it, seen as a matrix; ``None`` where the
    node needs the features in the order that they have.
    """
    if operators.is_matrix_product(node):
        shape, axes = constant_shape(node.inputs[1]), weight_axes(node)
        if shape is None or len(shape) != 2 or axes is None or attribute(node, "transA", 0):
            return None
        axis = axes[1] % 2
        return [(1, axis)] if position == 0 and shape[axis] == count else None
    if not operators.is_elementwise(node) or len(node.outputs) != 1:
        return None
    found = []
    for index, value in enumerate(node.inputs):
        if value is None or index == position:
            continue
        shape = constant_shape(value)
        if shape is None or len(shape) > 2:
            return None
        if shape and shape[-1] != 1:
            found.append((index, 1))
    return None if node.outputs[0].is_graph_output() else found


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
    engine.set_constant(node, 1, np.array(where, dtype=np.int64))
    engine.modified = True
    engine.put(output, wanted)
    return True


def _placed_around(
    engine: Relayout, output: Value, added: set[int], perm: Perm, total: int
) -> Perm | None:
    """Return a layout of the output whose old axes are stored as the input's are."""
    old = [axis for axis in range(total) if axis not in added]
    stored = [old[axis] for axis in perm]

    layouts = [engine.demand(output), tuple(range(total))]
    if total > 2:
        layouts.append(engine.target(total))
    for layout in layouts:
        if layout and [axis for axis in layout if axis not in added] == stored:
            return layout
    return None
