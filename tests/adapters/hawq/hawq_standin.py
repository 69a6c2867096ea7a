"""A stand-in of HAWQ's layer classes, written from the formulas of its inference.

Same class names, attributes and buffers, same numbers bit for bit (the recorded models of the
corpus are the evidence). Training is left out: ranges are observed, gradients are not.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

SMALLEST_RANGE = 1e-8


def symmetric_scale(bits: int, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    reach = torch.maximum(low.abs(), high.abs())
    return torch.clamp(reach, min=SMALLEST_RANGE) / (2 ** (bits - 1) - 1)


def asymmetric_scale(bits: int, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    return torch.clamp(high - low, min=SMALLEST_RANGE) / float(2**bits - 1)


def limits(bits: int, mode: str) -> tuple[int, int]:
    if mode == "symmetric":
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if mode == "asymmetric":
        return 0, 2**bits - 1
    raise ValueError(f"unknown quant mode: {mode}")


def along_first(scale: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The scale shaped so that it goes along the first axis of weights and biases."""
    return scale.view(-1, *(1,) * (x.ndim - 1)) if x.ndim in (2, 4) else scale.view(-1)


def along_channels(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The values shaped so that they go along the channels of an activation."""
    return values.view(1, -1, *(1,) * (x.ndim - 2)) if x.ndim in (2, 4) else values


def integers(x: torch.Tensor, bits: int, mode: str, scale: torch.Tensor) -> torch.Tensor:
    low, high = limits(bits, mode)
    return torch.clamp(torch.round((1.0 / along_first(scale, x)) * x), low, high)


def dyadic(ratio: torch.Tensor) -> torch.Tensor:
    """The ratio with a mantissa of 31 bits, ties away from zero, as float64."""
    mantissa, exponent = np.frexp(ratio.numpy())
    whole = np.floor(mantissa * 2.0**31 + 0.5)
    return torch.from_numpy(np.ldexp(whole, exponent - 31))


def rescaled(
    z: torch.Tensor, act: torch.Tensor, weight: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    """The integers of ``z`` on the grid ``act * weight``, brought to the target's grid."""
    act, weight, target = (along_channels(scale, z) for scale in (act, weight, target))
    on_grid = torch.round(z / act / weight)
    source = (act.double() * weight.double()).float().double()
    ratio = dyadic(source / target.float().double())
    return torch.round(on_grid.double() * ratio)


def percentile_range(x: torch.Tensor, lower: float, upper: float) -> tuple[Any, Any]:
    count = x.shape[0]
    high = torch.kthvalue(x, k=round(count * upper * 0.01)).values
    if lower == 0:
        return high * 0, high
    return -torch.kthvalue(-x, k=round(count * (1 - lower * 0.01))).values, high


def channel_range(w: torch.Tensor, percentile: float) -> tuple[torch.Tensor, torch.Tensor]:
    rows = w.detach().reshape(w.shape[0], -1)
    if percentile == 0:
        return rows.min(dim=1).values, rows.max(dim=1).values
    lower = math.ceil(rows.shape[1] * (100 - percentile) * 0.01)
    upper = math.ceil(rows.shape[1] * percentile * 0.01)
    return torch.kthvalue(rows, lower, dim=1).values, torch.kthvalue(rows, upper, dim=1).values


def tensor_range(w: torch.Tensor, percentile: float) -> tuple[torch.Tensor, torch.Tensor]:
    flat = w.detach().reshape(-1)
    if percentile == 0:
        return flat.min(), flat.max()
    return percentile_range(flat, 100 - percentile, percentile)


def split(x: Any, scale: Any) -> tuple[Any, Any]:
    return (x[0], x[1]) if type(x) is tuple else (x, scale)


class _Weighted(nn.Module):
    """What the three layers with weights share: options, ``fix`` and ``unfix``."""

    def __init__(
        self,
        weight_bit: int = 4,
        bias_bit: int | None = None,
        full_precision_flag: bool = False,
        quant_mode: str = "symmetric",
        per_channel: bool = False,
        fix_flag: bool = False,
        weight_percentile: float = 0,
    ) -> None:
        super().__init__()
        self.weight_bit = weight_bit
        self.bias_bit = bias_bit
        self.full_precision_flag = full_precision_flag
        self.quant_mode = quant_mode
        self.per_channel = per_channel
        self.fix_flag = fix_flag
        self.weight_percentile = weight_percentile
        self.quantize_bias = bias_bit is not None

    def fix(self) -> None:
        self.fix_flag = True

    def unfix(self) -> None:
        self.fix_flag = False

    def require_symmetric(self) -> None:
        if self.quant_mode != "symmetric":
            raise ValueError("weights are quantized symmetrically only")

    def weight_range(self, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        measure = channel_range if self.per_channel else tensor_range
        return measure(w, self.weight_percentile)


class QuantLinear(_Weighted):
    def set_param(self, linear: nn.Linear) -> None:
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("fc_scaling_factor", torch.zeros(self.out_features))
        self.weight = nn.Parameter(linear.weight.data.clone())
        self.register_buffer("weight_integer", torch.zeros_like(self.weight))
        self.register_buffer("bias_integer", torch.zeros_like(linear.bias))
        self.bias = nn.Parameter(linear.bias.data.clone())

    def forward(self, x: Any, prev_act_scaling_factor: Any = None) -> torch.Tensor:
        x, act = split(x, prev_act_scaling_factor)
        self.require_symmetric()
        w = self.weight.data
        if self.full_precision_flag:
            raise NotImplementedError("the original fails here as well")
        if self.per_channel:
            low, high = w.min(dim=1).values, w.max(dim=1).values
        else:
            low, high = w.min().view(1), w.max().view(1)
        self.fc_scaling_factor = symmetric_scale(self.weight_bit, low, high)
        self.weight_integer = integers(w, self.weight_bit, "symmetric", self.fc_scaling_factor)
        product = self.fc_scaling_factor.view(1, -1) * act.view(1, -1)
        self.bias_integer = integers(self.bias.data, self.bias_bit, "symmetric", product)
        total = nn.functional.linear(
            x / act.view(1, -1), self.weight_integer, self.bias_integer
        )
        return torch.round(total) * product


class QuantConv2d(_Weighted):
    def set_param(self, conv: nn.Conv2d) -> None:
        for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding"):
            setattr(self, name, getattr(conv, name))
        self.dilation, self.groups, self.conv = conv.dilation, conv.groups, conv
        self.register_buffer("conv_scaling_factor", torch.zeros(self.out_channels))
        self.weight = nn.Parameter(conv.weight.data.clone())
        whole = torch.zeros_like(self.weight, dtype=torch.int8)
        self.register_buffer("weight_integer", whole)
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.data.clone())

    def forward(self, x: Any, pre_act_scaling_factor: Any = None) -> Any:
        x, act = split(x, pre_act_scaling_factor)
        self.require_symmetric()
        w = self.weight.data
        self.conv_scaling_factor = symmetric_scale(self.weight_bit, *self.weight_range(w))
        scale = self.conv_scaling_factor
        self.weight_integer = integers(w, self.weight_bit, "symmetric", scale)
        product = scale.view(1, -1) * act.view(1, -1)
        self.bias_integer = None
        if self.quantize_bias and self.bias is not None:
            self.bias_integer = integers(self.bias.data, self.bias_bit, "symmetric", product)
        total = convolve(self.conv, x / act.view(1, -1, 1, 1), self)
        return total * product.view(1, -1, 1, 1), scale


class QuantBnConv2d(_Weighted):
    def __init__(self, *args: Any, fix_BN: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fix_BN = self.training_BN_mode = fix_BN
        self.fix_BN_threshold = None
        self.counter = 1

    def set_param(self, conv: nn.Conv2d, bn: nn.BatchNorm2d) -> None:
        self.out_channels = conv.out_channels
        self.register_buffer("convbn_scaling_factor", torch.zeros(self.out_channels))
        self.register_buffer("weight_integer", torch.zeros_like(conv.weight.data))
        self.register_buffer("bias_integer", torch.zeros_like(bn.bias))
        self.conv, self.bn = conv, bn
        self.bn.momentum = 0.99

    def fix(self) -> None:
        self.fix_flag = self.fix_BN = True

    def unfix(self) -> None:
        self.fix_flag, self.fix_BN = False, self.training_BN_mode

    def forward(self, x: Any, pre_act_scaling_factor: Any = None) -> Any:
        x, act = split(x, pre_act_scaling_factor)
        self.require_symmetric()
        if not self.fix_flag:
            self.counter += 1
            self.fix_BN = self.training_BN_mode
        if not self.fix_BN:
            return self.with_batch_statistics(x)
        factor = self.bn.weight / torch.sqrt(self.bn.running_var + self.bn.eps)
        weight = self.conv.weight * factor.view(-1, 1, 1, 1)
        shift = -self.bn.running_mean
        if self.conv.bias is not None:
            shift = self.conv.bias - self.bn.running_mean
        bias = shift * factor + self.bn.bias
        scale = symmetric_scale(self.weight_bit, *self.weight_range(weight))
        self.convbn_scaling_factor = scale
        self.weight_integer = integers(weight, self.weight_bit, "symmetric", scale)
        product = scale.view(1, -1) * act.view(1, -1)
        self.bias_integer = integers(bias, self.bias_bit, "symmetric", product)
        total = convolve(self.conv, x / act.view(1, -1, 1, 1), self)
        return total * product.view(1, -1, 1, 1), scale

    def with_batch_statistics(self, x: torch.Tensor) -> Any:
        scale = symmetric_scale(self.weight_bit, *channel_range(self.conv.weight, 0))
        whole = integers(self.conv.weight, self.weight_bit, "symmetric", scale)
        options = (self.conv.stride, self.conv.padding, self.conv.dilation, self.conv.groups)
        y = nn.functional.conv2d(x, whole, self.conv.bias, *options) * scale.view(1, -1, 1, 1)
        mean, var = y.mean(dim=(0, 2, 3)), y.var(dim=(0, 2, 3))
        keep = self.bn.momentum
        self.bn.running_mean = self.bn.running_mean.detach() * keep + (1 - keep) * mean
        self.bn.running_var = self.bn.running_var.detach() * keep + (1 - keep) * var
        factor = self.bn.weight / torch.sqrt(var + self.bn.eps)
        shifted = y - mean.view(1, -1, 1, 1)
        out = factor.view(1, -1, 1, 1) * shifted + self.bn.bias.view(1, -1, 1, 1)
        return out, scale.view(-1) * factor


def convolve(conv: nn.Conv2d, x: torch.Tensor, layer: _Weighted) -> torch.Tensor:
    return nn.functional.conv2d(
        x,
        layer.weight_integer,
        layer.bias_integer,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
    )


class QuantAct(nn.Module):
    def __init__(
        self,
        activation_bit: int = 4,
        act_range_momentum: float = 0.95,
        full_precision_flag: bool = False,
        running_stat: bool = True,
        quant_mode: str = "symmetric",
        fix_flag: bool = False,
        act_percentile: float = 0,
        fixed_point_quantization: bool = False,
    ) -> None:
        super().__init__()
        self.activation_bit = activation_bit
        self.act_range_momentum = act_range_momentum
        self.full_precision_flag = full_precision_flag
        self.running_stat = running_stat
        self.quant_mode = quant_mode
        self.fix_flag = fix_flag
        self.act_percentile = act_percentile
        self.fixed_point_quantization = fixed_point_quantization
        for name in ("x_min", "x_max", "act_scaling_factor"):
            self.register_buffer(name, torch.zeros(1))
        for name in ("pre_weight_scaling_factor", "identity_weight_scaling_factor"):
            self.register_buffer(name, torch.ones(1))

    def fix(self) -> None:
        self.running_stat, self.fix_flag = False, True

    def unfix(self) -> None:
        self.running_stat, self.fix_flag = True, False

    def observe(self, x: torch.Tensor) -> None:
        low, high = x.min(), x.max()
        if self.act_percentile != 0:
            lower = 100 - self.act_percentile if self.quant_mode == "symmetric" else 0
            low, high = percentile_range(x.reshape(-1), lower, self.act_percentile)
        keep = self.act_range_momentum
        if self.x_min == self.x_max:
            self.x_min += low
            self.x_max += high
        elif keep == -1:
            self.x_min = torch.minimum(self.x_min, low)
            self.x_max = torch.maximum(self.x_max, high)
        else:
            self.x_min = self.x_min * keep + low * (1 - keep)
            self.x_max = self.x_max * keep + high * (1 - keep)

    def forward(
        self,
        x: Any,
        pre_act_scaling_factor: Any = None,
        pre_weight_scaling_factor: Any = None,
        identity: Any = None,
        identity_scaling_factor: Any = None,
        identity_weight_scaling_factor: Any = None,
    ) -> Any:
        channels = x[2] if type(x) is tuple and len(x) == 3 else []
        x, act = split(x, pre_act_scaling_factor)
        low, high = limits(self.activation_bit, self.quant_mode)
        if self.running_stat:
            self.observe(x.detach())
        if self.full_precision_flag:
            return x
        if self.quant_mode == "symmetric":
            scale = symmetric_scale(self.activation_bit, self.x_min, self.x_max)
        else:
            scale = asymmetric_scale(self.activation_bit, self.x_min, self.x_max)
            self.act_zero_point = torch.round(-self.x_min / scale)
        self.act_scaling_factor = scale
        weight = pre_weight_scaling_factor
        if act is None or self.fixed_point_quantization:
            whole = integers(x, self.activation_bit, self.quant_mode, scale)
        elif type(act) is list:
            start, whole = 0, x
            for own, count in zip(act, channels, strict=True):
                part = x[:, start : start + count]
                moved = rescaled(part, own, own / own, scale).float()
                whole[:, start : start + count] = torch.clamp(moved, low, high)
                start += count
        elif identity is None:
            weight = self.pre_weight_scaling_factor if weight is None else weight
            whole = torch.clamp(rescaled(x, act, weight, scale).float(), low, high)
        else:
            beside = identity_weight_scaling_factor
            beside = self.identity_weight_scaling_factor if beside is None else beside
            branch = rescaled(identity, identity_scaling_factor, beside, scale)
            whole = (branch + rescaled(x - identity, act, weight, scale)).float()
        return whole * scale.view(-1), scale


class QuantMaxPool2d(nn.Module):
    def __init__(self, kernel_size: int = 3, stride: int = 2, padding: int = 0) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.pool = nn.MaxPool2d(kernel_size=kernel_size, stride=stride, padding=padding)

    def forward(self, x: Any, x_scaling_factor: Any = None) -> Any:
        x, scale = split(x, x_scaling_factor)
        return self.pool(x), scale


class QuantDropout(nn.Module):
    def __init__(self, p: float = 0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(p)

    def forward(self, x: Any, x_scaling_factor: Any = None) -> Any:
        x, scale = split(x, x_scaling_factor)
        return self.dropout(x), scale


class QuantAveragePool2d(nn.Module):
    def __init__(self, kernel_size: int = 7, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.final_pool = nn.AvgPool2d(kernel_size, stride=stride, padding=padding)

    def set_param(self, pool: nn.Module) -> None:
        self.final_pool = pool

    def forward(self, x: Any, x_scaling_factor: Any = None) -> Any:
        x, scale = split(x, x_scaling_factor)
        if scale is None:
            return self.final_pool(x)
        scale = scale.view(-1)
        mean = self.final_pool(torch.round(x / scale))
        return torch.trunc(mean + 0.01) * scale, scale
