"""What QKeras' quantizers make of weights, in numpy, bit for bit.

Scales that depend on the data are sums in the order in which TensorFlow adds: columns in whole
packets of eight take four accumulators, the others one row after the other.

Source: the ``__call__`` of each class in ``qkeras.quantizers``, 0.9.0 and qkeras-v3 1.2.1.
"""

from __future__ import annotations

import numpy as np

from qonnx_hub_adapters.qkeras import quantizers as qk
from qonnx_hub_ir.quantizers import Array

_EPSILON = np.float32(1e-7)
_LN2 = np.float32(0.6931472)
_ROUNDS = 5


def quantized_weight(
    description: qk.Description, x: Array, generation: int
) -> tuple[Array, Array | None]:
    """Return the values of a quantized weight, and the scale where the data decide it.

    Args:
        description: The quantizer.
        x: The weight as the file has it, float32.
        generation: Of Keras: 2 has qkeras 0.9.0, 3 has qkeras-v3.

    Raises:
        UnreadableQuantizerError: It has no fixed function of a weight.
    """
    with np.errstate(all="ignore"):
        match description:
            case qk.FixedPoint():
                return _fixed_point(description, x, generation)
            case qk.LinearQuantizer():
                return _linear(description, x)
            case qk.Binary():
                return _binary(description, x)
            case qk.Ternary():
                return _ternary(description, x)
            case qk.PowerOfTwo():
                return _po2(description, x), None
            case qk.Relu():
                return _relu(description, x), None
            case qk.Tanh() | qk.Sigmoid():
                return _curved(description, x), None
            case qk.BinarySigmoid(two_sided=two_sided):
                bits = np.rint(np.clip(x * np.float32(0.5) + np.float32(0.5), 0, 1))
                return (bits * 2 - 1 if two_sided else bits).astype(np.float32), None
    raise qk.UnreadableQuantizerError("its quantizer is none that weights have")


def _through(x: Array, y: Array, noise: float = 1.0) -> Array:
    """Return ``x + (y - x)``, whose rounding is part of what QKeras stores."""
    difference = (y - x).astype(np.float32)
    if noise != 1.0:
        difference = (np.float32(noise) * difference).astype(np.float32)
    return np.asarray(x + difference, dtype=np.float32)


def _power_of_two(scale: Array) -> Array:
    """Return the power of two next to a scale, by its logarithm."""
    log = np.log((scale + _EPSILON).astype(np.float64)).astype(np.float32)
    return np.asarray(np.exp2(np.rint(log / _LN2)), dtype=np.float32)


def _axes(x: Array) -> tuple[int, ...]:
    """Return the axes that share a scale: all but the last."""
    return tuple(range(x.ndim - 1))


def _mean(values: Array) -> Array:
    """Return the mean over all axes but the last, in TensorFlow's order of sums."""
    if values.ndim == 1:
        return values
    rows = values.reshape(-1, values.shape[-1]).astype(np.float32)
    total = _sequential(rows)
    count, width = rows.shape
    packed = 8 * (width // 8)
    if packed and count >= 16:
        whole = 4 * (count // 4)
        parts = [_sequential(rows[start:whole:4, :packed]) for start in range(4)]
        four = ((parts[0] + parts[1]) + parts[2]) + parts[3]
        rest = np.concatenate([four[None], rows[whole:, :packed]])
        total[:packed] = _sequential(rest)
    mean = (total / np.float32(count)).astype(np.float32)
    return np.asarray(mean.reshape((1,) * (values.ndim - 1) + (width,)))


def _sequential(rows: Array) -> Array:
    # cumsum adds one row after the other; sum would add in pairs where there is one column.
    return np.array(np.cumsum(rows, axis=0, dtype=np.float32)[-1])


def _least_squares(x: Array, q: Array, alpha: str) -> Array:
    scale = _mean(x * q) / (_mean(q * q) + _EPSILON)
    return _power_of_two(scale) if alpha == "auto_po2" else np.asarray(scale, np.float32)


def _fixed_point(q: qk.FixedPoint, x: Array, generation: int) -> tuple[Array, Array | None]:
    if isinstance(q.alpha, str):
        return _scaled_by_data(q, x, q.alpha, generation)
    alpha = np.asarray(q.alpha, dtype=np.float32)
    unsigned = q.bits - int(q.keep_negative)
    if unsigned == 0:
        return _through(x, alpha * np.where(x >= 0, 1, -1).astype(np.float32), q.noise), None
    step = np.exp2(q.integer - np.float32(unsigned)).astype(np.float32)
    highest = 2.0**unsigned - 1
    lowest = -(2.0**unsigned) + q.symmetric if q.keep_negative else 0.0
    codes = np.clip(np.rint(x / step), lowest, highest)
    return _through(x, (alpha * (codes * step)).astype(np.float32), q.noise), None


def _scaled_by_data(
    q: qk.FixedPoint, x: Array, alpha: str, generation: int
) -> tuple[Array, Array]:
    whole = np.exp2(np.asarray(q.integer, dtype=np.float32))
    unit = np.float32(2.0 ** (q.bits - int(q.keep_negative)))
    most = np.float32(2.0 ** (q.bits - 1) - 1)
    xs = (x / whole).astype(np.float32)
    axes = _axes(x) if x.ndim > 1 else ((0,) if alpha == "auto" else ())
    largest = np.max(np.abs(xs), axis=axes, keepdims=True) if axes else np.abs(xs)
    scale = ((largest * np.float32(2)) / np.float32(2 * most)).astype(np.float32)

    def codes(step: Array) -> Array:
        v = np.floor(np.abs(xs) / step + np.float32(0.5))
        return np.asarray(np.sign(xs) * np.where(v < most, v, most), dtype=np.float32)

    z = codes(scale)
    if alpha == "auto_po2":
        scale = _power_of_two(scale)
        for _ in range(_ROUNDS):
            z = codes(scale)
            scale = _least_squares(xs, z, alpha)
        if generation == 3:
            z = codes(scale)
    exposed = (scale * unit).astype(np.float32)
    y = exposed * (whole * z / unit)
    return _through(x, y.astype(np.float32), q.noise), exposed


def _linear(q: qk.LinearQuantizer, x: Array) -> tuple[Array, Array | None]:
    if q.bits == 1 and q.keep_negative:
        low, high, shift = np.float32(-0.5), np.float32(0.5), np.float32(0.5)
    else:
        high = np.float32(2.0 ** (q.bits - q.keep_negative) - 1)
        low = np.float32(-high - 1 + q.symmetric if q.keep_negative else 0)
        shift = np.float32(0)

    def codes(step: Array) -> Array:
        inside = np.clip(x / step, low, high)
        return np.asarray(np.rint(inside - shift) + shift, dtype=np.float32)

    if not q.auto:
        return _through(x, (q.step * codes(q.step)).astype(np.float32), q.noise), None
    axes = _axes(x)
    size = np.abs(x) if q.keep_negative else x
    largest = np.max(size, axis=axes, keepdims=True) if axes else size
    spread = np.float32(high - low)
    step = (largest * np.float32(2) if q.keep_negative else largest) / spread
    step = np.maximum(step.astype(np.float32), _EPSILON)
    if q.to_power:
        step = _power_of_two(step)
        for _ in range(_ROUNDS):
            fresh = _least_squares(x, codes(step), "auto_po2")
            if np.array_equal(fresh, step):
                break
            step = fresh
    return _through(x, (step * codes(step)).astype(np.float32), q.noise), step


def _binary(q: qk.Binary, x: Array) -> tuple[Array, Array | None]:
    k = np.where(x >= 0, 1, -1).astype(np.float32)
    if q.use_01:
        k = (k + 1) / np.float32(2)
    if not isinstance(q.alpha, str):
        return _through(x, (np.asarray(q.alpha, np.float32) * k).astype(np.float32)), None
    scale = _least_squares(x, k, q.alpha)
    return _through(x, (scale * k).astype(np.float32)), scale


def _ternary(q: qk.Ternary, x: Array) -> tuple[Array, Array | None]:
    if not isinstance(q.alpha, str):
        k = np.sign(x) * (np.abs(x) >= np.float32(q.threshold))
        return _through(x, (np.asarray(q.alpha, np.float32) * k).astype(np.float32)), None
    axes = _axes(x)
    largest = np.max(np.abs(x), axis=axes, keepdims=True) if axes else np.abs(x)
    scale = ((np.float32(2) * largest) / np.float32(3)).astype(np.float32)
    if q.alpha == "auto_po2":
        scale = _power_of_two(scale)
    k = np.zeros_like(x)
    for _ in range(_ROUNDS):
        limit = scale / np.float32(2)
        k = (np.abs(scale * np.rint(x / scale)) >= limit) * np.sign(x)
        k = k.astype(np.float32)
        scale = _least_squares(x, k, q.alpha)
    return _through(x, (scale * k).astype(np.float32)), scale


def _po2(q: qk.PowerOfTwo, x: Array) -> Array:
    def power(magnitude: Array) -> Array:
        filtered = np.maximum(magnitude, _EPSILON)
        if q.max_value is not None:
            filtered = np.minimum(filtered, np.float32(q.max_value))
        if q.quadratic:
            filtered = np.sqrt(filtered)
        log = np.log(filtered.astype(np.float64)).astype(np.float32)
        log2 = (log / _LN2).astype(np.float32)
        exponent = np.clip(np.floor(log2) if q.floor else np.rint(log2), q.lowest, q.highest)
        if q.quadratic:
            exponent = exponent * 2
        return np.asarray(
            np.exp2(np.where(magnitude < _EPSILON, q.lowest, exponent)), dtype=np.float32
        )

    if not q.relu:
        y = np.where(x < 0, -1, 1).astype(np.float32) * power(np.abs(x))
    elif q.slope == 0:
        y = power(np.maximum(x, 0))
    else:
        below = -power(np.maximum(-x, 0) * np.float32(q.slope))
        y = np.where(x >= 0, power(np.maximum(x, 0)), below)
    return _through(x, y.astype(np.float32), q.noise)


def _relu(q: qk.Relu, x: Array) -> Array:
    if q.curve is not None or q.slope:
        raise qk.UnreadableQuantizerError("a quantized_relu with a slope on a weight")
    step = np.exp2(q.integer - np.float32(q.bits)).astype(np.float32)
    y = np.clip(np.rint(x / step), 0, 2.0**q.bits - 1).astype(np.float32) * step
    return np.asarray(y if q.upper is None else np.minimum(y, np.float32(q.upper)))


def _curved(q: qk.Tanh | qk.Sigmoid, x: Array) -> Array:
    if q.curve != "hard":
        raise qk.UnreadableQuantizerError("a curved quantizer on a weight")
    p = np.clip(np.float32(0.5) * x + np.float32(0.5), 0, 1).astype(np.float32)
    if isinstance(q, qk.Tanh):
        m = np.float32(2.0 ** (q.bits - 1))
        t = np.rint((2 * p - 1) * m) / m
        return np.asarray(np.clip(t, -1 + q.symmetric / m, 1 - 1 / m), dtype=np.float32)
    m = np.float32(2.0**q.bits)
    return np.asarray(
        np.clip(np.rint(p * m) / m, q.symmetric / m, 1 - 1 / m), dtype=np.float32
    )
