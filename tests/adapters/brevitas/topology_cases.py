"""Whole networks: those of Brevitas' own examples, narrower, and others of the same kind."""

from __future__ import annotations

import itertools
from typing import Any

import brevitas.nn as qnn
import torch
from brevitas.core.restrict_val import RestrictValueType
from brevitas.core.zero_point import ZeroZeroPoint
from brevitas.graph.quantize import (
    layerwise_quantize,
    preprocess_for_quantize,
    quantize,
)
from brevitas.inject import ExtendedInjector, value
from brevitas.inject.enum import (
    BitWidthImplType,
    FloatToIntImplType,
    QuantType,
    ScalingImplType,
)
from brevitas.quant import (
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFloat,
    IntBias,
    TruncTo8bit,
    Uint8ActPerTensorFloat,
)
from brevitas.quant.solver import ActQuantSolver, WeightQuantSolver
from torch import nn

from tests.adapters.brevitas.kit import Case


class _Common(ExtendedInjector):
    """The quantizer of the published 1- and 2-bit networks: binary for one bit."""

    bit_width_impl_type = BitWidthImplType.CONST
    scaling_impl_type = ScalingImplType.CONST
    restrict_scaling_type = RestrictValueType.FP
    zero_point_impl = ZeroZeroPoint
    float_to_int_impl_type = FloatToIntImplType.ROUND
    scaling_per_output_channel = False
    narrow_range = True
    signed = True

    @value
    def quant_type(bit_width):
        return QuantType.BINARY if bit_width == 1 else QuantType.INT


class CommonWeight(_Common, WeightQuantSolver):
    scaling_const = 1.0


class CommonAct(_Common, ActQuantSolver):
    min_val = -1.0
    max_val = 1.0


class TensorNorm(nn.Module):
    """One batch norm over everything, in float operators."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))
        self.register_buffer("running_mean", torch.zeros(1))
        self.register_buffer("running_var", torch.ones(1))

    def forward(self, x: Any) -> Any:
        spread = (self.running_var + 1e-4).pow(0.5)
        return (x - self.running_mean) / spread * self.weight + self.bias


def _uniform(module: Any) -> Any:
    for part in module.modules():
        if isinstance(part, (qnn.QuantConv2d, qnn.QuantLinear)):
            nn.init.uniform_(part.weight.data, -1, 1)
    return module


class Tfc(nn.Module):
    """Three hidden linear layers with batch norms."""

    def __init__(self, weight_bits: int, act_bits: int) -> None:
        super().__init__()
        layers: list[Any] = [qnn.QuantIdentity(act_quant=CommonAct, bit_width=act_bits)]
        sizes = (64, 32, 32, 32)
        for before, after in itertools.pairwise(sizes):
            layers += [
                qnn.QuantLinear(before, after, bias=False, weight_quant=CommonWeight,
                                weight_bit_width=weight_bits),
                nn.BatchNorm1d(after),
                qnn.QuantIdentity(act_quant=CommonAct, bit_width=act_bits),
                nn.Dropout(0.2),
            ]  # fmt: skip
        layers.append(
            qnn.QuantLinear(32, 10, bias=False, weight_quant=CommonWeight,
                            weight_bit_width=weight_bits)
        )  # fmt: skip
        layers.append(TensorNorm())
        self.features = nn.ModuleList(layers)

    def forward(self, x: Any) -> Any:
        x = x.view(x.shape[0], -1)
        x = 2.0 * x - torch.tensor([1.0], device=x.device)
        for layer in self.features:
            x = layer(x)
        return x


class Cnv(nn.Module):
    """Six convolutions, two poolings, three linear layers: CNV with narrow layers."""

    def __init__(self, weight_bits: int, act_bits: int) -> None:
        super().__init__()
        weights = {"weight_quant": CommonWeight, "weight_bit_width": weight_bits}
        features: list[Any] = [
            qnn.QuantIdentity(act_quant=CommonAct, bit_width=8, min_val=-1.0,
                              max_val=1.0 - 2.0**-7, narrow_range=False,
                              restrict_scaling_type=RestrictValueType.POWER_OF_TWO)
        ]  # fmt: skip
        channels = 3
        for out, pooled in ((8, False), (8, True), (16, False), (16, True), (32, False),
                            (32, False)):  # fmt: skip
            features += [
                qnn.QuantConv2d(channels, out, 3, bias=False, **weights),
                nn.BatchNorm2d(out, eps=1e-4),
                qnn.QuantIdentity(act_quant=CommonAct, bit_width=act_bits),
            ]
            features += [nn.MaxPool2d(2)] if pooled else []
            channels = out
        self.conv_features = nn.ModuleList(features)
        self.linear_features = nn.ModuleList([
            qnn.QuantLinear(32, 32, bias=False, **weights), nn.BatchNorm1d(32, eps=1e-4),
            qnn.QuantIdentity(act_quant=CommonAct, bit_width=act_bits),
            qnn.QuantLinear(32, 10, bias=False, **weights), TensorNorm(),
        ])  # fmt: skip

    def forward(self, x: Any) -> Any:
        x = 2.0 * x - torch.tensor([1.0], device=x.device)
        for layer in self.conv_features:
            x = layer(x)
        x = x.view(x.shape[0], -1)
        for layer in self.linear_features:
            x = layer(x)
        return x


def _conv_block(
    before: int, after: int, size: int, *, stride: int = 1, groups: int = 1
) -> Any:
    return nn.Sequential(
        qnn.QuantConv2d(before, after, size, stride=stride, padding=size // 2, groups=groups,
                        bias=False, weight_quant=Int8WeightPerChannelFloat,
                        weight_bit_width=4),
        nn.BatchNorm2d(after),
        qnn.QuantReLU(act_quant=Uint8ActPerTensorFloat, bit_width=4, return_quant_tensor=True),
    )  # fmt: skip


class MobileNet(nn.Module):
    """Depthwise and pointwise blocks, a truncating average, a quantized bias."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [_conv_block(3, 8, 3, stride=2)]
        channels = 8
        for after, stride in ((16, 1), (16, 2), (32, 1), (32, 2)):
            blocks += [
                _conv_block(channels, channels, 3, stride=stride, groups=channels),
                _conv_block(channels, after, 1),
            ]
            channels = after
        self.features = nn.Sequential(*blocks)
        self.final_pool = qnn.TruncAvgPool2d(
            4, stride=1, trunc_quant=TruncTo8bit, float_to_int_impl_type="floor", bit_width=4
        )
        self.output = qnn.QuantLinear(
            32, 10, bias=True, bias_quant=IntBias, bias_bit_width=16,
            weight_quant=Int8WeightPerTensorFloat, weight_bit_width=4,
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        x = self.final_pool(self.features(x))
        return self.output(x.view(x.shape[0], -1))


class Block(nn.Module):
    """A residual block whose branches share the quantizer in front of the sum."""

    def __init__(self, before: int, after: int, stride: int, shared: Any) -> None:
        super().__init__()
        weights = {"weight_quant": Int8WeightPerChannelFloat, "weight_bit_width": 4,
                   "bias": False}  # fmt: skip
        relu = {"bit_width": 4, "return_quant_tensor": True}
        self.conv1 = qnn.QuantConv2d(before, after, 3, stride=stride, padding=1, **weights)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu1 = qnn.QuantReLU(**relu)
        self.conv2 = qnn.QuantConv2d(after, after, 3, padding=1, **weights)
        self.bn2 = nn.BatchNorm2d(after)
        self.downsample = nn.Sequential()
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(
                qnn.QuantConv2d(before, after, 1, stride=stride, **weights),
                nn.BatchNorm2d(after),
                qnn.QuantReLU(**relu),
            )
            shared = self.downsample[-1]
        self.relu2 = shared
        self.relu_out = qnn.QuantReLU(**relu)

    def forward(self, x: Any) -> Any:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.relu2(self.bn2(self.conv2(out)))
        if len(self.downsample):
            x = self.downsample(x)
        return self.relu_out(out + x)


class ResNet(nn.Module):
    """Stages of residual blocks, each twice as wide and half as large as the one before."""

    def __init__(self, width: int, blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1 = qnn.QuantConv2d(3, width, 3, padding=1, bias=False, weight_bit_width=8)
        self.bn1 = nn.BatchNorm2d(width)
        self.shared = qnn.QuantReLU(bit_width=4, return_quant_tensor=True)
        stages = []
        before, shared = width, self.shared
        for stage, count in enumerate(blocks):
            after = width * 2**stage
            for index in range(count):
                stride = 2 if stage and not index else 1
                block = Block(before, after, stride, shared)
                stages.append(block)
                before, shared = after, block.relu_out
        self.stages = nn.Sequential(*stages)
        self.pool = qnn.TruncAvgPool2d(4, trunc_quant=TruncTo8bit)
        self.linear = qnn.QuantLinear(
            before, 10, bias=True, weight_bit_width=8, bias_quant=IntBias, bias_bit_width=32
        )

    def forward(self, x: Any) -> Any:
        x = self.shared(self.bn1(self.conv1(x)))
        x = self.pool(self.stages(x))
        return self.linear(torch.flatten(x, 1))


class JetTagger(nn.Module):
    """A multi-layer perceptron of 6 bits, as used for jets."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[Any] = [qnn.QuantIdentity(bit_width=6, return_quant_tensor=True)]
        for before, after in ((16, 64), (64, 32), (32, 32)):
            layers += [
                qnn.QuantLinear(before, after, bias=True, weight_bit_width=6,
                                bias_quant=IntBias, bias_bit_width=16),
                qnn.QuantReLU(bit_width=6, return_quant_tensor=True),
            ]  # fmt: skip
        layers.append(qnn.QuantLinear(32, 5, bias=True, weight_bit_width=6))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Any) -> Any:
        return torch.softmax(self.layers(x), dim=1)


class Plain(nn.Module):
    """A net of torch's own layers, for Brevitas' tools that replace them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.second, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        y = self.relu(self.norm(self.first(x)))
        y = y + self.second(y)
        return self.last(y.mean([2, 3]))


def _layer_by_layer() -> Any:
    return layerwise_quantize(torch.fx.symbolic_trace(Plain().eval()))


def _quantized_graph() -> Any:
    return quantize(preprocess_for_quantize(Plain().eval()))


IMAGE = ((2, 3, 32, 32),)
SMALL = ((2, 3, 16, 16),)

# Statistics of batch norms and learned scales are no powers of two: where sums are added up in
# another order, as on another processor, one can fall on the other side of a rounding tie, and
# the whole answer to that input follows: one input of twenty.
FLIPS = 0.1

TOPOLOGIES = [
    Case("TFC 1W1A", lambda: _uniform(Tfc(1, 1)), ((4, 1, 8, 8),), 8, flips=FLIPS),
    Case("TFC 1W2A", lambda: _uniform(Tfc(1, 2)), ((4, 1, 8, 8),), 8, flips=FLIPS),
    Case("TFC 2W2A", lambda: _uniform(Tfc(2, 2)), ((4, 1, 8, 8),), 8, flips=FLIPS),
    Case("CNV 1W1A", lambda: _uniform(Cnv(1, 1)), IMAGE, 16, flips=FLIPS),
    Case("CNV 1W2A", lambda: _uniform(Cnv(1, 2)), IMAGE, 16, flips=FLIPS),
    Case("CNV 2W2A", lambda: _uniform(Cnv(2, 2)), IMAGE, 16, flips=FLIPS),
    Case("MobileNetV1 4W4A, narrow", MobileNet, ((2, 3, 32, 32),), 21, flips=FLIPS),
    Case("ResNet-8 4W4A", lambda: ResNet(8, (1, 1, 1)), SMALL, 24, flips=FLIPS),
    Case(
        "ResNet-18 4W4A", lambda: ResNet(4, (2, 2, 2, 2)), ((2, 3, 32, 32),), 51, flips=FLIPS
    ),
    Case("layers replaced one by one", _layer_by_layer, SMALL, 9, flips=FLIPS),
    Case("graph quantized by Brevitas", _quantized_graph, SMALL, flips=FLIPS),
    Case("jet tagger, 6 bits", JetTagger, ((4, 16),), 11, flips=FLIPS),
]
