"""Windows over channels-last tensors: where they lie, and what they see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qonnx_hub_adapters.tflite.net import SAME
from qonnx_hub_ir.quantizers import Array


def padding(
    kind: int, size: int, window: int, stride: int, dilation: int = 1
) -> tuple[int, int, int]:
    """Return (outputs, padding before, padding after) along one axis.

    Example:
        >>> padding(SAME, 5, 2, 2)
        (3, 0, 1)
    """
    reach = (window - 1) * dilation + 1
    outputs = -(-size // stride) if kind == SAME else (size + stride - reach) // stride
    total = max((outputs - 1) * stride + reach - size, 0)
    return outputs, total // 2, total - total // 2


def windows(
    x: Array,
    size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    kind: int,
    fill: int | float,
) -> Array:
    """Return what every window sees, as [N, rows, columns, height, width, C]; a view.

    Args:
        x: [N, H, W, C].
        size: Height and width of the window.
        stride: Along height and width.
        dilation: Along height and width.
        kind: How the borders are padded.
        fill: What lies outside.
    """
    plans = [padding(kind, x.shape[i + 1], size[i], stride[i], dilation[i]) for i in (0, 1)]
    wide = [(0, 0), *(plan[1:] for plan in plans), (0, 0)]
    padded = np.pad(x, wide, constant_values=fill) if any(map(any, wide)) else x
    reach = [(size[i] - 1) * dilation[i] + 1 for i in (0, 1)]
    seen = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(1, 2))
    seen = seen[:, :: stride[0], :: stride[1], :, :: dilation[0], :: dilation[1]]
    seen = seen[:, : plans[0][0], : plans[1][0]]
    return np.moveaxis(seen, 3, 5)


def scatter(
    x: Array, weights: Array, shape: Sequence[int], stride: Sequence[int], kind: int
) -> Array:
    """Return the sums of a transposed convolution, as float64 or the type of the weights.

    Args:
        x: [N, H, W, I], already without zero point.
        weights: [O, height, width, I], likewise.
        shape: [N, rows, columns, O].
        stride: Along height and width.
        kind: How the borders are padded.
    """
    height, width = weights.shape[1:3]
    before = [padding(kind, shape[i + 1], weights.shape[i + 1], stride[i])[1] for i in (0, 1)]
    rows = max((x.shape[1] - 1) * stride[0] + height, shape[1] + before[0])
    columns = max((x.shape[2] - 1) * stride[1] + width, shape[2] + before[1])
    sums = np.zeros((x.shape[0], rows, columns, weights.shape[0]), dtype=weights.dtype)
    for i in range(height):
        for j in range(width):
            part = x @ weights[:, i, j].T
            below = i + stride[0] * (x.shape[1] - 1) + 1
            right = j + stride[1] * (x.shape[2] - 1) + 1
            sums[:, i : below : stride[0], j : right : stride[1]] += part
    return sums[:, before[0] : before[0] + shape[1], before[1] : before[1] + shape[2]]
