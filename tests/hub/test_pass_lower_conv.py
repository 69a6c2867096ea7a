"""Convolutions said as matrix products, run on this project's executor."""

from __future__ import annotations

import warnings

import numpy as np
import onnx_ir
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub_ir.passes import FoldConstants, LowerConvToMatmul, ToChannelsLast
from qonnx_hub_ir.validity import verify
from tests.support import DOMAIN, model_of, quant_node

RANDOM = np.random.default_rng(11)


def whole(*shape):
    """Small whole numbers: sums of them are exact in any order."""
    return RANDOM.integers(-4, 5, shape).astype(np.float32)


IMAGE = whole(2, 4, 7, 6)
SCALES = np.array([0.5, 1, 2, 0.25], dtype=np.float32).reshape(4, 1, 1, 1)


def conv(weight, bias=None, x=IMAGE, quantized=None, **attributes):
    names = ["x", "w", *(["c"] if bias is not None else [])]
    nodes = [helper.make_node("Conv", names, ["y"], "conv", **attributes)]
    constants = {"w": weight} | ({} if bias is None else {"c": bias})
    if quantized is not None:
        constants = {"k": weight, **quantized}
        nodes.insert(0, quant_node("k", "w"))
    return qh.load(model_of(nodes, {"x": x.shape}, ["y"], constants))


def operators(model):
    return [node.op_type for node in model.graph]


AROUND = {"pads": [1, 0, 2, 1], "strides": [2, 1]}
CASES = {
    "windows": (whole(4, 4, 3, 2), {}, ["Transpose", "Im2Col", "MatMul", "Transpose"]),
    "pads": (whole(3, 4, 3, 2), AROUND, ["Transpose", "Im2Col", "MatMul", "Transpose"]),
    "same": (
        whole(3, 4, 3, 2),
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        ["Transpose", "Im2Col", "MatMul", "Transpose"],
    ),
    "dilations": (
        whole(3, 4, 2, 2),
        {"dilations": [2, 3]},
        ["Transpose", "Im2Col", "MatMul", "Transpose"],
    ),
    "pointwise": (whole(5, 4, 1, 1), {}, ["Transpose", "MatMul", "Transpose"]),
    "pointwise_strides": (
        whole(5, 4, 1, 1),
        {"strides": [2, 3]},
        ["Transpose", "Slice", "MatMul", "Transpose"],
    ),
    "depthwise": (
        whole(4, 1, 3, 3),
        {"group": 4},
        ["Transpose", "Im2Col", "MatMul", "Transpose"],
    ),
    "groups": (
        whole(6, 2, 2, 2),
        {"group": 2},
        ["Transpose", "Im2Col", "MatMul", "Transpose"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_convolution_becomes_a_product_of_windows(case):
    weight, attributes, left = CASES[case]
    model = conv(weight, **attributes)
    wanted = qh.run(model, {"x": IMAGE})["y"]
    assert LowerConvToMatmul()(model).modified
    assert operators(model) == left
    assert verify(model) == []
    (product,) = [node for node in model.graph if node.op_type == "MatMul"]
    assert product.name == "conv"
    np.testing.assert_array_equal(qh.run(model, {"x": IMAGE})["y"], wanted)
    assert not LowerConvToMatmul()(model).modified


def test_the_bias_is_added_behind():
    model = conv(whole(4, 4, 2, 2), whole(4))
    wanted = qh.run(model, {"x": IMAGE})["y"]
    LowerConvToMatmul()(model)
    assert operators(model)[-2:] == ["Transpose", "Add"]
    np.testing.assert_array_equal(qh.run(model, {"x": IMAGE})["y"], wanted)


@pytest.mark.parametrize("group", [1, 4])
def test_the_scales_of_a_quantized_weight_go_along(group):
    parameters = {"s": SCALES, "z": np.float32(0), "b": np.float32(4)}
    model = conv(whole(4, 4 // group, 2, 2), quantized=parameters, group=group)
    wanted = qh.run(model, {"x": IMAGE})["y"]
    LowerConvToMatmul()(model)
    assert operators(model) == ["Transpose", "Im2Col", "Quant", "MatMul", "Transpose"] or (
        operators(model) == ["Quant", "Transpose", "Im2Col", "MatMul", "Transpose"]
    )
    assert model.graph.initializers["s"].shape is not None
    assert tuple(model.graph.initializers["s"].shape) == (1, 4)
    np.testing.assert_array_equal(qh.run(model, {"x": IMAGE})["y"], wanted)


def test_a_quantizer_that_cannot_say_zero_keeps_its_groups():
    fractional = {"s": SCALES, "z": np.float32(0.5), "b": np.float32(4)}
    model = conv(whole(4, 1, 2, 2), quantized=fractional, group=4)
    assert not LowerConvToMatmul()(model).modified
    nodes = [
        helper.make_node("BipolarQuant", ["k", "s"], ["w"], "q", domain=DOMAIN),
        helper.make_node("Conv", ["x", "w"], ["y"], "conv", group=4),
    ]
    constants = {"k": whole(4, 1, 2, 2), "s": 1.0}
    bipolar = qh.load(model_of(nodes, {"x": IMAGE.shape}, ["y"], constants))
    assert not LowerConvToMatmul()(bipolar).modified


def test_a_channels_last_convolution_needs_no_transposes():
    model = conv(whole(4, 4, 3, 3), pads=[1, 1, 1, 1])
    wanted = qh.run(model, {"x": IMAGE})["y"]
    ToChannelsLast()(model)
    LowerConvToMatmul()(model)
    assert operators(model) == ["Im2Col", "MatMul"]
    last = np.ascontiguousarray(IMAGE.transpose(0, 2, 3, 1))
    found = qh.run(model, {"x": last})["y"]
    np.testing.assert_array_equal(found.transpose(0, 3, 1, 2), wanted)


def test_what_has_no_known_size_or_another_rank_stays():
    signal = whole(2, 4, 9)
    assert not LowerConvToMatmul()(conv(whole(3, 4, 2), x=signal)).modified
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv")
    open_size = model_of([node], {"x": (1, 4, "H", "W")}, ["y"], {"w": whole(3, 4, 2, 2)})
    assert not LowerConvToMatmul()(qh.load(open_size)).modified


@pytest.mark.parametrize("case", ["windows", "pads", "pointwise", "depthwise"])
def test_it_is_what_the_qonnx_package_writes(case):
    pytest.importorskip("qonnx")
    weight, attributes, _ = CASES[case]
    height, width = weight.shape[2:]
    spelled = {
        "kernel_shape": [height, width],
        "strides": [1, 1],
        "pads": [0] * 4,
        "dilations": [1, 1],
        "group": 1,
        **attributes,
    }
    model = conv(weight, x=IMAGE[:1], **spelled)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.transformation.lower_convs_to_matmul import LowerConvsToMatMul

        other = ModelWrapper(onnx_ir.to_proto(model)).transform(LowerConvsToMatMul())
    LowerConvToMatmul()(model)
    FoldConstants()(model)
    assert [node.op_type for node in other.graph.node] == operators(model)
    (theirs,) = [n for n in other.graph.node if n.op_type == "MatMul"]
    ours = next(node for node in model.graph if node.op_type == "MatMul").inputs[1]
    assert ours is not None
    assert ours.const_value is not None
    np.testing.assert_array_equal(
        ours.const_value.numpy(), other.get_initializer(theirs.input[1])
    )
    for node in other.graph.node:
        if node.op_type != "Im2Col":
            continue
        mine = next(n for n in model.graph if n.op_type == "Im2Col").attributes
        for attribute in node.attribute:
            value = helper.get_attribute_value(attribute)
            value = value.decode() if isinstance(value, bytes) else value
            found = mine[attribute.name].value
            assert (list(found) if isinstance(found, tuple) else found) == value
