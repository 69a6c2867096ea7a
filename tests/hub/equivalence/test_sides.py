"""What a side may be: models, runtimes, frameworks, records."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

import qonnx_hub as qh
from qonnx_hub.equivalence.diagnosis.quantizer_causes import Cause
from qonnx_hub.equivalence.verdicts import Verdict
from qonnx_hub.io import registry
from qonnx_hub_adapters.protocol import AdapterInfo
from qonnx_hub_ir.errors import SourceError, UsageError


@pytest.fixture
def feeds():
    x = np.random.default_rng(0).uniform(-2, 2, (40, 12)).astype(np.float32)
    return {"x": x}


@pytest.fixture
def mlp(nets):
    return nets["mlp"]()


def slightly_off(model, surgery):
    other = surgery.copied(model)
    surgery.change_constant(other, "act2.scale", lambda x: np.nextafter(x, np.float32(9)))
    return other


def test_onnxruntime_shows_its_inner_values(mlp, feeds, tmp_path):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "m.onnx"
    qh.convert(mlp, path, to="qcdq")
    result = qh.check(mlp, path, feeds, backend="ort", rtol=1e-4, atol=1e-4)
    sources = {row.source for row in result.layer_rows}
    assert {"in", "fc1", "bn1", "act1", "fc2", "y"} <= sources


def test_a_fault_in_a_file_on_onnxruntime_is_named(mlp, feeds, tmp_path):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "m.onnx"
    qh.convert(mlp, path, to="qcdq")
    model = onnx.load(path)
    scale = next(t for t in model.graph.initializer if t.name.startswith("act1_scale"))
    value = np.frombuffer(scale.raw_data, dtype=np.float32)
    scale.raw_data = (value * np.float32(1.001)).astype(np.float32).tobytes()
    result = qh.check(mlp, model, feeds, backend="ort")
    found = {(f.layer, f.cause) for f in result.findings if f.cause is not Cause.NOISE}
    assert ("act1", Cause.SCALE_ROUNDED) in found, result.table()


def test_only_onnx_files_run_on_onnxruntime(mlp):
    with pytest.raises(UsageError, match="runs ONNX files"):
        qh.check(mlp, qh.load(mlp), backend="ort")


def test_recorded_outputs_are_compared_by_name(mlp, feeds):
    recorded = qh.run(mlp, feeds)
    assert qh.check(mlp, recorded, feeds)
    recorded["y"] = recorded["y"] + np.float32(1)
    assert not qh.check(mlp, recorded, feeds)


def test_recorded_inner_tensors_show_the_layer_and_the_cause(mlp, feeds, surgery):
    recorded = qh.run(slightly_off(mlp, surgery), feeds, all_tensors=True)
    kept = {name: recorded[name] for name in ("fc1", "act1", "act2.relu", "act2", "y")}
    result = qh.check(mlp, kept, feeds)
    assert result.first_divergence.source == "act2"
    assert result.cause is Cause.SCALE_ROUNDED, result.table()


def test_a_record_can_be_the_reference(mlp, feeds):
    recorded = qh.run(mlp, feeds, all_tensors=True)
    result = qh.check({"y": recorded["y"], "act1": recorded["act1"]}, mlp, feeds)
    assert result.verdict is Verdict.EQUAL
    assert [row.source for row in result.layer_rows] == ["act1", "y"]


def test_a_mapping_names_the_tensors_of_a_record(mlp, feeds):
    recorded = qh.run(mlp, feeds, all_tensors=True)
    names = {"y": "final", "act1": "layer_3"}
    renamed = {other: recorded[name] for name, other in names.items()}
    both = {**renamed, "unrelated": recorded["fc1"]}
    result = qh.check(mlp, both, feeds, mapping=names, ignore_outputs=["unrelated"])
    assert [row.source for row in result.layer_rows] == ["act1", "y"]
    assert result.verdict is Verdict.EQUAL
    assert qh.check(mlp, both, feeds, mapping=names).verdict is Verdict.INCOMPLETE


def test_a_record_of_inner_tensors_only_is_judged_by_them(mlp, feeds):
    recorded = qh.run(mlp, feeds, all_tensors=True)["act1"]
    right, wrong = {"act1": recorded}, {"act1": recorded + np.float32(1)}
    assert qh.check(mlp, right, feeds).verdict is Verdict.INCOMPLETE
    waived = qh.check(mlp, right, feeds, ignore_outputs=["y"])
    assert waived.verdict is Verdict.EQUAL
    assert "no output was recorded" in waived.notes[0]
    assert qh.check(mlp, wrong, feeds, ignore_outputs=["y"]).verdict is Verdict.DIFFERENT


def test_a_record_without_a_counterpart_is_an_error(mlp, feeds):
    with pytest.raises(UsageError, match="nothing would be compared"):
        qh.check(mlp, {"z": np.zeros((40, 7), dtype=np.float32)}, feeds)


def test_a_record_needs_its_inputs(mlp):
    with pytest.raises(UsageError, match="inputs that they were recorded"):
        qh.check(mlp, {"y": np.zeros((40, 5), dtype=np.float32)})


def test_a_record_of_fewer_samples_is_an_error(mlp, feeds):
    recorded = {"y": qh.run(mlp, feeds)["y"][:7]}
    with pytest.raises(UsageError, match="holds 7 samples of 'y'"):
        qh.check(mlp, recorded, feeds)


def test_a_mapping_of_unknown_names_is_an_error(mlp, feeds):
    with pytest.raises(UsageError, match="names 'nothing'"):
        qh.check(mlp, mlp, feeds, mapping={"nothing": "y"})


def test_channels_last_records_are_compared_with_channels_first_values(nets):
    model = nets["cnn"]()
    x = {"x": np.random.default_rng(0).uniform(-2, 2, (4, 2, 8, 8)).astype(np.float32)}
    values = qh.run(model, x, all_tensors=True)
    turned = {"act1": values["act1"].transpose(0, 2, 3, 1).copy(), "y": values["y"]}
    result = qh.check(model, turned, x)
    assert (result.verdict, result.first_divergence, result.layers) == (Verdict.EQUAL, None, 1)


def test_other_names_of_inputs_and_outputs_are_matched_by_position(mlp, surgery):
    other = surgery.copied(mlp)
    other.graph.input[0].name = "entrance"
    for node in other.graph.node:
        node.input[:] = ["entrance" if name == "x" else name for name in node.input]
        node.output[:] = ["exit" if name == "y" else name for name in node.output]
    other.graph.output[0].name = "exit"
    result = qh.check(mlp, other)
    assert [(o.name, o.other) for o in result.outputs] == [("y", "exit")]
    assert result.verdict is Verdict.PROVEN
    assert "outputs paired by position: 'y' with 'exit'" in result.notes


def test_a_golden_is_checked_later_without_its_side(mlp, surgery, tmp_path):
    folder = tmp_path / "golden"
    first = qh.check(mlp, mlp, save_golden=folder, samples=20)
    again = qh.check(folder, mlp)
    assert (again.verdict, again.samples, again.layers) == (
        Verdict.EQUAL,
        first.samples,
        first.layers,
    )
    off = qh.check(folder, slightly_off(mlp, surgery))
    assert (off.first_divergence.source, off.cause) == ("act2", Cause.SCALE_ROUNDED)


def test_a_golden_is_not_written_over_other_files(mlp, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="holds files that were not written by"):
        qh.check(mlp, mlp, save_golden=tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_a_golden_is_replaced_by_a_newer_one(mlp, tmp_path):
    qh.check(mlp, mlp, save_golden=tmp_path, samples=4, boundary=False)
    qh.check(mlp, mlp, save_golden=tmp_path, samples=8, boundary=False)
    assert qh.check(tmp_path, mlp).samples == 8


def test_a_broken_golden_is_one_clear_error(mlp, tmp_path):
    qh.check(mlp, mlp, save_golden=tmp_path, samples=4)
    (tmp_path / "golden.json").write_text(json.dumps({"version": 1}))
    with pytest.raises(SourceError, match="no golden folder"):
        qh.check(tmp_path, mlp)


class Live:
    """A live model of a framework that multiplies its IR's answer by ``factor``."""

    def __init__(self, onnx_model, factor=1.0) -> None:
        self.onnx_model, self.factor = onnx_model, factor


class LiveImporter:
    info = AdapterInfo("live", "a framework made up for this test")

    def accepts(self, source):
        return isinstance(source, Live)

    def load(self, source, options):
        return qh.load(source.onnx_model)

    def run_source(self, source, feeds):
        outputs = qh.run(source.onnx_model, feeds)
        return {name: y * np.float32(source.factor) for name, y in outputs.items()}


@pytest.fixture
def live(monkeypatch):
    monkeypatch.setattr(registry, "IMPORTERS", {**registry.IMPORTERS, "live": "live:live"})
    find = registry.Registry.get
    monkeypatch.setattr(
        registry.Registry,
        "get",
        lambda self, name: LiveImporter() if name == "live" else find(self, name),
    )
    return Live


def test_a_live_model_answers_itself(mlp, live):
    assert qh.check(live(mlp), mlp)
    wrong = qh.check(live(mlp, factor=2.0), mlp)
    assert wrong.verdict is Verdict.DIFFERENT
    assert any("differs from its own IR" in note for note in wrong.notes)


def test_layers_of_a_live_model_are_those_of_its_ir(mlp, live, surgery):
    result = qh.check(live(mlp), slightly_off(mlp, surgery), boundary=False)
    if result.findings:
        assert result.findings[0].layer == "act2"
        assert any("layers are those of the IR" in note for note in result.notes)
    else:
        assert result.verdict is Verdict.EQUAL


def test_outputs_of_other_shapes_cannot_be_compared(mlp, nets):
    with pytest.raises(UsageError, match=r"'x' has shape"):
        qh.check(mlp, nets["cnn"]())
