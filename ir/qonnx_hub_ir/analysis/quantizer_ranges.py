"""What quantizers make of a range: their formulas keep order, so the ends are enough."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from qonnx_hub_ir import dialect
from qonnx_hub_ir.analysis.grids import (
    ZERO,
    Grid,
    IntegerType,
    holds,
    whole_multiples,
    whole_numbers,
)
from qonnx_hub_ir.analysis.integer_sums import largest_magnitude
from qonnx_hub_ir.analysis.rule_context import (
    NodeInfo,
    RuleTable,
    rounded_outward,
    without_nan,
)
from qonnx_hub_ir.analysis.value_info import (
    Constant,
    ValueInfo,
    axis_shape,
    between,
    collapsed,
    of_constant,
)
from qonnx_hub_ir.quantizers import (
    Array,
    BipolarQuant,
    FloatQuant,
    IntQuant,
    Parameter,
    Quantizer,
    Trunc,
    bits_of_range,
    is_bipolar,
    is_whole,
)
from qonnx_hub_ir.semantics import largest_float, quantize, quantize_to_integers
from qonnx_hub_ir.thresholds import channel_axis

_LARGEST_BITS = 53
"""Integers of more bits are not followed."""


def _quantize(site: NodeInfo) -> ValueInfo | None:
    x, known = site.info(0), [site.array(k) for k in range(1, len(site.inputs))]
    quant = dialect.quantizer_with(site.node, known)
    values = dialect.parameters(quant)
    if any(value is None or not np.all(np.isfinite(value)) for value in values):
        return None
    if not site.is_float or not np.all(np.asarray(quant.scale) > 0):
        return None
    try:
        if x.constant is not None:
            return of_quantized_constant(x.constant.values, quant, site.float_type)
        return _range(x, quant, site.float_type)
    except ValueError:
        # Parameters that have no meaning together; running the node says which.
        return None


def _range(x: ValueInfo, quant: Quantizer, dtype: np.dtype[Any]) -> ValueInfo | None:
    shapes = [np.shape(p) for p in dialect.parameters(quant) if p is not None and p.size > 1]
    shape = np.broadcast_shapes(x.low.shape, *shapes)
    low, high = rounded_outward(x.low, x.high, dtype)
    ends = (np.broadcast_to(low, shape), np.broadcast_to(high, shape))
    if isinstance(quant, FloatQuant):
        return _minifloats(ends, quant)
    bounds = [quantize(end, quant).astype(np.float64) for end in ends]
    if any(np.isnan(bound).any() for bound in bounds):
        return None
    if isinstance(quant, Trunc):
        return between(bounds[0], bounds[1], _trunc_grid(bounds, quant, dtype))
    return between(bounds[0], bounds[1], _integer_grid(ends, quant, dtype))


def _declared(quant: IntQuant | BipolarQuant) -> IntegerType | None:
    if is_bipolar(quant):
        return IntegerType(1, signed=True, bipolar=True)
    assert isinstance(quant, IntQuant)
    bits = np.asarray(quant.bits)
    if not is_whole(bits):
        return None
    return IntegerType(int(bits.max()), signed=quant.signed)


def _steps_of(quant: IntQuant | BipolarQuant) -> tuple[Array, Array, Array] | None:
    """Return the scale, the whole zero point, and the offset that stands for another one.

    ``None`` where the codes are not followed.
    """
    scale, nothing = _step(quant.scale), np.zeros((), dtype=np.int64)
    if isinstance(quant, BipolarQuant):
        return scale, nothing, ZERO
    bits, zero = np.asarray(quant.bits), _step(quant.zero_point)
    if not is_whole(bits) or int(bits.max()) > _LARGEST_BITS:
        return None
    if not bool(np.all(np.abs(zero) < 2.0**_LARGEST_BITS)):
        return None
    if is_whole(zero):
        return scale, zero.astype(np.int64), ZERO
    return scale, nothing, np.asarray(-zero * scale)


def _step(parameter: Parameter) -> Array:
    """Return a known parameter as float64, without axes where it is one number."""
    step = np.asarray(parameter, dtype=np.float64)
    return step.reshape(()) if step.size == 1 else step


def _integer_grid(
    ends: tuple[Array, Array], quant: IntQuant | BipolarQuant, dtype: np.dtype[Any]
) -> Grid | None:
    steps = _steps_of(quant)
    if steps is None:
        return None
    scale, zero, offset = steps
    low, high = (np.asarray(quantize_to_integers(end, quant) - zero) for end in ends)
    declared = _declared(quant)
    if declared is not None and (np.any(zero != 0) or np.any(offset != 0)):
        # Codes less a zero point: of the same width, where that holds them.
        bits, signed = bits_of_range(int(low.min()), int(high.max()))
        fits = not declared.bipolar and bits <= declared.bits
        declared = IntegerType(declared.bits, signed) if fits else None
    return Grid(scale, offset, low, high, exact=True, declared=declared).held_by(dtype)


def _trunc_grid(bounds: list[Array], quant: Trunc, dtype: np.dtype[Any]) -> Grid | None:
    """Return the output's grid, for zero point 0 only."""
    if np.any(np.asarray(quant.zero_point) != 0):
        return None
    scale = _step(quant.out_scale if quant.version > 1 else quant.scale)
    low, high = (np.rint(bound / scale) for bound in bounds)
    if not bool(np.all(largest_magnitude(low, high) < 2.0**_LARGEST_BITS)):
        return None
    bits = np.asarray(quant.out_bits)
    signed = quant.signed if quant.version > 1 else bool(np.any(low < 0))
    declared = IntegerType(int(np.ceil(bits.max())), signed=signed)
    ends = (low.astype(np.int64), high.astype(np.int64))
    grid = Grid(scale, np.zeros_like(scale), *ends, exact=True).held_by(dtype)
    # Version 1 does not clamp: what comes in beyond its type comes out beyond its own.
    fits = grid.needed.bits + int(signed and not grid.needed.signed) <= declared.bits
    return replace(grid, declared=declared if fits else None)


def _minifloats(ends: tuple[Array, Array], quant: FloatQuant) -> ValueInfo | None:
    """Return the range of a minifloat quantizer.

    Its formula keeps order but for a guard among the smallest normal numbers, so that the ends
    are moved outward by one step.
    """
    scale, mantissa, bias, exponent = (
        _step(p)
        for p in (quant.scale, quant.mantissa_bits, quant.exponent_bias, quant.exponent_bits)
    )
    limit = np.minimum(largest_float(exponent, mantissa, bias), np.asarray(quant.max_val))
    low, high = (quantize(end, quant).astype(np.float64) for end in ends)
    smallest = scale * np.exp2(1.0 - bias - mantissa)
    above = high + np.abs(high) * np.exp2(-mantissa) + smallest
    below = low - np.abs(low) * np.exp2(-mantissa) - smallest
    low, high = np.where(ends[0] >= 0, 0.0, below), np.where(ends[1] <= 0, 0.0, above)
    if quant.saturation:
        largest = np.asarray(limit.astype(np.float32) * scale.astype(np.float32))
        low = np.maximum(low, -largest.astype(np.float64))
        high = np.minimum(high, largest.astype(np.float64))
    return between(*without_nan(low, high))


def of_quantized_constant(
    values: Array, quant: Quantizer, dtype: np.dtype[Any]
) -> ValueInfo | None:
    """Return what is known about a quantized constant, ``None`` if it cannot be computed."""
    result = quantize(values, quant)
    if not isinstance(quant, (IntQuant, BipolarQuant)):
        return of_constant(Constant(result))
    steps = _steps_of(quant)
    if steps is None or np.any(steps[2] != 0) or not bool(np.all(np.isfinite(values))):
        return of_constant(Constant(result))
    scale, zero, _ = steps
    integers = np.asarray(quantize_to_integers(values, quant) - zero)
    exact = bool(np.all(integers * scale == result.astype(np.float64)))
    declared = _declared(quant)
    return of_constant(Constant(result, integers, scale, exact, declared))


def _linear_parameters(site: NodeInfo) -> tuple[Array, Array] | None:
    """Return scale and zero point of a (De)QuantizeLinear, ready to broadcast."""
    scale, shape = site.array(1), site.shapes[0]
    if scale is None or shape is None or site.attr("block_size", 0):
        return None
    zero = site.array(2) if site.has(2) else np.zeros((), dtype=np.int64)
    if zero is None or zero.dtype.kind not in "iu" or not np.all(scale > 0) or scale.ndim > 1:
        return None
    if not shape and scale.size > 1:
        return None
    axis = int(site.attr("axis", 1)) % max(len(shape), 1)
    place = axis_shape(axis, len(shape))
    placed = [
        p.reshape(()) if p.size == 1 else p.reshape(place)
        for p in (scale, zero.astype(np.int64))
    ]
    return placed[0], placed[1]


def _quantize_linear(site: NodeInfo) -> ValueInfo | None:
    known = _linear_parameters(site)
    target, x = site.dtype, site.info(0)
    if known is None or target is None or target.kind not in "iu":
        return None
    (scale, zero), limits = known, np.iinfo(target)
    low, high = (
        np.clip(np.rint(end / scale).astype(np.float64) + zero, limits.min, limits.max)
        for end in rounded_outward(x.low, x.high, scale.dtype)
    )
    if np.isnan(low).any() or np.isnan(high).any() or limits.bits > 32:
        return None
    return between(low, high, whole_numbers(low, high))


def _dequantize_linear(site: NodeInfo) -> ValueInfo | None:
    known = _linear_parameters(site)
    if known is None or not site.is_float:
        return None
    x, (scale, zero) = site.info(0), known
    step = scale.astype(np.float64)
    if x.constant is not None and x.constant.values.dtype.kind in "iu":
        integers = np.asarray(x.constant.values.astype(np.int64) - zero)
        held = np.asarray(integers.astype(scale.dtype) * scale).astype(site.float_type)
        exact = bool(np.all(integers * step == held.astype(np.float64)))
        return of_constant(Constant(held, integers, step, exact))
    if x.grid is None or x.grid.has_offset or np.any(x.grid.scale != 1):
        return None
    low, high = x.grid.low - zero, x.grid.high - zero
    grid = Grid(step, np.zeros_like(step), low, high, exact=True)
    ends = [end.astype(scale.dtype) * scale for end in (low, high)]
    return between(ends[0], ends[1], grid.held_by(site.float_type))


def _multi_threshold(site: NodeInfo) -> ValueInfo | None:
    """Return the range of how many thresholds a value reaches, scaled and moved."""
    thresholds, x = site.array(1), site.info(0)
    rank = None if site.shapes[0] is None else len(site.shapes[0])
    if thresholds is None or thresholds.ndim != 2 or rank is None:
        return None
    if np.isnan(thresholds).any():
        return None
    axis = channel_axis(str(site.attr("data_layout", "")), rank)
    if thresholds.shape[0] == 1 or x.channel_axis not in (None, axis):
        x = collapsed(x)
    table, shape = thresholds.astype(np.float64), axis_shape(axis, rank)
    counts = [
        (table <= end.reshape(-1, 1)).sum(axis=1, dtype=np.int64).reshape(shape)
        for end in (x.low, x.high)
    ]
    step = np.array(site.attr("out_scale", 1.0), dtype=np.float64)
    offset = np.array(site.attr("out_bias", 0.0), dtype=np.float64)
    return _counted(step, offset, counts[0], counts[1]) if step > 0 else None


def _counted(step: Array, offset: Array, low: Array, high: Array) -> ValueInfo:
    """Return what is known about counts times a step plus an offset, in float32."""
    steps = whole_multiples(offset, step)
    grid = Grid(step, offset, low, high, exact=False)
    if steps is not None:
        grid = Grid(step, ZERO, low + steps, high + steps, exact=False)
    below, above = grid.ends()
    reach = largest_magnitude(below, above) + np.abs(offset)
    if holds(np.dtype(np.float32), reach, step, offset):
        return between(below, above, replace(grid, exact=True))
    margin = reach * 2.0**-22
    return between(below - margin, above + margin, grid)


CUSTOM_RULES: RuleTable = {
    **dict.fromkeys(dialect.QUANTIZERS, _quantize),
    dialect.THRESHOLDS: _multi_threshold,
}
"""Rules of the quantizers' own domain."""

RULES: RuleTable = {
    "DequantizeLinear": _dequantize_linear,
    "QuantizeLinear": _quantize_linear,
}
