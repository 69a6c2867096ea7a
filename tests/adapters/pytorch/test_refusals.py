"""What cannot be read is refused by name, in one message."""

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao import quantization as tq
from torch.ao.quantization.quantize_fx import convert_fx, prepare_qat_fx

import qonnx_hub as qh
from qonnx_hub_adapters.pytorch.importer import PyTorchImporter
from qonnx_hub_ir import SourceError, UnsupportedGraphError, UsageError
from tests.adapters.pytorch.kit import FUSED, Calls, Mixed, fx_qat, load, pt2e

X = torch.zeros(1, 4)


def decomposed(x):
    lib = torch.ops.quantized_decomposed
    return lib.quantize_per_tensor.default(x, 0.1, 0, -8, 7, torch.int8)


def mismatched(x):
    lib = torch.ops.quantized_decomposed
    return lib.dequantize_per_tensor.default(decomposed(x), 0.2, 0, -8, 7, torch.int8)


def run_time_scale(x):
    zero = torch.zeros(1, dtype=torch.int32)
    return torch.fake_quantize_per_tensor_affine(x, x.abs().max()[None], zero, -8, 7)


def double(x):
    return torch.fake_quantize_per_tensor_affine(x.double(), 0.1, 0, -8, 7).float()


def float_zero_points(x):
    ones = torch.ones(4)
    return torch.fake_quantize_per_channel_affine(x, ones, ones * 2, 1, -8, 7)


UNSUPPORTED = [
    (lambda x: decomposed(x) * 2, "integers are read by aten::mul"),
    (mismatched, "other parameters than the quantize operator"),
    (run_time_scale, "its scale is computed at run time"),
    (double, "gives torch.float64"),
    (float_zero_points, "its zero points are floats"),
    (lambda x: x + torch.rand_like(x), "draws random values"),
    (lambda x: nn.functional.dropout(x, 0.5, training=True), "draws random values"),
    (
        lambda x: torch.fake_quantize_per_tensor_affine(x, 1e-45, 0, -8, 7),
        "its scale is not above zero, or too small",
    ),
]


@pytest.mark.parametrize(("function", "reason"), UNSUPPORTED)
def test_a_node_that_cannot_be_said_is_named(function, reason):
    with pytest.raises(UnsupportedGraphError, match=re.escape(reason)) as caught:
        load(Calls(function), X)
    assert len(caught.value.gaps) == 1


def test_all_gaps_are_listed_not_only_the_first():
    def two(x):
        return run_time_scale(x) + torch.rand_like(x)

    with pytest.raises(UnsupportedGraphError) as caught:
        load(Calls(two), X)
    assert len(caught.value.gaps) == 2


def test_a_layer_inside_of_the_model_is_named_by_its_path():
    class Inner(nn.Module):
        def forward(self, x):
            return run_time_scale(x)

    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(Inner()))
    with pytest.raises(UnsupportedGraphError, match=r"'1\.0\.fake_quantize"):
        load(model, X)


def test_a_module_that_fails_on_the_sample_is_named():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(5, 5)))
    with pytest.raises(SourceError, match=r"cannot follow the model in module '1\.0'"):
        load(model, X)


def test_a_model_that_decides_by_its_data_is_refused():
    model = Calls(lambda x: x if x.sum() > 0 else -x)
    with pytest.raises(SourceError, match="cannot follow the model"):
        load(model, X)


def test_an_operator_without_an_onnx_form_is_named():
    model = Calls(lambda x: torch.special.bessel_j0(x))
    with pytest.raises((SourceError, UnsupportedGraphError), match="bessel_j0"):
        load(model, X)


def test_a_quantizer_without_data_is_refused():
    torch.manual_seed(0)
    config = tq.QConfigMapping().set_global(tq.get_default_qat_qconfig("fbgemm"))
    model = prepare_qat_fx(Mixed().train(), config, (torch.zeros(1, 3, 8, 8),))
    with pytest.raises(UnsupportedGraphError, match="has seen no data") as caught:
        load(model, torch.zeros(1, 3, 8, 8))
    assert "activation_post_process_0" in [gap.node for gap in caught.value.gaps]


def test_converted_modules_of_packed_integers_are_refused_with_a_remedy():
    model = convert_fx(fx_qat(8).eval())
    with pytest.raises(UnsupportedGraphError, match="as it was before convert_fx") as caught:
        load(model, torch.zeros(1, 3, 8, 8))
    assert "conv" in [gap.node for gap in caught.value.gaps]


def test_a_program_with_observers_on_is_refused():
    program = torch.export.export(pt2e(4, FUSED), (torch.zeros(4, 3, 8, 8),), strict=False)
    with pytest.raises(UnsupportedGraphError, match="its observer is on"):
        load(program, None)


def test_a_program_that_normalizes_by_the_batch_is_refused():
    program = torch.export.export(Mixed().train(), (torch.zeros(4, 3, 8, 8),))
    with pytest.raises(UnsupportedGraphError, match="statistics of the batch"):
        load(program, None)


def test_a_model_with_a_state_is_refused():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x):
            self.count.add_(1)
            return x + self.count

    with pytest.raises(UnsupportedGraphError, match="writes into 'count'"):
        load(Counter(), X)


def test_layers_of_other_importers_are_sent_there():
    layer = type("QuantLinear", (nn.Linear,), {"__module__": "brevitas.nn.quant_linear"})
    model = nn.Sequential(layer(4, 4))
    model[0].inner = layer(4, 4)
    with pytest.raises(UnsupportedGraphError, match="--from brevitas") as caught:
        load(model, X)
    assert [gap.node for gap in caught.value.gaps] == ["0"]


def test_hawq_layers_are_sent_to_their_importer():
    from tests.adapters.hawq import hawq_standin

    model = nn.Sequential(hawq_standin.QuantAct(4))
    with pytest.raises(UnsupportedGraphError, match="--from hawq"):
        load(model, X)


def test_a_module_without_a_sample_is_a_usage_error():
    with pytest.raises(UsageError, match=re.escape("give args=(x,)")):
        load(Mixed(), None)


def test_an_unknown_option_is_a_usage_error():
    with pytest.raises(UsageError, match="no option color"):
        load(Mixed(), X, color="red")


def test_an_unknown_mode_is_a_usage_error():
    with pytest.raises(UsageError, match="there are: exact, quant"):
        load(Mixed(), X, mode="fast")


def test_weights_for_a_program_are_a_usage_error(tmp_path):
    program = torch.export.export(nn.Linear(4, 4), (X,))
    with pytest.raises(UsageError, match="has its weights already"):
        qh.load(program, "pytorch", weights=str(tmp_path / "w.pt"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"no archive at all"])
def test_a_broken_file_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "broken.pt2"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"broken\.pt2") as caught:
        qh.load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(SourceError, match="does not exist"):
        qh.load(tmp_path / "none.pt2")


def test_what_is_no_model_is_refused():
    with pytest.raises(SourceError, match="no model of PyTorch"):
        qh.load(np.zeros(3), "pytorch")


def test_a_list_of_inputs_is_refused():
    model = Calls(lambda x: x[0] + x[1])
    importer = PyTorchImporter()
    assert importer.accepts(model)
    with pytest.raises((UsageError, SourceError)):
        qh.load(model, "pytorch", args=([X, X, X[:, :2]],))
