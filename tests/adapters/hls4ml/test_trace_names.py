"""Which tensor a layer of hls4ml stands for, told by names alone.

The keys are those that hls4ml 1.3.0 gives for these files; the values come from the executor.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

import qonnx_hub as qh
from qonnx_hub.equivalence.verdicts import Verdict
from qonnx_hub_adapters.hls4ml.tensor_map import StoredTensor
from qonnx_hub_adapters.hls4ml.traces import read_trace
from qonnx_hub_ir.errors import SourceError, UsageError
from tests.adapters.hls4ml import nets
from tests.adapters.hls4ml.harness import export, lattice, stored

KEYS = {
    "Conv2D_Conv_0": "Conv_0_out0",
    "BatchNormalization_0": "BatchNormalization_0_out0",
    "Relu_0": "Relu_0_out0",
    "Quant_5_act": "Quant_5_out0",
    "MaxPool_0": "MaxPool_0_out0",
    "Conv2D_Conv_1": "Conv_1_out0",
    "BatchNormalization_1": "BatchNormalization_1_out0",
    "Relu_1": "Relu_1_out0",
    "Quant_6_act": "Quant_6_out0",
    "DepthwiseConv2D_Conv_2": "Conv_2_out0",
    "BatchNormalization_2": "BatchNormalization_2_out0",
    "Quant_7_act": "Quant_7_out0",
    "Dense_MatMul_0": "MatMul_0_out0",
    "BatchNormalization_3": "global_out",
}
ROUNDING = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Return source, folder, the source's inputs, the folder's inputs, and the trace."""
    folder = tmp_path_factory.mktemp("names") / "out"
    source = nets.qkeras_cnn()
    export(source, folder)
    feeds = lattice(source, 4, 2.0)
    port = json.loads((folder / "report.json").read_text())["inputs"][0]
    own = {"global_in": stored(port, feeds["x"])}
    values = qh.run(folder / "model.onnx", own, all_tensors=True)
    return source, folder, feeds, own, {key: values[name] for key, name in KEYS.items()}


def saved(folder, arrays):
    np.savez(folder / "trace.npz", **arrays)
    return folder / "trace.npz"


def test_every_layer_finds_its_tensor(recorded):
    _, folder, _, own, trace = recorded
    found = read_trace(trace, qh.load(folder / "model.onnx"))
    assert set(found.arrays) == set(KEYS.values())
    assert found.notes == ()
    assert qh.check(folder / "model.onnx", saved(folder, trace), own).verdict is Verdict.EQUAL


def test_a_trace_far_from_its_folder_is_read_with_the_model_itself(recorded, tmp_path):
    _, folder, _, own, trace = recorded
    result = qh.check(folder / "model.onnx", saved(tmp_path, trace), own)
    assert (result.verdict, result.layers) == (Verdict.EQUAL, len(KEYS) - 1)


def test_a_trace_can_be_the_reference(recorded):
    _, folder, _, own, trace = recorded
    result = qh.check(saved(folder, trace), folder / "model.onnx", own)
    assert (result.verdict, result.layers) == (Verdict.EQUAL, len(KEYS) - 1)


def test_a_changed_layer_is_named_under_the_name_of_the_source(recorded):
    source, folder, feeds, _, trace = recorded
    wrong = {**trace, "MaxPool_0": trace["MaxPool_0"].copy()}
    wrong["MaxPool_0"][2, 1, 3, 2] += 1  # sample, row, column, channel
    result = qh.check(source, saved(folder, wrong), feeds, **ROUNDING)
    assert result.first_divergence.source == "n7"
    assert result.first_divergence.comparison.max_abs == 1
    clean = qh.check(source, saved(folder, trace), feeds, **ROUNDING)
    assert clean.first_divergence is None
    assert clean.layers >= 10


def test_the_source_needs_the_folder_beside_the_trace(recorded, tmp_path):
    source, _, feeds, _, trace = recorded
    with pytest.raises(UsageError, match="counterpart"):
        qh.check(source, saved(tmp_path, trace), feeds)


def test_layers_that_were_merged_are_left_out_by_name(recorded):
    _, folder, _, own, trace = recorded
    left = {k: v for k, v in trace.items() if k != "BatchNormalization_1"}
    result = qh.check(folder / "model.onnx", saved(folder, left), own)
    assert "Conv_1_out0" not in {row.source for row in result.layer_rows}
    (note,) = (note for note in result.notes if "Conv2D_Conv_1" in note)
    assert "'BatchNormalization_1' behind it was not traced" in note


def test_layers_that_nobody_knows_are_left_out_by_name(recorded):
    _, folder, _, own, trace = recorded
    more = {
        "Quant_5_rescale": trace["Quant_5_act"],
        "Dense_Conv_0": trace["Conv2D_Conv_0"],
        "mystery": trace["Relu_0"],
    }
    result = qh.check(folder / "model.onnx", saved(folder, {**trace, **more}), own)
    assert result.verdict is Verdict.EQUAL
    for key in more:
        assert any(f"layer '{key}' of hls4ml" in note for note in result.notes), key


def test_a_layer_of_another_size_is_left_out_by_name(recorded):
    _, folder, _, own, trace = recorded
    wrong = {**trace, "MaxPool_0": trace["MaxPool_0"][:, 1:]}
    result = qh.check(folder / "model.onnx", saved(folder, wrong), own)
    assert any("'MaxPool_0' of hls4ml: its shape [4, 3, 4, 4]" in n for n in result.notes)


def test_float_noise_comes_with_the_tolerance_that_looks_past_it(recorded):
    _, folder, _, own, trace = recorded
    near = {**trace, "Relu_0": np.nextafter(trace["Relu_0"], np.float32(9))}
    path = saved(folder, near)
    strict = qh.check(folder / "model.onnx", path, own)
    assert any("--rtol 1e-5" in note for note in strict.notes)
    assert qh.check(folder / "model.onnx", path, own, **ROUNDING).first_divergence is None


def test_bits_stand_for_signs(tmp_path):
    net = nets.Net(4)
    y = net.bipolar(net.add("MatMul", [net.quant("x", 4, 0.5), net.weights((6, 5), 4, 0.25)]))
    signs = net.constant(net.random.normal(0, 1, (5, 3)).astype(np.float32))
    out = net.add("MatMul", [y, net.bipolar(signs)])
    folder = export(net.model((1, 6), out), tmp_path / "out")
    model = qh.load(folder / "model.onnx")
    last = next(n for n in reversed(list(model.graph)) if n.op_type == "MatMul")
    sign = last.inputs[0].producer()
    assert sign.op_type == "BipolarQuant"
    bits = np.array([[0, 1, 1, 0, 1]], dtype=np.float32)
    found = read_trace({f"{sign.name}_act": bits}, model)
    assert found.arrays[sign.outputs[0].name].tolist() == [[-1, 1, 1, -1, 1]]


def test_stored_values_become_those_of_the_source():
    # Two channels of 1x2, channels last and in a row: source positions 0, 2, 1, 3.
    rows = StoredTensor(
        "a", "b", (1, 4), (0, 1), (0, 2, 1, 3), (2.0,), (0.0, 0.0, -9.0, 1.0), relu=True
    )
    got = rows.value_of(np.array([[1, 2, 3, 4]], dtype=np.float32))
    assert got.tolist() == [[2, 0, 4, 9]]
    image = StoredTensor("a", "b", (1, 2, 1, 3), (0, 3, 1, 2))
    last = np.arange(6, dtype=np.float32).reshape(1, 1, 3, 2)
    assert image.value_of(last).tolist() == [[[[0, 2, 4]], [[1, 3, 5]]]]


def test_a_list_of_tensors_that_was_cut_off_is_one_clear_error(recorded, tmp_path):
    source, folder, feeds, _, trace = recorded
    for name in ("model.onnx", "tensors.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "tensors.json").write_text("[{}]")
    with pytest.raises(SourceError, match=r"tensors\.json' cannot be read"):
        qh.check(source, saved(tmp_path, trace), feeds)


def test_layers_are_made_traceable_on_request(tmp_path):
    for name, option in (("with", {"trace": "true"}), ("without", {})):
        export(nets.residual_net(), tmp_path / name, **option)
    entries = (tmp_path / "with" / "hls4ml_config.yml").read_text().count("Trace: true")
    assert entries == 19  # the input, and every layer that is not a constant
    assert "Trace" not in (tmp_path / "without" / "hls4ml_config.yml").read_text()


def test_a_trace_option_that_is_neither_true_nor_false_is_refused(tmp_path):
    with pytest.raises(UsageError, match="neither true nor false"):
        export(nets.residual_net(), tmp_path / "out", trace="maybe")
