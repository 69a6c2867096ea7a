"""What is computed twice is computed once; what only looks equal is left alone."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

import qonnx_hub as qh
from qonnx_hub_ir.passes import MergeEqual
from tests.ir.graphs import f32, info, operators, parameters, proto, quant
from tests.ir.pass_kit import assert_equal, assert_left_alone, transformed

X = {"x": np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)}


def elu(y: str, alpha: float):
    return helper.make_node("Elu", ["x"], [y], name=f"elu_{y}", alpha=alpha)


def add(a: str, b: str, y: str = "y"):
    return helper.make_node("Add", [a, b], [y], name=f"add_{y}")


def test_equal_branches_are_computed_once():
    nodes = [
        *(quant("x", "p", "q1"), quant("x", "q", "q2")),
        *(elu("r", 0.5), elu("t", 0.5)),
        *(add("p", "q", "u"), add("r", "t", "v"), add("u", "v")),
    ]
    before, after = transformed(proto(nodes, weights=parameters()), MergeEqual())
    assert operators(after) == ["Quant", "Elu", "Add", "Add", "Add"]
    assert_equal(before, after, X)


def test_equal_constants_are_held_once():
    nodes = [add("x", "a", "t"), add("t", "b")]
    weights = {"a": f32([1, 2, 3]), "b": f32([1, 2, 3])}
    before, after = transformed(proto(nodes, weights=weights), MergeEqual())
    assert list(after.graph.initializers) == ["a"]
    assert_equal(before, after, X)


@pytest.mark.parametrize("alphas", [(0.5, 0.25), (0.0, -0.0)])
def test_other_attributes_are_other_nodes(alphas):
    nodes = [elu("r", alphas[0]), elu("t", alphas[1]), add("r", "t")]
    assert_left_alone(proto(nodes), MergeEqual())


@pytest.mark.parametrize("values", [([0.0], [-0.0]), ([1, 2], [[1, 2]]), ([1], [2])])
def test_other_bytes_or_shapes_are_other_constants(values):
    nodes = [
        helper.make_node("Mul", ["a", "b"], ["c"], name="m"),
        helper.make_node("ReduceSum", ["c"], ["d"], name="r"),
        add("x", "d"),
    ]
    weights = {"a": f32(values[0]), "b": f32(values[1])}
    assert_left_alone(proto(nodes, weights=weights), MergeEqual())


def test_equal_texts_are_held_once_and_others_apart():
    info_of = helper.make_tensor_value_info
    texts = {"a": ["u"], "b": ["u"], "c": ["w"]}
    nodes = [
        helper.make_node("StringConcat", ["x", "a"], ["p"], name="first"),
        helper.make_node("StringConcat", ["p", "b"], ["q"], name="second"),
        helper.make_node("StringConcat", ["q", "c"], ["y"], name="third"),
    ]
    graph = helper.make_graph(
        nodes,
        "texts",
        [info_of("x", TensorProto.STRING, [1])],
        [info_of("y", TensorProto.STRING, [1])],
        [helper.make_tensor(n, TensorProto.STRING, [1], held) for n, held in texts.items()],
    )
    model = qh.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))
    assert MergeEqual()(model).modified
    assert list(model.graph.initializers) == ["a", "c"]
    assert qh.run(model, {"x": np.array(["-"])})["y"].tolist() == ["-uuw"]


def test_two_outputs_of_the_model_stay_two():
    ends = [info("r", [2, 3]), info("t", [2, 3])]
    assert_left_alone(proto([elu("r", 1.0), elu("t", 1.0)], outputs=ends), MergeEqual())


def test_an_output_keeps_its_name_where_an_inner_value_is_equal():
    nodes = [elu("r", 1.0), elu("y", 1.0), helper.make_node("Neg", ["r"], ["m"], name="n")]
    ends = [info("y", [2, 3]), info("m", [2, 3])]
    before, after = transformed(proto(nodes, outputs=ends), MergeEqual())
    assert operators(after) == ["Elu", "Neg"]
    assert_equal(before, after, X)


def test_random_numbers_are_drawn_twice():
    draw = [
        helper.make_node("RandomNormalLike", ["x"], [y], name=f"draw_{y}") for y in ("r", "t")
    ]
    assert_left_alone(proto([*draw, add("r", "t")]), MergeEqual())


def test_operators_of_others_are_called_twice():
    call = [
        helper.make_node("Mine", ["x"], [y], name=f"mine_{y}", domain="my") for y in ("r", "t")
    ]
    made = proto([*call, add("r", "t")], imports={"": 19, "my": 1})
    made.graph.value_info.extend([info("r", [2, 3]), info("t", [2, 3])])
    assert_left_alone(made, MergeEqual())
