"""Inputs that make two models show their differences.

Random values find large faults; rounding ties, the floats beside them and the ends of the
range find the small ones, which random values almost never meet.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx_ir import DataType, Model, Node, Value

from qonnx_hub.equivalence.graph_slices import elements_per_sample
from qonnx_hub.equivalence.inputs.sizes import Sizes, shape_with, sizes_to_run
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.graph.queries import attribute, dims, input_of
from qonnx_hub_ir.quantizers import (
    Array,
    BipolarQuant,
    IntQuant,
    integer_bounds,
    single_value,
)

_ELEMENTS = 1 << 22
_MOST_SAMPLES = 64
_FEWEST_SAMPLES = 2
_SAMPLES_WITH_CORNERS = 16
_MOST_TIES = 1 << 12
_LARGEST = 1 << 30
"""Elements of a sample above which its input is not generated."""

_ORDINARY = 3.0
"""Values up to this magnitude are drawn where no quantizer says better."""

_NEIGHBOURS = 3
"""Points by which a sign is told: its centre and the floats beside it."""


@dataclass(frozen=True, slots=True)
class _Affine:
    """What happens to an input before its quantizer: ``gain * x + offset``."""

    gain: float = 1.0
    offset: float = 0.0

    def invert(self, t: Array) -> Array:
        return (t - self.offset) / self.gain


_CODE_BITS = 16
"""Whole numbers of a type up to this width are codes; wider ones may be indices."""

_SIZES = frozenset({"shape", "sizes", "repeats"})
"""Roles of inputs that say how large a value becomes, of as many axes as they have numbers."""

_LARGEST_SIZE = 4
_INDEX = 127
_COMPUTES = frozenset({"DequantizeLinear", "Cast", "Neg", "Abs"})

Ranges = Mapping[str, tuple[float, float]]
"""Input name -> (lowest, highest) value."""


def generate_inputs(
    model: Model, samples: int | None = None, seed: int = 0
) -> dict[str, Array]:
    """Return feeds for the model: half random, half on and beside ties and limits.

    Args:
        model: The model whose input signature and first quantizers are used.
        samples: Length of the first axis (a multiple of the file's own is used); by default as
            many as all values of the model leave room for in 16 MiB, 2 to 64.
        seed: Seed of the random values; the same seed gives the same inputs.

    Returns:
        Input name -> array of the input's dtype.

    Sizes that the file leaves open beyond the first axis are odd ones with which the model
    runs.

    Raises:
        UsageError: The model runs with no such sizes.
    """
    generator = InputGenerator(model, seed, {})
    return generator.feeds(samples or generator.default_samples(), 0)


class InputGenerator:
    """Inputs of one model, any number of batches of them, the same for the same seed."""

    def __init__(
        self, model: Model, seed: int, ranges: Ranges, sizes: Sizes | None = None
    ) -> None:
        """Prepare the inputs of a model.

        Args:
            model: The model.
            seed: Seed of the random values.
            ranges: Input name -> (lowest, highest) value.
            sizes: Sizes of open axes; the first of :func:`sizes_to_run` by default.

        Raises:
            UsageError: No sizes with which the model runs, or a range that is none.
        """
        _require_ranges(ranges, {str(v.name) for v in model.graph.inputs})
        sizes = sizes_to_run(model)[0] if sizes is None else sizes
        self._values = {str(v.name): v for v in model.graph.inputs}
        for name, value in self._values.items():
            if value.dtype == DataType.STRING:
                raise UsageError(f"input '{name}' holds text, of which none is generated")
        self._seed = seed
        # Sizes that the file leaves open count as one.
        self._work = elements_per_sample(model) * math.prod(sizes.values())
        self._shapes = {n: shape_with(value, sizes) for n, value in self._values.items()}
        _require_room(self._shapes)
        self._ranges = ranges
        self._points = {name: self._points_of(name) for name in self._values}
        self._reach = {name: _reaches(value) for name, value in self._values.items()}

    def default_samples(self) -> int:
        """Return as many samples as all values of the model leave room for, 2 to 64."""
        return int(np.clip(_ELEMENTS // self._work, _FEWEST_SAMPLES, _MOST_SAMPLES))

    def feeds(self, samples: int, batch: int) -> dict[str, Array]:
        """Return the inputs of one batch: as many samples, multiples of the file's own."""
        shapes = {}
        for name, (own, *sizes) in ((n, s) for n, s in self._shapes.items() if s):
            shapes[name] = (own * max(samples // own, 1), *sizes)
        arrays = self._drawn(shapes, batch)
        for name, x in arrays.items():
            if not (x.ndim and len(x) >= _SAMPLES_WITH_CORNERS):
                continue
            if batch == 0 and not _is_whole(self._values[name]):
                for place, value in enumerate(self._corners(name)):
                    x[place] = value
        return arrays

    def run(self, index: int) -> dict[str, Array]:
        """Return the inputs of one run, in the shapes of the file."""
        arrays = self._drawn(self._shapes, index)
        for name in (n for n in arrays if not _is_whole(self._values[n])):
            corners = self._corners(name)
            if index < len(corners):
                arrays[name][...] = corners[index]
        return arrays

    def _drawn(self, shapes: Mapping[str, tuple[int, ...]], batch: int) -> dict[str, Array]:
        arrays = {}
        for position, (name, value) in enumerate(self._values.items()):
            rng = np.random.default_rng([self._seed, position, batch])
            shape = shapes.get(name, ())
            dtype: Any = np.dtype(np.float32) if value.dtype is None else value.dtype.numpy()
            if _is_whole(value):
                limits = self._ranges.get(name) or _whole_limits(value)
                arrays[name] = _whole_numbers(shape, dtype, rng, limits)
            else:
                numbers = self._numbers(name, shape, rng, batch)
                arrays[name] = np.asarray(numbers.astype(dtype))
        return arrays

    def _points_of(self, name: str) -> Array:
        """Return the critical values of an input, shuffled, those within its range."""
        points = critical_values(self._values[name])
        if name in self._ranges:
            low, high = self._ranges[name]
            points = points[(points >= low) & (points <= high)]
            points = np.append(points, np.array([low, high], dtype=np.float32))
        rng = np.random.default_rng([self._seed, len(points)])
        return np.asarray(rng.permutation(points), dtype=np.float32)

    def _limits(self, name: str) -> tuple[float, float]:
        """Return the ends between which an input is drawn, the widest ones."""
        if name in self._ranges:
            return self._ranges[name]
        return -self._reach[name][-1], self._reach[name][-1]

    def _numbers(
        self, name: str, shape: tuple[int, ...], rng: np.random.Generator, batch: int
    ) -> Array:
        low, high = self._limits(name)
        numbers = np.asarray(rng.uniform(low, high, size=shape), dtype=np.float32)
        if numbers.ndim == 0:
            return numbers
        flat = numbers.reshape(-1)
        half = flat.size // 2
        points = self._points[name]
        if points.size:
            # Every critical value in turn, batch after batch: small inputs meet all of them.
            turn = np.arange(batch * half, (batch + 1) * half) % points.size
            flat[flat.size - half :] = points[turn]
        elif name not in self._ranges:
            flat[flat.size - half :] = rng.normal(0.0, 1.0, size=half).astype(np.float32)
        if name not in self._ranges:
            # Multiples of powers of two, with which sums round nowhere.
            eighth = flat[: flat.size // 8]
            np.copyto(eighth, np.rint(eighth * np.float32(8)) / np.float32(8))
        rng.shuffle(flat)
        reaches = [] if name in self._ranges else self._reach[name]
        for k, reach in enumerate(reaches[:-1]):
            numbers[k :: len(reaches)] *= np.float32(reach / high)
        return numbers

    def _corners(self, name: str) -> tuple[float, ...]:
        """Return what the first samples are: zeros, both ends, and zeros with a sign."""
        low, high = self._limits(name)
        inside = low <= 0.0 <= high
        return (0.0 if inside else low, high, low, -0.0 if inside else high)


def _is_whole(value: Value) -> bool:
    # The dtype of int4 and its like does not tell.
    return value.dtype is not None and (
        value.dtype == DataType.BOOL or value.dtype.is_integer()
    )


def _whole_numbers(
    shape: tuple[int, ...],
    dtype: Any,
    rng: np.random.Generator,
    limits: tuple[float, float],
) -> Array:
    if np.dtype(dtype).kind == "b":
        return rng.integers(0, 2, size=shape).astype(np.bool_)
    low, high = limits
    return rng.integers(int(low), int(high) + 1, size=shape).astype(dtype)


def _whole_limits(value: Value) -> tuple[float, float]:
    """Return between which ends whole numbers are drawn.

    What may be an index or a count is small and not negative; codes take their whole type.
    """
    known = _index_limits(value)
    if known is not None:
        return known
    if any(operators.input_role(node, index) in _SIZES for node, index in value.uses()):
        return (1, _LARGEST_SIZE)
    kind = value.dtype
    readers = [node for node, _ in value.uses()]
    if any(node.op_type == "Pad" and value is not node.inputs[0] for node in readers):
        return (0, 2)
    if kind is None or kind == DataType.BOOL:
        return (0, 1)
    if kind.bitwidth <= _CODE_BITS and "Gather" not in {node.op_type for node in readers}:
        low, high = integer_bounds(kind.bitwidth, signed=kind.is_signed(), narrow=False)
        return (int(low), int(high))
    computes = all(operators.is_affine(n) or n.op_type in _COMPUTES for n in readers)
    return (-_INDEX - 1 if kind.is_signed() and readers and computes else 0, _INDEX)


def _index_limits(value: Value) -> tuple[float, float] | None:
    """Return the indices that every Gather of an input allows, ``None`` without one."""
    gathers = [n for n, index in value.uses() if n.op_type == "Gather" and index == 1]
    sizes = []
    for node in gathers:
        shape, axis = dims(node.inputs[0]) or (), int(attribute(node, "axis", 0))
        # Another axis, or one without elements, is the run's to refuse.
        size = shape[axis] if -len(shape) <= axis < len(shape) else None
        sizes += [size] if isinstance(size, int) and size > 0 else []
    return (0, min(sizes) - 1) if sizes else None


def _require_room(shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        if math.prod(shape) > _LARGEST:
            raise UsageError(
                f"no values are generated for input '{name}': a sample of it, {list(shape)}, "
                f"has more than {_LARGEST} elements"
            )


def _require_ranges(ranges: Ranges, inputs: Collection[str]) -> None:
    for name, (low, high) in ranges.items():
        if name not in inputs:
            raise UsageError(
                f"a range is given for '{name}', which is no input; the inputs are "
                f"{', '.join(inputs) or 'none'}"
            )
        if not (np.isfinite(low) and np.isfinite(high) and low <= high):
            raise UsageError(f"the range {low:g},{high:g} of '{name}' holds no values")


def critical_values(value: Value) -> Array:
    """Return input values on and beside the ties and limits of the quantizers it meets first.

    Returns:
        Sorted float32 values without repetition; empty where no integer quantizer reads the
        input directly or through affine steps with scalar constants.
    """
    merged = np.unique(np.concatenate(_points_by_quantizer(value)))
    return np.asarray(merged[np.isfinite(merged)])


def _points_by_quantizer(value: Value) -> list[Array]:
    points: list[Array] = [np.zeros(0, dtype=np.float32)]
    for node, affine in _first_quantizers(value, _Affine()):
        if dialect.is_thresholds(node):
            points.append(_thresholds_of(node, affine))
            continue
        is_own = dialect.is_quantizer(node)
        quant = dialect.read_quantizer(node) if is_own else linear_quantizer(node)
        if isinstance(quant, BipolarQuant):
            centre = affine.invert(np.zeros(1, dtype=np.float64)).astype(np.float32)
            points.append(_with_neighbours(centre))
        elif isinstance(quant, IntQuant):
            points.append(_int_quant_points(quant, affine))
    return points


def _thresholds_of(node: Node, affine: _Affine) -> Array:
    steps = dialect.constant_value(node.inputs[1])
    if steps is None or steps.size > _MOST_TIES:
        return np.zeros(0, dtype=np.float32)
    exact = affine.invert(steps.reshape(-1).astype(np.float64)).astype(np.float32)
    return _with_neighbours(exact)


def _reaches(value: Value) -> list[float]:
    """Return the magnitudes up to which values of an input are drawn, in turn.

    Each quantizer of several codes that it meets first suggests one; where something else
    reads it, or a sign only, ordinary values come as well.
    """
    far = [points for points in _points_by_quantizer(value) if points.size > _NEIGHBOURS]
    finite = [points[np.isfinite(points)] for points in far]
    found = [0.75 * float(np.abs(points).max()) for points in finite if points.size]
    readers = list(value.uses())
    met = sum(1 for _ in _first_quantizers(value, _Affine()))
    if len(far) < max(met, len(readers)):
        found.append(_ORDINARY)
    return sorted({reach for reach in found if reach > 0}) or [_ORDINARY]


def linear_quantizer(node: Node) -> IntQuant | None:
    """Return what a QuantizeLinear that is still one does, where it makes whole numbers."""
    kind = node.outputs[0].dtype if node.op_type == "QuantizeLinear" else None
    if kind is None or not kind.is_integer() or attribute(node, "block_size", 0):
        return None
    scale = dialect.constant_value(input_of(node, 1))
    given = input_of(node, 2)
    zero = np.zeros((), dtype=np.int32) if given is None else dialect.constant_value(given)
    rank = len(dims(node.inputs[0]) or ())
    if scale is None or zero is None or not np.all(scale > 0):
        return None
    axis = attribute(node, "axis", 1)
    place = [1] * rank
    if scale.size > 1 and rank:
        place[axis] = -1
    scale, zero = (
        p.astype(np.float32).reshape(place if p.size > 1 else ()) for p in (scale, zero)
    )
    bits = np.asarray(kind.bitwidth, dtype=np.float32)
    signed = kind.is_signed()
    return IntQuant(scale, zero, bits, signed=signed, zero_point_after_rounding=True)


def _int_quant_points(quant: IntQuant, affine: _Affine) -> Array:
    bits = single_value(quant.bits)
    if bits is None or quant.scale is None or quant.zero_point is None:
        return np.zeros(0, dtype=np.float32)
    low, high = integer_bounds(bits, signed=quant.signed, narrow=quant.narrow)
    span = int(min(high - low, _MOST_TIES))
    start = low if span == high - low else -span // 2
    codes = np.arange(start - 1, start + span + 1, dtype=np.float64)
    halves = np.concatenate([codes, codes + 0.5, [low, high]])
    scales = np.unique(np.asarray(quant.scale, dtype=np.float64))[:16]
    zeros = np.unique(np.asarray(quant.zero_point, dtype=np.float64))[:16]
    grids = [(halves - zero) * scale for scale in scales for zero in zeros]
    exact = affine.invert(np.concatenate(grids)).astype(np.float32)
    far = affine.invert(np.array([low * 4, high * 4], dtype=np.float64) * scales.max())
    return np.concatenate([_with_neighbours(exact), far.astype(np.float32)])


def _with_neighbours(values: Array) -> Array:
    up = np.nextafter(values, np.float32(np.inf))
    down = np.nextafter(values, np.float32(-np.inf))
    return np.concatenate([values, up, down])


def _first_quantizers(value: Value, affine: _Affine) -> Iterable[tuple[Node, _Affine]]:
    for node, index in value.uses():
        jumps = dialect.is_quantizer(node) or dialect.is_thresholds(node)
        if index == 0 and (jumps or node.op_type == "QuantizeLinear"):
            yield node, affine
        elif operators.moves_axes(node) and index == 0:
            yield from _first_quantizers(node.outputs[0], affine)
        else:
            step = _affine_step(node, index, affine)
            if step is not None:
                yield from _first_quantizers(node.outputs[0], step)


def _affine_step(node: Node, index: int, affine: _Affine) -> _Affine | None:
    if not operators.is_affine(node):
        return None
    other = dialect.constant_value(node.inputs[1 - index])
    number = single_value(other)
    if number is None or not np.isfinite(number):
        return None
    if node.op_type == "Add":
        return _Affine(affine.gain, affine.offset + number)
    if node.op_type == "Sub" and index == 0:
        return _Affine(affine.gain, affine.offset - number)
    if number != 0 and node.op_type == "Mul":
        return _Affine(affine.gain * number, affine.offset * number)
    if number != 0 and node.op_type == "Div" and index == 0:
        return _Affine(affine.gain / number, affine.offset / number)
    return None
