"""Scales on their way down a graph."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from qonnx_hub_ir.dialect import PROVENANCE
from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.passes import InferShapes, NameNodes, Streamline
from qonnx_hub_ir.validity import verify
from tests.ir.graphs import (
    DOMAIN,
    constants,
    evaluate,
    f32,
    i64,
    info,
    model,
    node_of,
    operators,
    parameters,
    quant,
)

RANDOM = np.random.default_rng(17)
X = RANDOM.normal(0, 2, (5, 3)).astype(np.float32)
IMAGE = RANDOM.normal(0, 2, (2, 3, 6, 6)).astype(np.float32)
WEIGHT = RANDOM.normal(0, 2, (3, 4)).astype(np.float32)
KERNEL = RANDOM.normal(0, 2, (4, 3, 2, 2)).astype(np.float32)


def node(op_type, inputs, output, **attributes):
    return helper.make_node(op_type, inputs, [output], output, **attributes)


def graph(nodes, weights, x=X, outputs=("y",)):
    shapes = [info("x", x.shape)], [info(name, None) for name in outputs]
    found = model(nodes, *shapes, weights)
    NameNodes()(found)
    InferShapes()(found)
    return found


def layer(act=0.5, weight=0.25):
    """A product of two quantized factors."""
    held = {**parameters(act), "k": WEIGHT, "t": f32(weight)}
    nodes = [
        quant("x", "a", "qa"),
        quant("k", "w", "qw", inputs=("t", "z", "b")),
        node("MatMul", ["a", "w"], "y"),
    ]
    return graph(nodes, held)


def values(found, x):
    """Every value by name, computed by ONNX's reference implementation."""
    outputs = [v for n in found.graph for v in n.outputs]
    found.graph.outputs.extend(v for v in outputs if not v.is_graph_output())
    names = [v.name for v in found.graph.outputs]
    return dict(zip(names, evaluate(found, x=x), strict=True))


def assert_kept(found, step, x=X):
    """Run the pass: outputs are the same bit for bit, and a second run finds nothing."""
    wanted = evaluate(found, x=x)
    names = [value.name for value in found.graph.outputs]
    assert step(found).modified
    assert verify(found) == []
    assert [value.name for value in found.graph.outputs] == names
    for ours, theirs in zip(evaluate(found, x=x), wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not step(found).modified


def test_both_factors_of_a_product_become_integers():
    found = layer()
    assert_kept(found, Streamline(exact=True))
    assert operators(found) == ["Mul", "Quant", "Quant", "MatMul", "Mul"]
    product = node_of(found, "MatMul")
    inside = values(found, X)
    for value in product.inputs:
        whole = inside[value.name]
        assert np.array_equal(whole, np.rint(whole))
        assert np.abs(whole).max() > 1
    # What was the product's output is the output of the Mul with s * t behind it.
    assert 0.125 in [float(a) for a in constants(found).values() if a.size == 1]


@pytest.mark.parametrize("act", [0.5, 0.3])
def test_other_scales_than_powers_of_two_round_differently(act):
    found = layer(act, [[0.1, 0.2, 0.3, 0.7]])
    (wanted,) = evaluate(found, x=X)
    assert not Streamline(exact=True, activations=False)(found).modified
    assert Streamline()(found).modified
    # Three terms of up to 8 * 8 * 0.21, each rounded twice in both forms.
    np.testing.assert_allclose(evaluate(found, x=X)[0], wanted, rtol=0, atol=2e-5)
    assert not Streamline()(found).modified


def test_the_division_by_another_scale_stays_a_division():
    found = layer(0.3)
    Streamline()(found)
    assert operators(found)[0] == "Div"
    assert operators(layer()) == ["Quant", "Quant", "MatMul"]


def test_weights_or_activations_alone_can_be_chosen():
    found = layer()
    Streamline(activations=False)(found)
    assert operators(found) == ["Quant", "Quant", "MatMul", "Mul"]
    found = layer()
    Streamline(weights=False)(found)
    assert operators(found) == ["Mul", "Quant", "Quant", "MatMul", "Mul"]


def test_the_effect_follows_the_option():
    assert Streamline(exact=True).effect is Effect.EXACT
    assert Streamline().effect is Effect.ROUNDING


def test_the_scaled_value_keeps_its_name_and_source_layer():
    nodes = [
        quant("x", "a", "qa"),
        node("MatMul", ["a", "k"], "y"),
        node("Sigmoid", ["a"], "u"),
    ]
    found = graph(nodes, {**parameters(), "k": WEIGHT}, outputs=("y", "u"))
    found.graph[0].outputs[0].metadata_props[PROVENANCE] = "layer"
    wanted = values(found.clone(), X)["a"]
    assert_kept(found, Streamline(exact=True))
    (kept,) = [v for n in found.graph for v in n.outputs if v.name == "a"]
    assert kept.metadata_props[PROVENANCE] == "layer"
    np.testing.assert_array_equal(values(found, X)["a"], wanted)


PASSED = {
    "relu": ([node("Relu", ["m"], "t")], {}),
    "leaky": ([node("LeakyRelu", ["m"], "t", alpha=0.125)], {}),
    "pool": ([node("MaxPool", ["m"], "t", kernel_shape=[2, 2])], {}),
    "mean": ([node("AveragePool", ["m"], "t", kernel_shape=[2, 2])], {}),
    "transpose": ([node("Transpose", ["m"], "t", perm=[0, 1, 3, 2])], {}),
    "reshape": ([node("Reshape", ["m", "sizes"], "t")], {"sizes": i64([2, 3, 4, 9])}),
    "pad": ([node("Pad", ["m", "sizes"], "t")], {"sizes": i64([0, 0, 1, 1] * 2)}),
    "concat": ([node("Concat", ["m", "m"], "t", axis=2)], {}),
    "add": ([node("Add", ["m", "m"], "t")], {}),
    "compress": (
        [node("Compress", ["m", "kept"], "t", axis=2)],
        {"kept": np.array([True, False, True, True, True, True], dtype=np.bool_)},
    ),
    "resize": (
        [node("Resize", ["m", "", "sizes"], "t", mode="nearest")],
        {"sizes": f32([1, 1, 2, 2])},
    ),
}


@pytest.mark.parametrize("case", PASSED)
def test_a_factor_passes(case):
    """From above an operator to below the convolution behind it."""
    between, more = PASSED[case]
    nodes = [node("Mul", ["x", "c"], "m"), *between, node("Conv", ["t", "k"], "y")]
    found = graph(nodes, {"c": f32(0.25), "k": KERNEL, **more}, IMAGE)
    assert_kept(found, Streamline(exact=True), IMAGE)
    assert operators(found) == [between[0].op_type, "Conv", "Mul"]


STOPPED = {
    "sigmoid": ([node("Sigmoid", ["m"], "t")], f32(0.25), {}),
    "negative": ([node("Relu", ["m"], "t")], f32(-0.25), {}),
    "negative_pool": ([node("MaxPool", ["m"], "t", kernel_shape=[2, 2])], f32(-0.25), {}),
    "pad": (
        [node("Pad", ["m", "sizes", "one"], "t")],
        f32(0.25),
        {"sizes": i64([0, 0, 1, 1] * 2), "one": f32(1)},
    ),
    "updates": (
        [node("ScatterElements", ["m", "places", "new"], "t", axis=3)],
        f32(0.25),
        {"places": np.zeros((2, 3, 6, 1), dtype=np.int64), "new": IMAGE[..., :1]},
    ),
    "linear": (
        [node("Resize", ["m", "", "sizes"], "t", mode="linear")],
        f32(0.25),
        {"sizes": f32([1, 1, 2, 2])},
    ),
    "channels": ([node("Identity", ["m"], "t")], f32([[[1]], [[2]], [[4]]]), {}),
    "not_a_power": ([node("Identity", ["m"], "t")], f32(0.3), {}),
    "zero": ([node("Identity", ["m"], "t")], f32(0), {}),
}


@pytest.mark.parametrize("case", STOPPED)
def test_a_factor_stays(case):
    between, factor, more = STOPPED[case]
    nodes = [node("Mul", ["x", "c"], "m"), *between, node("Conv", ["t", "k"], "y")]
    found = graph(nodes, {"c": factor, "k": KERNEL, **more}, IMAGE)
    assert not Streamline(exact=True)(found).modified
    assert operators(found) == ["Mul", between[0].op_type, "Conv"]


def test_one_factor_per_channel_passes_a_depthwise_convolution():
    kernel = KERNEL[:3, :1]
    nodes = [node("Mul", ["x", "c"], "m"), node("Conv", ["m", "k"], "y", group=3)]
    found = graph(nodes, {"c": f32([[[1]], [[2]], [[4]]]), "k": kernel}, IMAGE)
    assert_kept(found, Streamline(exact=True), IMAGE)
    assert operators(found) == ["Conv", "Mul"]


def test_a_summand_passes_a_maximum_but_no_convolution():
    nodes = [
        node("Add", ["x", "c"], "m"),
        node("MaxPool", ["m"], "t", kernel_shape=[2, 2]),
        node("Conv", ["t", "k"], "y"),
    ]
    found = graph(nodes, {"c": f32(0.3), "k": KERNEL}, IMAGE)
    assert_kept(found, Streamline(exact=True), IMAGE)
    assert operators(found) == ["MaxPool", "Add", "Conv"]


def test_factors_and_summands_in_a_row_become_one_of_each():
    nodes = [
        node("Mul", ["x", "c"], "m"),
        node("Add", ["m", "d"], "n"),
        node("Mul", ["n", "e"], "o"),
        node("Sub", ["o", "f"], "y"),
    ]
    held = {"c": f32(2), "d": f32([1, 2, 3]), "e": f32(0.5), "f": f32(4)}
    found = graph(nodes, held)
    (wanted,) = evaluate(found, x=X)
    assert Streamline()(found).modified
    assert operators(found) == ["Add"]
    # x * 2 * 0.5 + (d * 0.5 - 4)
    assert [-3.5, -3.0, -2.5] in [
        array.reshape(-1).tolist() for array in constants(found).values()
    ]
    np.testing.assert_allclose(evaluate(found, x=X)[0], wanted, rtol=0, atol=1e-6)
    assert not Streamline()(found).modified


def test_summands_are_not_merged_where_that_would_round():
    nodes = [node("Add", ["x", "d"], "n"), node("Add", ["n", "e"], "y")]
    found = graph(nodes, {"d": f32(0.1), "e": f32(0.2)})
    assert not Streamline(exact=True)(found).modified
    assert Streamline()(found).modified
    assert operators(found) == ["Add"]


def test_a_power_of_two_goes_into_the_quantizer_below():
    """Quant(4 x, 0.3) is 4 Quant(x, 0.075): the ties stay where they were."""
    nodes = [
        node("Mul", ["x", "c"], "m"),
        quant("m", "a", "qa"),
        node("MatMul", ["a", "k"], "y"),
    ]
    found = graph(nodes, {"c": f32(4), **parameters(0.3), "k": WEIGHT})
    before = values(found.clone(), X)["a"]
    assert Streamline()(found).modified
    assert operators(found) == ["Div", "Quant", "MatMul", "Mul"]
    codes = values(found, X)[node_of(found, "Quant").outputs[0].name]
    np.testing.assert_array_equal(codes * np.float32(0.3), before)
    assert np.float32(0.3) / np.float32(4) in [
        a for a in constants(found).values() if a.size == 1
    ]


def test_another_factor_stays_above_the_quantizer():
    nodes = [
        node("Mul", ["x", "c"], "m"),
        quant("m", "a", "qa"),
        node("MatMul", ["a", "k"], "y"),
    ]
    found = graph(nodes, {"c": f32(3), **parameters(0.3), "k": WEIGHT})
    Streamline()(found)
    assert operators(found) == ["Mul", "Div", "Quant", "MatMul", "Mul"]


def test_a_positive_factor_goes_past_a_sign():
    nodes = [
        node("Mul", ["x", "c"], "m"),
        helper.make_node("BipolarQuant", ["m", "s"], ["a"], "qa", domain=DOMAIN),
        node("MatMul", ["a", "k"], "y"),
    ]
    found = graph(nodes, {"c": f32(4), "s": f32(0.5), "k": WEIGHT})
    assert Streamline(exact=True)(found).modified
    assert operators(found) == ["BipolarQuant", "MatMul", "Mul"]


def test_a_gemm_and_a_convolution_with_quantized_weights_are_split():
    nodes = [quant("k", "w", "qw"), helper.make_node("Gemm", ["x", "w", "c"], ["y"], "fc")]
    found = graph(nodes, {"k": WEIGHT, **parameters(), "c": f32([1, 2, 3, 4])})
    assert_kept(found, Streamline(exact=True))
    assert operators(found) == ["Quant", "MatMul", "Mul", "Add"]
    nodes = [quant("k", "w", "qw"), helper.make_node("Conv", ["x", "w", "c"], ["y"], "conv")]
    scale = f32([0.5, 0.25, 1, 2]).reshape(4, 1, 1, 1)
    found = graph(nodes, {"k": KERNEL, **parameters(scale), "c": f32([1, 2, 3, 4])}, IMAGE)
    assert_kept(found, Streamline(exact=True), IMAGE)
    assert operators(found) == ["Quant", "Conv", "Mul", "Add"]


def test_a_weight_behind_a_transpose_gives_its_scale_too():
    nodes = [
        quant("k", "w", "qw"),
        node("Transpose", ["w"], "v", perm=[1, 0]),
        node("MatMul", ["x", "v"], "y"),
    ]
    scale = f32([0.5, 0.25, 1, 2]).reshape(4, 1)
    found = graph(nodes, {"k": WEIGHT.T.copy(), **parameters(scale)})
    assert_kept(found, Streamline(exact=True))
    assert operators(found) == ["Quant", "MatMul", "Mul"]


def test_a_scale_per_row_of_a_weight_stays():
    nodes = [quant("k", "w", "qw"), node("MatMul", ["x", "w"], "y")]
    found = graph(nodes, {"k": WEIGHT, **parameters(f32([[0.5], [1], [2]]))})
    assert not Streamline()(found).modified


def test_a_weight_that_others_read_keeps_its_values_for_them():
    nodes = [quant("k", "w", "qw"), node("MatMul", ["x", "w"], "y"), node("Relu", ["w"], "u")]
    found = graph(nodes, {"k": WEIGHT, **parameters()}, outputs=("y", "u"))
    assert_kept(found, Streamline(exact=True))
    assert operators(found).count("Quant") == 2


def test_two_layers_that_share_a_weight_share_its_integers():
    nodes = [
        quant("k", "w", "qw"),
        node("MatMul", ["x", "w"], "y"),
        node("MatMul", ["n", "w"], "u"),
    ]
    found = graph(
        [node("Neg", ["x"], "n"), *nodes], {"k": WEIGHT, **parameters()}, X, ("y", "u")
    )
    assert_kept(found, Streamline(exact=True))
    assert operators(found).count("MatMul") == 2
    assert operators(found).count("Mul") == 2


def test_a_residual_sum_of_equal_scales_stays_integer():
    nodes = [
        quant("x", "a", "qa"),
        node("Neg", ["x"], "n"),
        quant("n", "c", "qc"),
        node("Add", ["a", "c"], "t"),
        node("MatMul", ["t", "k"], "y"),
    ]
    found = graph(nodes, {**parameters(), "k": WEIGHT})
    assert_kept(found, Streamline(exact=True))
    assert operators(found)[-3:] == ["Add", "MatMul", "Mul"]


def test_values_read_inside_a_subgraph_are_scaled_for_it():
    branch = helper.make_graph([node("Sigmoid", ["a"], "o")], "branch", [], [info("o", None)])
    nodes = [
        quant("x", "a", "qa"),
        node("MatMul", ["a", "k"], "y"),
        helper.make_node("If", ["c"], ["u"], "if", then_branch=branch, else_branch=branch),
    ]
    held = {**parameters(), "k": WEIGHT, "c": np.array(True, dtype=np.bool_)}
    found = graph(nodes, held, outputs=("y", "u"))
    assert_kept(found, Streamline(exact=True))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_powers_of_two_change_no_bit_of_any_chain(data):
    """Chains of everything that scales, moves or quantizes, in any order."""
    held = {**parameters(0.25), "k": RANDOM.normal(size=(3, 3)).astype(np.float32)}
    held |= {"two": f32(2), "half": f32([0.5, 0.25, 4]), "odd": f32([0.3, -1, 7])}
    makers = {
        "mul": lambda x, y: node("Mul", [x, "two"], y),
        "gain": lambda x, y: node("Mul", ["half", x], y),
        "div": lambda x, y: node("Div", [x, "two"], y),
        "add": lambda x, y: node("Add", [x, "odd"], y),
        "sub": lambda x, y: node("Sub", [x, "odd"], y),
        "relu": lambda x, y: node("Relu", [x], y),
        "product": lambda x, y: node("MatMul", [x, "k"], y),
        "quant": lambda x, y: quant(x, y, y),
        "same": lambda x, y: node("Identity", [x], y),
        "sigmoid": lambda x, y: node("Sigmoid", [x], y),
        "twice": lambda x, y: node("Add", [x, x], y),
    }
    steps = data.draw(st.lists(st.sampled_from(sorted(makers)), min_size=1, max_size=8))
    names = ["x", *(f"v{i}" for i in range(len(steps)))]
    nodes = [makers[s](names[i], names[i + 1]) for i, s in enumerate(steps)]
    forked = data.draw(st.sampled_from(names[1:]))
    found = graph(nodes, held, outputs=tuple(dict.fromkeys((names[-1], forked))))
    wanted = evaluate(found, x=X)
    Streamline(exact=True)(found)
    assert verify(found) == []
    for ours, theirs in zip(evaluate(found, x=X), wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not Streamline(exact=True)(found).modified


@pytest.mark.parametrize("case", ["matmul", "conv", "conv_and_input"])
def test_the_factor_of_a_weight_comes_out_as_well(case):
    """A weight that is a product of codes and a scale, as other passes write it."""
    if case == "matmul":
        held = {"i": np.rint(WEIGHT), "s": f32([0.5, 0.25, 1, 2])}
        nodes, x = [node("MatMul", ["x", "w"], "y")], X
    else:
        held = {"i": np.rint(KERNEL), "s": f32([0.5, 0.25, 1, 2]).reshape(4, 1, 1, 1)}
        nodes, x = [node("Conv", ["x", "w"], "y")], IMAGE
    made = [quant("i", "q", "q"), node("Mul", ["q", "s2"], "w")]
    held = {"i": held["i"], "s2": held["s"], **parameters(1.0)}
    if case == "conv_and_input":
        held["two"] = f32(2)
        nodes = [node("Mul", ["x", "two"], "m"), node("Conv", ["m", "w"], "y")]
    found = graph([*made, *nodes], held, x)
    assert_kept(found, Streamline(exact=True), x)
    assert operators(found)[-2:] == [nodes[-1].op_type, "Mul"]


def test_a_factor_per_element_of_a_weight_is_applied_before_the_layer():
    held = {"i": np.rint(KERNEL), "s2": 2 ** np.rint(KERNEL), "two": f32(2), **parameters(1.0)}
    nodes = [
        quant("i", "q", "q"),
        node("Mul", ["q", "s2"], "v"),
        node("Transpose", ["v"], "w", perm=[0, 1, 3, 2]),
        node("Mul", ["x", "two"], "m"),
        node("Conv", ["m", "w"], "y"),
    ]
    found = graph(nodes, held, IMAGE)
    assert_kept(found, Streamline(exact=True), IMAGE)
    assert operators(found)[-2:] == ["Conv", "Mul"]
