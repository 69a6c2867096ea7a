"""Differences that have a name of their own: where they usually come from, in words."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import defs
from onnx_ir import Node

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.queries import attribute
from qonnx_hub_ir.quantizers import Array

_KNOWN_DEFAULTS = {("BatchNormalization", "epsilon", "0.001"): "Keras' default"}
"""(operator, attribute, value) -> whose default it is, where it is not ONNX's."""

_MOST_AXES = 5


def attribute_in_words(node: Node, name: str, value: Any) -> str:
    """Return the value of an attribute, and whose default it is where that is known."""
    default = _default_of(node, name)
    if value is None:
        return "none" if default is None else f"{_short(default)} (the default)"
    whose = _KNOWN_DEFAULTS.get((node.op_type, name, str(_short(value))), "")
    if not whose and default is not None and _short(default) == _short(value):
        whose = "the default"
    return f"{_short(value)} ({whose})" if whose else str(_short(value))


def _default_of(node: Node, name: str) -> Any:
    if node.domain or not defs.has(node.op_type):
        return None
    found = defs.get_schema(node.op_type).attributes.get(name)
    if found is None or not found.default_value.type:
        return None
    from onnx import helper

    return helper.get_attribute_value(found.default_value)


def _short(value: Any) -> Any:
    """Return a float32 number as it was written: 0.001, not 0.0010000000474974513."""
    if isinstance(value, bytes):
        return value.decode()
    return float(f"{value:.7g}") if isinstance(value, float) else value


def is_same_padding(ours: Sequence[int], theirs: Sequence[int]) -> bool:
    """Return whether one side pads evenly, and the other as TensorFlow's SAME.

    With an odd total, SAME puts the odd value behind: [0, 0, 1, 1] where others have
    [1, 1, 1, 1] or [1, 1, 0, 0].
    """
    if len(ours) != len(theirs) or len(ours) % 2 or list(ours) == list(theirs):
        return False
    half = len(ours) // 2

    def is_odd_behind(pads: Sequence[int]) -> bool:
        return all(pads[k + half] - pads[k] in (0, 1) for k in range(half)) and any(
            pads[k + half] != pads[k] for k in range(half)
        )

    return is_odd_behind(ours) != is_odd_behind(theirs)


def padding_of(node: Node, before: Node | None) -> str | list[int] | None:
    """Return how a window's input is padded: in numbers, or by TensorFlow's rule.

    Args:
        node: A convolution or a pool.
        before: What makes its input; a Pad with constant zeros counts as the node's own.

    Returns:
        ``None`` where the numbers are not known.
    """
    rule = str(_short(attribute(node, "auto_pad", "NOTSET")))
    if rule.startswith("SAME"):
        return rule
    own = [int(n) for n in attribute(node, "pads", ())]
    if before is None or before.op_type != "Pad" or before.domain:
        return own or None
    given = dialect.constant_value(before.inputs[1]) if len(before.inputs) > 1 else None
    if given is None or given.ndim != 1 or len(given) % 2 or any(before.inputs[3:]):
        return None
    half = len(given) // 2
    around = [int(n) for part in (given[2:half], given[half + 2 :]) for n in part]
    if any(given[:2]) or any(given[half : half + 2]) or (own and len(own) != len(around)):
        return None
    return [x + y for x, y in zip(around, own or [0] * len(around), strict=True)]


def tells_same_from_even(ours: str | list[int] | None, theirs: str | list[int] | None) -> bool:
    """Return whether one of two paddings is TensorFlow's SAME, and the other an even one."""
    if isinstance(ours, list) and isinstance(theirs, list):
        return is_same_padding(ours, theirs)
    numbers = next((pads for pads in (ours, theirs) if isinstance(pads, list)), None)
    if numbers is None or not (isinstance(ours, str) or isinstance(theirs, str)):
        return False
    half = len(numbers) // 2
    return any(numbers) and numbers[:half] == numbers[half:]


def permutation_in_words(x: Array, y: Array) -> str:
    """Return which permutation makes the second array of the first; empty if none is found."""
    if x.ndim <= _MOST_AXES:
        for perm in itertools.permutations(range(x.ndim)):
            turned = np.transpose(x, perm)
            if list(perm) != sorted(perm) and turned.size == y.size:
                flat = turned.reshape(y.shape) if turned.shape != y.shape else turned
                if np.array_equal(flat, y):
                    return f"axes in the order {list(perm)}"
    if x.shape != y.shape:
        return ""
    for axis in range(x.ndim):
        if np.array_equal(np.flip(x, axis), y):
            return f"axis {axis} reversed"
        order = _order_along(x, y, axis)
        if order is not None:
            first = next(k for k, place in enumerate(order) if place != k)
            return f"axis {axis} in another order: {order[first]} stands at {first}"
    return ""


def _order_along(x: Array, y: Array, axis: int) -> list[int] | None:
    """Return the order of slices along an axis that makes the second array of the first."""
    places: dict[bytes, list[int]] = {}
    for k, part in enumerate(np.moveaxis(x, axis, 0)):
        places.setdefault(np.ascontiguousarray(part).tobytes(), []).append(k)
    order = []
    for part in np.moveaxis(y, axis, 0):
        found = places.get(np.ascontiguousarray(part).tobytes())
        if not found:
            return None
        order.append(found.pop(0))
    return order


def scales_in_words(ours: Array, theirs: Array) -> str:
    """Return what became of scales where that has a name; empty where it has none."""
    if ours.size > 1 and theirs.size == 1:
        return f"{ours.size} scales became one"
    if theirs.size > 1 and ours.size == 1:
        return f"one scale became {theirs.size}"
    rounded = ours.astype(np.float16).astype(np.float32)
    if ours.shape == theirs.shape and np.array_equal(rounded, theirs.astype(np.float32)):
        return "rounded to float16"
    return ""
