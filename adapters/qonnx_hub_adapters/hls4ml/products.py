"""MatMul, Gemm and Conv: integer weights where their scale can be multiplied afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from onnx_ir import Node, Value

from qonnx_hub_adapters.hls4ml.context import Context
from qonnx_hub_adapters.hls4ml.pending_affine import AffineStep, Term, add, multiply
from qonnx_hub_adapters.hls4ml.refusals import refuse
from qonnx_hub_adapters.hls4ml.weights import Weights, integer_quantizer, weights_of
from qonnx_hub_adapters.protocol import QuantizerRecord
from qonnx_hub_ir import dialect
from qonnx_hub_ir.describe import describe_quantizer
from qonnx_hub_ir.graph import permutations
from qonnx_hub_ir.graph.queries import attribute
from qonnx_hub_ir.quantizers import Array, is_power_of_two

_NO_WEIGHTS = (
    "its second operand is no constant: hls4ml's MatMul of two activations emits no code "
    "and gives garbage"
)


def lower_matmul(context: Context, node: Node) -> Term:
    """Return the term of a product with a constant matrix."""
    return _dense(context, node, transposed=False, bias=None)


def lower_gemm(context: Context, node: Node) -> Term:
    """Return the term of a Gemm: a MatMul and an Add."""
    scales = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    if scales != (1.0, 1.0) or attribute(node, "transA", 0):
        raise refuse(
            node, "alpha, beta or transA: hls4ml has no Gemm, and MatMul none of them"
        )
    bias = context.constant(node, 2)
    if bias is None and len(node.inputs) > 2 and node.inputs[2] is not None:
        raise refuse(node, "its bias is computed")
    return _dense(context, node, transposed=bool(attribute(node, "transB", 0)), bias=bias)


def _dense(context: Context, node: Node, *, transposed: bool, bias: Array | None) -> Term:
    if context.constant(node, 0) is not None:
        raise refuse(node, "a constant left operand, on which hls4ml ends with an IndexError")
    term = context.data(node)
    if len(term.shape) != 2:
        raise refuse(
            node,
            f"an input of rank {len(term.shape)}: hls4ml multiplies all its elements",
            "flatten it, or use a convolution of kernel 1",
        )
    term = _reduced(context, term, keeps_bits=True)
    operand = node.inputs[1]
    found = (
        None
        if operand is None
        else weights_of(operand, 0 if transposed else 1, bits=not context.ac_types)
    )
    if operand is None or found is None:
        raise refuse(node, _NO_WEIGHTS)
    stored = found.stored.T if transposed else found.stored
    if stored.ndim != 2:
        raise refuse(node, f"weights of rank {stored.ndim}")
    if term.order is not None:
        stored = stored[term.order]
    shape = (1, stored.shape[1])
    weights = _written(context, np.ascontiguousarray(stored), found)
    out = context.builder.add("MatMul", [term.value, weights], shape)
    steps = _after(term, found)
    _record(context, found, term)
    if bias is not None:
        steps = (*steps, add(np.broadcast_to(bias.astype(np.float32).reshape(-1), shape[1:])))
    return Term(out, shape, (0, 1), steps)


def _reduced(context: Context, term: Term, *, keeps_bits: bool) -> Term:
    """Return the term with nothing left but one factor for all, which a layer lets pass."""
    if term.bits and not keeps_bits:
        return context.settle(term)
    return term if term.is_scaled_alike() else context.settle(term)


def _written(context: Context, stored: Array, found: Weights) -> Value:
    constant = context.builder.constant(stored.astype(np.float32))
    return constant if found.quant is None else context.builder.quantize(constant, found.quant)


def _after(term: Term, found: Weights) -> tuple[AffineStep, ...]:
    if np.all(found.scale == 1):
        return term.steps
    return (*term.steps, multiply(found.scale))


def _record(context: Context, found: Weights, term: Term) -> None:
    if not found.name or found.source is None:
        return
    words = describe_quantizer(found.source)
    if found.quant is None:
        encoding = "constants of a fixed-point type"
    elif np.all(found.scale == 1):
        encoding = dialect.operator_of(found.quant)
    else:
        encoding = f"{dialect.operator_of(found.quant)} of step 1 + scale after the sum"
    context.records[found.name] = QuantizerRecord(found.name, words, encoding)
    factors = [found.scale, *(step.factor for step in term.steps)]
    if not all(is_power_of_two(np.abs(factor)) for factor in factors):
        context.builder.inexact.append(found.name)


@dataclass(frozen=True, slots=True)
class ImageWindow:
    """How a convolution or a pooling walks over an image, as ONNX states it.

    Attributes:
        kernel: Sizes.
        strides: Steps.
        pads: Begin of every axis, then end of every axis.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]

    def attributes(self) -> dict[str, list[int]]:
        """Return the ONNX attributes, all of them, as hls4ml needs them."""
        ones = [1] * len(self.kernel)
        return {
            "kernel_shape": list(self.kernel),
            "strides": list(self.strides),
            "pads": list(self.pads),
            "dilations": ones,
        }


def window_of(node: Node, sizes: Sequence[int], kernel: Sequence[int]) -> ImageWindow:
    """Return the window of a node, padding written out.

    Args:
        node: A convolution or a pooling.
        sizes: Of its image.
        kernel: Of its window.

    Raises:
        RefusedError: It is dilated.
    """
    rank = len(kernel)
    if any(step != 1 for step in attribute(node, "dilations", ())):
        raise refuse(node, "dilated: hls4ml computes the size of its output wrongly")
    strides = tuple(attribute(node, "strides", (1,) * rank))
    auto = str(attribute(node, "auto_pad", "NOTSET"))
    pads = tuple(attribute(node, "pads", (0,) * 2 * rank))
    if auto == "VALID":
        pads = (0,) * 2 * rank
    if auto.startswith("SAME"):
        total = [
            max((-(-size // step) - 1) * step + width - size, 0)
            for size, step, width in zip(sizes, strides, kernel, strict=True)
        ]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        first, last = (large, small) if auto == "SAME_LOWER" else (small, large)
        pads = (*first, *last)
    return ImageWindow(tuple(int(k) for k in kernel), strides, pads)


def output_sizes(window: ImageWindow, sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the sizes of what a window yields."""
    rank = len(window.kernel)
    padded = [size + window.pads[i] + window.pads[rank + i] for i, size in enumerate(sizes)]
    return tuple(
        (size - width) // step + 1
        for size, width, step in zip(padded, window.kernel, window.strides, strict=True)
    )


def lower_conv(context: Context, node: Node) -> Term:
    """Return the term of a convolution over one or two axes."""
    operand = node.inputs[1]
    found = None if operand is None else weights_of(operand, 0, bits=False)
    if found is None:
        raise refuse(node, "its weights are computed; hls4ml takes constant ones only")
    rank = found.stored.ndim
    if rank not in (3, 4):
        raise refuse(node, f"{rank - 2} axes; hls4ml convolves over one or two")
    term = _reduced(context, context.data(node), keeps_bits=False)
    term = context.laid_out(term, permutations.to_first(rank), node)
    group = int(attribute(node, "group", 1))
    stored, group = _grouped(found.stored, group, term.shape[1], context)
    sizes = term.shape[2:]
    window = window_of(node, sizes, stored.shape[2:])
    shape = (1, stored.shape[0], *output_sizes(window, sizes))
    _record(context, found, term)
    out, rest = _convolution(context, node, term, replace(found, stored=stored), window, group)
    return Term(out, shape, permutations.to_first(rank), rest)


def _grouped(stored: Array, group: int, channels: int, context: Context) -> tuple[Array, int]:
    """Return weights of one group, or of one per channel: hls4ml knows no others."""
    outputs, inside = stored.shape[:2]
    depthwise = group == channels == outputs and not context.ac_types
    if group == 1 or depthwise:
        return stored, group
    full = np.zeros((outputs, channels, *stored.shape[2:]), dtype=np.float32)
    per_group = outputs // group
    for output in range(outputs):
        first = output // per_group * inside
        full[output, first : first + inside] = stored[output]
    return full, 1


def _convolution(
    context: Context, node: Node, term: Term, found: Weights, window: ImageWindow, group: int
) -> tuple[Value, tuple[AffineStep, ...]]:
    bias = context.constant(node, 2)
    if bias is None and len(node.inputs) > 2 and node.inputs[2] is not None:
        raise refuse(node, "its bias is computed")
    last = np.ascontiguousarray(np.moveaxis(found.stored, 1, -1))
    inputs = [term.value, _written(context, last, found)]
    steps = _after(term, found)
    if bias is not None and not steps:
        inputs.append(context.builder.constant(bias.astype(np.float32).reshape(-1)))
    elif bias is not None:
        steps = (*steps, add(bias.astype(np.float32).reshape(-1)))
    sizes = output_sizes(window, term.shape[2:])
    attributes = {**window.attributes(), "group": group}
    domain = dialect.CHANNELS_LAST_DOMAIN
    shape = (1, *sizes, found.stored.shape[0])
    return context.builder.add("Conv", inputs, shape, attributes, domain=domain), steps


def pad_image(context: Context, term: Term, window: ImageWindow) -> tuple[Term, ImageWindow]:
    """Return an image with zeros around it, and the window that walks over it."""
    first, last = window.pads[:2], window.pads[2:]
    pads = np.array([0, *first, 0, 0, *last, 0], dtype=np.int64)
    sizes = [size + a + b for size, a, b in zip(term.shape[2:], first, last, strict=True)]
    padded = replace(term, shape=(*term.shape[:2], *sizes))
    value = context.builder.add(
        "Pad", [term.value, context.builder.constant(pads)], padded.stored_shape()
    )
    return replace(padded, value=value), replace(window, pads=(0, 0, 0, 0))


def sum_windows(context: Context, term: Term, window: ImageWindow) -> tuple[Value, int]:
    """Return the sums over the windows of every channel, and how many elements each has.

    A depthwise convolution with ones: the ``qonnx`` package has no channels-last AveragePool.
    """
    channels = term.shape[1]
    each = np.ones((channels, 1, *window.kernel), dtype=np.float32)
    ones, group = _grouped(each, channels, channels, context)
    ones = np.ascontiguousarray(np.moveaxis(ones, 1, -1))
    unit = integer_quantizer(np.ones((), dtype=np.float32), 1, False, False)
    weights = context.builder.quantize(context.builder.constant(ones), unit)
    sizes = output_sizes(window, term.shape[2:])
    return context.builder.add(
        "Conv",
        [term.value, weights],
        (1, *sizes, channels),
        {**window.attributes(), "group": group},
        domain=dialect.CHANNELS_LAST_DOMAIN,
    ), int(np.prod(window.kernel))
