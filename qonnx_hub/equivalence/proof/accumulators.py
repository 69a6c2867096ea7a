"""What integer hardware accumulates in each layer, and whether float32 arithmetic follows it.

A dense layer whose weights and input are quantized computes, in units of both scales, a sum
of integer products. Its range follows from the weights themselves and the range of the input:
each product is largest where the input is at one of its ends. Float32 computes the same sum
exactly, in any order, if no sum of magnitudes exceeds 2**24 and both scales are powers of two;
beyond, a simulation in float32 and integer hardware may part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub.equivalence.proof.scalar_functions import Side, code_bounds, integer_limits
from qonnx_hub_ir import dialect
from qonnx_hub_ir.passes import LowerChannelsLast
from qonnx_hub_ir.quantizers import (
    Array,
    BipolarQuant,
    IntQuant,
    integer_bounds,
    is_bipolar,
    is_power_of_two,
    single_value,
)
from qonnx_hub_ir.semantics import quantize_to_integers
from qonnx_hub_ir.verify import label

EXACT_SUM = 1 << 24
"""Largest magnitude up to which float32 holds every whole number."""

_LAYERS = frozenset({"Conv", "Gemm", "MatMul"})

_KEEPS_VALUES = frozenset(
    {
        *("DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "Identity", "MaxPool"),
        *("Reshape", "Slice", "SpaceToDepth", "Squeeze", "Transpose", "Unsqueeze"),
    }
)
"""Operators whose output holds nothing but elements of their first input."""


@dataclass(frozen=True, slots=True)
class Accumulator:
    """The integer sum of one dense layer, in units of weight scale times input scale.

    Attributes:
        node: Operator and name of the layer.
        low: Lowest value that the accumulator can hold, from zero on, in any order of adding.
        high: Highest such value.
        bits: Width of the signed integer that holds both.
        float32_exact: Whether float32 arithmetic on the quantized values gives the integer sum
            exactly, in any order of adding.
        input_bits: Width of the input's integers, without its zero point.
        weight_bits: Width of the weights' integers.
        magnitude: Largest sum of magnitudes of all products of one output.
        exact_scales: Whether both scales are powers of two, so that the products of the
            quantized values are exact as well.
    """

    node: str
    low: int
    high: int
    bits: int
    float32_exact: bool
    input_bits: int
    weight_bits: int
    magnitude: int
    exact_scales: bool


@dataclass(frozen=True, slots=True)
class _Range:
    """A tensor on one integer grid: ``value = integer * scale``.

    Attributes:
        low: Lowest integer.
        high: Highest integer.
        scale: The scale.
        bits: Width of the quantizer's integers.
    """

    low: int
    high: int
    scale: float
    bits: int


@dataclass(frozen=True, slots=True)
class _Weights:
    """Stored integers: ``value = integers * scale``.

    Attributes:
        integers: int64, without zero point.
        scale: float64, in the shape of the integers.
        bits: Width of the quantizer's integers.
    """

    integers: Array
    scale: Array
    bits: int


def accumulator_ranges(model: Model) -> list[Accumulator]:
    """Return the integer accumulator of every dense layer that has one.

    These are MatMul, Gemm and Conv, grouped ones too, whose weights are constant and quantized
    with one scale per output, and whose input is quantized with one scale; between the input's
    quantizer and the layer may stand operators that pass its values on, and Relu. Biases are
    not part of the sum. Layers that are otherwise are left out.

    Args:
        model: An IR model with ``Quant`` and ``BipolarQuant``, or with QuantizeLinear and
            DequantizeLinear.

    Raises:
        UnsupportedGraphError: Operators that nothing can run; all of them are listed.
        ExecutionError: A node with constant inputs fails.
    """
    if any(node.domain == dialect.CHANNELS_LAST_DOMAIN for node in model.graph):
        model = model.clone()
        LowerChannelsLast()(model)
    side = Side(model)
    found = (_accumulator(side, node) for node in model.graph if _is_layer(node))
    return [accumulator for accumulator in found if accumulator is not None]


def _is_layer(node: Node) -> bool:
    return node.op_type in _LAYERS and node.domain in dialect.STANDARD_DOMAINS


def _accumulator(side: Side, node: Node) -> Accumulator | None:
    left, right = node.inputs[0], node.inputs[1]
    if left is None or right is None or (left in side.constants) == (right in side.constants):
        return None
    stored, data = (right, left) if right in side.constants else (left, right)
    weights, span = _weights(side, stored), _range(side, data)
    if weights is None or span is None:
        return None
    rank = weights.integers.ndim
    axes = _summed_axes(node, rank, is_right=stored is right)
    first = tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(rank))
    if not weights.integers.size or not np.all(weights.scale == weights.scale[first]):
        return None
    return _summed(label(node), weights, span, axes)


def _summed_axes(node: Node, rank: int, *, is_right: bool) -> tuple[int, ...]:
    """Return the axes of the weights over which the layer adds."""
    if node.op_type == "Conv":
        return tuple(range(1, rank))
    if node.op_type == "MatMul":
        return (max(rank - 2, 0) if is_right else rank - 1,)
    turned = node.attributes.get("transB" if is_right else "transA")
    is_turned = turned is not None and bool(turned.value)
    return (int(is_turned) if is_right else int(not is_turned),)


def _summed(name: str, weights: _Weights, span: _Range, axes: tuple[int, ...]) -> Accumulator:
    integers = weights.integers
    reach = max(abs(span.low), abs(span.high), 1)
    largest = int(np.abs(integers).max(initial=0)) * reach * max(integers.size, 1)
    if largest >= 1 << 62:
        # Python's integers do not wrap.
        integers = integers.astype(object)
    ends = (integers * span.low, integers * span.high)
    nothing = integers * 0
    low = np.minimum(np.minimum(*ends), nothing).sum(axis=axes)
    high = np.maximum(np.maximum(*ends), nothing).sum(axis=axes)
    magnitude = int((abs(integers) * max(abs(span.low), abs(span.high))).sum(axis=axes).max())
    lowest, highest = int(low.min()), int(high.max())
    exact_scales = _products_are_exact(weights.scale, span.scale, magnitude)
    return Accumulator(
        node=name,
        low=lowest,
        high=highest,
        bits=max(_signed_bits(lowest), _signed_bits(highest)),
        float32_exact=magnitude <= EXACT_SUM and exact_scales,
        input_bits=span.bits,
        weight_bits=weights.bits,
        magnitude=magnitude,
        exact_scales=exact_scales,
    )


def _products_are_exact(scale: Array, other: float, magnitude: int) -> bool:
    """Return whether the scales are powers of two that keep all sums normal numbers."""
    units = scale * other
    if not is_power_of_two(scale) or not is_power_of_two(np.array(other, dtype=np.float64)):
        return False
    return bool(units.min() >= 2.0**-126 and units.max() * max(magnitude, 1) < 2.0**128)


def _signed_bits(number: int) -> int:
    return (number if number >= 0 else ~number).bit_length() + 1


def _range(side: Side, value: Value) -> _Range | None:
    """Return the integers that a value may hold; ``None`` if it is on no one grid."""
    node = value.producer()
    if node is None:
        return None
    if dialect.is_quantizer(node):
        return _range_of_quantizer(side, node)
    if node.domain not in dialect.STANDARD_DOMAINS:
        return None
    if node.op_type == "DequantizeLinear":
        return _range_of_integers(side, node)
    if node.op_type == "Concat":
        return _joined([_passed(side, v) for v in node.inputs])
    if node.op_type == "Relu":
        span = _passed(side, node.inputs[0])
        return span and _Range(max(span.low, 0), max(span.high, 0), span.scale, span.bits)
    if node.op_type in _KEEPS_VALUES or (node.op_type == "Pad" and _pads_zeros(side, node)):
        # Zeros are inside of every sum's range anyway.
        return _passed(side, node.inputs[0])
    return None


def _passed(side: Side, value: Value | None) -> _Range | None:
    return None if value is None else _range(side, value)


def _pads_zeros(side: Side, node: Node) -> bool:
    mode = node.attributes.get("mode")
    if mode is not None and mode.value != "constant":
        return True
    given = node.inputs[2] if len(node.inputs) > 2 else None
    return given is None or (given in side.constants and not np.any(side.constants[given]))


def _joined(spans: list[_Range | None]) -> _Range | None:
    known = [span for span in spans if span is not None]
    if len(known) != len(spans) or len({span.scale for span in known}) != 1:
        return None
    low, high = min(s.low for s in known), max(s.high for s in known)
    return _Range(low, high, known[0].scale, max(s.bits for s in known))


def _quantizer(side: Side, node: Node) -> IntQuant | BipolarQuant | None:
    """Return the quantizer with every parameter known, or ``None``."""
    known = [side.constants.get(value) if value else None for value in node.inputs[1:]]
    given = {name: attr.value for name, attr in node.attributes.items()}
    quant = dialect.make_quantizer(node.op_type, given, known, node.name or "")
    if not isinstance(quant, (IntQuant, BipolarQuant)):
        return None
    return quant if all(values is not None for values in known) else None


def _whole(values: Array | None) -> int | None:
    """Return the one whole number that all elements share."""
    number = single_value(values)
    return int(number) if number is not None and number == math.floor(number) else None


def _range_of_quantizer(side: Side, node: Node) -> _Range | None:
    quant = _quantizer(side, node)
    scale = None if quant is None else single_value(quant.scale)
    if quant is None or scale is None or not math.isfinite(scale):
        return None
    if isinstance(quant, BipolarQuant):
        return _Range(-1, 1, scale, 1)
    bits, zero = _whole(quant.bits), _whole(quant.zero_point)
    if bits is None or zero is None:
        return None
    low, high = integer_bounds(bits, signed=quant.signed, narrow=quant.narrow)
    ends = (-1, 1) if is_bipolar(quant) else (int(low), int(high))
    return _Range(ends[0] - zero, ends[1] - zero, scale, bits)


def _range_of_integers(side: Side, node: Node) -> _Range | None:
    codes, scale = node.inputs[0], single_value(_constant(side, node, 1))
    zero = _whole(_constant(side, node, 2)) if len(node.inputs) > 2 and node.inputs[2] else 0
    if codes is None or scale is None or zero is None or not math.isfinite(scale):
        return None
    ends = code_bounds(side, codes)
    if ends is None:
        return None
    low, high = ends
    return _Range(low - zero, high - zero, scale, _code_bits(low, high))


def _constant(side: Side, node: Node, index: int) -> Array | None:
    value = node.inputs[index]
    return None if value is None else side.constants.get(value)


def _code_bits(low: int, high: int) -> int:
    return high.bit_length() if low >= 0 else max(_signed_bits(low), _signed_bits(high))


def _weights(side: Side, value: Value) -> _Weights | None:
    """Return the integers behind constant weights; ``None`` if they are not known."""
    node = value.producer()
    if node is None:
        return None
    if dialect.is_quantizer(node):
        return _weights_of_quantizer(side, node)
    if node.domain not in dialect.STANDARD_DOMAINS or node.inputs[0] is None:
        return None
    if node.op_type == "DequantizeLinear":
        return _stored_weights(side, node)
    if node.op_type in {"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}:
        inner = _weights(side, node.inputs[0])
        return inner and _moved(node, inner, side.constants[value].shape)
    return None


def _moved(node: Node, weights: _Weights, shape: tuple[int, ...]) -> _Weights:
    integers, scale = weights.integers, weights.scale
    if node.op_type == "Transpose":
        perm = node.attributes.get("perm")
        order = tuple(perm.value) if perm is not None else None
        integers, scale = integers.transpose(order), scale.transpose(order)
    return _Weights(integers.reshape(shape), scale.reshape(shape), weights.bits)


def _weights_of_quantizer(side: Side, node: Node) -> _Weights | None:
    quant, stored = _quantizer(side, node), _constant(side, node, 0)
    if quant is None or stored is None or not np.all(np.isfinite(stored)):
        return None
    codes = quantize_to_integers(stored, quant)
    bits = 1
    if isinstance(quant, IntQuant):
        zero = np.asarray(quant.zero_point, dtype=np.float64)
        if not np.all(zero == np.rint(zero)):
            return None
        codes = codes - zero.astype(np.int64)
        bits = int(np.max(np.asarray(quant.bits)))
    scale = np.asarray(quant.scale, dtype=np.float64)
    spread = scale.reshape(()) if scale.size == 1 else scale
    return _Weights(codes, np.broadcast_to(spread, codes.shape), bits)


def _stored_weights(side: Side, node: Node) -> _Weights | None:
    codes, scale = _constant(side, node, 0), _constant(side, node, 1)
    if codes is None or scale is None or integer_limits(codes.dtype) is None:
        return None
    integers = codes.astype(np.int64)
    zero = _constant(side, node, 2) if len(node.inputs) > 2 else None
    given = {name: int(a.value) for name, a in node.attributes.items()}
    axis, block = given.get("axis", 1), given.get("block_size", 0)
    low, high = int(integers.min(initial=0)), int(integers.max(initial=0))
    if zero is not None:
        integers = integers - _spread(zero.astype(np.int64), integers.shape, axis, block)
    wide = _spread(scale.astype(np.float64), integers.shape, axis, block)
    return _Weights(integers, np.broadcast_to(wide, integers.shape), _code_bits(low, high))


def _spread(parameter: Array, shape: tuple[int, ...], axis: int, block: int) -> Array:
    """Return a parameter of DequantizeLinear so that it broadcasts to the data."""
    if parameter.size == 1:
        return parameter.reshape(())
    place = axis % len(shape)
    if not block:
        return parameter.reshape(-1, *(1,) * (len(shape) - 1 - place))
    repeated = np.repeat(parameter, block, axis=place)
    kept = (*(slice(None),) * place, slice(shape[place]))
    return repeated[kept]
