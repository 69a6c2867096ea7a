"""Slices of graphs: other outputs, values given from outside, the nodes between values."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import onnx_ir
from onnx_ir import Model, Node, Value

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.protocol import Feeds
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.errors import UsageError
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
    products = 0
    for node in filter(operators.is_product, model.graph):
        weight, out = node.inputs[1], node.outputs[0]
        if weight is None or weight.shape is None or out.shape is None:
            continue
        places = [] if operators.is_matrix_product(node) else list(out.shape)[2:]
        products += math.prod(d for d in (*weight.shape, *places) if isinstance(d, int))
    return elements_per_sample(model) + products // 8


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
    *,
    keep_shapes: bool = False,
) -> Model:
    """Return a copy in which the given values are inputs, and the wanted ones are outputs.

    Every reader of a given value reads a new input of the name ``value + CUT`` instead; the
    value itself is still computed, so that it can be wanted as well. What nothing wanted needs
    is left out.

    Args:
        model: The graph; it is not changed.
        given: Names of values that become inputs.
        wanted: Names of values that become outputs.
        constants: Names of values that are replaced by these arrays instead.
        keep_shapes: Whether the copy declares the shapes of the model; it takes any otherwise.
    """
    copy = with_outputs(model, wanted)
    values = named_values(copy)
    for name in given:
        if name in values:
            value = values[name]
            entry = Value(name=name + CUT, type=value.type, shape=value.shape)
            reroute(value, entry)
            copy.graph.inputs.append(entry)
    for name, array in constants.items():
        # With its own strides: matrix products round by the layout of their operands in
        # memory, and a copy in another layout would bring noise of its own.
        tensor = onnx_ir.tensor(array)
        reroute(values[name], dialect.register_tensor(copy.graph, name + CUT, tensor))
    outputs = set(copy.graph.outputs)
    for node in reversed(list(copy.graph)):
        if not any(v in outputs or v.uses() for v in node.outputs):
            copy.graph.remove(node, safe=True)
    copy.graph.inputs[:] = [v for v in copy.graph.inputs if v.uses() or v in outputs]
    if not keep_shapes:
        made = (value for node in copy.graph for value in node.outputs)
        for value in (*copy.graph.inputs, *made):
            value.shape = None
    return copy


def slice_feeds(model: Model, given: Mapping[str, Array], feeds: Feeds) -> dict[str, Array]:
    """Return the inputs of a slice, out of given values by name and the graph's own inputs.

    Raises:
        UsageError: The slice reads an input that is not there.
    """
    names = [str(value.name) for value in model.graph.inputs]
    missing = [name for name in names if not name.endswith(CUT) and name not in feeds]
    if missing:
        raise UsageError(f"the slice reads the input '{missing[0]}', which is not given")
    return {
        name: given[name.removesuffix(CUT)] if name.endswith(CUT) else feeds[name]
        for name in names
    }


def reroute(value: Value, target: Value) -> None:
    """Make all readers of a value read another; outputs of the graph stay what they are."""
    for node, index in list(value.uses()):
        node.replace_input_with(index, target)


class GraphSlice:
    """A slice of a graph, made ready to run many times; see :func:`cut_at`."""

    def __init__(
        self,
        model: Model,
        given: Collection[str],
        wanted: Sequence[str],
        *,
        keep_shapes: bool = False,
    ) -> None:
        """Cut the graph and plan the slice."""
        self._model = cut_at(model, given, wanted, keep_shapes=keep_shapes)
        self._session = Session(self._model)

    def run(self, given: Mapping[str, Array], feeds: Feeds) -> dict[str, Array]:
        """Return the wanted values, out of given ones by name and the graph's own inputs."""
        return self._session.run(slice_feeds(self._model, given, feeds))


def nodes_between(model: Model, known: Collection[str], wanted: str) -> tuple[Node, ...]:
    """Return the nodes that compute a value from the nearest known values and the inputs."""
    values = facts_of(model).values
    nodes: set[Node] = set()
    stack = [values[wanted].producer()] if wanted in values else []
    while stack:
        node = stack.pop()
        if node is None or node in nodes:
            continue
        nodes.add(node)
        stack += [v.producer() for v in node.inputs if v is not None and v.name not in known]
    return tuple(node for node in model.graph if node in nodes)


def source_layer(node: Node) -> str:
    """Return the source layer that a node's result stands for, or the node's own name."""
    return str(node.outputs[0].metadata_props.get(dialect.PROVENANCE) or node.name)
