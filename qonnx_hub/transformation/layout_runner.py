"""A model whose inputs and outputs lie in another layout than those it is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx_ir import Model, SymbolicDim, Value

from qonnx_hub.equivalence.inputs.batches import SampleBatch
from qonnx_hub.equivalence.runners.sides import ExecutorRunner
from qonnx_hub_ir.quantizers import Array

Perm = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Turns:
    """How the values of one signature become those of another.

    Attributes:
        inputs: Input of the other model -> permutation of what the first takes.
        outputs: Output of the other model -> permutation that brings it back.
    """

    inputs: dict[str, Perm] = field(default_factory=dict)
    outputs: dict[str, Perm] = field(default_factory=dict)

    @property
    def moves(self) -> bool:
        """Whether any value is turned."""
        return bool(self.inputs or self.outputs)


@dataclass(slots=True)
class TurnedRunner(ExecutorRunner):
    """A model on the executor that is asked and answers in another layout.

    Attributes:
        turns: How inputs and outputs are turned.
    """

    turns: Turns

    def answer(self, batch: SampleBatch, names: Sequence[str]) -> dict[str, Array]:
        """Return the named values for a batch."""
        feeds = _turned(batch.feeds, self.turns.inputs)
        found = ExecutorRunner.answer(
            self, SampleBatch(batch.index, batch.start, feeds), names
        )
        return _turned(found, self.turns.outputs)


def _turned(arrays: Mapping[str, Array], perms: Mapping[str, Perm]) -> dict[str, Array]:
    return {
        name: np.transpose(array, perms[name]) if name in perms else array
        for name, array in arrays.items()
    }


def find_turns(before: Model, after: Model) -> Turns | None:
    """Return how the second model's values are turned to be those of the first.

    The first axis may have another length: it holds the samples. ``None`` where inputs or
    outputs differ by more than a move of the channels from one end to the other.
    """
    turns = Turns()
    for ours, theirs, perms, back in (
        (before.graph.inputs, after.graph.inputs, turns.inputs, False),
        (before.graph.outputs, after.graph.outputs, turns.outputs, True),
    ):
        if len(ours) != len(theirs):
            return None
        for one, other in zip(ours, theirs, strict=True):
            source, target = (other, one) if back else (one, other)
            perm = _perm(source, target)
            if perm is None:
                return None
            if perm != tuple(range(len(perm))):
                perms[str(other.name)] = perm
    return turns


def _perm(source: Value, target: Value) -> Perm | None:
    """Return the permutation that makes the target's shape of the source's."""
    if source.dtype != target.dtype:
        return None
    if source.shape is None or target.shape is None:
        return () if source.shape is None and target.shape is None else None
    sizes, wanted = _sizes(source), _sizes(target)
    if len(sizes) != len(wanted):
        return None
    same = tuple(range(len(sizes)))
    if sizes[1:] == wanted[1:]:
        return same
    to_last, to_first = (0, *same[2:], 1), (0, same[-1], *same[1:-1])
    for perm in (to_last, to_first):
        if len(sizes) > 2 and [sizes[axis] for axis in perm][1:] == wanted[1:]:
            return perm
    return None


def _sizes(value: Value) -> list[int | str | None]:
    dims = () if value.shape is None else value.shape
    return [dim.value if isinstance(dim, SymbolicDim) else dim for dim in dims]
