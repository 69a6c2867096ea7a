"""Comparing around nodes that nothing runs: what they read, and what follows from them.

An opaque node is an uninterpreted function: where operator, attributes and inputs are equal on
both sides, so are its results, whatever they are. What it reads becomes an output of either
side, and what it gives an input of both: equal values that are generated. The whole is never
called equal by that, for nobody ran it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value

from qonnx_hub.equivalence.graph_slices import reroute, source_layer
from qonnx_hub.equivalence.reports.report import CheckResult
from qonnx_hub.equivalence.runners.sides import ExecutorRunner, Runner
from qonnx_hub.equivalence.verdicts import Verdict
from qonnx_hub.executor.onnxruntime.nodes import runs_somewhere
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.subgraphs import bodies, every_node
from qonnx_hub_ir.validity import label


@dataclass(frozen=True, slots=True)
class CutSides:
    """Two sides without the nodes that nothing runs.

    Attributes:
        a: The reference side.
        b: The other side.
        not_run: What was cut out, in words; empty where everything runs.
    """

    a: Runner
    b: Runner
    not_run: tuple[str, ...] = ()

    @property
    def left_out(self) -> tuple[str, ...]:
        """What is not compared, a sentence for each node."""
        return tuple(
            f"{name} was not run, nothing here runs it: what it reads is compared, and what "
            "follows from equal values in its place"
            for name in self.not_run
        )

    def judged(self, result: CheckResult) -> CheckResult:
        """Return a result that says on what it rests, where something was cut out."""
        if not self.not_run:
            return result
        certificate = result.certificate
        if certificate is not None:
            assumed = (
                f"{name} gives equal results for equal inputs: nothing else is known of it"
                for name in self.not_run
            )
            kept = [*certificate.get("assumptions", ()), *assumed]
            certificate = {**certificate, "proven": False, "assumptions": kept}
        reason = result.reason
        if result.verdict is Verdict.DIFFERENT:
            reason += f", with generated values in the place of {', '.join(self.not_run)}"
        return replace(result, reason=reason, certificate=certificate)


def cut_opaque_nodes(a: Runner, b: Runner) -> CutSides:
    """Return both sides without the nodes that nothing here runs.

    Sides are left as they are where one is not run by the executor, where such a node is
    inside of a body, or has no counterpart of the same operator, attributes and constants that
    its name or being the only one points out: running them says which node it is.
    """
    whole = CutSides(a, b)
    if not isinstance(a, ExecutorRunner) or not isinstance(b, ExecutorRunner):
        return whole
    if all(map(runs_somewhere, (*every_node(a.model), *every_node(b.model)))):
        return whole
    models = [side.model.clone() for side in (a, b)]
    opaque = [[node for node in model.graph if not runs_somewhere(node)] for model in models]
    pairs = list(_paired(*opaque))
    if any(one is None or other is None for one, other in pairs):
        return whole
    matched = [(one, other) for one, other in pairs if one is not None and other is not None]
    names = []
    for one, other in matched:
        if not _alike(one, other):
            return whole
        stem = f"{one.op_type}:{one.name or one.outputs[0].name}"
        if not all(
            _cut(model, n, stem) for model, n in zip(models, (one, other), strict=True)
        ):
            return whole
        names.append(label(one))
    left = [node for model in models for node in every_node(model) if not runs_somewhere(node)]
    if left:
        return whole
    first, second = (
        ExecutorRunner(model, side.label) for model, side in zip(models, (a, b), strict=True)
    )
    return CutSides(first, second, tuple(names))


def _kind(node: Node) -> tuple[str, str]:
    return node.domain, node.op_type


def _paired(
    first: list[Node], second: list[Node]
) -> Iterator[tuple[Node | None, Node | None]]:
    """Give each node and its counterpart, by names or as the only ones of their kind."""
    left = list(second)
    counts = Counter(map(_kind, first)), Counter(map(_kind, second))
    for node in first:
        kind = _kind(node)
        is_only = all(count[kind] == 1 for count in counts)
        found = [
            other
            for other in left
            if _kind(other) == kind and (is_only or source_layer(other) == source_layer(node))
        ]
        if len(found) == 1:
            left.remove(found[0])
        yield node, found[0] if len(found) == 1 else None
    yield from ((None, other) for other in left)


def _alike(one: Node, other: Node) -> bool:
    """Return whether two nodes are the same function of what they read while running."""
    if bodies(one) or bodies(other) or _attributes(one) != _attributes(other):
        return False
    if len(one.inputs) != len(other.inputs) or len(one.outputs) != len(other.outputs):
        return False
    return all(
        _same_constant(x, y) for x, y in zip(one.inputs, other.inputs, strict=True)
    ) and all(
        bool(x.name) == bool(y.name) for x, y in zip(one.outputs, other.outputs, strict=True)
    )


def _attributes(node: Node) -> dict[str, bytes]:
    return {
        name: onnx_ir.to_proto(attribute).SerializeToString(deterministic=True)
        for name, attribute in node.attributes.items()
    }


def _same_constant(x: Value | None, y: Value | None) -> bool:
    if x is None or y is None:
        return x is y
    known, other = dialect.constant_value(x), dialect.constant_value(y)
    if known is None or other is None:
        return known is other
    return known.dtype == other.dtype and np.array_equal(known, other)


def _cut(model: Model, node: Node, stem: str) -> bool:
    """Take a node out of a model; return whether it is known what stands in its place."""
    graph = model.graph
    moving = [v for v in node.inputs if v is not None and dialect.constant_value(v) is None]
    source = moving[0] if moving else None
    for index, value in enumerate(node.outputs):
        pattern: Value | None = value if value.shape is not None else source
        if not value.name:
            continue
        if pattern is None or pattern.shape is None:
            return False
        kind = value.type or pattern.type
        entry = Value(name=f"{stem}.result{index}", type=kind, shape=pattern.shape)
        entry.metadata_props[dialect.PROVENANCE] = str(entry.name)
        graph.outputs[:] = [v for v in graph.outputs if v is not value]
        reroute(value, entry)
        graph.inputs.append(entry)
    for index, read in enumerate(node.inputs):
        if read is not None and read in moving:
            name = f"{stem}.input{index}"
            tap = Node("", "Identity", [read], num_outputs=1, name=name)
            out = tap.outputs[0]
            out.name, out.type, out.shape = name, read.type, read.shape
            out.metadata_props[dialect.PROVENANCE] = name
            graph.append(tap)
            graph.outputs.append(out)
    graph.remove(node, safe=True)
    graph.inputs[:] = [v for v in graph.inputs if v.uses() or not str(v.name).startswith(stem)]
    return True
