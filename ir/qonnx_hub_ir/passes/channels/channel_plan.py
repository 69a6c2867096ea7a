"""Which channels of a value are kept, and the edits that remove the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from onnx_ir import Graph, Node, Value

from qonnx_hub_ir import operators
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.graph.builder import set_constant
from qonnx_hub_ir.graph.constants import is_constant_tree, shape_of_constant
from qonnx_hub_ir.graph.queries import dims, input_of
from qonnx_hub_ir.graph.rearrange import Rearranger, taking
from qonnx_hub_ir.quantizers import Array
from qonnx_hub_ir.validity import label


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """The channels that are kept.

    Attributes:
        axis: Axis of the channels, from 0 on.
        mask: One truth value per channel.
    """

    axis: int
    mask: Array

    def equals(self, other: Kept) -> bool:
        """Return whether both keep the same channels of the same axis."""
        return self.axis == other.axis and np.array_equal(self.mask, other.mask)


@dataclass(slots=True)
class ChannelPlan:
    """What is known while masks are carried through a graph.

    Attributes:
        graph: The graph.
        named: Layer -> mask of its output channels.
        kept: Value -> its channels that are kept; all of them where it is missing.
        edits: What to do once nothing can be refused any more.
    """

    graph: Graph
    named: dict[Node, Array]
    kept: dict[Value, Kept] = field(default_factory=dict)
    edits: list[Callable[[], object]] = field(default_factory=list)
    _rearrange: Rearranger | None = None

    def of(self, node: Node, index: int) -> Kept | None:
        """Return the channels kept of an input."""
        value = input_of(node, index)
        return None if value is None else self.kept.get(value)

    def take(self, node: Node, index: int, axis: int, mask: Array, rank: int) -> None:
        """Plan to keep these elements of a constant input, along an axis.

        Args:
            node: Its reader.
            index: The position of the input.
            axis: The axis, counted in an array of that rank.
            mask: What is kept; a constant of length 1 along the axis stays as it is.
            rank: Rank that the constant is seen with: it may lack leading axes.

        Raises:
            PassError: The input is computed at run time.
        """
        value = node.inputs[index]
        if value is None or not is_constant_tree(value):
            raise refuse(
                node,
                f"its input {index} is computed at run time (where it depends on constants "
                "only, fold_constants and fold_weight_layout make one of it)",
            )
        shape = shape_of_constant(value)
        place = axis - (rank - len(shape))
        if place < 0 or shape[place] == 1:
            return
        if shape[place] != mask.size:
            raise refuse(node, f"its input {index} has {shape[place]} channels")
        self.edits.append(lambda: self._take_now(node, index, place, mask, len(shape)))

    def _take_now(self, node: Node, index: int, axis: int, mask: Array, rank: int) -> None:
        if self._rearrange is None:
            self._rearrange = Rearranger(self.graph)
        value = node.inputs[index]
        if value is None:
            return
        change = taking(np.flatnonzero(mask), axis)
        key = (axis, mask.tobytes())
        node.replace_input_with(index, self._rearrange(value, change, key, node, rank))

    def set_constant(self, node: Node, index: int, array: Array) -> None:
        """Plan to give a node another constant input."""
        name = f"{node.name}_{operators.input_role(node, index)}"
        self.edits.append(lambda: set_constant(self.graph, node, index, array, name))


def refuse(node: Node, reason: str) -> PassError:
    """Return the error for a node that a mask cannot be carried through."""
    return PassError(f"{label(node)}: channels cannot be removed here: {reason}")


def required_rank(node: Node, value: Value | None) -> int:
    """Return the rank of a value.

    Raises:
        PassError: It is not known.
    """
    sizes = dims(value)
    if sizes is None:
        raise refuse(node, "the rank of its input is not known")
    return len(sizes)


def require_axis(node: Node, kept: Kept, axis: int) -> None:
    """Refuse channels along another axis than a node has them.

    Raises:
        PassError: The axis is another one.
    """
    if kept.axis != axis:
        raise refuse(node, f"they lie along axis {kept.axis}, not {axis}")
