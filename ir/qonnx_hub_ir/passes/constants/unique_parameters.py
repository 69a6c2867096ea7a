"""Every reader gets constants of its own."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir
from onnx_ir import Graph, Model, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.annotations import carry
from qonnx_hub_ir.graph.subgraphs import every_graph


@dataclass(frozen=True)
class UniqueParameters(InPlacePass):
    """Give each input that reads a constant one that nobody else reads.

    Before -> after: ``Mul(Quant(x, s, z, b), s)`` -> ``Mul(Quant(x, s, z, b), s_1)``. The
    first reader keeps the constant. Does not fire on constants with one reader.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        seen: set[Value] = set()
        modified = False
        for graph in every_graph(model, functions=False):
            for node in graph:
                for index, value in enumerate(node.inputs):
                    if value is None or dialect.constant_tensor(value) is None:
                        continue
                    if value in seen or value.is_graph_output():
                        node.replace_input_with(index, _copy(graph, value))
                        modified = True
                    seen.add(value)
        return PassResult(model, modified=modified)


def _copy(graph: Graph, value: Value) -> Value:
    array = dialect.constant_value(value)
    tensor = dialect.constant_tensor(value)
    assert array is not None, "it is a constant"
    assert tensor is not None, "it is a constant"

    held = onnx_ir.Tensor(array, dtype=tensor.dtype, name=value.name)
    fresh = dialect.register_tensor(graph, str(value.name), held)
    fresh.metadata_props.update(value.metadata_props)
    carry(value, fresh)
    return fresh
