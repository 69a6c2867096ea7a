"""Pooling over images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx_ir import Node

from qonnx_hub_adapters.hls4ml.context import Context
from qonnx_hub_adapters.hls4ml.pending_affine import Term, multiply
from qonnx_hub_adapters.hls4ml.products import (
    ImageWindow,
    output_sizes,
    pad_image,
    sum_windows,
    window_of,
)
from qonnx_hub_adapters.hls4ml.refusals import refuse
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph import permutations
from qonnx_hub_ir.graph.queries import attribute
from qonnx_hub_ir.quantizers import IntQuant


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
    value = context.builder.reshape(term.value, (1, 1, width, channels))
    return replace(
        term, value=value, shape=(batch, channels, 1, width), axes=permutations.to_first(4)
    )


def _window(node: Node, term: Term) -> ImageWindow:
    kernel = [int(size) for size in node.attributes["kernel_shape"].value]
    sizes = term.shape[2:]
    one_axis = len(kernel) == 1
    window = window_of(node, sizes[-1:] if one_axis else sizes, kernel)
    if attribute(node, "ceil_mode", 0) and _rounds_up(window, sizes):
        raise refuse(node, "ceil_mode: hls4ml rounds the size of its output down")
    if not one_axis:
        return window
    first, last = window.pads
    return ImageWindow((1, *window.kernel), (1, *window.strides), (0, first, 0, last))


def _rounds_up(window: ImageWindow, sizes: tuple[int, ...]) -> bool:
    rank = len(window.kernel)
    inner = sizes[-rank:]
    return any(
        (size + window.pads[i] + window.pads[rank + i] - window.kernel[i]) % window.strides[i]
        for i, size in enumerate(inner)
    )


def _restored(context: Context, node: Node, term: Term) -> Term:
    """Return a pooled image without the height that :func:`_image` gave it."""
    if node.outputs[0].shape is None or len(node.outputs[0].shape) != 3:
        return term
    _, channels, _, width = term.shape
    value = context.builder.reshape(term.value, (1, width, channels))
    return replace(
        term, value=value, shape=(1, channels, width), axes=permutations.to_first(3)
    )


def lower_max_pool(context: Context, node: Node) -> Term:
    """Return the term of a maximum over windows."""
    if len(node.outputs) > 1:
        raise refuse(node, "its indices are read; hls4ml's pooling gives none")
    term = _image(context, node)
    window = _window(node, term)
    if any(window.pads) and _is_never_negative(term):
        # hls4ml pads with the number whose highest bit alone is set: the lowest of a signed
        # type, but a large one of an unsigned type. Zero is as good here.
        term, window = pad_image(context, term, window)
    return _restored(context, node, _largest(context, term, window))


def _is_never_negative(term: Term) -> bool:
    node = term.value.producer()
    if node is None or not dialect.is_quantizer(node):
        return node is not None and node.op_type == "Relu"
    quant = dialect.read_quantizer(node)
    return isinstance(quant, IntQuant) and not quant.signed


def lower_average_pool(context: Context, node: Node) -> Term:
    """Return the term of a mean over windows."""
    term = _image(context, node)
    window = _window(node, term)
    if any(window.pads) and not attribute(node, "count_include_pad", 0):
        raise refuse(node, "padding that is not counted: windows at the border are smaller")
    return _restored(context, node, _mean(context, term, window))


def lower_global_average_pool(context: Context, node: Node) -> Term:
    """Return the term of a mean over the whole image."""
    term = _image(context, node)
    return _restored(context, node, _mean(context, term, _whole(term)))


def lower_global_max_pool(context: Context, node: Node) -> Term:
    """Return the term of a maximum over the whole image."""
    term = _image(context, node)
    return _restored(context, node, _largest(context, term, _whole(term)))


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
    size = mean.shape[1]
    value = context.builder.reshape(mean.value, (1, size))
    return replace(mean, value=value, shape=(1, size), axes=(0, 1))


def _whole(term: Term) -> ImageWindow:
    return ImageWindow(tuple(term.shape[2:]), (1, 1), (0, 0, 0, 0))


def _largest(context: Context, term: Term, window: ImageWindow) -> Term:
    sizes = output_sizes(window, term.shape[2:])
    pooled = replace(term, shape=(1, term.shape[1], *sizes))
    value = context.builder.add(
        "MaxPool",
        [term.value],
        pooled.stored_shape(),
        {**window.attributes(), "ceil_mode": 0},
        domain=dialect.CHANNELS_LAST_DOMAIN,
    )
    return replace(pooled, value=value)


def _mean(context: Context, term: Term, window: ImageWindow) -> Term:
    value, count = sum_windows(context, term, window)
    if count & (count - 1):
        # The sum is exact; its product with 1 / count is no quotient.
        context.builder.inexact.append("mean")
    sizes = output_sizes(window, term.shape[2:])
    mean = replace(term, value=value, shape=(1, term.shape[1], *sizes))
    return mean.then(multiply(np.asarray(1.0 / count, dtype=np.float64)))
