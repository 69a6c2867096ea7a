"""From PyTorch to the written forms: each computes what torch does."""

import numpy as np
import pytest
import torch

import qonnx_hub as qh
from tests.adapters.pytorch.kit import (
    FUSED,
    dyadic_inputs,
    fx_qat,
    load,
    make_dyadic,
    pt2e,
    reference,
)

FORMS = ("qonnx", "qcdq", "qlinear")


@pytest.fixture(scope="module", params=[8, 4, 2])
def prepared(request):
    model = make_dyadic(fx_qat(request.param))
    return model, load(model, torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("to", FORMS)
def test_a_written_file_is_torch_bit_for_bit(prepared, to, tmp_path):
    model, ir = prepared
    path = tmp_path / "net.onnx"
    qh.save(ir, path, to)
    x = dyadic_inputs(8)
    answer = qh.run(path, {"x": x})["output"]
    assert np.array_equal(answer, reference(model, x))


@pytest.mark.parametrize("to", FORMS)
def test_a_written_file_passes_the_check_against_the_live_model(to, tmp_path):
    model = make_dyadic(fx_qat(4))
    sample = torch.zeros(1, 3, 8, 8)
    report = qh.convert(model, tmp_path / "net.onnx", to, args=(sample,), samples=8)
    assert report.check
    assert report.own is not None
    assert report.own.verdict.value in {"EQUAL", "PROVEN"}
    assert all(record.exact for record in report.quantizers)


@pytest.fixture(scope="module")
def odd_scales():
    return load(pt2e(4, FUSED), None)


@pytest.mark.parametrize("to", FORMS)
def test_odd_scales_convert_exactly_too(to, odd_scales, tmp_path):
    # What is compared is the file with its IR: both have the same float sums.
    ir = odd_scales
    report = qh.convert(ir, tmp_path / "net.onnx", to, samples=8)
    assert report.check
    # QLinear adds integers where the IR adds products with scales of many digits.
    assert report.check.verdict.value in {"EQUAL", "PROVEN", *(["WITHIN"] * (to == "qlinear"))}


def test_the_bounded_form_says_so_in_the_report(tmp_path):
    model = make_dyadic(fx_qat(4))
    sample = torch.zeros(1, 3, 8, 8)
    report = qh.convert(
        model, tmp_path / "net.onnx", args=(sample,), options={"mode": "quant"}, samples=8
    )
    assert any("one step apart" in note for note in report.notes)
