"""Models that were changed after they were read: what of the net they still stand for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir
import pytest
from onnx_ir import Model, Value

import qonnx_hub as qh
from qonnx_hub_adapters.tflite.interpreter import run_net
from qonnx_hub_adapters.tflite.net import CodeGrid, TfliteNet
from qonnx_hub_adapters.tflite.net_builder import NetBuilder, one_grid
from qonnx_hub_adapters.tflite.net_writer import write_net
from qonnx_hub_adapters.tflite.origins import model_of, origin_of, remember
from qonnx_hub_ir import dialect

WEIGHTS = np.array([[3, -4, 5], [-6, 7, 8]], dtype=np.int8)


def layer(weights: np.ndarray, type_: str = "UINT8") -> TfliteNet:
    """A fully connected layer and LOGISTIC; of unsigned codes, as only nets have them."""
    net = NetBuilder()
    x = net.tensor("x", type_, (1, 3), one_grid(0.1, 7))
    zero = 128 if type_ == "UINT8" else 0
    grid = CodeGrid(np.array([0.02], np.float32), np.array([zero], np.int64))
    w = net.tensor(
        "w", type_, (2, 3), grid, (weights.astype(int) + zero).astype(net.tensors[x].dtype)
    )
    scale = CodeGrid(np.float32(0.1) * np.array([0.02], np.float32), np.zeros(1, np.int64))
    b = net.tensor("b", "INT32", (2,), scale, np.array([5, -9], np.int32))
    h = net.tensor("h", type_, (1, 2), one_grid(0.003, 40))
    y = net.tensor("y", type_, (1, 2), one_grid(1 / 256, 0 if type_ == "UINT8" else -128))
    net.operate("FULLY_CONNECTED", (x, w, b), (h,))
    net.operate("LOGISTIC", (h,), (y,))
    return net.net([(x, "x")], [(y, "y")])


def loaded(net: TfliteNet) -> Model:
    model, _ = model_of(net)
    remember(model, net)
    return model


def weights_of(model: Model) -> Value:
    node = next(n for n in model.graph if n.op_type == "Gemm").inputs[1].producer()
    assert node is not None
    value = node.inputs[0]
    assert value is not None
    return value


@pytest.mark.parametrize("type_", ["UINT8", "INT8"])
def test_changed_weights_are_changed_in_the_net(type_: str):
    other = WEIGHTS * np.array([[1, 0, 1], [1, 1, -1]])
    model, expected = loaded(layer(WEIGHTS, type_)), layer(other, type_)
    weights_of(model).const_value = onnx_ir.tensor(
        (other * np.float32(0.02)).astype(np.float32)
    )
    net = origin_of(model)
    assert net is not None
    x = {"x": np.array([[90, 12, 33]]).astype(net.tensors[0].dtype)}
    np.testing.assert_array_equal(
        run_net(net, x)[net.outputs[0]], run_net(expected, x)[expected.outputs[0]]
    )
    assert [o.name for o in net.operations] == ["FULLY_CONNECTED", "LOGISTIC"]


def test_a_changed_layer_is_written_exactly_with_all_others(tmp_path: Path):
    other, path = WEIGHTS + np.int8(1), tmp_path / "net.tflite"
    path.write_bytes(write_net(layer(WEIGHTS)))
    model = qh.load(path)
    weights_of(model).const_value = onnx_ir.tensor(
        (other * np.float32(0.02)).astype(np.float32)
    )
    again, integers = tmp_path / "again.tflite", tmp_path / "integer.onnx"
    assert qh.convert(model, again, to="tflite").verdict == "PROVEN"
    qh.convert(model, integers, to="qcdq", encoding="integer")
    expected = layer(other)
    for x in np.random.default_rng(0).integers(0, 256, (20, 1, 3)).astype(np.uint8):
        codes = run_net(expected, {"x": x})[expected.outputs[0]]
        np.testing.assert_array_equal(qh.run(again, {"x": x})["y"], codes)
        np.testing.assert_array_equal(qh.run(integers, {"x": x})["y"], codes)


def test_new_names_are_no_other_net():
    model = loaded(layer(WEIGHTS))
    model.graph.inputs[0].name, model.graph.outputs[0].name = "image", "class"
    for node in model.graph:
        node.name = f"{node.name}_again"
    net = origin_of(model)
    assert net is not None
    assert (net.input_names, net.output_names) == (("image",), ("class",))


def test_a_scale_that_the_bias_does_not_follow_is_another_function():
    model = loaded(layer(WEIGHTS))
    weights_of(model).consumers()[0].inputs[1].const_value = onnx_ir.tensor(np.float32(0.03))
    assert origin_of(model) is None


def test_a_model_with_another_node_stands_for_no_net():
    model = loaded(layer(WEIGHTS))
    gemm = next(node for node in model.graph if node.op_type == "Gemm")
    gemm.attributes["alpha"] = onnx_ir.AttrFloat32("alpha", 0.5)
    assert origin_of(model) is None


def test_every_constant_of_another_quantizer_setting_is_seen():
    model = loaded(layer(WEIGHTS))
    node = next(n for n in model.graph if dialect.is_quantizer(n) and n.inputs[0].producer())
    node.attributes["narrow"] = onnx_ir.AttrInt64("narrow", 1)
    assert origin_of(model) is None
