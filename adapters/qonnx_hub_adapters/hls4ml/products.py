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
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph import permutations
from qonnx_hub_ir.graph.queries import attribute
from qonnx_hub_ir.passes.layers.window_pads import explicit_pads
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
    transposed = bool(attribute(node, "transB", 0))
    return _dense(context, node, transposed=transposed, bias=context.bias(node))


def _dense(context: Context, node: Node, *, transposed: bool, bias: Array | None) -> Term:
    if context.constant(node, 0) is not None:
        raise refuse(node, "a constant left operand, on which hls4ml ends with an IndexError")
    term = context.data(node)
    if len(term.shape) == 3 and not term.flat and bias is None:
        return _pointwise(context, node, term)
    if len(term.shape) != 2:
        raise refuse(
            node,
            f"an input of rank {len(term.shape)}: hls4ml multiplies all its elements",
            "flatten it, or use a convolution of kernel 1",
        )
    if not term.is_scaled_alike():
        term = context.settle(term)
    output_axis = 0 if transposed else 1
    found = weights_of(node.inputs[1], output_axis, bits=not context.ac_types)
    if found is None:
        raise refuse(node, _NO_WEIGHTS)
    stored = found.stored.T if transposed else found.stored
    if stored.ndim != 2:
        raise refuse(node, f"weights of rank {stored.ndim}")
    if term.order is not None:
        stored = stored[term.order]
    shape = (1, stored.shape[1])
    weights, steps = _written(context, np.ascontiguousarray(stored), found, term)
    out = context.builder.add("MatMul", [term.value, weights], shape)
    if bias is not None:
        steps = (*steps, add(np.broadcast_to(bias, shape[1:])))
    return Term(out, shape, (0, 1), steps)


def _pointwise(context: Context, node: Node, term: Term) -> Term:
    """Return the term of a product along the last axis of three: a convolution of kernel 1.

    hls4ml's MatMul would multiply all elements of the data at once.
    """
    found = weights_of(node.inputs[1], 1, bits=False)
    if found is None:
        raise refuse(node, _NO_WEIGHTS)
    if found.stored.ndim != 2:
        raise refuse(node, f"weights of rank {found.stored.ndim}")
    if term.bits or not term.is_scaled_alike():
        term = context.settle(term)
    term = context.laid_out(term, (0, 1, 2), node)
    # Outputs, kernel, inputs: as the qonnx package stores weights of channels-last layers.
    stored = np.ascontiguousarray(found.stored.T[:, None, :])
    weights, steps = _written(context, stored, found, term)
    made = Term(term.value, (*term.shape[:2], len(stored)), term.axes)
    window = ImageWindow((1,), (1,), (0, 0))
    attributes = {**window.attributes(), "group": 1}
    domain = dialect.CHANNELS_LAST_DOMAIN
    out = context.builder.put(made, "Conv", [term.value, weights], attributes, domain=domain)
    return replace(out, steps=steps)


def _written(
    context: Context, stored: Array, found: Weights, term: Term
) -> tuple[Value, tuple[AffineStep, ...]]:
    """Return the weights in the new graph, and what is yet to be done to their products."""
    _record(context, found, term)
    weights = context.builder.constant(stored.astype(np.float32))
    if found.quant is not None:
        weights = context.builder.quantize(weights, found.quant)
    scaled = () if np.all(found.scale == 1) else (multiply(found.scale),)
    return weights, (*term.steps, *scaled)


def _record(context: Context, found: Weights, term: Term) -> None:
    if not found.name or found.source is None:
        return
    encoding = "constants of a fixed-point type"
    if found.quant is not None:
        encoding = dialect.operator_of(found.quant)
        if np.any(found.scale != 1):
            encoding = f"{encoding} of step 1 + scale after the sum"
    context.record(found.name, found.source, encoding)
    factors = [found.scale, *(step.factor for step in term.steps)]
    if not all(is_power_of_two(np.abs(factor)) for factor in factors):
        context.builder.is_inexact = True


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

    def walked(self, sizes: Sequence[int]) -> list[tuple[int, int]]:
        """Return for each axis of an image how many windows it has, and what is left over."""
        rank = len(self.kernel)
        padded = [size + self.pads[i] + self.pads[rank + i] for i, size in enumerate(sizes)]
        axes = zip(padded, self.kernel, self.strides, strict=True)
        walks = [divmod(size - width, step) for size, width, step in axes]
        return [(steps + 1, rest) for steps, rest in walks]

    def output_sizes(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Return the sizes of what the window yields."""
        return tuple(count for count, _ in self.walked(sizes))


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
    pads = tuple(explicit_pads(node, sizes, kernel))
    return ImageWindow(tuple(int(k) for k in kernel), strides, pads)


def lower_conv(context: Context, node: Node) -> Term:
    """Return the term of a convolution over one or two axes."""
    found = weights_of(node.inputs[1], 0, bits=False)
    if found is None:
        raise refuse(node, "its weights are computed; hls4ml takes constant ones only")
    rank = found.stored.ndim
    if rank not in (3, 4):
        raise refuse(node, f"{rank - 2} axes; hls4ml convolves over one or two")
    term, bias = context.data(node), context.bias(node)
    if term.bits or not term.is_scaled_alike():
        term = context.settle(term)
    term = context.laid_out(term, permutations.to_first(rank), node)
    group = int(attribute(node, "group", 1))
    stored, group = _grouped(found.stored, group, term.shape[1], context)
    window = window_of(node, term.shape[2:], stored.shape[2:])
    last = np.ascontiguousarray(np.moveaxis(stored, 1, -1))
    weights, steps = _written(context, last, found, term)
    inputs = [term.value, weights]
    if bias is not None and not steps:
        inputs.append(context.builder.constant(bias))
    elif bias is not None:
        steps = (*steps, add(bias))
    return replace(_convolved(context, term, inputs, window, len(stored), group), steps=steps)


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


def _convolved(
    context: Context,
    term: Term,
    inputs: list[Value],
    window: ImageWindow,
    channels: int,
    group: int,
) -> Term:
    """Return the term of a new convolution, channels last."""
    made = Term(term.value, (1, channels, *window.output_sizes(term.shape[2:])), term.axes)
    attributes = {**window.attributes(), "group": group}
    domain = dialect.CHANNELS_LAST_DOMAIN
    return context.builder.put(made, "Conv", inputs, attributes, domain=domain)


def pad_image(context: Context, term: Term, window: ImageWindow) -> tuple[Term, ImageWindow]:
    """Return an image with zeros around it, and the window that walks over it."""
    first, last = window.pads[:2], window.pads[2:]
    pads = np.array([0, *first, 0, 0, *last, 0], dtype=np.int64)
    sizes = [size + a + b for size, a, b in zip(term.shape[2:], first, last, strict=True)]
    padded = replace(term, shape=(*term.shape[:2], *sizes))
    inputs = [term.value, context.builder.constant(pads)]
    return context.builder.put(padded, "Pad", inputs), replace(window, pads=(0, 0, 0, 0))


def sum_windows(context: Context, term: Term, window: ImageWindow) -> Term:
    """Return the sums over the windows of every channel.

    A depthwise convolution with ones: the ``qonnx`` package has no channels-last AveragePool.
    """
    channels = term.shape[1]
    each = np.ones((channels, 1, *window.kernel), dtype=np.float32)
    ones, group = _grouped(each, channels, channels, context)
    stored = context.builder.constant(np.ascontiguousarray(np.moveaxis(ones, 1, -1)))
    weights = context.builder.quantize(stored, integer_quantizer(1, signed=False))
    summed = _convolved(context, term, [term.value, weights], window, channels, group)
    return replace(summed, steps=term.steps)
