"""Sizes that no tensor has stand for any size."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir
from onnx_ir import Model, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir.graph.subgraphs import every_value


@dataclass(frozen=True)
class OpenAxes(InPlacePass):
    """Forget negative sizes, and a batch of 0: exporters write them for what they leave open.

    Before -> after: input of shape ``[-1, 3, 0]`` -> ``[?, 3, 0]``; of ``[0, 3]`` ->
    ``[?, 3]``, and so for every value where an input of the model has a batch of 0.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        empty = any(
            value.shape is not None and len(value.shape) > 0 and value.shape[0] == 0
            for value in model.graph.inputs
        )
        modified = False
        for value in (*every_value(model), *model.graph.outputs):
            modified |= _open(value, empty)
        return PassResult(model, modified=modified)


def _open(value: Value, empty: bool) -> bool:
    """Open the sizes of a value that stand for any; return whether there are some."""
    if value.shape is None or value.const_value is not None:
        return False
    sizes = [
        None if isinstance(size, int) and (size < 0 or (empty and axis == 0 == size)) else size
        for axis, size in enumerate(value.shape)
    ]
    if None not in sizes:
        return False
    value.shape = onnx_ir.Shape(sizes)
    return True
