"""What follows from a model's graph, computed at most once for each version of the model.

Graphs have no counter of changes, so a version is what a graph consists of: its nodes, what
they read and make, their attributes, and names, types, shapes, constants and sources of all
values. :func:`facts_of` compares that with the model as it is now, in one cheap walk, and
throws away what was computed for another version. A change of any kind, by a pass or by hand,
therefore gives new facts. Only the bytes inside an array are not looked at: constants are
replaced, never overwritten.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from onnx_ir import Graph, Model, Node, Value

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.subgraphs import bodies, every_graph
from qonnx_hub_ir.quantizers import Array

T = TypeVar("T")

_KEY = "qonnx_hub.facts"


def fixed_batch(model: Model) -> int | None:
    """Return the samples per run that the inputs ask for; ``None`` if they leave it open."""
    shapes = (value.shape for value in model.graph.inputs)
    first = (shape[0] for shape in shapes if shape is not None and len(shape))
    return next((max(size, 1) for size in first if isinstance(size, int)), None)


def named_values(model: Model) -> dict[str, Value]:
    """Return every value that a node makes, by name, in the order of the nodes."""
    return {str(v.name): v for node in model.graph for v in node.outputs if v.name}


def facts_of(model: Model) -> ModelFacts:
    """Return the facts of a model as it is now.

    Facts are kept with the model. Ask again after a change: facts that were handed out before
    describe the graph before.
    """
    known = model.meta.get(_KEY)
    if isinstance(known, ModelFacts) and known.holders and known.model is model:
        return known
    version = _Version(model)
    if isinstance(known, ModelFacts) and known.version == version:
        return known
    facts = ModelFacts(model, version)
    model.meta[_KEY] = facts
    return facts


@contextlib.contextmanager
def unchanged(*models: Model | None) -> Iterator[None]:
    """Promise that models do not change meanwhile: their facts are not compared with them.

    Looking whether a deep graph has changed takes as long as many a question about it.

    Args:
        models: The models; ``None`` stands for a side without a graph.
    """
    held = [facts_of(model) for model in models if model is not None]
    for facts in held:
        facts.holders += 1
    try:
        yield
    finally:
        for facts in held:
            facts.holders -= 1


class ModelFacts:
    """Facts of one version of a model, each computed when it is first asked for.

    Attributes:
        model: The model.
        version: What it consisted of.
        has_inferred_shapes: Whether the shapes of all values are those that inference gave for
            this very version. Whoever just inferred them says so.
        holders: How many promised that the model does not change; see :func:`unchanged`.
    """

    def __init__(self, model: Model, version: _Version) -> None:
        self.model = model
        self.version = version
        self.has_inferred_shapes = False
        self.holders = 0
        self._remembered: dict[str, Any] = {}

    def remember(self, key: str, make: Callable[[], T]) -> T:
        """Return what ``make`` returned for the first caller with this key.

        For facts of other rooms that depend on nothing but the model.
        """
        if key not in self._remembered:
            self._remembered[key] = make()
        found: T = self._remembered[key]
        return found

    @cached_property
    def values(self) -> Mapping[str, Value]:
        """Every value that a node makes, by name, in the order of the nodes."""
        return named_values(self.model)

    @cached_property
    def dynamic(self) -> frozenset[str]:
        """The names of all values that depend on an input of the model."""
        reached: set[Value] = set(self.model.graph.inputs)
        for node in self.model.graph:
            if any(v in reached for v in node.inputs) or bodies(node):
                reached.update(node.outputs)
        return frozenset(str(v.name) for v in reached if v.name)

    @cached_property
    def layers(self) -> Mapping[str, tuple[str, ...]]:
        """Source layer -> names of the values that stand for it, in order."""
        found: dict[str, list[str]] = {}
        for name, value in self.values.items():
            source = value.metadata_props.get(dialect.PROVENANCE) or name
            found.setdefault(source, []).append(name)
        return {source: tuple(names) for source, names in found.items()}

    @cached_property
    def steps(self) -> Mapping[str, Array]:
        """Value name -> step size, for values on the grid of a quantizer.

        What bounds, moves or repeats values keeps their grid; what moves values away from
        their channel does so for scalar steps only.
        """
        found: dict[str, Array] = {}
        for node in self.model.graph:
            step = _step_of(node, found)
            if step is not None:
                found[str(node.outputs[0].name)] = step
        return found


class _Version:
    """What a model consists of: equal only if nothing was added, taken, moved or renamed."""

    def __init__(self, model: Model) -> None:
        # The objects themselves are kept: an id could come again once its object is gone.
        self._objects: list[Any] = []
        self._texts: list[Any] = sorted(model.opset_imports.items())
        for graph in every_graph(model):
            self._add_graph(graph)
        for function in model.functions.values():
            self._texts += [function.identifier(), sorted(function.opset_imports.items())]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Version):
            return NotImplemented
        return (
            len(self._objects) == len(other._objects)
            and self._texts == other._texts
            and all(map(operator.is_, self._objects, other._objects))
        )

    __hash__ = None  # type: ignore[assignment]

    def _add_graph(self, graph: Graph) -> None:
        objects, texts = self._objects, self._texts
        objects += (graph, *graph.outputs)
        texts += (len(graph.outputs), len(graph.inputs))
        self._add_values(graph.inputs)
        self._add_values(graph.initializers.values())
        for node in graph:
            texts += (node.domain, node.op_type, node.name, len(node.inputs))
            objects.append(node)
            objects += node.inputs
            self._add_values(node.outputs)
            objects += node.attributes.data.values()

    def _add_values(self, values: Iterable[Value]) -> None:
        for value in values:
            shape = value.shape
            props = value.metadata_props
            self._objects += (value, value.const_value)
            self._texts += (
                value.name,
                value.type,
                None if shape is None else shape.dims,
                props.get(dialect.PROVENANCE) if props else None,
            )


def _step_of(node: Node, found: Mapping[str, Array]) -> Array | None:
    if dialect.is_quantizer(node):
        is_uniform = operators.is_uniform_quantizer(node)
        return _positive(dialect.constant_value(node.inputs[1])) if is_uniform else None
    if node.domain in dialect.STANDARD_DOMAINS and node.op_type == "DequantizeLinear":
        return _linear_step(node)
    if not node.inputs or not (operators.keeps_step(node) or operators.clamps(node)):
        return None
    if node.op_type == "Concat":
        inputs = [None if v is None else found.get(str(v.name)) for v in node.inputs]
        scalars = [float(s) for s in inputs if s is not None and s.size == 1]
        same = len(scalars) == len(inputs) and len(set(scalars)) == 1
        return inputs[0] if same else None
    step = found.get(str(None if node.inputs[0] is None else node.inputs[0].name))
    stays = operators.is_elementwise(node) or operators.is_max_pool(node)
    return step if step is None or stays or step.size == 1 else None


def _positive(scale: Array | None) -> Array | None:
    if scale is None or not bool(np.all(scale > 0)):
        return None
    return scale.reshape(()) if scale.size == 1 else scale


def _linear_step(node: Node) -> Array | None:
    """Return the step of a DequantizeLinear, shaped to broadcast to its output."""
    scale = _positive(dialect.constant_value(node.inputs[1]))
    if scale is None or scale.ndim == 0:
        return scale
    block = node.attributes.get("block_size")
    out = node.outputs[0].shape
    if scale.ndim > 1 or out is None or (block is not None and block.value):
        return None
    axis = node.attributes.get("axis")
    position = int(axis.value) if axis is not None else 1
    shape = [1] * len(out)
    if not -len(shape) <= position < len(shape):
        return None
    shape[position] = scale.size
    return scale.reshape(shape)
