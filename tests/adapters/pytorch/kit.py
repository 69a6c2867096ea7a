"""Nets, quantizers and comparisons that the tests of this folder share."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.ao import quantization as tq
from torch.ao.quantization.quantize_fx import prepare_qat_fx

with contextlib.redirect_stderr(io.StringIO()):
    # Its compiled parts for other machines are missing, and it says so.
    from torchao.quantization.pt2e import (
        FakeQuantize,
        FusedMovingAvgObsFakeQuantize,
        MinMaxObserver,
        MovingAverageMinMaxObserver,
        MovingAveragePerChannelMinMaxObserver,
        PerChannelMinMaxObserver,
    )
    from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e, prepare_qat_pt2e
    from torchao.quantization.pt2e.quantizer import (
        QuantizationAnnotation,
        QuantizationSpec,
        Quantizer,
    )

import qonnx_hub as qh
from qonnx_hub_adapters.pytorch.importer import PyTorchImporter

SHAPE = (3, 8, 8)


class Mixed(nn.Module):
    """Convolution with batch norm, depthwise convolution, residual, pooling, linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8, padding=1, bias=False)
        self.pool = nn.MaxPool2d(2)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Any) -> Any:
        x = self.relu(self.bn(self.conv(x)))
        x = self.pool(x + self.depthwise(x))
        return self.fc(self.mean(x).flatten(1))


class Calls(nn.Module):
    """A module whose forward is a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x)


class FewBits(Quantizer):
    """A PT2E quantizer: inputs and weights of convolutions and linear layers."""

    def __init__(self, bits: int, fake: Any, *, symmetric: bool) -> None:
        low, high = (
            (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)
        )
        act, weight = MinMaxObserver, PerChannelMinMaxObserver
        if fake is not None:
            act = fake.with_args(observer=MovingAverageMinMaxObserver)
            weight = fake.with_args(observer=MovingAveragePerChannelMinMaxObserver)
        self.act = QuantizationSpec(
            torch.int8 if symmetric else torch.uint8,
            act,
            quant_min=low,
            quant_max=high,
            qscheme=torch.per_tensor_symmetric if symmetric else torch.per_tensor_affine,
        )
        self.weight = QuantizationSpec(
            torch.int8,
            weight,
            quant_min=-(2 ** (bits - 1)) + 1,
            quant_max=2 ** (bits - 1) - 1,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
        )

    def annotate(self, model: Any) -> Any:
        layers = (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)
        for node in model.graph.nodes:
            if node.op == "call_function" and node.target in layers:
                node.meta["quantization_annotation"] = QuantizationAnnotation(
                    input_qspec_map={node.args[0]: self.act, node.args[1]: self.weight},
                    output_qspec=None,
                    _annotated=True,
                )
        return model

    def validate(self, model: Any) -> None:
        pass


def fx_qat(
    bits: int,
    *,
    fused: bool = False,
    symmetric: bool = False,
    net: type[nn.Module] = Mixed,
    seed: int | None = None,
) -> Any:
    """Return a net prepared for quantization-aware training by FX, after three batches."""
    torch.manual_seed(bits if seed is None else seed)
    fake = tq.FusedMovingAvgObsFakeQuantize if fused else tq.FakeQuantize
    scheme = torch.per_tensor_symmetric if symmetric else torch.per_tensor_affine
    config = tq.QConfig(
        activation=fake.with_args(
            observer=tq.MovingAverageMinMaxObserver,
            quant_min=0,
            quant_max=2**bits - 1,
            dtype=torch.quint8,
            qscheme=scheme,
        ),
        weight=fake.with_args(
            observer=tq.MovingAveragePerChannelMinMaxObserver,
            quant_min=-(2 ** (bits - 1)),
            quant_max=2 ** (bits - 1) - 1,
            dtype=torch.qint8,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
        ),
    )
    x = torch.randn(4, *SHAPE)
    model = prepare_qat_fx(net().train(), tq.QConfigMapping().set_global(config), (x,))
    for _ in range(3):
        model(x)
    return model


def pt2e(bits: int, fake: Any = FakeQuantize, *, symmetric: bool = False) -> Any:
    """Return a net prepared by PT2E, after three batches of four; ``fake`` None for PTQ."""
    return copy.deepcopy(_pt2e(bits, fake, symmetric))


@functools.cache
def _pt2e(bits: int, fake: Any, symmetric: bool) -> Any:
    torch.manual_seed(bits)
    x = torch.randn(4, *SHAPE)
    graph = torch.export.export(Mixed().train(), (x,)).module()
    prepare = prepare_pt2e if fake is None else prepare_qat_pt2e
    model = prepare(graph, FewBits(bits, fake, symmetric=symmetric))
    for _ in range(3):
        model(x)
    return model


FUSED, PLAIN, PTQ = FusedMovingAvgObsFakeQuantize, FakeQuantize, None


def make_dyadic(model: Any) -> Any:
    """Give a prepared net numbers with which every float32 sum is exact; return it.

    Scales become powers of two, weights and biases multiples of 1/32, batch norms multiply by
    one half and add multiples of 1/8. Observers are off, so that nothing moves.
    """
    with torch.no_grad():
        for child in model.modules():
            if isinstance(child, nn.BatchNorm2d):
                # The variance that, with eps added, is four in float32.
                child.eps = 0.0
                child.running_var.fill_(4.0)
                child.weight.fill_(1.0)
                child.bias.copy_(torch.round(child.bias * 8) / 8 + 0.125)
                child.running_mean.copy_(torch.round(child.running_mean * 8) / 8)
            elif hasattr(child, "fake_quant_enabled"):
                _make_scale_dyadic(child)
        for name, tensor in model.named_parameters():
            if "bn" not in name:
                tensor.copy_(torch.round(tensor * 32) / 32)
    model.apply(tq.disable_observer)
    return model


def _make_scale_dyadic(fake: Any) -> None:
    fake.scale.copy_(2.0 ** torch.floor(torch.log2(fake.scale)))
    if not isinstance(fake, tq.FusedMovingAvgObsFakeQuantize):
        return
    # It works its scale out of the range that it has seen, at every call.
    codes = fake.quant_max - fake.quant_min
    seen = fake.activation_post_process
    if fake.is_symmetric_quant:
        seen.max_val.copy_(fake.scale.reshape(seen.max_val.shape) * codes / 2)
        seen.min_val.copy_(-seen.max_val)
    else:
        below = float(fake.zero_point[0]) * float(fake.scale[0])
        seen.min_val.fill_(-below)
        seen.max_val.fill_(codes * float(fake.scale[0]) - below)


def dyadic_inputs(count: int, seed: int = 0) -> np.ndarray:
    """Return multiples of 1/16 from -4 to 4: ties and saturation of the first quantizer."""
    rng = np.random.default_rng(seed)
    return (rng.integers(-64, 65, (count, *SHAPE)) / 16).astype(np.float32)


def normal_inputs(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, *SHAPE)).astype(np.float32)


def load(model: Any, sample: Any, **options: Any) -> Any:
    """Return the IR of a model, without the hub's own comparison: the tests make theirs."""
    args = () if sample is None else (sample,)
    return qh.load(model, "pytorch", args=args, verify=False, options=options)


def reference(model: Any, x: np.ndarray) -> np.ndarray:
    """Return torch's own answer: the module in evaluation mode, its observers off."""
    own = copy.deepcopy(model)
    own.apply(tq.disable_observer)
    for child in own.modules():
        if hasattr(child, "observer_enabled"):
            child.observer_enabled.zero_()
    own.eval()
    with torch.no_grad():
        return np.array(own(torch.from_numpy(x)).numpy())


def answers(model: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (the executor's answer on the IR, the importer's answer of the source)."""
    ir = load(model, torch.from_numpy(x[:4]))
    own = PyTorchImporter().run_source(model, {"x": x})
    assert own is not None
    return qh.run(ir, {"x": x})["output"], own["output"]


def around_thresholds(scale: float, low: int, high: int, zero: int) -> np.ndarray:
    """Return every tie of a quantizer, the floats beside it, its grid, and far values."""
    codes = np.arange(low - zero - 3, high - zero + 4, dtype=np.float64)
    ties = ((codes + 0.5) * scale).astype(np.float32)
    parts = [ties, (codes * scale).astype(np.float32)]
    up = down = ties
    for _ in range(2):
        up = np.nextafter(up, np.float32(np.inf))
        down = np.nextafter(down, np.float32(-np.inf))
        parts += [up, down]
    parts.append(np.array([0.0, -0.0, 1e-30, 1e6, -1e6, 1e12, -1e12], dtype=np.float32))
    return np.concatenate(parts)


def operators(model: Any) -> list[str]:
    return [node.op_type for node in model.graph]


def quantizer_nodes(model: Any) -> Sequence[Any]:
    return [node for node in model.graph if node.op_type == "Quant"]
