"""Quantizers as thresholds: what MultiThreshold computes, and where each level begins.

MultiThreshold counts, per channel, the thresholds that a value reaches: ``y = out_scale *
count(x >= t) + out_bias``, in the type of ``x``. A NaN reaches none. A quantizer that keeps
order is such a count: the threshold of a level is the smallest float that reaches it.

Source: the operator MultiThreshold of ``qonnx.custom_op.general``, and its implementation in
the qonnx package, of which the guessed layouts are (a third axis is taken for the channels).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qonnx_hub_ir.quantizers import Array, BipolarQuant, IntQuant, is_bipolar
from qonnx_hub_ir.semantics import quantize_to_integers

_GUESSED_LAYOUTS = {2: "NC", 3: "NWC", 4: "NCHW"}


def channel_axis(layout: str, rank: int) -> int:
    """Return the axis along which thresholds differ.

    Args:
        layout: Attribute ``data_layout``; empty where it is not given.
        rank: Rank of the input.

    Raises:
        ValueError: There is no such axis.
    """
    layout = layout or _GUESSED_LAYOUTS.get(rank, "")
    axis = layout.index("C") if "C" in layout else 1
    if axis >= rank:
        raise ValueError(f"layout '{layout}' has no channels in an input of rank {rank}")
    return axis


def apply(x: Array, thresholds: Array, axis: int, scale: float, bias: float) -> Array:
    """Return what MultiThreshold makes of ``x``.

    Args:
        x: Floats of any shape.
        thresholds: Shape (channels, steps), in any order; one channel stands for all.
        axis: The axis of the channels.
        scale: Attribute ``out_scale``.
        bias: Attribute ``out_bias``.

    Raises:
        ValueError: The thresholds are those of another number of channels.
    """
    if thresholds.shape[0] not in (1, x.shape[axis]):
        raise ValueError(
            f"{thresholds.shape[0]} channels of thresholds, {x.shape[axis]} in the input"
        )
    ordered = np.sort(thresholds, axis=1)
    if len(ordered) == 1:
        counts = np.searchsorted(ordered[0], x, side="right")
    else:
        counts = np.empty(x.shape, dtype=np.int64)
        moved, made = np.moveaxis(x, axis, 0), np.moveaxis(counts, axis, 0)
        for channel, steps in enumerate(ordered):
            made[channel] = np.searchsorted(steps, moved[channel], side="right")
    counts = np.where(np.isnan(x), 0, counts).astype(x.dtype)
    return np.asarray(x.dtype.type(scale) * counts + x.dtype.type(bias), dtype=x.dtype)


def find_thresholds(
    quant: IntQuant | BipolarQuant, low: int, steps: int, dtype: Any = np.float32
) -> Array:
    """Return the smallest floats that reach each level, by bisection over all floats.

    The quantizer divides, adds, clamps and rounds: each keeps order, so that bisection finds
    the one place where a level begins.

    Args:
        quant: The quantizer; scale and zero point have shape (channels, 1) or ().
        low: Its lowest code.
        steps: How many codes lie above.
        dtype: float16, float32 or float64: type of its input.

    Returns:
        Shape (channels, steps) of ``dtype``. Infinity stands where only that reaches a level.
    """
    parameters = (quant.scale, *((quant.zero_point,) if isinstance(quant, IntQuant) else ()))
    channels = math.prod(np.broadcast_shapes(*(np.asarray(p).shape for p in parameters)))
    lowest, highest = key_range(dtype)
    wanted = np.broadcast_to(np.arange(1, steps + 1, dtype=np.int64), (channels, steps))
    left = np.full(wanted.shape, lowest, dtype=np.int64)
    right = np.full(wanted.shape, highest, dtype=np.int64)
    width = 2 if is_bipolar(quant) else 1
    while np.any(left < right):
        middle = left + ((right - left) >> 1)
        codes = quantize_to_integers(values_of(middle, dtype), quant)
        reached = (codes - low) >= width * wanted
        right = np.where(reached, middle, right)
        left = np.where(reached, left, middle + 1)
    return values_of(left, dtype)


def keys_of(values: Array) -> Array:
    """Return the rank of float values in the order of their type, as int64.

    -0.0 comes right before 0.0 (keys -1 and 0); NaN lies outside of the infinities.

    Args:
        values: float16, float32 or float64 of any shape.
    """
    width = values.dtype.itemsize
    bits = values.view(np.dtype(f"i{width}")).astype(np.int64)
    magnitude = np.int64((1 << (8 * width - 1)) - 1)
    return np.asarray(np.where(bits < 0, ~(bits & magnitude), bits), dtype=np.int64)


def values_of(keys: Array, dtype: Any = np.float32) -> Array:
    """Return the float values that have these keys: the inverse of :func:`keys_of`."""
    width = np.dtype(dtype).itemsize
    top = np.int64(-(1 << (8 * width - 1)))
    bits = np.where(keys < 0, top | ~keys, keys)
    return np.ascontiguousarray(bits.astype(np.dtype(f"i{width}"))).view(dtype)


def key_range(dtype: Any = np.float32) -> tuple[int, int]:
    """Return the keys of minus and plus infinity."""
    ends = keys_of(np.array([-np.inf, np.inf], dtype=dtype))
    return int(ends[0]), int(ends[1])
