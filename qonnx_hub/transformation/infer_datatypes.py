"""Datatypes of tensors, written down as the qonnx tool infers them."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_ir import Model, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub.analysis.cost.types import FLOAT32, Datatype, annotated, tool_type
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.annotations import DATATYPE, annotate, annotations_of


@dataclass(frozen=True)
class InferDatatypes(InPlacePass):
    """Annotate the datatype of everything that nodes make, from those of inputs and constants.

    Before -> after: ``MatMul(x[INT8], w[INT4])`` -> annotated INT32. A quantizer gives its
    type where its scale is 1 and its zero point 0; sums of integers are INT32, or UINT32 where
    no operand is signed; moves keep the type; what follows a float is FLOAT32. A Concat of
    several types is FLOAT32. Operators of which nothing is known are left alone. Does not fire
    where the annotations are these already.

    Attributes:
        allow_scaledint: Say SCALEDINT of integers with a scale; else FLOAT32.
    """

    allow_scaledint: bool = False

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        graph, modified = model.graph, False
        stored = ((v, dialect.constant_value(v)) for v in graph.initializers.values())
        constants = {value: array for value, array in stored if array is not None}
        types: dict[Value, Datatype] = {
            value: annotated(value) for value in (*graph.inputs, *constants)
        }
        for node in graph:
            found = tool_type(node, types, constants)
            several = {types[v] for v in node.inputs if v is not None and v in types}
            if operators.is_opaque(node):
                found = annotated(node.outputs[0])
            elif node.op_type == "Concat" and len(several) > 1:
                found = FLOAT32
            if found.name.startswith("SCALEDINT") and not self.allow_scaledint:
                found = FLOAT32
            for value in node.outputs:
                types[value] = found
                said = annotations_of(value).get(DATATYPE)
                if not operators.is_opaque(node) and value.name and said != found.name:
                    annotate(value, {DATATYPE: found.name})
                    modified = True
        return PassResult(model, modified=modified)
