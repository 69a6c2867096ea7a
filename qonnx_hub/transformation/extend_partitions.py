"""Parts of a model that lie in files, put back into it."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_ir import Model
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.graph.parts import inline_part, is_partition
from qonnx_hub_ir.graph.queries import attribute
from qonnx_hub_ir.passes import RaiseOpset


@dataclass(frozen=True)
class ExtendPartitions(InPlacePass):
    """Put the model that a GenericPartition names in its place.

    Before -> after::

        y = MatMul(GenericPartition{model="partitions/partition_front.onnx"}(x), v)
        y = MatMul(Relu(Conv(x, w)), v)

    Tensors around it keep their names. The older of two opsets is raised to the other. A
    partition inside of a file stays one. Does not fire without a GenericPartition.

    Attributes:
        names: The nodes; all of them by default.

    Raises:
        SourceError: A file that cannot be read.
        PassError: A name that no such node has, or a file with other inputs and outputs.
    """

    names: tuple[str, ...] = ()

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        found = {str(node.name): node for node in model.graph if is_partition(node)}
        missing = [name for name in self.names if name not in found]
        if missing:
            raise PassError(f"no GenericPartition is called '{missing[0]}'")
        nodes = [node for name, node in found.items() if not self.names or name in self.names]
        parts = [read_model(str(attribute(node, "model", ""))) for node in nodes]
        newest = max((one.opset_imports[""] for one in (model, *parts)), default=0)
        for one in (model, *parts) if parts else ():
            RaiseOpset(newest)(one)
        for node, part in zip(nodes, parts, strict=True):
            inline_part(model, node, part)
        return PassResult(model, modified=bool(nodes))
