"""Sums on rounding ties: no reason to refuse a model, as long as each layer is torch's."""

import numpy as np
import onnx_ir
import pytest
import torch
from torch import nn

import qonnx_hub as qh
from qonnx_hub.conversion.validation import check_source
from qonnx_hub.equivalence.inputs.generate import generate_inputs
from qonnx_hub_adapters.pytorch.importer import PyTorchImporter
from qonnx_hub_ir.errors import ConversionError
from tests.adapters.pytorch.kit import fx_qat, load

SAMPLE = torch.zeros(1, 3, 8, 8)


class Means(nn.Module):
    """Means of 64 values of a grid, on the same grid: many lie on a tie, or beside it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 8, 3, groups=8, padding=1, bias=False)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        x = torch.relu(self.bn(self.conv(x)))
        return self.fc(self.mean(x + self.inner(x)).flatten(1))


@pytest.fixture(scope="module")
def on_ties():
    model = fx_qat(4, net=Means, seed=9)
    return model, load(model, SAMPLE)


def test_a_net_whose_means_lie_on_ties_is_read(on_ties):
    model, ir = on_ties
    feeds = generate_inputs(ir, None, 0)
    own = PyTorchImporter().run_source(model, feeds)
    assert own is not None
    # What makes this a test: far more outputs differ than by the order of sums alone.
    differing = np.abs(qh.run(ir, feeds)["output"] - own["output"]) > 1e-4
    assert np.mean(differing) > 0.01
    assert check_source(PyTorchImporter(), model, ir, feeds, "the net") is not None


@pytest.mark.parametrize(
    ("name", "position", "factor"),
    [
        ("activation_post_process_1", 1, 1.5),  # a scale
        ("activation_post_process_1", 3, 0.75),  # three bits in the place of four
        ("fc.weight_quant", 0, 0.5),  # other weights
    ],
)
def test_a_layer_that_is_another_is_found_on_the_same_net(on_ties, name, position, factor):
    model, ir = on_ties
    wrong = ir.clone()
    node = next(node for node in wrong.graph if node.name == name)
    given = node.inputs[position]
    changed = (given.const_value.numpy() * factor).astype(np.float32)
    given.const_value = onnx_ir.tensor(changed, name=given.name)
    feeds = generate_inputs(ir, None, 0)
    with pytest.raises(ConversionError):
        check_source(PyTorchImporter(), model, wrong, feeds, "the net")
