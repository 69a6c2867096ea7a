"""Numpy kernel of Resize, one axis after the other.

Coordinates are computed in float32, as onnxruntime does: which input element is nearest can
hang on the last bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np

from qonnx_hub.executor.kernels._numbers import widened
from qonnx_hub.executor.kernels._window import Shape
from qonnx_hub.executor.kernels.elementwise import served
from qonnx_hub.executor.kernels.spec import Array, Kernel, KernelSpec, KernelTable

Numbers = tuple[float, ...]
Step = Callable[[Array], Array]
Options = Mapping[str, Any]
"""The attributes of a node, each present."""

_HALF = np.float32(0.5)


def _rounded(x: Array, tie: float) -> Array:
    """Return ``x`` rounded to the nearest integer, ties by ``tie`` (0 down, 1 up).

    A coordinate closer to a tie than float32 computes it is one; onnxruntime draws the same
    line (measured for version 1.32).
    """
    low = np.floor(x)
    rest = x - low
    near = np.abs(rest - _HALF) < np.float32(1e-6)
    return np.asarray(low + np.where(near, tie, rest > _HALF))


_NEAREST: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: _rounded(x, 0.0),
    "round_prefer_ceil": lambda x: _rounded(x, 1.0),
    "floor": np.floor,
    "ceil": np.ceil,
}


_COORDINATES = "coordinate_transformation_mode"
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "mode": ("nearest", "linear", "cubic"),
    _COORDINATES: (
        *("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel"),
        *("align_corners", "asymmetric", "tf_crop_and_resize"),
    ),
    "nearest_mode": tuple(_NEAREST),
    "keep_aspect_ratio_policy": ("stretch", "not_larger", "not_smaller"),
}
"""What attributes of text may be, the default first."""

_DEFAULTS: Mapping[str, Any] = {
    **{name: choices[0] for name, choices in _CHOICES.items()},
    "antialias": 0,
    "axes": None,
    "cubic_coeff_a": -0.75,
    "exclude_outside": 0,
    "extrapolation_value": 0.0,
}
"""All attributes with their defaults."""


@dataclass(frozen=True, slots=True)
class _Axis:
    """How one axis changes.

    Attributes:
        axis: Its position.
        size: Input elements.
        out: Output elements.
        scale: Output elements per input element, as far as the coordinates are concerned.
        start: Where the region of interest starts, as a fraction of the axis.
        end: Where it ends.
    """

    axis: int
    size: int
    out: int
    scale: np.float32
    start: np.float32
    end: np.float32

    def coordinates(self, mode: str) -> Array:
        """Return where each output element lies on the input: (out,), float32."""
        x: Array = np.arange(self.out, dtype=np.float32)
        last = np.float32(self.size - 1)
        if mode == "asymmetric":
            x = x / self.scale
        elif mode == "align_corners":
            x = x * last / np.float32(max(self.out - 1, 1))
        elif mode == "tf_crop_and_resize" and self.out == 1:
            x = x + _HALF * (self.start + self.end) * last
        elif mode == "tf_crop_and_resize":
            step = (self.end - self.start) * last
            x = self.start * last + x * step / np.float32(self.out - 1)
        elif mode == "half_pixel_symmetric":
            adjustment = np.float32(self.out) / (self.scale * np.float32(self.size))
            offset = np.float32(self.size) * _HALF * (np.float32(1) - adjustment)
            # The one mode that onnxruntime computes in float64.
            wide = (x.astype(np.float64) + 0.5) / np.float64(self.scale)
            x = (np.float64(offset) + wide - 0.5).astype(np.float32)
        elif mode == "half_pixel" or self.out > 1:
            x = (x + _HALF) / self.scale - _HALF
        return x


def _cubic_weights(x: Array, a: float, size: int, exclude: bool) -> tuple[Array, Array]:
    """Return indices and weights of four neighbours: (out, 4) each.

    Source: R. Keys, Cubic convolution interpolation for digital image processing (1981).
    """
    left = np.floor(x)
    index = _neighbours(left, -1, 4)
    distance = np.abs(x[:, np.newaxis] - index).astype(np.float64)
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    weights = np.where(distance <= 1, near, far)
    if exclude:
        weights[(index < 0) | (index >= size)] = 0.0
        weights /= weights.sum(axis=1, keepdims=True)
    return index, weights.astype(np.float32)


def _neighbours(left: Array, first: int, count: int) -> Array:
    steps = np.arange(first, first + count, dtype=np.intp)
    return left.astype(np.intp)[:, np.newaxis] + steps


def _weighted_step(axis: _Axis, index: Array, weights: Array) -> Step:
    """Return what adds weighted neighbours; beyond the border, the border counts."""
    index = np.clip(index, 0, axis.size - 1)
    position = axis.axis

    def step(data: Array) -> Array:
        shape = (-1, *(1,) * (data.ndim - 1 - position))
        columns = weights.astype(data.dtype)
        y: Array = data.take(index[:, 0], axis=position) * columns[:, 0].reshape(shape)
        for tap in range(1, columns.shape[1]):
            y += data.take(index[:, tap], axis=position) * columns[:, tap].reshape(shape)
        return y

    return step


def _outside_step(axis: _Axis, x: Array, step: Step, value: float) -> Step:
    """Return ``step`` followed by overwriting what lies outside the input."""
    outside = np.flatnonzero((x < 0) | (x > axis.size - 1))
    if not outside.size:
        return step

    def replacing(data: Array) -> Array:
        y = step(data)
        y.swapaxes(0, axis.axis)[outside] = value
        return y

    return replacing


def _steps(
    options: Options,
    shape: Shape,
    roi: Numbers | None,
    scales: Numbers | None,
    sizes: Shape | None,
) -> list[Step]:
    """Return one step per axis that changes, the innermost first: it copies the least."""
    steps = []
    layout = _layout(options, shape, roi, scales, sizes)
    for axis in sorted(layout, key=attrgetter("axis"), reverse=True):
        whole = axis.start == 0 and axis.end == 1
        if axis.out != axis.size or axis.scale != 1 or not whole:
            steps.append(_step(options, axis))
    return steps


def _step(options: Options, axis: _Axis) -> Step:
    x = axis.coordinates(options[_COORDINATES])
    if options["mode"] == "nearest":
        nearest = _NEAREST[options["nearest_mode"]](x)
        index = np.clip(nearest, 0, axis.size - 1).astype(np.intp)
        step: Step = functools.partial(np.take, indices=index, axis=axis.axis)
    elif options["mode"] == "linear":
        inside = np.clip(x, np.float32(0), np.float32(axis.size - 1))
        left = np.floor(inside)
        ratio = inside - left
        weights = np.stack([np.float32(1) - ratio, ratio], axis=1)
        step = _weighted_step(axis, _neighbours(left, 0, 2), weights)
    else:
        a, exclude = float(options["cubic_coeff_a"]), bool(options["exclude_outside"])
        step = _weighted_step(axis, *_cubic_weights(x, a, axis.size, exclude))
    if options[_COORDINATES] != "tf_crop_and_resize":
        return step
    return _outside_step(axis, x, step, float(options["extrapolation_value"]))


def _layout(
    options: Options,
    shape: Shape,
    roi: Numbers | None,
    scales: Numbers | None,
    sizes: Shape | None,
) -> list[_Axis]:
    """Return how each axis changes that scales or sizes are given for.

    Raises:
        ValueError: Inputs and axes disagree in length, or both or neither of scales and
            sizes are given.
    """
    named = options["axes"]
    axes = range(len(shape)) if named is None else [a % len(shape) for a in named]
    count, given = len(axes), scales if sizes is None else sizes
    if (scales is None) == (sizes is None) or given is None or len(given) != count:
        raise ValueError(f"Resize of axes {list(axes)} has scales {scales} and sizes {sizes}")
    region: Numbers = (0.0,) * count + (1.0,) * count
    if options[_COORDINATES] == "tf_crop_and_resize":
        if roi is None or len(roi) != 2 * count:
            raise ValueError(f"Resize crops axes {list(axes)} to the region {roi}")
        region = roi
    lengths = [np.float32(shape[axis]) for axis in axes]
    if sizes is None:
        factors = [np.float32(scale) for scale in given]
        part = [np.float32(region[i + count] - region[i]) for i in range(count)]
        outs = [math.floor(lengths[i] * part[i] * factors[i]) for i in range(count)]
    else:
        factors, outs = _sized(lengths, sizes, options["keep_aspect_ratio_policy"])
    edges = [np.float32(edge) for edge in region]
    return [
        _Axis(axis, shape[axis], outs[i], factors[i], edges[i], edges[i + count])
        for i, axis in enumerate(axes)
    ]


def _sized(
    lengths: list[np.float32], sizes: Shape, policy: str
) -> tuple[list[np.float32], list[int]]:
    """Return scale and output length per axis for given sizes."""
    factors = [np.float32(size) / length for size, length in zip(sizes, lengths, strict=True)]
    if policy == "stretch":
        return factors, list(sizes)
    factor = min(factors) if policy == "not_larger" else max(factors)
    return [factor] * len(sizes), [math.floor(factor * length + _HALF) for length in lengths]


def _options(spec: KernelSpec) -> Options:
    """Return all attributes of the node.

    Raises:
        Unserved: It asks for antialiasing, for excluding what is outside except in cubic mode,
            for something that ONNX does not know, or for aligned corners of an output whose
            length was rounded down.
    """
    options = {**_DEFAULTS, **spec.attributes}
    for name, choices in _CHOICES.items():
        spec.choice(name, choices[0], choices)
    if options["antialias"]:
        raise spec.unserved("asks for antialiasing")
    if options["exclude_outside"] and options["mode"] != "cubic":
        raise spec.unserved(f"excludes the outside in mode {options['mode']}")
    # For fractions, the operator document and onnxruntime take the rounded length, the test
    # data that ONNX brings for the operator the one before rounding.
    if options[_COORDINATES] == "align_corners" and spec.has_input(2):
        scales = spec.constant(2)
        if scales is None or not np.array_equal(scales, np.rint(scales)):
            raise spec.unserved("aligns corners by scales that may be fractional")
    return options


def _values(array: Array | None) -> tuple[float, ...] | None:
    """Return the values of an optional input; an empty one counts as left out."""
    return None if array is None or not array.size else tuple(array.tolist())


def _resize(spec: KernelSpec) -> Kernel:
    options = _options(spec)
    steps_of = functools.lru_cache(maxsize=16)(functools.partial(_steps, options))
    interpolates = options["mode"] != "nearest"
    fixed = spec.is_fixed(1, 2, 3)
    known = [_values(spec.constant(i)) for i in (1, 2, 3)]

    def kernel(x: Array, *rest: Array | None) -> Array:
        inputs = known if fixed else [*map(_values, rest), None, None, None][:3]
        if interpolates and x.dtype.kind not in "fV":
            raise TypeError(f"{options['mode']} Resize of {x.dtype} has no rounding in ONNX")
        y = widened(x) if interpolates else x
        for step in steps_of(x.shape, *inputs):
            y = step(y)
        return y.astype(x.dtype, copy=y is x)

    return kernel


KERNELS: KernelTable = {("", "Resize"): served(_resize, *_DEFAULTS)}
