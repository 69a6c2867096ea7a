"""Permutations of axes as Transpose takes them: output axis i is input axis perm[i]."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir
from onnx_ir import Node

from qonnx_hub_ir.graph.queries import attribute, is_standard, rank_of

Perm = tuple[int, ...]


def identity(rank: int) -> Perm:
    """Return the permutation that changes nothing."""
    return tuple(range(rank))


def inverse(perm: Perm) -> Perm:
    """Return the permutation that undoes another."""
    return tuple(perm.index(axis) for axis in range(len(perm)))


def compose(first: Perm, second: Perm) -> Perm:
    """Return the one permutation that is ``first`` and then ``second``."""
    return tuple(first[axis] for axis in second)


def to_first(rank: int) -> Perm:
    """Return the permutation from (N, *size, C) to (N, C, *size)."""
    return (0, rank - 1, *range(1, rank - 1))


def to_last(rank: int) -> Perm:
    """Return the permutation from (N, C, *size) to (N, *size, C)."""
    return (0, *range(2, rank), 1)


def simplified(perm: Perm | None) -> Perm | None:
    """Return ``None`` for a permutation that changes nothing."""
    return None if perm is None or perm == identity(len(perm)) else perm


def without(perm: Perm, axes: set[int]) -> Perm:
    """Return the permutation that is left when some input axes are dropped."""
    kept = sorted(axis for axis in perm if axis not in axes)
    return tuple(kept.index(axis) for axis in perm if axis not in axes)


def permuted(shape: onnx_ir.Shape | None, perm: Perm) -> onnx_ir.Shape | None:
    """Return a shape behind a Transpose; ``None`` where the ranks differ."""
    if shape is None or len(shape) != len(perm):
        return None
    return onnx_ir.Shape([shape[axis] for axis in perm])


def perm_of(node: Node | None) -> Perm | None:
    """Return the permutation of a Transpose; ``None`` for other nodes.

    Without the attribute it reverses all axes, which is known where the rank is.
    """
    if node is None or not is_standard(node, "Transpose"):
        return None
    given: Sequence[int] | None = attribute(node, "perm", None)
    if given is not None:
        return tuple(int(axis) for axis in given)
    rank = rank_of(node.inputs[0])
    return None if rank is None else tuple(reversed(range(rank)))


def keeps_all_axes(node: Node) -> bool:
    """Return whether a Transpose leaves every axis in its place."""
    perm = perm_of(node)
    return perm is not None and perm == identity(len(perm))
