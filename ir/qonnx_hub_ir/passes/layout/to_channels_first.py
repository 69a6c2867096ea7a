"""The whole graph, channels first."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_ir import Model
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.passes.layout.window_layouts import (
    becomes_first,
    convert_to_first,
    ends_last,
)


@dataclass(frozen=True)
class ToChannelsFirst(InPlacePass):
    """Convert a graph of images from channels last to channels first, in standard operators.

    Before -> after::

        x[N, H, W, C];  y = channels_last::Conv(Quant(x, scale[C]), w[O, H, W, I])
        x[N, C, H, W];  y = Conv(Quant(x, scale[1, C, 1, 1]), w[O, I, H, W])

    The reverse of :class:`ToChannelsLast`, with the same rules and the same remark on sums. It
    fires on operators of the channels-last domain, and on images that are transposed
    right at an input or an output of a graph with convolutions or pools.

    Attributes:
        inputs: Convert the graph inputs whose readers require it; else a Transpose follows.
        outputs: Convert the graph outputs too; else a Transpose stands before them.
    """

    effect = Effect.SIGNATURE

    inputs: bool = True
    outputs: bool = True

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        fires = any(becomes_first(node) for node in model.graph)
        if not fires and not ends_last(model, inputs=self.inputs, outputs=self.outputs):
            return PassResult(model, modified=False)
        turned = convert_to_first(model, inputs=self.inputs, outputs=self.outputs)
        return PassResult(model, modified=turned.modified)
