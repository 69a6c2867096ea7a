"""An Identity at a tensor."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir
from onnx_ir import Model, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.graph.names import free_name, node_names, value_names
from qonnx_hub_ir.graph.rewriting import read_behind
from qonnx_hub_ir.graph.subgraphs import own_values

PLACES = ("producer", "consumer")


@dataclass(frozen=True)
class InsertIdentity(InPlacePass):
    """Put an Identity between a tensor and the node that makes it, or those that read it.

    Before -> after (``tensor=h``)::

        h = MatMul(x, w);  y = Relu(h)
        h_identity = MatMul(x, w);  h = Identity(h_identity);  y = Relu(h)    # producer
        h = MatMul(x, w);  h_identity = Identity(h);  y = Relu(h_identity)    # consumer

    Inputs and outputs of the model keep their names in either case.

    Attributes:
        tensor: Name of the tensor.
        where: "producer" or "consumer".

    Raises:
        PassError: No such place or tensor; no node makes it, or none reads it.
    """

    tensor: str
    where: str = "producer"

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        if self.where not in PLACES:
            raise PassError(f"where is '{self.where}'; it must be {' or '.join(PLACES)}")
        value = self._find(model)
        graph, maker = model.graph, value.producer()
        node = onnx_ir.node(
            "Identity", [value], name=free_name(f"{self.tensor}_identity", node_names(graph))
        )
        made = node.outputs[0]
        made.name = free_name(f"{self.tensor}_identity", value_names(graph))
        made.type, made.shape = value.type, value.shape
        uses = [(use.node, use.idx) for use in value.uses() if use.node is not node]
        if self.where == "producer":
            if maker is None:
                raise PassError(f"no node makes '{self.tensor}'")
            graph.insert_after(maker, node)
            read_behind(node, str(made.name), keep_name=True)
            return PassResult(model, modified=True)
        if not uses:
            raise PassError(f"no node reads '{self.tensor}'")
        if maker is not None:
            graph.insert_after(maker, node)
        else:
            graph.insert_before(graph[0], node)
        for user, index in uses:
            user.replace_input_with(index, made)
        return PassResult(model, modified=True)

    def _find(self, model: Model) -> Value:
        for value in own_values(model.graph):
            if value.name == self.tensor and not value.is_initializer():
                return value
        raise PassError(f"the model has no tensor '{self.tensor}' that is no constant")
