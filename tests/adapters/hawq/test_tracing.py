"""What is traced: batches, names, functions of torch between the layers."""

from __future__ import annotations

import inspect
import warnings

import numpy as np
import onnx_ir
import pytest
import torch
from torch import nn

from qonnx_hub_adapters.hawq.comparison import read_differences
from qonnx_hub_adapters.hawq.importer import HawqImporter
from qonnx_hub_ir import dialect
from tests.adapters.hawq import hawq_standin as standin
from tests.adapters.hawq.conversion import load, run
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


def test_functions_are_read_by_their_own_names_of_arguments():
    class Functions(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3, eps=0.1)
            self.norm.weight.data, self.norm.bias.data = torch.rand(3) + 1, torch.randn(3)
            self.norm.running_mean, self.norm.running_var = torch.randn(3), torch.rand(3) + 1
            self.act, self.dense = standin.QuantAct(8), linear(standin, 5, 4)

        def forward(self, x):
            n = self.norm
            pairs = (n.weight, n.bias, n.running_mean, n.running_var)
            x = torch.batch_norm(x, *pairs, False, 0.1, n.eps, True)
            x = nn.functional.batch_norm(
                x, n.running_mean, n.running_var, n.weight, n.bias, eps=0.2
            )
            x = torch.swapaxes(x, axis0=3, axis1=2)
            x, scale = self.act(torch.transpose(x, dim0=2, dim1=1))
            return self.dense(x, scale)

    x = torch.randn(2, 3, 5, 6)
    module = calibrate(Functions(), x)
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


def test_a_sample_may_be_an_array():
    model = load(calibrated(JetTagger, standin), sample(JetTagger).numpy())
    assert read_differences(model)


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
