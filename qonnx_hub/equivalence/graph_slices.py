"""Graphs cut to measure: other outputs, pieces between values, nodes taken out."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value

from qonnx_hub_ir import dialect
from qonnx_hub_ir.quantizers import Array

_KEEPS_STEP = frozenset(
    {"Identity", "Relu", "MaxPool", "GlobalMaxPool", "Clip", "Dropout", "Abs", "Neg"}
)
_MOVES_VALUES = frozenset(
    {"Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze", "Slice", "Concat", "Pad"}
)

CUT = "::given"
"""Ends the name of an input that stands for a value which was computed before the cut."""


def named_values(model: Model) -> dict[str, Value]:
    """Return every value that a node makes, by name, in the order of the nodes."""
    return {str(v.name): v for node in model.graph for v in node.outputs if v.name}


def elements_per_sample(model: Model) -> int:
    """Return how many elements all values of a model have together, as far as it is known.

    Sizes that the file leaves open count as one; a frozen batch counts as one sample. What
    does not depend on the inputs is not counted.
    """
    moving = dynamic_names(model)
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
    if node.op_type not in {"Conv", "ConvTranspose", "Gemm", "MatMul"} or len(node.inputs) < 2:
        return 0
    weight, out = node.inputs[1], node.outputs[0]
    if weight is None or weight.shape is None or out.shape is None:
        return 0
    size = math.prod(d for d in weight.shape if isinstance(d, int))
    if node.op_type in {"Gemm", "MatMul"}:
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


def dynamic_names(model: Model) -> set[str]:
    """Return the names of all values that depend on an input of the model."""
    reached: set[Value] = set(model.graph.inputs)
    for node in model.graph:
        if any(v in reached for v in node.inputs) or _captures(node):
            reached.update(node.outputs)
    return {str(v.name) for v in reached if v.name}


def _captures(node: Node) -> bool:
    kinds = (onnx_ir.AttributeType.GRAPH, onnx_ir.AttributeType.GRAPHS)
    return any(attr.type in kinds for attr in node.attributes.values())


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
    values = named_values(model)
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


def provenance(model: Model) -> dict[str, list[str]]:
    """Return source layer name -> names of the values that stand for it, in order."""
    found: dict[str, list[str]] = {}
    for name, value in named_values(model).items():
        source = value.metadata_props.get(dialect.PROVENANCE) or name
        found.setdefault(source, []).append(name)
    return found


def steps(model: Model) -> dict[str, Array]:
    """Return value name -> step size, for values on the grid of a quantizer.

    Relu, pooling by maximum, and operators that only move values keep the grid; those that
    move values do so for scalar steps only.
    """
    found: dict[str, Array] = {}
    for node in model.graph:
        step = _step_of(node, found)
        if step is not None:
            found[str(node.outputs[0].name)] = step
    return found


def _step_of(node: Node, found: dict[str, Array]) -> Array | None:
    if dialect.is_quantizer(node):
        if node.op_type not in {"Quant", "BipolarQuant"}:
            return None
        return _positive(dialect.constant_value(node.inputs[1]))
    if node.domain not in dialect.STANDARD_DOMAINS or not node.inputs:
        return None
    if node.op_type == "DequantizeLinear":
        return _linear_step(node)
    source = node.inputs[0]
    step = None if source is None else found.get(str(source.name))
    if step is None or node.op_type in _KEEPS_STEP:
        return step
    if node.op_type == "Concat":
        inputs = [found.get(str(v.name)) for v in node.inputs if v is not None]
        same = all(s is not None and s.size == 1 and float(s) == float(step) for s in inputs)
        return step if step.size == 1 and same else None
    return step if node.op_type in _MOVES_VALUES and step.size == 1 else None


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
    shape[position] = scale.size
    return scale.reshape(shape)


def quantizer_nodes(nodes: Iterable[Node]) -> list[Node]:
    """Return the quantizers among the nodes."""
    return [node for node in nodes if dialect.is_quantizer(node)]
