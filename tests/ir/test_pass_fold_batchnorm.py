"""BatchNormalization said as Mul and Add, or folded into weights."""

from __future__ import annotations

import warnings

import numpy as np
import onnx_ir
import pytest
from onnx import helper

from qonnx_hub_ir.dialect import PROVENANCE
from qonnx_hub_ir.passes import FoldBatchnorm, InferShapes
from qonnx_hub_ir.validity import verify
from tests.ir.graphs import (
    CHANNELS_LAST,
    IMPORTS,
    constants,
    evaluate,
    f32,
    info,
    model,
    operators,
    parameters,
    quant,
)

RANDOM = np.random.default_rng(7)
STATISTICS = {
    "g": RANDOM.normal(size=4).astype(np.float32),
    "h": RANDOM.normal(size=4).astype(np.float32),
    "m": RANDOM.normal(size=4).astype(np.float32),
    "v": (RANDOM.random(4) + 0.25).astype(np.float32),
}
IMAGE = RANDOM.normal(size=(2, 4, 3, 3)).astype(np.float32)
ROWS = RANDOM.normal(size=(5, 3)).astype(np.float32)


def batchnorm(x="x", y="y", domain="", **attributes):
    inputs = [x, *STATISTICS]
    return helper.make_node(
        "BatchNormalization", inputs, [y], "bn", domain=domain, **attributes
    )


def one(x=IMAGE, node=None, weights=None, imports=IMPORTS):
    shapes = [info("x", x.shape)], [info("y", [None] * x.ndim)]
    found = model([node or batchnorm()], *shapes, weights or STATISTICS, imports)
    InferShapes()(found)
    return found


def layered(nodes, weights, x):
    found = model(
        [*nodes, batchnorm("t")], [info("x", x.shape)], [info("y", None)], weights | STATISTICS
    )
    InferShapes()(found)
    return found


def test_factor_and_offset_are_those_of_a_calculation_by_hand():
    # 2 / sqrt(3.75 + 0.25) = 1 and 5 - 3 * 1 = 2; 3 / sqrt(0.75 + 0.25) = 3 and 0 + 1 * 3 = 3
    given = {"g": f32([2, 3]), "h": f32([5, 0]), "m": f32([3, -1]), "v": f32([3.75, 0.75])}
    found = one(np.zeros((1, 2, 1, 1), dtype=np.float32), batchnorm(epsilon=0.25), given)
    assert FoldBatchnorm()(found).modified
    assert operators(found) == ["Mul", "Add"]
    held = constants(found)
    assert held["bn_factor"].tolist() == [[[[1.0]], [[3.0]]]]
    assert held["bn_offset"].tolist() == [[[[2.0]], [[3.0]]]]
    assert set(held) == {"bn_factor", "bn_offset"}


@pytest.mark.parametrize(
    "x", [IMAGE, IMAGE[:, :, 0], IMAGE[:, :, 0, 0]], ids=["2d", "1d", "0d"]
)
def test_the_values_stay_up_to_a_rounding(x):
    found = one(x)
    (wanted,) = evaluate(found, x=x)
    assert FoldBatchnorm()(found).modified
    assert verify(found) == []
    # One product and one sum, each rounded: 2 * 2^-24 of terms below 32.
    np.testing.assert_allclose(evaluate(found, x=x)[0], wanted, rtol=0, atol=4e-6)
    assert not FoldBatchnorm()(found).modified


def test_channels_last_statistics_stay_on_the_last_axis():
    last = np.ascontiguousarray(np.moveaxis(IMAGE, 1, -1))
    imports = {"": 19, CHANNELS_LAST: 19}
    found = one(last, batchnorm(domain=CHANNELS_LAST), imports=imports)
    FoldBatchnorm()(found)
    assert verify(found) == []
    assert CHANNELS_LAST not in found.opset_imports
    (wanted,) = evaluate(one(), x=IMAGE)
    (y,) = evaluate(found, x=last)
    np.testing.assert_allclose(np.moveaxis(y, -1, 1), wanted, rtol=0, atol=4e-6)


def test_it_is_what_the_qonnx_package_writes():
    pytest.importorskip("qonnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.transformation.batchnorm_to_affine import BatchNormToAffine

        other = ModelWrapper(onnx_ir.to_proto(one())).transform(BatchNormToAffine())
    found = one()
    FoldBatchnorm()(found)
    theirs = [other.get_initializer(node.input[1]) for node in other.graph.node]
    assert [node.op_type for node in other.graph.node] == operators(found)
    for ours, array in zip(constants(found).values(), theirs, strict=True):
        np.testing.assert_allclose(ours, array, rtol=3e-7)


def test_the_output_keeps_its_name_and_its_source_layer():
    found = one()
    found.graph.outputs[0].metadata_props[PROVENANCE] = "layer1"
    FoldBatchnorm()(found)
    assert found.graph.outputs[0].name == "y"
    assert found.graph.outputs[0].metadata_props[PROVENANCE] == "layer1"


def conv(*names):
    return helper.make_node("Conv", ["x", *names], ["t"], "conv")


CONV = {"w": RANDOM.normal(size=(4, 4, 2, 2)).astype(np.float32)}
LAYERS = {
    "conv": ([conv("w")], CONV, IMAGE, ["Conv"]),
    "conv_bias": ([conv("w", "c")], CONV | {"c": STATISTICS["h"]}, IMAGE, ["Conv"]),
    "matmul": (
        [helper.make_node("MatMul", ["x", "w"], ["t"], "layer")],
        {"w": RANDOM.normal(size=(3, 4)).astype(np.float32)},
        ROWS,
        ["MatMul", "Add"],
    ),
    "gemm": (
        [helper.make_node("Gemm", ["x", "w", "c"], ["t"], "layer", transB=1, alpha=0.5)],
        {"w": RANDOM.normal(size=(4, 3)).astype(np.float32), "c": STATISTICS["m"]},
        ROWS,
        ["Gemm"],
    ),
}


@pytest.mark.parametrize("case", LAYERS)
def test_float_weights_take_the_normalization_in(case):
    nodes, weights, x, left = LAYERS[case]
    found = layered(nodes, weights, x)
    (wanted,) = evaluate(found, x=x)
    assert FoldBatchnorm(weights=True)(found).modified
    assert operators(found) == left
    assert verify(found) == []
    assert found.graph.outputs[0].name == "y"
    # Terms of up to 16 products, all below 32: each rounded a few times.
    np.testing.assert_allclose(evaluate(found, x=x)[0], wanted, rtol=0, atol=2e-5)
    assert not FoldBatchnorm(weights=True)(found).modified


def test_a_quantized_weight_is_left_on_its_grid():
    nodes = [quant("k", "w"), conv("w")]
    found = layered(nodes, {"k": CONV["w"], **parameters()}, IMAGE)
    (wanted,) = evaluate(found, x=IMAGE)
    FoldBatchnorm(weights=True)(found)
    assert operators(found) == ["Quant", "Conv", "Mul", "Add"]
    assert np.array_equal(constants(found)["k"], CONV["w"])
    np.testing.assert_allclose(evaluate(found, x=IMAGE)[0], wanted, rtol=0, atol=2e-5)


def test_a_weight_that_another_layer_reads_is_left_alone():
    second = helper.make_node("Conv", ["x", "w"], ["u"], "second")
    found = layered([conv("w"), second], CONV, IMAGE)
    FoldBatchnorm(weights=True)(found)
    assert operators(found).count("Mul") == 1
    assert np.array_equal(constants(found)["w"], CONV["w"])


def test_what_trains_or_is_computed_stays():
    training = helper.make_node(
        "BatchNormalization", ["x", *STATISTICS], ["y", "a", "b"], "bn", training_mode=1
    )
    assert not FoldBatchnorm()(one(node=training)).modified
    inputs = [info("x", IMAGE.shape), info("g", [4])]
    rest = {name: array for name, array in STATISTICS.items() if name != "g"}
    found = model([batchnorm()], inputs, [info("y", IMAGE.shape)], rest)
    assert not FoldBatchnorm()(found).modified
