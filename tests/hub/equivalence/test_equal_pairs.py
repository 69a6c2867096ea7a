"""What is equal is called equal, outputs and layers, in every form it is written in."""

from __future__ import annotations

from pathlib import Path

import onnx_ir
import pytest

import qonnx_hub as qh
from qonnx_hub.equivalence.verdicts import Verdict
from qonnx_hub.io.registry import find_exporter
from qonnx_hub_adapters.protocol import export_options

MODELS = Path(__file__).resolve().parents[4] / "shared" / "models"
FORMS = [
    ("qonnx", "auto", "int8"),
    ("qcdq", "auto", "int8"),
    ("qcdq", "auto", "int4"),
    ("qcdq", "float", "int8"),
    ("qcdq", "qcdq", "int8"),
]


def exported(model, form, encoding, weights):
    own = {} if form == "qonnx" else {"encoding": encoding, "stored_weights": weights}
    return onnx_ir.to_proto(find_exporter(form).export(model, export_options(**own)).model)


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_an_export_is_equal_to_its_source(net, form):
    model = qh.load(net)
    result = qh.check(model, exported(model, *form), samples=32)
    assert result.verdict is Verdict.PROVEN, result.table()
    assert result.first_divergence is None, result.table()
    assert result.latent == ()
    assert result.layers >= 8


@pytest.mark.parametrize("name", ["TFC_2W2A", "TFC_1W1A", "kwsmlp_w3a3", "qkeras_jettagging"])
def test_an_export_of_a_published_model_is_equal_to_it(name):
    path = MODELS / "zoo" / f"{name}.onnx"
    if not path.exists():
        pytest.skip("the published models are not here")
    model = qh.load(str(path))
    result = qh.check(model, exported(model, "qcdq", "auto", "int8"), samples=16)
    assert result.verdict is Verdict.PROVEN, result.table()
    assert (result.first_divergence, result.latent) == (None, ())


def test_a_model_is_equal_to_itself_on_onnxruntime(net, tmp_path):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "net.onnx"
    qh.convert(net, path, to="qcdq")
    # Two libraries add in two orders: equal up to that, and named so.
    result = qh.check(net, path, backend="ort", samples=16, atol=0.01, lsb=1)
    assert result.layers > 5
    assert {str(f.cause) for f in result.findings} <= {
        "float reordering noise",
        "flipped rounding tie",
    }, result.table()
