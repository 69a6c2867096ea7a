"""Live modules: what is traced, what is refused, and that nothing is changed."""

from __future__ import annotations

import inspect
import math
import warnings
from fractions import Fraction

import numpy as np
import onnx_ir
import pytest
import torch
from torch import nn

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.hawq.comparison import read_differences
from qonnx_hub_adapters.hawq.exact_form import dyadic_multiplier
from qonnx_hub_adapters.hawq.importer import HawqImporter
from qonnx_hub_adapters.hawq.modules import compare_modes
from qonnx_hub_adapters.protocol import ImportOptions
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import SourceError, UnsupportedGraphError, UsageError
from tests.adapters.hawq import hawq_standin as standin
from tests.adapters.hawq.nets import (
    SHAPES,
    Branches,
    ConvNet,
    JetTagger,
    Residual,
    calibrate,
    calibrated,
    folded,
    linear,
    observe,
    sample,
)

NETS = [JetTagger, ConvNet, Residual, Branches]


def load(module, *args, **options):
    return HawqImporter().load(module, ImportOptions(args=args, extra=options))


def run(model, x):
    return Session(model).run({model.graph.inputs[0].name: x.numpy()}, all_tensors=True)


def snapshot(module):
    """Every attribute, buffer and flag of a module, as comparable data."""
    found = {}
    for name, part in module.named_modules():
        for key, value in part.__dict__.items():
            if key in {"_parameters", "_buffers", "_modules"}:
                for inner, one in value.items():
                    data = one.detach().numpy().tobytes() if torch.is_tensor(one) else id(one)
                    found[name, key, inner] = (id(one), data)
            else:
                found[name, key] = (id(value), repr(value))
    return found


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
            return self.last(x * 1.5 + x, scale, torch.ones(1), x, self.coarse)[0]

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


@pytest.mark.parametrize("net", NETS)
def test_the_modes_are_compared_layer_by_layer(net):
    module = calibrated(net, standin)
    report = compare_modes(module, (sample(net),))
    names = [n for n, part in module.named_modules() if type(part).__name__ == "QuantAct"]
    assert sorted(one.layer for one in report) == sorted(names)
    assert all(one.elements > 0 for one in report)
    assert max(one.steps for one in report) <= 1


def test_a_difference_between_the_modes_is_counted():
    module = calibrated(JetTagger, standin)
    report = compare_modes(module, (sample(JetTagger),), merge_requant=False)
    assert all(one.differing == 0 for one in report)
    # Of 12 bit and more, x times 1/s is not always rounded as x divided by s; one step of the
    # input then moves whole sums of the next layer.
    torch.manual_seed(3)
    wide = calibrate(Wide(standin), torch.randn(64, 64))
    first, second = compare_modes(wide, (torch.randn(4096, 64),))
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


@pytest.mark.parametrize("mode", ["exact", "quant"])
@pytest.mark.parametrize("net", NETS)
def test_the_module_is_unchanged_afterwards(net, mode, layers):
    module = calibrated(net, layers)
    module.train()
    for part in module.modules():
        if hasattr(part, "running_stat"):
            part.unfix()
    before = snapshot(module)
    load(module, sample(net), mode=mode)
    assert snapshot(module) == before
    # Nothing is left that would see the next call.
    assert all("forward" not in part.__dict__ for part in module.modules())


def test_the_module_is_unchanged_after_a_failure_in_its_forward():
    class Failing(ConvNet):
        def forward(self, x):
            super().forward(x)
            raise RuntimeError("out of luck")

    module = calibrated(ConvNet, standin)
    module.__class__ = Failing
    module.train()
    before = snapshot(module)
    with pytest.raises(SourceError, match="fails on the sample: out of luck"):
        load(module, sample(ConvNet))
    assert snapshot(module) == before


def test_the_module_is_unchanged_after_a_refusal():
    class Sorting(JetTagger):
        def forward(self, x):
            return torch.sort(super().forward(x))[0]

    module = calibrated(JetTagger, standin)
    module.__class__ = Sorting
    before = snapshot(module)
    with pytest.raises(UnsupportedGraphError, match="sort"):
        load(module, sample(JetTagger))
    assert snapshot(module) == before


def test_what_a_forward_leaves_behind_is_taken_away():
    class Counting(JetTagger):
        def forward(self, x):
            self.calls += 1
            self.last = x
            self.register_buffer("fresh", torch.zeros(1))
            return super().forward(x)

    module = calibrated(JetTagger, standin)
    module.__class__ = Counting
    module.register_buffer("calls", torch.zeros(1))
    before = snapshot(module)
    load(module, sample(JetTagger))
    assert snapshot(module) == before
    assert module.calls.item() == 0


def test_a_failing_layer_is_named():
    class Mismatched(JetTagger):
        def forward(self, x):
            x, scale = self.quant_input(x)
            return self.dense_2(x, scale)

    module = calibrated(JetTagger, standin)
    module.__class__ = Mismatched
    with pytest.raises(SourceError, match="in layer 'dense_2'"):
        load(module, sample(JetTagger))


def test_a_forward_of_the_users_own_is_put_back():
    module = calibrated(JetTagger, standin)
    own = module.act.forward
    module.act.__dict__["forward"] = own
    load(module, sample(JetTagger))
    assert module.act.__dict__["forward"] is own


def test_the_batch_is_open_where_the_calls_do_not_depend_on_it():
    model = load(calibrated(ConvNet, standin), sample(ConvNet, 1))
    assert list(model.graph.inputs[0].shape)[1:] == [3, 10, 10]
    assert not isinstance(model.graph.inputs[0].shape[0], int)


def test_the_batch_is_fixed_where_they_do():
    class Folding(JetTagger):
        def forward(self, x):
            return super().forward(x).reshape(4, -1)

    module = calibrated(JetTagger, standin)
    module.__class__ = Folding
    model = load(module, sample(JetTagger, 8))
    assert list(model.graph.inputs[0].shape) == [8, 16]
    assert run(model, sample(JetTagger, 8))["output"].shape == (4, 10)


def test_values_carry_the_names_of_their_layers():
    model = load(calibrated(JetTagger, standin), sample(JetTagger))
    named = {value.name: value for node in model.graph for value in node.outputs}
    for name in ("quant_input", "dense_1", "quant_act_3"):
        assert named[name].metadata_props[dialect.PROVENANCE] == name
    assert [value.name for value in model.graph.outputs] == ["output"]
    assert model.graph.outputs[0].metadata_props[dialect.PROVENANCE] == "softmax"


def test_the_same_module_gives_the_same_bytes():
    module = calibrated(Residual, standin)
    first, second = (
        onnx_ir.to_proto(load(module, sample(Residual))).SerializeToString(deterministic=True)
        for _ in range(2)
    )
    assert first == second


def test_the_importer_recognizes_hawq_modules_only():
    importer = HawqImporter()
    assert importer.accepts(calibrated(JetTagger, standin))
    assert importer.accepts(nn.DataParallel(calibrated(JetTagger, standin)))
    assert not importer.accepts(nn.Linear(2, 2))
    assert not importer.accepts("model.onnx")
    assert not importer.accepts(None)


def test_the_modules_own_answer_has_the_names_of_the_graph(layers):
    module, x = calibrated(Residual, layers), sample(Residual)
    answer = HawqImporter().run_source(module, {"x": x.numpy()})
    assert list(answer) == ["output"]
    np.testing.assert_array_equal(answer["output"], observe(module, x)[""].numpy())


def test_data_parallel_modules_are_read_inside():
    module = calibrated(JetTagger, standin)
    model = load(nn.DataParallel(module), sample(JetTagger))
    assert "dense_1" in {value.name for node in model.graph for value in node.outputs}


def refused(module, *args, **options):
    before = snapshot(module)
    with pytest.raises(UnsupportedGraphError) as caught:
        load(module, *args, **options)
    assert snapshot(module) == before
    return {gap.node: gap.reason for gap in caught.value.gaps}


def test_an_uncalibrated_act_is_refused_and_every_one_is_named():
    reasons = refused(JetTagger(standin), sample(JetTagger))
    assert list(reasons) == ["quant_input", "quant_act_1", "quant_act_2", "quant_act_3"]
    assert all("not calibrated" in reason for reason in reasons.values())


def test_one_bit_weights_are_refused():
    module = calibrated(JetTagger, standin)
    module.dense_1.weight_bit = 1
    assert "infinite" in refused(module, sample(JetTagger))["dense_1"]


def test_one_bit_symmetric_acts_are_refused():
    module = calibrated(JetTagger, standin)
    module.quant_act_1.activation_bit = 1
    assert "infinite" in refused(module, sample(JetTagger))["quant_act_1"]


def test_one_bit_asymmetric_acts_are_converted(layers):
    module = calibrated(JetTagger, layers)
    module.quant_act_1.activation_bit, module.quant_act_1.quant_mode = 1, "asymmetric"
    x = sample(JetTagger)
    seen, outputs = observe(module, x), run(load(module, x), x)
    np.testing.assert_array_equal(outputs["quant_act_1"], seen["quant_act_1"].numpy())
    assert len(np.unique(seen["quant_act_1"].numpy())) == 2


def test_a_full_precision_linear_layer_is_refused():
    module = calibrated(JetTagger, standin)
    module.dense_2.full_precision_flag = True
    assert "HAWQ itself fails" in refused(module, sample(JetTagger))["dense_2"]


def test_a_linear_layer_without_bias_bits_is_refused():
    module = calibrated(JetTagger, standin)
    module.dense_2.bias_bit = None
    assert "HAWQ itself fails" in refused(module, sample(JetTagger))["dense_2"]


def test_live_batch_statistics_are_refused():
    module = calibrated(ConvNet, standin)
    module.conv_1.fix_BN = module.conv_1.training_BN_mode = False
    assert list(refused(module, sample(ConvNet))) == ["conv_1"]


def test_live_batch_statistics_can_be_frozen(layers):
    module, x = calibrated(ConvNet, layers), sample(ConvNet)
    expected = observe(module, x)[""].numpy()
    module.conv_1.unfix()
    module.conv_1.fix_BN = module.conv_1.training_BN_mode = False
    before = snapshot(module)
    outputs = run(load(module, x, freeze_bn=True), x)
    np.testing.assert_array_equal(outputs["output"], expected)
    assert snapshot(module) == before


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


def test_ibert_layers_are_told_apart():
    module = calibrated(JetTagger, standin)
    module.dense_3.quant_mode = True
    reason = refused(module, sample(JetTagger))["dense_3"]
    assert "quant_mode True, as I-BERT's" in reason


def test_brevitas_layers_are_told_apart():
    kind = type("QuantLinear", (nn.Linear,), {"__module__": "brevitas.nn.quant_linear"})
    module = calibrated(JetTagger, standin)
    module.dense_3 = kind(32, 32)
    assert "is a Brevitas layer" in refused(module, sample(JetTagger))["dense_3"]
    assert not HawqImporter().accepts(nn.Sequential(kind(3, 3)))


def test_a_layer_without_the_scale_of_its_input_is_named():
    class Unscaled(JetTagger):
        def forward(self, x):
            x, _ = self.quant_input(x)
            return self.dense_1(x)

    module = calibrated(JetTagger, standin)
    module.__class__ = Unscaled
    with pytest.raises(
        SourceError, match="'dense_1': QuantLinear is called without the scale"
    ):
        load(module, sample(JetTagger))


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


@pytest.mark.parametrize("tail", [torch.sigmoid, nn.SiLU(), nn.GELU(), torch.tanh])
def test_curves_between_layers_are_converted(tail):
    class Curved(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.dense = standin.QuantAct(8), linear(standin, 16, 4)

        def forward(self, x):
            return 1.0 - tail(self.dense(self.act(x))) * 2

    x = sample(JetTagger)
    module = calibrate(Curved(), x)
    outputs = run(load(module, x), x)["output"]
    np.testing.assert_allclose(outputs, observe(module, x)[""].numpy(), rtol=0, atol=2e-6)


def test_plain_layers_of_torch_are_converted():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3, padding=1)
            self.norm = nn.BatchNorm2d(4)
            self.act, self.conv = standin.QuantAct(8), folded(standin, 4, 5, padding=1)
            self.head = nn.Linear(5, 2)

        def forward(self, x):
            x = nn.functional.leaky_relu(self.norm(self.stem(x)), 0.1)
            x, _ = self.conv(self.act(x))
            x = nn.functional.adaptive_avg_pool2d(nn.functional.relu6(x), 1)
            return self.head(x.flatten(1)).permute(1, 0).transpose(0, 1).unsqueeze(-1)

    x = torch.randn(8, 3, 6, 6)
    module = calibrate(Mixed(), x)
    outputs = run(load(module, x), x)["output"]
    np.testing.assert_allclose(outputs, observe(module, x)[""].numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d((2, 3), stride=(1, 2), padding=(1, 0)),
        nn.AvgPool2d((2, 3), stride=(1, 2), padding=(1, 0)),
        nn.AvgPool2d((3, 2), padding=(0, 1), count_include_pad=False),
    ],
)
def test_pools_with_unequal_padding_are_converted(pool):
    module = nn.Sequential(nn.ReLU(), pool)
    act = standin.QuantAct(8)

    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.inner = act, module

        def forward(self, x):
            return self.inner(self.act(x)[0])

    x = torch.randn(4, 2, 6, 7)
    net = calibrate(Pooled(), x)
    outputs = run(load(net, x), x)["output"]
    np.testing.assert_allclose(outputs, observe(net, x)[""].numpy(), rtol=0, atol=1e-6)


def test_a_pool_beyond_the_end_is_refused():
    class Pooled(JetTagger):
        def forward(self, x):
            x, _ = self.quant_input(x)
            return nn.functional.max_pool1d(x.unsqueeze(1), 3, ceil_mode=True)

    module = calibrated(JetTagger, standin)
    module.__class__ = Pooled
    with pytest.raises(UnsupportedGraphError, match="ceil_mode"):
        load(module, sample(JetTagger))


def test_a_value_read_after_it_was_overwritten_is_refused():
    class Overwriting(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = standin.QuantAct(8)

        def forward(self, x):
            y, _ = self.act(x)
            z = y.view(-1, 16)
            torch.relu_(y)
            return z + y

    module = calibrate(Overwriting(), sample(JetTagger))
    with pytest.raises(SourceError, match="overwrote it in place"):
        load(module, sample(JetTagger))


def test_writing_into_a_tensor_of_its_own_is_refused():
    class Writing(JetTagger):
        def forward(self, x):
            out = torch.zeros(x.shape[0], 5)
            out[:] = super().forward(x)
            return out

    module = calibrated(JetTagger, standin)
    module.__class__ = Writing
    with pytest.raises(UnsupportedGraphError, match="__setitem__"):
        load(module, sample(JetTagger))


def test_a_decision_on_computed_values_is_refused():
    class Deciding(JetTagger):
        def forward(self, x):
            y = super().forward(x)
            return y if float(y.mean(1).neg().item() if len(y) == 1 else y[0, 0]) < 2 else x

    module = calibrated(JetTagger, standin)
    module.__class__ = Deciding
    with pytest.raises(UnsupportedGraphError, match="__float__"):
        load(module, sample(JetTagger))


def test_a_sample_is_asked_for():
    with pytest.raises(SourceError, match=r"args=\(x,\)"):
        load(calibrated(JetTagger, standin))


def test_a_sample_of_another_type_is_refused():
    with pytest.raises(SourceError, match="float32"):
        load(calibrated(JetTagger, standin), sample(JetTagger).double())


def test_a_sample_may_be_an_array():
    model = load(calibrated(JetTagger, standin), sample(JetTagger).numpy())
    assert read_differences(model)


@pytest.mark.parametrize("options", [{"mode": "fast"}, {"bitz": 3}])
def test_an_unknown_option_is_refused(options):
    with pytest.raises(UsageError, match=r"fast|bitz"):
        load(calibrated(JetTagger, standin), sample(JetTagger), **options)


def test_the_stand_in_takes_the_arguments_of_hawqs_layers(layers):
    names = ["QuantAct", "QuantLinear", "QuantConv2d", "QuantMaxPool2d", "QuantAveragePool2d"]
    for name in names:
        ours = inspect.signature(getattr(standin, name).forward).parameters
        theirs = inspect.signature(getattr(layers, name).forward).parameters
        assert list(ours) == list(theirs)


def test_conversion_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(calibrated(ConvNet, standin), sample(ConvNet))
    assert set(SHAPES) == set(NETS)


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
