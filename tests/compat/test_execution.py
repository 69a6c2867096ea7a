"""``execute_onnx`` on what scripts for the qonnx package give it, and what they read of it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from qonnx_hub import compat
from qonnx_hub.compat.to_channels_last import to_channels_last
from qonnx_hub_ir.errors import UsageError
from tests.compat.models import annotated, constant, info, model, quant

X = np.array([[1, -2, 3, 4]], dtype=np.float32)


def chain():
    """Return y = relu(x * k), a sum that nobody reads, and a constant that a node makes."""
    made = numpy_helper.from_array(np.float32([2, 2, 2, 2]), "value")
    nodes = [
        helper.make_node("Constant", [], ["k"], "C", value=made),
        helper.make_node("Mul", ["x", "k"], ["m"], "M"),
        helper.make_node("Add", ["m", "one"], ["unread"], "A"),
        helper.make_node("Relu", ["m"], ["y"], "R"),
    ]
    shapes = [info("x", [1, 4])]
    return model(nodes, shapes, [info("y", [1, 4])], [constant("one", [1, 1, 1, 1])])


def test_the_full_context_holds_what_nobody_reads_and_what_nodes_make_of_nothing():
    found = compat.execute_onnx(chain(), {"x": X}, return_full_exec_context=True)
    assert found["unread"].tolist() == [[3, -3, 7, 9]]
    assert found["k"].tolist() == [2, 2, 2, 2]
    assert set(found) == {"x", "k", "one", "m", "unread", "y"}


def test_the_full_context_has_the_names_that_the_qonnx_package_gives():
    execution = pytest.importorskip("qonnx.core.onnx_exec")
    pytest.importorskip("onnxruntime")
    wrapper = compat.ModelWrapper(annotated(13))
    x = np.ones(wrapper.get_tensor_shape("x"), dtype=np.float32)
    wanted = execution.execute_onnx(wrapper, {"x": x}, True)
    found = compat.execute_onnx(wrapper, {"x": x}, True)
    assert set(wanted) - {""} == set(found)
    assert all(np.array_equal(wanted[name], found[name]) for name in found)


def test_a_constant_that_is_given_is_replaced():
    given = {"x": X, "one": np.float32([10, 10, 10, 10])}
    found = compat.execute_onnx(chain(), given, return_full_exec_context=True)
    assert found["unread"].tolist() == [[12, 6, 16, 18]]


def test_a_constant_of_another_shape_is_refused():
    with pytest.raises(UsageError, match=r"'one' has shape \[4\], \[2\] is given"):
        compat.execute_onnx(chain(), {"x": X, "one": np.zeros(2, dtype=np.float32)})


def test_a_name_that_no_tensor_has_is_refused():
    with pytest.raises(UsageError, match="no tensor is called X; the model's inputs are x"):
        compat.execute_onnx(chain(), {"X": X})


def test_values_of_inner_tensors_are_computed_all_the_same():
    found = compat.execute_onnx(chain(), {"x": X, "m": np.zeros_like(X)}, True)
    assert found["y"].tolist() == [[2, 0, 6, 8]]


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.float16])
def test_numbers_of_other_types_become_those_of_the_input(dtype):
    found = compat.execute_onnx(chain(), {"x": X.astype(dtype)})["y"]
    assert (found.dtype, found.tolist()) == (np.float32, [[2, 0, 6, 8]])


def test_parameters_of_quantizers_in_float64_are_taken_in_float32():
    proto = annotated(13)
    want = compat.execute_onnx(proto, {})["y"]
    for held in proto.graph.initializer:
        if held.name in {"s", "z", "b"}:
            array = numpy_helper.to_array(held).astype(np.float64)
            held.CopyFrom(numpy_helper.from_array(array, held.name))
    assert np.array_equal(compat.execute_onnx(proto, {})["y"], want)


def test_a_tensor_that_nothing_defines_is_zeros_of_its_shape():
    nodes = [helper.make_node("Add", ["x", "lost"], ["y"], "A")]
    proto = model(nodes, [info("x", [1, 4])], [info("y", [1, 4])], [])
    with pytest.raises(UsageError, match="nothing is known of lost"):
        compat.execute_onnx(proto, {"x": X})
    proto.graph.value_info.append(info("lost", [1, 4]))
    assert np.array_equal(compat.execute_onnx(proto, {"x": X})["y"], X)


def doubled(kind: str):
    proto = model(
        [helper.make_node("Mul", ["x", "k"], ["y"], "M")],
        [info("x", [1, 4])],
        [info("y", [1, 4])],
        [constant("k", [2, 2, 2, 2])],
    )
    wrapper = compat.ModelWrapper(proto)
    wrapper.set_tensor_datatype("x", compat.DataType[kind])
    return wrapper


def test_values_that_are_nearly_the_integers_of_an_annotation_are_rounded():
    found = compat.execute_onnx(doubled("INT4"), {"x": X + np.float32(1e-4)})["y"]
    assert found.tolist() == [[2, -4, 6, 8]]


def test_values_that_are_no_integers_of_an_annotation_are_refused(monkeypatch):
    x = X + np.float32(0.25)
    with pytest.raises(UsageError, match=r"'x' is annotated as INT4; .* 0\.25 away"):
        compat.execute_onnx(doubled("INT4"), {"x": x})
    assert compat.execute_onnx(doubled("FIXED<8,4>"), {"x": x})["y"].tolist() == [
        [2.5, -3.5, 6.5, 8.5]
    ]
    monkeypatch.setenv("ERROR_THRESH", "0.3")
    assert compat.execute_onnx(doubled("INT4"), {"x": x})["y"].tolist() == [[2, -4, 6, 8]]
    monkeypatch.setenv("SANITIZE_QUANT_TENSORS", "0")
    assert compat.execute_onnx(doubled("INT4"), {"x": x})["y"].tolist() == (2 * x).tolist()


def test_images_that_no_convolution_reads_are_taken_channels_last_where_asked(tmp_path):
    # An image of one row of pixels, flattened: (channel, place) -> one row.
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["r"], "R"),
        quant("r", "y"),
    ]
    shape = numpy_helper.from_array(np.array([1, 6]), "shape")
    constants = [shape, constant("s", 1), constant("z", 0), constant("b", 8)]
    proto = model(nodes, [info("x", [1, 2, 1, 3])], [info("y", [1, 6])], constants)
    onnx.save(proto, tmp_path / "first.onnx")
    files = [str(tmp_path / f"{name}.onnx") for name in ("first", "last")]
    to_channels_last(files[0], make_input_channels_last=True, out_file=files[1])
    x = np.arange(6, dtype=np.float32).reshape(1, 2, 1, 3)
    turned = compat.ModelWrapper(files[1])
    name = turned.graph.input[0].name
    assert turned.get_tensor_shape(name) == [1, 1, 3, 2]
    found = compat.execute_onnx(turned, {name: x.transpose(0, 2, 3, 1)})
    assert next(iter(found.values())).tolist() == [[0, 1, 2, 3, 4, 5]]
