"""The user's model, the console and the working directory stay as they were."""

import copy
import os
import warnings

import pytest
import torch

import qonnx_hub as qh
from qonnx_hub_adapters.pytorch.importer import PyTorchImporter
from qonnx_hub_ir import HubError
from tests.adapters.pytorch.kit import FUSED, Mixed, fx_qat, load, normal_inputs, pt2e

SAMPLE = torch.zeros(4, 3, 8, 8)


def snapshot(model):
    return {
        "state": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "identities": [id(module) for module in model.modules()],
        "training": [module.training for module in model.modules()],
        "gradients": [p.requires_grad for p in model.parameters()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        "code": getattr(model, "code", ""),
        "attributes": [sorted(vars(module)) for module in model.modules()],
    }


def assert_same(before, after):
    assert before.keys() == after.keys()
    for key in before:
        if key != "state":
            assert before[key] == after[key], key
    assert before["state"].keys() == after["state"].keys()
    assert len(before["state"]) > 3
    for name, tensor in before["state"].items():
        assert torch.equal(tensor, after["state"][name]), name


MODELS = [
    ("plain", lambda: Mixed().train()),
    ("FX", lambda: fx_qat(4)),
    ("FX fused", lambda: fx_qat(4, fused=True)),
    ("PT2E fused", lambda: pt2e(4, FUSED)),
]


@pytest.mark.parametrize("make", [pair[1] for pair in MODELS], ids=[p[0] for p in MODELS])
def test_a_model_is_the_same_after_it_was_read_and_run(make):
    model = make()
    before = snapshot(model)
    load(model, SAMPLE)
    PyTorchImporter().run_source(model, {"x": normal_inputs(4)})
    assert_same(before, snapshot(model))


def test_a_model_is_the_same_after_a_failure():
    model = fx_qat(4)
    before = snapshot(model)
    with pytest.raises(HubError):
        load(model, torch.zeros(1, 5, 8, 8))
    assert_same(before, snapshot(model))


def test_a_program_is_the_same_after_it_was_read():
    program = torch.export.export(Mixed().eval(), (SAMPLE,))
    graph, state = str(program.graph), copy.deepcopy(program.state_dict)
    load(program, None)
    PyTorchImporter().run_source(program, {"x": normal_inputs(4)})
    assert str(program.graph) == graph
    assert len(state) > 3
    assert all(torch.equal(state[name], tensor) for name, tensor in program.state_dict.items())


def test_the_ir_does_not_follow_later_training():
    model = Mixed().eval()
    ir = load(model, SAMPLE)
    x = normal_inputs(4)
    before = qh.run(ir, {"x": x})["output"]
    with torch.no_grad():
        model.fc.weight.fill_(0)
    assert (qh.run(ir, {"x": x})["output"] == before).all()


def test_reading_prints_nothing_and_leaves_no_files(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    models = [(fx_qat(4), SAMPLE), (pt2e(4, FUSED), None)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for model, sample in models:
            load(model, sample)
            PyTorchImporter().run_source(model, {"x": normal_inputs(4)})
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert os.listdir(tmp_path) == []


def test_reading_twice_gives_the_same_bytes():
    import onnx_ir

    model = fx_qat(4)
    first, second = (
        onnx_ir.to_proto(load(model, SAMPLE)).SerializeToString(deterministic=True)
        for _ in range(2)
    )
    assert first == second


def test_no_path_of_this_machine_is_written():
    import onnx_ir

    data = onnx_ir.to_proto(load(fx_qat(4), SAMPLE)).SerializeToString()
    assert len(data) > 1000
    for part in (b"site-packages", b"kit.py", b"/torch/", b"stack_trace"):
        assert part not in data
