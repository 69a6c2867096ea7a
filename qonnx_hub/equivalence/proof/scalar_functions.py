"""Parts of a graph that are functions of one number: what a quantizer is, however written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx_ir import Node, Value

from qonnx_hub.equivalence.proof.intervals import (
    Argument,
    Enclosure,
    enclose_step,
    is_coarse,
)
from qonnx_hub.equivalence.proof.proof_model import ProofModel, is_single, parameter_axes
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.queries import dims
from qonnx_hub_ir.quantizers import Array


@dataclass(frozen=True, slots=True)
class ElementLayout:
    """How the elements of a value are told apart.

    Attributes:
        rank: Number of axes; 0 for a scalar, or where every parameter is one.
        axes: Axis -> size, for the axes along which some parameter varies.
    """

    rank: int
    axes: tuple[tuple[int, int], ...]

    @property
    def channels(self) -> int:
        """How many elements behave differently."""
        return int(np.prod([size for _, size in self.axes], dtype=np.int64))

    def free_axis(self) -> int | None:
        """Return an axis along which nothing varies."""
        taken = {axis for axis, _ in self.axes}
        return next((axis for axis in range(self.rank) if axis not in taken), None)

    def spread(self, rows: Array) -> Array:
        """Return rows (channels, n) as a tensor of the value's rank."""
        if not self.rank:
            return rows.reshape(-1)
        sizes = self._sizes(rows.shape[1])
        moved = rows.reshape(list(sizes.values())).transpose(np.argsort(list(sizes)))
        full = [sizes.get(axis, 1) for axis in range(self.rank)]
        return np.ascontiguousarray(moved).reshape(full)

    def gathered(self, tensor: Array, width: int) -> Array:
        """Return a tensor made by :meth:`spread` as rows again."""
        sizes = self._sizes(width) if self.rank else {0: width}
        order = np.argsort(list(sizes))
        moved = tensor.reshape([sizes[axis] for axis in sorted(sizes)])
        return np.asarray(moved.transpose(np.argsort(order)).reshape(self.channels, width))

    def _sizes(self, width: int) -> dict[int, int]:
        """Return axis -> size of rows of a width, which lie along the free axis: the last."""
        free = self.free_axis()
        return dict(self.axes) | ({} if free is None else {free: width})


def layout_of(parts: Sequence[tuple[ProofModel, Value, Value]]) -> ElementLayout | None:
    """Return a layout that serves several functions at once.

    Args:
        parts: Model, source and target of each.

    Returns:
        ``None`` where their sources have different ranks, or their parameters disagree.
    """
    ranks: set[int] = set()
    axes: dict[int, int] = {}
    for side, source, target in parts:
        sizes = dims(source)
        if sizes is not None:
            ranks.add(len(sizes))
        for node in side.nodes_between(source, target):
            for position, value in enumerate(node.inputs):
                constant = None if value is None else side.constants.get(value)
                if constant is None or is_single(node, position, constant):
                    continue
                found = None if sizes is None else parameter_axes(node, constant, sizes)
                if found is None or any(axes.get(a, s) != s for a, s in found.items()):
                    return None
                axes.update(found)
    if len(ranks) > 1:
        return None
    return ElementLayout(ranks.pop() if ranks else 0, tuple(sorted(axes.items())))


def _is_reshape(node: Node) -> bool:
    # It moves no element past another: to one number it is nothing.
    return node.domain in dialect.STANDARD_DOMAINS and operators.reshapes(node)


class ScalarFunction:
    """A pointwise function of one value of a graph, element by element.

    Attributes:
        channels: How many elements behave differently.
        nodes: The nodes, in order.
    """

    def __init__(
        self, side: ProofModel, source: Value, target: Value, layout: ElementLayout
    ) -> None:
        """Collect the steps.

        Args:
            side: The model.
            source: The function's input.
            target: Its output; ``source`` is in its chain.
            layout: From :func:`layout_of`, for this function and those compared with it.
        """
        self._layout = layout
        self.nodes = side.nodes_between(source, target)
        self._steps = [side.step(node) for node in self.nodes]
        self._source, self._target = side.slot(source), side.slot(target)
        read = {slot for step in self._steps for slot in step.inputs}
        self._constants = {slot: side.plan.initial[slot] for slot in read}
        self.channels = layout.channels

    def is_coarse(self) -> bool:
        """Return whether some operator inside makes few values out of many."""
        return any(is_coarse(node) for node in self.nodes)

    def uses(self, op_type: str) -> bool:
        """Return whether an operator of that name is inside."""
        return any(node.op_type == op_type for node in self.nodes)

    def __call__(self, rows: Array) -> Array:
        """Return what the function makes of ``rows``, both of shape (channels, n)."""
        (values,) = self._by_column(self._run, rows)
        return values

    def enclose(self, low: Array, high: Array) -> Enclosure:
        """Return what the function can be between ``low`` and ``high``: (channels, n) each."""
        return Enclosure(*self._by_column(self._enclose, low, high))

    def _by_column(self, run: Callable[..., list[Array]], *rows: Array) -> list[Array]:
        """Return answers on all rows at once; column by column where no axis is free."""
        with np.errstate(all="ignore"):
            if not self._layout.rank or self._layout.free_axis() is not None:
                return run(*rows)
            columns = [run(*(row[:, [i]] for row in rows)) for i in range(rows[0].shape[1])]
        return [np.concatenate(parts, axis=1) for parts in zip(*columns, strict=True)]

    def _run(self, rows: Array) -> list[Array]:
        values: dict[int, Any] = {**self._constants, self._source: self._layout.spread(rows)}
        for node, step in zip(self.nodes, self._steps, strict=True):
            if _is_reshape(node):
                values[step.outputs[0]] = values[step.inputs[0]]
                continue
            values[step.outputs[0]] = step.run(*(values[slot] for slot in step.inputs))
        return [self._layout.gathered(np.asarray(values[self._target]), rows.shape[1])]

    def _enclose(self, low: Array, high: Array) -> list[Array]:
        known = np.ones(low.shape, dtype=np.bool_)
        spread = [self._layout.spread(part) for part in (low, high, known)]
        boxes: dict[int, Argument] = {**self._constants, self._source: Enclosure(*spread)}
        for node, step in zip(self.nodes, self._steps, strict=True):
            if _is_reshape(node):
                boxes[step.outputs[0]] = boxes[step.inputs[0]]
                continue
            fed = [boxes[slot] for slot in step.inputs]
            boxes[step.outputs[0]] = enclose_step(node, step.run, fed)
        result = boxes[self._target]
        assert isinstance(result, Enclosure)
        return [
            self._layout.gathered(np.broadcast_to(part, spread[0].shape), low.shape[1])
            for part in (result.low, result.high, result.known)
        ]
