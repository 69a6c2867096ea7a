"""What stands between an integer sum and the next quantizer: adding, scaling, clamping.

Only operators that keep order are followed (for each channel the result never falls, or never
rises, as the sum grows), because then a quantizer behind them is a staircase of the sum, and
two staircases are equal if their steps are at the same places.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx_ir import Node, Value

from qonnx_hub_adapters.qlinear.constants import read_number
from qonnx_hub_ir.quantizers import Array

Apply = Callable[[Array], Array]

MOVES = frozenset({"Flatten", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators that may stand in a chain and act on the codes behind the quantizer instead."""

_SINGLE = MOVES | frozenset(
    {"BatchNormalization", "Clip", "Identity", "LeakyRelu", "Neg", "Relu"}
)


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One operator on values of shape (channels, numbers).

    Attributes:
        node: The operator; ``None`` for a part of the product itself.
        apply: What it computes, each operation rounded to the type of its input.
        clamps: Whether it bends or cuts the line; the others are affine.
    """

    node: Node | None
    apply: Apply
    clamps: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the channels of a value lie.

    Attributes:
        rank: Number of axes.
        axis: The axis of the channels.
        channels: How many there are.
    """

    rank: int
    axis: int
    channels: int

    def per_channel(self, values: Array) -> Array | None:
        """Return a constant as (channels, 1) or (1, 1); ``None`` if it varies elsewhere."""
        if values.size == 1:
            return values.reshape(1, 1)
        if values.ndim > self.rank or values.size != self.channels:
            return None
        own = self.rank - values.ndim
        wide = [own + axis for axis, size in enumerate(values.shape) if size != 1]
        return values.reshape(-1, 1) if wide == [self.axis] else None


def trace_epilogue(
    value: Value, is_source: Callable[[Value], bool]
) -> tuple[Value, list[Node]]:
    """Return where a chain of single-input operators starts, and its nodes in order.

    The walk ends at the first value that ``is_source`` knows or that no such operator makes.
    """
    nodes: list[Node] = []
    while not is_source(value):
        node = value.producer()
        inner = None if node is None else _moving_input(node)
        if node is None or inner is None:
            break
        nodes.append(node)
        value = inner
    nodes.reverse()
    return value, nodes


def _moving_input(node: Node) -> Value | None:
    if node.domain != "" or len(node.outputs) != 1:
        return None
    if node.op_type in _SINGLE:
        return node.inputs[0]
    if node.op_type not in {"Add", "Sub", "Mul", "Div"} or len(node.inputs) != 2:
        return None
    moving = [v for v in node.inputs if read_number(v) is None]
    return moving[0] if len(moving) == 1 else None


def read_chain(chain: list[Node], layout: Layout) -> list[Step] | str:
    """Return what a chain computes apart from its moves, or why it cannot be followed.

    Args:
        chain: Nodes in order.
        layout: Where the channels lie at its start.
    """
    steps: list[Step] = []
    last_pool = -1
    for node in chain:
        if node.op_type in MOVES:
            layout = _moved(layout, node)
            if node.op_type != "MaxPool":
                continue
            if not windows_are_filled(node):
                return f"MaxPool '{node.name}' has windows that may hold padding only"
            last_pool = len(steps)
            continue
        step = read_step(node, layout)
        if isinstance(step, str):
            return step
        steps.append(step)
    if last_pool >= 0 and steps[last_pool:]:
        unit = np.ones((layout.channels, 1), dtype=np.float64)
        if np.any(line_of(steps[last_pool:], unit).slope < 0):
            return "values are turned round behind a MaxPool"
    return steps


def _moved(layout: Layout, node: Node) -> Layout:
    """Return where the channels lie behind a move; nowhere if that is not known."""
    shape = node.outputs[0].shape
    if node.op_type == "MaxPool":
        return layout
    order = node.attributes.get("perm")
    if node.op_type == "Transpose" and order is not None and layout.axis >= 0:
        return Layout(layout.rank, list(order.value).index(layout.axis), layout.channels)
    return Layout(0 if shape is None else len(shape), -1, layout.channels)


def windows_are_filled(node: Node) -> bool:
    """Return whether every window of a MaxPool has a value: an empty one is infinite."""
    given = {name: attribute.value for name, attribute in node.attributes.items()}
    automatic = given.get("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}
    padded = automatic or any(given.get("pads", ()))
    dilated = any(step != 1 for step in given.get("dilations", ()))
    return not (given.get("ceil_mode", 0) or (padded and dilated))


def read_step(node: Node, layout: Layout) -> Step | str:
    """Return what an operator computes, or why it cannot be followed."""
    where = f"{node.op_type} '{node.name}'"
    if node.op_type == "Identity":
        return Step(node, lambda t: t)
    if node.op_type == "Relu":
        return Step(node, lambda t: np.maximum(t, t.dtype.type(0)), clamps=True)
    if node.op_type == "Neg":
        return Step(node, lambda t: -t)
    if node.op_type == "LeakyRelu":
        return _leaky_relu(node, where)
    if node.op_type == "Clip":
        return _clip(node, layout, where)
    if node.op_type == "BatchNormalization":
        return _batch_norm(node, layout, where)
    constants = [read_number(v) for v in node.inputs]
    known = [layout.per_channel(c) if c is not None else None for c in constants]
    given = [k for k in known if k is not None]
    if len(given) != 1 or given[0].dtype != np.float32:
        return f"{where} has a constant that varies along other axes than the channels"
    number, first = given[0], known[0] is not None
    if not np.all(np.isfinite(number)) or (node.op_type == "Div" and np.any(number == 0)):
        return f"{where} has a constant that is not finite, or divides by zero"
    return _arithmetic(node, number, first, where)


def _arithmetic(node: Node, number: Array, first: bool, where: str) -> Step | str:
    steps: dict[str, Apply] = {
        "Add": lambda t: t + number.astype(t.dtype),
        "Mul": lambda t: t * number.astype(t.dtype),
        "Sub": lambda t: t - number.astype(t.dtype),
        "Div": lambda t: t / number.astype(t.dtype),
    }
    if not first or node.op_type in {"Add", "Mul"}:
        return Step(node, steps[node.op_type])
    if node.op_type == "Sub":
        return Step(node, lambda t: number.astype(t.dtype) - t)
    return f"{where} divides a constant by values"


def _leaky_relu(node: Node, where: str) -> Step | str:
    attribute = node.attributes.get("alpha")
    alpha = np.float32(0.01 if attribute is None else attribute.value)
    if not 0 <= alpha <= 1:
        return f"{where} turns negative values round, or makes them grow"
    return Step(node, lambda t: np.where(t < 0, t * t.dtype.type(alpha), t), clamps=True)


def _clip(node: Node, layout: Layout, where: str) -> Step | str:
    low, high = np.float32(-np.inf), np.float32(np.inf)
    for index in (1, 2):
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None:
            continue
        bound = read_number(value)
        if bound is None or bound.size != 1 or bound.dtype != np.float32:
            return f"{where} has bounds that are computed at run time"
        if index == 1:
            low = bound.reshape(-1)[0]
        else:
            high = bound.reshape(-1)[0]

    def apply(t: Array) -> Array:
        return np.asarray(np.minimum(np.maximum(t, t.dtype.type(low)), t.dtype.type(high)))

    return Step(node, apply, clamps=True)


def _batch_norm(node: Node, layout: Layout, where: str) -> Step | str:
    """Follow a BatchNormalization as factor and offset, each operation rounded by itself."""
    if "training_mode" in node.attributes and node.attributes["training_mode"].value:
        return f"{where} trains"
    if layout.axis != 1:
        return f"{where} normalizes axis 1, the channels are on axis {layout.axis}"
    parameters = [read_number(v) for v in node.inputs[1:5]]
    if any(p is None or p.size != layout.channels for p in parameters):
        return f"{where} has parameters that are computed at run time"
    gain, shift, mean, variance = (np.asarray(p) for p in parameters)
    attribute = node.attributes.get("epsilon")
    epsilon = np.float32(1e-5 if attribute is None else attribute.value)
    with np.errstate(all="ignore"):
        factor = np.reciprocal(np.sqrt(variance + epsilon)) * gain
        offset = shift - mean * factor
    if not np.all(np.isfinite(factor) & np.isfinite(offset)):
        return f"{where} has parameters that are not finite"
    columns = [values.reshape(-1, 1) for values in (factor, offset)]
    return Step(node, lambda t: t * columns[0].astype(t.dtype) + columns[1].astype(t.dtype))


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """The affine part of a chain: ``y = slope * sum + offset``, float64 of shape (C, 1)."""

    slope: Array
    offset: Array


def apply_steps(steps: list[Step], t: Array) -> Array:
    """Return what the steps compute, in the type of ``t``."""
    for step in steps:
        t = step.apply(t)
    return t


def line_of(steps: list[Step], scale: Array) -> Line:
    """Return slope and offset of the steps without their clamps.

    Args:
        steps: The chain.
        scale: Size of one unit of the sum, (C, 1).
    """
    affine = [step for step in steps if not step.clamps]
    channels: Any = scale.shape[0]
    ends = [
        apply_steps(affine, np.full((channels, 1), unit, dtype=np.float64) * scale)
        for unit in (0.0, 1.0)
    ]
    return Line(np.asarray(ends[1] - ends[0]), np.asarray(ends[0]))
