"""QLinearConv that was written for another layer: an average, or a matrix product with a bias.

The standard has no integer operator for them. What the node remembers chooses only between
layers that compute the same; all numbers are read from the file, and where one of them is not
what the layer would have, the convolution is read as a convolution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx_ir import Value

from qonnx_hub_adapters.qlinear.integer_nodes import IntegerNode
from qonnx_hub_adapters.qlinear.layouts import ORIGIN
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.queries import dims, is_standard, producer, rank_of
from qonnx_hub_ir.graph.rewriting import replace_node

MATRIX = "Gemm"
"""What a convolution of rows remembers: it was a matrix product."""

_AXIS = 2
"""The axis of size 1 along which rows are convolved."""


def note_written_for(codes: Value, layer: str) -> None:
    """Write on a convolution for which layer it stands: an average, or :data:`MATRIX`."""
    node = codes.producer()
    assert node is not None, "a node was just made"
    node.metadata_props[ORIGIN] = layer


def read_as_written(site: IntegerNode, attributes: Mapping[str, Any]) -> bool:
    """Read a convolution as the layer for which it was written; return whether it was one.

    Args:
        site: A QLinearConv.
        attributes: Its attributes.
    """
    origin = site.node.metadata_props.get(ORIGIN, "")
    if origin == MATRIX:
        return _as_matrix_product(site, attributes)
    layer = operators.find("", origin)
    window = _window(site, attributes) if layer.pool is operators.Pool.AVERAGE else None
    if window is None:
        return False
    settings: dict[str, Any] = {}
    if layer.is_global:
        if set(attributes) - {"group"} or (dims(site.required(0)) or ())[2:] != window:
            return False
    else:
        settings = {k: v for k, v in attributes.items() if k in ("pads", "strides")}
        settings |= {"kernel_shape": list(window)}
        settings |= {"count_include_pad": 1} if any(settings.get("pads", ())) else {}
    mean = site.emit.add(origin, [site.dequantized(0)], **settings)
    site.emit.replace_with(site.quantized(mean, 6))
    return True


def _window(site: IntegerNode, attributes: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return over what each channel is averaged, by equal weights that sum up to one."""
    given = [dialect.constant_value(site.input(index)) for index in (3, 4, 5)]
    weights, scale, zero = given
    if weights is None or scale is None or site.input(8) is not None or weights.ndim < 3:
        return None
    channels, depth, *window = weights.shape
    if depth != 1 or attributes.get("group", 1) != channels or not weights.size:
        return None
    if set(attributes.get("dilations", (1,))) != {1} or "auto_pad" in attributes:
        return None
    level = weights.astype(np.int64) - (0 if zero is None else np.max(zero))
    is_even = np.all(level == level.flat[0]) and (zero is None or np.all(zero == zero.flat[0]))
    share = np.float32(level.flat[0]) * scale
    is_mean = is_even and np.all(share == np.float32(1 / math.prod(window)))
    return tuple(window) if is_mean else None


def _as_matrix_product(site: IntegerNode, attributes: Mapping[str, Any]) -> bool:
    """Read Unsqueeze, QLinearConv of windows of one, Squeeze as a Gemm of rows."""
    before, readers = producer(site.input(0)), site.node.outputs[0].consumers()
    weights = dialect.constant_value(site.input(3))
    if before is None or weights is None or len(readers) != 1 or weights.shape[2:] != (1,):
        return False
    after = readers[0]
    is_plain = attributes.get("group", 1) == 1 and not set(attributes) - {"group"}
    turns = is_standard(before, "Unsqueeze") and is_standard(after, "Squeeze")
    if not is_plain or not turns or site.node.outputs[0].is_graph_output():
        return False
    axes = [dialect.constant_value(node.inputs[1]) for node in (before, after)]
    rows = before.inputs[0]
    if rows is None or rank_of(rows) != _AXIS:
        return False
    if any(axis is None or axis.reshape(-1).tolist() != [_AXIS] for axis in axes):
        return False
    matrix = site.emit.constant("weights", weights[..., 0])
    x = site.values_of(rows, site.required(1), site.input(2))
    w = site.values_of(matrix, site.required(4), site.input(5), 0)
    bias = site.bias(8, 1, 4)
    product = site.emit.add(MATRIX, [x, w] if bias is None else [x, w, bias], transB=1)
    replace_node(after, _typed(site, product, after.outputs[0]))
    return True


def _typed(site: IntegerNode, product: Value, like: Value) -> Value:
    made = site.quantized(product, 6)
    made.type, made.shape = like.type, like.shape
    return made
