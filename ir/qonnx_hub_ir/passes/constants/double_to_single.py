"""Constants of double precision in single precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir import DataType, Model, TensorType, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.graph.subgraphs import every_graph, every_value
from qonnx_hub_ir.passes.shapes.infer_shapes import InferShapes


@dataclass(frozen=True)
class DoubleToSingle(InPlacePass):
    """Round float64 constants to float32, and compute in float32 what reads them.

    Before -> after: ``w[float64]; Cast(w, to=float)`` -> ``w[float32]; Cast(w, to=float)``.
    Inputs of the model in float64 become float32 too, and casts to float64 casts to float32.
    Does not fire without float64.

    Raises:
        PassError: Types contradict each other afterwards: a node needs float64.
    """

    effect = Effect.ROUNDING

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        doubles = [v for v in every_value(model) if v.dtype == DataType.DOUBLE]
        held = [v for v in _constants(model) if v.const_value.dtype == DataType.DOUBLE]  # type: ignore[union-attr]
        for value in held:
            array = np.asarray(dialect.constant_value(value), dtype=np.float32)
            value.const_value = onnx_ir.Tensor(np.asarray(array, order="C"), name=value.name)
            value.type = TensorType(DataType.FLOAT)
        for value in doubles:
            value.type = TensorType(DataType.FLOAT)
        for node in model.graph.all_nodes():
            target = node.attributes.get("to")
            if (
                node.op_type == "Cast"
                and target is not None
                and target.value == DataType.DOUBLE
            ):
                node.attributes["to"] = onnx_ir.AttrInt64("to", int(DataType.FLOAT))
        if held or doubles:
            _require_types(model)
        return PassResult(model, modified=bool(held or doubles))


def _constants(model: Model) -> list[Value]:
    graphs = every_graph(model, functions=False)
    values = (value for graph in graphs for value in graph.initializers.values())
    return [value for value in values if value.const_value is not None]


def _require_types(model: Model) -> None:
    try:
        InferShapes()(model)
    except PassError as error:
        raise PassError(f"the model cannot be computed in float32: {error}") from error
