"""Both modes: what is computed, and how it is said."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from qonnx_hub import api
from qonnx_hub_adapters.hawq.comparison import read_differences
from qonnx_hub_adapters.hawq.forms import dyadic_multiplier
from qonnx_hub_ir import dialect
from tests.adapters.hawq import hawq_standin as standin
from tests.adapters.hawq.conversion import load, run
from tests.adapters.hawq.nets import (
    Branches,
    ConvNet,
    JetTagger,
    Residual,
    calibrate,
    calibrated,
    linear,
    observe,
    sample,
)

NETS = [JetTagger, ConvNet, Residual, Branches]


@pytest.mark.parametrize("net", NETS)
def test_in_exact_mode_every_layer_computes_what_the_module_computes(net, layers):
    module, x = calibrated(net, layers), sample(net, 32)
    seen, outputs = observe(module, x), run(load(module, sample(net)), x)
    compared = 0
    for name, value in seen.items():
        if name not in outputs:
            continue
        # HAWQ's sums of a convolution are of quotients that are not all whole, and are not
        # rounded: the order of addition shows in the last bit.
        is_sum = "Conv" in type(module.get_submodule(name)).__name__
        bound = 2e-7 * float(value.abs().max()) if is_sum else 0.0
        np.testing.assert_allclose(outputs[name], value, rtol=0, atol=bound, err_msg=name)
        compared += 1
    assert compared >= 6
    exact = 1e-7 if net is JetTagger else 0.0  # softmax is another one than torch's
    np.testing.assert_allclose(outputs["output"], seen[""].numpy(), rtol=0, atol=exact)


@pytest.mark.parametrize("net", NETS)
def test_in_quant_mode_integers_are_at_most_a_step_off(net, layers):
    module, x = calibrated(net, layers), sample(net, 32)
    seen, outputs = observe(module, x), run(load(module, sample(net), mode="quant"), x)
    compared = 0
    for name, part in module.named_modules():
        if type(part).__name__ != "QuantAct":
            continue
        scale = part.act_scaling_factor.numpy()
        steps = np.abs(np.rint(outputs[name] / scale) - np.rint(seen[name].numpy() / scale))
        assert steps.max() <= (1 if part.activation_bit > 8 else 0), name
        assert np.count_nonzero(steps) <= 2e-3 * steps.size, name
        compared += 1
    assert compared >= 4
    bound = 1e-4 * float(seen[""].abs().max())
    np.testing.assert_allclose(outputs["output"], seen[""].numpy(), rtol=0, atol=bound)


def test_in_quant_mode_only_quantizers_and_plain_operators_are_left(layers):
    model = load(calibrated(ConvNet, layers), sample(ConvNet), mode="quant")
    kinds = {node.op_type for node in model.graph if not dialect.is_quantizer(node)}
    pooling = {"Div", "Round", "AveragePool", "Mul"}
    assert kinds == {"Add", "Conv", "Flatten", "MatMul", "MaxPool", "Relu"} | pooling


def test_jet_tagging_needs_both_roundings(layers):
    module, x = calibrated(JetTagger, layers), sample(JetTagger, 64)
    model = load(module, sample(JetTagger), mode="quant")
    names = [node.name for node in model.graph if dialect.is_quantizer(node)]
    assert "quant_act_1/SourceGrid" in names
    # Leaving the first one out is what a plain mapping of QuantAct to Quant would do.
    bypassed = model.clone()
    for node in list(bypassed.graph):
        if node.name.endswith("/SourceGrid"):
            node.outputs[0].replace_all_uses_with(node.inputs[0])
            bypassed.graph.remove(node, safe=True)
    seen = observe(module, x)["quant_act_1"].numpy()
    scale = module.quant_act_1.act_scaling_factor.numpy()
    wrong = np.rint(run(bypassed, x)["quant_act_1"] / scale) != np.rint(seen / scale)
    assert wrong.mean() > 0.05


def test_the_first_of_two_quantizers_is_left_out_where_it_changes_nothing(layers):
    module = calibrated(ConvNet, layers)
    merged = load(module, sample(ConvNet), mode="quant")
    both = load(module, sample(ConvNet), mode="quant", merge_requant=False)
    named = [n.name for n in both.graph if n.name.endswith("/SourceGrid")]
    assert named == ["act_1/SourceGrid", "act_2/SourceGrid", "act_3/SourceGrid"]
    assert not [n for n in merged.graph if n.name.endswith("/SourceGrid")]


def test_branches_of_a_sum_are_brought_to_their_own_grids_first(layers):
    module, x = calibrated(Residual, layers), sample(Residual, 32)
    model = load(module, sample(Residual), mode="quant", merge_requant=False)
    named = [n.name for n in model.graph if n.name.endswith("/SourceGrid")]
    sums = [f"sum_{k}/{role}/SourceGrid" for k in (1, 2) for role in ("identity", "main")]
    assert set(sums) <= set(named)
    seen, outputs = observe(module, x), run(model, x)
    scale = module.sum_2.act_scaling_factor.numpy()
    ours, theirs = outputs["sum_2"] / scale, seen["sum_2"].numpy() / scale
    np.testing.assert_array_equal(np.rint(ours), np.rint(theirs))


def test_a_branch_that_is_not_on_the_grid_it_is_said_to_be_on_is_rounded_twice(layers):
    class Coarse(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = layers.QuantAct(8), layers.QuantAct(8)
            self.coarse = torch.tensor([0.25])

        def forward(self, x):
            x, scale = self.first(x)
            return self.last(x * 1.3 + x, scale, torch.ones(1), x, self.coarse)[0]

    x = sample(JetTagger, 32)
    module = calibrate(Coarse(), x)
    seen, outputs = observe(module, x), run(load(module, x, mode="quant"), x)
    scale = module.last.act_scaling_factor.numpy()
    ours, theirs = outputs["output"] / scale, seen["last"].numpy() / scale
    np.testing.assert_array_equal(np.rint(ours), np.rint(theirs))


def test_joined_branches_lie_on_the_grids_of_both(layers):
    module = calibrated(Branches, layers)
    merged = load(module, sample(Branches), mode="quant")
    both = load(module, sample(Branches), mode="quant", merge_requant=False)
    assert not [n for n in merged.graph if n.name.endswith("/SourceGrid")]
    (joined,) = (n for n in both.graph if n.name == "joined/SourceGrid")
    steps = dialect.read_quantizer(joined).scale
    scales = [module.act_1.act_scaling_factor.item()] * 5
    scales += [module.act_2.act_scaling_factor.item()] * 4
    assert steps.reshape(-1).tolist() == scales


def compare_modes(module, x, **options):
    """Which layers differ between the two modes on a sample, and by how much."""
    return read_differences(load(module, x, mode="quant", **options))


@pytest.mark.parametrize("net", NETS)
def test_the_modes_are_compared_layer_by_layer(net):
    module = calibrated(net, standin)
    report = compare_modes(module, sample(net))
    names = [n for n, part in module.named_modules() if type(part).__name__ == "QuantAct"]
    assert sorted(one.layer for one in report) == sorted(names)
    assert all(one.elements > 0 for one in report)
    assert max(one.steps for one in report) <= 1


def test_a_difference_between_the_modes_is_counted():
    module = calibrated(JetTagger, standin)
    report = compare_modes(module, sample(JetTagger), merge_requant=False)
    assert all(one.differing == 0 for one in report)
    # Of 12 bit and more, x times 1/s is not always rounded as x divided by s; one step of the
    # input then moves whole sums of the next layer.
    torch.manual_seed(3)
    wide = calibrate(Wide(standin), torch.randn(64, 64))
    first, second = compare_modes(wide, torch.randn(4096, 64))
    assert (first.layer, second.layer) == ("quant_input", "out")
    assert first.steps == 1
    assert 0 < first.differing < 1e-4 * first.elements
    assert 0 < second.differing < 5e-3 * second.elements


class Wide(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.quant_input, self.out = layers.QuantAct(12), layers.QuantAct(16)
        self.dense = linear(layers, 64, 64, 8)

    def forward(self, x):
        x, scale = self.quant_input(x)
        y, _ = self.out(self.dense(x, scale), scale, self.dense.fc_scaling_factor)
        return y


def test_one_bit_asymmetric_acts_are_converted(layers):
    module = calibrated(JetTagger, layers)
    module.quant_act_1.activation_bit, module.quant_act_1.quant_mode = 1, "asymmetric"
    x = sample(JetTagger)
    seen, outputs = observe(module, x), run(load(module, x), x)
    np.testing.assert_array_equal(outputs["quant_act_1"], seen["quant_act_1"].numpy())
    assert len(np.unique(seen["quant_act_1"].numpy())) == 2


def test_a_full_precision_act_passes_its_input_on(layers):
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = layers.QuantAct(4), layers.QuantAct(8)
            self.second.full_precision_flag = True

        def forward(self, x):
            x, scale = self.first(x)
            return self.second(x * 2.0, scale)

    module, x = calibrate(Bare(), sample(JetTagger)), sample(JetTagger)
    outputs = run(load(module, x), x)
    np.testing.assert_array_equal(outputs["output"], observe(module, x)[""].numpy())


def test_a_bias_that_hawq_drops_is_dropped_with_a_warning(layers):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.quant_input = layers.QuantAct(8)
            self.conv = layers.QuantConv2d(weight_bit=4, bias_bit=None)
            self.conv.set_param(nn.Conv2d(3, 4, (3, 2), padding=(1, 0), stride=(2, 1)))

        def forward(self, x):
            return self.conv(*self.quant_input(x))[0]

    x = torch.randn(4, 3, 8, 8)
    module = calibrate(Plain(), x)
    with pytest.warns(UserWarning, match="layer 'conv' has a bias but no bias_bit"):
        model = load(module, x)
    expected = observe(module, x)[""].numpy()
    np.testing.assert_allclose(run(model, x)["output"], expected, rtol=0, atol=5e-7)


def test_a_negative_average_is_cut_toward_zero(layers):
    class Mean(nn.Module):
        def __init__(self, pool):
            super().__init__()
            self.act, self.mean = layers.QuantAct(8), layers.QuantAveragePool2d(2, 2)
            self.mean.set_param(pool)

        def forward(self, x):
            return self.mean(self.act(x))[0]

    # Averages of -2 and of 2.75 steps: HAWQ makes them -1 and 2.
    steps = torch.tensor([[-2.0, -2.0, 2.0, 3.0], [-2.0, -2.0, 3.0, 3.0]]).view(1, 1, 2, 4)
    x = torch.cat((steps, torch.full_like(steps, 127.0)))
    for pool in (nn.AvgPool2d(2, 2), nn.AdaptiveAvgPool2d((1, 2))):
        module = calibrate(Mean(pool), x)
        scale = float(module.act.act_scaling_factor)
        for mode in ("exact", "quant"):
            outputs = run(load(module, x, mode=mode), x)["output"]
            np.testing.assert_array_equal(outputs, observe(module, x)[""].numpy())
            assert np.rint(outputs[0] / scale).reshape(-1).tolist() == [-1.0, 2.0]


def test_a_fixed_point_act_quantizes_directly(layers):
    module = calibrated(JetTagger, layers)
    for part in module.modules():
        if hasattr(part, "fixed_point_quantization"):
            part.fixed_point_quantization = True
    x = sample(JetTagger)
    outputs = run(load(module, x), x)
    for name, value in observe(module, x).items():
        if name in outputs:
            np.testing.assert_array_equal(outputs[name], value.numpy(), err_msg=name)


@pytest.mark.parametrize(("source", "target"), [(0.1, 0.3), (7e-5, 0.011), (3.0, 1.0), (1, 3)])
def test_the_multiplier_has_31_bits_and_ties_go_up(source, target):
    source, target = np.float32(source), np.float32(target)
    # The quotient as HAWQ has it, in float64; then exact arithmetic.
    ratio = Fraction(float(source) / float(target))
    exponent = 0
    while not Fraction(1, 2) <= ratio / Fraction(2) ** exponent < 1:
        exponent += 1 if ratio / Fraction(2) ** exponent >= 1 else -1
    whole = math.floor(ratio / Fraction(2) ** exponent * 2**31 + Fraction(1, 2))
    expected = Fraction(whole) * Fraction(2) ** (exponent - 31)
    assert Fraction(float(dyadic_multiplier(source, target))) == expected


def test_the_multiplier_of_a_tie_is_the_larger_one():
    tie = 0.5 + 2.0**-32
    source = np.asarray(tie, dtype=np.float64)
    assert float(dyadic_multiplier(source, np.float32(1))) == 0.5 + 2.0**-31


@pytest.mark.parametrize("net", [JetTagger, Residual])
@pytest.mark.parametrize("mode", ["exact", "quant"])
def test_a_checked_conversion_writes_both_modes_and_notes_the_bounded_one(
    net, mode, layers, tmp_path
):
    path = tmp_path / "out.onnx"
    options = {"mode": mode}
    report = api.convert(calibrated(net, layers), path, args=(sample(net),), options=options)
    assert path.exists()
    assert report.own is not None
    assert any("a step apart" in note for note in report.notes) == (mode == "quant")
