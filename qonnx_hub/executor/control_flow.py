"""If and Loop: operators that run graphs of their own, each as a plan of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx_ir import Graph, Node, Value

from qonnx_hub.executor.execute import execute
from qonnx_hub.executor.kernels.spec import Array, Kernel
from qonnx_hub.executor.plan import Plan

PlanMaker = Callable[[Graph, Sequence[Value]], Plan]
"""Makes the plan of a subgraph that reads the given values of the graphs around it."""


def is_control(node: Node) -> bool:
    """Return whether the node is run here."""
    return node.domain == "" and node.op_type in {"If", "Loop"}


def captured(node: Node) -> list[Value]:
    """Return the outer values that the node's subgraphs read, each once, in order."""
    found: dict[Value, None] = {}
    for graph in _subgraphs(node):
        found.update(dict.fromkeys(_free(graph)))
    return list(found)


def build_control(node: Node, make: PlanMaker) -> tuple[Kernel, list[Value]]:
    """Return the kernel of an If or Loop, and the outer values that it takes after its inputs.

    Source: operator documents If-19 and Loop-19.
    """
    outer = captured(node)
    names = [str(value.name) for value in outer]
    plans = [make(graph, outer) for graph in _subgraphs(node)]
    if node.op_type == "If":
        order = [name for name in node.attributes if name.endswith("_branch")]
        branches = dict(zip(order, plans, strict=True))
        return _conditional(branches["then_branch"], branches["else_branch"], names), outer
    carried = len(node.inputs) - 2
    scanned = _subgraphs(node)[0].outputs[1 + carried :]
    return _loop(plans[0], names, carried, [_empty(value) for value in scanned]), outer


def _empty(value: Value) -> Array:
    """Return what a scan output holds after no iteration."""
    dtype = np.float32 if value.dtype is None else value.dtype.numpy()
    dims = [] if value.shape is None else list(value.shape)
    return np.zeros((0, *(d if isinstance(d, int) else 0 for d in dims)), dtype=dtype)


def _subgraphs(node: Node) -> list[Graph]:
    return [a.value for a in node.attributes.values() if isinstance(a.value, Graph)]


def _free(graph: Graph) -> list[Value]:
    own = {*graph.inputs, *graph.initializers.values()}
    free: list[Value] = []
    for node in graph:
        reads = (*(v for v in node.inputs if v is not None), *captured(node))
        free.extend(value for value in reads if value not in own)
        own.update(node.outputs)
    free.extend(value for value in graph.outputs if value not in own)
    return free


def _run(plan: Plan, feeds: dict[str, Any]) -> list[Any]:
    """Return the plan's outputs in order, one entry each, also where two are the same."""
    results = execute(plan, feeds)
    return [results[name] for name in plan.outputs]


def _single(results: list[Any]) -> Any:
    return results[0] if len(results) == 1 else tuple(results)


def _conditional(then: Plan, otherwise: Plan, names: list[str]) -> Kernel:
    def run(condition: Array, *outer: Any) -> Any:
        plan = then if bool(np.all(condition)) else otherwise
        return _single(_run(plan, dict(zip(names, outer, strict=True))))

    return run


def _loop(body: Plan, names: list[str], carried: int, nothing: list[Array]) -> Kernel:
    inputs = list(body.feeds)[: 2 + carried]

    def run(trip_count: Array | None, condition: Array | None, *rest: Any) -> Any:
        state, outer = list(rest[:carried]), dict(zip(names, rest[carried:], strict=True))
        limit = None if trip_count is None else int(trip_count.reshape(-1)[0])
        going = True if condition is None else bool(np.all(condition))
        rows: list[list[Array]] = [[] for _ in nothing]
        count = 0
        while going and (limit is None or count < limit):
            own = [np.array(count, dtype=np.int64), np.array(going, dtype=np.bool_), *state]
            results = _run(body, {**dict(zip(inputs, own, strict=True)), **outer})
            going = bool(np.all(results[0]))
            state = results[1 : 1 + carried]
            for row, value in zip(rows, results[1 + carried :], strict=True):
                row.append(value)
            count += 1
        stacked = [
            np.stack(row) if row else empty for row, empty in zip(rows, nothing, strict=True)
        ]
        return _single([*state, *stacked])

    return run


__all__ = ["build_control", "captured", "is_control"]
