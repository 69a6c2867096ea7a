"""Graphs cut to measure: other outputs, pieces between values, nodes taken out."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir
from onnx_ir import Model, Node, Value

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.facts import facts_of, named_values
from qonnx_hub_ir.quantizers import Array

CUT = "::given"
"""Ends the name of an input that stands for a value which was computed before the cut."""


def elements_per_sample(model: Model) -> int:
    """Return how many elements all values of a model have together, as far as it is known.

    Sizes that the file leaves open count as one; a frozen batch counts as one sample. What
    does not depend on the inputs is not counted.
    """
    moving = facts_of(model).dynamic
    sizes = [
        math.prod(d for d in v.shape if isinstance(d, int))
        for node in model.graph
        for v in node.outputs
        if v.shape is not None and v.name in moving
    ]
    return max(sum(sizes), 1)


def work_per_sample(model: Model) -> int:
    """Return about how many elements' worth of time one sample takes.

    Eight products of a convolution or matrix product count as one element.
    """
    products = sum(_products(node) for node in model.graph)
    return elements_per_sample(model) + products // 8


def _products(node: Node) -> int:
    if not operators.is_product(node) or len(node.inputs) < 2:
        return 0
    weight, out = node.inputs[1], node.outputs[0]
    if weight is None or weight.shape is None or out.shape is None:
        return 0
    size = math.prod(d for d in weight.shape if isinstance(d, int))
    if operators.is_matrix_product(node):
        return size
    places = math.prod(d for d in list(out.shape)[2:] if isinstance(d, int))
    return size * places


def with_outputs(model: Model, names: Sequence[str]) -> Model:
    """Return a copy whose outputs are the named values; unknown names are left out."""
    copy = model.clone()
    values = named_values(copy)
    own = [v for v in copy.graph.outputs if v.name not in values]
    kept = {str(v.name): v for v in own} | values
    copy.graph.outputs[:] = [kept[name] for name in dict.fromkeys(names) if name in kept]
    return copy


def cut_at(
    model: Model,
    given: Collection[str],
    wanted: Sequence[str],
    constants: Mapping[str, Array] = {},
) -> Model:
    """Return a copy in which the given values are inputs, and the wanted ones are outputs.

    Every reader of a given value reads a new input of the name ``value + CUT`` instead; the
    value itself is still computed, so that it can be wanted as well. Shapes of inputs are left
    open. What nothing wanted needs is left out.

    Args:
        model: The graph; it is not changed.
        given: Names of values that become inputs.
        wanted: Names of values that become outputs.
        constants: Names of values that are replaced by these arrays instead.
    """
    copy = with_outputs(model, wanted)
    values = named_values(copy)
    for value in copy.graph.inputs:
        value.shape = None
    for name in given:
        if name not in values:
            continue
        value = values[name]
        entry = Value(name=name + CUT, type=value.type)
        reroute(value, entry)
        copy.graph.inputs.append(entry)
    for name, array in constants.items():
        reroute(values[name], _initializer(copy, name + CUT, array))
    _remove_unused(copy)
    for node in copy.graph:
        for value in node.outputs:
            value.shape = None
    return copy


def _remove_unused(model: Model) -> None:
    outputs = set(model.graph.outputs)
    for node in reversed(list(model.graph)):
        if not any(v in outputs or v.uses() for v in node.outputs):
            model.graph.remove(node, safe=True)
    needed = [v for v in model.graph.inputs if v.uses() or v in outputs]
    model.graph.inputs[:] = needed


def _initializer(model: Model, name: str, array: Array) -> Value:
    """Return a new initializer that holds an array with its own strides.

    Matrix products round by the layout of their operands in memory: a copy in another layout
    would bring noise of its own.
    """
    tensor = onnx_ir.tensor(array, name=name)
    kind = onnx_ir.TensorType(tensor.dtype)
    value = Value(name=name, shape=onnx_ir.Shape(array.shape), type=kind, const_value=tensor)
    model.graph.register_initializer(value)
    return value


def reroute(value: Value, target: Value) -> None:
    """Make all readers of a value read another; outputs of the graph stay what they are."""
    for node, index in list(value.uses()):
        node.replace_input_with(index, target)


@dataclass(frozen=True, slots=True)
class Segment:
    """The piece of a graph between values that are known and one that is wanted.

    Attributes:
        nodes: Its nodes, in the graph's order.
        entries: The known values that it reads.
        constants: The initializers that it reads.
    """

    nodes: tuple[Node, ...]
    entries: tuple[str, ...]
    constants: tuple[Value, ...]


def segment_of(model: Model, wanted: str, known: Collection[str]) -> Segment:
    """Return what computes a value from the nearest known values and inputs of the graph."""
    values = facts_of(model).values
    if wanted not in values:
        return Segment((), (wanted,), ())
    nodes: dict[Node, None] = {}
    entries: dict[str, None] = {}
    constants: dict[Value, None] = {}
    stack = [values[wanted].producer()]
    while stack:
        node = stack.pop()
        if node is None or node in nodes:
            continue
        nodes[node] = None
        for value in node.inputs:
            if value is None:
                continue
            producer = value.producer()
            if producer is None and not value.is_graph_input():
                constants[value] = None
            elif producer is None or value.name in known:
                entries[str(value.name)] = None
            else:
                stack.append(producer)
    ordered = tuple(node for node in model.graph if node in nodes)
    return Segment(ordered, tuple(entries), tuple(constants))


def quantizer_nodes(nodes: Iterable[Node]) -> list[Node]:
    """Return the quantizers among the nodes."""
    return [node for node in nodes if dialect.is_quantizer(node)]
