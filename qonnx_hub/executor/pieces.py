"""A batch in pieces that fit the processor's cache, several of them at a time.

A layer's output that has left the cache must be fetched again by the next layer. A piece is as
many samples as keep the largest output of a product within it; pieces are computed side by
side, each on one thread.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from onnx_ir import Model

from qonnx_hub.executor.blas import blas_threads, limited_to

PIECE_BYTES = 1 << 20
"""What the largest output of a product may take in one piece."""

_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

T = TypeVar("T")
R = TypeVar("R")


def default_threads() -> int:
    """Return how many threads to use where nobody says: as many as the matrix library would.

    That number follows the cores, and ``OPENBLAS_NUM_THREADS`` where it is set. It is 1 where
    the library cannot be told to leave the other cores to us.
    """
    return min(blas_threads() or 1, os.cpu_count() or 1)


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


def run_pieces(run: Callable[[T], R], pieces: Sequence[T], threads: int) -> list[R]:
    """Return what ``run`` gives for each piece, in order.

    Args:
        run: Computes one piece; called on several threads at once.
        pieces: What to compute.
        threads: How many.
    """
    with limited_to(1):
        if threads == 1:
            return [run(piece) for piece in pieces]
        with ThreadPoolExecutor(min(threads, len(pieces))) as pool:
            return list(pool.map(run, pieces))
