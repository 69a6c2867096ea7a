"""Layers that are sums of products of integers: which nodes are, and what they multiply."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx_ir import Node, Value

from qonnx_hub_adapters.qlinear.constants import Weight, quantizer_of, read_number, read_weight
from qonnx_hub_adapters.qlinear.epilogue import ChannelLayout, EpilogueStep
from qonnx_hub_adapters.qlinear.integer_values import Codes
from qonnx_hub_ir.analysis.integer_sums import (
    FLOAT32_WHOLE,
    INT32,
    SumRange,
    odd_part,
    saturates_in_16_bits,
    sum_range,
)
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import attribute, dims, input_of, rank_of
from qonnx_hub_ir.quantizers import Array, signed_bits

Attributes = Mapping[str, Any]

Spreading = Callable[[Emitter, Codes, Value], Value]
"""(emitter, codes, zero point) -> integers with zeros put between them."""


def as_they_are(emit: Emitter, codes: Codes, zero: Value) -> Value:
    """Return integers without zeros between them."""
    return codes.value


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedProduct:
    """A sum of integer products, and what the node does to it in float.

    Attributes:
        node: The node.
        x: Its activations.
        is_conv: Whether it is a convolution, else a matrix product with two-axis weights.
        weights: Levels in the layout of the integer operator: (M, C/group, *kernel) or (K, N).
        scale: Weight scale per output channel, (C,) float32.
        layout: Where the output's channels lie.
        sums: The sums that can occur.
        bias: What the node adds to the scaled sum, (C or 1, 1) float32.
        divisor: What the node divides the scaled sum by.
        attributes: Attributes of the convolution.
        quantizers: Nodes that quantize its constants; the weight's first.
        spread: Puts zeros between the activations, for a strided transposed convolution.
        other: Integers of the second factor, where that is an activation too: then the weights
            only tell its length and reach.
    """

    node: Node
    x: Codes
    is_conv: bool
    weights: Array
    scale: Array
    layout: ChannelLayout
    sums: SumRange
    bias: Array | None = None
    divisor: int = 1
    attributes: Attributes = field(default_factory=dict)
    quantizers: tuple[Node, ...] = ()
    spread: Spreading = as_they_are
    other: Codes | None = None

    @property
    def steps(self) -> list[EpilogueStep]:
        """What the node does to the scaled sum."""
        divisor, bias = self.divisor, self.bias
        steps = []
        if divisor != 1:
            steps.append(EpilogueStep(None, lambda t: t / t.dtype.type(divisor)))
        if bias is not None:
            steps.append(EpilogueStep(None, lambda t: t + bias.astype(t.dtype)))
        return steps

    @property
    def columns(self) -> Array:
        """The weights per output channel, (C, terms)."""
        flat = self.weights if self.is_conv else self.weights.T
        return flat.reshape(len(flat), -1)

    @property
    def unit(self) -> Array:
        """Size of one unit of the sum, (C, 1) float32: both scales, multiplied once."""
        return np.asarray(self.x.scale * self.scale, dtype=np.float32).reshape(-1, 1)

    @property
    def is_exact(self) -> bool:
        """Whether the float32 layer computes these sums without rounding, in any order."""
        terms = odd_part(self.x.scale) * odd_part(self.scale) * self.sums.magnitude
        smallest = float(np.min(self.unit, initial=1.0))
        return bool(np.all(terms <= FLOAT32_WHOLE)) and smallest >= 2.0**-120

    @property
    def bits(self) -> int:
        """Bits that the accumulator needs at worst."""
        return signed_bits(
            int(self.sums.low.min(initial=0)), int(self.sums.high.max(initial=0))
        )

    @property
    def may_saturate(self) -> bool:
        """Whether byte products can overflow where two of them are added in 16 bits.

        Unsigned bytes by unsigned ones are widened first.
        """
        if self.other is not None and not self.other.form.signed:
            return False
        return saturates_in_16_bits(self.x.reach, int(np.abs(self.weights).max(initial=0)))


def read_product(node: Node, x: Codes) -> QuantizedProduct | str:
    """Return the integer product that a layer or an average pool is, or why it is none.

    Args:
        node: A node that :func:`is_summed` knows.
        x: Integers of its first input.
    """
    if node.op_type in _POOLS:
        return _POOLS[node.op_type](node, x)
    weight = read_weight(node.inputs[1])
    return weight if isinstance(weight, str) else _LAYERS[node.op_type](node, x, weight)


def read_pair(node: Node, x: Codes, other: Codes) -> QuantizedProduct | str:
    """Return the integer product of two activations that a MatMul is, or why it is none.

    All columns of the result are alike: one scale, one range of sums.

    Args:
        node: A MatMul.
        x: Integers of its first input.
        other: Integers of its second input.
    """
    rank, factor = rank_of(node.outputs[0]), dims(node.inputs[1]) or ()
    # As many products are added as the last axis but one of the second factor is long.
    length = factor[-2] if len(factor) > 1 else None
    if rank is None or rank < 2 or not isinstance(length, int):
        return "its sums have a length that is not known"
    ends = [a * b for a in (x.low, x.high) for b in (other.low, other.high)]
    largest = max(abs(end) for end in ends) * length
    if largest > INT32[1]:
        return "its sums can exceed 32 bits"
    sums = SumRange(
        np.array([min(ends) * length], dtype=np.int64),
        np.array([max(ends) * length], dtype=np.int64),
        np.array([largest], dtype=np.int64),
    )
    return QuantizedProduct(
        node=node,
        x=x,
        is_conv=False,
        # Stands for any second factor; what it holds is only its length and its reach.
        weights=np.full((length, 1), max(abs(other.low), abs(other.high)), dtype=np.int16),
        scale=np.asarray(other.scale, dtype=np.float32).reshape(1),
        layout=ChannelLayout(rank, rank - 1, 1),
        sums=sums,
        other=other,
    )


def is_summed(node: Node) -> bool:
    """Return whether a node may be a sum of integer products."""
    return node.domain == "" and (node.op_type in _POOLS or node.op_type in _LAYERS)


def _product(
    node: Node,
    x: Codes,
    weights: Array,
    scale: Array,
    layout: ChannelLayout,
    *,
    is_conv: bool = True,
    quantizer: Node | None = None,
    **more: Any,
) -> QuantizedProduct | str:
    """Return a product once its sums and its bias are known to fit; its fields are given."""
    flat = weights if is_conv else weights.T
    # Padding is level 0, whether the quantizer makes it or not.
    sums = sum_range(flat.reshape(len(flat), -1), min(x.low, 0), max(x.high, 0))
    if np.any(sums.low < INT32[0]) or np.any(sums.high > INT32[1]):
        return "its sums can exceed 32 bits"
    quantizers, bias = [quantizer], None
    given = input_of(node, 2)
    if given is not None:
        number = read_number(given)
        if number is not None:
            bias = number.reshape(-1, 1) if is_conv else layout.per_channel(number)
        if bias is None or bias.dtype != np.float32 or not np.all(np.isfinite(bias)):
            return "its bias is no constant per channel"
        quantizers.append(quantizer_of(given))
    known = tuple(one for one in quantizers if one is not None)
    return QuantizedProduct(
        node, x, is_conv, weights, scale, layout, sums, bias, quantizers=known, **more
    )


def _per_channel(weight: Weight, axis: int) -> Array | None:
    """Return the scale along one axis, (C,); ``None`` if it varies along another."""
    scale = np.moveaxis(weight.scale, axis, 0)
    flat = scale.reshape(len(scale), -1)
    if flat.shape[1] == 0 or np.any(flat != flat[:, :1]):
        return None
    return np.ascontiguousarray(flat[:, 0])


_SCALES = "its weight has scales along an axis that is summed over"


def _matrix_product(node: Node, x: Codes, weight: Weight) -> QuantizedProduct | str:
    rank = rank_of(node.outputs[0])
    if node.op_type == "Gemm":
        factors = [attribute(node, name, 1.0) for name in ("alpha", "beta")]
        if factors != [1.0, 1.0] or attribute(node, "transA", 0):
            return "it has factors, or its first input is transposed"
        rank, weight = 2, weight.map(np.transpose) if attribute(node, "transB", 0) else weight
    if weight.levels.ndim != 2 or rank is None or rank < 2:
        return "its weight does not have two axes, or its input is a vector"
    scale, quantizer = _per_channel(weight, 1), weight.quantizer
    if scale is None:
        return _SCALES
    layout = ChannelLayout(rank, rank - 1, len(scale))
    return _product(node, x, weight.levels, scale, layout, is_conv=False, quantizer=quantizer)


def _convolution(
    node: Node, x: Codes, weight: Weight, attributes: Attributes, **more: Any
) -> QuantizedProduct | str:
    rank, scale = rank_of(node.outputs[0]), _per_channel(weight, 0)
    if rank is None:
        return "the rank of its output is not known"
    if scale is None:
        return _SCALES
    layout, more = ChannelLayout(rank, 1, len(scale)), {**more, "attributes": attributes}
    return _product(node, x, weight.levels, scale, layout, quantizer=weight.quantizer, **more)


def _conv_transpose(node: Node, x: Codes, weight: Weight) -> QuantizedProduct | str:
    """Read a transposed convolution as a convolution with flipped kernels.

    Its weight is (C, M/group, *kernel). Strides put zeros between the activations first.
    """
    if attribute(node, "auto_pad", "NOTSET") != "NOTSET" or "output_shape" in node.attributes:
        return "its padding follows from its output's size"
    group = attribute(node, "group", 1)
    flipped = weight.map(lambda array: _flipped(array, group))
    kernel = flipped.levels.shape[2:]
    axes = len(kernel)
    dilations = list(attribute(node, "dilations", [1] * axes))
    pads = attribute(node, "pads", [0] * 2 * axes)
    strides = list(attribute(node, "strides", [1] * axes))
    extra = attribute(node, "output_padding", [0] * axes)
    reach = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
    begin = [r - p for r, p in zip(reach, pads[:axes], strict=True)]
    # Spreading leaves stride - 1 zeros behind the last activation.
    end = [
        r - p + e - (s - 1)
        for r, p, e, s in zip(reach, pads[axes:], extra, strides, strict=True)
    ]
    spread: Spreading = as_they_are
    if any(s > 1 for s in strides) or any(p < 0 for p in begin + end):
        sizes = [size for size in (dims(node.inputs[0]) or ())[1:] if isinstance(size, int)]
        if len(sizes) <= axes:
            return "it has strides on a value of unknown size"
        spread = _spreading(sizes, strides, begin, end)
        begin, end = [0] * axes, [0] * axes
    attributes = {"group": group, "pads": begin + end, "dilations": dilations}
    return _convolution(node, x, flipped, attributes, spread=spread)


def _flipped(array: Array, group: int) -> Array:
    """Return (C, M/group, *kernel) as (M, C/group, *kernel) with flipped kernels."""
    kernel = array.shape[2:]
    parts = array.reshape(group, array.shape[0] // group, array.shape[1], *kernel)
    swapped = np.swapaxes(parts, 1, 2).reshape(-1, array.shape[0] // group, *kernel)
    return np.flip(swapped, axis=tuple(range(2, array.ndim)))


def _spreading(
    dims: list[int], strides: list[int], begin: list[int], end: list[int]
) -> Spreading:
    """Return what puts ``stride - 1`` zeros behind every activation, then pads (or cuts)."""
    channels, sizes = dims[0], dims[1:]

    def spread(emit: Emitter, codes: Codes, zero: Value) -> Value:
        split = [0, channels, *(n for size in sizes for n in (size, 1))]
        gaps = [0, 0, *(n for stride in strides for n in (0, stride - 1))]
        merged = [0, channels, *(a * b for a, b in zip(sizes, strides, strict=True))]
        value = codes.value
        if any(stride > 1 for stride in strides):
            value = emit.add("Reshape", [value, emit.integers("split", split)])
            ends = emit.integers("gaps", [0] * len(gaps) + gaps)
            value = emit.add("Pad", [value, ends, zero])
            value = emit.add("Reshape", [value, emit.integers("merged", merged)])
        border = emit.integers("border", [0, 0, *begin, 0, 0, *end])
        return emit.add("Pad", [value, border, zero])

    return spread


def _average_pool(node: Node, x: Codes) -> QuantizedProduct | str:
    automatic = attribute(node, "auto_pad", "NOTSET") not in {"NOTSET", "VALID"}
    padded = any(attribute(node, "pads", ()))
    if automatic or (padded and not attribute(node, "count_include_pad", 0)):
        return "its windows at the border average fewer values"
    if attribute(node, "ceil_mode", 0):
        return "its windows may reach beyond the border"
    kept = ("strides", "pads", "dilations")
    attributes = {n: node.attributes[n].value for n in kept if n in node.attributes}
    return _sum_of_window(node, x, list(attribute(node, "kernel_shape", ())), attributes)


def _global_average_pool(node: Node, x: Codes) -> QuantizedProduct | str:
    sizes = (dims(node.inputs[0]) or ())[2:]
    kernel = [size for size in sizes if isinstance(size, int)]
    if not kernel or len(kernel) != len(sizes):
        return "it averages over a size that is not known"
    return _sum_of_window(node, x, kernel, {})


def _sum_of_window(
    node: Node, x: Codes, kernel: list[int], attributes: Attributes
) -> QuantizedProduct | str:
    """Return an average as a sum per channel, by weights of one, and a division."""
    _, channels, *_ = dims(node.inputs[0]) or (None, None)
    if not isinstance(channels, int):
        return "its number of channels is not known"
    ones = np.ones((channels, 1, *kernel), dtype=np.int16)
    return _product(
        *(node, x, ones, np.ones(channels, dtype=np.float32)),
        ChannelLayout(len(kernel) + 2, 1, channels),
        attributes={**attributes, "group": channels},
        divisor=math.prod(kernel),
    )


_POOLS: Mapping[str, Callable[[Node, Codes], QuantizedProduct | str]] = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average_pool,
}

_LAYERS: Mapping[str, Callable[[Node, Codes, Weight], QuantizedProduct | str]] = {
    "Conv": lambda node, x, weight: _convolution(
        node, x, weight, {name: attr.value for name, attr in node.attributes.items()}
    ),
    "ConvTranspose": _conv_transpose,
    "Gemm": _matrix_product,
    "MatMul": _matrix_product,
}
