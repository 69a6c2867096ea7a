"""A model in the layout of another one, which it is compared with."""

from __future__ import annotations

from dataclasses import dataclass, field

from onnx_ir import Model, Value

from qonnx_hub_ir.graph.permutations import Perm, identity, inverse, to_first, to_last
from qonnx_hub_ir.graph.queries import dims
from qonnx_hub_ir.passes.layout.change_layout import transpose_input, transpose_output


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


def in_layout_of_first(model: Model, layout: LayoutPermutation) -> Model:
    """Return a copy of the other model that takes and gives what the first does."""
    turned = model.clone()
    for value in list(turned.graph.inputs):
        if (perm := layout.inputs.get(str(value.name))) is not None:
            transpose_input(turned, value, inverse(perm))
    for value in list(turned.graph.outputs):
        if (perm := layout.outputs.get(str(value.name))) is not None:
            transpose_output(turned, value, perm)
    return turned


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
