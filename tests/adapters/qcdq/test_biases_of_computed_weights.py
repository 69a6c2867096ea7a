"""Layers whose weights are computed: onnxruntime rounds their bias, by Round of opset 11."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import qonnx_hub as qh
from qonnx_hub_ir.errors import NotExactError


def layer(bias: bool) -> onnx.ModelProto:
    """Return a convolution at opset 10 whose 8-bit weights are an input of the model."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], "q"),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"], "dq"),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"], "dw"),
        helper.make_node("Conv", ["xd", "wd", *(["b"] * bias)], ["y"], "conv"),
    ]
    constants = {"s": np.float32(0.25), "z": np.uint8(3)}
    if bias:
        constants["b"] = np.float32([0.5, 1.5])
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4]),
            helper.make_tensor_value_info("w", TensorProto.UINT8, [2, 3, 1, 1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 4, 4])],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 10)], ir_version=5)


@pytest.mark.parametrize(("bias", "opset"), [(True, 11), (False, 10)])
def test_a_bias_beside_computed_weights_needs_opset_eleven(bias, opset):
    assert qh.convert(layer(bias), to="qcdq").opset == opset


@pytest.mark.parametrize("to", ["qcdq", "qlinear"])
def test_the_layer_is_named_where_an_older_opset_is_asked_for(to):
    with pytest.raises(NotExactError, match=r"Conv 'conv': onnxruntime rounds its bias"):
        qh.convert(layer(True), to=to, opset=10)


def test_the_file_loads_in_onnxruntime_with_its_default_options(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    qh.convert(layer(True), tmp_path / "y.onnx", to="qcdq")
    providers = ["CPUExecutionProvider"]
    session = runtime.InferenceSession(tmp_path / "y.onnx", providers=providers)
    assert [one.name for one in session.get_outputs()] == ["y"]
