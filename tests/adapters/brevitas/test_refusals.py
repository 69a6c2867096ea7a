"""What cannot be converted is refused by the name of the module, and everything at once."""

from __future__ import annotations

import brevitas.config
import brevitas.nn as qnn
import pytest
import torch
from brevitas.proxy.runtime_quant import DynamicActQuantProxyFromInjector
from brevitas.quant import Int8AccumulatorAwareWeightQuant, Int8ActPerTensorFloat
from brevitas.quant.mx_quant_ocp import MXFloat8e4m3Act, MXInt8Act
from torch import nn

import qonnx_hub as qh
from qonnx_hub.api import ConversionError
from qonnx_hub_ir.errors import SourceError, UnsupportedGraphError, UsageError
from tests.adapters.brevitas.kit import load
from tests.adapters.brevitas.layer_cases import Net, grid

SAMPLE = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))


class Dynamic(Int8ActPerTensorFloat):
    """A quantizer whose proxy says that its scale depends on the input."""

    proxy_class = DynamicActQuantProxyFromInjector


class Largest(nn.Module):
    """A scale from the largest value of each input."""

    def __init__(self):
        super().__init__()

    def forward(self, x, *_others):
        return x.detach().abs().max() / 127.0 + 1e-6


class Hidden(Int8ActPerTensorFloat):
    """A quantizer whose scale depends on the input, and whose proxy does not say so."""

    scaling_impl = Largest


class Squeezing(nn.Module):
    """A rounding of somebody's own."""

    def __init__(self):
        super().__init__()

    def forward(self, x):
        return torch.round(x * 0.99)


class OwnRounding(Int8ActPerTensorFloat):
    """A quantizer that is like any other but for how it rounds."""

    float_to_int_impl = Squeezing


def test_all_quantizers_without_a_form_are_listed_at_once():
    module = nn.Sequential(
        qnn.QuantLinear(16, 16, input_quant=MXInt8Act, input_group_size=8),
        qnn.QuantIdentity(Dynamic),
        qnn.QuantLinear(16, 4, input_quant=MXFloat8e4m3Act, input_group_size=8),
    )
    with pytest.raises(UnsupportedGraphError) as caught:
        load(module, SAMPLE)
    assert [gap.node for gap in caught.value.gaps] == [
        "0.input_quant",
        "1.act_quant",
        "2.input_quant",
    ]
    assert "computed for each group of each input anew" in str(caught.value)
    assert "give the layer a quantizer with static scales" in str(caught.value)


@pytest.mark.parametrize(
    ("quantizer", "words"),
    [
        (qnn.QuantIdentity(Hidden), "its scale depends on the values that it quantizes"),
        (
            qnn.QuantIdentity(OwnRounding, bit_width=8),
            r"of \S+ it makes \S+, a quantizer with",
        ),
        (
            qnn.QuantIdentity(bit_width=1),
            r"it makes \S+, a quantizer with its parameters \(bip",
        ),
        (
            qnn.QuantIdentity(float_to_int_impl_type="STOCHASTIC_ROUND"),
            r"has an unknown rounding mode \(STOCHASTIC_ROUND\)",
        ),
        (qnn.QuantLinear(16, 4, weight_bit_width=1), "makes values that are not finite"),
    ],
)
def test_a_quantizer_that_is_no_quantizer_of_the_ir_is_named(quantizer, words):
    module = Net(lambda net, x: net.first(x), first=quantizer)
    with torch.no_grad():
        module.train()(SAMPLE)
    with pytest.raises(UnsupportedGraphError, match=words) as caught:
        load(module.eval(), SAMPLE)
    assert [gap.node.split(".")[0] for gap in caught.value.gaps] == ["first"]


def test_brevitas_inference_mode_is_named_as_the_reason():
    module = nn.Sequential(grid())
    module[0].act_quant.skip_create_quant_tensor = True
    with pytest.raises(UnsupportedGraphError, match="leave Brevitas' inference mode first"):
        load(module, SAMPLE)


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (None, "traced on a sample: give one with args="),
        (SAMPLE.double(), "sample input 0 is torch.float64"),
        ("x", "sample input 0 is a str, not an array of numbers"),
        ({"x": SAMPLE}, "sample input 0 is a dict"),
        (SAMPLE[:0], r"sample input 0 of shape \[0, 16\] is empty"),
        (SAMPLE[:, :3], "fails on the sample: RuntimeError: mat1 and mat2"),
    ],
)
def test_a_sample_that_is_none_is_refused(sample, words):
    args = () if sample is None else (sample,)
    with pytest.raises(SourceError, match=words):
        load(nn.Sequential(qnn.QuantLinear(16, 4)), *args)


def test_compiled_quantizers_are_refused(monkeypatch):
    monkeypatch.setattr(brevitas.config, "JIT_ENABLED", True)
    with pytest.raises(SourceError, match="load it into the module where BREVITAS_JIT is not"):
        load(nn.Sequential(grid()), SAMPLE)


def test_a_module_in_another_precision_is_refused():
    with pytest.raises(SourceError, match=r"'0.weight' is torch.float64.*call \.float\(\)"):
        load(nn.Sequential(qnn.QuantLinear(16, 4)).double(), SAMPLE)


def test_accumulator_aware_weights_say_that_they_need_a_quantized_input():
    module = nn.Sequential(
        qnn.QuantLinear(16, 4, weight_quant=Int8AccumulatorAwareWeightQuant)
    )
    with pytest.raises(SourceError, match="No cached quant input found"):
        load(module, SAMPLE)


def test_answers_that_are_no_tensors_are_refused():
    module = Net(lambda net, x: (net.q(x), 3.0), q=grid())
    with pytest.raises(SourceError, match="answers with a float"):
        load(module, SAMPLE)


@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1)])
def test_a_module_that_does_not_do_the_same_every_time_is_refused(first, second):
    turns = iter([first, second])

    def forward(net, x):
        for _ in range(next(turns)):
            x = net.q(x)
        return x

    with pytest.raises(
        SourceError, match=r"'q.act_quant' is used.*not do the same every time"
    ):
        load(Net(forward, q=grid()), SAMPLE)


class Gate(nn.Module):
    """Does something else with every other input: a trace holds one of the two."""

    def forward(self, x):
        return x.abs() if float(x.sum()) > 0 else x * 1.0


def test_a_graph_that_is_not_the_module_is_refused_and_the_first_layer_named():
    module = nn.Sequential(grid(), Gate(), grid(6))
    with pytest.raises(ConversionError, match="the first layer that differs is '1'"):
        qh.load(module, args=(SAMPLE,))
    with pytest.raises(ConversionError, match="the first layer that differs is '1'"):
        qh.convert(module, args=(SAMPLE,))
    # Who asks for it gets the graph of the sample.
    assert qh.load(module, args=(SAMPLE,), verify=False) is not None


def test_what_a_module_keeps_from_its_last_pass_is_named_as_the_obstacle():
    module = nn.Sequential(qnn.QuantLinear(16, 4))
    module.kept = module(SAMPLE)
    with pytest.raises(SourceError, match=r"cannot be copied.*detach what it keeps"):
        load(module, SAMPLE)


def test_truncating_averages_are_refused_with_dynamo_by_name():
    module = nn.Sequential(grid(return_quant_tensor=True), qnn.TruncAvgPool2d(2))
    with pytest.raises(SourceError, match=r"'1.trunc_quant'.*leave the option dynamo out"):
        load(module, torch.randn(1, 2, 4, 4), dynamo=True)


def test_options_that_do_not_exist_are_refused():
    with pytest.raises(UsageError, match="has no option mode; it has dynamo"):
        load(nn.Sequential(grid()), SAMPLE, mode="exact")
    with pytest.raises(UsageError, match="option 'dynamo' is true or false, not 'yes'"):
        load(nn.Sequential(grid()), SAMPLE, dynamo="yes")


def test_other_sources_are_refused_under_the_importers_name():
    with pytest.raises(SourceError, match="no torch module with Brevitas layers"):
        qh.load("model.onnx", "brevitas")
    with pytest.raises(SourceError, match="no torch module with Brevitas layers"):
        qh.load(nn.Linear(2, 2), "brevitas", args=(SAMPLE,))
