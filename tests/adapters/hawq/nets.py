"""Small calibrated nets over any namespace with HAWQ's layer classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def linear(layers: Any, inputs: int, outputs: int, bits: int = 6, bias_bit: int = 32) -> Any:
    layer = layers.QuantLinear(weight_bit=bits, bias_bit=bias_bit)
    layer.set_param(nn.Linear(inputs, outputs))
    return layer


def folded(layers: Any, inputs: int, outputs: int, size: int = 3, **options: Any) -> Any:
    """A QuantBnConv2d with random statistics."""
    layer = layers.QuantBnConv2d(weight_bit=8, bias_bit=32, per_channel=True, fix_BN=True)
    norm = nn.BatchNorm2d(outputs)
    norm.weight.data = 0.5 + torch.rand(outputs)
    norm.bias.data = 0.3 * torch.randn(outputs)
    norm.running_mean = 0.2 * torch.randn(outputs)
    norm.running_var = 0.3 + torch.rand(outputs)
    layer.set_param(nn.Conv2d(inputs, outputs, size, bias=False, **options), norm)
    return layer


class JetTagger(nn.Module):
    """16-64-32-32-5, as hawq-jet-tagging has it: acts are not told the weights' scale."""

    def __init__(self, layers: Any) -> None:
        super().__init__()
        sizes = [16, 64, 32, 32, 5]
        self.quant_input = layers.QuantAct(6)
        for k in range(4):
            setattr(self, f"dense_{k + 1}", linear(layers, sizes[k], sizes[k + 1], 6, 6))
            if k < 3:
                setattr(self, f"quant_act_{k + 1}", layers.QuantAct(6))
        self.act, self.softmax = nn.ReLU(), nn.Softmax(dim=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, scale = self.quant_input(x)
        for k in range(1, 4):
            x = self.act(getattr(self, f"dense_{k}")(x, scale))
            x, scale = getattr(self, f"quant_act_{k}")(x, scale)
        return self.softmax(self.dense_4(x, scale))


class ConvNet(nn.Module):
    """Folded convolutions, max pooling, average pooling, dropout, a linear layer."""

    def __init__(self, layers: Any) -> None:
        super().__init__()
        self.quant_input = layers.QuantAct(8)
        self.conv_1, self.act_1 = folded(layers, 3, 8, padding=1), layers.QuantAct(8)
        self.pool = layers.QuantMaxPool2d(2, 2)
        self.conv_2 = folded(layers, 8, 12, padding=1, groups=2)
        self.act_2 = layers.QuantAct(4, quant_mode="asymmetric")
        self.mean, self.act_3 = layers.QuantAveragePool2d(5, 1), layers.QuantAct(8)
        self.dropout = layers.QuantDropout(0.2)
        self.dense = linear(layers, 12, 4, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, scale = self.quant_input(x)
        x, weights = self.conv_1(x, scale)
        x, scale = self.act_1(torch.relu(x), scale, weights)
        x, scale = self.pool((x, scale))
        x, weights = self.conv_2((x, scale))
        x, scale = self.act_2(nn.ReLU()(x), scale, weights)
        x, scale = self.dropout(self.act_3(self.mean(x, scale)))
        return self.dense((x.view(x.size(0), -1), scale))


class Residual(nn.Module):
    """One block with a shortcut through a convolution, one with the input itself."""

    def __init__(self, layers: Any) -> None:
        super().__init__()
        self.quant_input = layers.QuantAct(8)
        self.conv_1, self.act_1 = folded(layers, 3, 6, padding=1), layers.QuantAct(8)
        self.conv_2 = folded(layers, 6, 6, padding=1)
        self.shortcut = folded(layers, 3, 6, 1)
        self.sum_1 = layers.QuantAct(16)
        self.act_2 = layers.QuantAct(8)
        self.conv_3, self.sum_2 = folded(layers, 6, 6, padding=1), layers.QuantAct(8)
        self.dense = linear(layers, 6 * 36, 4, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, first = self.quant_input(x)
        beside, beside_weights = self.shortcut(x, first)
        x, weights = self.conv_1(x, first)
        x, scale = self.act_1(nn.ReLU()(x), first, weights)
        x, weights = self.conv_2(x, scale)
        x = x + beside
        x, scale = self.sum_1(x, scale, weights, beside, first, beside_weights)
        x = torch.relu(x)
        inner, inner_scale = self.act_2(x, scale)
        inner, weights = self.conv_3(inner, inner_scale)
        y = inner + x
        y, scale = self.sum_2(y, inner_scale, weights, x, scale)
        return self.dense(torch.flatten(torch.relu(y), 1), scale)


class Branches(nn.Module):
    """Two branches, concatenated; the QuantAct after them is given a list of scales."""

    def __init__(self, layers: Any) -> None:
        super().__init__()
        self.quant_input = layers.QuantAct(8)
        self.conv_1, self.act_1 = folded(layers, 3, 5, 1), layers.QuantAct(8)
        self.conv_2, self.act_2 = folded(layers, 3, 4, padding=1), layers.QuantAct(8)
        self.joined = layers.QuantAct(8)
        self.dense = linear(layers, 9 * 36, 4, 8)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, scale = self.quant_input(x)
        y, weights = self.conv_1((x, scale))
        y, own = self.act_1(self.relu(y), scale, weights)
        z, weights = self.conv_2((x, scale))
        z, other = self.act_2(self.relu(z), scale, weights)
        sizes = [y.shape[1], z.shape[1]]
        x, scale = self.joined((torch.cat((y, z), dim=1), [own, other], sizes))
        return self.dense(torch.flatten(x, 1), scale)


SHAPES = {JetTagger: (16,), ConvNet: (3, 10, 10), Residual: (3, 6, 6), Branches: (3, 6, 6)}


def calibrated(net: type[nn.Module], layers: Any, seed: int = 0) -> nn.Module:
    """A net that has seen data, with its ranges fixed."""
    torch.manual_seed(seed)
    module = net(layers)
    return calibrate(module, sample(net, 64, seed + 1))


def calibrate(module: nn.Module, x: torch.Tensor) -> nn.Module:
    module.eval()
    with torch.no_grad():
        for _ in range(3):
            module(x)
    for part in module.modules():
        if hasattr(part, "activation_bit"):
            part.fix()
    return module


def sample(net: type[nn.Module], count: int = 8, seed: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((count, *SHAPES[net]), generator=generator)


def observe(module: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """What each HAWQ layer of the module returns, by name, and the module's output as ""."""
    found: dict[str, torch.Tensor] = {}

    def keep(name: str):
        def hook(_module: Any, _args: Any, output: Any) -> None:
            value = output[0] if isinstance(output, tuple) else output
            found[name] = value.detach().clone()

        return hook

    handles = [
        part.register_forward_hook(keep(name))
        for name, part in module.named_modules()
        if type(part).__name__.startswith("Quant") or isinstance(part, nn.BatchNorm1d)
    ]
    with torch.no_grad():
        found[""] = module(x).clone()
    for handle in handles:
        handle.remove()
    return found
