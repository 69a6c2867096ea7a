"""Errors of other libraries, told as ours: where they came up, and in plain words."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import onnx
from onnx_ir import Node, Value

from qonnx_hub_ir.errors import HubError
from qonnx_hub_ir.verify import label

LONGEST = 300
"""Characters of a foreign message that are told."""

_INTERNAL = re.compile(
    r"[Aa]ssert|<lambda>|NoneType|object (has no|is not)|positional argument|unhashable"
    r"|unexpected keyword|bad_alloc|0x[0-9a-f]{6}|not subscriptable|std::|_Map_base"
    r"|has no attribute|unsupported operand|object of type|Calling|clone_graph|not iterable"
    r"|must be str|must be a|not supported between|out of range"
)
"""What speaks of a library's inside, and means nothing to a user."""

_ASSERTION = re.compile(r"^.*?Assertion `.*?` failed: (?!Op '%s')")
"""What stands before the words of ONNX's version converter."""

_NOISE = re.compile(r"(\[\w+Error\]|^\S+\.(cc|cpp|h|py):\d+:? ?(In|\w+:)?|^Error:)\s*")
_KINDS = {
    MemoryError: "a size in it is larger than the memory",
    RecursionError: "it is nested too deeply",
    ZeroDivisionError: "a size or a parameter in it is zero",
    OverflowError: "a number in it is larger than its type holds",
}
_DOES_NOT_FIT = "its inputs, attributes or types do not fit together"


def place_of(error: BaseException) -> str:
    """Return the node, or else the value, at which an error came up; empty if unknown.

    It is what the innermost functions had in hand when the error was raised.
    """
    error = _first(error)
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][::-1]
    for name in (_node_name, _value_name):
        for frame in frames:
            for held in frame.f_locals.values():
                if found := name(held):
                    return found
    return ""


def words_of(error: BaseException) -> str:
    """Return what is wrong, in one line that speaks of the model and not of a library."""
    error = _first(error)
    for kind, words in _KINDS.items():
        if isinstance(error, kind):
            return words
    text = " ".join(str(error).split())
    text = _NOISE.sub("", _ASSERTION.sub("", text)).replace(" $", " ").strip()
    if isinstance(error, HubError):
        return text
    if not text or _INTERNAL.search(text) or isinstance(error, (KeyError, AssertionError)):
        return _DOES_NOT_FIT
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def _first(error: BaseException) -> BaseException:
    """Return the error that led to a foreign one."""
    while error.__cause__ is not None and not isinstance(error, HubError):
        error = error.__cause__
    return error


def first_failing(count: int, fails: Callable[[int], bool]) -> int | None:
    """Return the smallest number that fails, if ``count`` fails and 0 does not.

    What fails with some number must fail with every larger one.
    """
    if fails(0) or not fails(count):
        return None
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fails(middle) else (middle, high)
    return high


def _node_name(held: Any) -> str:
    if isinstance(held, Node):
        return label(held)
    if isinstance(held, onnx.NodeProto):
        return label_of_message(held)
    return ""


def label_of_message(node: onnx.NodeProto) -> str:
    """Return how messages call a node: operator and name, or its first output."""
    return f"{node.op_type} '{node.name or next(iter(node.output), '')}'"


def _value_name(held: Any) -> str:
    if isinstance(held, (Value, onnx.ValueInfoProto, onnx.TensorProto)) and held.name:
        return f"value '{held.name}'"
    return ""


_INFERENCE = re.compile(r"\(op_type:(\w+)(?:, node name: (.*?))?\):")


def inference_words(error: BaseException) -> Iterator[tuple[str, str]]:
    """Give node and reason for everything that ONNX's shape inference complains of."""
    parts = _INFERENCE.split(str(error))
    for kind, name, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        yield f"{kind} '{name or ''}'", words_of(ValueError(text))
