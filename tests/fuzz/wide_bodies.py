"""Steps of wide graphs that have bodies: If, Loop and Scan, each with grown graphs inside."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from tests.fuzz.wide_graphs import Rng, Step, Unfit, WideGraph, body, grow

MOST_BODIES = 2


def _inner(graph: WideGraph, rng: Rng, starts: dict[str, np.ndarray], seen: bool) -> WideGraph:
    """Return a grown graph that reads some values of its own, and mostly those around it."""
    from tests.fuzz.wide_steps import STEPS

    if graph.outer >= MOST_BODIES:
        raise Unfit("bodies in bodies")
    number = int(rng.integers(1 << 30))
    inner = WideGraph(
        form=graph.form,
        opset=graph.opset,
        arrays={**graph.arrays, **starts},
        prefix=f"{graph.prefix}b{number}_",
        outer=graph.outer + 1,
    )
    inner.values = list(graph.values) if seen else []
    inner.values += [(n, a.shape) for n, a in starts.items()]
    grow(inner, rng, STEPS, int(rng.integers(1, 4)))
    if not inner.nodes:
        raise Unfit("body")
    return inner


def _made(inner: WideGraph) -> list[str]:
    return [n for node in inner.nodes for n in node.output if n in inner.arrays]


def branch(graph: WideGraph, rng: Rng) -> list[str]:
    """Take an If of two grown branches."""
    graphs = []
    for name in ("then", "else"):
        inner = _inner(graph, rng, {}, True)
        graphs.append(body(inner, name, {}, _made(inner)[-1:]))
    kinds = [g.output[0].type.tensor_type.elem_type for g in graphs]
    if kinds[0] != kinds[1]:
        raise Unfit("If")
    condition = graph.operand(rng, np.asarray(rng.random() < 0.5), "m")
    return graph.put("If", [condition], 1, then_branch=graphs[0], else_branch=graphs[1])


def _carried(inner: WideGraph, rng: Rng, name: str) -> str:
    """Return a value that can be carried on in the place of another."""
    kept = inner.arrays[name]
    fitting = [
        n
        for n in _made(inner)
        if inner.arrays[n].shape == kept.shape and inner.arrays[n].dtype == kept.dtype
    ]
    if fitting:
        return fitting[-1]
    return inner.add("Identity", [name])


def loop(graph: WideGraph, rng: Rng) -> list[str]:
    """Take a Loop that carries a value and collects another."""
    x = graph.pick(rng)
    stem = f"{graph.prefix}l{len(graph.nodes)}"
    starts = {f"{stem}_x": graph.arrays[x]}
    inner = _inner(graph, rng, starts, bool(rng.random() < 0.5))
    collected = _made(inner)[-1]
    carried = _carried(inner, rng, f"{stem}_x")
    going = inner.constant(np.asarray(True), "go")
    (going,) = inner.put("Identity", [going], 1)
    (extra,) = inner.put("Identity", [collected], 1)
    inputs: dict[str, Any] = {
        f"{stem}_i": np.asarray(0, dtype=np.int64),
        f"{stem}_c": np.asarray(True),
        **starts,
    }
    proto = body(inner, "loop", inputs, [going, carried, extra])
    turns = graph.constant(np.asarray(rng.integers(1, 4), dtype=np.int64), "i")
    return graph.put("Loop", [turns, "", x], 2, body=proto)


def scan(graph: WideGraph, rng: Rng) -> list[str]:
    """Take a Scan along one axis, in either direction, with a value that is carried."""
    x = graph.pick(rng)
    array = graph.arrays[x]
    if array.ndim < 2:
        raise Unfit("Scan")
    axis = int(rng.integers(array.ndim))
    slice_ = np.take(array, 0, axis=axis)
    stem = f"{graph.prefix}s{len(graph.nodes)}"
    state = np.zeros(slice_.shape, dtype=array.dtype)
    starts = {f"{stem}_h": state, f"{stem}_x": slice_}
    inner = _inner(graph, rng, starts, bool(rng.random() < 0.5))
    (carried,) = inner.put("Add", list(starts), 1)
    (extra,) = inner.put("Identity", [_made(inner)[-2]], 1)
    proto: onnx.GraphProto = body(inner, "scan", starts, [carried, extra])
    more: dict[str, Any] = {"num_scan_inputs": 1, "scan_input_axes": [axis]}
    if rng.random() < 0.3:
        more["scan_input_directions"] = [1]
    if rng.random() < 0.3:
        more["scan_output_directions"] = [1]
    if rng.random() < 0.3 and inner.arrays[extra].ndim:
        more["scan_output_axes"] = [1]
    first = graph.constant(state, "h")
    return graph.put("Scan", [first, x], 2, body=proto, **more)


STEPS: dict[str, tuple[Step, float]] = {
    "branch": (branch, 0.5),
    "loop": (loop, 0.5),
    "scan": (scan, 0.4),
}
