"""What nobody reads is dropped."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_ir import Model
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir.graph.unused import drop_unused


@dataclass(frozen=True)
class DropUnused(InPlacePass):
    """Remove nodes, initializers, functions and opset imports that no graph output needs.

    Before -> after: ``a = Relu(x); b = Relu(x)`` with output ``b`` -> ``b = Relu(x)``. Graph
    inputs stay, used or not: they are the model's signature.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        return PassResult(model, modified=drop_unused(model))
