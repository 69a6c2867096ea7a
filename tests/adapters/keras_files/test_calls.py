"""Calls that compute something else than the layer alone: all are read, or refused."""

from __future__ import annotations

import io
import json
import zipfile

import h5py
import numpy as np
import pytest
from onnx_ir import Graph, Value

import qonnx_hub as qh
from qonnx_hub_adapters.keras_files.graph import Layer
from qonnx_hub_adapters.keras_files.kinds import Use, kind_of
from qonnx_hub_adapters.keras_files.scope import Net
from qonnx_hub_adapters.keras_files.variables import LayerWeights
from qonnx_hub_ir.errors import SourceError
from tests.adapters.keras_files.kit import (
    X,
    call,
    functional,
    layer,
    node,
    operation,
    refused,
    sequential,
    tensor,
    write_h5,
)


@pytest.mark.parametrize(
    ("kind", "config", "kwargs", "words"),
    [
        ("Activation", {"activation": "relu", "dtype": "float16"}, {}, "computes in float16"),
        (
            "Activation",
            {
                "activation": "relu",
                "dtype": {"class_name": "DTypePolicy", "config": {"name": "mixed_float16"}},
            },
            {},
            "computes in mixed_float16",
        ),
        (
            # Of model.quantize("int8") in Keras 3: such a policy has no name.
            "Activation",
            {
                "activation": "relu",
                "dtype": {
                    "class_name": "QuantizedDTypePolicy",
                    "config": {"mode": "int8", "source_name": "float32"},
                },
            },
            {},
            "computes in int8",
        ),
        ("Dropout", {"rate": 0.5}, {"training": 1}, "answers as in training"),
        ("Activation", {"activation": "relu"}, {"surprise": 2}, "the argument 'surprise'"),
    ],
)
def test_a_layer_that_computes_in_another_way_than_is_read_is_refused(
    tmp_path, kind, config, kwargs, words
):
    layers = [
        node("InputLayer", "x", [], batch_input_shape=[None, 3], dtype="float32"),
        node(kind, "y", [[["x", 0, 0, kwargs]]], **config),
    ]
    model = functional(layers, [["x", 0, 0]], [["y", 0, 0]])
    refused(write_h5(tmp_path / "net.h5", model, {}), words)


def test_an_argument_in_a_row_that_nothing_reads_is_refused(tmp_path):
    """Of GlobalAveragePooling1D()(x, mask), as of LSTM(4)(x, None, mask)."""
    layers = [
        node("InputLayer", "x", [], batch_shape=[None, 3, 2], dtype="float32"),
        node("InputLayer", "m", [], batch_shape=[None, 3], dtype="bool"),
        node("GlobalAveragePooling1D", "y", [call(tensor("x"), tensor("m"))], trainable=True),
    ]
    config = functional(layers, [["x", 0, 0], ["m", 0, 0]], [["y", 0, 0]])
    refused(write_h5(tmp_path / "net.h5", config, {}, "3.15.0"), "called with the argument 1")


@pytest.mark.parametrize(
    ("kind", "config", "wanted"),
    [
        # Keras 3.15 and tf.reduce_sum: no axis is no reduction; tf.reverse likewise.
        ("Sum", {"axis": []}, X),
        ("Flip", {"axis": []}, X),
    ],
)
def test_no_axis_is_not_all_axes(tmp_path, kind, config, wanted):
    path = operation(tmp_path / "net.h5", kind, config, X)
    (found,) = qh.run(qh.load(path), {"x": X}).values()
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
def test_a_softmax_of_keras_3_without_an_axis_is_refused(tmp_path, kind):
    """There it is one over everything, samples too; no axis is not the last."""
    with pytest.raises(SourceError, match="a softmax over all axes"):
        qh.load(operation(tmp_path / "net.h5", kind, {"axis": None}, X))


def test_a_clip_whose_ends_are_exchanged_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"clips to 1.0\.\.-1.0"):
        qh.load(operation(tmp_path / "net.h5", "Clip", {"x_min": 1.0, "x_max": -1.0}, X))


def masked_sum(tmp_path, middle):
    """Average over steps behind a mask and one layer or operation between."""
    layers = [
        node("InputLayer", "x", [], batch_shape=[None, 2, 2], dtype="float32"),
        node("Masking", "m", [call(tensor("x"))], mask_value=0.0, trainable=True),
        middle,
        node("GlobalAveragePooling1D", "y", [call(tensor("z"))], trainable=True),
    ]
    config = functional(layers, [["x", 0, 0]], [["y", 0, 0]])
    return write_h5(tmp_path / "net.h5", config, {}, "3.15.0")


STEPS = np.float32([[[2, 4], [0, 0]]])


def test_an_operation_drops_a_mask_that_the_layer_of_its_name_hands_on(tmp_path):
    path = masked_sum(tmp_path, node("Multiply", "z", [call(tensor("m"), 2.0)]))
    (found,) = qh.run(qh.load(str(path)), {"x": STEPS}).values()
    np.testing.assert_array_equal(found, [[2, 4]])  # over both steps
    path = masked_sum(
        tmp_path, node("Rescaling", "z", [call(tensor("m"))], scale=2.0, trainable=True)
    )
    (found,) = qh.run(qh.load(str(path)), {"x": STEPS}).values()
    np.testing.assert_array_equal(found, [[4, 8]])  # over the step that counts


def test_a_layer_that_changes_nothing_and_drops_the_mask_is_refused(tmp_path):
    middle = node("Permute", "z", [call(tensor("m"))], dims=[1, 2], trainable=True)
    refused(masked_sum(tmp_path, middle), "drops the mask of a value that it does not change")


def test_arrays_of_a_layer_that_nothing_reads_are_refused(tmp_path):
    """As of a kernel that is stored in int8, with its scales behind it."""
    held = io.BytesIO()
    with h5py.File(held, "w") as file:
        for number, array in enumerate([np.ones((3, 2), "f4"), np.ones(2, "f4"), np.ones(2)]):
            file[f"layers/dense/vars/{number}"] = array
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w") as archive:
        config = sequential(layer("Dense", "fc", units=2, activation="linear"), shape=[3])
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", '{"keras_version": "2.15.0"}')
        archive.writestr("model.weights.h5", held.getvalue())
    refused(path, "layers/dense has 3 arrays, and only 2 are known")


def test_whole_numbers_are_cast_by_layers_of_floats(tmp_path):
    """As uint8 images are by Rescaling, in Keras 2 and 3."""
    layers = [
        node("InputLayer", "x", [], batch_shape=[None, 3], dtype="uint8"),
        node("Rescaling", "y", [call(tensor("x"))], scale=0.5, offset=-1.0, trainable=True),
    ]
    config = functional(layers, [["x", 0, 0]], [["y", 0, 0]])
    path = write_h5(tmp_path / "net.h5", config, {}, "3.15.0")
    x = np.array([[0, 1, 255]], dtype=np.uint8)
    (found,) = qh.run(qh.load(str(path)), {"x": x}).values()
    np.testing.assert_array_equal(found, [[-1, -0.5, 126.5]])


@pytest.mark.parametrize(
    ("kind", "config", "arrays", "words"),
    [
        ("BatchNormalization", {"axis": -1}, [np.ones(2)] * 4, "has 2 means for 3 channels"),
        (
            "BatchNormalization",
            {"axis": -1, "virtual_batch_size": 2},
            [np.ones(3)] * 4,
            "with a virtual batch size",
        ),
        ("Softmax", {"axis": None}, [], r"a softmax over several axes \(None\)"),
    ],
)
def test_settings_that_fit_no_plain_layer_are_named(tmp_path, kind, config, arrays, words):
    path = write_h5(
        tmp_path / "net.h5",
        sequential(layer(kind, "y", **config), shape=[3]),
        {"y": [np.asarray(one, dtype=np.float32) for one in arrays]} if arrays else {},
    )
    refused(path, words)


@pytest.mark.parametrize("name", ["QSoftmax", "QMultiHeadAttention"])
def test_layers_of_hgq_refuse_the_mask_that_comes_with_an_input(name):
    """They take it, as Keras' own Softmax and MultiHeadAttention do."""
    net = Net(Graph((), (), nodes=()), generation=3)
    x = Value(name="x")
    net.masks[x] = Value(name="mask")
    use = Use(Layer("z", f"hgq>{name}", {}, (), None, 3), LayerWeights({}, {}), (x, x), {})
    kind = kind_of(f"hgq>{name}")
    with pytest.raises(SourceError, match=f"{name} of inputs with a mask"):
        kind.writes(net.scope("z"), use)
