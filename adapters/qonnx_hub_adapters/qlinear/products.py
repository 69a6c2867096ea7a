"""Layers that are sums of products of integers: which nodes are, and what they multiply."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir
from onnx_ir import Attr, Node, Value

from qonnx_hub_adapters.qlinear.constants import (
    Weight,
    quantizer_of,
    read_number,
    read_weight,
)
from qonnx_hub_adapters.qlinear.epilogue import Layout, Step
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
from qonnx_hub_ir.quantizers import Array, signed_bits

LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""What reports count as a layer."""

POOLS = frozenset({"AveragePool", "GlobalAveragePool"})

Spreading = Callable[[Emitter, Codes, Value], Value]
"""(emitter, codes, zero point) -> integers with zeros put between them."""


@dataclass(frozen=True, slots=True, eq=False)
class Product:
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
    layout: Layout
    sums: SumRange
    bias: Array | None = None
    divisor: int = 1
    attributes: tuple[Attr, ...] = ()
    quantizers: tuple[Node, ...] = ()
    spread: Spreading | None = None
    other: Codes | None = None

    @property
    def steps(self) -> list[Step]:
        """What the node does to the scaled sum."""
        divisor, bias = self.divisor, self.bias
        steps = []
        if divisor != 1:
            steps.append(Step(None, lambda t: t / t.dtype.type(divisor)))
        if bias is not None:
            steps.append(Step(None, lambda t: t + bias.astype(t.dtype)))
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


@dataclass(slots=True)
class _Parts:
    """What reading a node collects before the ranges are known."""

    weights: Array
    scale: Array
    is_conv: bool
    layout: Layout
    attributes: list[Attr] = field(default_factory=list)
    bias: Value | None = None
    divisor: int = 1
    quantizer: Node | None = None
    spread: Spreading | None = None


def read_product(node: Node, x: Codes) -> Product | str:
    """Return the integer product that a node is, or why it is none.

    Args:
        node: A node of :data:`LAYERS` or :data:`POOLS`.
        x: Integers of its first input.
    """
    readers = {
        "AveragePool": _average_pool,
        "Conv": _conv,
        "ConvTranspose": _conv_transpose,
        "Gemm": _gemm,
        "GlobalAveragePool": _global_average_pool,
        "MatMul": _matmul,
    }
    parts = readers[node.op_type](node)
    if isinstance(parts, str):
        return parts
    flat = parts.weights if parts.is_conv else parts.weights.T
    columns = flat.reshape(len(flat), -1)
    # Padding is level 0, whether the quantizer makes it or not.
    sums = sum_range(columns, min(x.low, 0), max(x.high, 0))
    if np.any(sums.low < INT32[0]) or np.any(sums.high > INT32[1]):
        return "its sums can exceed 32 bits"
    quantizers = [] if parts.quantizer is None else [parts.quantizer]
    bias = None
    if parts.bias is not None:
        number = read_number(parts.bias)
        if number is not None and parts.is_conv:
            bias = number.reshape(-1, 1)
        elif number is not None:
            bias = parts.layout.per_channel(number)
        if bias is None or bias.dtype != np.float32 or not np.all(np.isfinite(bias)):
            return "its bias is no constant per channel"
        own = quantizer_of(parts.bias)
        quantizers += [] if own is None else [own]
    return Product(
        node=node,
        x=x,
        is_conv=parts.is_conv,
        weights=parts.weights,
        scale=parts.scale,
        layout=parts.layout,
        sums=sums,
        bias=bias,
        divisor=parts.divisor,
        attributes=tuple(parts.attributes),
        quantizers=tuple(quantizers),
        spread=parts.spread,
    )


def _rank(node: Node) -> int | None:
    shape = node.outputs[0].shape
    return None if shape is None else len(shape)


def _integer(node: Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else int(attribute.value)


def _integers(node: Node, name: str, default: Sequence[int]) -> list[int]:
    attribute = node.attributes.get(name)
    return [int(v) for v in (default if attribute is None else attribute.value)]


def _per_channel(weight: Weight, axis: int) -> Array | None:
    """Return the scale along one axis, (C,); ``None`` if it varies along another."""
    scale = np.moveaxis(weight.scale, axis, 0)
    flat = scale.reshape(len(scale), -1)
    if flat.shape[1] == 0 or np.any(flat != flat[:, :1]):
        return None
    return np.ascontiguousarray(flat[:, 0])


_RANK = "the rank of its output is not known"
_SCALES = "its weight has scales along an axis that is summed over"


def _matmul(node: Node) -> _Parts | str:
    weight, rank = read_weight(node.inputs[1]), _rank(node)
    if isinstance(weight, str):
        return weight
    if weight.levels.ndim != 2 or rank is None or rank < 2:
        return "its weight does not have two axes, or its input is a vector"
    scale = _per_channel(weight, 1)
    if scale is None:
        return _SCALES
    layout = Layout(rank, rank - 1, len(scale))
    return _Parts(weight.levels, scale, False, layout, quantizer=weight.quantizer)


def _gemm(node: Node) -> _Parts | str:
    factors = [node.attributes[n].value for n in ("alpha", "beta") if n in node.attributes]
    if any(factor != 1.0 for factor in factors) or _integer(node, "transA", 0):
        return "it has factors, or its first input is transposed"
    weight = read_weight(node.inputs[1])
    if isinstance(weight, str):
        return weight
    if _integer(node, "transB", 0):
        weight = weight.map(np.transpose)
    scale = _per_channel(weight, 1)
    if scale is None:
        return _SCALES
    parts = _Parts(weight.levels, scale, False, Layout(2, 1, len(scale)))
    parts.quantizer = weight.quantizer
    parts.bias = node.inputs[2] if len(node.inputs) > 2 else None
    return parts


def _conv(node: Node) -> _Parts | str:
    weight, rank = read_weight(node.inputs[1]), _rank(node)
    if isinstance(weight, str):
        return weight
    scale = _per_channel(weight, 0)
    if rank is None:
        return _RANK
    if scale is None:
        return _SCALES
    parts = _Parts(weight.levels, scale, True, Layout(rank, 1, len(scale)))
    parts.attributes = list(node.attributes.values())
    parts.bias = node.inputs[2] if len(node.inputs) > 2 else None
    parts.quantizer = weight.quantizer
    return parts


def _conv_transpose(node: Node) -> _Parts | str:
    """Read a transposed convolution as a convolution with turned kernels.

    Its weight is (C, M/group, *kernel). Strides put zeros between the activations first.
    """
    weight, rank = read_weight(node.inputs[1]), _rank(node)
    if isinstance(weight, str):
        return weight
    automatic = "auto_pad" in node.attributes and node.attributes["auto_pad"].value != "NOTSET"
    if rank is None:
        return _RANK
    if automatic or "output_shape" in node.attributes:
        return "its padding follows from its output's size"
    axes = rank - 2
    group = _integer(node, "group", 1)
    turned = weight.map(lambda array: _turned(array, group))
    scale = _per_channel(turned, 0)
    if scale is None:
        return _SCALES
    kernel = turned.levels.shape[2:]
    dilations = _integers(node, "dilations", [1] * axes)
    pads = _integers(node, "pads", [0] * 2 * axes)
    strides = _integers(node, "strides", [1] * axes)
    extra = _integers(node, "output_padding", [0] * axes)
    reach = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
    begin = [r - p for r, p in zip(reach, pads[:axes], strict=True)]
    # Spreading leaves stride - 1 zeros behind the last activation.
    end = [
        r - p + e - (s - 1)
        for r, p, e, s in zip(reach, pads[axes:], extra, strides, strict=True)
    ]
    spread = None
    if any(s > 1 for s in strides) or any(p < 0 for p in begin + end):
        x = node.inputs[0]
        dims = None if x is None or x.shape is None else list(x.shape)[1:]
        if dims is None or not all(isinstance(d, int) for d in dims):
            return "it has strides on a value of unknown size"
        spread = _spreading([int(d) for d in dims if isinstance(d, int)], strides, begin, end)
        begin, end = [0] * axes, [0] * axes
    parts = _Parts(turned.levels, scale, True, Layout(rank, 1, len(scale)), spread=spread)
    parts.attributes = [
        onnx_ir.AttrInt64("group", group),
        onnx_ir.AttrInt64s("pads", begin + end),
        onnx_ir.AttrInt64s("dilations", dilations),
    ]
    parts.bias = node.inputs[2] if len(node.inputs) > 2 else None
    parts.quantizer = weight.quantizer
    return parts


def _turned(array: Array, group: int) -> Array:
    """Return (C, M/group, *kernel) as (M, C/group, *kernel) with kernels turned round."""
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

        def ints(label: str, numbers: Sequence[int]) -> Value:
            return emit.constant(label, np.array(numbers, dtype=np.int64))

        value = codes.value
        if any(stride > 1 for stride in strides):
            value = emit.add("Reshape", [value, ints("split", split)])
            value = emit.add("Pad", [value, ints("gaps", [0] * len(gaps) + gaps), zero])
            value = emit.add("Reshape", [value, ints("merged", merged)])
        border = [0, 0, *begin, 0, 0, *end]
        return emit.add("Pad", [value, ints("border", border), zero])

    return spread


def _average_pool(node: Node) -> _Parts | str:
    kernel = _integers(node, "kernel_shape", [])
    padded = any(_integers(node, "pads", [0]))
    automatic = (
        "auto_pad" in node.attributes and node.attributes["auto_pad"].value
        not in {"NOTSET", "VALID"}
    )  # fmt: skip
    if automatic or (padded and not _integer(node, "count_include_pad", 0)):
        return "its windows at the border average fewer values"
    if _integer(node, "ceil_mode", 0):
        return "its windows may reach beyond the border"
    kept = ("strides", "pads", "dilations")
    attributes = [node.attributes[name] for name in kept if name in node.attributes]
    return _ones(node, kernel, attributes)


def _global_average_pool(node: Node) -> _Parts | str:
    x = node.inputs[0]
    dims = [] if x is None or x.shape is None else list(x.shape)[2:]
    kernel = [d for d in dims if isinstance(d, int)]
    if not kernel or len(kernel) != len(dims):
        return "it averages over a size that is not known"
    return _ones(node, kernel, [])


def _ones(node: Node, kernel: list[int], attributes: list[Attr]) -> _Parts | str:
    """Return an average as a sum per channel, by weights of one, and a division."""
    x = node.inputs[0]
    channels = None if x is None or x.shape is None else list(x.shape)[1]
    if not isinstance(channels, int):
        return "its number of channels is not known"
    layout = Layout(len(kernel) + 2, 1, channels)
    ones = np.ones((channels, 1, *kernel), dtype=np.int16)
    parts = _Parts(ones, np.ones(channels, dtype=np.float32), True, layout)
    parts.attributes = [*attributes, onnx_ir.AttrInt64("group", channels)]
    parts.divisor = math.prod(kernel)
    return parts
