"""Pieces of a batch, to be computed side by side: their sizes, and their outputs joined.

Threads of one interpreter wait for each other between any two operations: pieces are as
large as the batch and the cache allow, and never too small to be worth a thread. A layer's
output that has left the cache must be fetched again by the next layer.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Node

from qonnx_hub_ir import operators
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.graph.queries import dims, element_count
from qonnx_hub_ir.quantizers import Array

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
        sizes = dims(node.outputs[0])
        elements = None if sizes is None else element_count(sizes[1:])
        if elements is not None and operators.is_product(node, any_layout=True):
            largest = max(largest, elements)
            products += elements * _depth(node)
    if not largest:
        return None
    most = max(1, PIECE_BYTES // (4 * largest * file_batch))
    return Pieces(file_batch, most, math.ceil(PIECE_PRODUCTS / (products * file_batch)))


def _depth(node: Node) -> int:
    """Return about how many products make one element of a layer's output."""
    shape = None if node.inputs[1] is None else node.inputs[1].shape
    sizes = [] if shape is None else [size for size in shape if isinstance(size, int)]
    if operators.is_convolution(node, any_layout=True):
        return max(1, math.prod(sizes[1:]))
    return max(1, math.prod(sizes[:-1]))


def sample_count(feeds: Mapping[str, Array]) -> int:
    """Return the length of the first axis, which all feeds share.

    Raises:
        UsageError: They do not: no cut of one would fit the others.
    """
    lengths = {array.shape[0] if array.ndim else 0 for array in feeds.values()}
    if len(lengths) > 1:
        raise unequal_samples(feeds)
    return lengths.pop() if lengths else 0


def unequal_samples(feeds: Mapping[str, Array]) -> UsageError:
    """Return the error of inputs that hold different numbers of samples."""
    shapes = ", ".join(f"'{name}': {list(array.shape)}" for name, array in feeds.items())
    return UsageError(f"the inputs hold different numbers of samples: {shapes}")


def cut_feeds(feeds: Mapping[str, Array], step: int) -> list[dict[str, Array]]:
    """Return the feeds in pieces of ``step`` samples along the first axis."""
    starts = range(0, sample_count(feeds), step)
    return [{name: a[at : at + step] for name, a in feeds.items()} for at in starts]


def join_runs(
    runs: Sequence[Mapping[str, Array]], unit: int, same: Collection[str] = ()
) -> dict[str, Array]:
    """Return the outputs of several runs behind each other along the first axis.

    Args:
        runs: Outputs of each run, by name.
        unit: Samples of the file's own batch, of which each run holds a whole number. An
            output that is the same for all runs need not have them.
        same: Names of outputs that depend on no sample.

    Raises:
        UsageError: An output has no axis for samples.
    """
    if len(runs) == 1:
        return dict(runs[0])
    return {
        name: first if name in same else _join_parts(name, [run[name] for run in runs], unit)
        for name, first in runs[0].items()
    }


def _join_parts(name: str, parts: Sequence[Array], unit: int) -> Array:
    first = parts[0]
    whole = all(part.ndim and part.shape[0] % unit == 0 for part in parts)
    if whole and len({part.shape[1:] for part in parts}) == 1:
        return np.concatenate(parts, axis=0)
    numbers = first.dtype.kind in "fc"
    if all(np.array_equal(part, first, equal_nan=numbers) for part in parts):
        return first
    raise UsageError(
        f"'{name}' has no axis for samples; run the model on one sample at a time"
    )
