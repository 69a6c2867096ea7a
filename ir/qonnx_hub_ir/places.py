"""Where the errors of other libraries came up."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import onnx
from onnx_ir import Node, Value

from qonnx_hub_ir.errors import first_cause, words_of
from qonnx_hub_ir.validity import label


def place_of(error: BaseException) -> str:
    """Return the node, or else the value, at which an error came up; empty if unknown.

    It is what the innermost functions had in hand when the error was raised.
    """
    error = first_cause(error)
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][::-1]
    nodes = (Node, onnx.NodeProto)
    for kinds in (nodes, (Value, onnx.ValueInfoProto, onnx.TensorProto)):
        for frame in frames:
            for held in frame.f_locals.values():
                if isinstance(held, kinds) and (found := _called(held)):
                    return found
    return ""


def _called(held: Any) -> str:
    if isinstance(held, Node):
        return label(held)
    if isinstance(held, onnx.NodeProto):
        return label_of_message(held)
    return f"value '{held.name}'" if held.name else ""


def failing_part(message: onnx.ModelProto, work: Callable[[onnx.ModelProto], object]) -> str:
    """Return the first part of a graph with which work fails, and without which it does not.

    Args:
        message: A model that the work fails on. Its weights may be left out.
        work: What raises; it does not change the model.

    Returns:
        A node, else a declared output or value, as messages call them; empty if unknown.
    """

    def fails(nodes: int, outputs: int, values: int) -> bool:
        part = onnx.ModelProto()
        part.CopyFrom(message)
        graph = part.graph
        del graph.node[nodes:], graph.output[outputs:], graph.value_info[values:]
        if not outputs:
            made = [name for node in graph.node for name in node.output if name]
            graph.output.extend(onnx.ValueInfoProto(name=name) for name in made[-1:])
        try:
            work(part)
        except Exception:  # the binding raises whatever C++ raises
            return True
        return False

    graph = message.graph
    nodes, values = len(graph.node), len(graph.value_info)
    if k := _first_failing(nodes, lambda count: fails(count, 0, 0)):
        return label_of_message(graph.node[k - 1])
    if k := _first_failing(values, lambda count: fails(nodes, 0, count)):
        return f"value '{graph.value_info[k - 1].name}'"
    if k := _first_failing(len(graph.output), lambda count: fails(nodes, count, values)):
        return f"graph output '{graph.output[k - 1].name}'"
    return ""


def _first_failing(count: int, fails: Callable[[int], bool]) -> int | None:
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


def label_of_message(node: onnx.NodeProto) -> str:
    """Return how messages call a node: operator and name, or its first output."""
    return f"{node.op_type} '{node.name or next(iter(node.output), '')}'"


_INFERENCE = re.compile(r"\(op_type:(\w+)(?:, node name: (.*?))?\):")


def inference_words(error: BaseException) -> Iterator[tuple[str, str]]:
    """Give node and reason for everything that ONNX's shape inference complains of."""
    parts = _INFERENCE.split(str(error))
    for kind, name, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        yield f"{kind} '{name or ''}'", words_of(ValueError(text))
