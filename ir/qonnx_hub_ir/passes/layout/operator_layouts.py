"""How each operator goes along when its input is stored in another layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir
from onnx_ir import Node, Value

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.constants import is_constant_tree, shape_of_constant
from qonnx_hub_ir.graph.permutations import Perm, inverse, simplified, without
from qonnx_hub_ir.graph.queries import rank_of
from qonnx_hub_ir.passes.layout.relayout import Relayout, Rule
from qonnx_hub_ir.passes.layout.reshape_layouts import flatten, reshape, unsqueeze
from qonnx_hub_ir.passes.layout.sink_transposes import ELEMENTWISE, REDUCTIONS

_SOFTMAX = frozenset({"Hardmax", "LogSoftmax", "Softmax"})
_CONVERTS_LIKE_ONE = frozenset({"Dropout", *ELEMENTWISE})


def data_inputs(node: Node) -> list[Value]:
    """Return the inputs that are computed at run time."""
    return [v for v in node.inputs if v is not None and not is_constant_tree(v)]


def passing_inputs(node: Node) -> Iterable[Value]:
    """Return the inputs whose layout is that of the output, for the operators known here."""
    key = (node.domain, node.op_type)
    if key not in RULES or node.op_type in {"Flatten", "Reshape", "Unsqueeze"}:
        return ()
    if node.op_type in {*ELEMENTWISE, "Concat"} or dialect.is_quantizer(node):
        return data_inputs(node)
    return data_inputs(node)[:1]


def _chosen(engine: Relayout, node: Node, values: list[Value]) -> Perm | None:
    """Return the layout in which a node computes: what its readers want, else what it gets.

    Where inputs come in several layouts, the commonest wins, then the first.
    """
    wanted = engine.demand(node.outputs[0])
    if wanted is not None:
        return wanted
    found = [engine.place(value).perm for value in values]
    ranks = [rank_of(engine.place(value).value) for value in values]
    largest = max((rank for rank in ranks if rank is not None), default=0)
    usable = [p for p, r in zip(found, ranks, strict=True) if p is not None and r == largest]
    if not usable:
        return None
    return max(usable, key=usable.count)


def _elementwise(engine: Relayout, node: Node) -> bool:
    data = data_inputs(node)
    perm = _chosen(engine, node, data)
    if perm is None:
        return False
    rank = len(perm)
    for value in node.inputs:
        if value is not None and not _aligns(engine, value, rank):
            return False
    for index, value in enumerate(node.inputs):
        if value is None or _is_single(value):
            continue
        if is_constant_tree(value):
            found = engine.constant(value, perm, node, rank)
        else:
            found = engine.get(value, perm, node)
        if found is not value:
            node.replace_input_with(index, found)
    for output in node.outputs:
        engine.put(output, perm)
    return True


def _is_single(value: Value) -> bool:
    """Return whether a value broadcasts whatever its axes are: one element, lower rank."""
    if is_constant_tree(value):
        return int(np.prod(shape_of_constant(value), dtype=np.int64)) == 1
    return value.shape is not None and len(value.shape) == 0


def _aligns(engine: Relayout, value: Value, rank: int) -> bool:
    """Return whether a value can be brought to a rank and a layout of that rank."""
    if is_constant_tree(value):
        return len(shape_of_constant(value)) <= rank
    return _is_single(value) or rank_of(engine.place(value).value) == rank


def _follows(engine: Relayout, node: Node) -> Perm | None:
    """Return the layout for a node whose first input decides."""
    source = node.inputs[0]
    if source is None or is_constant_tree(source):
        return None
    wanted = engine.demand(node.outputs[0])
    perm = wanted if wanted is not None else engine.place(source).perm
    if perm is None or rank_of(engine.place(source).value) != len(perm):
        return None
    return perm


def _int(node: Node, name: str, default: int) -> int:
    attr = node.attributes.get(name)
    return default if attr is None else int(attr.value)


def _source(engine: Relayout, node: Node, perm: Perm) -> None:
    source = node.inputs[0]
    if source is not None:
        node.replace_input_with(0, engine.get(source, perm, node))


def _known(value: Value | None) -> list[int] | None:
    array = dialect.constant_value(value)
    return None if array is None else [int(number) for number in array.reshape(-1)]


def _replace_ints(engine: Relayout, node: Node, index: int, numbers: list[int]) -> None:
    if _known(node.inputs[index]) == numbers:
        return
    label = engine.free_name(f"{node.name}_input{index}")
    array = np.array(numbers, dtype=np.int64)
    node.replace_input_with(index, dialect.add_initializer(engine.graph, label, array))


def _concat(engine: Relayout, node: Node) -> bool:
    perm = _chosen(engine, node, data_inputs(node))
    if perm is None or any(
        value is None or (rank_of(engine.place(value).value) != len(perm))
        for value in node.inputs
    ):
        return False
    axis = _int(node, "axis", 0) % len(perm)
    for index, value in enumerate(node.inputs):
        if value is not None:
            node.replace_input_with(index, engine.get(value, perm, node))
    node.attributes["axis"] = onnx_ir.AttrInt64("axis", inverse(perm)[axis])
    engine.put(node.outputs[0], perm)
    return True


def _one_axis(default: int) -> Rule:
    """Return the rule of operators that work along an axis and keep the rank."""

    def rule(engine: Relayout, node: Node) -> bool:
        perm = _follows(engine, node)
        if perm is None:
            return False
        axis = _int(node, "axis", default) % len(perm)
        _source(engine, node, perm)
        node.attributes["axis"] = onnx_ir.AttrInt64("axis", inverse(perm)[axis])
        for output in node.outputs:
            engine.put(output, perm)
        return True

    return rule


def _linear_quantizer(engine: Relayout, node: Node) -> bool:
    """QuantizeLinear and DequantizeLinear: one scale, or one per slice along an axis."""
    if _int(node, "block_size", 0) or any(
        value is not None and not is_constant_tree(value) for value in node.inputs[1:]
    ):
        return False
    scale = node.inputs[1]
    if scale is not None and len(shape_of_constant(scale)) == 1:
        return _one_axis(1)(engine, node)
    perm = _follows(engine, node)
    if perm is None:
        return False
    _source(engine, node, perm)
    engine.put(node.outputs[0], perm)
    return True


def _reduction(engine: Relayout, node: Node) -> bool:
    perm = _follows_kept(engine, node)
    if perm is None:
        return False
    given = node.attributes.get("axes")
    keep = bool(_int(node, "keepdims", 1))
    axes = [int(axis) for axis in given.value] if given is not None else None
    if axes is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        axes = _known(node.inputs[1])
        if axes is None:
            return False
    all_axes = not axes
    if all_axes and _int(node, "noop_with_empty_axes", 0):
        return False
    dropped = set(range(len(perm))) if not axes else {axis % len(perm) for axis in axes}
    _source(engine, node, perm)
    renamed = sorted(inverse(perm)[axis] for axis in dropped)
    if given is not None:
        node.attributes["axes"] = onnx_ir.AttrInt64s("axes", renamed)
    elif not all_axes:
        _replace_ints(engine, node, 1, renamed)
    engine.put(node.outputs[0], perm if keep else without(perm, dropped))
    engine.modified = True
    return True


def _follows_kept(engine: Relayout, node: Node) -> Perm | None:
    """Return the layout for a node that may drop axes, so that readers' wishes may not fit."""
    if _int(node, "keepdims", 1):
        return _follows(engine, node)
    source = node.inputs[0]
    if source is None or is_constant_tree(source):
        return None
    return engine.place(source).perm


def _arg_reduction(engine: Relayout, node: Node) -> bool:
    perm = _follows_kept(engine, node)
    if perm is None:
        return False
    axis = _int(node, "axis", 0) % len(perm)
    keep = bool(_int(node, "keepdims", 1))
    _source(engine, node, perm)
    node.attributes["axis"] = onnx_ir.AttrInt64("axis", inverse(perm)[axis])
    engine.put(node.outputs[0], perm if keep else without(perm, {axis}))
    engine.modified = True
    return True


def _squeeze(engine: Relayout, node: Node) -> bool:
    source = node.inputs[0]
    perm = None if source is None else engine.place(source).perm
    axes = _known(node.inputs[1]) if len(node.inputs) > 1 else None
    if perm is None or axes is None:
        return False
    dropped = {axis % len(perm) for axis in axes}
    _source(engine, node, perm)
    _replace_ints(engine, node, 1, sorted(inverse(perm)[axis] for axis in dropped))
    engine.put(node.outputs[0], without(perm, dropped))
    engine.modified = True
    return True


def _pad(engine: Relayout, node: Node) -> bool:
    perm = _follows(engine, node)
    pads = _known(node.inputs[1])
    if perm is None or pads is None:
        return False
    rank = len(perm)
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        axes = _known(node.inputs[3])
        if axes is None:
            return False
        _source(engine, node, perm)
        _replace_ints(engine, node, 3, [inverse(perm)[axis % rank] for axis in axes])
    else:
        _source(engine, node, perm)
        both = [pads[axis] for axis in perm] + [pads[rank + axis] for axis in perm]
        _replace_ints(engine, node, 1, both)
    engine.put(node.outputs[0], perm)
    return True


def _slice(engine: Relayout, node: Node) -> bool:
    perm = _follows(engine, node)
    if perm is None:
        return False
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        axes = _known(node.inputs[3])
    else:
        starts = _known(node.inputs[1])
        axes = None if starts is None else list(range(len(starts)))
    if axes is None:
        return False
    _source(engine, node, perm)
    if len(node.inputs) < 4:
        node.resize_inputs(4)
    _replace_ints(engine, node, 3, [inverse(perm)[axis % len(perm)] for axis in axes])
    engine.put(node.outputs[0], perm)
    return True


def _per_axis(*positions: int) -> Rule:
    """Return the rule of operators with one number per axis in constant inputs."""

    def rule(engine: Relayout, node: Node) -> bool:
        perm = _follows(engine, node)
        if perm is None:
            return False
        known = {i: _known(node.inputs[i]) for i in positions}
        if any(numbers is None or len(numbers) != len(perm) for numbers in known.values()):
            return False
        _source(engine, node, perm)
        for index, numbers in known.items():
            if numbers is not None:
                _replace_ints(engine, node, index, [numbers[axis] for axis in perm])
        engine.put(node.outputs[0], perm)
        return True

    return rule


def _resize(engine: Relayout, node: Node) -> bool:
    perm = _follows(engine, node)
    if perm is None:
        return False
    rank = len(perm)
    axes = node.attributes.get("axes")
    extra = [dialect.constant_value(value) for value in node.inputs[1:]]
    if axes is None and any(
        array is None and value is not None
        for array, value in zip(extra, node.inputs[1:], strict=True)
    ):
        return False
    _source(engine, node, perm)
    if axes is not None:
        renamed = [inverse(perm)[int(axis) % rank] for axis in axes.value]
        node.attributes["axes"] = onnx_ir.AttrInt64s("axes", renamed)
    else:
        for index, array in enumerate(extra, start=1):
            if array is None or array.size == 0:
                continue
            order = list(perm) if array.size == rank else [*perm, *(rank + a for a in perm)]
            label = engine.free_name(f"{node.name}_input{index}")
            fresh = dialect.add_initializer(engine.graph, label, array[order])
            node.replace_input_with(index, fresh)
    engine.put(node.outputs[0], perm)
    return True


def _gather(engine: Relayout, node: Node) -> bool:
    source, indices = node.inputs[0], dialect.constant_value(node.inputs[1])
    if source is None or indices is None or indices.ndim > 1:
        return False
    perm = engine.place(source).perm
    if perm is None or is_constant_tree(source):
        return False
    axis = _int(node, "axis", 0) % len(perm)
    _source(engine, node, perm)
    node.attributes["axis"] = onnx_ir.AttrInt64("axis", inverse(perm)[axis])
    engine.put(node.outputs[0], perm if indices.ndim else without(perm, {axis}))
    engine.modified = True
    return True


def _simple(names: Iterable[str], rule: Rule) -> dict[tuple[str, str], Rule]:
    return {("", name): rule for name in names}


RULES: Mapping[tuple[str, str], Rule] = {
    **_simple(_CONVERTS_LIKE_ONE, _elementwise),
    **{(dialect.DOMAIN, name): _elementwise for name in dialect.QUANTIZERS},
    **_simple(REDUCTIONS, _reduction),
    **_simple(_SOFTMAX, _one_axis(-1)),
    **_simple(("ArgMax", "ArgMin"), _arg_reduction),
    **_simple(("DequantizeLinear", "QuantizeLinear"), _linear_quantizer),
    **_simple(("Expand", "Tile"), _per_axis(1)),
    ("", "Concat"): _concat,
    ("", "Flatten"): flatten,
    ("", "Gather"): _gather,
    ("", "Pad"): _pad,
    ("", "Reshape"): reshape,
    ("", "Resize"): _resize,
    ("", "Slice"): _slice,
    ("", "Split"): _one_axis(0),
    ("", "Squeeze"): _squeeze,
    ("", "Unsqueeze"): unsqueeze,
}
"""What goes along with a layout, and how. What is not listed gets its inputs as they were."""

__all__ = ["RULES", "data_inputs", "passing_inputs", "simplified"]
