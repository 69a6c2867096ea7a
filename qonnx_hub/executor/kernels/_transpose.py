"""The transposed convolution: what a convolution's input gradient computes."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from qonnx_hub.executor.kernels._numbers import per_channel, widened
from qonnx_hub.executor.kernels._window import (
    Index,
    Placement,
    Shape,
    Slices,
    Window,
    attribute_numbers,
    spatial,
    window_of,
)
from qonnx_hub.executor.kernels.spec import Array, Kernel, KernelSpec


@dataclass(frozen=True, slots=True)
class _Extent:
    """The attributes that decide the size of the output.

    Attributes:
        window: Strides, dilations, pads.
        output_padding: Elements added behind; ``None`` for none.
        output_shape: Size asked for, from which the pads follow; ``None`` to use the pads.
    """

    window: Window
    output_padding: Shape | None
    output_shape: Shape | None

    def over(self, size: Shape, kernel: Shape) -> tuple[Placement, Slices]:
        """Return where a kernel writes for an input of ``size``, and what of it remains.

        A tap adds the input to where the tap of a convolution would read it: the placement is
        that of a convolution over everything that is written.

        Raises:
            ValueError: The ranks disagree, nothing would remain, or auto_pad asks for more
                than is written.
        """
        rank = len(size)
        strides = self.window.strides or (1,) * rank
        dilations = self.window.dilations or (1,) * rank
        extra = self.output_padding or (0,) * rank
        if not len(kernel) == len(strides) == len(dilations) == len(extra) == rank:
            raise ValueError(
                f"input of {rank} spatial axes, but kernel {kernel}, strides {strides}, "
                f"dilations {dilations}, output_padding {extra}"
            )
        full, crop = [], []
        for axis in range(rank):
            reach = (kernel[axis] - 1) * dilations[axis] + 1
            written = (size[axis] - 1) * strides[axis] + reach
            same = size[axis] * strides[axis]
            begin, out = self._axis(axis, rank, same, written + extra[axis])
            if out < 1:
                raise ValueError(f"an output of {out} elements along spatial axis {axis}")
            full.append(max(written, begin + out))
            crop.append(slice(begin, begin + out))
        none = (0,) * rank
        reads = Placement(kernel, strides, dilations, tuple(full), none, none, none, size)
        return reads, tuple(crop)

    def _axis(self, axis: int, rank: int, same: int, written: int) -> tuple[int, int]:
        """Return how much is cut off in front of one axis, and how much remains.

        Source: the ONNX operator document of ConvTranspose. Everything but SAME_UPPER puts the
        odd element of padding in front. Where output_shape asks for more than is written,
        zeros follow, as in the test data that ONNX brings for the operator.
        """
        automatic = self.window.auto_pad in ("SAME_UPPER", "SAME_LOWER")
        if self.output_shape is None and not automatic:
            pads = self.window.pads or (0,) * (2 * rank)
            return pads[axis], written - pads[axis] - pads[axis + rank]
        out = same if self.output_shape is None else self.output_shape[axis - rank]
        total = written - out
        if total < 0 and automatic:
            raise ValueError(
                f"{self.window.auto_pad} asks for {out} elements along spatial axis {axis}, "
                f"where only {written} are written; ONNX does not say what the others are"
            )
        total = max(total, 0)
        begin = total // 2 if self.window.auto_pad == "SAME_UPPER" else total - total // 2
        return begin, out


def conv_transpose(spec: KernelSpec) -> Kernel:
    """Return the kernel of a ConvTranspose node.

    Raises:
        Unserved: An attribute is out of range.
    """
    group, constant = spec.whole("group", 1), spec.constant(1)
    extra = attribute_numbers(spec, "output_padding", 0)
    extent = _Extent(window_of(spec, 1), extra, spec.attr("output_shape"))
    writes_of = functools.lru_cache(maxsize=16)(extent.over)
    known = None if constant is None else _rows(constant, group)

    def kernel(x: Array, w: Array, b: Array | None = None) -> Array:
        channels, each, *taps = w.shape if constant is None else constant.shape
        if x.shape[1] != channels or channels % group:
            raise ValueError(
                f"{x.shape[1]} channels in {group} groups do not fit a weight of {w.shape}"
            )
        writes, crop = writes_of(x.shape[2:], tuple(taps))
        rows = _rows(w, group) if known is None else known
        y = _scatter(widened(x), rows, group * each, writes, crop)
        if b is not None:
            y += per_channel(widened(b), y.ndim)
        return y.astype(x.dtype, copy=False)

    return kernel


def _rows(weight: Array, group: int) -> Array:
    """Return (group, M / group * taps, C / group) of a weight (C, M / group, *kernel)."""
    w = widened(weight).reshape(group, len(weight) // group, weight[0].size)
    return np.ascontiguousarray(w.swapaxes(1, 2))


def _scatter(x: Array, rows: Array, outputs: int, writes: Placement, crop: Slices) -> Array:
    """Return every input element times every tap, added where it belongs.

    Args:
        x: (N, C, *size).
        rows: Weight as :func:`_rows` arranges it.
        outputs: M.
        writes: Where each tap writes.
        crop: What remains.
    """
    size = x.shape[2:]
    group, _, depth = rows.shape
    y = np.empty((len(x), outputs, *(part.stop - part.start for part in crop)), dtype=x.dtype)
    for sample in range(len(x)):
        columns = x[sample].reshape(group, depth, math.prod(size))
        parts = np.matmul(rows, columns).reshape(outputs, *writes.kernel, *size)
        total = np.zeros((outputs, *writes.size), dtype=x.dtype)
        for tap, slices in writes.tap_slices:
            part: Index = (slice(None), *tap)
            total[spatial(slices)] += parts[part]
        y[sample] = total[spatial(crop)]
    return y
