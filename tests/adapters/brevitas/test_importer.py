"""What an imported graph looks like, and what is taken along with the module."""

from __future__ import annotations

import brevitas.nn as qnn
import numpy as np
import onnx_ir
import pytest
import torch
from brevitas.inject.enum import FloatToIntImplType
from brevitas.quant import TruncTo8bit
from brevitas.quant.mx_quant_ocp import MXInt8Weight
from torch import nn

import qonnx_hub as qh
from qonnx_hub.executor.session import Session
from qonnx_hub.io import registry
from qonnx_hub_adapters.brevitas.importer import BrevitasImporter
from qonnx_hub_adapters.protocol import ImportOptions
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.quantizers import BipolarQuant, IntQuant, Rounding
from tests.adapters.brevitas.kit import (
    Case,
    ask_executor,
    ask_torch,
    differences,
    feeds_for,
    load,
    make,
    samples_of,
    state_of,
)
from tests.adapters.brevitas.layer_cases import CONV, Net, grid

SAMPLE = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        qnn.QuantIdentity(bit_width=4, return_quant_tensor=True),
        nn.Sequential(
            qnn.QuantLinear(16, 8, weight_bit_width=3, bias=True), nn.BatchNorm1d(8)
        ),
        qnn.QuantReLU(bit_width=2),
    ).eval()


def quantizers(ir):
    return {
        node.outputs[0].metadata_props[dialect.PROVENANCE]: dialect.read_quantizer(node)
        for node in ir.graph
        if dialect.is_quantizer(node)
    }


def test_quantizers_are_called_as_their_modules_are():
    ir = load(small(), SAMPLE)
    assert [node.name for node in ir.graph if dialect.is_quantizer(node)] == [
        "0.act_quant",
        "1.0.weight_quant",
        "2.act_quant",
    ]
    assert list(quantizers(ir)) == ["0", "1.0.weight", "2"]
    assert [str(value.name) for value in ir.graph.inputs] == ["input"]
    assert [str(value.name) for value in ir.graph.outputs] == ["output"]


def test_other_values_carry_the_module_that_made_them():
    ir = load(small(), SAMPLE)
    made = {
        node.op_type: node.outputs[0].metadata_props[dialect.PROVENANCE] for node in ir.graph
    }
    assert made["BatchNormalization"] == "1.1"
    assert made["Gemm"] == "1.0"
    assert (
        ir.graph.initializers["1.0.weight"].metadata_props[dialect.PROVENANCE] == "1.0.weight"
    )


def test_parameters_are_those_that_brevitas_computes():
    module = small()
    found = quantizers(load(module, SAMPLE))
    identity, weight, relu = found["0"], found["1.0.weight"], found["2"]
    proxy = module[0].act_quant
    assert identity == IntQuant(
        np.array(proxy.scale().item(), dtype=np.float32),
        np.zeros((), dtype=np.float32),
        np.array(4, dtype=np.float32),
        signed=True,
        narrow=False,
    )
    quantized = module[1][0].quant_weight()
    np.testing.assert_array_equal(weight.scale, quantized.scale.detach().numpy())
    assert (weight.signed, weight.narrow, float(weight.bits)) == (True, True, 3.0)
    assert (relu.signed, float(relu.bits)) == (False, 2.0)


def test_weights_are_stored_as_brevitas_quantizes_them():
    module = nn.Sequential(
        qnn.QuantLinear(16, 4, weight_bit_width=4,
                        weight_float_to_int_impl_type=FloatToIntImplType.FLOOR)
    )  # fmt: skip
    ir = load(module, SAMPLE)
    stored = ir.graph.initializers["0.weight"].const_value.numpy()
    np.testing.assert_array_equal(stored, module[0].quant_weight().value.detach().numpy())
    # They are rounded already: to round them down again could only lose some of them.
    assert quantizers(ir)["0.weight"].rounding is Rounding.ROUND


def test_one_unsigned_bit_is_not_taken_for_a_sign():
    found = quantizers(load(nn.Sequential(qnn.QuantReLU(bit_width=1)), SAMPLE))["0"]
    assert isinstance(found, IntQuant)
    assert (float(found.bits), found.signed) == (1.0, False)


def test_roundings_keep_their_names():
    modes = {"ROUND_TO_ZERO": Rounding.DOWN, "DPU": Rounding.DPU, "CEIL": Rounding.CEIL}
    for name, rounding in modes.items():
        module = nn.Sequential(qnn.QuantIdentity(bit_width=4, float_to_int_impl_type=name))
        assert quantizers(load(module, SAMPLE))["0"].rounding is rounding


def test_weights_in_groups_have_a_scale_for_every_weight():
    module = nn.Sequential(
        qnn.QuantLinear(16, 4, weight_quant=MXInt8Weight, weight_group_size=8)
    )
    scale = quantizers(load(module, SAMPLE))["0.weight"].scale
    assert scale.shape == (4, 16)
    assert len(np.unique(scale[0, :8])) == len(np.unique(scale[0, 8:])) == 1


def test_each_use_of_one_quantizer_has_a_name():
    module = Net(lambda net, x: net.q(net.q(x) + net.q(2 * x)), q=grid())
    assert list(quantizers(load(module, SAMPLE))) == ["q", "q:2", "q:3"]


def test_weights_that_are_used_twice_are_stored_once():
    layer = qnn.QuantLinear(16, 16, **CONV, bias=False)
    ir = load(Net(lambda net, x: net.layer(net.layer(x)), layer=layer), SAMPLE)
    assert list(quantizers(ir)) == ["layer.weight"]


def test_inputs_are_called_as_the_forward_calls_them():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.q = grid()

        def forward(self, image, mask, *, scale=1.0):
            return {"masked": self.q(image * mask), "both": (self.q(image), None)}

    ir = load(Two(), SAMPLE, SAMPLE)
    assert [str(value.name) for value in ir.graph.inputs] == ["image", "mask"]
    assert [str(value.name) for value in ir.graph.outputs] == ["output_0", "output_1"]


def test_a_first_difference_is_named_after_the_module():
    finer = small()
    finer[2] = qnn.QuantReLU(bit_width=2, scaling_impl_type="const", scaling_init=1.0)
    coarser = small()
    coarser[2] = qnn.QuantReLU(bit_width=2, scaling_impl_type="const", scaling_init=1.5)
    for module in (finer, coarser):
        module.eval()
    a, b = load(finer, SAMPLE), load(coarser, SAMPLE)
    result = qh.check(a, b)
    assert not result
    assert result.first_divergence.source == "2"


def test_quantized_tensors_are_taken_as_inputs():
    module = nn.Sequential(
        qnn.TruncAvgPool2d(2, trunc_quant=TruncTo8bit, bit_width=4), grid(6)
    ).eval()
    with torch.no_grad():
        sample = grid(6, return_quant_tensor=True).eval()(torch.randn(2, 3, 4, 4))
        expected = module(sample)
    importer = BrevitasImporter()
    prepared = importer.prepare(module, ImportOptions(args=(sample,)))
    ir = importer.load(prepared, ImportOptions())
    feeds = {"input": sample.value.numpy()}
    np.testing.assert_array_equal(qh.run(ir, feeds)["output"], expected.numpy())
    np.testing.assert_array_equal(
        importer.run_source(prepared, feeds)["output"], expected.numpy()
    )
    # Without its sample the module is not known to take quantized tensors.
    assert qh.load(module, args=(sample,)) is not None


def test_a_wrapper_for_several_devices_is_looked_through():
    wrapped = nn.DataParallel(small())
    assert registry.find_importer(wrapped).info.name == "brevitas"
    assert list(quantizers(load(wrapped, SAMPLE))) == ["0", "1.0.weight", "2"]


def test_brevitas_modules_are_offered_to_this_importer_and_others_are_not():
    assert registry.find_importer(small()).info.name == "brevitas"
    assert not BrevitasImporter().accepts(nn.Sequential(nn.Linear(2, 2)))


def test_layers_are_shown_under_the_names_of_the_graph():
    module = small()
    ir = load(module, SAMPLE)
    feeds = {"input": SAMPLE.numpy()}
    shown = BrevitasImporter().run_layers(module, feeds)
    computed = Session(ir).run(feeds, all_tensors=True)
    named = {
        value.metadata_props[dialect.PROVENANCE]: computed[value.name]
        for node in ir.graph
        for value in node.outputs
    }
    assert {"0", "1.0.weight", "1.1", "2"} <= set(shown)
    for layer, values in shown.items():
        np.testing.assert_allclose(named[layer], values, rtol=0, atol=1e-6)


def test_a_module_without_any_quantizer_switched_on_is_a_float_graph():
    module = nn.Sequential(qnn.QuantLinear(16, 4, weight_quant=None))
    ir = load(module, SAMPLE)
    assert quantizers(ir) == {}
    answer = qh.run(ir, {"input": SAMPLE.numpy()})["output"]
    np.testing.assert_allclose(answer, module(SAMPLE).detach().numpy(), rtol=0, atol=1e-6)


def test_a_layer_alone_is_a_model():
    found = quantizers(load(qnn.QuantLinear(16, 4, weight_bit_width=1 + 1), SAMPLE))
    assert list(found) == ["weight_quant"]
    found = quantizers(load(qnn.QuantIdentity(bit_width=4), SAMPLE))
    assert list(found) == ["act_quant"]


def test_binary_quantizers_are_signs():
    module = nn.Sequential(qnn.QuantLinear(16, 4, weight_quant_type="binary"))
    assert isinstance(quantizers(load(module, SAMPLE))["0.weight"], BipolarQuant)


class Weighted:
    """A module, a file of other weights for it, and the module that has them."""

    def __init__(self, folder):
        torch.manual_seed(5)
        self.with_weights = small()
        with torch.no_grad():
            # Brevitas saves scales only once they have been learned from data.
            self.with_weights.train()(SAMPLE)
            for parameter in self.with_weights.parameters():
                parameter.add_(0.25)
        self.with_weights.eval()
        self.module, self.path = small(), folder / "weights.pt"

    def save(self, found):
        torch.save(found, self.path)
        return str(self.path)


def test_weights_of_a_file_are_taken_and_the_module_is_not_changed(tmp_path):
    case = Weighted(tmp_path)
    before = state_of(case.module)
    state = case.with_weights.state_dict()
    kinds = [
        state,
        {"state_dict": state, "epoch": 3},
        {f"module.{name}": tensor for name, tensor in state.items()},
    ]
    with torch.no_grad():
        expected = case.with_weights(SAMPLE).numpy()
    for found in kinds:
        path = case.save(found)
        report = qh.convert(case.module, args=(SAMPLE,), weights=path)
        assert report.own
        answer = qh.run(report.model, {"input": SAMPLE.numpy()})["output"]
        np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-6)
        assert state_of(case.module) == before


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"0.nothing": torch.zeros(1)}, "does not fit the module.*Missing key"),
        ([1, 2], "holds a list, no state dict"),
        ({}, "holds a dict, no state dict"),
    ],
)
def test_weights_that_do_not_fit_are_refused(found, words, tmp_path):
    case = Weighted(tmp_path)
    path = case.save(found)
    with pytest.raises(SourceError, match=words):
        qh.load(case.module, args=(SAMPLE,), weights=path)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    case = Weighted(tmp_path)
    path = case.save(nn.Linear(2, 2))
    with pytest.raises(SourceError, match="is no file of tensors alone"):
        qh.load(case.module, args=(SAMPLE,), weights=path)
    with pytest.raises(SourceError, match=r"'missing\.pt' cannot be read: No such file"):
        qh.load(case.module, args=(SAMPLE,), weights="missing.pt")


DYNAMO = {
    "linear": lambda: nn.Sequential(grid(), qnn.QuantLinear(16, 8, **CONV, bias=False)),
    "quantized tensors": lambda: nn.Sequential(
        grid(return_quant_tensor=True), qnn.QuantReLU(bit_width=1, return_quant_tensor=True)
    ),
    "floored weights": lambda: nn.Sequential(
        grid(), qnn.QuantLinear(16, 8, weight_bit_width=4, bias=False,
                                weight_float_to_int_impl_type=FloatToIntImplType.FLOOR)
    ),
    "shared quantizer": lambda: Net(lambda net, x: net.q(net.q(x) + net.q(2 * x)), q=grid()),
}  # fmt: skip


@pytest.mark.parametrize("name", DYNAMO)
def test_torch_export_gives_the_same_function(name):
    case = Case(name, DYNAMO[name])
    module = make(case)
    ir = load(module, *samples_of(case), dynamo=True)
    session = Session(ir)
    for feeds in feeds_for(case, ir):
        gaps, count = differences(ask_torch(module, feeds), ask_executor(session, ir, feeds))
        assert count > 0
        assert gaps.max() <= case.tolerance
    assert list(quantizers(ir)) == list(quantizers(load(module, *samples_of(case))))


@pytest.mark.parametrize("dynamo", [False, True])
def test_no_file_of_the_machine_is_named_in_the_model(dynamo):
    case = Case("linear", DYNAMO["linear"])
    message = onnx_ir.to_proto(load(make(case), *samples_of(case), dynamo=dynamo))
    assert ".py" not in str(message)
