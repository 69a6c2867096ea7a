"""Quantization-aware training with FX: every width, exact where sums are exact."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao import quantization as tq

import qonnx_hub as qh
from qonnx_hub_adapters.pytorch.expansion import read_forms
from qonnx_hub_adapters.pytorch.importer import PyTorchImporter
from qonnx_hub_ir import dialect
from tests.adapters.pytorch.kit import (
    Mixed,
    answers,
    dyadic_inputs,
    fx_qat,
    load,
    make_dyadic,
    normal_inputs,
    operators,
    quantizer_nodes,
    reference,
)


@pytest.mark.parametrize(
    ("bits", "symmetric", "fused"),
    [
        *((8, False, False), (8, False, True), (4, True, False), (4, False, True)),
        *((2, False, False), (2, True, False)),
    ],
)
def test_a_net_with_exact_sums_is_torch_bit_for_bit(bits, symmetric, fused):
    model = make_dyadic(fx_qat(bits, symmetric=symmetric, fused=fused))
    x = dyadic_inputs(32)
    ours, own = answers(model, x)
    expected = reference(model, x)
    assert np.unique(expected).size > 2
    assert np.array_equal(own, expected)
    assert np.array_equal(ours, expected)


def test_exact_sums_meet_ties_and_saturation():
    # What the test before this one relies on: both happen at the first quantizer.
    model = make_dyadic(fx_qat(4))
    first = model.activation_post_process_0
    t = dyadic_inputs(32) / float(first.scale)
    codes = t + float(first.zero_point)
    assert np.count_nonzero(t - np.floor(t) == 0.5) > 100
    assert np.count_nonzero((codes < 0) | (codes > 15)) > 100


@pytest.mark.parametrize(("bits", "fused"), [(8, True), (4, False), (2, True)])
def test_a_net_as_trained_is_torch_up_to_the_order_of_sums(bits, fused):
    # Another order of float32 sums moves a value by 2e-6 of the largest. Beyond that lie
    # samples in which a sum fell to the other side of a rounding tie; most have none.
    model = fx_qat(bits, fused=fused)
    ours, _ = answers(model, normal_inputs(32))
    expected = reference(model, normal_inputs(32))
    differs = np.abs(ours - expected) > 2e-6 * np.abs(expected).max()
    assert np.mean(differs.any(axis=1)) <= 0.25
    assert np.unique(expected).size > 2


@pytest.fixture(scope="module")
def four_bits():
    model = fx_qat(4)
    return model, load(model, torch.zeros(1, 3, 8, 8))


def test_conv_and_batch_norm_fold_into_the_weights_that_torch_quantizes(four_bits):
    model, ir = four_bits
    stored = ir.graph.initializers["conv.weight"].const_value.numpy()
    conv = model.conv
    scale = conv.bn.weight / torch.sqrt(conv.bn.running_var + conv.bn.eps)
    with torch.no_grad():
        given = conv.weight * scale.reshape(-1, 1, 1, 1)
        fake = conv.weight_fake_quant
        expected = torch.fake_quantize_per_channel_affine(
            given, fake.scale, fake.zero_point, 0, -8, 7
        )
    assert np.array_equal(stored, expected.numpy())


def test_weights_are_quantizers_on_values_that_lie_on_the_grid(four_bits):
    _, ir = four_bits
    weights = [n for n in quantizer_nodes(ir) if n.inputs[0].is_initializer()]
    assert [node.name for node in weights] == [
        *("conv.weight_quant", "depthwise.weight_quant", "fc.weight_quant")
    ]
    for node in weights:
        given, scale, zero, bits = (value.const_value.numpy() for value in node.inputs)
        assert bits == 4
        assert not zero.any()
        codes = given / scale
        assert np.abs(codes - np.rint(codes)).max() < 1e-5
        assert -8 <= np.rint(codes).min() < 0 < np.rint(codes).max() <= 7


def test_layers_carry_the_names_of_their_modules(four_bits):
    _, ir = four_bits
    sources = {
        value.metadata_props.get(dialect.PROVENANCE)
        for node in ir.graph
        for value in node.outputs
    }
    modules = {"conv", "depthwise", "pool", "mean", "fc", "activation_post_process_0"}
    assert modules <= sources


def test_the_models_own_layers_are_shown_under_the_names_of_the_graph():
    model = make_dyadic(fx_qat(4))
    ir = load(model, torch.zeros(1, 3, 8, 8))
    x = dyadic_inputs(4)
    shown = PyTorchImporter().run_layers(model, {"x": x})
    computed = qh.run(ir, {"x": x}, all_tensors=True)
    by_source = {
        value.metadata_props.get(dialect.PROVENANCE): computed[str(value.name)]
        for node in ir.graph
        for value in node.outputs
    }
    both = sorted(set(shown) & set(by_source))
    assert {"activation_post_process_0", "activation_post_process_1", "mean"} <= set(both)
    for name in both:
        assert np.array_equal(shown[name], by_source[name]), name


def test_a_layer_without_a_bias_has_none():
    ir = load(Mixed().eval(), torch.zeros(1, 3, 8, 8))
    counts = [len(node.inputs) for node in ir.graph if node.op_type == "Conv"]
    assert counts == [3, 2]


def test_a_quantizer_that_is_switched_off_is_left_out():
    model = fx_qat(4)
    model.activation_post_process_0.fake_quant_enabled.zero_()
    ir = load(model, torch.zeros(1, 3, 8, 8))
    names = [form.name for form in read_forms(ir)]
    assert "activation_post_process_0" not in names
    assert "activation_post_process_1" in names
    x = normal_inputs(8)
    assert np.allclose(qh.run(ir, {"x": x})["output"], reference(model, x), rtol=0, atol=1e-6)


def test_all_quantizers_off_leaves_a_plain_float_net():
    model = fx_qat(4)
    model.apply(tq.disable_fake_quant)
    ir = load(model, torch.zeros(1, 3, 8, 8))
    assert "Quant" not in operators(ir)


def test_a_model_in_training_mode_is_read_as_at_inference():
    model = fx_qat(8)
    assert model.training
    x = normal_inputs(8)
    ours, own = answers(model, x)
    expected = reference(model, x)
    assert np.array_equal(own, expected)
    assert np.mean(np.abs(ours - expected) > 2e-6) < 0.3


def test_eager_quantization_aware_training_is_read():
    torch.manual_seed(0)
    net = nn.Sequential(tq.QuantStub(), nn.Linear(6, 5), nn.ReLU(), tq.DeQuantStub())
    net.qconfig = tq.QConfig(
        activation=tq.FakeQuantize.with_args(
            observer=tq.MovingAverageMinMaxObserver, quant_min=0, quant_max=15
        ),
        weight=tq.FakeQuantize.with_args(
            observer=tq.MovingAverageMinMaxObserver,
            quant_min=-7,
            quant_max=7,
            dtype=torch.qint8,
            qscheme=torch.per_tensor_symmetric,
        ),
    )
    model = tq.prepare_qat(net.train())
    x = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)
    model(torch.from_numpy(x))
    ir = load(model, torch.from_numpy(x[:1]))
    expected = reference(model, x)
    answer = qh.run(ir, {"input": x})["output"]
    assert len(quantizer_nodes(ir)) == 3
    assert np.abs(answer - expected).max() <= 2e-6 * np.abs(expected).max()


def test_learnable_scales_are_read_as_their_module_bounds_them():
    from torch.ao.quantization._learnable_fake_quantize import _LearnableFakeQuantize

    fake = _LearnableFakeQuantize(
        observer=tq.MovingAverageMinMaxObserver,
        quant_min=0,
        quant_max=15,
        scale=0.13,
        zero_point=2.6,
        use_grad_scaling=True,
    )
    fake.enable_param_learning()
    model = nn.Sequential(fake).eval()
    x = np.linspace(-1, 3, 500, dtype=np.float32)[None]
    answer = qh.run(load(model, torch.from_numpy(x)), {"input": x})["output"]
    with torch.no_grad():
        assert np.array_equal(answer, model(torch.from_numpy(x)).numpy())
