"""Gemm said as MatMul and Add, and back; biases said as Add."""

from __future__ import annotations

import warnings

import numpy as np
import onnx_ir
import pytest
from onnx import TensorProto, helper

from qonnx_hub_ir.dialect import PROVENANCE
from qonnx_hub_ir.passes import ExtractBias, GemmToMatmul, InferShapes, MatmulToGemm
from qonnx_hub_ir.validity import verify
from tests.ir.graphs import (
    CHANNELS_LAST,
    IMPORTS,
    attributes,
    constants,
    evaluate,
    f32,
    info,
    model,
    node_of,
    operators,
    parameters,
    quant,
)

RANDOM = np.random.default_rng(3)


def whole(*shape):
    """Small whole numbers: sums of them are exact in any order."""
    return RANDOM.integers(-6, 7, shape).astype(np.float32)


X, W, C = whole(5, 3), whole(3, 4), whole(4)


def gemm(weights=None, x=X, **options):
    names = ["w", "c"] if weights is None else list(weights)[:2]
    node = helper.make_node("Gemm", ["x", *names], ["y"], "fc", **options)
    given = {"w": W, "c": C} if weights is None else weights
    found = model([node], [info("x", x.shape)], [info("y", None)], given)
    InferShapes()(found)
    return found


GEMMS = {
    "plain": ({"w": W, "c": C}, X, {}, ["MatMul", "Add"]),
    "without_bias": ({"w": W}, X, {}, ["MatMul"]),
    "trans_b": ({"w": W.T.copy(), "c": C}, X, {"transB": 1}, ["MatMul", "Add"]),
    "trans_a": ({"w": W, "c": C}, X.T.copy(), {"transA": 1}, ["Transpose", "MatMul", "Add"]),
    "alpha": ({"w": W, "c": C}, X, {"alpha": 0.5}, ["MatMul", "Mul", "Add"]),
    "beta": ({"w": W, "c": C}, X, {"beta": 0.25}, ["MatMul", "Add"]),
    "beta_zero": ({"w": W, "c": C}, X, {"beta": 0.0}, ["MatMul"]),
    "scalar_bias": ({"w": W, "c": f32(3.0)}, X, {}, ["MatMul", "Add"]),
}


@pytest.mark.parametrize("case", GEMMS)
def test_a_gemm_becomes_products_and_sums(case):
    weights, x, options, left = GEMMS[case]
    found = gemm(weights, x, **options)
    (wanted,) = evaluate(found, x=x)
    assert GemmToMatmul()(found).modified
    assert operators(found) == left
    assert verify(found) == []
    assert node_of(found, "MatMul").name == "fc"
    assert found.graph.outputs[0].name == "y"
    np.testing.assert_array_equal(evaluate(found, x=x)[0], wanted)
    assert not GemmToMatmul()(found).modified


def quantized(shared=False):
    """A Gemm with a transposed weight of four rows, each with a scale of its own."""
    scale = f32([[0.5], [0.25], [1.0], [2.0]])
    weights = {"k": whole(4, 3), **parameters(scale)}
    nodes = [quant("k", "w"), helper.make_node("Gemm", ["x", "w"], ["y"], "fc", transB=1)]
    outputs = [info("y", None)]
    if shared:
        nodes.append(helper.make_node("Identity", ["w"], ["u"], "other"))
        outputs.append(info("u", None))
    found = model(nodes, [info("x", X.shape)], outputs, weights)
    InferShapes()(found)
    return found


def test_the_scales_of_a_transposed_weight_go_along():
    found = quantized()
    (wanted,) = evaluate(found, x=X)
    GemmToMatmul()(found)
    assert operators(found) == ["Quant", "MatMul"]
    assert constants(found)["s"].shape == (1, 4)
    assert constants(found)["k"].shape == (3, 4)
    np.testing.assert_array_equal(evaluate(found, x=X)[0], wanted)


def test_a_weight_that_others_read_is_copied():
    found = quantized(shared=True)
    wanted = evaluate(found, x=X)
    GemmToMatmul()(found)
    assert verify(found) == []
    for ours, theirs in zip(evaluate(found, x=X), wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_it_is_what_the_qonnx_package_writes():
    pytest.importorskip("qonnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.transformation.gemm_to_matmul import GemmToMatMul

        other = ModelWrapper(onnx_ir.to_proto(gemm())).transform(GemmToMatMul())
    found = gemm()
    GemmToMatmul()(found)
    assert [node.op_type for node in other.graph.node] == operators(found)


def test_a_gemm_of_integers_with_a_fraction_stays():
    node = helper.make_node("Gemm", ["x", "w"], ["y"], "fc", alpha=0.5)
    shapes = [info("x", [5, 3], TensorProto.INT32)], [info("y", [5, 4], TensorProto.INT32)]
    found = model([node], *shapes, {"w": W.astype(np.int32)})
    assert not GemmToMatmul()(found).modified


def product(bias, *, extra=False, x=X):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"], "fc"),
        helper.make_node("Add", ["c", "t"], ["y"], "add"),
    ]
    outputs = [info("y", None), *([info("t", None)] if extra else [])]
    found = model(nodes, [info("x", x.shape)], outputs, {"w": W, "c": bias})
    InferShapes()(found)
    return found


@pytest.mark.parametrize(
    "bias", [C, C[None], f32(2.0), f32([2.0])], ids=["1", "2", "0", "one"]
)
def test_a_product_and_its_bias_become_a_gemm(bias):
    found = product(bias)
    (wanted,) = evaluate(found, x=X)
    assert MatmulToGemm()(found).modified
    assert operators(found) == ["Gemm"]
    assert found.graph.outputs[0].name == "y"
    assert attributes(node_of(found, "Gemm")) == {"alpha": 1.0, "beta": 1.0}
    assert verify(found) == []
    np.testing.assert_array_equal(evaluate(found, x=X)[0], wanted)
    assert not MatmulToGemm()(found).modified


def test_a_sum_that_is_no_bias_stays_behind_the_gemm():
    for found in (product(whole(5, 4)), product(C, extra=True)):
        wanted = evaluate(found, x=X)
        MatmulToGemm()(found)
        assert operators(found) == ["Gemm", "Add"]
        for ours, theirs in zip(evaluate(found, x=X), wanted, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_plain_product_stays_where_that_is_asked_for():
    found = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "fc")],
        [info("x", X.shape)],
        [info("y", [5, 4])],
        {"w": W},
    )
    assert not MatmulToGemm(plain=False)(found).modified
    assert MatmulToGemm()(found).modified


def test_products_of_more_axes_stay():
    found = product(C, x=whole(2, 5, 3))
    assert not MatmulToGemm()(found).modified
    assert operators(found) == ["MatMul", "Add"]


IMAGE = whole(2, 3, 5, 5)
KERNEL = whole(4, 3, 2, 2)


def biased(nodes, weights, x=IMAGE, imports=IMPORTS, inputs=()):
    found = model(nodes, [info("x", x.shape), *inputs], [info("y", None)], weights, imports)
    InferShapes()(found)
    return found


def conv(*names, op="Conv", domain=""):
    return helper.make_node(op, ["x", *names], ["y"], "conv", domain=domain)


BIASED = {
    "conv": ([conv("w", "c")], {"w": KERNEL, "c": C}, ["Conv", "Add"]),
    "transposed": (
        [conv("w", "c", op="ConvTranspose")],
        {"w": whole(3, 4, 2, 2), "c": C},
        ["ConvTranspose", "Add"],
    ),
    "quantized": (
        [quant("k", "c"), conv("w", "c")],
        {"w": KERNEL, "k": C, **parameters(f32([0.5, 1, 2, 4]))},
        ["Quant", "Conv", "Add"],
    ),
}


@pytest.mark.parametrize("case", BIASED)
def test_a_bias_becomes_a_sum(case):
    nodes, weights, left = BIASED[case]
    found = biased(nodes, weights)
    found.graph.outputs[0].metadata_props[PROVENANCE] = "layer"
    (wanted,) = evaluate(found, x=IMAGE)
    assert ExtractBias()(found).modified
    assert operators(found) == left
    assert found.graph.outputs[0].name == "y"
    assert found.graph.outputs[0].metadata_props[PROVENANCE] == "layer"
    assert PROVENANCE not in found.graph[-2].outputs[0].metadata_props
    assert verify(found) == []
    np.testing.assert_array_equal(evaluate(found, x=IMAGE)[0], wanted)
    assert not ExtractBias()(found).modified


def test_a_computed_bias_is_reshaped_at_run_time():
    found = biased([conv("w", "c")], {"w": KERNEL}, inputs=[info("c", [4])])
    (wanted,) = evaluate(found, x=IMAGE, c=C)
    ExtractBias()(found)
    assert operators(found) == ["Reshape", "Conv", "Add"]
    np.testing.assert_array_equal(evaluate(found, x=IMAGE, c=C)[0], wanted)


def test_a_bias_of_channels_last_stays_on_the_last_axis():
    weight = np.ascontiguousarray(np.moveaxis(KERNEL, 1, -1))
    last = np.ascontiguousarray(np.moveaxis(IMAGE, 1, -1))
    imports = {"": 19, CHANNELS_LAST: 19}
    node = conv("w", "c", domain=CHANNELS_LAST)
    found = biased([node], {"w": weight, "c": C}, last, imports)
    ExtractBias()(found)
    assert constants(found)["c"].shape == (1, 1, 1, 4)


def test_only_the_named_layers_lose_their_bias():
    found = biased([conv("w", "c")], {"w": KERNEL, "c": C})
    assert not ExtractBias(only=("another",))(found).modified
    assert ExtractBias(only=("conv",))(found).modified


def test_a_layer_without_a_bias_stays():
    assert not ExtractBias()(biased([conv("w")], {"w": KERNEL})).modified


def test_it_is_what_the_qonnx_package_computes():
    pytest.importorskip("qonnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.transformation.extract_conv_bias import ExtractBiasFromConv

        proto = onnx_ir.to_proto(biased([conv("w", "c")], {"w": KERNEL, "c": C}))
        other = ModelWrapper(proto).transform(ExtractBiasFromConv())
    found = biased([conv("w", "c")], {"w": KERNEL, "c": C})
    ExtractBias()(found)
    assert [node.op_type for node in other.graph.node] == operators(found)
    theirs = other.get_initializer(other.graph.node[1].input[1])
    np.testing.assert_array_equal(constants(found)["c"], theirs)
