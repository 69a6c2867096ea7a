"""Factors that one model holds in weights or scales, and another in products behind them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx.helper import make_node

from qonnx_hub.equivalence.proof.factors import with_factors
from qonnx_hub.equivalence.proof.prove import prove_models
from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.onnx_reader import read_model
from tests.support import DOMAIN, model_of, quant_node

FLOAT = np.float32
RNG = np.random.default_rng(5)
WHOLE = RNG.integers(-7, 8, (3, 4)).astype(FLOAT)
WHOLE[0] = 1
HELD = {"z": FLOAT(0), "b": FLOAT(4), "s": FLOAT(0.0625), "w2": WHOLE.T[:, :2] / 8}


def sign(source, target, scale):
    return make_node("BipolarQuant", [source, scale], [target], domain=DOMAIN)


def net(nodes, shape=(1, 3), **held):
    """Return a model that quantizes ``x`` to ``q`` first, and ends in ``y``."""
    arrays = HELD | {name: np.asarray(array, dtype=FLOAT) for name, array in held.items()}
    nodes = [quant_node("x", "q"), *nodes]
    read = {name for node in nodes for name in node.input}
    arrays = {name: array for name, array in arrays.items() if name in read}
    return read_model(model_of(nodes, {"x": shape}, ["y"], arrays))


def in_weights(factors):
    return net([make_node("MatMul", ["q", "w"], ["y"])], w=WHOLE * np.asarray(factors, FLOAT))


def behind(factors):
    nodes = [make_node("MatMul", ["q", "w"], ["m"]), make_node("Mul", ["m", "f"], ["y"])]
    return net(nodes, w=WHOLE, f=factors)


SCALES = {
    "one for all": 0.125,
    "one for each output": [0.5, 0.25, 4.0, 0.03125],
    "no powers of two": [0.375, 1.25, 3.0, 0.625],
}


@pytest.mark.parametrize("factors", SCALES.values(), ids=SCALES)
def test_a_factor_of_weights_may_stand_behind_the_layer(factors):
    assert prove_models(in_weights(factors), behind(factors)).proven


@pytest.mark.parametrize("index", range(4))
def test_another_factor_behind_the_layer_is_another_function(index):
    factors = np.array([0.5, 0.25, 4.0, 0.03125], dtype=FLOAT)
    other = factors.copy()
    other[index] = np.nextafter(other[index], FLOAT(9))
    assert not prove_models(in_weights(factors), behind(other), search=False).proven


def test_a_factor_whose_products_round_is_not_moved():
    assert not prove_models(in_weights(1 / 3), behind(1 / 3), search=False).proven


def signs(scale, last, weight=1.0, flip=None):
    """Return layer, signs of a scale, layer, product."""
    weights = np.where(WHOLE >= 0, FLOAT(1), FLOAT(-1)) * FLOAT(weight)
    if flip is not None:
        weights.reshape(-1)[flip] *= -1
    nodes = [
        make_node("MatMul", ["q", "w"], ["m"]),
        sign("m", "t", "u"),
        make_node("MatMul", ["t", "w2"], ["n"]),
        make_node("Mul", ["n", "f"], ["y"]),
    ]
    return net(nodes, w=weights, u=scale, f=last)


def test_a_scale_of_signs_may_stand_behind_the_next_layer():
    assert prove_models(signs(0.5, 1.0), signs(1.0, 0.5)).proven


def test_a_factor_before_signs_is_none():
    # Below 2^-149 it would be: no sum of whole numbers on a grid is that small.
    found = prove_models(signs(0.5, 1.0, weight=0.375), signs(1.0, 0.5))
    assert found.proven
    assert found.inputs == "every input on which no NaN arises"


WRONG = {
    "another factor": {"last": 0.25},
    "a negative factor": {"last": -0.5},
    "signs turned": {"weight": -1.0},
    "another weight": {"flip": 3},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_is_not_equal_behind_signs_is_not_proven(wrong):
    other = signs(**{"scale": 1.0, "last": 0.5} | wrong)
    assert not prove_models(signs(0.5, 1.0), other, search=False).proven


def steps(threshold, weights=WHOLE):
    """Return a layer of sums, multiples of 1/16 by default, and which are below a number."""
    nodes = [
        make_node("MatMul", ["q", "w"], ["m"]),
        make_node("Less", ["m", "c"], ["l"]),
        make_node("Cast", ["l"], ["k"], to=1),
        make_node("MatMul", ["k", "w2"], ["y"]),
    ]
    return net(nodes, w=weights, c=threshold)


@pytest.mark.parametrize(
    ("other", "proven"), [(0.03, True), (0.0625, True), (0.063, False), (0.0, False)]
)
def test_functions_are_compared_on_the_numbers_that_reach_them(other, proven):
    # 0.04 and these part on floats between; the only sums around are 0 and 1/16.
    found = prove_models(steps(0.04), steps(other), search=False)
    assert found.proven is proven


def test_sums_that_round_reach_any_number():
    a, b = (steps(threshold, weights=WHOLE * FLOAT(0.1)) for threshold in (0.04, 0.041))
    assert not prove_models(a, b, search=False).proven


IMAGE = (1, 3, 5, 5)


def layers():
    """Yield models with layers of every kind whose factors are split off."""
    kernel = RNG.integers(-4, 5, (2, 3, 3, 3)) * 0.75
    bias = [0.5, -1.25]
    yield "Conv", net([make_node("Conv", ["q", "k", "c"], ["y"])], IMAGE, k=kernel, c=bias)
    depthwise = RNG.integers(-4, 5, (3, 1, 3, 3)) * 0.25
    nodes = [make_node("Conv", ["q", "k"], ["y"], group=3, pads=[1, 1, 1, 1])]
    yield "depthwise", net(nodes, IMAGE, k=depthwise)
    gemm = {"w": WHOLE.T * 0.5, "c": [0.25, 0.5, 4.0, 0.0]}
    yield "Gemm", net([make_node("Gemm", ["q", "w", "c"], ["y"], transB=1)], **gemm)
    one = {"w": WHOLE * 0.5, "c": [0.0625]}
    yield "one bias", net([make_node("Gemm", ["q", "w", "c"], ["y"])], **one)
    yield "MatMul", in_weights(0.0625)
    yield "signs", signs(0.5, 1.0, weight=0.375)


LAYERS = dict(layers())


@pytest.mark.parametrize("name", LAYERS)
def test_a_model_with_its_factors_split_off_computes_the_same_bits(name):
    model = LAYERS[name]
    other = with_factors(model)
    assert other is not None
    assert sum(n.op_type == "Mul" for n in other.graph) > sum(
        n.op_type == "Mul" for n in model.graph
    )
    shape = (40, *model.graph.inputs[0].shape[1:])
    for exponent in (-3, 0, 2, 30):
        x = (RNG.normal(size=shape) * 2.0**exponent).astype(FLOAT)
        for sample in x:
            feeds = {"x": sample[np.newaxis]}
            assert np.array_equal(
                Session(model).run(feeds)["y"], Session(other).run(feeds)["y"]
            )


@pytest.mark.parametrize(
    ("held", "splits"),
    [
        ({"s": 2.0**-40}, True),
        ({"s": 2.0**-41}, False),
        ({"b": 24}, True),
        ({"b": 25}, False),
        ({"z": 3}, True),
        ({"z": 0.5}, False),
        ({"s": 1.5}, False),
    ],
    ids=str,
)
def test_which_quantizers_are_split(held, splits):
    model = net([make_node("Neg", ["q"], ["y"])], **held)
    assert (with_factors(model) is not None) is splits
