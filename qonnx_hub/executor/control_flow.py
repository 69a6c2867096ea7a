"""If, Loop and Scan: operators that run graphs of their own, each as a plan of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx_ir import Graph, Node, Value

from qonnx_hub.executor.kernels.spec import Array, Kernel
from qonnx_hub.executor.plan import Plan, execute
from qonnx_hub_ir.graph.queries import attribute
from qonnx_hub_ir.graph.subgraphs import bodies, captured_values

MOST_TURNS = 100_000
"""Turns of a Loop that its condition alone ends."""

LARGEST_COUNT = 10_000_000
"""Turns that a Loop may count to; more stands for "as long as the condition holds"."""

PlanMaker = Callable[[Graph, Sequence[Value]], Plan]
"""Makes the plan of a subgraph that reads the given values of the graphs around it."""


def is_control(node: Node) -> bool:
    """Return whether the node is run here."""
    return (node.domain, node.op_type) in _BUILDERS


def build_control(node: Node, make: PlanMaker) -> tuple[Kernel, list[Value]]:
    """Return the kernel of a node with bodies, and the outer values that it takes at the end.

    Source: operator documents If-19, Loop-19 and Scan-19.
    """
    outer = captured_values(node)
    names = [str(value.name) for value in outer]
    plans = [make(graph, outer) for graph in bodies(node)]
    return _BUILDERS[node.domain, node.op_type](node, plans, names), outer


def _empty(value: Value) -> Array:
    """Return what a scan output holds after no iteration."""
    dtype = np.float32 if value.dtype is None else value.dtype.numpy()
    dims = [] if value.shape is None else list(value.shape)
    return np.zeros((0, *(d if isinstance(d, int) else 0 for d in dims)), dtype=dtype)


def _run(plan: Plan, feeds: dict[str, Any]) -> list[Any]:
    """Return the plan's outputs in order, one entry each, also where two are the same."""
    results = execute(plan, feeds)
    return [results[name] for name in plan.outputs]


def _single(results: list[Any]) -> Any:
    return results[0] if len(results) == 1 else tuple(results)


def _conditional(node: Node, plans: list[Plan], names: list[str]) -> Kernel:
    order = [name for name in node.attributes if name.endswith("_branch")]
    branches = dict(zip(order, plans, strict=True))
    then, otherwise = branches["then_branch"], branches["else_branch"]

    def run(condition: Array, *outer: Any) -> Any:
        plan = then if bool(np.all(condition)) else otherwise
        return _single(_run(plan, dict(zip(names, outer, strict=True))))

    return run


def _loop(node: Node, plans: list[Plan], names: list[str]) -> Kernel:
    (body,), carried = plans, len(node.inputs) - 2
    nothing = [_empty(value) for value in bodies(node)[0].outputs[1 + carried :]]
    inputs = list(body.feeds)[: 2 + carried]

    def run(trip_count: Array | None, condition: Array | None, *rest: Any) -> Any:
        state, outer = list(rest[:carried]), dict(zip(names, rest[carried:], strict=True))
        limit = None if trip_count is None else int(trip_count.reshape(-1)[0])
        going = True if condition is None else bool(np.all(condition))
        rows: list[list[Array]] = [[] for _ in nothing]
        count, endless = 0, limit is None or limit > LARGEST_COUNT
        while going and (limit is None or count < limit):
            if endless and count == MOST_TURNS:
                raise ValueError(f"its condition still holds after {count:,} turns")
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


def _scan(node: Node, plans: list[Plan], names: list[str]) -> Kernel:
    (body,), scanned = plans, int(attribute(node, "num_scan_inputs", 0))
    carried = len(node.inputs) - scanned
    made = bodies(node)[0].outputs[carried:]
    inputs, nothing = list(body.feeds)[: carried + scanned], [_empty(value) for value in made]

    def per(name: str, count: int) -> list[int]:
        return [int(number) for number in attribute(node, name, None) or [0] * count]

    axes, backwards = per("scan_input_axes", scanned), per("scan_input_directions", scanned)
    made_axes = per("scan_output_axes", len(made))
    made_backwards = per("scan_output_directions", len(made))

    def run(*given: Any) -> Any:
        state = list(given[:carried])
        outer = dict(zip(names, given[len(node.inputs) :], strict=True))
        sequences = [
            np.moveaxis(array, axis, 0)[:: -1 if back else 1]
            for array, axis, back in zip(
                given[carried : carried + scanned], axes, backwards, strict=True
            )
        ]
        rows: list[list[Array]] = [[] for _ in made]
        for elements in zip(*sequences, strict=True):
            own = [*state, *(np.ascontiguousarray(element) for element in elements)]
            results = _run(body, {**dict(zip(inputs, own, strict=True)), **outer})
            state = results[:carried]
            for row, value in zip(rows, results[carried:], strict=True):
                row.append(value)
        stacked = [
            np.stack(row[:: -1 if back else 1], axis=axis) if row else empty
            for row, empty, axis, back in zip(
                rows, nothing, made_axes, made_backwards, strict=True
            )
        ]
        return _single([*state, *stacked])

    return run


_BUILDERS: Mapping[tuple[str, str], Callable[[Node, list[Plan], list[str]], Kernel]] = {
    ("", "If"): _conditional,
    ("", "Loop"): _loop,
    ("", "Scan"): _scan,
}
"""What runs a node's plans, with the names of the outer values that its bodies read."""
