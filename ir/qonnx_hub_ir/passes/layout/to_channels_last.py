"""The whole graph, channels last."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_ir import Model
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.passes.layout.window_layouts import (
    becomes_last,
    convert_to_first,
    convert_to_last,
)


@dataclass(frozen=True)
class ToChannelsLast(InPlacePass):
    """Convert a graph of images from channels first to channels last.

    Before -> after::

        x[N, C, H, W];  y = Conv(Quant(x, scale[C, 1, 1]), w[O, I, H, W])
        x[N, H, W, C];  y = channels_last::Conv(Quant(x, scale[1, 1, 1, C]), w[O, H, W, I])

    1. Conv, MaxPool, AveragePool and BatchNormalization (rank 3 and more) become operators of
       domain ``qonnx.custom_op.channels_last``, with the attributes of their windows written
       out; a global pool becomes a reduction over the axes of the image.
    2. Elementwise operators, quantizers, Concat, Split, Pad, Resize, Slice, Softmax,
       reductions and their like follow: constants, scales and axes go along.
    3. Before a Flatten (or such a Reshape) nothing is transposed back: the rows of the weights
       behind it are put in the new order, if MatMul and Gemm with constant weights are all
       that reads it. Else a Transpose is left there.
    4. Transposes that the file had are cancelled where no reader needs them.

    Values are moved, not computed anew; sums are the same, but reductions over the image and
    matrix products behind a Flatten add in another order. The result is bit for bit the same
    where sums are exact (integers times power-of-two scales, below 2^24), else it differs by
    the rounding of a float sum, and a quantizer may turn that into one step.

    Does not fire on a graph without such operators, nor inside subgraphs. What reads channels
    first and has no other form (ConvTranspose, DepthToSpace) stands between Transposes.

    Attributes:
        inputs: Convert the graph inputs whose readers require it; else a Transpose follows.
        outputs: Convert the graph outputs too; else a Transpose stands before them.
        operators: Use the channels-last operators. Without them only inputs and outputs are
            converted, for standard ONNX has no other convolution than channels first.
    """

    effect = Effect.SIGNATURE

    inputs: bool = True
    outputs: bool = True
    operators: bool = True

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        if not any(becomes_last(node) for node in model.graph):
            return PassResult(model, modified=False)
        if self.operators:
            turned = convert_to_last(model, inputs=self.inputs, outputs=self.outputs)
            return PassResult(model, modified=turned.modified)
        probe = convert_to_last(model.clone(), inputs=self.inputs, outputs=self.outputs)
        if not probe.ends:
            return PassResult(model, modified=False)
        convert_to_last(model, inputs=self.inputs, outputs=self.outputs)
        convert_to_first(model, inputs=False, outputs=False)
        return PassResult(model, modified=True)
