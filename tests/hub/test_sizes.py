"""Any number of samples on any file: frozen batches, sizes that no tensor has, no shapes."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import qonnx_hub as qh
from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_ir.errors import SourceError, UsageError
from tests.support import DOMAIN, model_of, quant_node

CONSTANTS = {"s": 0.25, "z": 0.0, "b": 4.0}
W = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
X = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)


def layer(batch) -> onnx.ModelProto:
    nodes = [quant_node("x", "q"), helper.make_node("MatMul", ["q", "w"], ["y"], "product")]
    return model_of(nodes, {"x": (batch, 4)}, ["y"], {**CONSTANTS, "w": W})


def stairs(x: np.ndarray) -> np.ndarray:
    return (np.clip(np.rint(x / 0.25), -8, 7) * 0.25).astype(np.float32)


@pytest.mark.parametrize("batch", [1, 2, 7, 789_444, 0, -1, "N"])
@pytest.mark.parametrize("samples", [1, 3, 5])
def test_any_number_of_samples_runs_whatever_batch_a_file_says(batch, samples):
    x = X[:samples]
    np.testing.assert_array_equal(qh.run(layer(batch), {"x": x})["y"], stairs(x) @ W)


@pytest.mark.parametrize("samples", [1, 3, 5])
def test_any_number_of_samples_runs_on_onnxruntime_as_well(samples):
    pytest.importorskip("onnxruntime")
    session = Session(read_model(layer(2)), backend="ort")
    found = session.run({"x": X[:samples]})["y"]
    np.testing.assert_allclose(found, stairs(X[:samples]) @ W, rtol=1e-6)


def test_a_part_of_a_batch_that_is_mixed_is_refused_in_one_line():
    nodes = [helper.make_node("CumSum", ["x", "a"], ["y"], "sum")]
    proto = model_of(nodes, {"x": (4, 4)}, ["y"], {"a": np.array(0)})
    with pytest.raises(UsageError, match="multiples of 4, 3 are given, and the graph is not"):
        qh.run(proto, {"x": X[:3]})


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ((0, 4), (None, 4)),
        ((-1, 4), (None, 4)),
        ((2, -1), (2, None)),
        ((2, 0), (2, 0)),
        (("N", 4), ("N", 4)),
    ],
)
def test_a_size_that_no_tensor_has_is_open(given, read):
    proto = model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": given}, ["y"])
    shape = read_model(proto).graph.inputs[0].shape
    assert tuple(d if isinstance(d, int) else d.value for d in shape) == read


def test_an_open_size_stays_open_in_what_is_written(tmp_path):
    proto = layer(-1)
    proto.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [-1, 3])
    )
    qh.convert(proto, tmp_path / "y.onnx", to="qcdq")
    written = onnx.load(tmp_path / "y.onnx").graph
    sizes = [info.type.tensor_type.shape.dim for info in (*written.input, *written.output)]
    assert [dims[0].dim_value for dims in sizes] == [-1, -1]  # as the file said it


@pytest.mark.parametrize("to", ["qonnx", "qcdq", "qlinear"])
def test_an_input_without_a_shape_is_converted(to, tmp_path):
    proto = layer("N")
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    qh.convert(proto, tmp_path / "y.onnx", to=to)
    found = qh.run(tmp_path / "y.onnx", {"x": X})["y"]
    np.testing.assert_allclose(found, stairs(X) @ W, rtol=1e-6)


def test_a_row_of_data_is_counted_where_its_shape_is_not_known():
    proto = layer("N")
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    cost = qh.cost(proto)
    assert cost.macs == 12
    assert any("product" in note and "one row" in note for note in cost.notes)


def test_feeds_in_the_other_byte_order_are_taken():
    swapped = X.astype(X.dtype.newbyteorder(">"))
    np.testing.assert_array_equal(qh.run(layer(1), {"x": swapped})["y"], stairs(X) @ W)


def sparse(indices: np.ndarray) -> onnx.ModelProto:
    proto = layer("N")
    del proto.graph.initializer[3]
    values = helper.make_tensor("w", TensorProto.FLOAT, [3], [1.0, -0.5, 0.25])
    tensor = helper.make_sparse_tensor(values, numpy_helper.from_array(indices), [4, 3])
    proto.graph.sparse_initializer.append(tensor)
    return proto


DENSE = np.zeros((4, 3), dtype=np.float32)
DENSE[0, 0], DENSE[1, 2], DENSE[3, 1] = 1.0, -0.5, 0.25


@pytest.mark.parametrize("indices", [[0, 5, 10], [[0, 0], [1, 2], [3, 1]]])
def test_a_sparse_initializer_is_read(indices):
    found = qh.run(sparse(np.array(indices, dtype=np.int64)), {"x": X})["y"]
    np.testing.assert_array_equal(found, stairs(X) @ DENSE)


@pytest.mark.parametrize("indices", [[0, 5, 12], [0, 5], [[0, 0], [1, 3], [3, 1]], [-1, 2, 3]])
def test_a_sparse_initializer_that_does_not_fit_is_named(indices):
    with pytest.raises(SourceError, match="sparse tensor 'w'"):
        read_model(sparse(np.array(indices, dtype=np.int64)))


def test_a_sparse_constant_is_read():
    proto = layer("N")
    tensor = sparse(np.array([0, 5, 10])).graph.sparse_initializer[0]
    del proto.graph.initializer[3]
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=tensor))
    found = qh.run(proto, {"x": X})["y"]
    np.testing.assert_array_equal(found, stairs(X) @ DENSE)


@pytest.mark.parametrize("opset", [9, 13, 19])
def test_nodes_in_any_order_are_read_at_any_opset(opset):
    nodes = [
        helper.make_node("Relu", ["t"], ["y"], "last"),
        helper.make_node("Squeeze", ["u"], ["t"], "middle", **_axes(opset)),
        helper.make_node("Identity", ["x"], ["u"], "first"),
    ]
    extra = {} if opset < 13 else {"axes": np.array([1])}
    proto = model_of(nodes, {"x": (5, 1, 4)}, ["y"], extra, opset=opset, domains=())
    if opset >= 13:
        proto.graph.node[1].input.append("axes")
    found = qh.run(proto, {"x": X[:, None]})["y"]
    np.testing.assert_array_equal(found, np.maximum(X, 0))


def _axes(opset: int) -> dict[str, list[int]]:
    return {"axes": [1]} if opset < 13 else {}


def test_the_domain_of_the_quantizers_is_the_canonical_one():
    assert read_model(layer(1)).graph[0].domain == DOMAIN
