"""What inspect and cost say of integers that a file stores: its own types are right."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import qonnx_hub as qh
from qonnx_hub_ir.errors import UsageError


def net(
    nodes: list[onnx.NodeProto],
    x: tuple[int, tuple[Any, ...]],
    y: tuple[int, tuple[Any, ...]],
    **constants: np.ndarray,
) -> onnx.ModelProto:
    """A model from `x` to `y`, each a type and a shape."""
    ends = [helper.make_tensor_value_info(n, *end) for n, end in (("x", x), ("y", y))]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    opsets = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def quantized_layer(shape: tuple[Any, ...] = (1, 4)) -> onnx.ModelProto:
    """An unsigned activation with an odd zero point times signed weights."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], "d"),
        helper.make_node("Relu", ["d"], ["r"], "r"),
        helper.make_node("DequantizeLinear", ["w", "s", "wz"], ["wd"], "wd"),
        helper.make_node("MatMul", ["r", "wd"], ["y"], "layer"),
    ]
    weights = np.arange(-6, 6, dtype=np.int8).reshape(4, 3)
    return net(
        nodes,
        (TensorProto.FLOAT, shape),
        (TensorProto.FLOAT, (*shape[:-1], 3)),
        s=np.float32(0.1).reshape(()),
        z=np.uint8(113).reshape(()),
        wz=np.int8(0).reshape(()),
        w=weights,
    )


def test_codes_of_an_asymmetric_quantizer_have_its_own_type() -> None:
    first, second = qh.inspect(quantized_layer()).tensors
    assert (first.kind, first.bits, first.signed, first.zero_point) == (
        *("activation", "8", False),
        "113",
    )
    assert (second.kind, second.bits, second.signed) == ("weight", "8", True)


def test_ranges_show_codes_and_what_code_zero_stands_for() -> None:
    found = {r.name: r for r in qh.inspect(quantized_layer(), ranges=True).ranges}
    d = found["d"]
    assert (d.datatype, d.bits, d.integer_low, d.integer_high) == ("UINT8", 8, 0, 255)
    assert float(d.offset) == pytest.approx(-11.3, rel=1e-6)
    assert d.low == np.float32(-113) * np.float32(0.1)
    # Behind Relu codes start at the zero point.
    assert (found["r"].integer_low, found["r"].integer_high) == (113, 255)


def test_products_are_counted_by_stored_types() -> None:
    cost = qh.cost(quantized_layer())
    (layer,) = cost.layers
    assert (layer.macs, layer.input_type, layer.weight_type) == (12, "UINT8", "INT8")
    assert layer.bops == 12 * 8 * 8


def test_two_types_of_one_function_are_both_kept() -> None:
    for dtype, zero in ((np.uint8, 0), (np.int8, -128)):
        proto = quantized_layer()
        for tensor in proto.graph.initializer:
            if tensor.name == "z":
                tensor.CopyFrom(numpy_helper.from_array(np.array(zero, dtype=dtype), "z"))
        found = qh.inspect(proto).tensors[0]
        assert (found.bits, found.signed, found.zero_point) == ("8", zero < 0, str(zero))


def test_integer_products_of_a_file_are_counted() -> None:
    node = helper.make_node("MatMulInteger", ["x", "w", "xz", "wz"], ["y"], "layer")
    proto = net(
        [node],
        (TensorProto.UINT8, (2, 4)),
        (TensorProto.INT32, (2, 3)),
        w=np.array([[0, 3, 7], [3, 3, 3], [1, 1, 1], [2, 2, 3]], dtype=np.uint8),
        xz=np.uint8(5).reshape(()),
        wz=np.uint8(3).reshape(()),
    )
    (layer,) = qh.cost(proto).layers
    assert (layer.macs, layer.input_type, layer.weight_type) == (24, "UINT8", "UINT8")
    # Codes that are the zero point are zeros: 5 of 12.
    assert qh.cost(proto, sparsity=True).layers[0].macs == 24 * 7 // 12
    kinds = [(t.kind, t.bits, t.zero_point) for t in qh.inspect(proto).tensors]
    assert kinds == [("activation", "8", "5"), ("weight", "8", "3")]


def test_integers_of_a_convolution_meet_every_place() -> None:
    node = helper.make_node("ConvInteger", ["x", "w"], ["y"], "layer")
    proto = net(
        [node],
        (TensorProto.UINT8, (1, 2, 5, 5)),
        (TensorProto.INT32, (1, 3, 3, 3)),
        w=np.ones((3, 2, 3, 3), dtype=np.uint8),
    )
    (layer,) = qh.cost(proto).layers
    assert layer.macs == 3 * 2 * 3 * 3 * 9
    assert layer.bops == layer.macs * 64


def test_a_dynamically_quantized_tensor_has_eight_bits_and_no_known_scale() -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], "dynamic"),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["y"], "layer"),
    ]
    proto = net(
        nodes,
        (TensorProto.FLOAT, (2, 4)),
        (TensorProto.INT32, (2, 3)),
        w=np.ones((4, 3), dtype=np.uint8),
    )
    first = qh.inspect(proto).tensors[0]
    assert (first.bits, first.scale, first.zero_point) == ("8", "dynamic", "dynamic")
    assert qh.cost(proto).layers[0].bops == 24 * 64


def test_integers_at_the_borders_of_a_graph_are_quantized_tensors() -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "s", "z"], ["d"], "d"),
        helper.make_node("Relu", ["d"], ["r"], "r"),
        helper.make_node("QuantizeLinear", ["r", "s", "z"], ["y"], "q"),
    ]
    proto = net(
        nodes,
        (TensorProto.UINT8, (2, 4)),
        (TensorProto.UINT8, (2, 4)),
        s=np.float32(0.5).reshape(()),
        z=np.uint8(3).reshape(()),
    )
    found = [(t.name, t.kind, t.bits, t.zero_point) for t in qh.inspect(proto).tensors]
    assert found == [("d", "activation", "8", "3"), ("y", "activation", "8", "3")]


def test_open_sizes_can_be_given_to_cost() -> None:
    proto = quantized_layer(("n", "length", 4))
    assert qh.cost(proto, input_shapes=[(2, 5, 4)]).macs == 2 * 5 * 12
    with pytest.raises(UsageError, match=r"has the shape .*; \(2, 5, 3\) is given"):
        qh.cost(proto, input_shapes=[(2, 5, 3)])
    with pytest.raises(UsageError, match="2 shapes of inputs are given; the model has 1"):
        qh.cost(proto, input_shapes=[(2, 5, 4), (1,)])


def test_a_gemm_on_data_of_unknown_shape_counts_one_row() -> None:
    node = helper.make_node("Gemm", ["x", "w"], ["y"], "layer", transB=1)
    proto = net(
        [node],
        (TensorProto.FLOAT, (1, 4)),
        (TensorProto.FLOAT, (1, 3)),
        w=np.ones((3, 4), dtype=np.float32),
    )
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    assert qh.cost(proto).macs == 12


def test_zero_points_per_column_of_stacked_matrices_are_taken_as_they_broadcast() -> None:
    inputs = ["x", "s", "z", "w", "ws", "wz", "s", "z"]
    node = helper.make_node("QLinearMatMul", inputs, ["y"], "layer")
    zeros = np.arange(6, dtype=np.uint8).reshape(2, 1, 3)
    proto = net(
        [node],
        (TensorProto.UINT8, (2, 2, 4)),
        (TensorProto.UINT8, (2, 2, 3)),
        w=np.tile(zeros, (1, 4, 1)),
        s=np.float32(0.5).reshape(()),
        z=np.uint8(0).reshape(()),
        ws=np.full((2, 1, 3), 0.5, dtype=np.float32),
        wz=zeros,
    )
    (layer,) = qh.cost(proto).layers
    assert (layer.macs, layer.weights) == (2 * 2 * 4 * 3, 24)
    assert qh.cost(proto, sparsity=True).macs == 0
