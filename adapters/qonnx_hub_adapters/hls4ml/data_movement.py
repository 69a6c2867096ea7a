"""Operators that only move elements."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx_ir import Node

from qonnx_hub_adapters.hls4ml.context import Context
from qonnx_hub_adapters.hls4ml.pending_affine import Term
from qonnx_hub_adapters.hls4ml.refusals import refuse
from qonnx_hub_ir import operators
from qonnx_hub_ir.graph import permutations
from qonnx_hub_ir.graph.queries import attribute, dims


def has_free_order(node: Node) -> bool:
    """Return whether a row's elements may reach a node in any order.

    They could also reach tables, and the larger of two values, which are not asked for it.
    """
    row = operators.of(node)
    exact = row.arithmetic or row.is_uniform or row.order_is_exact
    pointwise = operators.is_elementwise(node) and exact and not row.selects_by_order
    return bool(pointwise) or row.is_per_channel or operators.is_identity(node)


def target_shape(node: Node, batch: object) -> tuple[int, ...]:
    """Return the shape of a node's output, with batch 1.

    Raises:
        RefusedError: It is not known, or the batch is not its first axis.
    """
    sizes = dims(node.outputs[0])
    rest = [] if not sizes else [size for size in sizes[1:] if isinstance(size, int)]
    if not sizes or len(rest) < len(sizes) - 1:
        raise refuse(node, "an output whose size is not known; hls4ml needs fixed sizes")
    if isinstance(sizes[0], int) and sizes[0] not in (1, batch):
        raise refuse(node, "the batch is moved from the first axis, which hls4ml leaves out")
    return (1, *rest)


def lower_reshape(context: Context, node: Node) -> Term:
    """Return the term of a Reshape, Flatten, Squeeze or Unsqueeze."""
    source = node.inputs[0]
    term = context.data(node)
    batch = None if source is None or source.shape is None else source.shape[0]
    shape = target_shape(node, batch)
    if np.prod(shape) != np.prod(term.shape):
        raise refuse(node, "the batch is mixed with other axes")
    if shape == term.shape:
        return term
    if term.flat:
        return replace(term, shape=shape, axes=permutations.identity(len(shape)), flat=False)
    if len(shape) == 2 and not term.is_in_order() and _takes_any_order(node):
        return _flattened(context, term, shape)
    if not term.is_in_order():
        term = context.laid_out(term, permutations.identity(len(term.shape)), node)
    if not all(step.is_scalar() for step in term.steps) and len(shape) != 2:
        term = context.settle(term)
    return _flattened(context, term, shape)


def _flattened(context: Context, term: Term, shape: tuple[int, ...]) -> Term:
    axes = permutations.identity(len(shape))
    made = context.builder.reshape(term, shape, axes)
    if len(shape) != 2:
        return replace(made, order=None)
    places = np.arange(np.prod(term.shape), dtype=np.int64)
    order = term.order
    if order is None:
        sources = places.reshape(term.shape).transpose(permutations.inverse(term.axes))
        order = None if np.array_equal(sources.reshape(-1), places) else sources.reshape(-1)
    channels = places % term.stored_shape()[-1]
    return replace(made, order=order, steps=tuple(s.moved(channels) for s in term.steps))


def _takes_any_order(node: Node) -> bool:
    """Return whether everything behind ends in products with weights, which can be moved."""
    pending, seen = [node.outputs[0]], set()
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        if value.is_graph_output():
            return False
        for usage in value.uses():
            if operators.is_matrix_product(usage.node) and usage.idx == 0:
                continue
            if not has_free_order(usage.node):
                return False
            pending.extend(usage.node.outputs)
    return True


def lower_transpose(context: Context, node: Node) -> Term:
    """Return the term of a Transpose, which only renames the axes."""
    term = context.data(node)
    rank = len(term.shape)
    perm = [int(p) for p in attribute(node, "perm", range(rank)[::-1])]
    if perm[0] != 0:
        raise refuse(node, "the batch is moved from the first axis, which hls4ml leaves out")
    shape = tuple(term.shape[p] for p in perm)
    return replace(term, shape=shape, axes=tuple(term.axes[p] for p in perm))


def lower_concat(context: Context, node: Node) -> Term:
    """Return the term of a concatenation of two."""
    if len(node.inputs) != 2:
        raise refuse(node, "hls4ml concatenates two tensors at a time")
    left, right = (context.settle(context.data(node, index)) for index in range(2))
    rank = len(left.shape)
    if rank > 4:
        raise refuse(node, "hls4ml concatenates up to three axes beside the batch")
    right = context.laid_out(right, left.axes, node) if right.axes != left.axes else right
    if left.order is not None or right.order is not None:
        raise refuse(node, "its operands were flattened channels last")
    axis = int(attribute(node, "axis", 0)) % rank
    shape = list(left.shape)
    shape[axis] += right.shape[axis]
    joined = replace(left, shape=tuple(shape))
    stored = left.axes[axis] if left.axes[axis] != rank - 1 else -1
    inputs = [left.value, right.value]
    return context.builder.put(joined, "Concat", inputs, {"axis": stored})


def lower_pad(context: Context, node: Node) -> Term:
    """Return the term of zeros around an image."""
    term = context.data(node)
    rank = len(term.shape)
    if rank not in (3, 4):
        raise refuse(node, "padding of what is no image")
    term = context.laid_out(context.settle(term), permutations.to_first(rank), node)
    mode = str(attribute(node, "mode", "constant"))
    if mode != "constant":
        raise refuse(node, f"padding of kind '{mode}'; hls4ml pads with zeros")
    pads, fill = context.constant(node, 1), context.constant(node, 2)
    if pads is None or len(node.inputs) > 3 or pads.size != 2 * rank:
        raise refuse(
            node, "padding of some axes only, or computed; hls4ml takes all, constant"
        )
    if fill is not None and np.any(fill):
        raise refuse(node, "padding with another number than 0")
    sizes = pads.reshape(2, rank).astype(np.int64)
    if sizes[:, :2].any() or sizes.min() < 0:
        raise refuse(node, "padding of batch or channels, or a crop")
    shape = tuple(int(s) for s in np.asarray(term.shape) + sizes.sum(axis=0))
    padded = replace(term, shape=shape)
    places = permutations.inverse(term.axes)
    stored = context.builder.constant(np.ascontiguousarray(sizes[:, places]).reshape(-1))
    return context.builder.put(padded, "Pad", [term.value, stored])
