"""Operators that nothing here knows, in the verbs: passed through, run where a runtime can."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import qonnx_hub as qh
from qonnx_hub_ir.errors import UnsupportedGraphError
from tests.ir.test_opaque import around
from tests.support import DOMAIN, model_of, quant_node

CONTRIB = "com.microsoft"
X = np.random.default_rng(0).normal(size=(1, 4)).astype(np.float32)


def gelu() -> onnx.ModelProto:
    """Return a file with an operator that only onnxruntime has, behind a quantizer."""
    nodes = [
        quant_node("x", "q"),
        helper.make_node("BiasGelu", ["q", "bias"], ["y"], "gelu", domain=CONTRIB),
    ]
    bias = np.arange(4, dtype=np.float32)
    constants = {"s": 0.25, "z": 0.0, "b": 4.0, "bias": bias}
    return model_of(nodes, {"x": (1, 4)}, ["y"], constants, domains=(DOMAIN, CONTRIB))


def on_onnxruntime(model, feeds):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


@pytest.mark.parametrize("to", ["qonnx", "qcdq", "qlinear"])
def test_a_node_that_nothing_can_run_is_written_as_it_was_and_said_to_be_unchecked(
    to, tmp_path
):
    source, made = tmp_path / "a.onnx", tmp_path / "b.onnx"
    onnx.save(around("MyOp", "com.example"), source)
    report = qh.convert(source, made, to=to)
    assert any("nothing here runs MyOp 'foreign'" in note for note in report.notes)
    assert any("1 com.example::MyOp" in note for note in report.notes)
    (node,) = [n for n in onnx.load(made).graph.node if n.op_type == "MyOp"]
    assert node.domain == "com.example"
    assert node.attribute[0].i == 3


def test_a_node_that_nothing_can_run_is_named_by_run():
    with pytest.raises(UnsupportedGraphError, match=r"com\.example::MyOp"):
        qh.run(around("MyOp", "com.example"), {"x": X})


def test_an_operator_that_only_onnxruntime_has_is_run_by_it():
    pytest.importorskip("onnxruntime")
    bias = np.arange(4, dtype=np.float32)
    stairs = (np.clip(np.rint(X / 0.25), -8, 7) * 0.25).astype(np.float32)
    node = helper.make_node("BiasGelu", ["x", "bias"], ["y"], domain=CONTRIB)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(bias, "bias")],
    )
    imports = [helper.make_opsetid("", 19), helper.make_opsetid(CONTRIB, 1)]
    alone = helper.make_model(graph, opset_imports=imports, ir_version=9)
    wanted = on_onnxruntime(alone.SerializeToString(), {"x": stairs})
    np.testing.assert_array_equal(qh.run(gelu(), {"x": X})["y"], wanted)


@pytest.mark.parametrize("to", ["qcdq", "qlinear"])
def test_a_conversion_around_such_a_node_is_compared(to, tmp_path):
    pytest.importorskip("onnxruntime")
    report = qh.convert(gelu(), tmp_path / "b.onnx", to=to)
    assert report.check is not None
    wanted = qh.run(gelu(), {"x": X})["y"]
    np.testing.assert_allclose(
        on_onnxruntime(str(tmp_path / "b.onnx"), {"x": X}), wanted, 1e-6
    )


def test_a_self_contained_file_keeps_such_a_node(tmp_path):
    pytest.importorskip("onnxruntime")
    qh.convert(gelu(), tmp_path / "b.onnx", to="qonnx", self_contained=True)
    wanted = qh.run(gelu(), {"x": X})["y"]
    np.testing.assert_allclose(
        on_onnxruntime(str(tmp_path / "b.onnx"), {"x": X}), wanted, 1e-6
    )


def test_samples_do_not_pass_an_unknown_node_together():
    pytest.importorskip("onnxruntime")
    many = np.concatenate([X, -X, 2 * X])
    single = [qh.run(gelu(), {"x": row[None]})["y"] for row in many]
    np.testing.assert_array_equal(qh.run(gelu(), {"x": many})["y"], np.concatenate(single))
