"""Writing an IR graph: nodes and values named after the layers they come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Graph, Model, Value

from qonnx_hub_adapters.hawq.trace_data import Operand, Ref
from qonnx_hub_ir import dialect
from qonnx_hub_ir.quantizers import Array, IntQuant, Rounding

OPSET = 19
IR_VERSION = 10
BATCH = "batch"


class GraphWriter:
    """A graph under construction.

    A layer's last value carries the layer's name, as name and as provenance; the values inside
    of a layer are called "layer/Role".
    """

    def __init__(self, name: str) -> None:
        imports = {"": OPSET, dialect.DOMAIN: dialect.DOMAIN_VERSION}
        self.graph = Graph([], [], nodes=[], opset_imports=imports, name=name)
        self._values: dict[int, Value] = {}
        self._taken: set[str] = set()

    def name(self, wanted: str) -> str:
        """Return a name that no other value has."""
        free, count = wanted, 1
        while free in self._taken:
            free, count = f"{wanted}_{count}", count + 1
        self._taken.add(free)
        return free

    def input(self, ref: Ref, name: str, shape: Sequence[int | str]) -> None:
        """Add a float32 input of the graph."""
        value = Value(
            name=self.name(name),
            shape=onnx_ir.Shape(shape),
            type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT),
        )
        value.metadata_props[dialect.PROVENANCE] = name
        self.graph.inputs.append(value)
        self._values[ref.index] = value

    def set(self, ref: Ref, value: Value) -> None:
        """Say which value of the graph a traced value is."""
        self._values[ref.index] = value

    def get(self, ref: Ref) -> Value:
        """Return the value of the graph that a traced value is."""
        return self._values[ref.index]

    def constant(self, name: str, array: Array) -> Value:
        """Return an initializer of that name."""
        return dialect.add_initializer(
            self.graph, self.name(name), np.ascontiguousarray(array)
        )

    def operand(self, layer: str, operand: Operand) -> Value:
        """Return a traced value, or a constant as an initializer."""
        if isinstance(operand, Ref):
            return self.get(operand)
        return self.constant(f"{layer}/constant", operand.copy())

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
        own = self.name(name)
        values = [
            self.constant(f"{name}/{op_type.lower()}_{index}", one)
            if isinstance(one, np.ndarray)
            else one
            for index, one in enumerate(inputs)
        ]
        node = onnx_ir.node(op_type, values, attributes or None, name=own)
        self.graph.append(node)
        return self._finished(node.outputs[0], own)

    def quant(
        self,
        name: str,
        x: Value,
        scale: Array,
        bits: int,
        *,
        signed: bool = True,
        rounding: Rounding = Rounding.ROUND,
    ) -> Value:
        """Return the output of a new ``Quant`` node: zero point zero, the full range."""
        own = self.name(name)
        zero = np.zeros((), dtype=np.float32)
        width = np.asarray(bits, dtype=np.float32)
        quantizer = IntQuant(scale, zero, width, signed=signed, rounding=rounding)
        node = dialect.quantizer_node(x, quantizer, own, self.graph)
        self.graph.append(node)
        return self._finished(node.outputs[0], own)

    def integers(self, name: str, x: Value, bits: int, *, signed: bool = True) -> Value:
        """Return the output of a ``Quant`` node of step one: rounded and clamped."""
        return self.quant(name, x, np.ones((), dtype=np.float32), bits, signed=signed)

    @staticmethod
    def _finished(value: Value, name: str) -> Value:
        value.name = name
        value.metadata_props[dialect.PROVENANCE] = name
        return value

    def finish(self, outputs: Sequence[Value], names: Sequence[str]) -> Model:
        """Return the model with these outputs.

        An output that is an input, a constant or an output already gets a node of its own.
        """
        for value, name in zip(outputs, names, strict=True):
            own = value
            if value.producer() is None or value.is_graph_output():
                own = self.op(f"{name}/Identity", "Identity", [value])
            own.name = name
            self.graph.outputs.append(own)
        return Model(self.graph, ir_version=IR_VERSION)
