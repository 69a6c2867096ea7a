"""torch's quantizing functions, called anywhere in a model: every threshold of each."""

import numpy as np
import pytest
import torch
from torch import nn

import qonnx_hub as qh
from qonnx_hub_adapters.pytorch.expansion import read_forms
from tests.adapters.pytorch.kit import (
    Calls,
    around_thresholds,
    load,
    operators,
    quantizer_nodes,
)

RANGES = [
    *((-127, 127, 0), (-8, 7, 0), (0, 15, 0), (-32768, 32767, 0), (0, 127, 0), (0, 1, 0)),
    *((-5, 9, 0), (0, 255, 128), (0, 15, 3), (0, 65535, 1234), (2, 11, 4), (-1, 0, 0)),
    *((-(2**31), 2**31 - 1, 0), (-(2**24), 2**24, 5)),
]
SCALES = (0.25, 0.1)


class Many(nn.Module):
    """One tensor through many quantizers."""

    def __init__(self, calls):
        super().__init__()
        self.calls = calls

    def forward(self, x):
        return tuple(call(x) for call in self.calls)


@pytest.mark.parametrize("scale", SCALES)
def test_per_tensor_quantizers_of_all_ranges_are_torch_at_every_threshold(scale):
    def make(low, high, zero):
        return lambda x: torch.fake_quantize_per_tensor_affine(x, scale, zero, low, high)

    parts = [
        around_thresholds(scale, max(low, zero - 300), min(high, zero + 300), zero)
        for low, high, zero in RANGES
    ]
    parts += [around_thresholds(scale, high - 9, high, zero) for _, high, zero in RANGES]
    x = np.concatenate(parts)[None].astype(np.float32)
    model = Many([make(*one) for one in RANGES])
    found = qh.run(load(model, torch.from_numpy(x)), {"x": x})
    expected = model(torch.from_numpy(x))
    assert len(found) == len(RANGES)
    for answer, own in zip(found.values(), expected, strict=True):
        assert np.array_equal(answer, own.numpy())


def channels(scales, low, high):
    width = 400
    rows = []
    for scale in scales:
        row = around_thresholds(scale, low, high, 0)[:width]
        rows.append(np.pad(row, (0, width - row.size)))
    return np.stack(rows)[None].astype(np.float32)


PER_CHANNEL = {
    "plain": lambda x, s, z: torch.fake_quantize_per_channel_affine(x, s, z, 1, -8, 7),
    "without zero points": lambda x, s, z: torch.fake_quantize_per_channel_affine(
        x, s, z * 0, 1, -8, 7
    ),
    "odd range": lambda x, s, z: torch.fake_quantize_per_channel_affine(x, s, z, 1, -8, 5),
    "learnable": lambda x, s, z: torch._fake_quantize_learnable_per_channel_affine(
        x, s, z + 0.3, 1, -8, 7, 1.0
    ),
    "decomposed": lambda x, s, z: decomposed_per_channel(x, s, z.long()),
    "float zero points of zero": lambda x, s, z: torch.fake_quantize_per_channel_affine(
        x, s, z.float() * 0, 1, -8, 7
    ),
}


def decomposed_per_channel(x, scales, zeros):
    lib = torch.ops.quantized_decomposed
    q = lib.quantize_per_channel.default(x, scales, zeros, 1, -8, 7, torch.int8)
    return lib.dequantize_per_channel.default(q, scales, zeros, 1, -8, 7, torch.int8)


def test_per_channel_quantizers_are_torch_at_every_threshold():
    scales = torch.tensor([0.1, 0.25, 0.3, 0.011])
    zeros = torch.tensor([0, 3, -2, 1], dtype=torch.int32)
    model = Many([lambda x, f=f: f(x, scales, zeros) for f in PER_CHANNEL.values()])
    x = channels(scales.tolist(), -12, 12)
    found = qh.run(load(model, torch.from_numpy(x)), {"x": x})
    expected = model(torch.from_numpy(x))
    for name, answer, own in zip(PER_CHANNEL, found.values(), expected, strict=True):
        assert np.array_equal(answer, own.numpy()), name


def decomposed_per_tensor(x):
    lib = torch.ops.quantized_decomposed
    q = lib.quantize_per_tensor.default(x, 0.1, 3, 0, 15, torch.uint8)
    return lib.dequantize_per_tensor.default(q, 0.1, 3, 0, 15, torch.uint8)


def decomposed_with_tensors(x):
    lib = torch.ops.quantized_decomposed
    scale, zero = torch.tensor([0.1]), torch.tensor([3])
    q = lib.quantize_per_tensor.tensor(x, scale, zero, 0, 15, torch.uint8)
    return lib.dequantize_per_tensor.tensor(q, scale, zero, 0, 15, torch.uint8)


def learnable(x):
    scale, zero = torch.tensor([0.1]), torch.tensor([2.7])
    return torch._fake_quantize_learnable_per_tensor_affine(x, scale, zero, 0, 15, 1.0)


def with_tensors(x):
    zero = torch.tensor([3], dtype=torch.int32)
    return torch.fake_quantize_per_tensor_affine(x, torch.tensor([0.1]), zero, 0, 15)


def affine_blocks(x):
    lib, blocks = torch.ops.torchao, list(x.shape)
    scale, zero = torch.tensor(0.1), torch.tensor(3, dtype=torch.int32)
    q = lib.quantize_affine(x, blocks, scale, zero, torch.uint8, 0, 15)
    return lib.dequantize_affine(q, blocks, scale, zero, torch.uint8, 0, 15)


def test_all_spellings_of_one_quantizer_are_the_same_quantizer():
    spellings = [
        *(decomposed_per_tensor, decomposed_with_tensors, learnable, with_tensors),
        affine_blocks,
    ]
    model = Many(spellings)
    x = around_thresholds(0.1, 0, 15, 3)[None]
    ir = load(model, torch.from_numpy(x))
    found = qh.run(ir, {"x": x})
    expected = model(torch.from_numpy(x))
    for call, answer, own in zip(spellings, found.values(), expected, strict=True):
        assert np.array_equal(answer, own.numpy()), call.__name__
    assert len(quantizer_nodes(ir)) == len(spellings)


def test_a_double_scale_is_inverted_before_it_is_rounded():
    # quantized_decomposed takes Python's doubles: of these scales, 1 / scale in float32 is
    # another number than the float32 of 1 / scale.
    wanted = [
        s for s in np.linspace(0.01, 0.99, 4000)
        if np.float32(1 / s) != np.float32(1) / np.float32(s)
    ][:8]  # fmt: skip
    assert len(wanted) == 8
    lib = torch.ops.quantized_decomposed

    def make(scale):
        def call(x):
            q = lib.quantize_per_tensor.default(x, scale, 0, -128, 127, torch.int8)
            return lib.dequantize_per_tensor.default(q, scale, 0, -128, 127, torch.int8)

        return call

    model = Many([make(float(s)) for s in wanted])
    x = np.concatenate([around_thresholds(s, -128, 127, 0) for s in wanted])[None]
    found = qh.run(load(model, torch.from_numpy(x)), {"x": x})
    for answer, own in zip(found.values(), model(torch.from_numpy(x)), strict=True):
        assert np.array_equal(answer, own.numpy())


def test_a_proven_quantizer_is_one_node_and_another_is_rounded_first():
    model = Many(
        [
            lambda x: torch.fake_quantize_per_tensor_affine(x, 0.25, 0, -8, 7),
            lambda x: torch.fake_quantize_per_tensor_affine(x, 0.3, 0, -128, 127),
        ]
    )
    ir = load(model, torch.zeros(1, 4))
    assert operators(ir) == ["Quant", "Mul", "Round", "Mul", "Quant"]
    assert [form.form for form in read_forms(ir)] == ["proven", "rounded first"]
    assert ir.metadata_props["qonnx_hub.note"].startswith("1 of 2 quantizers are not a Quant")


def test_mode_quant_writes_quant_nodes_and_says_that_they_are_bounded():
    model = Calls(lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 3, 0, 15))
    x = around_thresholds(0.1, 0, 15, 3)[None]
    ir = load(model, torch.from_numpy(x), mode="quant")
    assert operators(ir) == ["Quant"]
    note = ir.metadata_props["qonnx_hub.bounded"]
    assert "1 of 1 quantizers" in note
    steps = (qh.run(ir, {"x": x})["output"] - model(torch.from_numpy(x)).numpy()) / 0.1
    assert np.count_nonzero(steps) > 0
    assert np.max(np.abs(steps)) < 1.01


def test_exact_models_carry_no_bound():
    model = Calls(lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 3, 0, 15))
    ir = load(model, torch.zeros(1, 4))
    assert "qonnx_hub.bounded" not in ir.metadata_props


def test_the_quantizer_keeps_torchs_scale_zero_point_and_bits():
    model = Calls(lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 3, 0, 15))
    node = quantizer_nodes(load(model, torch.zeros(1, 4)))[0]
    scale, zero, bits = (value.const_value.numpy() for value in node.inputs[1:])
    assert (scale, zero, bits) == (np.float32(0.1), 3.0, 4.0)
    assert node.attributes["signed"].value == 0
