"""Reference modules of torch's FX quantization, and sources that cannot be traced."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from torch import nn  # noqa: E402
from torch.ao.quantization import (  # noqa: E402
    get_default_qconfig_mapping,
    quantize_fx,
)

import qonnx_hub as qh  # noqa: E402
from qonnx_hub_adapters.pytorch.modules import frozen_copy  # noqa: E402
from qonnx_hub_ir import dialect  # noqa: E402
from qonnx_hub_ir.errors import UnsupportedGraphError, UsageError  # noqa: E402


class Net(nn.Module):
    """A convolution and a dense layer, with a sum between them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.dense = nn.Linear(12, 2)

    def forward(self, x: Any) -> Any:
        y = torch.relu(self.conv(x))
        return self.dense(torch.flatten(y + y, 1))


def reference() -> Any:
    """Return the reference form of a calibrated net."""
    torch.manual_seed(0)
    sample = (torch.randn(1, 2, 4, 4),)
    prepared = quantize_fx.prepare_fx(
        Net().eval(), get_default_qconfig_mapping("fbgemm"), sample
    )
    for _ in range(3):
        prepared(torch.randn(4, 2, 4, 4))
    return quantize_fx.convert_to_reference_fx(prepared)


def test_fake_quantization_is_what_a_reference_module_computes() -> None:
    module = reference()
    frozen = frozen_copy(module, torch)
    for size in (0.1, 1.0, 30.0):
        x = torch.randn(16, 2, 4, 4) * size
        with torch.no_grad():
            assert torch.equal(frozen(x), module(x))


def test_weights_and_values_of_a_reference_module_are_quantizers() -> None:
    module = reference()
    model = qh.load(module, args=(torch.zeros(1, 2, 4, 4),))
    found = [node for node in model.graph if dialect.is_quantizer(node)]
    weights = [n for n in found if dialect.constant_value(n.inputs[0]) is not None]
    assert len(weights) == 2
    assert len(found) > len(weights)
    x = torch.randn(1, 2, 4, 4)
    with torch.no_grad():
        wanted = module(x).numpy()
    (answer,) = qh.run(model, {model.graph.inputs[0].name: x.numpy()}).values()
    step = max(float(getattr(module, name)) for name in dir(module) if "scale" in name)
    np.testing.assert_allclose(answer, wanted, atol=1.01 * step)


def test_a_reference_module_is_not_changed() -> None:
    module = reference()
    before = str(module.code)
    qh.load(module, args=(torch.zeros(1, 2, 4, 4),))
    assert str(module.code) == before
    assert "get_weight" not in vars(module.dense)


def test_torchscript_is_refused_in_a_sentence() -> None:
    module = torch.jit.script(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))
    with pytest.raises(UnsupportedGraphError, match="compiled TorchScript") as caught:
        qh.load(module, args=(torch.zeros(1, 4),))
    assert len(caught.value.gaps) == 1


def test_a_sample_that_is_none_is_refused_in_a_sentence() -> None:
    with pytest.raises(UsageError, match="a sample input is None"):
        qh.load(nn.Linear(4, 3), args=(torch.zeros(1, 4), None))
