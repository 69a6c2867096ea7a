"""Writing nodes into a graph in front of the node they replace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir
from onnx_ir import Graph, Node, Value

from qonnx_hub_ir import dialect
from qonnx_hub_ir.quantizers import Array


class Emitter:
    """Inserts standard nodes before one node, then takes its place.

    Names derive from the replaced node's, so that the same input gives the same file.
    """

    def __init__(self, graph: Graph, node: Node) -> None:
        self.graph = graph
        self.node = node
        self._count = 0
        self._constants: dict[tuple[str, str, tuple[int, ...], bytes], Value] = {}

    def constant(self, label: str, array: Array) -> Value:
        """Return an initializer named after the node and ``label``; equal ones are one."""
        key = (label, array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"{self.node.name}_{label}"
            self._constants[key] = dialect.add_initializer(self.graph, name, array)
        return self._constants[key]

    def tensor(self, label: str, tensor: onnx_ir.TensorProtocol) -> Value:
        """Return a new initializer that holds a tensor, which may be computed late."""
        return dialect.register_tensor(self.graph, f"{self.node.name}_{label}", tensor)

    def add(self, op_type: str, inputs: Sequence[Value | None], **attributes: Any) -> Value:
        """Return the output of a new standard node placed before the replaced one."""
        name = f"{self.node.name}_{op_type}_{self._count}"
        self._count += 1
        fresh = onnx_ir.node(op_type, inputs, attributes or None, name=name)
        fresh.outputs[0].name = f"{name}_out"
        self.node.prepend(fresh)
        return fresh.outputs[0]

    def replace_with(self, value: Value) -> None:
        """Put ``value`` in the place of the node's output, under the output's name."""
        old = self.node.outputs[0]
        name = old.name
        value.type, value.shape = old.type, old.shape
        value.metadata_props.update(old.metadata_props)
        old.replace_all_uses_with(value, replace_graph_outputs=True)
        self.graph.remove(self.node, safe=True)
        old.name = None
        value.name = name
