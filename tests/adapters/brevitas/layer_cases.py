"""One case per layer, option, and way of wiring layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import brevitas.nn as qnn
import torch
from brevitas.inject.enum import FloatToIntImplType
from brevitas.quant import (
    Int8ActPerTensorFixedPoint,
    Int8ActPerTensorFloat,
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFixedPoint,
    Int16Bias,
    Int32Bias,
    RoundTo8bit,
    ShiftedUint8ActPerTensorFixedPoint,
    ShiftRoundSaturateTo8bit,
    TruncTo8bit,
    Uint8ActPerTensorFixedPoint,
)
from torch import nn

from tests.adapters.brevitas.kit import Case

IMAGE = ((2, 4, 8, 8),)

# Exponentials differ in the last bit from one processor to another; on the other side of a
# tie, what comes after it in the sequence differs as well.
FLIPS = 0.05


class Net(nn.Module):
    """Named parts, and what to do with them."""

    def __init__(self, compute: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.compute = compute
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Any) -> Any:
        return self.compute(self, *inputs)


def chain(name: str, *makers: Callable[[], Any], **options: Any) -> Case:
    options.setdefault("shapes", IMAGE)
    return Case(name, lambda: nn.Sequential(*[make() for make in makers]), **options)


def grid(bits: int = 4, **more: Any) -> Any:
    """A quantizer whose scale is a power of two."""
    return qnn.QuantIdentity(Int8ActPerTensorFixedPoint, bit_width=bits, **more)


def dyadic(layer: Any) -> Any:
    """Bring float parameters onto a grid on which sums are exact."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.round(parameter * 64) / 64)
    return layer


CONV = {"weight_quant": Int8WeightPerTensorFixedPoint, "weight_bit_width": 4}


def conv(name: str, kind: Any, *sizes: Any, shapes: Any = IMAGE, **options: Any) -> Case:
    """A convolution of two grids: exact."""
    return Case(
        f"{kind.__name__} {name}",
        lambda: nn.Sequential(
            grid(), dyadic(kind(*sizes, **{**CONV, "bias": False, **options}))
        ),
        shapes=shapes,
        quantizers=2,
        exact=True,
    )


CONVOLUTIONS = [
    conv("3x3", qnn.QuantConv2d, 4, 6, 3),
    conv("bias", qnn.QuantConv2d, 4, 6, 3, bias=True),
    conv("padding", qnn.QuantConv2d, 4, 6, 3, padding=1),
    conv("same", qnn.QuantConv2d, 4, 6, 3, padding="same"),
    conv("strides", qnn.QuantConv2d, 4, 6, 3, stride=2, padding=1),
    conv("dilation", qnn.QuantConv2d, 4, 6, 3, dilation=2),
    conv("two groups", qnn.QuantConv2d, 4, 6, 3, groups=2),
    conv("depthwise", qnn.QuantConv2d, 4, 4, 3, groups=4),
    conv("1x1", qnn.QuantConv2d, 4, 6, 1),
    conv("1-D", qnn.QuantConv1d, 4, 6, 3, shapes=((2, 4, 16),)),
    conv("3-D", qnn.QuantConv3d, 2, 3, 3, shapes=((1, 2, 5, 5, 5),)),
    conv("1-D", qnn.QuantConvTranspose1d, 4, 6, 3, shapes=((2, 4, 9),)),
    conv("2-D", qnn.QuantConvTranspose2d, 4, 6, 3),
    conv("2-D, strides", qnn.QuantConvTranspose2d, 4, 6, 3, stride=2, padding=1,
         output_padding=1),
    conv("2-D, groups", qnn.QuantConvTranspose2d, 4, 6, 3, groups=2),
    conv("3-D", qnn.QuantConvTranspose3d, 2, 3, 3, shapes=((1, 2, 4, 4, 4),)),
    chain("QuantConv2d per channel", qnn.QuantIdentity, lambda: qnn.QuantConv2d(
        4, 6, 3, weight_quant=Int8WeightPerChannelFloat, weight_bit_width=4), quantizers=2),
    chain("QuantConvTranspose2d per channel", qnn.QuantIdentity,
          lambda: qnn.QuantConvTranspose2d(
              4, 6, 3, weight_quant=Int8WeightPerChannelFloat, weight_bit_width=4),
          quantizers=2),
    chain("QuantConv2d input and output", lambda: qnn.QuantConv2d(
        4, 6, 3, input_quant=Int8ActPerTensorFloat, output_quant=Int8ActPerTensorFloat,
        bias=True, bias_quant=Int32Bias, return_quant_tensor=True),
        quantizers=4),
    chain("QuantConv2d weights in float", qnn.QuantIdentity, lambda: qnn.QuantConv2d(
        4, 6, 3, weight_quant=None), quantizers=1),
]  # fmt: skip


NORMS = [
    chain("batch norm behind a convolution", grid,
          lambda: qnn.QuantConv2d(4, 6, 3, **CONV), lambda: nn.BatchNorm2d(6),
          lambda: qnn.QuantReLU(bit_width=4), quantizers=3),
    chain("batch norm behind a linear layer", grid,
          lambda: qnn.QuantLinear(16, 8, **CONV), lambda: nn.BatchNorm1d(8),
          quantizers=2, shapes=((4, 16),)),
    chain("BatchNorm2dToQuantScaleBias", grid,
          lambda: qnn.BatchNorm2dToQuantScaleBias(
              4, weight_quant=Int8WeightPerTensorFixedPoint, bias_quant=None),
          quantizers=2),
    chain("QuantScaleBias", lambda: grid(return_quant_tensor=True), lambda: qnn.QuantScaleBias(
        4, bias=True, runtime_shape=(1, -1, 1, 1), bias_quant=None), quantizers=2),
]  # fmt: skip

TENSOR = {"return_quant_tensor": True}


def small_relu(**more: Any) -> Any:
    return qnn.QuantReLU(Uint8ActPerTensorFixedPoint, bit_width=4, **TENSOR, **more)


def average(name: str, quant: Any, bits: int, signed: bool = False, **more: Any) -> Case:
    first = (lambda: grid(**TENSOR)) if signed else small_relu
    return chain(f"TruncAvgPool2d {name}", first, lambda: qnn.TruncAvgPool2d(
        2, trunc_quant=quant, bit_width=bits, return_quant_tensor=False, **more),
        quantizers=2, exact=True)  # fmt: skip


POOLS = [
    chain("max pooling of a quantized tensor", lambda: grid(**TENSOR),
          lambda: nn.MaxPool2d(2), quantizers=1, exact=True),
    chain("average pooling in float", grid, lambda: nn.AvgPool2d(2), quantizers=1),
    average("8 bits", TruncTo8bit, 8),
    average("4 bits", TruncTo8bit, 4),
    average("4 bits, signed", TruncTo8bit, 4, signed=True),
    average("4 bits, rounded", RoundTo8bit, 4),
    average("4 bits, rounded, signed", RoundTo8bit, 4, signed=True),
    average("4 bits CEIL", TruncTo8bit, 4, float_to_int_impl_type=FloatToIntImplType.CEIL),
    average("4 bits, shifted and saturated", ShiftRoundSaturateTo8bit, 4),
    chain("TruncAvgPool2d behind a learned scale",
          lambda: qnn.QuantReLU(bit_width=4, **TENSOR),
          lambda: qnn.TruncAvgPool2d(4, trunc_quant=TruncTo8bit, bit_width=4,
                                     return_quant_tensor=False), quantizers=2),
    chain("TruncAvgPool2d of scales per channel", lambda: qnn.QuantReLU(
        bit_width=4, scaling_per_output_channel=True,
        per_channel_broadcastable_shape=(1, 4, 1, 1),
        scaling_stats_permute_dims=(1, 0, 2, 3), **TENSOR),
        lambda: qnn.TruncAvgPool2d(2, trunc_quant=TruncTo8bit, bit_width=4,
                                   return_quant_tensor=False), quantizers=2),
    chain("TruncAvgPool2d of a zero point", lambda: qnn.QuantIdentity(
        ShiftedUint8ActPerTensorFixedPoint, bit_width=4, **TENSOR),
        lambda: qnn.TruncAvgPool2d(2, trunc_quant=TruncTo8bit, bit_width=4,
                                   return_quant_tensor=False), quantizers=2),
    chain("TruncAdaptiveAvgPool2d", small_relu, lambda: qnn.TruncAdaptiveAvgPool2d(
        1, trunc_quant=TruncTo8bit, bit_width=4, return_quant_tensor=False),
        quantizers=2, exact=True),
]  # fmt: skip

SHAPES = [
    chain("flatten a quantized tensor", lambda: grid(**TENSOR), nn.Flatten,
          lambda: qnn.QuantLinear(256, 8, **CONV), quantizers=2, exact=False),
    chain("QuantUpsample", lambda: grid(**TENSOR),
          lambda: qnn.QuantUpsample(scale_factor=2, return_quant_tensor=False),
          quantizers=1, exact=True),
    chain("QuantUpsamplingNearest2d", lambda: grid(**TENSOR),
          lambda: qnn.QuantUpsamplingNearest2d(scale_factor=2), quantizers=1, exact=True),
    chain("QuantUpsamplingBilinear2d of a quantized tensor", lambda: grid(**TENSOR),
          lambda: qnn.QuantUpsamplingBilinear2d(scale_factor=2), quantizers=1),
    chain("PixelShuffle", grid, lambda: nn.PixelShuffle(2), quantizers=1, exact=True),
]  # fmt: skip


def _add(net: Any, x: Any) -> Any:
    first = net.quant(x)
    return net.out(net.quant(net.conv(first)) + first)


def _pairs(net: Any, x: Any, y: Any) -> Any:
    return net.shared(x), net.shared(y), net.shared(x + y)


RESIDUALS = [
    Case("residual add with a shared quantizer", lambda: Net(
        _add, quant=grid(**TENSOR), out=grid(6),
        conv=qnn.QuantConv2d(4, 4, 3, padding=1, **CONV, bias=False)), IMAGE, 4, exact=True),
    Case("QuantEltwiseAdd", lambda: Net(
        lambda net, x, y: net.add(x, y),
        add=qnn.QuantEltwiseAdd(Int8ActPerTensorFixedPoint, Int8ActPerTensorFixedPoint)),
        ((2, 16), (2, 16)), 3, exact=True),
    Case("QuantEltwiseAdd of learned scales", lambda: Net(
        lambda net, x, y: net.add(x, y), add=qnn.QuantEltwiseAdd()),
        ((2, 16), (2, 16)), 3),
    Case("concatenation with a shared quantizer", lambda: Net(
        lambda net, x, y: torch.cat([net.q(x), net.q(y)], dim=1), q=grid()),
        ((2, 16), (2, 8)), 2, exact=True),
    Case("one quantizer, three uses, three outputs", lambda: Net(
        _pairs, shared=grid()), ((2, 16), (2, 16)), 3, exact=True),
    Case("one layer, two uses", lambda: Net(
        lambda net, x: net.layer(net.q(net.layer(net.q(x)))), q=grid(),
        layer=qnn.QuantLinear(16, 16, **CONV, bias=False)), quantizers=3, exact=True),
    Case("two layers, one quantizer of weights", lambda: _shared_weights(),
         quantizers=4, exact=True),
    Case("quantized tensor as the answer", lambda: nn.Sequential(
        grid(**TENSOR), qnn.QuantLinear(16, 8, **CONV, bias=False, **TENSOR)),
        quantizers=2, exact=True),
    Case("answers by name", lambda: Net(
        lambda net, x: {"a": net.q(x), "b": (net.q(2 * x), None)}, q=grid()),
        quantizers=2, exact=True),
    Case("input that is the answer too", lambda: Net(
        lambda net, x: (net.q(x), x * 1.0), q=grid()), quantizers=1, exact=True),
    Case("quantizers that are not used", lambda: Net(
        lambda net, x: net.q(x), q=grid(), idle=qnn.QuantLinear(3, 3)), quantizers=1,
        exact=True),
]  # fmt: skip


def _shared_weights() -> Any:
    first = qnn.QuantLinear(16, 16, **CONV, bias=False)
    second = qnn.QuantLinear(16, 16, weight_quant=first.weight_quant, bias=False)
    return nn.Sequential(grid(), first, grid(), second)


def recurrent(name: str, kind: Any, shape: Any = (2, 5, 6), **options: Any) -> Case:
    quantizers = options.pop("quantizers", None)
    return Case(
        f"{kind.__name__} {name}",
        lambda: Net(
            lambda net, x: net.layer(x), layer=kind(6, 4, batch_first=True, **options)
        ),
        (shape,),
        quantizers,
        flips=FLIPS,
    )


FLOAT_CELL = {
    "bias_quant": None, "io_quant": None, "gate_acc_quant": None, "sigmoid_quant": None,
    "tanh_quant": None, "cell_state_quant": None,
}  # fmt: skip
FLOAT_RNN = {"bias_quant": None, "io_quant": None, "gate_acc_quant": None}

RECURRENT = [
    recurrent("weights only", qnn.QuantLSTM, weight_bit_width=4, quantizers=8, **FLOAT_CELL),
    recurrent("weights only, two layers", qnn.QuantLSTM, num_layers=2, **FLOAT_CELL),
    recurrent("weights only, both directions", qnn.QuantLSTM, bidirectional=True,
              **FLOAT_CELL),
    recurrent("weights only, coupled gates", qnn.QuantLSTM,
              coupled_input_forget_gates=True, **FLOAT_CELL),
    recurrent("weights only, no bias", qnn.QuantLSTM, bias=False, **FLOAT_CELL),
    Case("QuantLSTM weights only, steps first", lambda: Net(
        lambda net, x: net.layer(x), layer=qnn.QuantLSTM(6, 4, **FLOAT_CELL)),
        ((5, 2, 6),), 8, flips=FLIPS),
    recurrent("fully quantized", qnn.QuantLSTM),
    recurrent("fully quantized, coupled gates", qnn.QuantLSTM,
              coupled_input_forget_gates=True),
    recurrent("states quantized", qnn.QuantLSTM, weight_bit_width=4,
              bias_quant=None, gate_acc_quant=None, sigmoid_quant=None, tanh_quant=None),
    recurrent("weights only", qnn.QuantRNN, weight_bit_width=4, **FLOAT_RNN),
    recurrent("fully quantized", qnn.QuantRNN),
    recurrent("fully quantized, both directions", qnn.QuantRNN,
              bidirectional=True),
]  # fmt: skip


def attention(name: str, tolerance: float = 2e-6, **options: Any) -> Case:
    return Case(
        f"QuantMultiheadAttention {name}",
        lambda: Net(
            lambda net, x: net.layer(x, x, x),
            layer=qnn.QuantMultiheadAttention(8, 2, batch_first=True, **options),
        ),
        ((2, 5, 8),),
        flips=FLIPS,
        tolerance=tolerance,
    )


PO2_ATTENTION = {
    f"{part}_quant": Int8ActPerTensorFixedPoint
    for part in ("in_proj_input", "q_scaled", "k_transposed", "v", "out_proj_input")
}

ATTENTION = [
    attention("packed"),
    attention("unpacked", packed_in_proj=False),
    attention("unpacked, powers of two", packed_in_proj=False, **PO2_ATTENTION),
    attention("softmax in 8 bits", softmax_input_quant=Int8ActPerTensorFloat),
    attention("4-bit weights", in_proj_weight_bit_width=4, out_proj_weight_bit_width=4),
]

EMBEDDINGS = [
    Case("QuantEmbedding", lambda: nn.Sequential(
        qnn.QuantEmbedding(11, 6, weight_bit_width=4)), ((2, 7),), 1,
        exact=True, calibrate=False, indices=11),
    Case("QuantEmbedding and a linear layer", lambda: nn.Sequential(
        qnn.QuantEmbedding(11, 6, weight_bit_width=4),
        qnn.QuantIdentity(bit_width=8), qnn.QuantLinear(6, 3)),
        ((2, 7),), 3, indices=11),
]  # fmt: skip

CHAINS = [
    chain("two linear layers with 16-bit bias", lambda: grid(**TENSOR),
          lambda: qnn.QuantLinear(16, 12, bias=True, bias_quant=Int16Bias, **CONV),
          lambda: qnn.QuantReLU(Uint8ActPerTensorFixedPoint, bit_width=4, **TENSOR),
          lambda: qnn.QuantLinear(12, 5, bias=True, bias_quant=Int16Bias, **CONV),
          shapes=((2, 16),), quantizers=6, exact=True),
    chain("layers in training mode before", grid, lambda: nn.Dropout(0.5),
          lambda: qnn.QuantLinear(16, 4, **CONV, bias=False), shapes=((2, 16),),
          quantizers=2, exact=True),
    chain("layers without any quantizer between", grid, nn.Softmax, lambda: nn.Linear(16, 4),
          lambda: qnn.QuantLinear(4, 4, weight_bit_width=4), shapes=((2, 16),),
          quantizers=2),
]  # fmt: skip

LAYERS = [
    *CONVOLUTIONS, *NORMS, *POOLS, *SHAPES, *RESIDUALS, *RECURRENT, *ATTENTION, *EMBEDDINGS,
    *CHAINS,
]  # fmt: skip
