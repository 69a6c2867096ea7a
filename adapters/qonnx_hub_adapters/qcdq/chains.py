"""The way from a DequantizeLinear back to where its integers come from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir import Node, Value

from qonnx_hub_adapters.qcdq.parameters import (
    INTEGER_RANGES,
    MINIFLOATS,
    NoMatchError,
    constant_of,
)
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.queries import attribute, input_of, is_standard
from qonnx_hub_ir.quantizers import Array


def is_move(node: Node) -> bool:
    """Return whether a node only chooses and moves values of its first input.

    Such a node commutes with every function that is applied to each value and never falls, so
    with DequantizeLinear and Clip.
    """
    moves = operators.moves_first(node) and not operators.is_identity(node)
    return moves or is_standard(node, "MaxPool")


def windows_are_filled(node: Node) -> bool:
    """Return whether every window of a MaxPool has a value.

    One with padding only is the lowest integer before DequantizeLinear, infinite behind it.
    """
    automatic = attribute(node, "auto_pad", "NOTSET") not in {"NOTSET", "VALID"}
    padded = automatic or any(attribute(node, "pads", ()))
    dilated = any(step != 1 for step in attribute(node, "dilations", ()))
    return not (attribute(node, "ceil_mode", 0) or (padded and dilated))


@dataclass(frozen=True, slots=True)
class Chain:
    """Where the integers of a DequantizeLinear come from and what happens to them.

    Attributes:
        target: The DequantizeLinear.
        codes: The first value with integers: an initializer, or the output of ``source``.
        source: QuantizeLinear, or Where between two constants; ``None`` for an initializer.
        moves: Nodes that move values on the way, in the order of computation.
        low: Lowest integer that can arrive.
        high: Highest integer that can arrive. What arrives is what ``codes`` holds, clamped
            to these two, and moved. Both are 0 for small float types.
        clips: Names of the Clips on the way.
    """

    target: Node
    codes: Value
    source: Node | None
    moves: tuple[Node, ...]
    low: int
    high: int
    clips: tuple[str, ...] = ()


def trace(target: Node) -> Chain:
    """Return the chain that ends in a DequantizeLinear.

    Raises:
        NoMatchError: Something lies on the way that changes the integers.
    """
    value = target.inputs[0]
    path: list[Node] = []
    while True:
        if value is None:
            raise NoMatchError("it has no input")
        source = value.producer()
        if source is None or is_standard(source, "QuantizeLinear", "Where"):
            break
        path.append(source)
        value = _previous(source)
    if source is None and not _is_constant(value):
        raise NoMatchError(f"its integers come from outside, as '{value.name}'")
    path.reverse()
    low, high = _range_after(path, value, source)
    clips = tuple(str(node.name or "") for node in path if is_standard(node, "Clip"))
    return Chain(target, value, source, tuple(filter(is_move, path)), low, high, clips)


def _is_constant(value: Value | None) -> bool:
    return dialect.constant_tensor(value) is not None


def _previous(node: Node) -> Value | None:
    """Return the value whose integers the node clamps or moves."""
    if is_standard(node, "MaxPool") and (
        len(node.outputs) > 1 or not windows_are_filled(node)
    ):
        raise NoMatchError(
            f"MaxPool '{node.name}' on its integers has indices, ceil_mode, or padding and "
            "dilations at once"
        )
    passes = is_move(node) or operators.clamps(node) or operators.is_identity(node)
    if is_standard(node, "Max", "Min"):
        moving = [value for value in node.inputs if not _is_constant(value)]
        if len(node.inputs) == 2 and len(moving) == 1:
            return moving[0]
    elif passes or is_standard(node, "Cast"):
        return node.inputs[0]
    raise NoMatchError(f"{node.op_type} '{node.name}' computes its integers")


def _range_after(path: list[Node], value: Value, source: Node | None) -> tuple[int, int]:
    name = "" if value.dtype is None else value.dtype.name
    if name in MINIFLOATS:
        changing = [n for n in path if not (is_move(n) or operators.is_identity(n))]
        if changing:
            raise NoMatchError(f"{changing[0].op_type} '{changing[0].name}' on small floats")
        return 0, 0
    if name not in INTEGER_RANGES:
        raise NoMatchError(f"what it takes starts as {name or 'an unknown type'}")
    low, high = INTEGER_RANGES[name]
    if source is not None and source.op_type == "Where":
        levels = [constant_of(v, "choice of levels") for v in source.inputs[1:3]]
        low = min(int(level.min()) for level in levels)
        high = max(int(level.max()) for level in levels)
    for node in path:
        if node.op_type == "Cast":
            to = onnx_ir.DataType(int(node.attributes["to"].value)).name
            if to not in INTEGER_RANGES:
                raise NoMatchError(f"Cast '{node.name}' leaves the integers for {to}")
            lowest, highest = INTEGER_RANGES[to]
            if low < lowest or high > highest:
                raise NoMatchError(f"Cast '{node.name}' to {to} can wrap around")
            continue
        start, stop = _clamp(node)
        low, high = (min(max(end, start), stop) for end in (low, high))
    return low, high


def _clamp(node: Node) -> tuple[int, int]:
    """Return the bounds that a node holds integers to; beyond every type where it has none."""
    low, high = -(1 << 64), 1 << 64
    if is_standard(node, "Relu"):
        return 0, high
    if is_standard(node, "Max", "Min"):
        bound = _single_integer(next(filter(_is_constant, node.inputs)), node)
        return (bound, high) if node.op_type == "Max" else (low, bound)
    if not is_standard(node, "Clip"):
        return low, high
    first, last = input_of(node, 1), input_of(node, 2)
    return (
        low if first is None else _single_integer(first, node),
        high if last is None else _single_integer(last, node),
    )


def _single_integer(value: Value | None, node: Node) -> int:
    bound = constant_of(value, f"bound of {node.op_type} '{node.name}'").astype(np.int64)
    if bound.size != 1:
        raise NoMatchError(f"{node.op_type} '{node.name}' has bounds per element")
    return int(bound.reshape(-1)[0])


def moved(values: Array, moves: tuple[Node, ...]) -> Array:
    """Return a parameter per channel as it lies behind the moves.

    Args:
        values: Scalar, or as many axes as the input of the first move.
        moves: The nodes, in the order of computation.

    Raises:
        NoMatchError: The channels cannot be followed.
    """
    for node in moves if values.size > 1 else ():
        if node.op_type == "Transpose":
            values = np.transpose(values, attribute(node, "perm", None))
        elif node.op_type != "MaxPool" or any(size != 1 for size in values.shape[2:]):
            raise NoMatchError(
                f"{node.op_type} '{node.name}' lies between parameters per channel"
            )
    return values
