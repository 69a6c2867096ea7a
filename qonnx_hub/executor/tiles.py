"""Pieces of a batch, to be computed side by side.

Threads of one interpreter wait for each other between any two operations: pieces are as
large as the batch and the cache allow, and never too small to be worth a thread. A layer's
output that has left the cache must be fetched again by the next layer.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from onnx_ir import Model, Node, Value

from qonnx_hub_ir import operators

PIECE_BYTES = 8 << 20
"""What the largest output of a product may take in one piece."""

PIECE_PRODUCTS = 100_000_000
"""Multiplications that are worth a thread: some milliseconds."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """How large the pieces of a model's batches are.

    Attributes:
        unit: Samples that the file's own batch holds; pieces are multiples of it.
        most: Units that the cache holds.
        least: Units that are worth a thread.
    """

    unit: int
    most: int
    least: int

    def size(self, samples: int) -> int | None:
        """Return the samples of a piece; ``None`` where the batch stays whole.

        The number depends on the model, the batch and the machine alone, so that the same
        feeds give the same bits with any number of threads.
        """
        units = samples // self.unit
        even = math.ceil(units / (os.cpu_count() or 1))
        size = min(self.most, max(even, self.least))
        return size * self.unit if size < units else None


def pieces_of(model: Model, file_batch: int) -> Pieces | None:
    """Return the sizes of pieces; ``None`` where no product's size is known.

    Args:
        model: An IR model with shapes.
        file_batch: Samples that the shapes hold.
    """
    largest = products = 0
    for node in model.graph:
        elements = (
            _elements(node.outputs[0]) if operators.is_product(node, any_layout=True) else None
        )
        if elements is not None:
            largest = max(largest, elements)
            products += elements * _depth(node)
    if not largest:
        return None
    most = max(1, PIECE_BYTES // (4 * largest * file_batch))
    return Pieces(file_batch, most, math.ceil(PIECE_PRODUCTS / (products * file_batch)))


def _elements(value: Value) -> int | None:
    """Return the elements of one sample."""
    if value.shape is None:
        return None
    sizes = [size for size in list(value.shape)[1:] if isinstance(size, int)]
    return math.prod(sizes) if len(sizes) == len(value.shape) - 1 else None


def _depth(node: Node) -> int:
    """Return about how many products make one element of a layer's output."""
    shape = None if node.inputs[1] is None else node.inputs[1].shape
    sizes = [] if shape is None else [size for size in shape if isinstance(size, int)]
    if operators.is_convolution(node, any_layout=True):
        return max(1, math.prod(sizes[1:]))
    return max(1, math.prod(sizes) // max(sizes[-1:], default=1)) if sizes else 1
