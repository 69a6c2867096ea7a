"""Which channels are left behind operators that are no layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from onnx_ir import Node

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.constants import is_constant_tree, known_integers, squeezed
from qonnx_hub_ir.graph.queries import attribute, dims, input_of
from qonnx_hub_ir.graph.rearrange import moved
from qonnx_hub_ir.operators import Family
from qonnx_hub_ir.passes.channels.channel_layers import Made
from qonnx_hub_ir.passes.channels.channel_plan import (
    ChannelPlan,
    Kept,
    refuse,
    require_axis,
    required_rank,
)
from qonnx_hub_ir.quantizers import Array
from qonnx_hub_ir.thresholds import channel_axis

Rule = Callable[[Node, ChannelPlan], Made]
"""Returns what is left of a node's outputs; plans what its parameters lose."""


def _one(rule: Callable[[Node, ChannelPlan, Kept], Kept]) -> Rule:
    """Return the rule of operators whose first input alone may lose channels."""

    def checked(node: Node, plan: ChannelPlan) -> Made:
        return [(node.outputs[0], rule(node, plan, _data(node, plan)))]

    return checked


def _data(node: Node, plan: ChannelPlan) -> Kept:
    """Return what is kept of the first input, the only one that may lose channels."""
    kept = plan.of(node, 0)
    if kept is None or any(plan.of(node, i) is not None for i in range(1, len(node.inputs))):
        raise refuse(node, "a parameter of it would lose channels")
    return kept


def _rank(node: Node) -> int:
    return required_rank(node, node.inputs[0])


def _constant(node: Node, index: int) -> Array | None:
    value = input_of(node, index)
    known = dialect.constant_value(value)
    if known is None and value is not None:
        raise refuse(node, f"its input {index} is computed at run time")
    return known


def _unary(axis: int | None = None) -> Rule:
    """Return the rule of operators that keep the channels, which may have to be on an axis."""

    def rule(node: Node, plan: ChannelPlan) -> Made:
        kept = _data(node, plan)
        if axis is not None:
            require_axis(node, kept, axis)
        return [(value, kept) for value in node.outputs if value.name]

    return rule


def _parametrized(*, per_channel: bool) -> Rule:
    """Return the rule of operators whose parameters lose the channels too.

    Args:
        per_channel: Whether a parameter has one value per channel of axis 1, as those of a
            normalization do; those of a quantizer broadcast with the input.
    """

    def rule(node: Node, plan: ChannelPlan, kept: Kept) -> Kept:
        if per_channel:
            require_axis(node, kept, 1)
        axis, rank = (0, 1) if per_channel else (kept.axis, _rank(node))
        for index in range(1, len(node.inputs)):
            plan.take(node, index, axis, kept.mask, rank)
        return kept

    return _one(rule)


def _thresholds(node: Node, plan: ChannelPlan, kept: Kept) -> Kept:
    if channel_axis(str(attribute(node, "data_layout", "")), _rank(node)) == kept.axis:
        plan.take(node, 1, 0, kept.mask, 2)
    return kept


def _elementwise(node: Node, plan: ChannelPlan) -> Made:
    """Operands are aligned at their last axes; all must keep the same channels."""
    ranks = [0 if value is None else required_rank(node, value) for value in node.inputs]
    rank, found = max(ranks), None
    for index, own in enumerate(ranks):
        kept = plan.of(node, index)
        if kept is None:
            continue
        lifted = Kept(kept.axis + rank - own, kept.mask)
        if found is not None and not found.equals(lifted):
            raise refuse(node, "its operands keep different channels; give them one mask")
        found = lifted
    if found is None:
        raise refuse(node, "none of its operands is known to lose channels")
    for index, value in enumerate(node.inputs):
        if plan.of(node, index) is not None or value is None:
            continue
        if is_constant_tree(value):
            plan.take(node, index, found.axis, found.mask, rank)
            continue
        sizes = dims(value) or ()
        place = found.axis - (rank - len(sizes))
        if place >= 0 and sizes[place] != 1:
            raise refuse(
                node, f"its operand '{value.name}' keeps all channels; give both one mask"
            )
    return [(node.outputs[0], found)]


def _along_other_axis(default: int) -> Rule:
    """Return the rule of operators that combine the elements along one axis."""

    def rule(node: Node, plan: ChannelPlan, kept: Kept) -> Kept:
        if int(attribute(node, "axis", default)) % _rank(node) == kept.axis:
            raise refuse(node, "it combines the values of all channels")
        return kept

    return _one(rule)


def _reduce(node: Node, plan: ChannelPlan, kept: Kept) -> Kept:
    """Reductions: what is kept once some axes are gone, which must be others."""
    rank, given = _rank(node), _constant(node, 1)
    axes = set(range(rank)) if given is None else {int(a) % rank for a in given.reshape(-1)}
    if kept.axis in axes:
        raise refuse(node, "it combines the values of all channels")
    if attribute(node, "keepdims", 1):
        return kept
    return Kept(kept.axis - sum(axis < kept.axis for axis in axes), kept.mask)


def _move(node: Node, plan: ChannelPlan, kept: Kept) -> Kept:
    """Transpose, Reshape and their kin: channels are numbered, moved, and found again.

    Sizes that are not known are tried as two numbers: what depends on them differs.
    """
    before, after = dims(node.inputs[0]), dims(node.outputs[0])
    if before is None:
        raise refuse(node, "the rank of its input is not known")
    if node.op_type == "Squeeze" and input_of(node, 1) is None:
        raise refuse(node, "which axes it removes depends on their sizes")
    tried = [[n if isinstance(n, int) else probe for n in before] for probe in (2, 3)]
    made, other = (_moved_channels(node, kept, sizes) for sizes in tried)
    if made is None or other is None or not made.equals(other):
        shapes = f"{list(before)} to {list(after or ())}"
        raise refuse(node, f"they cannot be followed from {shapes}")
    target = known_integers(input_of(node, 1))
    if node.op_type == "Reshape" and target is not None and target[made.axis] > 0:
        plan.set_constant(node, 1, _replaced(np.array(target), made.axis, made.mask))
    return made


def _moved_channels(node: Node, kept: Kept, sizes: list[int]) -> Kept | None:
    """Return what is kept of an input of some sizes; ``None`` if not along a single axis."""
    count = kept.mask.size
    numbers = np.arange(count).reshape(-1, *(1,) * (len(sizes) - kept.axis - 1))
    try:
        found = moved(node, np.broadcast_to(numbers, sizes))
    except ValueError:  # the shape is written for other sizes
        return None
    places = squeezed(np.zeros(1) if found is None else found)
    axes = [axis for axis, size in enumerate(places.shape) if size > 1]
    return Kept(axes[0], kept.mask[places.reshape(-1)]) if len(axes) == 1 else None


def _pad(node: Node, plan: ChannelPlan, kept: Kept) -> Kept:
    rank, pads = _rank(node), _constant(node, 1)
    if pads is None or pads.size != 2 * rank or pads[kept.axis] or pads[rank + kept.axis]:
        raise refuse(node, "it adds channels")
    return kept


def _resize(node: Node, plan: ChannelPlan, kept: Kept) -> Kept:
    require_axis(node, kept, 1)
    scales, sizes = _constant(node, 2), _constant(node, 3)
    if scales is not None and scales.size > 1 and scales[1] == 1:
        return kept
    if sizes is None or sizes.size < 2 or int(sizes[1]) != kept.mask.size:
        raise refuse(node, "it does not keep the channels apart")
    plan.set_constant(node, 3, _replaced(sizes, 1, kept.mask))
    return kept


def _replaced(sizes: Array, place: int, mask: Array) -> Array:
    changed = np.array(sizes, dtype=np.int64)
    changed[place] = np.count_nonzero(mask)
    return changed


def _slice(node: Node, plan: ChannelPlan, kept: Kept) -> Kept:
    starts, axes = _constant(node, 1), _constant(node, 3)
    count = 0 if starts is None else starts.size
    touched = range(count) if axes is None else [int(a) % _rank(node) for a in axes.flat]
    if kept.axis in touched:
        raise refuse(node, "it chooses among the channels")
    return kept


def _concat(node: Node, plan: ChannelPlan) -> Made:
    parts = [plan.of(node, index) for index in range(len(node.inputs))]
    known = [part for part in parts if part is not None]
    axis = int(attribute(node, "axis", 0)) % _rank(node)
    if any(part.axis != axis for part in known):
        if len(known) < len(parts) or not all(part.equals(known[0]) for part in known):
            raise refuse(node, "its inputs keep different channels; give them one mask")
        return [(node.outputs[0], known[0])]
    masks = []
    for value, part in zip(node.inputs, parts, strict=True):
        size = (dims(value) or ())[axis] if part is None else part.mask.size
        if not isinstance(size, int):
            raise refuse(node, "the number of channels that it joins is not known")
        masks.append(np.ones(size, dtype=np.bool_) if part is None else part.mask)
    return [(node.outputs[0], Kept(axis, np.concatenate(masks)))]


def _split(node: Node, plan: ChannelPlan) -> Made:
    kept, rank = _data(node, plan), _rank(node)
    if int(attribute(node, "axis", 0)) % rank != kept.axis:
        return [(value, kept) for value in node.outputs]
    sizes = [(dims(value) or (None,) * rank)[kept.axis] for value in node.outputs]
    numbers = [size for size in sizes if isinstance(size, int)]
    if len(numbers) != len(sizes) or sum(numbers) != kept.mask.size:
        raise refuse(node, "the sizes of its parts are not known")
    masks = np.split(kept.mask, np.cumsum(numbers)[:-1])
    left = np.array([np.count_nonzero(mask) for mask in masks], dtype=np.int64)
    if not left.all():
        raise refuse(node, "one of its parts would be empty")
    plan.set_constant(node, 1, left)
    plan.edits.append(lambda: node.attributes.pop("num_outputs", None))
    pairs = zip(node.outputs, masks, strict=True)
    return [(value, Kept(kept.axis, mask)) for value, mask in pairs]


RULES: Mapping[tuple[str, str], Rule] = {
    **operators.assign(_elementwise, elementwise=True),
    **operators.assign(
        _unary(), test=lambda row: row.elementwise and len(row.inputs.roles) == 1
    ),
    **operators.assign(_unary(), test=lambda row: row.is_identity),
    **{
        (dialect.DOMAIN, name): _parametrized(per_channel=False) for name in dialect.QUANTIZERS
    },
    **operators.assign(_parametrized(per_channel=True), is_per_channel=True),
    **operators.assign(_unary(axis=1), test=lambda row: row.pool),
    **operators.assign(_along_other_axis(-1), family=Family.SOFTMAX),
    **operators.assign(
        _one(_reduce), test=lambda row: row.axes_input, family=Family.REDUCTION
    ),
    ("", "Concat"): _concat,
    ("", "Flatten"): _one(_move),
    (dialect.DOMAIN, dialect.THRESHOLDS): _one(_thresholds),
    ("", "Pad"): _one(_pad),
    ("", "Reshape"): _one(_move),
    ("", "Resize"): _one(_resize),
    ("", "Shape"): lambda node, plan: [],
    ("", "Slice"): _one(_slice),
    ("", "Split"): _split,
    ("", "Squeeze"): _one(_move),
    ("", "Transpose"): _one(_move),
    ("", "Unsqueeze"): _one(_move),
}
"""Operator -> what is left of the channels behind it."""
