"""Which channels are left behind operators that are no layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from onnx_ir import Node

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.constants import is_constant_tree
from qonnx_hub_ir.graph.queries import attribute, dims
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


def _data(node: Node, plan: ChannelPlan) -> Kept:
    """Return what is kept of the first input, the only one that may lose channels."""
    kept = plan.of(node, 0)
    if kept is None or any(plan.of(node, i) is not None for i in range(1, len(node.inputs))):
        raise refuse(node, "a parameter of it would lose channels")
    return kept


def _unary(node: Node, plan: ChannelPlan) -> Made:
    kept = _data(node, plan)
    return [(value, kept) for value in node.outputs]


def _quantizer(node: Node, plan: ChannelPlan) -> Made:
    kept, rank = _data(node, plan), required_rank(node, node.inputs[0])
    for index in range(1, len(node.inputs)):
        plan.take(node, index, kept.axis, kept.mask, rank)
    return [(node.outputs[0], kept)]


def _thresholds(node: Node, plan: ChannelPlan) -> Made:
    kept, rank = _data(node, plan), required_rank(node, node.inputs[0])
    axis = channel_axis(str(attribute(node, "data_layout", "")), rank)
    if axis == kept.axis:
        plan.take(node, 1, 0, kept.mask, 2)
    return [(node.outputs[0], kept)]


def _per_channel(node: Node, plan: ChannelPlan) -> Made:
    """Normalization: parameters have one value per channel."""
    kept = _data(node, plan)
    require_axis(node, kept, 1)
    for index in range(1, len(node.inputs)):
        plan.take(node, index, 0, kept.mask, 1)
    return [(node.outputs[0], kept)]


def _spatial(node: Node, plan: ChannelPlan) -> Made:
    kept = _data(node, plan)
    require_axis(node, kept, 1)
    return [(value, kept) for value in node.outputs if value.name]


def _elementwise(node: Node, plan: ChannelPlan) -> Made:
    """Operands are aligned at their last axes; all must keep the same channels."""
    rank = max(required_rank(node, value) for value in node.inputs)
    found: Kept | None = None
    for index, value in enumerate(node.inputs):
        kept = plan.of(node, index)
        if kept is None:
            continue
        lifted = Kept(kept.axis + rank - required_rank(node, value), kept.mask)
        if found is not None and not found.equals(lifted):
            raise refuse(node, "its operands keep different channels; give them one mask")
        found = lifted
    if found is None:
        raise refuse(node, "none of its operands is known to lose channels")
    for index in range(len(node.inputs)):
        if plan.of(node, index) is None:
            _take_operand(node, plan, index, found, rank)
    return [(node.outputs[0], found)]


def _take_operand(node: Node, plan: ChannelPlan, index: int, kept: Kept, rank: int) -> None:
    value = node.inputs[index]
    if is_constant_tree(value):
        plan.take(node, index, kept.axis, kept.mask, rank)
        return
    sizes = dims(value) or ()
    place = kept.axis - (rank - len(sizes))
    if place >= 0 and sizes[place] != 1:
        name = "" if value is None else value.name
        raise refuse(node, f"its operand '{name}' keeps all channels; give both one mask")


def _along_other_axis(default: int) -> Callable[[Node, ChannelPlan], Made]:
    """Return the rule of operators that combine the elements along one axis."""

    def rule(node: Node, plan: ChannelPlan) -> Made:
        kept, rank = _data(node, plan), required_rank(node, node.inputs[0])
        if int(attribute(node, "axis", default)) % rank == kept.axis:
            raise refuse(node, "it combines the values of all channels")
        return [(node.outputs[0], kept)]

    return rule


def _reduce(node: Node, plan: ChannelPlan) -> Made:
    kept, rank = _data(node, plan), required_rank(node, node.inputs[0])
    given = _constant(node, 1)
    axes = set(range(rank)) if given is None else {int(a) % rank for a in given.reshape(-1)}
    if kept.axis in axes:
        raise refuse(node, "it combines the values of all channels")
    if attribute(node, "keepdims", 1):
        return [(node.outputs[0], kept)]
    before = sum(axis < kept.axis for axis in axes)
    return [(node.outputs[0], Kept(kept.axis - before, kept.mask))]


def _constant(node: Node, index: int) -> Array | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return None
    known = dialect.constant_value(value)
    if known is None:
        raise refuse(node, f"its input {index} is computed at run time")
    return known


def _pad(node: Node, plan: ChannelPlan) -> Made:
    kept, rank = _data(node, plan), required_rank(node, node.inputs[0])
    pads = _constant(node, 1)
    if pads is None or pads.size != 2 * rank or pads[kept.axis] or pads[rank + kept.axis]:
        raise refuse(node, "it adds channels")
    return [(node.outputs[0], kept)]


def _resize(node: Node, plan: ChannelPlan) -> Made:
    kept = _data(node, plan)
    require_axis(node, kept, 1)
    scales, sizes = _constant(node, 2), _constant(node, 3)
    if scales is not None and scales.size > 1 and scales[1] == 1:
        return [(node.outputs[0], kept)]
    if sizes is None or sizes.size < 2 or int(sizes[1]) != kept.mask.size:
        raise refuse(node, "it does not keep the channels apart")
    plan.set_constant(node, 3, _replaced(sizes, 1, kept.mask), "sizes")
    return [(node.outputs[0], kept)]


def _replaced(sizes: Array, place: int, mask: Array) -> Array:
    changed = np.array(sizes, dtype=np.int64)
    changed[place] = np.count_nonzero(mask)
    return changed


def _flatten(node: Node, plan: ChannelPlan) -> Made:
    kept, rank = _data(node, plan), required_rank(node, node.inputs[0])
    axis = int(attribute(node, "axis", 1)) % (rank + 1)
    if kept.axis < axis:
        raise refuse(node, "it joins them with the axes before")
    return [(node.outputs[0], _joined(node, kept, axis))]


def _joined(node: Node, kept: Kept, first: int) -> Kept:
    """Return what is kept where all axes from ``first`` on become one."""
    sizes = dims(node.inputs[0]) or ()
    numbers = [size for size in sizes[first:] if isinstance(size, int)]
    if len(numbers) != len(sizes) - first:
        raise refuse(node, "the sizes that it joins are not known")
    outer = math.prod(numbers[: kept.axis - first])
    inner = math.prod(numbers[kept.axis - first + 1 :])
    return Kept(first, np.tile(np.repeat(kept.mask, inner), outer))


def _reshape(node: Node, plan: ChannelPlan) -> Made:
    kept = _data(node, plan)
    before, after = dims(node.inputs[0]), dims(node.outputs[0])
    target = _constant(node, 1)
    if before is None or after is None or target is None or attribute(node, "allowzero", 0):
        raise refuse(node, "the shapes before and behind it are not known")
    made = _reshaped(node, kept, before, after)
    if made is None:
        raise refuse(node, f"they cannot be followed from {list(before)} to {list(after)}")
    if int(target[made.axis]) > 0:
        plan.set_constant(node, 1, _replaced(target, made.axis, made.mask), "shape")
    return [(node.outputs[0], made)]


def _reshaped(
    node: Node, kept: Kept, before: tuple[object, ...], after: tuple[object, ...]
) -> Kept | None:
    axis = kept.axis
    if len(after) > axis and before[1 : axis + 1] == after[1 : axis + 1]:
        same_batch = before[0] == after[0] is not None
        return (
            kept if same_batch or _equal_size(before[axis + 1 :], after[axis + 1 :]) else None
        )
    first = len(after) - 1
    if not 1 <= first <= axis or before[1:first] != after[1:first]:
        return None
    joined = _joined(node, kept, first)
    return joined if joined.mask.size == after[first] else None


def _equal_size(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """Return whether known sizes have the same product."""
    numbers = [[size for size in sizes if isinstance(size, int)] for sizes in (one, other)]
    known = len(numbers[0]) == len(one) and len(numbers[1]) == len(other)
    return known and math.prod(numbers[0]) == math.prod(numbers[1])


def _transpose(node: Node, plan: ChannelPlan) -> Made:
    kept, rank = _data(node, plan), required_rank(node, node.inputs[0])
    perm = list(attribute(node, "perm", range(rank - 1, -1, -1)))
    return [(node.outputs[0], Kept(perm.index(kept.axis), kept.mask))]


def _squeeze(node: Node, plan: ChannelPlan) -> Made:
    kept, rank = _data(node, plan), required_rank(node, node.inputs[0])
    axes = _constant(node, 1)
    if axes is None:
        raise refuse(node, "which axes it removes depends on their sizes")
    gone = {int(a) % rank for a in axes.reshape(-1)}
    if kept.axis in gone:
        raise refuse(node, "it removes their axis")
    before = sum(axis < kept.axis for axis in gone)
    return [(node.outputs[0], Kept(kept.axis - before, kept.mask))]


def _unsqueeze(node: Node, plan: ChannelPlan) -> Made:
    kept, rank = _data(node, plan), required_rank(node, node.inputs[0])
    axes = _constant(node, 1)
    if axes is None:
        raise refuse(node, "the axes that it adds are not known")
    added = {int(a) % (rank + axes.size) for a in axes.reshape(-1)}
    own = [axis for axis in range(rank + axes.size) if axis not in added]
    return [(node.outputs[0], Kept(own[kept.axis], kept.mask))]


def _concat(node: Node, plan: ChannelPlan) -> Made:
    parts = [plan.of(node, index) for index in range(len(node.inputs))]
    known = [part for part in parts if part is not None]
    axis = int(attribute(node, "axis", 0)) % required_rank(node, node.inputs[0])
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
    kept, rank = _data(node, plan), required_rank(node, node.inputs[0])
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
    plan.set_constant(node, 1, left, "split")
    plan.drop_attribute(node, "num_outputs")
    pairs = zip(node.outputs, masks, strict=True)
    return [(value, Kept(kept.axis, mask)) for value, mask in pairs]


def _slice(node: Node, plan: ChannelPlan) -> Made:
    kept, rank = _data(node, plan), required_rank(node, node.inputs[0])
    starts, axes = _constant(node, 1), _constant(node, 3)
    count = 0 if starts is None else starts.size
    touched = range(count) if axes is None else [int(a) % rank for a in axes.reshape(-1)]
    if kept.axis in touched:
        raise refuse(node, "it chooses among the channels")
    return [(node.outputs[0], kept)]


def _shape(node: Node, plan: ChannelPlan) -> Made:
    return []


RULES: Mapping[str, Callable[[Node, ChannelPlan], Made]] = {
    **dict.fromkeys(
        (
            *("Abs", "Cast", "Ceil", "Celu", "Clip", "Dropout", "Elu", "Erf", "Exp", "Floor"),
            *("Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "Mish"),
            *("Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign"),
            *("Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu"),
        ),
        _unary,
    ),
    **dict.fromkeys(sorted(dialect.QUANTIZERS), _quantizer),
    **dict.fromkeys(
        (
            *("Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less"),
            *("LessOrEqual", "Max", "Mean", "Min", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum"),
            "Where",
        ),
        _elementwise,
    ),
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), _per_channel),
    **dict.fromkeys(
        ("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "MaxPool"), _spatial
    ),
    **dict.fromkeys(("LogSoftmax", "Softmax"), _along_other_axis(-1)),
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"), _reduce),
    "Concat": _concat,
    "Flatten": _flatten,
    "MultiThreshold": _thresholds,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""Operator -> what is left of the channels behind it."""
