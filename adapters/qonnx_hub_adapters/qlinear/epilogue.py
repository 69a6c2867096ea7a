"""What stands between an integer sum and the next quantizer: adding, scaling, clamping.

Only operators that keep order are followed (for each channel the result never falls, or never
rises, as the sum grows), because then a quantizer behind them is a staircase of the sum, and
two staircases are equal if their steps are at the same places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx_ir import Node, Value

from qonnx_hub_adapters.qcdq.chains import windows_are_filled
from qonnx_hub_adapters.qlinear.constants import read_number
from qonnx_hub_ir import operators
from qonnx_hub_ir.graph.affine import batchnorm_affine
from qonnx_hub_ir.graph.queries import attribute, is_standard
from qonnx_hub_ir.quantizers import Array

Apply = Callable[[Array], Array]


@dataclass(frozen=True, slots=True, eq=False)
class EpilogueStep:
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
class ChannelLayout:
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


def is_move(node: Node) -> bool:
    """Return whether a node may stand in a chain and act on the codes behind it instead."""
    pools = is_standard(node, "MaxPool")
    return pools or operators.reshapes(node) or operators.transposes(node)


def _moving_input(node: Node) -> Value | None:
    if node.domain != "" or len(node.outputs) != 1:
        return None
    if is_move(node) or node.op_type in _READERS:
        return node.inputs[0]
    moving = [value for value in node.inputs if read_number(value) is None]
    return moving[0] if operators.is_affine(node) and len(moving) == 1 else None


def read_chain(chain: list[Node], layout: ChannelLayout) -> list[EpilogueStep] | str:
    """Return what a chain computes apart from its moves, or why it cannot be followed.

    Args:
        chain: Nodes in order.
        layout: Where the channels lie at its start.
    """
    steps: list[EpilogueStep] = []
    last_pool = -1
    for node in chain:
        if is_move(node):
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
            return "values change their sign behind a MaxPool"
    return steps


def _moved(layout: ChannelLayout, node: Node) -> ChannelLayout:
    """Return where the channels lie behind a move; nowhere if that is not known."""
    shape = node.outputs[0].shape
    if node.op_type == "MaxPool":
        return layout
    order = attribute(node, "perm", None)
    if node.op_type == "Transpose" and order is not None and layout.axis >= 0:
        return ChannelLayout(layout.rank, list(order).index(layout.axis), layout.channels)
    return ChannelLayout(0 if shape is None else len(shape), -1, layout.channels)


def read_step(node: Node, layout: ChannelLayout) -> EpilogueStep | str:
    """Return what an operator computes, or why it cannot be followed."""
    where = f"{node.op_type} '{node.name}'"
    if node.op_type in _READERS:
        return _READERS[node.op_type](node, layout, where)
    constants = [read_number(v) for v in node.inputs]
    known = [layout.per_channel(c) if c is not None else None for c in constants]
    given = [k for k in known if k is not None]
    if len(given) != 1 or given[0].dtype != np.float32:
        return f"{where} has a constant that varies along other axes than the channels"
    number, first = given[0], known[0] is not None
    if not np.all(np.isfinite(number)) or (node.op_type == "Div" and np.any(number == 0)):
        return f"{where} has a constant that is not finite, or divides by zero"
    function = operators.of(node).in_numpy
    assert function is not None
    if not first:
        return EpilogueStep(node, lambda t: function(t, number.astype(t.dtype)))
    if node.op_type == "Div":
        return f"{where} divides a constant by values"
    return EpilogueStep(node, lambda t: function(number.astype(t.dtype), t))


def _leaky_relu(node: Node, layout: ChannelLayout, where: str) -> EpilogueStep | str:
    alpha = np.float32(attribute(node, "alpha", 0.01))
    if not 0 <= alpha <= 1:
        return f"{where} has a negative alpha, or one above 1"
    return EpilogueStep(
        node, lambda t: np.where(t < 0, t * t.dtype.type(alpha), t), clamps=True
    )


def _clip(node: Node, layout: ChannelLayout, where: str) -> EpilogueStep | str:
    ends = [np.float32(-np.inf), np.float32(np.inf)]
    for index, value in enumerate(node.inputs[1:3]):
        bound = read_number(value)
        if bound is not None and bound.size == 1 and bound.dtype == np.float32:
            ends[index] = bound.reshape(-1)[0]
        elif value is not None:
            return f"{where} has bounds that are computed at run time"
    low, high = ends

    def apply(t: Array) -> Array:
        return np.asarray(np.minimum(np.maximum(t, t.dtype.type(low)), t.dtype.type(high)))

    return EpilogueStep(node, apply, clamps=True)


def _batch_norm(node: Node, layout: ChannelLayout, where: str) -> EpilogueStep | str:
    """Follow a BatchNormalization as factor and offset, each operation rounded by itself."""
    if attribute(node, "training_mode", 0):
        return f"{where} trains"
    if layout.axis != 1:
        return f"{where} normalizes axis 1, the channels are on axis {layout.axis}"
    parameters = [read_number(value) for value in node.inputs[1:5]]
    if any(p is None or p.size != layout.channels for p in parameters):
        return f"{where} has parameters that are computed at run time"
    gain, shift, mean, variance = (np.asarray(p) for p in parameters)
    line = batchnorm_affine(gain, shift, mean, variance, attribute(node, "epsilon", 1e-5))
    if not all(np.all(np.isfinite(values)) for values in line):
        return f"{where} has parameters that are not finite"
    factor, offset = (values.reshape(-1, 1) for values in line)
    return EpilogueStep(node, lambda t: t * factor.astype(t.dtype) + offset.astype(t.dtype))


_READERS: Mapping[str, Callable[[Node, ChannelLayout, str], EpilogueStep | str]] = {
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Identity": lambda node, *_: EpilogueStep(node, lambda t: t),
    "LeakyRelu": _leaky_relu,
    "Neg": lambda node, *_: EpilogueStep(node, np.negative),
    "Relu": lambda node, *_: EpilogueStep(
        node, lambda t: np.maximum(t, t.dtype.type(0)), clamps=True
    ),
}
"""Operators of one value and constants -> what reads them."""


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """The affine part of a chain: ``y = slope * sum + offset``, float64 of shape (C, 1)."""

    slope: Array
    offset: Array


def apply_steps(steps: list[EpilogueStep], t: Array) -> Array:
    """Return what the steps compute, in the type of ``t``."""
    for step in steps:
        t = step.apply(t)
    return t


def line_of(steps: list[EpilogueStep], scale: Array) -> Line:
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
