"""What is refused, and with which reason."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from qonnx_hub_adapters.hawq.importer import HawqImporter
from qonnx_hub_ir.errors import SourceError, UnsupportedGraphError, UsageError
from tests.adapters.hawq import hawq_standin as standin
from tests.adapters.hawq.conversion import load, run, snapshot
from tests.adapters.hawq.nets import (
    ConvNet,
    JetTagger,
    calibrate,
    calibrated,
    observe,
    sample,
)


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


def test_a_failing_layer_is_named():
    class Mismatched(JetTagger):
        def forward(self, x):
            x, scale = self.quant_input(x)
            return self.dense_2(x, scale)

    module = calibrated(JetTagger, standin)
    module.__class__ = Mismatched
    with pytest.raises(SourceError, match="in layer 'dense_2'"):
        load(module, sample(JetTagger))


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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda y: y.to(torch.float64).float(), "gives torch.float64"),
        (lambda y: y.to(torch.float16).to(torch.float32), "gives torch.float16"),
    ],
)
def test_arithmetic_of_another_precision_is_refused(change, words):
    class Precise(JetTagger):
        def forward(self, x):
            return change(super().forward(x))

    module = calibrated(JetTagger, standin)
    module.__class__ = Precise
    with pytest.raises(UnsupportedGraphError, match=words):
        load(module, sample(JetTagger))


def test_setting_the_data_of_a_computed_value_is_refused():
    class Setting(JetTagger):
        def forward(self, x):
            y = super().forward(x)
            y.data = y.data * 2
            return y

    module = calibrated(JetTagger, standin)
    module.__class__ = Setting
    with pytest.raises(UnsupportedGraphError, match="an attribute of a computed value is set"):
        load(module, sample(JetTagger))


def test_random_numbers_are_refused():
    class Noisy(JetTagger):
        def forward(self, x):
            return super().forward(x) + torch.randn(1)

    module = calibrated(JetTagger, standin)
    module.__class__ = Noisy
    with pytest.raises(SourceError, match="draws random numbers"):
        load(module, sample(JetTagger))


def test_a_sample_is_asked_for():
    with pytest.raises(SourceError, match=r"args=\(x,\)"):
        load(calibrated(JetTagger, standin))


def test_a_sample_of_another_type_is_refused():
    with pytest.raises(SourceError, match="float32"):
        load(calibrated(JetTagger, standin), sample(JetTagger).double())


@pytest.mark.parametrize("options", [{"mode": "fast"}, {"bitz": 3}])
def test_an_unknown_option_is_refused(options):
    with pytest.raises(UsageError, match=r"fast|bitz"):
        load(calibrated(JetTagger, standin), sample(JetTagger), **options)
