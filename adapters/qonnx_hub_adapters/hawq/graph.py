"""Writing an IR graph: nodes and values named after the layers they come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import DataType, Graph, Model, Node, Value

from qonnx_hub_adapters.hawq.trace_data import Ref
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.names import free_name
from qonnx_hub_ir.quantizers import Array, IntQuant, Rounding

OPSET = 19
IR_VERSION = 10
BATCH = "batch"
UNIT = np.ones((), dtype=np.float32)
"""The step of integers."""


class GraphWriter:
    """A graph under construction.

    A layer's last value carries the layer's name, as name and as provenance; the values inside
    of a layer are called "layer/Role".

    Attributes:
        graph: The graph.
        values: Traced value -> the graph's value.
    """

    def __init__(self, name: str, outputs: Sequence[str]) -> None:
        """Begin a graph.

        Args:
            name: Its name.
            outputs: Names of its outputs; no other value gets one of them.
        """
        imports = {"": OPSET, dialect.DOMAIN: dialect.DOMAIN_VERSION}
        self.graph = Graph([], [], nodes=[], opset_imports=imports, name=name)
        self.values: dict[Ref, Value] = {}
        self._outputs = outputs
        self._taken = set(outputs)

    def input(self, ref: Ref, name: str, shape: Sequence[int | str]) -> None:
        """Add a float32 input of the graph."""
        value = Value(
            name=free_name(name, self._taken),
            shape=onnx_ir.Shape(shape),
            type=onnx_ir.TensorType(DataType.FLOAT),
        )
        value.metadata_props[dialect.PROVENANCE] = name
        self.graph.inputs.append(value)
        self.values[ref] = value

    def constant(self, name: str, array: Array) -> Value:
        """Return an initializer of that name."""
        free = free_name(name, self._taken)
        return dialect.add_initializer(self.graph, free, np.ascontiguousarray(array))

    def op(
        self, name: str, op_type: str, inputs: Sequence[Value | Array], **attributes: Any
    ) -> Value:
        """Return the output of a new standard node; arrays become initializers.

        Args:
            name: Name of node, value, and provenance.
            op_type: The operator.
            inputs: Values and constants.
            **attributes: Attributes of the operator.
        """
        own = free_name(name, self._taken)
        values = [
            self.constant(f"{name}/{op_type.lower()}_{index}", one)
            if isinstance(one, np.ndarray)
            else one
            for index, one in enumerate(inputs)
        ]
        return self._append(onnx_ir.node(op_type, values, attributes or None, name=own))

    def cast(self, name: str, x: Value, to: DataType) -> Value:
        """Return the output of a new Cast."""
        return self.op(name, "Cast", [x], to=int(to))

    def quant(
        self,
        name: str,
        x: Value,
        bits: int,
        scale: Array = UNIT,
        *,
        signed: bool = True,
        rounding: Rounding = Rounding.ROUND,
    ) -> Value:
        """Return the output of a new ``Quant`` node: zero point zero, the full range.

        With the default scale, its values are the rounded and clamped integers.
        """
        own = free_name(name, self._taken)
        zero = np.zeros((), dtype=np.float32)
        width = np.asarray(bits, dtype=np.float32)
        quantizer = IntQuant(scale, zero, width, signed=signed, rounding=rounding)
        return self._append(dialect.quantizer_node(x, quantizer, own, self.graph))

    def _append(self, node: Node) -> Value:
        self.graph.append(node)
        value = node.outputs[0]
        value.name = node.name
        value.metadata_props[dialect.PROVENANCE] = str(node.name)
        return value

    def finish(self, outputs: Sequence[Ref]) -> Model:
        """Return the model with these outputs.

        An output that is an input, a constant or an output already gets a node of its own.
        """
        for ref, name in zip(outputs, self._outputs, strict=True):
            own = self.values[ref]
            if own.producer() is None or own.is_graph_output():
                own = self.op(f"{name}/Identity", "Identity", [own])
            own.name = name
            self.graph.outputs.append(own)
        return Model(self.graph, ir_version=IR_VERSION)
