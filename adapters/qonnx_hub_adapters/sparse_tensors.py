"""Sparse tensors of a file become dense ones: nothing behind reading knows them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import onnx
from onnx import numpy_helper

from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.quantizers import Array

MOST_ELEMENTS = 1 << 28
"""Elements that a sparse tensor may stand for: its sizes are text, not data."""


def without_sparse(message: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with dense initializers and constants; itself if it has no others.

    Raises:
        SourceError: Values and indices do not fit, or the dense form would be huge.
    """
    nodes = [*message.graph.node, *(n for f in message.functions for n in f.node)]
    if not (message.graph.sparse_initializer or any(map(_has_sparse, nodes))):
        return message
    dense = onnx.ModelProto()
    dense.CopyFrom(message)
    _make_dense(dense.graph)
    for function in dense.functions:
        _make_nodes_dense(function.node)
    return dense


def _has_sparse(node: onnx.NodeProto) -> bool:
    return any(
        attribute.HasField("sparse_tensor")
        or any(
            body.sparse_initializer or any(map(_has_sparse, body.node))
            for body in (attribute.g, *attribute.graphs)
        )
        for attribute in node.attribute
    )


def _make_dense(graph: onnx.GraphProto) -> None:
    for sparse in graph.sparse_initializer:
        graph.initializer.append(_dense(sparse, sparse.values.name))
    del graph.sparse_initializer[:]
    _make_nodes_dense(graph.node)


def _make_nodes_dense(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("sparse_tensor"):
                tensor = _dense(attribute.sparse_tensor, attribute.sparse_tensor.values.name)
                attribute.ClearField("sparse_tensor")
                attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR
                attribute.t.CopyFrom(tensor)
            for body in (attribute.g, *attribute.graphs):
                _make_dense(body)


def _dense(sparse: onnx.SparseTensorProto, name: str) -> onnx.TensorProto:
    shape = tuple(sparse.dims)
    if math.prod(shape) > MOST_ELEMENTS or min(shape, default=1) < 0:
        raise SourceError(f"sparse tensor '{name}' of shape {list(shape)} is too large")
    values = numpy_helper.to_array(sparse.values)
    indices = numpy_helper.to_array(sparse.indices).astype(np.int64)
    flat = np.zeros(math.prod(shape), dtype=values.dtype)
    positions = _positions(indices, shape)
    if (
        positions is None
        or positions.shape != values.shape
        or not bool(np.all(positions >= 0) and np.all(positions < flat.size))
    ):
        raise SourceError(
            f"sparse tensor '{name}': indices of shape {list(indices.shape)} do not place "
            f"{values.size} values in a tensor of shape {list(shape)}"
        )
    flat[positions] = values
    return numpy_helper.from_array(flat.reshape(shape), name)


def _positions(indices: Array, shape: tuple[int, ...]) -> Array | None:
    """Return flat positions, of indices that are flat or have a number per axis."""
    if indices.ndim == 1:
        return indices
    if indices.ndim != 2 or indices.shape[1] != len(shape):
        return None
    if np.any(indices < 0) or np.any(indices >= np.array(shape)):
        return None
    flat: Array = np.ravel_multi_index(tuple(indices.T), shape)
    return flat
