"""Files made by hand: what they compute, and what is wrong with them."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest

import qonnx_hub as qh
from qonnx_hub_ir.errors import SourceError, UnsupportedGraphError
from tests.adapters.keras_files.kit import (
    X,
    bits,
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

KERNEL = np.array([[0.3, -0.9], [0.5, 0.125], [-0.26, 0.74]], dtype=np.float32)
BIAS = np.array([0.1, -0.4], dtype=np.float32)


def q_dense(**given):
    config = {"units": 2, "activation": "linear", "use_bias": True, **given}
    return layer("QDense", "fc", **config)


def test_a_quantized_layer_computes_what_its_formula_says(tmp_path):
    config = sequential(
        q_dense(kernel_quantizer=bits(3), bias_quantizer=bits(4)),
        layer("QActivation", "act", activation="quantized_relu(4,1)"),
        shape=[3],
    )
    path = write_h5(tmp_path / "net.h5", config, {"x": [], "fc": [KERNEL, BIAS], "act": []})
    (found,) = qh.run(qh.load(str(path)), {"x": X}).values()
    # quantized_bits(3): steps of 1/4 from -1 to 3/4; (4): of 1/8; relu(4, 1): of 1/8 to 15/8.
    kernel = np.clip(np.rint(KERNEL * 4), -4, 3) / 4
    bias = np.clip(np.rint(BIAS * 8), -8, 7) / 8
    wanted = np.clip(np.rint((X @ kernel + bias) * 8), 0, 15) / 8
    np.testing.assert_array_equal(found, wanted.astype(np.float32))


def test_the_quantizers_of_weights_and_activations_are_nodes(tmp_path):
    config = sequential(q_dense(kernel_quantizer=bits(3), bias_quantizer=bits(4)), shape=[3])
    path = write_h5(tmp_path / "net.h5", config, {"fc": [KERNEL, BIAS]})
    kinds = {t.name: t.bits for t in qh.inspect(str(path)).tensors if t.bits}
    assert sorted(str(b) for b in kinds.values()) == ["3", "4"]


def test_no_framework_is_imported(tmp_path):
    path = write_h5(
        tmp_path / "net.h5", sequential(q_dense(), shape=[3]), {"fc": [KERNEL, BIAS]}
    )
    code = (
        "import sys, qonnx_hub as qh; qh.load(sys.argv[1]); "
        "print([n for n in ('tensorflow', 'keras', 'tf_keras', 'qkeras') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_code_in_a_file_is_refused_by_layer_and_never_run(tmp_path):
    marker = tmp_path / "ran"
    code = {"class_name": "__lambda__", "config": f"open({str(marker)!r}, 'w')"}
    config = sequential(layer("Lambda", "evil", function=code), shape=[3])
    path = write_h5(tmp_path / "net.h5", config, {"evil": []})
    refused(path, "'evil': holds code, which is not run", UnsupportedGraphError)
    assert not marker.exists()


def test_every_unknown_class_is_named(tmp_path):
    config = sequential(layer("Mystery", "one"), layer("Secret", "two"), shape=[3])
    text = refused(write_h5(tmp_path / "n.h5", config, {}), "one", UnsupportedGraphError)
    assert "Mystery 'one'" in text
    assert "Secret 'two'" in text


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"fc": [KERNEL]}, "layer 'fc' has 1 arrays; its class has 2"),
        ({"fc": [KERNEL, BIAS, BIAS]}, "has 3 arrays"),
        ({"fc": [KERNEL, BIAS], "gone": [BIAS]}, "weights of the layers gone"),
        ({}, "layer 'fc' has 0 arrays"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, weights, words):
    path = write_h5(tmp_path / "net.h5", sequential(q_dense(), shape=[3]), weights)
    refused(path, words)


def test_weights_of_a_wrong_shape_are_refused_at_the_layer(tmp_path):
    weights = {"fc": [KERNEL.T.copy(), BIAS]}
    path = write_h5(tmp_path / "net.h5", sequential(q_dense(), shape=[3]), weights)
    refused(path, "fc")


def test_texts_in_the_place_of_weights_are_refused(tmp_path):
    path = write_h5(
        tmp_path / "net.h5", sequential(q_dense(), shape=[3]), {"fc": [KERNEL, BIAS]}
    )
    with h5py.File(path, "a") as file:
        del file["model_weights/fc/fc/array_0:0"]
        file["model_weights/fc/fc/array_0:0"] = ["no", "numbers"]
    refused(path, "array_0:0' holds object")


def test_a_link_that_leads_in_a_circle_is_refused(tmp_path):
    path = write_h5(
        tmp_path / "net.h5", sequential(q_dense(), shape=[3]), {"fc": [KERNEL, BIAS]}
    )
    with h5py.File(path, "a") as file:
        del file["model_weights/fc/fc/array_0:0"]
        file["model_weights/fc/fc/array_0:0"] = file["model_weights"]
    refused(path, "is no array")


def test_a_refused_file_can_be_saved_again_while_its_error_is_held(tmp_path):
    """As a prompt holds the last error: HDF5 would refuse to truncate a file that is open."""
    path = write_h5(tmp_path / "net.h5", {"class_name": "Unheard", "config": {}}, {})
    with pytest.raises(SourceError) as held:
        qh.load(str(path))
    write_h5(path, {"class_name": "Unheard", "config": {}}, {})
    assert held.value is not None


def test_calls_in_a_circle_are_refused(tmp_path):
    layers = [
        node("InputLayer", "x", [], batch_input_shape=[None, 3], dtype="float32"),
        node("Add", "a", [[["x", 0, 0, {}], ["b", 0, 0, {}]]]),
        node("Activation", "b", [[["a", 0, 0, {}]]], activation="relu"),
    ]
    config = functional(layers, [["x", 0, 0]], [["b", 0, 0]])
    refused(write_h5(tmp_path / "net.h5", config, {}), "its calls form a cycle")


def test_calls_that_a_nested_model_has_overwritten_are_refused(tmp_path):
    """Of net(x) = inner(f(s(x))) with inner(i) = f(i), Keras 2 writes f(i) for both f."""

    def shared(name, source):
        calls = [[[source, 0, 0, {}]]]
        return {**node("Activation", name, calls, activation="relu"), "shared_object_id": 1}

    def inside(end):
        layers = [
            node("InputLayer", end, [], batch_input_shape=[None, 3], dtype="float32"),
            shared("f", end),
        ]
        calls = [[["f", 0, 0, {}]]]
        made = functional(layers, [[end, 0, 0]], [["f", 0, 0]])
        return {**made, "name": "inner", "inbound_nodes": calls}

    def outside(source, end):
        layers = [
            node("InputLayer", "x", [], batch_input_shape=[None, 3], dtype="float32"),
            node("Activation", "s", [[["x", 0, 0, {}]]], activation="tanh"),
            shared("f", source),
            inside(end),
        ]
        return functional(layers, [["x", 0, 0]], [["inner", 1, 0], ["s", 0, 0]][: 1 + whole])

    whole = False
    for source, end in (("i", "i"), ("x", "x")):
        path = write_h5(tmp_path / "net.h5", outside(source, end), {})
        refused(path, "model 'net' has lost calls of its layers.* the same layer .f.,")
    whole = True
    model = qh.load(str(write_h5(tmp_path / "net.h5", outside("x", "x"), {})))
    first, second = qh.run(model, {"x": X}).values()
    np.testing.assert_array_equal(first, np.maximum(X, 0))
    np.testing.assert_allclose(second, np.tanh(X), rtol=1e-6)


def test_a_call_that_reads_what_is_not_there_names_it(tmp_path):
    layers = [
        node("InputLayer", "x", [], batch_input_shape=[None, 3], dtype="float32"),
        node("Activation", "a", [[["x", 0, 0, {}]]], activation="relu"),
        node("Activation", "b", [[["a", 1, 0, {}]]], activation="relu"),
    ]
    config = functional(layers, [["x", 0, 0]], [["b", 0, 0]])
    refused(write_h5(tmp_path / "net.h5", config, {}), "'net' reads call 1 of layer 'a'")


def test_a_layer_that_is_called_twice_has_its_weights_once(tmp_path):
    layers = [
        node("InputLayer", "x", [], batch_input_shape=[None, 3], dtype="float32"),
        node(
            "Dense", "fc", [[["x", 0, 0, {}]], [["neg", 0, 0, {}]]], units=2, activation="relu"
        ),
        node("Activation", "neg", [[["x", 0, 0, {}]]], activation="tanh"),
        node("Add", "sum", [[["fc", 0, 0, {}], ["fc", 1, 0, {}]]]),
    ]
    config = functional(layers, [["x", 0, 0]], [["sum", 0, 0]])
    path = write_h5(tmp_path / "net.h5", config, {"fc": [KERNEL, BIAS]})
    model = qh.load(str(path))
    assert sum(v.shape == (3, 2) for v in model.graph.initializers.values()) == 1
    (found,) = qh.run(model, {"x": X}).values()
    wanted = sum(np.maximum(v @ KERNEL + BIAS, 0) for v in (X, np.tanh(X)))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"something"])
def test_what_is_no_keras_file_is_one_line(tmp_path, content):
    path = tmp_path / "net.h5"
    path.write_bytes(content)
    assert len(refused(path, "net.h5").splitlines()) == 1


def test_a_broken_configuration_is_named(tmp_path):
    refused(
        write_h5(tmp_path / "n.h5", '{"class_name": ', {}), "its configuration is not JSON"
    )
    config = {"class_name": "Functional", "config": {"layers": 3}}
    refused(write_h5(tmp_path / "m.h5", config, {}), "configuration is broken")


def test_a_subclassed_model_says_what_to_do(tmp_path):
    config = {"class_name": "MyModel", "config": {}}
    refused(write_h5(tmp_path / "n.h5", config, {}), "class 'MyModel'.*convert the live model")


def test_weights_alone_say_what_is_missing(tmp_path):
    path = write_h5(tmp_path / "w.h5", {}, {"fc": [KERNEL]})
    with h5py.File(path, "a") as file:
        del file.attrs["model_config"]
    refused(path, "holds weights only")


def test_an_architecture_alone_says_what_is_missing(tmp_path):
    path = tmp_path / "net.json"
    path.write_text(json.dumps(sequential(q_dense(), shape=[3])))
    refused(path, "--weights")


def test_an_architecture_is_checked_with_its_weights(tmp_path):
    config = sequential(q_dense(), shape=[3])
    (tmp_path / "net.json").write_text(json.dumps(config))
    source = str(tmp_path / "net.json")
    weights = str(write_h5(tmp_path / "w.h5", config, {"fc": [KERNEL, BIAS]}))
    other = str(write_h5(tmp_path / "o.h5", config, {"fc": [KERNEL, 2 * BIAS]}))
    written = str(tmp_path / "net.onnx")
    qh.convert(source, written, weights=weights)
    assert qh.check(source, written, weights=weights)
    assert not qh.check(source, written, weights=other)
    with pytest.raises(SourceError, match="--weights"):
        qh.check(source, written)


def test_an_archive_that_claims_to_be_huge_is_not_unpacked(tmp_path):
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b" " * ((1 << 28) + 1))
        archive.writestr("metadata.json", "{}")
    refused(path, "config.json takes 268435457 bytes unpacked")


def test_an_archive_without_weights_is_named(tmp_path):
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(sequential(q_dense(), shape=[3])))
        archive.writestr("metadata.json", '{"keras_version": "2.15.0"}')
    refused(path, "has no model.weights.h5")


def test_an_operation_of_keras_3_is_no_layer_of_the_same_name(tmp_path):
    layers = [
        node("InputLayer", "x", [], batch_shape=[None, 3], dtype="float32"),
        node("Multiply", "times", [call(tensor("x"), 2.0)]),
        node("Add", "sum", [call([tensor("x"), tensor("times")])], trainable=True),
    ]
    config = functional(layers, [["x", 0, 0]], [["sum", 0, 0]])
    path = write_h5(tmp_path / "net.h5", config, {}, "3.15.0")
    (found,) = qh.run(qh.load(str(path)), {"x": X}).values()
    np.testing.assert_array_equal(found, 3 * X)


def test_outputs_of_keras_3_count_the_own_construction_of_a_nested_model(tmp_path):
    inside = [
        node("InputLayer", "i", [], batch_shape=[None, 3], dtype="float32"),
        node("Activation", "act", [call(tensor("i"))], activation="relu", trainable=True),
    ]
    inner = functional(inside, ["i", 0, 0], ["act", 0, 0])
    calls = [call(tensor("x")), call(tensor("twice"))]
    layers = [
        node("InputLayer", "x", [], batch_shape=[None, 3], dtype="float32"),
        {**inner, "name": "net", "inbound_nodes": calls},
        node("Multiply", "twice", [call(tensor("net"), -2.0)]),
    ]
    outer = functional(layers, [["x", 0, 0]], [["net", 1, 0], ["net", 2, 0], ["twice", 0, 0]])
    outer["config"]["name"] = "outer"
    model = qh.load(str(write_h5(tmp_path / "net.h5", outer, {}, "3.15.0")))
    first, second, between = qh.run(model, {"x": X}).values()
    np.testing.assert_array_equal(first, np.maximum(X, 0))
    np.testing.assert_array_equal(between, -2 * np.maximum(X, 0))
    np.testing.assert_array_equal(second, np.zeros_like(X))


def merged_with_a_mask(kind, tmp_path):
    layers = [
        node("InputLayer", "x", [], batch_shape=[None, 4, 2], dtype="float32"),
        node("Masking", "mask", [call(tensor("x"))], mask_value=0.0, trainable=True),
        node(kind, "merged", [call([tensor("x"), tensor("mask")])], trainable=True),
    ]
    config = functional(layers, [["x", 0, 0]], [["merged", 0, 0]])
    return str(write_h5(tmp_path / "net.h5", config, {}, "3.15.0"))


@pytest.mark.parametrize("kind", ["Maximum", "Minimum", "Multiply"])
def test_merges_of_keras_3_that_choose_by_a_mask_are_refused(tmp_path, kind):
    with pytest.raises(SourceError, match="layer 'merged': merges by a mask"):
        qh.load(merged_with_a_mask(kind, tmp_path))


def test_a_sum_of_keras_3_behind_a_mask_is_no_choice(tmp_path):
    x = np.float32([[[1, 2], [0, 0], [3, 0], [0, 4]]])
    (found,) = qh.run(qh.load(merged_with_a_mask("Add", tmp_path)), {"x": x}).values()
    np.testing.assert_array_equal(found, 2 * x)


def test_functions_that_tensorflow_names_after_its_first_generation_are_known(tmp_path):
    def made(function, name, given, **arguments):
        calls = [[given, 0, 0, arguments]]
        return node("TFOpLambda", name, calls, function=function, trainable=True)

    layers = [
        node("InputLayer", "x", [], batch_input_shape=[None, 1, 3], dtype="float32"),
        made("compat.v1.transpose", "turned", "x", perm=[0, 2, 1]),
        made("compat.v1.pad", "padded", "turned", paddings=[[0, 0], [1, 0], [0, 0]]),
        made("compat.v1.squeeze", "row", "padded", axis=2),
    ]
    config = functional(layers, [["x", 0, 0]], [["row", 0, 0]])
    path = write_h5(tmp_path / "net.h5", config, {})
    (found,) = qh.run(qh.load(str(path)), {"x": X[:, None, :]}).values()
    np.testing.assert_array_equal(found, np.pad(X, [[0, 0], [1, 0]]))


def test_a_running_sum_over_many_elements_is_refused_by_their_number(tmp_path):
    calls = [[["x", 0, 0, {"axis": 1}]]]
    layers = [
        node("InputLayer", "x", [], batch_input_shape=[None, 65], dtype="float32"),
        node("TFOpLambda", "y", calls, function="math.cumsum", trainable=True),
    ]
    path = write_h5(tmp_path / "n.h5", functional(layers, [["x", 0, 0]], [["y", 0, 0]]), {})
    refused(path, "layer 'y': sums over 65 elements; 64 are supported")


WHOLE = np.int32([[3, 0, -2], [1, 1, 0]])


@pytest.mark.parametrize(
    ("kind", "number", "wanted"),
    [
        ("NotEqual", 0.0, WHOLE != 0),
        ("NotEqual", 0, WHOLE != 0),
        ("Multiply", 0.5, WHOLE.astype(np.float32) / 2),
        ("Multiply", 2, 2 * WHOLE),
        ("TrueDivide", 2, WHOLE.astype(np.float32) / 2),
        ("FloorDivide", -2, np.int32([[-2, 0, 1], [-1, -1, 0]])),
        ("Mod", -2, np.int32([[-1, 0, 0], [-1, -1, 0]])),
    ],
)
def test_operations_of_keras_3_promote_whole_numbers(tmp_path, kind, number, wanted):
    layers = [
        node("InputLayer", "x", [], batch_shape=[None, 3], dtype="int32"),
        node(kind, "y", [call(tensor("x"), number)]),
    ]
    config = functional(layers, [["x", 0, 0]], [["y", 0, 0]])
    path = write_h5(tmp_path / "net.h5", config, {}, "3.15.0")
    (found,) = qh.run(qh.load(str(path)), {"x": WHOLE}).values()
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == wanted.dtype


@pytest.mark.parametrize(
    ("kind", "config", "words"),
    [
        ("Max", {"axis": 1, "keepdims": False, "initial": 2.0}, "its argument 'initial'"),
        ("Sum", {"axis": 1, "somewhere": 1}, "its argument 'somewhere'"),
        ("Round", {"decimals": 1}, "rounds to decimals"),
        ("Cumsum", {"axis": 1, "dtype": "int32"}, "its argument 'dtype'"),
        ("Unstack", {"num": 2, "axis": 1}, "unstacks 2 of 3 slices"),
        ("LogicalNot", {}, "unsupported type: tensor\\(float\\)"),
    ],
)
def test_an_argument_that_nothing_reads_is_refused_by_name(tmp_path, kind, config, words):
    with pytest.raises(SourceError, match=words):
        qh.load(operation(tmp_path / "net.h5", kind, config, X))


FRACTIONS = np.float32([[0.25, 0.0, -0.5], [0.0, -0.0, 0.0], [1.0, 2.0, 4.0]])


@pytest.mark.parametrize(
    ("kind", "config", "x", "wanted"),
    [
        ("Any", {"axis": 1}, FRACTIONS, [True, False, True]),
        ("Any", {"axis": 1}, -FRACTIONS, [True, False, True]),
        ("Elu", {"alpha": 0.5}, np.float32([[-200, 0, 3]]), np.float32([[-0.5, 0, 3]])),
        ("LogSoftmax", {"axis": 0}, np.float32([[5, -3, 0]]), np.float32([[0, 0, 0]])),
        ("Mean", {"axis": 1}, np.int32([[3, 0, 0], [-1, 0, -3]]).T, np.float32([1, 0, -1.5])),
        ("Round", {"decimals": 0}, FRACTIONS[:1], np.float32([[0, 0, 0]])),
    ],
)
def test_operations_of_keras_3_follow_their_arguments(tmp_path, kind, config, x, wanted):
    path = operation(tmp_path / "net.h5", kind, config, x)
    (found,) = qh.run(qh.load(path), {"x": x}).values()
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == np.asarray(wanted).dtype


def test_whole_numbers_of_two_types_are_refused_and_truth_values_count(tmp_path):
    layers = [
        node("InputLayer", "x", [], batch_shape=[None, 3], dtype="int32"),
        node("InputLayer", "z", [], batch_shape=[None, 3], dtype="int64"),
        node("Greater", "more", [call(tensor("x"), 0)]),
        node("Multiply", "kept", [call(tensor("more"), tensor("x"))]),
        node("Add", "one_more", [call(tensor("more"), 1)]),
        node("Add", "both", [call(tensor("x"), tensor("z"))]),
    ]
    inputs = [["x", 0, 0], ["z", 0, 0]]
    good = functional(layers[:-1], inputs, [["kept", 0, 0], ["one_more", 0, 0]])
    model = qh.load(str(write_h5(tmp_path / "good.h5", good, {}, "3.15.0")))
    kept, one_more = qh.run(model, {"x": WHOLE, "z": np.int64(WHOLE)}).values()
    np.testing.assert_array_equal(kept, np.int32([[3, 0, 0], [1, 1, 0]]))
    np.testing.assert_array_equal(one_more, np.int32([[2, 1, 1], [2, 2, 1]]))
    assert kept.dtype == one_more.dtype == np.int32
    bad = write_h5(
        tmp_path / "bad.h5", functional(layers, inputs, [["both", 0, 0]]), {}, "3.15.0"
    )
    refused(bad, "layer 'both': takes whole numbers of two types")


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        ("linalg.matmul", {"b": ["x", 0, 0], "adjoint_b": True}, "its argument 'adjoint_b'"),
        ("nn.bias_add", {"bias": [1.0, 2.0, 3.0], "data_format": "NCHW"}, "'data_format'"),
        ("math.cumsum", {"axis": 1, "exclusive": True}, "its argument 'exclusive'"),
    ],
)
def test_functions_of_tensorflow_refuse_what_they_do_not_read(
    tmp_path, function, arguments, words
):
    layers = [
        node("InputLayer", "x", [], batch_input_shape=[None, 3, 3], dtype="float32"),
        node("TFOpLambda", "y", [[["x", 0, 0, arguments]]], function=function),
    ]
    config = functional(layers, [["x", 0, 0]], [["y", 0, 0]])
    refused(write_h5(tmp_path / "net.h5", config, {}), words)


def test_a_division_of_whole_numbers_in_keras_2_is_refused(tmp_path):
    layers = [
        node("InputLayer", "x", [], batch_input_shape=[None, 3], dtype="int32"),
        node("TFOpLambda", "y", [[["x", 0, 0, {"y": 2}]]], function="math.truediv"),
    ]
    config = functional(layers, [["x", 0, 0]], [["y", 0, 0]])
    refused(write_h5(tmp_path / "net.h5", config, {}), "divides whole numbers, in float64")


def test_sparsemax_has_the_threshold_of_keras(tmp_path):
    """Keras takes (2.25 + 4.0 - 1) / 2 of the first row, (3 - 1) / 1 of the second."""
    x = np.float32([[1.75, -2.0, 2.25, -1.0], [3.0, 0.0, 1.0, 0.5]])
    config = {"activation": "sparsemax", "trainable": True}
    path = operation(tmp_path / "net.h5", "Activation", config, x)
    (found,) = qh.run(qh.load(path), {"x": x}).values()
    np.testing.assert_array_equal(found, np.float32([[0, 0, 0, 0], [1, 0, 0, 0]]))
