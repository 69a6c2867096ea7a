"""Numpy kernel of Resize, one axis after the other.

Coordinates are computed in float32, as onnxruntime does: which input element is nearest can
hang on the last bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from qonnx_hub.executor.kernels._numbers import widened
from qonnx_hub.executor.kernels._window import Shape
from qonnx_hub.executor.kernels.elementwise import served
from qonnx_hub.executor.kernels.spec import Array, Kernel, KernelSpec, KernelTable, Unserved

Numbers = tuple[float, ...]
Step = Callable[[Array], Array]

_HALF = np.float32(0.5)
_COORDINATES = (
    "align_corners",
    "asymmetric",
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "tf_crop_and_resize",
)
_POLICIES = ("stretch", "not_larger", "not_smaller")


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


@dataclass(frozen=True, slots=True)
class _Options:
    """The attributes of a Resize node."""

    mode: str
    coordinates: str
    nearest: str
    cubic: float
    exclude: bool
    extrapolation: float
    policy: str
    axes: Shape | None

    def steps(
        self, shape: Shape, roi: Numbers | None, scales: Numbers | None, sizes: Shape | None
    ) -> list[Step]:
        """Return one step per axis that changes, the innermost first: it copies the least."""
        steps = []
        layout = self._layout(shape, roi, scales, sizes)
        for axis in sorted(layout, key=attrgetter("axis"), reverse=True):
            whole = axis.start == 0 and axis.end == 1
            if axis.out == axis.size and axis.scale == 1 and whole:
                continue
            steps.append(self._step(axis))
        return steps

    def _step(self, axis: _Axis) -> Step:
        x = axis.coordinates(self.coordinates)
        if self.mode == "nearest":
            index = np.clip(_NEAREST[self.nearest](x), 0, axis.size - 1).astype(np.intp)
            step: Step = functools.partial(np.take, indices=index, axis=axis.axis)
        elif self.mode == "linear":
            inside = np.clip(x, np.float32(0), np.float32(axis.size - 1))
            left = np.floor(inside)
            ratio = inside - left
            weights = np.stack([np.float32(1) - ratio, ratio], axis=1)
            step = _weighted_step(axis, _neighbours(left, 0, 2), weights)
        else:
            neighbours = _cubic_weights(x, self.cubic, axis.size, self.exclude)
            step = _weighted_step(axis, *neighbours)
        if self.coordinates != "tf_crop_and_resize":
            return step
        return _outside_step(axis, x, step, self.extrapolation)

    def _layout(
        self, shape: Shape, roi: Numbers | None, scales: Numbers | None, sizes: Shape | None
    ) -> list[_Axis]:
        """Return how each axis changes that scales or sizes are given for.

        Raises:
            ValueError: Inputs and axes disagree in length, or both or neither of scales and
                sizes are given.
        """
        axes = range(len(shape)) if self.axes is None else [a % len(shape) for a in self.axes]
        given = scales if sizes is None else sizes
        if (scales is None) == (sizes is None) or given is None or len(given) != len(axes):
            raise ValueError(
                f"Resize of axes {list(axes)} has scales {scales} and sizes {sizes}"
            )
        crops = self.coordinates == "tf_crop_and_resize"
        if crops and (roi is None or len(roi) != 2 * len(axes)):
            raise ValueError(f"Resize crops axes {list(axes)} to the region {roi}")
        region = roi if crops and roi is not None else (0.0,) * len(axes) + (1.0,) * len(axes)
        lengths = [np.float32(shape[axis]) for axis in axes]
        factors, outs = self._extents(lengths, scales, sizes, region)
        edges = [np.float32(edge) for edge in region]
        return [
            _Axis(axis, shape[axis], outs[i], factors[i], edges[i], edges[i + len(axes)])
            for i, axis in enumerate(axes)
        ]

    def _extents(
        self,
        lengths: list[np.float32],
        scales: Numbers | None,
        sizes: Shape | None,
        region: Numbers,
    ) -> tuple[list[np.float32], list[int]]:
        """Return scale and output length per axis."""
        count = len(lengths)
        if sizes is None:
            factors = [np.float32(scale) for scale in scales or ()]
            part = [np.float32(region[i + count] - region[i]) for i in range(count)]
            outs = [math.floor(lengths[i] * part[i] * factors[i]) for i in range(count)]
            return factors, outs
        factors = [np.float32(sizes[i]) / lengths[i] for i in range(count)]
        if self.policy == "stretch":
            return factors, list(sizes)
        factor = min(factors) if self.policy == "not_larger" else max(factors)
        return [factor] * count, [math.floor(factor * length + _HALF) for length in lengths]


def _options(spec: KernelSpec) -> _Options:
    """Return the attributes of the node.

    Raises:
        Unserved: It asks for antialiasing, for excluding what is outside except in cubic mode,
            or for something that ONNX does not know.
    """
    mode = spec.choice("mode", "nearest", ("nearest", "linear", "cubic"))
    if spec.attr("antialias", 0):
        raise Unserved(f"Resize '{spec.name}' asks for antialiasing")
    exclude = bool(spec.attr("exclude_outside", 0))
    if exclude and mode != "cubic":
        raise Unserved(f"Resize '{spec.name}' excludes the outside in mode {mode}")
    axes = spec.attr("axes")
    return _Options(
        mode=mode,
        coordinates=spec.choice("coordinate_transformation_mode", "half_pixel", _COORDINATES),
        nearest=spec.choice("nearest_mode", "round_prefer_floor", _NEAREST),
        cubic=float(spec.attr("cubic_coeff_a", -0.75)),
        exclude=exclude,
        extrapolation=float(spec.attr("extrapolation_value", 0.0)),
        policy=spec.choice("keep_aspect_ratio_policy", "stretch", _POLICIES),
        axes=None if axes is None else tuple(axes),
    )


def _refuse_fractions(spec: KernelSpec) -> None:
    """Refuse to align corners of an output whose length was rounded down.

    The operator document and onnxruntime take the rounded length, the test data that ONNX
    brings for the operator the one before rounding.
    """
    if spec.attr("coordinate_transformation_mode") != "align_corners" or not spec.has_input(2):
        return
    scales = spec.constant(2)
    if scales is None or not np.array_equal(scales, np.rint(scales)):
        raise Unserved(f"Resize '{spec.name}' aligns corners by scales that may be fractional")


def _values(array: Array | None) -> tuple[float, ...] | None:
    """Return the values of an optional input; an empty one counts as left out."""
    return None if array is None or not array.size else tuple(array.tolist())


def _resize(spec: KernelSpec) -> Kernel:
    options = _options(spec)
    _refuse_fractions(spec)
    steps_of = functools.lru_cache(maxsize=16)(options.steps)
    interpolates = options.mode != "nearest"
    fixed = spec.is_fixed(1, 2, 3)
    known = [_values(spec.constant(i)) for i in (1, 2, 3)]

    def kernel(x: Array, *rest: Array | None) -> Array:
        inputs = known if fixed else [*map(_values, rest), None, None, None][:3]
        if interpolates and x.dtype.kind not in "fV":
            raise TypeError(f"{options.mode} Resize of {x.dtype} has no rounding in ONNX")
        y = widened(x) if interpolates else x
        for step in steps_of(x.shape, *inputs):
            y = step(y)
        return y.astype(x.dtype, copy=y is x)

    return kernel


KERNELS: KernelTable = {
    ("", "Resize"): served(
        _resize,
        "antialias",
        "axes",
        "coordinate_transformation_mode",
        "cubic_coeff_a",
        "exclude_outside",
        "extrapolation_value",
        "keep_aspect_ratio_policy",
        "mode",
        "nearest_mode",
    ),
}
