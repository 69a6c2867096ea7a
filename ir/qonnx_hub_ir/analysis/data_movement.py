"""What operators that move, join, cut or repeat elements make of ranges and grids."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from qonnx_hub_ir.analysis.grids import Grid
from qonnx_hub_ir.analysis.pointwise import union
from qonnx_hub_ir.analysis.rule_context import NodeInfo, RuleTable, widened
from qonnx_hub_ir.analysis.value_info import (
    Constant,
    Shape,
    ValueInfo,
    axis_shape,
    between,
    collapsed,
    of_constant,
)
from qonnx_hub_ir.graph.queries import element_count
from qonnx_hub_ir.graph.rearrange import taking
from qonnx_hub_ir.quantizers import Array


def _keep(site: NodeInfo) -> ValueInfo | None:
    return replace(site.info(0), constant=None)


def _forget_channels(site: NodeInfo) -> ValueInfo | None:
    return collapsed(site.info(0))


def _reshape(site: NodeInfo) -> ValueInfo | None:
    x, shape = site.info(0), site.shape
    if x.constant is not None and shape is not None and None not in shape:
        return of_constant(x.constant.mapped(lambda a: a.reshape([d or 0 for d in shape])))
    axis, before = x.channel_axis, site.shapes[0]
    if axis is None:
        return replace(x, constant=None)
    places = _places_after(before, axis, shape)
    if places is None or shape is None:
        return collapsed(x)
    where, index = places
    spread = axis_shape(where, len(shape))
    return x.mapped(lambda a: a.reshape(-1)[index].reshape(spread))


def _places_after(before: Shape, axis: int, after: Shape) -> tuple[int, Array] | None:
    """Return the axis on which channels lie after a reshape, and the channel at each place.

    Elements keep their order: the channel of element ``k`` is ``k // inner % channels``, with
    ``inner`` elements per channel in a row.
    """
    if before is None or after is None or before[axis] is None:
        return None
    channels, inner = before[axis], element_count(before[axis + 1 :])
    if inner is None or channels is None:
        return None
    for place in range(len(after) - 1, -1, -1):
        size, step = after[place], element_count(after[place + 1 :])
        if size is None or step is None:
            return None
        if inner % step == 0 and (size * step) % (inner * channels) == 0:
            index = np.arange(size, dtype=np.int64) * step // inner % channels
            return place, index
    return None


def _transpose(site: NodeInfo) -> ValueInfo | None:
    x, before = site.info(0), site.shapes[0]
    perm = site.attr("perm")
    if x.constant is not None:
        return of_constant(x.constant.mapped(lambda a: a.transpose(perm)))
    if x.channel_axis is None:
        return x
    if before is None:
        return collapsed(x)
    order = list(perm) if perm is not None else list(range(len(before)))[::-1]
    return x.mapped(lambda a: a.transpose(order))


def _axis(site: NodeInfo, default: int) -> int | None:
    """Return the node's axis, counted from the front."""
    rank = None if site.shapes[0] is None else len(site.shapes[0])
    axis = int(site.attr("axis", default))
    if axis >= 0:
        return axis
    return None if rank is None else axis + rank


def _concat(site: NodeInfo) -> ValueInfo | None:
    infos = [x for x in site.inputs if x is not None]
    axis = _axis(site, 0)
    sizes = [
        s[axis] if s is not None and axis is not None and axis < len(s) else None
        for s in site.shapes
    ]
    known = [size for size in sizes if size is not None]
    if (
        len(known) == len(infos)
        and axis is not None
        and site.shape is not None
        and sum(known) <= 1 << 16
        and all(x.channel_axis in (None, axis) for x in infos)
    ):
        return _joined(infos, known, axis, len(site.shape))
    flat = [collapsed(x) if x.channel_axis == axis else x for x in infos]
    return functools.reduce(union, [replace(x, constant=None) for x in flat])


def _joined(infos: list[ValueInfo], sizes: list[int], axis: int, rank: int) -> ValueInfo:
    """Return the channels of all inputs, one after the other."""

    def spread(arrays: Sequence[Array]) -> Array:
        parts = [
            np.broadcast_to(array, axis_shape(axis, rank, size))
            for array, size in zip(arrays, sizes, strict=True)
        ]
        return np.concatenate(parts, axis=axis)

    low, high = spread([x.low for x in infos]), spread([x.high for x in infos])
    grids = [x.grid for x in infos if x.grid is not None]
    if len(grids) != len(infos):
        return between(low, high)
    columns = zip(*((g.scale, g.offset, g.low, g.high) for g in grids), strict=True)
    scale, offset, lows, highs = (spread(column) for column in columns)
    types = {g.declared for g in grids}
    declared = types.pop() if len(types) == 1 else None
    exact = all(g.exact for g in grids)
    return between(low, high, Grid(scale, offset, lows, highs, exact, declared))


def _split(site: NodeInfo) -> Sequence[ValueInfo] | None:
    x, shape, count = site.info(0), site.shapes[0], len(site.node.outputs)
    axis = x.channel_axis
    if axis is None or axis != _axis(site, 0):
        return [replace(x, constant=None)] * count
    size = None if shape is None else shape[axis]
    sizes = site.array(1)
    if sizes is None and size is not None and not site.has(1):
        # The last part is smaller where the size cannot be divided.
        part = -(-size // count)
        sizes = np.array([min(part, size - k * part) for k in range(count)], dtype=np.int64)
    if sizes is None:
        return [collapsed(x)] * count
    channels = np.arange(sizes.sum(), dtype=np.int64)
    parts = np.split(channels, np.cumsum(sizes)[:-1])
    return [x.mapped(taking(part, axis)) for part in parts]


def _slice(site: NodeInfo) -> ValueInfo | None:
    x, shape = replace(site.info(0), constant=None), site.shapes[0]
    axis = x.channel_axis
    if axis is None:
        return x
    starts, ends, axes, steps = (site.array(k) for k in range(1, 5))
    size = None if shape is None else shape[axis]
    is_open = any(site.has(k) and site.array(k) is None for k in (3, 4))
    if shape is None or size is None or starts is None or ends is None or is_open:
        return collapsed(x)
    axes = np.arange(starts.size) if axes is None else axes
    steps = np.ones_like(starts) if steps is None else steps
    columns = (array.reshape(-1).tolist() for array in (starts, ends, axes, steps))
    for first, last, place, step in zip(*columns, strict=True):
        if place % len(shape) == axis:
            # Beyond the front is the only way in which ONNX can say "down to the first".
            stop = None if step < 0 and last < -size else last
            index = np.arange(size, dtype=np.int64)[first:stop:step]
            return x.mapped(taking(index, axis)) if index.size else collapsed(x)
    return x


def _gather(site: NodeInfo) -> ValueInfo | None:
    x, axis, index = site.info(0), _axis(site, 0), site.array(1)
    if x.channel_axis is None:
        return replace(x, constant=None)
    if x.channel_axis == axis and index is not None and index.ndim == 1:
        return x.mapped(taking(index, x.channel_axis))
    return collapsed(x)


def _pad(site: NodeInfo) -> ValueInfo | None:
    x = site.info(0)
    if site.attr("mode", "constant") != "constant":
        return collapsed(x)
    amounts, axis = site.array(1), x.channel_axis
    if axis is not None:
        ends = None if amounts is None or site.has(3) else amounts.reshape(2, -1)[:, axis]
        if ends is None or np.any(ends != 0):
            x = collapsed(x)
    if amounts is not None and not np.any(amounts > 0):
        return replace(x, constant=None)
    value = site.array(2) if site.has(2) else np.zeros((), dtype=np.float32)
    if value is None or value.size != 1:
        return None
    return union(x, of_constant(Constant(value.reshape(()))))


def _resize(site: NodeInfo) -> ValueInfo | None:
    x, mode = replace(site.info(0), constant=None), site.attr("mode", "nearest")
    if x.channel_axis is not None and not _stays(site, x.channel_axis):
        x = collapsed(x)
    if site.attr("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        # Beyond the crop stands another value.
        return None
    if mode == "nearest":
        return x
    if mode != "linear" or not site.is_float or site.attr("exclude_outside", 0):
        return None
    return widened(x.low, x.high, 64 * site.rounding_unit * np.nan_to_num(x.magnitude))


def _stays(site: NodeInfo, axis: int) -> bool:
    """Return whether a resize leaves an axis alone."""
    scales = site.array(2 if site.node.op_type == "Resize" else 1)
    if scales is not None and scales.size and scales.dtype.kind == "f":
        named = site.attr("axes")
        places = [int(k) for k in named] if named else list(range(scales.size))
        return axis not in places or float(scales.reshape(-1)[places.index(axis)]) == 1.0
    before, after = site.shapes[0], site.shape
    if before is None or after is None or before[axis] is None:
        return False
    return before[axis] == after[axis]


RULES: RuleTable = {
    "Concat": _concat,
    "DepthToSpace": _forget_channels,
    "Dropout": _keep,
    "Expand": _keep,
    "Flatten": _reshape,
    "Gather": _gather,
    "Identity": lambda site: site.info(0),
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "SpaceToDepth": _forget_channels,
    "Split": _split,
    "Squeeze": _reshape,
    "Tile": _forget_channels,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
    "Upsample": _resize,
}
