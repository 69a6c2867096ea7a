"""Where models come from: callables, files of weights, several inputs and outputs."""

import json
import sys

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import qonnx_hub as qh
from qonnx_hub.cli import main
from qonnx_hub.io import registry
from qonnx_hub_adapters.pytorch.importer import PyTorchImporter
from qonnx_hub_ir import SourceError
from tests.adapters.pytorch.kit import Mixed, fx_qat, load, make_dyadic, normal_inputs, pt2e

BUILDER = """
import torch
from tests.adapters.pytorch.kit import fx_qat, make_dyadic


def build():
    return make_dyadic(fx_qat(4))
"""


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["qonnx-hub", *arguments])
    try:
        main()
    except SystemExit as ended:
        return ended.code
    return 0


@pytest.mark.parametrize(
    "make", [Mixed, lambda: fx_qat(4), lambda: pt2e(4)], ids=["plain", "FX", "PT2E"]
)
def test_modules_are_accepted_without_a_format(make):
    assert isinstance(registry.find_importer(make()), PyTorchImporter)


def test_files_of_programs_are_accepted_by_their_suffix():
    assert PyTorchImporter().accepts("net.pt2")
    assert not PyTorchImporter().accepts("net.onnx")
    assert not PyTorchImporter().accepts("net.pt")


def test_weights_of_a_file_are_those_of_the_model_that_is_read(tmp_path):
    torch.manual_seed(0)
    trained, fresh = Mixed().eval(), Mixed().eval()
    path = tmp_path / "weights.pt"
    torch.save({"state_dict": trained.state_dict()}, path)
    before = fresh.fc.weight.clone()
    report = qh.convert(fresh, None, args=(torch.zeros(1, 3, 8, 8),), weights=str(path))
    assert torch.equal(fresh.fc.weight, before)
    assert report.own
    x = normal_inputs(4)
    answer = qh.run(report.model, {"x": x})["output"]
    with torch.no_grad():
        assert np.abs(answer - trained(torch.from_numpy(x)).numpy()).max() < 1e-6


def test_weights_of_quantizers_are_read_as_well(tmp_path):
    # An untrained model has scales of one channel where the trained one has eight.
    trained = make_dyadic(fx_qat(4))
    path = tmp_path / "weights.pt"
    torch.save(trained.state_dict(), path)
    other = make_dyadic(fx_qat(4))
    other.activation_post_process_0.scale.fill_(2.0)
    ir = qh.load(other, args=(torch.zeros(1, 3, 8, 8),), weights=str(path), verify=False)
    x = normal_inputs(4)
    expected = PyTorchImporter().run_source(trained, {"x": x})
    assert expected is not None
    assert np.array_equal(qh.run(ir, {"x": x})["output"], expected["output"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [({"fc.weight": torch.zeros(2, 2)}, "does not fit the module"), ([1, 2], "no state dict")],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, content, reason):
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    with pytest.raises(SourceError, match=reason):
        qh.load(Mixed(), args=(torch.zeros(1, 3, 8, 8),), weights=str(path))


def test_weights_that_hold_code_are_refused(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(Mixed(), path)
    with pytest.raises(SourceError, match="no file of tensors alone"):
        qh.load(Mixed(), args=(torch.zeros(1, 3, 8, 8),), weights=str(path))


def test_the_command_line_converts_a_callable_with_weights(tmp_path, monkeypatch, capsys):
    (tmp_path / "nets_of_a_user.py").write_text(BUILDER)
    torch.save(make_dyadic(fx_qat(4)).state_dict(), tmp_path / "weights.pt")
    monkeypatch.chdir(tmp_path)
    code = run(
        monkeypatch,
        *("convert", "nets_of_a_user:build", "-o", "out.onnx", "--from", "pytorch"),
        *("--input-shape", "1,3,8,8", "--weights", "weights.pt", "--json", "report.json"),
    )
    assert code == 0, capsys.readouterr()
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["source_itself"]["verdict"] == "EQUAL"
    onnx.checker.check_model(onnx.load(tmp_path / "out.onnx"))


def test_the_command_line_asks_for_a_sample(tmp_path, monkeypatch, capsys):
    (tmp_path / "more_nets_of_a_user.py").write_text(BUILDER)
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "convert", "more_nets_of_a_user:build", "-o", "out.onnx") == 2
    assert "--input-shape" in capsys.readouterr().err
    assert not (tmp_path / "out.onnx").exists()


class Two(nn.Module):
    def forward(self, left, right):
        half = torch.fake_quantize_per_tensor_affine(left, 0.5, 0, -8, 7)
        return {"sum": half + right, "same": left, "both": (right, half)}


def test_several_inputs_and_outputs_keep_their_order():
    args = (torch.zeros(1, 4), torch.zeros(1, 4))
    ir = qh.load(Two(), args=args)
    assert [value.name for value in ir.graph.inputs] == ["left", "right"]
    rng = np.random.default_rng(0)
    feeds = {n: rng.normal(size=(1, 4)).astype(np.float32) for n in ("left", "right")}
    found = qh.run(ir, feeds)
    own = PyTorchImporter().run_source(Two(), feeds)
    assert own is not None
    assert list(found) == [f"output_{index}" for index in range(4)]
    for name, value in found.items():
        assert np.array_equal(value, own[name])


def test_an_unused_input_stays_an_input():
    class Unused(nn.Module):
        def forward(self, x, y):
            return x * 2

    ir = qh.load(Unused(), args=(torch.zeros(1, 4), torch.zeros(1, 2)))
    assert [value.name for value in ir.graph.inputs] == ["x", "y"]


def test_integer_inputs_are_read():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2)).eval()
    ids = np.arange(6, dtype=np.int64).reshape(2, 3)
    ir = load(model, torch.from_numpy(ids))
    with torch.no_grad():
        expected = model(torch.from_numpy(ids)).numpy()
    assert np.abs(qh.run(ir, {"input": ids})["output"] - expected).max() < 1e-6


def test_a_wrapped_module_is_unwrapped():
    torch.manual_seed(0)
    model = nn.DataParallel(Mixed().eval())
    x = normal_inputs(2)
    ir = load(model, torch.from_numpy(x))
    with torch.no_grad():
        expected = model.module(torch.from_numpy(x)).numpy()
    assert np.abs(qh.run(ir, {"x": x})["output"] - expected).max() < 1e-6
