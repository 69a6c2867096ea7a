"""Inputs that make two models show their differences.

Random values find large faults; rounding ties, the floats beside them and the ends of the
range find the small ones, which random values almost never meet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.quant import Array, IntQuant, integer_bounds, single_value

_ELEMENTS = 1 << 20
_MOST_SAMPLES = 64
_FEWEST_SAMPLES = 2
_MOST_TIES = 1 << 12

_MOVES_VALUES = frozenset(
    {"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)


@dataclass(frozen=True, slots=True)
class _Affine:
    """What happens to an input before its quantizer: ``gain * x + offset``."""

    gain: float = 1.0
    offset: float = 0.0

    def invert(self, t: Array) -> Array:
        return (t - self.offset) / self.gain


def generate_inputs(
    model: Model, samples: int | None = None, seed: int = 0
) -> dict[str, Array]:
    """Return feeds for the model: half random, half on and beside ties and limits.

    Args:
        model: The model whose input signature and first quantizers are used.
        samples: Length of the first axis (a multiple of the file's own is used); by default as
            many as fit in a million elements, 2 to 64.
        seed: Seed of the random values; the same seed gives the same inputs.

    Returns:
        Input name -> array of the input's dtype.

    Raises:
        UsageError: An input has a size that the file leaves open beyond the first axis.
    """
    rng = np.random.default_rng(seed)
    sizes = {str(v.name): _sample_size(v) for v in model.graph.inputs}
    if samples is None:
        largest = max(sizes.values(), default=1)
        samples = int(np.clip(_ELEMENTS // max(largest, 1), _FEWEST_SAMPLES, _MOST_SAMPLES))
    return {str(v.name): _fill(v, samples, rng) for v in model.graph.inputs}


def critical_values(value: Value) -> Array:
    """Return input values on and beside the ties and limits of the quantizers it meets first.

    Returns:
        Sorted float32 values without repetition; empty where no integer quantizer reads the
        input directly or through affine steps with scalar constants.
    """
    points: list[Array] = [np.zeros(0, dtype=np.float32)]
    for node, affine in _first_quantizers(value, _Affine()):
        quant = dialect.read_quantizer(node)
        if dialect.operator_of(quant) == "BipolarQuant":
            centre = affine.invert(np.zeros(1, dtype=np.float64)).astype(np.float32)
            points.append(_with_neighbours(centre))
        elif isinstance(quant, IntQuant):
            points.append(_int_quant_points(quant, affine))
    merged = np.unique(np.concatenate(points))
    return np.asarray(merged[np.isfinite(merged)])


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
        if dialect.is_quantizer(node) and index == 0:
            yield node, affine
        elif node.op_type in _MOVES_VALUES and node.domain == "" and index == 0:
            yield from _first_quantizers(node.outputs[0], affine)
        else:
            step = _affine_step(node, index, affine)
            if step is not None:
                yield from _first_quantizers(node.outputs[0], step)


def _affine_step(node: Node, index: int, affine: _Affine) -> _Affine | None:
    if node.domain != "" or node.op_type not in {"Add", "Sub", "Mul", "Div"}:
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


def _sample_size(value: Value) -> int:
    dims = [] if value.shape is None else list(value.shape)[1:]
    open_dims = [str(d) for d in dims if not isinstance(d, int)]
    if open_dims or value.shape is None:
        what = f"its sizes {', '.join(open_dims)}" if open_dims else "its shape"
        raise UsageError(
            f"input '{value.name}': the file leaves {what} open; give the inputs to use"
        )
    return int(np.prod([d for d in dims if isinstance(d, int)], dtype=np.int64))


def _fill(value: Value, samples: int, rng: np.random.Generator) -> Array:
    shape = _feed_shape(value, samples)
    dtype: Any = np.dtype(np.float32) if value.dtype is None else value.dtype.numpy()
    if np.dtype(dtype).kind == "b":
        return rng.integers(0, 2, size=shape).astype(np.bool_)
    if np.dtype(dtype).kind in "iu":
        return rng.integers(0, 128, size=shape).astype(dtype)
    points = critical_values(value)
    reach = float(np.abs(points).max()) * 0.75 if points.size else 3.0
    numbers = rng.uniform(-reach, reach, size=shape).astype(np.float32)
    flat = numbers.reshape(-1)
    half = flat.size // 2
    if points.size:
        # Every critical value in turn, then at random: small inputs meet as many as fit.
        chosen = np.concatenate([rng.permutation(points), rng.choice(points, size=half)])
        flat[flat.size - half :] = chosen[:half]
    else:
        flat[flat.size - half :] = rng.normal(0.0, 1.0, size=half).astype(np.float32)
    rng.shuffle(flat)
    return numbers.astype(dtype)


def _feed_shape(value: Value, samples: int) -> tuple[int, ...]:
    if value.shape is None or len(value.shape) == 0:
        return ()
    first, *rest = list(value.shape)
    own = first if isinstance(first, int) and first > 0 else 1
    length = own * max(samples // own, 1)
    return (length, *[int(d) for d in rest if isinstance(d, int)])
