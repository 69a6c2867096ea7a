"""Parts of a graph that are functions of one number: what a quantizer is, however written.

A :class:`Side` knows which values of a model are constant and which are pointwise functions of
which others. A :class:`Region` is such a function, run with the executor's own kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub.equivalence.proof.intervals import (
    POINTWISE,
    Argument,
    Enclosure,
    enclose_step,
    is_coarse,
)
from qonnx_hub.executor.plan import Plan, Step
from qonnx_hub.executor.planner import make_plan
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.queries import attribute
from qonnx_hub_ir.quantizers import Array

_LONGEST_CHAIN = 48
"""Steps back that a pointwise function may have; written-out minifloats need about thirty."""


class Side:
    """A model, its plan, and what is known about its values.

    Attributes:
        model: The IR model.
        constants: Value -> array, for everything that does not depend on the inputs.
    """

    def __init__(self, model: Model) -> None:
        """Plan the model and compute its constants.

        Raises:
            UnsupportedGraphError: Operators that nothing can run; all of them are listed.
            ExecutionError: A node with constant inputs fails.
        """
        self.model = model
        self.plan: Plan = make_plan(model, keep_all=True)
        self.constants: dict[Value, Array] = {}
        self._steps = self._steps_by_node()
        self._order = {node: index for index, node in enumerate(model.graph)}
        self._chains: dict[Value, tuple[Value, ...]] = {}
        made = (value for node in model.graph for value in node.outputs if value.name)
        for value in (*model.graph.initializers.values(), *made):
            held = self.plan.initial[self.slot(value)]
            if isinstance(held, np.ndarray):
                self.constants[value] = held

    def slot(self, value: Value) -> int:
        """Return where the plan keeps a value."""
        return self.plan.tensors[str(value.name)]

    def _steps_by_node(self) -> dict[Node, Step]:
        by_slot = {slot: step for step in self.plan.steps for slot in step.outputs}
        found: dict[Node, Step] = {}
        for node in self.model.graph:
            for value in node.outputs:
                if value.name and (step := by_slot.get(self.slot(value))) is not None:
                    found[node] = step
        return found

    def step(self, node: Node) -> Step:
        """Return the step that runs a node."""
        return self._steps[node]

    def sources(self, node: Node) -> list[Value]:
        """Return the node's inputs that are not constant, each once."""
        given = (v for v in node.inputs if v is not None and v not in self.constants)
        return list(dict.fromkeys(given))

    def chain(self, value: Value) -> tuple[Value, ...]:
        """Return the values of which this one is a pointwise function, the nearest first.

        All ways from any of them to the value lie inside the function.
        """
        if value not in self._chains:
            self._chains[value] = self._find_chain(value)
        return self._chains[value]

    def _find_chain(self, value: Value) -> tuple[Value, ...]:
        node = value.producer()
        if node is None or value in self.constants or not self._is_pointwise(node):
            return ()
        chains = [(source, *self.chain(source)) for source in self.sources(node)]
        common = chains[0]
        for other in chains[1:]:
            common = tuple(v for v in common if v in other)
        return common[:_LONGEST_CHAIN]

    def _is_pointwise(self, node: Node) -> bool:
        pointwise = (
            node.op_type in POINTWISE
            if node.domain in dialect.STANDARD_DOMAINS
            else dialect.is_quantizer(node)
        )
        if not pointwise or len(node.outputs) != 1 or node not in self._steps:
            return False
        if attribute(node, "training_mode", 0):
            return False
        sources = self.sources(node)
        return bool(sources) and all(
            _dims(value) == _dims(node.outputs[0])
            if (constant := self.constants.get(value)) is None
            else _fits(node, position, constant)
            for position, value in enumerate(node.inputs)
            if value is not None
        )

    def nodes_between(self, source: Value, target: Value) -> list[Node]:
        """Return the nodes of the function from ``source`` to ``target``, in order."""
        found: dict[Node, None] = {}
        waiting = [target]
        while waiting:
            value = waiting.pop()
            node = value.producer()
            if value is source or value in self.constants or node is None or node in found:
                continue
            found[node] = None
            waiting.extend(self.sources(node))
        return sorted(found, key=self._order.__getitem__)


def _dims(value: Value) -> tuple[Any, ...] | None:
    if value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else str(d.value) for d in value.shape)


def _is_single(node: Node, position: int, constant: Array) -> bool:
    """Return whether a constant is one number to the operator, whatever the data's rank."""
    if position and (dialect.is_quantizer(node) or node.op_type == "Clip"):
        return constant.size == 1
    return constant.ndim == 0 or (operators.is_qdq(node) and constant.shape == (1,))


def _fits(node: Node, position: int, constant: Array) -> bool:
    """Return whether a constant leaves the data its shape: no broadcast enlarges it."""
    if _is_single(node, position, constant):
        return True
    dims = _dims(node.outputs[0])
    if dims is None or constant.ndim > len(dims):
        return False
    axes = _parameter_axes(node, constant, dims)
    return axes is not None and all(dims[axis] == size for axis, size in axes.items())


def _parameter_axes(node: Node, constant: Array, dims: Sequence[Any]) -> dict[int, int] | None:
    """Return axis of the data -> size, for the axes along which a parameter may vary.

    Returns:
        ``None`` where the parameter does not fit the operator.
    """
    rank, channels = len(dims), operators.channel_axis(node)
    if channels is not None:
        return {channels: len(constant)} if rank > 1 else None
    if not operators.is_qdq(node):
        offset = rank - constant.ndim
        return {offset + i: size for i, size in enumerate(constant.shape) if size != 1}
    if not attribute(node, "block_size", 0):
        axis = int(attribute(node, "axis", 1)) % rank
        return {axis: len(constant)} if constant.ndim == 1 else None
    if constant.ndim != rank or not all(isinstance(d, int) for d in dims):
        return None
    # A blocked parameter has to meet the data's own shape: no axis is free.
    return {i: int(dims[i]) for i in range(rank)}


@dataclass(frozen=True, slots=True)
class Layout:
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
        free = self.free_axis()
        sizes = dict(self.axes)
        if free is None:
            return rows.reshape([sizes[axis] for axis in range(self.rank)])
        sizes[free] = rows.shape[1]
        own = [sizes[axis] for axis, _ in self.axes]
        stacked = rows.reshape([*own, rows.shape[1]])
        moved = np.moveaxis(stacked, -1, sum(axis < free for axis, _ in self.axes))
        return np.ascontiguousarray(moved).reshape(
            [sizes.get(axis, 1) for axis in range(self.rank)]
        )

    def gathered(self, tensor: Array, width: int) -> Array:
        """Return a tensor made by :meth:`spread` as rows again."""
        free = self.free_axis()
        if not self.rank or free is None:
            return tensor.reshape(self.channels, width)
        sizes = [size for axis, size in sorted([*self.axes, (free, width)])]
        position = sum(axis < free for axis, _ in self.axes)
        return np.moveaxis(tensor.reshape(sizes), position, -1).reshape(self.channels, width)


def layout_of(parts: Sequence[tuple[Side, Value, Value]]) -> Layout | None:
    """Return a layout that serves several functions at once.

    Args:
        parts: Model, source and target of each.

    Returns:
        ``None`` where their sources have different ranks, or their parameters disagree.
    """
    ranks: set[int] = set()
    axes: dict[int, int] = {}
    for side, source, target in parts:
        dims = _dims(source)
        if dims is not None:
            ranks.add(len(dims))
        for node in side.nodes_between(source, target):
            for position, value in enumerate(node.inputs):
                constant = None if value is None else side.constants.get(value)
                if constant is None or _is_single(node, position, constant):
                    continue
                found = None if dims is None else _parameter_axes(node, constant, dims)
                if found is None or any(axes.get(a, s) != s for a, s in found.items()):
                    return None
                axes.update(found)
    if len(ranks) > 1:
        return None
    return Layout(ranks.pop() if ranks else 0, tuple(sorted(axes.items())))


class Region:
    """A pointwise function of one value of a graph, element by element.

    Attributes:
        channels: How many elements behave differently.
        nodes: The nodes, in order.
    """

    def __init__(self, side: Side, source: Value, target: Value, layout: Layout) -> None:
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
        initial = side.plan.initial
        self._constants = {slot: initial[slot] for slot in read if initial[slot] is not None}
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
        values: dict[int, Any] = {self._source: self._layout.spread(rows)}
        for step in self._steps:
            args = [values[s] if s in values else self._constants.get(s) for s in step.inputs]
            values[step.outputs[0]] = step.run(*args)
        return [self._layout.gathered(np.asarray(values[self._target]), rows.shape[1])]

    def _enclose(self, low: Array, high: Array) -> list[Array]:
        known = np.ones(low.shape, dtype=np.bool_)
        spread = [self._layout.spread(part) for part in (low, high, known)]
        boxes: dict[int, Argument] = {self._source: Enclosure(*spread)}
        for node, step in zip(self.nodes, self._steps, strict=True):
            args = [boxes[s] if s in boxes else self._constants.get(s) for s in step.inputs]
            boxes[step.outputs[0]] = enclose_step(node, step.run, args)
        result = boxes[self._target]
        assert isinstance(result, Enclosure)
        return [
            self._layout.gathered(np.broadcast_to(part, spread[0].shape), low.shape[1])
            for part in (result.low, result.high, result.known)
        ]
