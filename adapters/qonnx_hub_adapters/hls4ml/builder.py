"""The new graph, node by node, with the names that the ``qonnx`` package's cleanup gives."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Graph, Model, Node, Value

from qonnx_hub_adapters.hls4ml.pending_affine import AffineStep, Norm, Term, fused, is_exact
from qonnx_hub_adapters.hls4ml.weights import integer_quantizer
from qonnx_hub_ir import dialect
from qonnx_hub_ir.quantizers import Array, BipolarQuant, IntQuant, Rounding

CHANNELS_LAST_VERSION = 14
"""The ``qonnx`` package runs channels-last nodes under the version of their domain as if it
were the opset: pooling needs 11 at least."""

GRAPH = "hls4ml"
"""Name of every graph that is written: its tensors are called as hls4ml will see them."""

_ONE, _ZERO = np.ones((), dtype=np.float32), np.zeros((), dtype=np.float32)
_FLOAT = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)


class Builder:
    """Writes nodes in the order of computation; every initializer has one reader."""

    def __init__(self, opset: int) -> None:
        self.graph = Graph((), (), nodes=(), opset_imports={"": opset}, name=GRAPH)
        self.is_inexact = False
        self._done: dict[tuple[Value, tuple[int, ...], bool, bool], Value] = {}
        self._kept: list[Term] = []

    def add_input(self, name: str, shape: Sequence[int]) -> Value:
        """Return a new graph input."""
        value = Value(name=name, shape=onnx_ir.Shape(shape), type=_FLOAT)
        self.graph.inputs.append(value)
        return value

    def constant(self, array: Array) -> Value:
        """Return a new initializer."""
        return dialect.add_initializer(self.graph, "parameter", np.asarray(array))

    def add(
        self,
        op_type: str,
        inputs: Sequence[Value],
        shape: Sequence[int],
        attributes: Mapping[str, Any] | None = None,
        *,
        domain: str = "",
    ) -> Value:
        """Return the output, float32 of this shape, of a new node."""
        made = onnx_ir.node(op_type, inputs, attributes, domain=domain)
        made.outputs[0].type = _FLOAT
        made.outputs[0].shape = onnx_ir.Shape(shape)
        self.graph.append(made)
        return made.outputs[0]

    def put(
        self,
        term: Term,
        op_type: str,
        inputs: Sequence[Value],
        attributes: Mapping[str, Any] | None = None,
        *,
        domain: str = "",
    ) -> Term:
        """Return the term, stored in the output of a new node."""
        value = self.add(op_type, inputs, term.stored_shape(), attributes, domain=domain)
        return replace(term, value=value)

    def reshape(self, term: Term, shape: tuple[int, ...], axes: tuple[int, ...]) -> Term:
        """Return the term in another shape of the source, its axes stored in these places."""
        made = replace(term, shape=shape, axes=axes)
        sizes = self.constant(np.array(made.stored_shape(), dtype=np.int64))
        return self.put(made, "Reshape", [term.value, sizes])

    def quantize(self, x: Value, quant: IntQuant | BipolarQuant) -> Value:
        """Return the output of a new quantizer on ``x``."""
        node = dialect.quantizer_node(x, quant, f"quantizer_{len(self.graph)}", self.graph)
        self.graph.append(node)
        return node.outputs[0]

    def settle(self, term: Term, *, for_quantizer: bool = False) -> Term:
        """Return the term with nothing left to be done.

        Args:
            term: What is needed.
            for_quantizer: Whether quantizers alone read the result: only they may follow a
                division.
        """
        if term.is_plain():
            return term
        key = (term.value, tuple(map(id, term.steps)), term.relu, for_quantizer)
        if key not in self._done:
            # Steps are told apart by their identity: they must live as long as the table.
            self._kept.append(term)
            self._done[key] = self._settled(term, for_quantizer)
        settled = self._done[key]
        return replace(term, value=settled, steps=(), relu=False, bits=False)

    def settled(self, term: Term) -> Value | None:
        """Return what :meth:`settle` wrote for a term, or ``None`` if nothing asked for it."""
        if term.is_plain():
            return term.value
        steps = tuple(map(id, term.steps))
        for relu, divides in itertools.product((term.relu, True), (False, True)):
            value = self._done.get((term.value, steps, relu, divides))
            maker = None if value is None else value.producer()
            if relu == term.relu and value is not None:
                return value
            if maker is not None and maker.op_type == "Relu":
                return maker.inputs[0]
        return None

    def _settled(self, term: Term, for_quantizer: bool) -> Value:
        value, shape = term.value, term.stored_shape()
        factor, offset = fused(term.steps)
        if np.any(factor != 1) or np.any(offset):
            value = self._affine(value, shape, term.steps, for_quantizer and not term.bits)
        elif term.bits:
            # A product with 1 would be removed, and the bits be read as 0 and 1.
            half = self._norm(value, shape, (_ONE / 2, _ZERO, _ZERO, _ONE, 0.0))
            value = self._norm(half, shape, (_ONE * 2, _ZERO, _ZERO, _ONE, 0.0))
        return self.add("Relu", [value], shape) if term.relu else value

    def _affine(
        self, value: Value, shape: Sequence[int], steps: tuple[AffineStep, ...], divides: bool
    ) -> Value:
        if len(steps) == 1 and steps[0].divisor is not None and divides:
            return self.add("Div", [value, self.constant(steps[0].divisor)], shape)
        if len(steps) == 1 and steps[0].norm is not None:
            return self._norm(value, shape, steps[0].norm)
        self.is_inexact |= not is_exact(steps)
        return self._norm(value, shape, (*fused(steps), _ZERO, _ONE, 0.0))

    def _norm(self, value: Value, shape: Sequence[int], norm: Norm) -> Value:
        with np.errstate(over="ignore"):  # what is infinite is refused by node behind
            singles = [p.astype(np.float32) for p in norm[:4]]
        parameters = [self.constant(np.broadcast_to(p, (shape[-1],)).copy()) for p in singles]
        domain = dialect.CHANNELS_LAST_DOMAIN if len(shape) > 2 else ""
        attributes = {"epsilon": norm[4], "momentum": 0.9}
        return self.add(
            "BatchNormalization", [value, *parameters], shape, attributes, domain=domain
        )

    def keep_sign(self, value: Value) -> Value:
        """Return whole numbers of the same signs, from -2 to 1, for a sign function to read.

        hls4ml merges a batch normalization and the sign after it into one comparison, in which
        it ignores the factor's sign and rounds the threshold down; weights of one bit behind
        that it quantizes twice, to ones. Rounding down keeps every sign, and is only wires.
        """
        return self.quantize(value, integer_quantizer(2, rounding=Rounding.FLOOR))

    def finish(self, outputs: Sequence[Value]) -> Model:
        """Return the model, with the names that cleanup gives."""
        self.graph.outputs.extend(outputs)
        used = {node.domain for node in self.graph}
        versions = {dialect.DOMAIN: 1, dialect.CHANNELS_LAST_DOMAIN: CHANNELS_LAST_VERSION}
        self.graph.opset_imports.update({d: v for d, v in versions.items() if d in used})
        return Model(self.graph, ir_version=10)


def order_by_depth(graph: Graph) -> None:
    """Put nodes in the order in which cleanup puts them: by depth, else as they stand."""
    depths: dict[Node, int] = {}
    for node in graph:
        makers = [value.producer() for value in node.inputs if value is not None]
        depths[node] = 1 + max((depths[m] for m in makers if m is not None), default=0)
    for node in sorted(depths, key=lambda one: depths[one]):
        graph.remove(node)
        graph.append(node)


def result_places(graph: Graph) -> list[int]:
    """Return for each output of the graph at which place hls4ml's results hold it."""
    producers = [value.producer() for value in graph.outputs]
    order = [node for node in graph if node in producers]
    return [order.index(node) for node in producers if node is not None]


def give_cleanup_names(graph: Graph) -> None:
    """Name nodes and values as ``cleanup_model`` of the ``qonnx`` package does.

    Nodes are numbered per operator, results are called after their node, parameters likewise,
    inputs ``global_in`` and outputs ``global_out``.
    """
    counts: dict[str, int] = {}
    constants: list[tuple[Value, str]] = []
    for node in graph:
        count = counts.get(node.op_type, 0)
        counts[node.op_type] = count + 1
        node.name = f"{node.op_type}_{count}"
        for index, value in enumerate(node.outputs):
            value.name = f"{node.name}_out{index}"
        constants.extend(
            (value, f"{node.name}_param{index}")
            for index, value in enumerate(
                v for v in node.inputs if v is not None and v.const_value is not None
            )
        )
    for label, values in (("global_in", graph.inputs), ("global_out", graph.outputs)):
        for index, value in enumerate(values):
            value.name = label if index == 0 else f"{label}_{index}"
    graph.initializers.clear()
    for value, name in constants:
        value.name = name
        if value.const_value is not None:
            value.const_value.name = name
        graph.register_initializer(value)
