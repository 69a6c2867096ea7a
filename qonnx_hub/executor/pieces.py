"""Pieces of a batch that fit the processor's cache.

A layer's output that has left the cache must be fetched again by the next layer. A piece is as
many samples as keep the largest output of a product within it.
"""

from __future__ import annotations

import math

from onnx_ir import Model

PIECE_BYTES = 1 << 20
"""What the largest output of a product may take in one piece."""

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
"""Operators that threads share."""

_PRODUCTS = CONVOLUTIONS | {"Gemm", "MatMul"}


def samples_per_piece(model: Model, file_batch: int) -> int | None:
    """Return how many samples make a piece; ``None`` where no product's size is known.

    The number depends on the model alone, so that the same feeds give the same bits with any
    number of threads.

    Args:
        model: An IR model with shapes.
        file_batch: Samples that the shapes hold.
    """
    largest = 0
    for node in model.graph:
        shape = node.outputs[0].shape if node.op_type in _PRODUCTS else None
        if shape is None:
            continue
        sizes = [d for d in list(shape)[1:] if isinstance(d, int)]
        if len(sizes) == len(shape) - 1:
            largest = max(largest, 4 * math.prod(sizes))
    if not largest:
        return None
    return file_batch * max(1, PIECE_BYTES // (largest * file_batch))
