"""Models from files: what was saved is what is converted."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnx_ir
import pytest

import qonnx_hub as qh
from qonnx_hub_ir.errors import HubError, SourceError
from tests.adapters.qkeras.helpers import (
    Arrays,
    ask_executor,
    ask_keras,
    convert,
    differences,
    quantizers,
)
from tests.adapters.qkeras.kit import GENERATION, Case, inputs_for, set_weights
from tests.adapters.qkeras.model_cases import cnn
from tests.support import SHARED, needs_shared

CASE = Case("file", cnn, 8)
HLS4ML = SHARED / "models" / "hls4ml_examples"
MLPERF = SHARED / "models" / "mlperf_tiny"

keras_2 = pytest.mark.skipif(GENERATION != 2, reason="files of Keras 2")
keras_3 = pytest.mark.skipif(GENERATION != 3, reason="files of Keras 3")


@pytest.fixture
def saved(kit):
    """A small CNN with weights, its inputs and Keras' answer."""
    model = cnn(kit)
    set_weights(model)
    feeds = inputs_for(model, CASE)
    return model, feeds, ask_keras(model, feeds)


def same(source: str, feeds: Arrays, expected: Arrays, **options) -> None:
    ir = qh.load(source, **options)
    assert len(quantizers(ir)) == CASE.quantizers
    assert all(
        np.array_equal(a, b) for a, b in zip(expected, ask_executor(ir, feeds), strict=True)
    )


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_a_saved_model_converts_as_the_live_one(saved, tmp_path, suffix) -> None:
    model, feeds, expected = saved
    path = tmp_path / f"model{suffix}"
    model.save(path)
    same(str(path), feeds, expected)


@keras_2
def test_a_saved_model_folder_converts_as_the_live_one(saved, tmp_path) -> None:
    model, feeds, expected = saved
    model.save(tmp_path / "folder", save_format="tf")
    same(str(tmp_path / "folder"), feeds, expected, allow_code=True)
    with pytest.raises(SourceError, match="SavedModel folder, which holds code"):
        qh.load(tmp_path / "folder")


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_code_in_a_file_runs_only_if_it_is_allowed(kit, tmp_path, suffix) -> None:
    model = kit.model((6,), kit.layers.Lambda(lambda x: 2 * x), kit.layers.Dense(3))
    path = tmp_path / f"m{suffix}"
    model.save(path)
    for source in (None, "qkeras"):
        with pytest.raises(HubError, match=r"lambda.*holds code"):
            qh.load(path, from_=source)
    feeds = inputs_for(model, CASE)
    found = ask_executor(qh.load(path, allow_code=True), feeds)[0]
    np.testing.assert_allclose(found, ask_keras(model, feeds)[0], rtol=1e-6)


def test_an_architecture_converts_with_its_weights(saved, tmp_path) -> None:
    model, feeds, expected = saved
    (tmp_path / "m.json").write_text(model.to_json())
    weights = str(tmp_path / "m.weights.h5")
    model.save_weights(weights)
    same(str(tmp_path / "m.json"), feeds, expected, weights=weights)


def test_an_architecture_without_weights_says_how_to_give_them(saved, tmp_path) -> None:
    (tmp_path / "m.json").write_text(saved[0].to_json())
    with pytest.raises(SourceError, match="--weights"):
        qh.load(tmp_path / "m.json")


def test_weights_that_do_not_fit_are_refused(kit, saved, tmp_path) -> None:
    (tmp_path / "m.json").write_text(saved[0].to_json())
    other = kit.model((5,), kit.layers.Dense(2))
    other.save_weights(str(tmp_path / "other.weights.h5"))
    with pytest.raises(SourceError, match="does not fit"):
        qh.load(tmp_path / "m.json", weights=str(tmp_path / "other.weights.h5"))


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_a_quantizer_object_in_an_activation_survives_the_file(kit, tmp_path, suffix) -> None:
    model = kit.model(
        (6,), kit.q.QActivation(kit.q.quantized_relu(4, 1, negative_slope=0.25), name="act")
    )
    feeds = inputs_for(model, CASE)
    path = tmp_path / f"m{suffix}"
    model.save(path)
    assert (
        differences(ask_keras(model, feeds), ask_executor(qh.load(path), feeds), 0.0)[0] == 0
    )


def test_a_class_of_the_users_own_is_asked_for_and_then_used(kit, tmp_path) -> None:
    class Doubled(kit.layers.Layer):
        def call(self, x):
            return 2 * x

    model = kit.model((6,), Doubled(), kit.q.QActivation("quantized_relu(4,2)"))
    path = tmp_path / "m.keras"
    model.save(path)
    with pytest.raises(HubError, match="Doubled") as caught:
        qh.load(path)
    assert "custom_objects" in str(caught.value)
    ir = qh.load(path, custom_objects={"Doubled": Doubled})
    feeds = inputs_for(model, CASE)
    assert np.array_equal(ask_keras(model, feeds)[0], ask_executor(ir, feeds)[0])


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_a_broken_file_is_refused_in_one_sentence(tmp_path, suffix) -> None:
    path = tmp_path / f"m{suffix}"
    path.write_bytes(b"not a model")
    with pytest.raises(SourceError, match="cut off"):
        qh.load(path)
    path.write_bytes(b"")
    with pytest.raises(SourceError, match="empty"):
        qh.load(path)


def test_a_json_file_of_something_else_is_not_taken(tmp_path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(Exception, match="no importer reads"):
        qh.load(tmp_path / "x.json")


def test_a_dense_layer_with_folded_normalization_loads_from_a_file(kit, tmp_path) -> None:
    layer = kit.q.QDenseBatchnorm(
        5,
        kernel_quantizer=kit.q.quantized_bits(6, 2, alpha=1),
        bias_quantizer=kit.q.quantized_bits(8, 3, alpha=1),
        name="folded",
    )
    model = kit.model((6,), layer)
    set_weights(model)
    path = tmp_path / ("m.h5" if GENERATION == 2 else "m.keras")
    model.save(path)
    feeds = inputs_for(model, CASE)
    ir = qh.load(path)
    assert quantizers(ir) == ["Quant", "Quant"]
    assert np.array_equal(ask_keras(model, feeds)[0], ask_executor(ir, feeds)[0])


def recorded(name: str) -> tuple[Arrays, Arrays]:
    folder = MLPERF if (MLPERF / name).exists() else HLS4ML
    data = np.load(folder / name)
    return [data["x"].astype(np.float32)], [data["y"]]


PUBLIC = [
    ("qkeras_3layer.json", "qkeras_3layer_weights.h5", "qkeras_3layer", 11),
    ("qkeras_mnist_cnn.json", "qkeras_mnist_cnn_weights.h5", "qkeras_mnist_cnn", 8),
    ("ad03_model_ToyCar.h5", None, "ad03_model_ToyCar", 11),
    ("rn06_tiny_model_best.h5", None, "rn06_tiny_model_best", 11),
    ("qkeras-v3_3layer.keras", None, "qkeras-v3_3layer", 11),
]
"""Files of Keras 2, and one of Keras 3: each is read in either environment."""


def public(file: str, weights: str | None):
    folder = MLPERF if (MLPERF / file).exists() else HLS4ML
    return qh.load(folder / file, weights=None if weights is None else str(folder / weights))


@needs_shared
@pytest.mark.parametrize(("file", "weights", "name", "count"), PUBLIC)
def test_a_public_model_gives_its_recorded_answers(file, weights, name, count) -> None:
    ir = public(file, weights)
    feeds, expected = recorded(f"{name}.io.npz")
    share, largest = differences(expected, ask_executor(ir, feeds), 1e-5)
    assert share == 0, f"{share:.2%} differ, by up to {largest:g}"
    assert len(quantizers(ir)) == count


@needs_shared
@pytest.mark.parametrize(("file", "weights", "name", "count"), PUBLIC)
def test_a_public_model_runs_equally_in_qonnx_and_in_onnxruntime(
    file, weights, name, count, tmp_path
) -> None:
    ir = public(file, weights)
    feeds, expected = recorded(f"{name}.io.npz")
    few = [feeds[0][:4]]
    got = ask_qonnx(qh.save(ir, tmp_path / "q.onnx").to_proto(), few)
    assert differences([expected[0][:4]], got, 1e-5)[0] == 0
    qh.save(ir, tmp_path / "qcdq.onnx", format="qcdq")
    assert differences(expected, ask_onnxruntime(tmp_path / "qcdq.onnx", feeds), 1e-5)[0] == 0


def ask_qonnx(proto: onnx.ModelProto, feeds: Arrays) -> Arrays:
    pytest.importorskip("qonnx", reason="the qonnx package executes the file")
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    for value, feed in zip(proto.graph.input, feeds, strict=True):
        value.type.tensor_type.shape.dim[0].dim_value = len(feed)
    model = ModelWrapper(proto).transform(InferShapes())
    names = [value.name for value in proto.graph.input]
    return list(execute_onnx(model, dict(zip(names, feeds, strict=True))).values())


def ask_onnxruntime(path, feeds: Arrays) -> Arrays:
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime executes the file")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return list(session.run(None, dict(zip(names, feeds, strict=True))))


def test_a_converted_model_is_written_and_read_back(saved, tmp_path) -> None:
    model, feeds, expected = saved
    qh.save(convert(model), tmp_path / "m.onnx")
    back = qh.load(onnx_ir.from_proto(onnx.load(tmp_path / "m.onnx")))
    assert np.array_equal(ask_executor(back, feeds)[0], expected[0])


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_a_model_inside_two_others_is_read_where_it_was_written(kit, tmp_path, suffix) -> None:
    def around(name: str, part):
        start = kit.keras.Input((4,))
        ends = kit.layers.Dense(4, name=f"after_{name}")(part(start))
        return kit.keras.Model(start, ends, name=name)

    common = kit.model((4,), kit.layers.Dense(4, name="common"))
    start = kit.keras.Input((4,), name="x")
    inside = around("left", common)(start), around("right", common)(start)
    model = kit.keras.Model(start, kit.layers.Subtract()(list(inside)))
    model = kit.model((4,), model) if suffix == ".h5" else model
    model.save(tmp_path / f"net{suffix}")
    x = np.linspace(-1, 1, 20, dtype=np.float32).reshape(5, 4)
    ir = qh.load(tmp_path / f"net{suffix}", from_="keras")
    (found,) = qh.run(ir, {ir.graph.inputs[0].name: x}).values()
    np.testing.assert_allclose(found, np.asarray(model(x)), rtol=0, atol=1e-6)
