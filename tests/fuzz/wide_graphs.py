"""Random valid graphs of the standard's operators: types, ranks, opsets, attributes, bodies.

They extend the graphs of :mod:`tests.fuzz.planted_graphs`, of which every step may be taken
here as well. While a graph grows, the evaluator of ``onnx`` computes each node on a sample, so
that what follows fits what it reads; a node that the evaluator refuses is not taken.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, defs, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tests.fuzz.planted_graphs import FORMS, MAKERS, QONNX, QONNX_OPERATORS, Graph
from tests.fuzz.planted_oracle import BipolarQuant, MultiThreshold, Quant

Rng = np.random.Generator
Feeds = dict[str, np.ndarray]

OPSETS = (9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23)
MOST_ELEMENTS = 3000
LARGEST = 1e6
IR_VERSION = 10
_FAR = 1 << 40
TYPES = ("float32", "float64", "float16", "int32", "int64", "int8", "uint8", "bool")
_SHARES = (0.66, 0.06, 0.04, 0.06, 0.06, 0.04, 0.04, 0.04)
_DRAWS = (IndexError, KeyError, ValueError, TypeError, AttributeError, AssertionError)


class Unfit(ValueError):
    """A graph has no place for a step, or the evaluator refuses what it made."""


def reference(model: onnx.ModelProto) -> ReferenceEvaluator:
    """Return the evaluator of ``onnx``, with quantizers written from QONNX's documents."""
    return ReferenceEvaluator(model, new_ops=[Quant, BipolarQuant, MultiThreshold])


def computed(session: ReferenceEvaluator, feeds: Feeds) -> list[np.ndarray]:
    """Return what the evaluator answers, its warnings unheard."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return [np.asarray(y) for y in session.run(None, feeds)]


@dataclass
class WideGraph(Graph):
    """A graph that knows what every value is on one sample.

    Attributes:
        arrays: Value by name, those of surrounding graphs among them.
        prefix: What names in this graph start with.
        outer: How many bodies are around this graph.
    """

    arrays: Feeds = field(default_factory=dict)
    prefix: str = ""
    outer: int = 0

    def constant(self, array: np.ndarray, stem: str) -> str:
        name = f"{self.prefix}{stem}{len(self.constants)}"
        array = np.asarray(array)
        self.constants[name] = self.arrays[name] = array
        return name

    def add(self, operator: str, inputs: list[str], **attributes: object) -> str:
        return self.put(operator, inputs, 1, **attributes)[0]

    def put(
        self, operator: str, inputs: Sequence[str], outputs: int, **attributes: Any
    ) -> list[str]:
        """Add a node and return the names of its outputs, their values computed.

        Raises:
            Unfit: The evaluator refuses it, or it makes too much, or numbers too large.
        """
        name = f"{self.prefix}n{len(self.nodes)}"
        domain = QONNX if operator in QONNX_OPERATORS else ""
        if not domain and not self.has(operator):
            raise Unfit(operator)
        made = [f"{name}_out"] + [f"{name}_out{k}" for k in range(1, outputs)]
        node = helper.make_node(
            operator, list(inputs), made, name=name, domain=domain, **attributes
        )
        arrays = self._answers(node)
        self.arrays.update(zip(made, arrays, strict=False))
        self.nodes.append(node)
        return made[: len(arrays)]

    def _answers(self, node: onnx.NodeProto) -> list[np.ndarray]:
        feeds = {n: self.arrays[n] for n in reads(node) if n in self.arrays}
        graph = helper.make_graph(
            [node],
            "one",
            [entry(n, a) for n, a in feeds.items()],
            [onnx.ValueInfoProto(name=n) for n in node.output],
        )
        model = as_model(graph, self.opset)
        try:
            if not node.domain and not any(a.HasField("g") for a in node.attribute):
                onnx.checker.check_node(node, _context(self.opset))
            inferred = onnx.shape_inference.infer_shapes(
                model, check_type=True, strict_mode=True, data_prop=True
            )
            arrays = computed(reference(model), feeds)
        except Exception as error:  # an evaluator of another project raises anything
            raise Unfit(node.op_type) from error
        for array, value in zip(arrays, inferred.graph.output, strict=False):
            if not _fits(array, value):
                raise Unfit(node.op_type)
            if not array.size or array.size > MOST_ELEMENTS or array.dtype.kind not in "fiub":
                raise Unfit(node.op_type)
            if array.dtype.kind == "f":
                finite = np.abs(array[np.isfinite(array)].astype(np.float64))
                if finite.size < array.size / 2 or np.max(finite, initial=0) > LARGEST:
                    raise Unfit(node.op_type)
        return arrays

    def pick(self, rng: Rng, kinds: str = "f", rank: int | None = None) -> str:
        """Return a value that nodes compute or that is fed, mostly one of the last."""
        fitting = [
            name
            for name, _ in self.values
            if self.arrays[name].dtype.kind in kinds
            and (rank is None or self.arrays[name].ndim == rank)
        ]
        if not fitting:
            raise Unfit(kinds)
        return fitting[-1] if rng.random() < 0.6 else str(rng.choice(fitting))

    def operand(self, rng: Rng, array: np.ndarray, stem: str = "k") -> str:
        """Return an array as a constant, or as one more input of the model."""
        if self.outer or rng.random() < 0.8:
            return self.constant(array, stem)
        array, name = np.asarray(array), f"x{len(self.inputs)}"
        self.inputs.append((name, array.shape))
        self.arrays[name] = array
        self.values.append((name, array.shape))
        return name

    def has(self, operator: str) -> bool:
        """Return whether the operator exists in the graph's opset."""
        return schema_of(operator, self.opset) is not None


def _context(opset: int) -> onnx.checker.C.CheckerContext:
    found = onnx.checker.C.CheckerContext()
    found.ir_version = IR_VERSION
    found.opset_imports = {"": opset, QONNX: 1}
    return found


def _fits(array: np.ndarray, value: onnx.ValueInfoProto) -> bool:
    """Return whether an answer has the type and sizes that the standard's inference says."""
    found = value.type.tensor_type
    if found.elem_type and found.elem_type != helper.np_dtype_to_tensor_dtype(array.dtype):
        return False
    if not found.HasField("shape"):
        return True
    sizes = [d.dim_value for d in found.shape.dim]
    return len(sizes) == array.ndim and all(
        n in (0, m) for n, m in zip(sizes, array.shape, strict=True)
    )


def schema_of(operator: str, opset: int) -> Any:
    """Return the schema of a standard operator, ``None`` where the opset has none."""
    try:
        found = defs.get_schema(operator, opset, "")
    except defs.SchemaError:
        return None
    return None if found.deprecated else found


def reads(node: onnx.NodeProto) -> list[str]:
    """Return the names that a node and its bodies read."""
    names = [n for n in node.input if n]
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                names += reads(inner)
            names += [v.name for v in attribute.g.output]
    return list(dict.fromkeys(names))


def entry(name: str, array: np.ndarray, shape: Any = "its own") -> onnx.ValueInfoProto:
    """Return the entry of an input or output; its shape may be its own, or open."""
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    if isinstance(shape, str):
        shape = array.shape if shape == "its own" else [None] * array.ndim
    return helper.make_tensor_value_info(name, kind, shape)


def as_model(graph: onnx.GraphProto, opset: int) -> onnx.ModelProto:
    """Return a graph as a model that imports what it may use."""
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(QONNX, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def numbers(rng: Rng, shape: Sequence[int], kind: Any = "float32") -> np.ndarray:
    """Return numbers of which sums are exact, some of them not; small where integers."""
    dtype = np.dtype(kind)
    if dtype.kind == "b":
        return rng.random(tuple(shape)) < 0.5
    if dtype.kind in "iu":
        low = 0 if dtype.kind == "u" else -9
        return rng.integers(low, 10, size=tuple(shape)).astype(dtype)
    if rng.random() < 0.7:
        return (rng.integers(-40, 41, size=tuple(shape)) / 8).astype(dtype)
    return (rng.normal(size=tuple(shape)) * 3).astype(dtype)


def broadcast(rng: Rng, shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape that is spread to another, or that makes it larger."""
    sizes = [n if rng.random() < 0.6 else 1 for n in shape]
    if rng.random() < 0.4:
        sizes = sizes[int(rng.integers(0, len(sizes) + 1)) :]
    elif rng.random() < 0.1:
        sizes = [2, *sizes]
    return tuple(int(n) for n in sizes)


def axis_of(rng: Rng, rank: int) -> int:
    """Return an axis, counted from either end."""
    return int(rng.integers(-rank, rank))


Step = Callable[[WideGraph, Rng], list[str]]


def planted(graph: WideGraph, rng: Rng) -> list[str]:
    """Take a step of the planted graphs, on a value that has an axis of samples."""
    x = graph.pick(rng)
    array = graph.arrays[x]
    if array.dtype != np.float32 or array.ndim < 2:
        raise Unfit("planted")
    names, weights = list(MAKERS), np.array([w for _, w in MAKERS.values()])
    name = str(rng.choice(names, p=weights / weights.sum()))
    seen = graph.values
    graph.values = [
        (n, s[1:])
        for n, s in seen
        if len(s) > 1 and s[0] == array.shape[0] and graph.arrays[n].dtype == np.float32
    ]
    graph.operators += 1
    try:
        made = MAKERS[name][0](graph, rng, x, array.shape[1:])
    finally:
        graph.values, graph.ends = seen, []
    if made is None:
        raise Unfit(name)
    return [made[0]]


def draw_wide(seed: int, number: int) -> tuple[onnx.ModelProto, Feeds]:
    """Return a graph and a sample for it; the same seed and number give the same.

    Args:
        seed: Of the whole run.
        number: Of the graph.

    Returns:
        The model, and its inputs by name.
    """
    with contextlib.suppress(Unfit):
        return _drawn(np.random.default_rng([seed, number, 9]))
    # The evaluator takes nothing of it, not even its input.
    return draw_wide(seed, number + _FAR)


def _drawn(rng: Rng) -> tuple[onnx.ModelProto, Feeds]:
    from tests.fuzz.wide_steps import STEPS

    graph = WideGraph(form=str(rng.choice(FORMS)), opset=int(rng.choice(OPSETS)))
    rank = int(rng.choice([0, 1, 2, 3, 4, 5], p=[0.03, 0.1, 0.25, 0.25, 0.32, 0.05]))
    shape = rng.integers(1, 6, size=rank) if rank < 4 else rng.integers(1, 8, size=rank)
    for k in range(2 if rng.random() < 0.3 else 1):
        kind = str(rng.choice(TYPES, p=_SHARES))
        name = f"x{k}"
        graph.arrays[name] = numbers(rng, shape, kind)
        graph.inputs.append((name, tuple(map(int, shape))))
        graph.values.append(graph.inputs[-1])
    grow(graph, rng, STEPS, int(rng.integers(1, 10)))
    return finished(graph, rng), {n: graph.arrays[n] for n, _ in graph.inputs}


def grow(graph: WideGraph, rng: Rng, steps: dict[str, tuple[Step, float]], count: int) -> None:
    """Add operators to a graph; what does not fit is taken back."""
    names, weights = list(steps), np.array([w for _, w in steps.values()])
    done = 0
    for _ in range(12 * count):
        if done >= count:
            break
        name = str(rng.choice(names, p=weights / weights.sum()))
        kept = (
            len(graph.nodes),
            dict(graph.constants),
            list(graph.inputs),
            list(graph.values),
        )
        try:
            made = steps[name][0](graph, rng)
        except _DRAWS:
            del graph.nodes[kept[0] :]
            graph.constants, graph.inputs, graph.values = kept[1:]
            continue
        done += 1
        known = {n for n, _ in graph.values}
        graph.values += [(n, graph.arrays[n].shape) for n in made if n not in known]


def finished(graph: WideGraph, rng: Rng) -> onnx.ModelProto:
    """Return the model: inputs with open axes or none known, unread values as outputs."""
    read = {name for node in graph.nodes for name in reads(node)}
    made = [n for node in graph.nodes for n in node.output if n]
    ends = [n for n in made if n not in read]
    ends += [n for n in made if n in read and rng.random() < 0.1]
    if not ends:
        ends = [graph.add("Identity", [graph.values[-1][0]])]
    graph.inputs[:] = [(n, s) for n, s in graph.inputs if n in read] or graph.inputs[:1]
    openness = rng.choice(["none", "first", "any", "unknown"], p=[0.5, 0.25, 0.2, 0.05])

    def shaped(name: str) -> onnx.ValueInfoProto:
        shape: Any = list(graph.arrays[name].shape)
        if openness == "first" and shape:
            shape[0] = "N"
        elif openness == "any":
            shape = [f"d{n}" if rng.random() < 0.5 else n for n in shape]
        return entry(name, graph.arrays[name], None if openness == "unknown" else shape)

    nodes, kept = list(graph.nodes), dict(graph.constants)
    for name in list(kept):
        if rng.random() < 0.1:
            tensor = numpy_helper.from_array(kept.pop(name), name)
            nodes.insert(0, helper.make_node("Constant", [], [name], value=tensor))
    proto = helper.make_graph(
        nodes,
        "wide",
        [shaped(n) for n, _ in graph.inputs],
        [entry(n, graph.arrays[n], "open") for n in dict.fromkeys(ends)],
        [numpy_helper.from_array(a, n) for n, a in kept.items()],
    )
    return as_model(proto, graph.opset)


def body(
    graph: WideGraph,
    name: str,
    inputs: dict[str, np.ndarray],
    outputs: Sequence[str],
) -> onnx.GraphProto:
    """Return a grown graph as the body of a node."""
    return helper.make_graph(
        graph.nodes,
        name,
        [entry(n, a) for n, a in inputs.items()],
        [entry(n, graph.arrays[n], "open") for n in outputs],
        [numpy_helper.from_array(a, n) for n, a in graph.constants.items()],
    )


def truth(name: str) -> onnx.ValueInfoProto:
    """Return the entry of a condition."""
    return helper.make_tensor_value_info(name, TensorProto.BOOL, [])
