"""Values that tell quantizers apart: ties, limits, and the floats beside them."""

from __future__ import annotations

from typing import Any

import numpy as np

from qonnx_hub_ir.quantizers import Array, BipolarQuant, IntQuant, integer_bounds, single_value

_MOST_CODES = 1 << 9


def probe_values(
    quant: IntQuant | BipolarQuant, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array | None:
    """Return values of a shape on and beside the ties and limits of a quantizer.

    Args:
        quant: The quantizer; its parameters broadcast to the shape.
        shape: The shape.
        dtype: The float type.

    Returns:
        The values, or ``None`` for a quantizer whose width varies.
    """
    count = int(np.prod(shape, dtype=np.int64))
    if isinstance(quant, BipolarQuant):
        tiny = np.finfo(dtype).smallest_subnormal
        points = np.array([0.0, -0.0, tiny, -tiny, 1e-3, -1e-3, 1, -1], dtype=dtype)
        return np.resize(points, count).reshape(shape)
    bits = single_value(quant.bits)
    if bits is None or quant.scale is None or quant.zero_point is None:
        return None
    low, high = integer_bounds(bits, signed=quant.signed, narrow=quant.narrow)
    middle = (low + high) // 2
    start, stop = max(low, middle - _MOST_CODES // 2), min(high, middle + _MOST_CODES // 2)
    codes = np.arange(start - 2, stop + 3, dtype=np.float64)
    limits = [low - 1, low, high, high + 1, 4 * high + 3, 4 * low - 3]
    t = np.concatenate([codes + 0.5, codes + 0.25, codes, np.array(limits, dtype=np.float64)])
    # One place in the tensor sees one value; neighbours see it and the floats beside it.
    rng = np.random.default_rng(0)
    spread = rng.permutation(np.resize(np.repeat(t, 3), max(count, 3 * t.size)))[:count]
    exact = (spread.reshape(shape) - quant.zero_point) * quant.scale.astype(np.float64)
    values = exact.astype(dtype)
    side = rng.integers(0, 3, size=shape)
    up = np.nextafter(values, dtype.type(np.inf))
    down = np.nextafter(values, dtype.type(-np.inf))
    return np.asarray(np.choose(side, [values, up, down]), dtype=dtype)
