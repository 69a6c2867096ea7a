"""Runs a model in the layout of another one, which it is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx_ir import Model, Value

from qonnx_hub.equivalence.inputs.batches import SampleBatch
from qonnx_hub.equivalence.runners.sides import ExecutorRunner
from qonnx_hub_ir.graph.permutations import Perm, identity, to_first, to_last
from qonnx_hub_ir.graph.queries import dims
from qonnx_hub_ir.quantizers import Array


@dataclass(frozen=True, slots=True)
class LayoutPermutation:
    """Permutations between two signatures that differ in their layout.

    Attributes:
        inputs: Input of the other model -> permutation of what the first takes.
        outputs: Output of the other model -> permutation that brings it back.
    """

    inputs: dict[str, Perm] = field(default_factory=dict)
    outputs: dict[str, Perm] = field(default_factory=dict)

    @property
    def moves(self) -> bool:
        """Whether any value is transposed."""
        return bool(self.inputs or self.outputs)


@dataclass(slots=True)
class TransposingRunner(ExecutorRunner):
    """A model on the executor whose inputs and outputs are transposed on the way.

    Attributes:
        layout: Permutations of inputs and outputs.
    """

    layout: LayoutPermutation

    def answer(self, batch: SampleBatch, names: Sequence[str]) -> dict[str, Array]:
        """Return the named values for a batch."""
        feeds = _transposed(batch.feeds, self.layout.inputs)
        found = ExecutorRunner.answer(
            self, SampleBatch(batch.index, batch.start, feeds), names
        )
        return _transposed(found, self.layout.outputs)


def _transposed(arrays: Mapping[str, Array], perms: Mapping[str, Perm]) -> dict[str, Array]:
    return {
        name: np.transpose(array, perms[name]) if name in perms else array
        for name, array in arrays.items()
    }


def match_layouts(before: Model, after: Model) -> LayoutPermutation | None:
    """Return the permutations that make the second model's values those of the first.

    The first axis may have another length: it holds the samples. ``None`` where inputs or
    outputs differ by more than a move of the channels from one end to the other.
    """
    layout = LayoutPermutation()
    for ours, theirs, perms, back in (
        (before.graph.inputs, after.graph.inputs, layout.inputs, False),
        (before.graph.outputs, after.graph.outputs, layout.outputs, True),
    ):
        if len(ours) != len(theirs):
            return None
        for one, other in zip(ours, theirs, strict=True):
            source, target = (other, one) if back else (one, other)
            perm = _perm(source, target)
            if perm is None:
                return None
            if perm != identity(len(perm)):
                perms[str(other.name)] = perm
    return layout


def _perm(source: Value, target: Value) -> Perm | None:
    """Return the permutation that makes the target's shape of the source's."""
    if source.dtype != target.dtype:
        return None
    sizes, wanted = dims(source), dims(target)
    if sizes is None or wanted is None:
        return () if sizes is wanted else None
    if len(sizes) != len(wanted):
        return None
    rank = len(sizes)
    perms = (identity(rank), to_last(rank), to_first(rank)) if rank > 2 else (identity(rank),)
    fitting = (p for p in perms if tuple(sizes[axis] for axis in p[1:]) == wanted[1:])
    return next(fitting, None)
