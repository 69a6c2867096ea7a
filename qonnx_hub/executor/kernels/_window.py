"""Where the windows of a convolution or a pooling lie on its input.

All shapes here are spatial: without batch and channels, one entry per spatial axis.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from qonnx_hub.executor.kernels.spec import Array, KernelSpec

Shape = tuple[int, ...]
Slices = tuple[slice, ...]
Index = tuple[Any, ...]

ATTRIBUTES = ("auto_pad", "dilations", "kernel_shape", "pads", "strides")
"""Node attributes that :func:`window_of` gives their ONNX meaning."""


@dataclass(frozen=True)
class Placement:
    """Windows on an input of known size.

    Without slots, because a cached property needs a dictionary.

    Attributes:
        kernel: Taps per axis.
        strides: Input elements from one window to the next.
        dilations: Input elements from one tap to the next.
        size: Input elements.
        begin: Padding in front of the input that the node asks for.
        end: Padding behind the input that the node asks for.
        after: Padding behind the input that the windows really reach; less than ``end`` where
            the last stride leaves a rest, more where ``ceil_mode`` lets a window hang over.
        out: Windows.
    """

    kernel: Shape
    strides: Shape
    dilations: Shape
    size: Shape
    begin: Shape
    end: Shape
    after: Shape
    out: Shape

    @property
    def padded(self) -> bool:
        """Whether any window reaches over a border of the input."""
        return any(self.begin) or any(self.after)

    @property
    def taps(self) -> int:
        """Elements of one window."""
        return math.prod(self.kernel)

    def axis_slice(self, axis: int, tap: int, first: int, last: int) -> slice:
        """Return what ``tap`` reads of the padded input for windows before ``last``."""
        stride = self.strides[axis]
        start = tap * self.dilations[axis] + first * stride
        return slice(start, start + (last - first - 1) * stride + 1, stride)

    @functools.cached_property
    def tap_slices(self) -> list[tuple[Shape, Slices]]:
        """Each tap with what it reads of the padded input for all windows."""
        per_axis = [
            [self.axis_slice(axis, tap, 0, self.out[axis]) for tap in range(taps)]
            for axis, taps in enumerate(self.kernel)
        ]
        taps = itertools.product(*(range(taps) for taps in self.kernel))
        return list(zip(taps, itertools.product(*per_axis), strict=True))


@dataclass(frozen=True, slots=True)
class Window:
    """The attributes that place windows. ``None`` stands for the ONNX default.

    Attributes:
        strides: Input elements from one window to the next.
        dilations: Input elements from one tap to the next.
        pads: All paddings in front, then all paddings behind.
        auto_pad: NOTSET, SAME_UPPER, SAME_LOWER or VALID.
        ceil_mode: Whether a last window may hang over the padded input.
    """

    strides: Shape | None
    dilations: Shape | None
    pads: Shape | None
    auto_pad: str
    ceil_mode: bool

    def over(self, size: Shape, kernel: Shape) -> Placement:
        """Return where windows of ``kernel`` taps lie on an input of ``size``.

        Raises:
            ValueError: The ranks disagree, or no window fits.
        """
        rank = len(size)
        strides = self.strides or (1,) * rank
        dilations = self.dilations or (1,) * rank
        pads = self.pads or (0,) * (2 * rank)
        if not len(kernel) == len(strides) == len(dilations) == len(pads) // 2 == rank:
            raise ValueError(
                f"input of {rank} spatial axes, but kernel {kernel}, strides {strides}, "
                f"dilations {dilations}, pads {pads}"
            )
        axes = [
            self._axis(*numbers)
            for numbers in zip(
                size, kernel, strides, dilations, pads[:rank], pads[rank:], strict=True
            )
        ]
        begin, end, after, out = (tuple(column) for column in zip(*axes, strict=True))
        return Placement(kernel, strides, dilations, size, begin, end, after, out)

    def _axis(
        self, size: int, taps: int, stride: int, dilation: int, begin: int, end: int
    ) -> Shape:
        """Return (begin, end, after, out) of one axis."""
        reach = (taps - 1) * dilation + 1
        if self.auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            out = -(-size // stride)
            total = max((out - 1) * stride + reach - size, 0)
            begin = total // 2 if self.auto_pad == "SAME_UPPER" else total - total // 2
            return begin, total - begin, total - begin, out
        if self.auto_pad == "VALID":
            begin = end = 0
        room = size + begin + end - reach
        if room < 0 or taps < 1:
            raise ValueError(
                f"a window of {reach} elements does not fit into {size} elements padded with "
                f"{begin} and {end}"
            )
        out = room // stride + 1
        # A window that starts in the padding behind the input would see nothing of it.
        if self.ceil_mode and self.auto_pad == "NOTSET" and out * stride < size + begin:
            out += room % stride != 0
        return begin, end, max((out - 1) * stride + reach - begin - size, 0), out


def window_of(spec: KernelSpec, weight: int | None = None) -> Window:
    """Return the window attributes of a node.

    Args:
        spec: The node.
        weight: Position of a convolution's weight among its inputs.

    Raises:
        Unserved: ``auto_pad`` is unknown, a number is out of range, or ``kernel_shape``
            contradicts the weight.
    """
    known = None if weight is None else spec.constant(weight)
    if known is not None and spec.attr("kernel_shape", known.shape[2:]) != known.shape[2:]:
        kernel = spec.attr("kernel_shape")
        raise spec.unserved(f"has kernel_shape {kernel} and a weight of {known.shape}")
    auto_pad = spec.choice(
        "auto_pad", "NOTSET", ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
    )
    window = Window(
        strides=attribute_numbers(spec, "strides", 1),
        dilations=attribute_numbers(spec, "dilations", 1),
        pads=attribute_numbers(spec, "pads", 0),
        auto_pad=auto_pad,
        ceil_mode=bool(spec.attr("ceil_mode", 0)),
    )
    # Pads beside auto_pad are a contradiction unless they are all zero.
    if auto_pad != "NOTSET" and any(window.pads or ()):
        raise spec.unserved("has both auto_pad and pads")
    # The operator document drops the overhanging window here, ONNX shape inference keeps it.
    if auto_pad == "VALID" and window.ceil_mode and any(n > 1 for n in window.strides or ()):
        raise spec.unserved("has both auto_pad VALID and ceil_mode")
    return window


def attribute_numbers(spec: KernelSpec, name: str, least: int) -> Shape | None:
    """Return an attribute with a number per axis; ``None`` where it is absent.

    Raises:
        Unserved: A number is less than ``least``.
    """
    values = spec.attr(name)
    if values is None:
        return None
    if any(value < least for value in values):
        raise spec.unserved(f"has {name} {tuple(values)}")
    return tuple(values)


def spatial(slices: Index) -> Index:
    """Return an index that takes everything of the axes in front of the spatial ones."""
    return (..., *slices)


def padded(x: Array, place: Placement, value: float) -> Array:
    """Return ``x`` with the padding that the windows of ``place`` reach.

    Args:
        x: (..., *size).
        place: Windows on ``x``.
        value: What the padding is filled with.

    Returns:
        (..., *padded size); ``x`` itself where nothing needs padding.
    """
    if not place.padded:
        return x
    lead = x.ndim - len(place.size)
    sizes = [sum(axis) for axis in zip(place.begin, place.size, place.after, strict=True)]
    y = np.empty((*x.shape[:lead], *sizes), dtype=x.dtype)
    # Only the borders are filled: the inside is written once.
    inner: list[slice] = []
    for axis, (begin, size) in enumerate(zip(place.begin, place.size, strict=True)):
        rest = (slice(None),) * (len(place.size) - axis - 1)
        y[spatial((*inner, slice(0, begin), *rest))] = value
        y[spatial((*inner, slice(begin + size, None), *rest))] = value
        inner.append(slice(begin, begin + size))
    y[spatial(tuple(inner))] = x
    return y
