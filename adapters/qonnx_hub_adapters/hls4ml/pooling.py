"""Pooling over images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx_ir import Node

from qonnx_hub_adapters.hls4ml.context import Context
from qonnx_hub_adapters.hls4ml.fixed_point import type_of_quantizer
from qonnx_hub_adapters.hls4ml.pending_affine import Term, multiply
from qonnx_hub_adapters.hls4ml.products import (
    ImageWindow,
    pad_image,
    sum_windows,
    window_of,
)
from qonnx_hub_adapters.hls4ml.refusals import refuse
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph import permutations
from qonnx_hub_ir.graph.queries import attribute
from qonnx_hub_ir.operators import Pool


def _image(context: Context, node: Node) -> Term:
    """Return the input stored channels last; over one axis as an image of height 1."""
    term = context.data(node)
    rank = len(term.shape)
    if rank not in (3, 4):
        raise refuse(node, f"{rank - 2} axes; hls4ml pools over one or two")
    if term.bits or not term.is_scaled():
        term = context.settle(term)
    term = context.laid_out(term, permutations.to_first(rank), node)
    if rank == 4:
        return term
    # hls4ml takes the axes of one-dimensional pooling for channels-first ones.
    batch, channels, width = term.shape
    shape = (batch, channels, 1, width)
    return context.builder.reshape(term, shape, permutations.to_first(4))


def _window(node: Node, term: Term) -> ImageWindow:
    kernel = [int(size) for size in node.attributes["kernel_shape"].value]
    sizes = term.shape[2:]
    one_axis = len(kernel) == 1
    window = window_of(node, sizes[-1:] if one_axis else sizes, kernel)
    left = any(rest for _, rest in window.walked(sizes[-len(kernel) :]))
    if left and attribute(node, "ceil_mode", 0):
        raise refuse(node, "ceil_mode: hls4ml rounds the size of its output down")
    if not one_axis:
        return window
    first, last = window.pads
    return ImageWindow((1, *window.kernel), (1, *window.strides), (0, first, 0, last))


def lower_pool(context: Context, node: Node) -> Term:
    """Return the term of a maximum or mean over windows, or over the whole image."""
    if len(node.outputs) > 1:
        raise refuse(node, "its indices are read; hls4ml's pooling gives none")
    term = _image(context, node)
    window = _whole(term) if operators.is_global_pool(node) else _window(node, term)
    if operators.pool_of(node) is Pool.MAX:
        pooled = _largest(context, term, window)
    elif any(window.pads) and not attribute(node, "count_include_pad", 0):
        raise refuse(node, "padding that is not counted: windows at the border are smaller")
    else:
        pooled = _mean(context, term, window)
    shape = node.outputs[0].shape
    if shape is None or len(shape) != 3:
        return pooled
    # Without the height that the image got.
    _, channels, _, width = pooled.shape
    return context.builder.reshape(pooled, (1, channels, width), permutations.to_first(3))


def _is_never_negative(term: Term) -> bool:
    node = term.value.producer()
    if node is None or not dialect.is_quantizer(node):
        return node is not None and node.op_type == "Relu"
    kind = type_of_quantizer(node)
    return kind is not None and not kind.signed


def lower_reduce_mean(context: Context, node: Node) -> Term:
    """Return the term of a mean over all axes of an image."""
    term = context.data(node)
    axes = context.constant(node, 1)
    given = attribute(node, "axes", None if axes is None else axes.reshape(-1))
    rank = len(term.shape)
    if given is None or rank != 4 or sorted(int(a) % rank for a in given) != [2, 3]:
        raise refuse(node, "a mean over other axes than an image's; hls4ml has no ReduceMean")
    image = _image(context, node)
    mean = _mean(context, image, _whole(image))
    if attribute(node, "keepdims", 1):
        return mean
    return context.builder.reshape(mean, (1, mean.shape[1]), (0, 1))


def _whole(term: Term) -> ImageWindow:
    return ImageWindow(tuple(term.shape[2:]), (1, 1), (0, 0, 0, 0))


def _largest(context: Context, term: Term, window: ImageWindow) -> Term:
    if any(window.pads) and _is_never_negative(term):
        # hls4ml pads with the number whose highest bit alone is set: the lowest of a signed
        # type, but a large one of an unsigned type. Zero is as good here.
        term, window = pad_image(context, term, window)
    pooled = replace(term, shape=(*term.shape[:2], *window.output_sizes(term.shape[2:])))
    attributes = {**window.attributes(), "ceil_mode": 0}
    domain = dialect.CHANNELS_LAST_DOMAIN
    return context.builder.put(pooled, "MaxPool", [term.value], attributes, domain=domain)


def _mean(context: Context, term: Term, window: ImageWindow) -> Term:
    count = int(np.prod(window.kernel))
    if count & (count - 1):
        # The sum is exact; its product with 1 / count is no quotient.
        context.builder.is_inexact = True
    mean = np.asarray(1.0 / count, dtype=np.float64)
    return sum_windows(context, term, window).then(multiply(mean))
