"""Runs of operations on every element by itself, done block by block in one step."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qonnx_hub.executor.kernels.fusible import FusibleStage, StageRun
from qonnx_hub.executor.kernels.spec import Array, Kernel
from qonnx_hub.executor.threads import parallel_for
from qonnx_hub_ir.errors import ExecutionError, failure

BLOCK = 65536
"""Elements of a block: few enough for the cache, enough that the calls do not count."""

_SHARED_BLOCKS = 24
"""Blocks that one thread does sooner than it finds another."""

_SHAPES = 16
"""Input shapes that a chain remembers the blocks of."""

_Calls = Sequence[tuple[StageRun, tuple[Array, ...]]]
_Part = tuple[tuple[slice, ...] | None, _Calls]
"""A block of an array, and what to do to it; ``None`` is the whole array."""

_Prepared = Sequence[_Part]


@dataclass(frozen=True, slots=True)
class Link:
    """One node of a chain.

    Attributes:
        stage: What it does, block by block.
        kernel: The node's own kernel, for arrays that the stages do not fit.
        others: The node's inputs with ``None`` where the data goes.
        node: Operator and name, for messages.
    """

    stage: FusibleStage
    kernel: Kernel
    others: tuple[Any, ...]
    node: str


def build_chain(links: Sequence[Link], *, reuse: bool) -> Kernel:
    """Return one kernel that does what all links do, one after the other.

    Args:
        links: At least two, in order; each is the only reader of the one before it.
        reuse: Whether the buffer of the first one's data may be overwritten.
    """
    following = [*(link.stage for link in links[1:]), None]
    # A Relu whose reader clips at zero itself is left out.
    stages = [
        link.stage
        for link, then in zip(links, following, strict=True)
        if not (link.stage.is_relu and then is not None and then.not_below_zero)
    ]
    prepared: dict[tuple[int, ...], _Prepared] = {}

    def run(x: Array) -> Array:
        if x.dtype != np.float32 or not x.flags.c_contiguous:
            return _one_by_one(links, x)
        blocks = prepared.get(x.shape)
        if blocks is None:
            if len(prepared) >= _SHAPES:
                prepared.clear()
            blocks = prepared[x.shape] = _blocks(stages, x.shape)
        if not blocks:
            return _one_by_one(links, x)
        y = x if reuse and x.flags.writeable else np.empty_like(x)
        if len(blocks) > _SHARED_BLOCKS:
            parallel_for(lambda: functools.partial(_do, x, y), blocks)
            return y
        for block in blocks:
            _do(x, y, block)
        return y

    return run


def _do(x: Array, y: Array, part: _Part) -> None:
    """Do all calls on one block."""
    block, calls = part
    source, target = (x, y) if block is None else (x[block], y[block])
    for stage, constants in calls:
        stage(source, target, *constants)
        source = target


def _one_by_one(links: Sequence[Link], x: Array) -> Array:
    for link in links:
        args = [x if other is None else other for other in link.others]
        try:
            x = link.kernel(*args)
        except Exception as error:  # kernels raise whatever numpy raises
            raise ExecutionError(failure(link.node, args, error)) from error
    return x


def _blocks(stages: Sequence[FusibleStage], shape: tuple[int, ...]) -> _Prepared:
    """Return how to go through an array of this shape; nothing where a stage does not fit."""
    shaped = [_fitted(stage, shape) for stage in stages]
    if len(shape) < 1 or math.prod(shape) == 0 or any(c is None for c in shaped):
        return []
    known = [constants for constants in shaped if constants is not None]
    return [
        (block, [(s.run, _part(c, block)) for s, c in zip(stages, known, strict=True)])
        for block in _slices(shape, known)
    ]


def _fitted(stage: FusibleStage, shape: tuple[int, ...]) -> tuple[Array, ...] | None:
    """Return the constants with the rank of the data; ``None`` where they would enlarge it."""
    rank, fitted = len(shape), []
    for constant in stage.constants:
        if stage.per_channel:
            if rank < 2 or constant.size not in (1, shape[1]):
                return None
            fitted.append(constant.reshape(1, -1, *(1,) * (rank - 2)))
            continue
        if constant.size == 1 and constant.ndim <= rank:
            fitted.append(constant.reshape(()))
            continue
        if constant.ndim > rank:
            return None
        full = constant.reshape((*(1,) * (rank - constant.ndim), *constant.shape))
        if any(c not in (1, n) for c, n in zip(full.shape, shape, strict=True)):
            return None
        fitted.append(full)
    return tuple(fitted)


def _slices(
    shape: tuple[int, ...], constants: Sequence[tuple[Array, ...]]
) -> list[tuple[slice, ...] | None]:
    total = math.prod(shape)
    if total <= 2 * BLOCK:
        return [None]
    per_sample = total // shape[0]
    if per_sample <= BLOCK or len(shape) == 1:
        step = max(1, BLOCK // per_sample)
        return [(slice(at, at + step),) for at in range(0, shape[0], step)]
    step = max(1, BLOCK // (per_sample // shape[1]))
    return [
        (slice(sample, sample + 1), slice(at, at + step))
        for sample in range(shape[0])
        for at in range(0, shape[1], step)
    ]


def _part(constants: tuple[Array, ...], block: tuple[slice, ...] | None) -> tuple[Array, ...]:
    """Return what of the constants meets a block."""
    if block is None:
        return constants
    parts = []
    for constant in constants:
        sizes = zip(block, constant.shape, strict=False)
        index = tuple(part if size > 1 else slice(None) for part, size in sizes)
        parts.append(constant[index] if index else constant)
    return tuple(parts)
