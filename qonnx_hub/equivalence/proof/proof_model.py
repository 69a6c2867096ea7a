"""A model as a proof reads it: planned, with constants, pointwise functions and numbers."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub.equivalence.proof.intervals import POINTWISE
from qonnx_hub.equivalence.proof.value_numbering import (
    Numbering,
    Signature,
    plain_signature,
    signature_of,
)
from qonnx_hub.executor.kernels.spec import Kernel
from qonnx_hub.executor.plan import Plan, Step
from qonnx_hub.executor.planner import free_kernel, make_plan
from qonnx_hub_ir import dialect, operators, thresholds
from qonnx_hub_ir.graph.queries import attribute, dims, is_standard
from qonnx_hub_ir.graph.subgraphs import captured_values
from qonnx_hub_ir.quantizers import Array

_LONGEST_CHAIN = 48
"""Steps back that a pointwise function may have; written-out minifloats need about thirty."""


class ProofModel:
    """A model, its plan, and what is known about its values: constants, functions, numbers.

    Attributes:
        model: The IR model.
        constants: Value -> array, for everything that does not depend on the inputs.
        imports: Domain -> opset version of the model.
        numbering: The table of numbers that both models share.
    """

    def __init__(self, model: Model) -> None:
        """Plan the model and compute its constants.

        Raises:
            UnsupportedGraphError: An initializer without data.
            ExecutionError: A node with constant inputs fails.
        """
        self.model = model
        self.imports = dict(model.opset_imports)
        self.renumber(Numbering())
        self._signatures: dict[Node, Signature | None] = {}
        self.plan: Plan = make_plan(model, keep_all=True, partial=True)
        self.constants: dict[Value, Array] = {}
        by_slot = {slot: step for step in self.plan.steps for slot in step.outputs}
        self._steps: dict[Node, Step] = {
            node: by_slot[self.slot(value)]
            for node in model.graph
            for value in node.outputs
            if value.name and self.slot(value) in by_slot
        }
        self._free: dict[Node, Kernel] = {}
        self._order = {node: index for index, node in enumerate(model.graph)}
        self._chains: dict[Value, tuple[Value, ...]] = {}
        made = (value for node in model.graph for value in node.outputs if value.name)
        for value in (*model.graph.initializers.values(), *made):
            held = self.plan.initial[self.slot(value)]
            if isinstance(held, np.ndarray):
                self.constants[value] = held

    def slot(self, value: Value) -> int:
        """Return where the plan keeps a value."""
        return self.plan.tensors[str(value.name)]

    def step(self, node: Node) -> Step:
        """Return the step that runs a node."""
        return self._steps[node]

    def free_kernel(self, node: Node) -> Kernel:
        """Return what runs a node on weights of the caller's; those of the step are fixed."""
        if node not in self._free:
            self._free[node] = free_kernel(node, self.imports, self.constants)
        return self._free[node]

    def sources(self, node: Node) -> list[Value]:
        """Return the node's inputs that are not constant, each once."""
        given = (v for v in node.inputs if v is not None and v not in self.constants)
        return list(dict.fromkeys(given))

    def order(self, node: Node) -> int:
        """Return where a node stands among the nodes of the model."""
        return self._order[node]

    def chain(self, value: Value) -> tuple[Value, ...]:
        """Return the values of which this one is a pointwise function, the nearest first.

        All ways from any of them to the value lie inside the function.
        """
        if value not in self._chains:
            self._chains[value] = self._find_chain(value)
        return self._chains[value]

    def _find_chain(self, value: Value) -> tuple[Value, ...]:
        node = value.producer()
        if node is None or value in self.constants or not self.is_pointwise(node):
            return ()
        chains = [(source, *self.chain(source)) for source in self.sources(node)]
        common = chains[0]
        for other in chains[1:]:
            common = tuple(v for v in common if v in other)
        return common[:_LONGEST_CHAIN]

    def is_pointwise(self, node: Node) -> bool:
        """Return whether a node treats every element of its data by itself."""
        pointwise = (
            node.op_type in POINTWISE
            if node.domain in dialect.STANDARD_DOMAINS
            else dialect.is_quantizer(node) or dialect.is_thresholds(node)
        )
        if len(node.outputs) != 1 or node not in self._steps:
            return False
        if not pointwise:
            return self._is_table(node)
        if attribute(node, "training_mode", 0):
            return False
        sources = self.sources(node)
        return bool(sources) and all(
            dims(value) == dims(node.outputs[0])
            if (constant := self.constants.get(value)) is None
            else _fits(node, position, constant)
            for position, value in enumerate(node.inputs)
            if value is not None
        )

    def _is_table(self, node: Node) -> bool:
        """Return whether a node looks single numbers up: a function, as a list."""
        if not is_standard(node, "Gather") or attribute(node, "axis", 0):
            return False
        table, index = node.inputs[0], node.inputs[1]
        known = None if table is None else self.constants.get(table)
        if known is None or known.ndim != 1 or index is None or index in self.constants:
            return False
        return dims(index) is not None and dims(index) == dims(node.outputs[0])

    def readers(self, value: Value) -> list[Node]:
        """Return the nodes that read a value, those of bodies not among them."""
        return [node for node in value.consumers() if node in self._order]

    def channels(self, node: Node) -> int:
        """Return the most values that a parameter of a quantizer has."""
        parameters = (self.constants.get(v) for v in node.inputs[1:] if v is not None)
        return max((array.size for array in parameters if array is not None), default=1)

    def nodes_between(self, source: Value, target: Value) -> list[Node]:
        """Return the nodes of the function from ``source`` to ``target``, in order."""
        found: dict[Node, None] = {}
        waiting = [target]
        while waiting:
            value = waiting.pop()
            node = value.producer()
            if value is source or value in self.constants or node is None or node in found:
                continue
            found[node] = None
            waiting.extend(self.sources(node))
        return sorted(found, key=self.order)

    def renumber(self, numbering: Numbering) -> None:
        """Forget all numbers, and take new ones from a table."""
        self.numbering = numbering
        self._numbers: dict[Value, int] = {}

    def number(self, value: Value | None) -> int:
        """Return the number of a value; 0 stands for an input that is left out."""
        if value is None:
            return 0
        if value not in self._numbers:
            constant = self.constants.get(value)
            # Only inputs that the other model does not have, and what the plan leaves out.
            new = self.numbering.new
            number = new() if constant is None else self.numbering.of_constant(constant)
            self._numbers[value] = number
        return self._numbers[value]

    def set_number(self, value: Value, number: int) -> None:
        """Give a value a number."""
        self._numbers[value] = number

    def signature(self, node: Node) -> Signature | None:
        """Return what the node computes, apart from its inputs; ``None`` if not comparable."""
        if node not in self._signatures:
            is_local = node.op_identifier() in self.model.functions
            self._signatures[node] = None if is_local else signature_of(node, self.imports)
        return self._signatures[node]

    def make(self, op_type: str, *inputs: int, **attributes: Hashable) -> int:
        """Return the number of a standard operator with one output, by its inputs' numbers."""
        return self.numbering.of_expression(plain_signature(op_type, **attributes), inputs)

    def expression(self, node: Node) -> int:
        """Return the number of a node's first output, by what the node says it computes."""
        signature = self.signature(node)
        if signature is None:
            return self.numbering.new()
        numbers = [self._operand(node, index) for index in range(len(node.inputs))]
        if dialect.is_quantizer(node):
            numbers[1:] = [self._parameter(node, value) for value in node.inputs[1:]]
        outer = (self.number(value) for value in captured_values(node))
        return self.numbering.of_expression(signature, [*numbers, *outer])

    def _operand(self, node: Node, index: int) -> int:
        """Return the number of a node's input; stored zeros have a sign where it tells."""
        value = node.inputs[index]
        constant = None if value is None else self.constants.get(value)
        divides = node.op_type == "Div" and index == 1
        if constant is None or not (divides or operators.tells_zeros_apart(node)):
            return self.number(value)
        return self.numbering.of_constant(constant, signed=True)

    def _parameter(self, node: Node, value: Value | None) -> int:
        """Return the number of a quantizer's parameter; one element stands for a scalar."""
        constant = None if value is None else self.constants.get(value)
        sizes = dims(node.inputs[0])
        if constant is None or constant.size != 1 or constant.ndim > len(sizes or ()):
            return self.number(value)
        return self.numbering.of_constant(constant.reshape(()))

    def set_outputs(self, node: Node, first: int) -> None:
        """Give all outputs of a node their numbers."""
        for index, value in enumerate(node.outputs):
            if value not in self.constants:
                self._numbers[value] = self.numbering.of_output(node.op_type, first, index)

    def nodes(self) -> Iterator[Node]:
        """Yield the nodes that depend on the model's inputs, in order."""
        for node in self.model.graph:
            if any(value not in self.constants for value in node.outputs):
                yield node


def is_single(node: Node, position: int, constant: Array) -> bool:
    """Return whether a constant is one number to the operator, whatever the data's rank."""
    if is_standard(node, "Gather"):
        return position == 0  # the table, which serves all
    if dialect.is_thresholds(node):
        # Rows are channels; what lies along them is counted.
        return bool(position) and len(constant) == 1
    if position and (dialect.is_quantizer(node) or node.op_type == "Clip"):
        return constant.size == 1
    return constant.ndim == 0 or (operators.is_qdq(node) and constant.shape == (1,))


def _fits(node: Node, position: int, constant: Array) -> bool:
    """Return whether a constant leaves the data its shape: no broadcast enlarges it."""
    if is_single(node, position, constant):
        return True
    sizes = dims(node.outputs[0])
    if sizes is None or (constant.ndim > len(sizes) and not dialect.is_thresholds(node)):
        return False
    axes = parameter_axes(node, constant, sizes)
    return axes is not None and all(sizes[axis] == size for axis, size in axes.items())


def parameter_axes(node: Node, constant: Array, sizes: Sequence[Any]) -> dict[int, int] | None:
    """Return axis of the data -> size, for the axes along which a parameter may vary.

    Returns:
        ``None`` where the parameter does not fit the operator.
    """
    if dialect.is_thresholds(node):
        axis = thresholds.channel_axis(str(attribute(node, "data_layout", "")), len(sizes))
        return {axis: len(constant)}
    rank, channels = len(sizes), operators.channel_axis(node)
    if channels is not None:
        return {channels: len(constant)} if rank > 1 else None
    if not operators.is_qdq(node):
        offset = rank - constant.ndim
        return {offset + i: size for i, size in enumerate(constant.shape) if size != 1}
    if not attribute(node, "block_size", 0):
        axis = int(attribute(node, "axis", 1)) % rank
        return {axis: len(constant)} if constant.ndim == 1 else None
    if constant.ndim != rank or not all(isinstance(d, int) for d in sizes):
        return None
    # A blocked parameter has to meet the data's own shape: no axis is free.
    return {i: int(sizes[i]) for i in range(rank)}
