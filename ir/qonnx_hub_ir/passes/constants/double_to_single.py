"""Double precision in single precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir import DataType, Graph, Model, TensorType, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.annotations import carry
from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.graph.names import free_name, node_names, value_names
from qonnx_hub_ir.graph.subgraphs import every_graph, every_value
from qonnx_hub_ir.passes.shapes.infer_shapes import InferShapes
from qonnx_hub_ir.quantizers import Array


@dataclass(frozen=True)
class DoubleToSingle(InPlacePass):
    """Round float64 constants to float32, and compute in float32 what reads them.

    Before -> after: ``w[float64]; Cast(w, to=float)`` -> ``w[float32]; Cast(w, to=float)``.
    Casts to float64 become casts to float32. Inputs and outputs of the model keep their
    types: a Cast stands behind an input and in front of an output of float64. Does not fire
    without float64.

    Attributes:
        signature: Make inputs and outputs float32 as well, instead of casting there.
        clip: Take the largest float32 for a constant beyond it, instead of refusing it.

    Raises:
        PassError: A constant that float32 cannot hold; or types contradict each other
            afterwards: a node needs float64.
    """

    signature: bool = False
    clip: bool = False

    @property
    def effect(self) -> Effect:
        """ROUNDING, or what was asked for."""
        return Effect.VALUES if self.signature or self.clip else Effect.ROUNDING

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        held = [
            value
            for graph in every_graph(model, functions=False)
            for value in graph.initializers.values()
            if value.const_value is not None and value.const_value.dtype == DataType.DOUBLE
        ]
        singles = [self._rounded(value) for value in held]
        ends: list[Value] = (
            [] if self.signature else [*_cast_inputs(model.graph), *_cast_outputs(model.graph)]
        )
        doubles = [v for v in every_value(model) if v.dtype == DataType.DOUBLE]
        inner = [value for value in doubles if value not in ends]
        for value, array in zip(held, singles, strict=True):
            value.const_value = onnx_ir.Tensor(array, name=value.name)
            value.type = TensorType(DataType.FLOAT)
        for value in inner:
            value.type = TensorType(DataType.FLOAT)
        for node in model.graph.all_nodes():
            if _casts(node, DataType.DOUBLE) and node.outputs[0] not in ends:
                node.attributes["to"] = onnx_ir.AttrInt64("to", int(DataType.FLOAT))
        if held or inner:
            try:
                InferShapes()(model)
            except PassError as error:
                raise PassError(f"the model cannot be computed in float32: {error}") from error
        return PassResult(model, modified=bool(held or inner))

    def _rounded(self, value: Value) -> Array:
        array = np.asarray(dialect.constant_value(value), dtype=np.float64)
        most = np.finfo(np.float32).max
        with np.errstate(over="ignore"):
            single = np.asarray(array, dtype=np.float32, order="C")
        lost = np.isinf(single) & np.isfinite(array)
        if not np.any(lost):
            return single
        if not self.clip:
            raise PassError(
                f"constant '{value.name}' holds {array[lost].flat[0]:g}, which float32 cannot "
                "hold; clip=true takes the largest float32 instead"
            )
        return np.where(lost, np.copysign(most, array).astype(np.float32), single)


def _cast_inputs(graph: Graph) -> list[Value]:
    found = [v for v in graph.inputs if v.dtype == DataType.DOUBLE and v.uses()]
    for value in found:
        uses = list(value.uses())
        if all(_casts(use.node, DataType.FLOAT) for use in uses):
            continue
        name = free_name(f"{value.name}_single", value_names(graph))
        made = _cast(graph, value, DataType.FLOAT, name)
        graph.insert_before(graph[0], _node(made))
        for use in uses:
            use.node.replace_input_with(use.idx, made)
    # An input that nothing computes with is what it was.
    return [v for v in graph.inputs if v.dtype == DataType.DOUBLE]


def _cast_outputs(graph: Graph) -> list[Value]:
    found: list[Value] = []
    for value in dict.fromkeys(graph.outputs):
        if value.dtype != DataType.DOUBLE or value.is_graph_input():
            continue
        maker = value.producer()
        if maker is not None and _casts(maker, DataType.DOUBLE) and not value.uses():
            found.append(value)
            continue
        name = str(value.name)
        value.name = free_name(f"{name}_single", value_names(graph))
        made = _cast(graph, value, DataType.DOUBLE, name)
        carry(value, made)
        graph.append(_node(made))
        graph.outputs[:] = [made if one is value else one for one in graph.outputs]
        found.append(made)
    return found


def _casts(node: onnx_ir.Node, to: DataType) -> bool:
    target = node.attributes.get("to")
    return (
        node.domain == ""
        and node.op_type == "Cast"
        and target is not None
        and target.value == to
    )


def _cast(graph: Graph, value: Value, to: DataType, name: str) -> Value:
    """Return the output of a new Cast of a value, not inserted."""
    label = free_name(f"{name}_cast", node_names(graph))
    made = onnx_ir.node("Cast", [value], {"to": int(to)}, name=label).outputs[0]
    made.name, made.type, made.shape = name, TensorType(to), value.shape
    return made


def _node(value: Value) -> onnx_ir.Node:
    node = value.producer()
    assert node is not None, "made by a Cast"
    return node
