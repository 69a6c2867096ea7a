"""The places of the largest outputs instead of the outputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir import DataType, Model, TensorType
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir.annotations import DATATYPE, annotate
from qonnx_hub_ir.dialect import add_initializer
from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.graph.names import free_name, node_names, value_names
from qonnx_hub_ir.graph.queries import dims, is_standard


@dataclass(frozen=True)
class InsertTopk(InPlacePass):
    """Let the model return where its largest outputs are, instead of its first output.

    Before -> after (``k=1``): output ``y`` -> output ``y_topk`` = second output of
    ``TopK(y, 1)``, int64, annotated UINT32. Does not fire where a TopK makes the first output.

    Attributes:
        k: How many places.
        axis: The axis along which they are looked for.
        largest: Of the largest values, else of the smallest.
        sorted: In order of the values.

    Raises:
        PassError: The model has no output of known rank, or fewer than ``k`` places.
    """

    effect = Effect.VALUES

    k: int = 5
    axis: int = -1
    largest: bool = True
    sorted: bool = True

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        graph = model.graph
        if not graph.outputs:
            raise PassError("the model has no output")
        output, sizes = graph.outputs[0], dims(graph.outputs[0])
        maker = output.producer()
        if maker is not None and is_standard(maker, "TopK"):
            return PassResult(model, modified=False)
        if not sizes or not -len(sizes) <= self.axis < len(sizes):
            raise PassError(f"output '{output.name}' has no axis {self.axis}")
        count = sizes[self.axis]
        if self.k < 1 or (isinstance(count, int) and count < self.k):
            raise PassError(f"output '{output.name}' has {count} places, not {self.k}")
        k = add_initializer(graph, f"{output.name}_k", np.array([self.k], dtype=np.int64))
        taken, names = value_names(graph), node_names(graph)
        node = onnx_ir.node(
            "TopK",
            [output, k],
            {"axis": self.axis, "largest": int(self.largest), "sorted": int(self.sorted)},
            num_outputs=2,
            name=free_name("TopK_0", names),
        )
        values, places = node.outputs
        shape = list(sizes)
        shape[self.axis] = self.k
        for value, label, kind in (
            (values, "values", output.dtype or DataType.FLOAT),
            (places, "topk", DataType.INT64),
        ):
            value.name = free_name(f"{output.name}_{label}", taken)
            value.type, value.shape = TensorType(kind), onnx_ir.Shape(shape)
        annotate(places, {DATATYPE: "UINT32"})
        graph.append(node)
        graph.outputs[0] = places
        return PassResult(model, modified=True)
