"""How each operator computes when its input is stored in another layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir
from onnx_ir import Node, Value

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.constants import (
    constant_shape,
    is_constant_tree,
    is_single,
    known_integers,
)
from qonnx_hub_ir.graph.permutations import Perm, inverse, without
from qonnx_hub_ir.graph.queries import attribute, input_of, rank_of
from qonnx_hub_ir.operators import Family
from qonnx_hub_ir.passes.layout.relayout import Relayout, Rule, pass_by
from qonnx_hub_ir.passes.layout.reshape_layouts import flatten, reshape, unsqueeze
from qonnx_hub_ir.quantizers import Array


def computed_inputs(node: Node) -> list[Value]:
    """Return the inputs that are computed at run time."""
    return [v for v in node.inputs if v is not None and not is_constant_tree(v)]


def passing_inputs(node: Node) -> Iterable[Value]:
    """Return the inputs whose layout is that of the output, for the operators known here."""
    rule = RULES.get((node.domain, node.op_type))
    if rule is None or operators.reshapes(node):
        return ()
    return computed_inputs(node)[: None if rule in (_elementwise, _concat) else 1]


def _chosen(engine: Relayout, node: Node, values: list[Value]) -> Perm | None:
    """Return the layout in which a node computes: what its readers require, else its inputs'.

    Where inputs come in several layouts, the commonest wins, then the first.
    """
    wanted = engine.demand(node.outputs[0])
    if wanted is not None:
        return wanted
    stored = [engine.place(value) for value in values]
    ranks = [rank_of(one.value) for one in stored]
    largest = max((rank for rank in ranks if rank is not None), default=0)
    pairs = zip(stored, ranks, strict=True)
    usable = [one.perm for one, rank in pairs if one.perm is not None and rank == largest]
    return max(usable, key=usable.count) if usable else None


def _elementwise(engine: Relayout, node: Node) -> bool:
    perm = _chosen(engine, node, computed_inputs(node))
    if perm is None:
        return False
    rank = len(perm)
    if not all(v is None or _aligns(engine, v, rank) for v in node.inputs):
        return False
    for index, value in enumerate(node.inputs):
        if value is not None and not _is_single(value):
            node.replace_input_with(index, engine.get(value, perm, node))
    for output in node.outputs:
        engine.put(output, perm)
    return True


def _is_single(value: Value) -> bool:
    """Return whether a value broadcasts whatever its axes are: one element, or no axis."""
    return is_single(value) if is_constant_tree(value) else rank_of(value) == 0


def _aligns(engine: Relayout, value: Value, rank: int) -> bool:
    """Return whether a value can be brought to a rank and a layout of that rank."""
    shape = constant_shape(value)
    if shape is not None:
        return len(shape) <= rank
    return _is_single(value) or rank_of(engine.place(value).value) == rank


def _concat(engine: Relayout, node: Node) -> bool:
    perm = _chosen(engine, node, computed_inputs(node))
    values = [value for value in node.inputs if value is not None]
    if perm is None or any(rank_of(engine.place(v).value) != len(perm) for v in values):
        return False
    for index, value in enumerate(values):
        node.replace_input_with(index, engine.get(value, perm, node))
    _rename_axis(node, perm, 0)
    engine.put(node.outputs[0], perm)
    return True


def _layout(engine: Relayout, node: Node, *, keeps_rank: bool = True) -> Perm | None:
    """Return the layout for a node whose first input decides.

    Where the rank changes, what the readers require does not fit the input.
    """
    source = node.inputs[0]
    if source is None or is_constant_tree(source):
        return None
    stored = engine.place(source)
    if not keeps_rank:
        return stored.perm
    perm = engine.demand(node.outputs[0]) or stored.perm
    return perm if perm is not None and rank_of(stored.value) == len(perm) else None


def _carry(engine: Relayout, node: Node, perm: Perm, dropped: Iterable[int] = ()) -> bool:
    """Give a node its first input in a layout, and note what that makes of its outputs."""
    source = node.inputs[0]
    if source is not None:
        node.replace_input_with(0, engine.get(source, perm, node))
    for output in node.outputs:
        engine.put(output, without(perm, set(dropped)))
    engine.modified = True
    return True


def _rename_axis(node: Node, perm: Perm, default: int) -> int:
    """Let the attribute ``axis`` name where the axis is stored; return what it was."""
    axis = int(attribute(node, "axis", default)) % len(perm)
    node.attributes["axis"] = onnx_ir.AttrInt64("axis", inverse(perm)[axis])
    return axis


def _renamed(perm: Perm, axes: Iterable[int]) -> Array:
    """Return where axes are stored."""
    return np.array([inverse(perm)[axis % len(perm)] for axis in axes], dtype=np.int64)


def _one_axis(default: int) -> Rule:
    """Return the rule of operators that work along an axis; some may drop it."""

    def rule(engine: Relayout, node: Node) -> bool:
        keeps = bool(attribute(node, "keepdims", 1))
        perm = _layout(engine, node, keeps_rank=keeps)
        if perm is None:
            return False
        axis = _rename_axis(node, perm, default)
        return _carry(engine, node, perm, () if keeps else (axis,))

    return rule


def _gather(engine: Relayout, node: Node) -> bool:
    indices = dialect.constant_value(node.inputs[1])
    perm = _layout(engine, node, keeps_rank=False)
    if perm is None or indices is None or indices.ndim > 1:
        return False
    axis = _rename_axis(node, perm, 0)
    return _carry(engine, node, perm, () if indices.ndim else (axis,))


def _linear_quantizer(engine: Relayout, node: Node) -> bool:
    """QuantizeLinear and DequantizeLinear: one scale, or one per slice along an axis."""
    if attribute(node, "block_size", 0) or not all(
        value is None or is_constant_tree(value) for value in node.inputs[1:]
    ):
        return False
    if rank_of(node.inputs[1]) == 1:
        return _one_axis(1)(engine, node)
    perm = _layout(engine, node)
    return perm is not None and _carry(engine, node, perm)


def _over_axes(engine: Relayout, node: Node) -> bool:
    """Reductions, and Squeeze: axes in an attribute or an input, which may be dropped."""
    squeezes = operators.reshapes(node)
    keeps = not squeezes and bool(attribute(node, "keepdims", 1))
    perm = _layout(engine, node, keeps_rank=keeps)
    given, known = attribute(node, "axes", None), known_integers(input_of(node, 1))
    axes = known if given is None else list(given)
    if perm is None or (axes is None and input_of(node, 1) is not None):
        return False
    if not axes:
        if squeezes or attribute(node, "noop_with_empty_axes", 0):
            return False
        return _carry(engine, node, perm, () if keeps else perm)
    renamed = np.sort(_renamed(perm, axes))
    if given is None:
        engine.set_constant(node, 1, renamed)
    else:
        node.attributes["axes"] = onnx_ir.AttrInt64s("axes", renamed.tolist())
    return _carry(engine, node, perm, () if keeps else (axis % len(perm) for axis in axes))


def _slice(engine: Relayout, node: Node) -> bool:
    perm, starts = _layout(engine, node), dialect.constant_value(node.inputs[1])
    axes = dialect.constant_value(input_of(node, 3))
    if axes is None and input_of(node, 3) is None and starts is not None:
        axes = np.arange(starts.size, dtype=starts.dtype)
    if perm is None or axes is None:
        return False
    # Starts, ends, axes and steps have one type.
    engine.set_constant(node, 3, _renamed(perm, axes.tolist()).astype(axes.dtype))
    return _carry(engine, node, perm)


def _per_axis(counts: Mapping[int, int], axes: int | None = None) -> Rule:
    """Return the rule of operators with numbers per axis in constant inputs.

    Args:
        counts: Input position -> how many runs of one number per axis it holds.
        axes: Position of the input that names the axes, where an operator can have one.
    """

    def rule(engine: Relayout, node: Node) -> bool:
        perm, given_axes = _layout(engine, node), attribute(node, "axes", None)
        if perm is None:
            return False
        rank = len(perm)
        if given_axes is not None:
            renamed = _renamed(perm, given_axes).tolist()
            node.attributes["axes"] = onnx_ir.AttrInt64s("axes", renamed)
            return _carry(engine, node, perm)
        if axes is not None and input_of(node, axes) is not None:
            known = known_integers(node.inputs[axes])
            if known is None:
                return False
            engine.set_constant(node, axes, _renamed(perm, known))
            return _carry(engine, node, perm)
        given = [index for index in counts if input_of(node, index) is not None]
        arrays = {index: dialect.constant_value(node.inputs[index]) for index in given}
        if any(a is None or a.size not in (0, counts[i] * rank) for i, a in arrays.items()):
            return False
        for index, array in arrays.items():
            if array is not None and array.size:
                runs = array.reshape(counts[index], rank)
                engine.set_constant(node, index, runs[:, list(perm)].reshape(-1))
        return _carry(engine, node, perm)

    return rule


RULES: Mapping[tuple[str, str], Rule] = {
    **operators.assign(_elementwise, domain=None, elementwise=True),
    ("", "Dropout"): _elementwise,
    **operators.assign(_over_axes, test=lambda row: row.axes_input, family=Family.REDUCTION),
    **operators.assign(_one_axis(0), test=lambda row: row.axis, family=Family.REDUCTION),
    **operators.assign(_one_axis(-1), family=Family.SOFTMAX),
    **operators.assign(_linear_quantizer, test=lambda row: row.axis, family=Family.QUANTIZER),
    ("", "Concat"): _concat,
    ("", "Expand"): _per_axis({1: 1}),
    ("", "Flatten"): flatten,
    ("", "Gather"): _gather,
    ("", "Pad"): _per_axis({1: 2}, axes=3),
    ("", "Reshape"): reshape,
    ("", "Resize"): _per_axis({1: 2, 2: 1, 3: 1}),
    ("", "Slice"): _slice,
    ("", "Split"): _one_axis(0),
    ("", "Squeeze"): _over_axes,
    ("", "Tile"): _per_axis({1: 1}),
    ("", "Transpose"): pass_by,
    ("", "Unsqueeze"): unsqueeze,
}
"""Operators that compute in any layout. What is not listed gets its inputs as they were."""
