"""Models split at tensors and merged again compute what they computed."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.graph.partition import merge_models, split_model
from qonnx_hub_ir.validity import verify
from tests.ir.graphs import f32, info, operators, parameters, proto, quant
from tests.ir.pass_kit import assert_equal, loaded

X = {"x": np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)}


def relu(x: str, y: str):
    return helper.make_node("Relu", [x], [y], name=f"relu_{y}")


def add(a: str, b: str, y: str):
    return helper.make_node("Add", [a, b], [y], name=f"add_{y}")


def chain(outputs=("y",)):
    nodes = [quant("x", "p", "q1"), add("p", "c", "r"), quant("r", "q", "q2"), relu("q", "y")]
    shapes = [info(name, [2, 3]) for name in outputs]
    return loaded(proto(nodes, outputs=shapes, weights=parameters() | {"c": f32([1, 2, 3])}))


def names(values) -> list[str]:
    return [str(value.name) for value in values]


@pytest.mark.parametrize("at", ["p", "r", "q"])
def test_two_parts_in_a_row_compute_the_whole(at):
    whole = chain()
    first, second = split_model(whole, [at])
    assert verify(first) == verify(second) == []
    assert names(first.graph.outputs) == names(second.graph.inputs) == [at]
    middle = qh.run(first, X)
    np.testing.assert_array_equal(qh.run(second, middle)["y"], qh.run(whole, X)["y"])
    assert len(first.graph) + len(second.graph) == len(whole.graph)


@pytest.mark.parametrize("at", ["p", "r", "q"])
def test_merged_again_they_are_the_model_they_came_from(at):
    whole = chain()
    merged = merge_models(*split_model(whole, [at]))
    assert verify(merged) == []
    assert [node.name for node in merged.graph] == [node.name for node in whole.graph]
    assert names(merged.graph.outputs) == ["y"]
    assert_equal(whole, merged, X)


def test_a_cut_through_two_branches_needs_both_tensors():
    nodes = [relu("x", "p"), quant("x", "q", "q1"), add("p", "q", "y")]
    whole = loaded(proto(nodes))
    with pytest.raises(PassError, match="the inputs x lead to"):
        split_model(whole, ["p"])
    first, second = split_model(whole, ["p", "q"])
    assert names(second.graph.inputs) == ["p", "q"]
    merged = merge_models(first, second)
    assert_equal(whole, merged, X)


def test_outputs_go_with_the_part_that_computes_them():
    whole = chain(("p", "r", "y"))
    first, second = split_model(whole, ["r"])
    assert names(first.graph.outputs) == ["r", "p"]
    assert names(second.graph.outputs) == ["y"]
    wanted = qh.run(whole, X)
    assert np.array_equal(qh.run(first, X)["p"], wanted["p"])
    assert np.array_equal(qh.run(second, {"r": wanted["r"]})["y"], wanted["y"])


def test_the_model_given_is_not_changed():
    whole = chain()
    before = onnx_ir.to_proto(whole).SerializeToString(deterministic=True)
    merge_models(*split_model(whole, ["r"]))
    assert onnx_ir.to_proto(whole).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        ([], "none is named"),
        (["nobody"], "no node computes nobody"),
        (["x"], "no node computes x"),
        (["y"], "no output of the model lies behind y"),
    ],
)
def test_a_cut_that_is_none_is_refused(at, reason):
    with pytest.raises(PassError, match=reason):
        split_model(chain(), at)


def test_models_with_the_same_names_inside_are_merged():
    one, other = chain(), chain()
    merged = merge_models(one, other, {"y": "x"})
    assert verify(merged) == []
    assert (names(merged.graph.inputs), names(merged.graph.outputs)) == (["x"], ["y"])
    assert operators(merged) == operators(one) * 2
    labels = [node.name for node in merged.graph]
    assert len(set(labels)) == len(labels)
    wanted = qh.run(other, {"x": qh.run(one, X)["y"]})["y"]
    np.testing.assert_array_equal(qh.run(merged, X)["y"], wanted)


def test_what_is_not_connected_stays_input_and_output():
    shapes = [info("p", [2, 3]), info("q", [2, 3])]
    first = loaded(proto([relu("x", "p"), quant("x", "q", "q1")], outputs=shapes))
    inputs = [info("p", [2, 3]), info("extra", [2, 3])]
    second = loaded(proto([add("p", "extra", "y")], inputs))
    merged = merge_models(first, second)
    assert names(merged.graph.inputs) == ["x", "extra"]
    assert names(merged.graph.outputs) == ["q", "y"]
    found = qh.run(merged, X | {"extra": X["x"]})
    assert np.array_equal(found["y"], np.maximum(X["x"], 0) + X["x"])


def test_a_single_output_feeds_a_single_input_of_another_name():
    merged = merge_models(
        loaded(proto([relu("x", "p")], outputs=[info("p", [2, 3])])),
        loaded(proto([helper.make_node("Neg", ["image"], ["y"])], [info("image", [2, 3])])),
    )
    assert np.array_equal(qh.run(merged, X)["y"], -np.maximum(X["x"], 0))


def other(shape=(2, 3), opset=19, output="out", given="given"):
    nodes = [helper.make_node("Neg", [given], [output])]
    imports = {"": opset}
    return loaded(proto(nodes, [info(given, shape)], [info(output, shape)], {}, imports))


@pytest.mark.parametrize(
    ("second", "connect", "reason"),
    [
        (other((2, 4)), None, "output 'y' does not fit input 'given'"),
        (other(opset=21), None, "versions 19 and 21 of domain ''"),
        (other(), {"nobody": "given"}, "nothing to connect: nobody"),
        (other(), {"y": "nobody"}, "inputs of the second: given"),
        (other(output="x"), None, "inputs or outputs called x"),
    ],
)
def test_models_that_do_not_fit_are_refused(second, connect, reason):
    with pytest.raises(PassError, match=reason):
        merge_models(chain(), second, connect)


def returning(given="given", opset=19):
    """A model that returns its input beside what it computes."""
    nodes = [helper.make_node("Neg", [given], ["out"])]
    ends = [info("out", [2, 3]), info(given, [2, 3])]
    return loaded(proto(nodes, [info(given, [2, 3])], ends, {}, {"": opset}))


@pytest.mark.parametrize("given", ["given", "y"])
def test_a_second_model_that_returns_its_input_returns_it_under_its_name(given):
    merged = merge_models(chain(), returning(given))
    assert verify(merged) == []
    assert names(merged.graph.outputs) == ["out", given]
    found, wanted = qh.run(merged, X), qh.run(chain(), X)["y"]
    assert np.array_equal(found[given], wanted)
    assert np.array_equal(found["out"], -wanted)


def test_a_first_model_that_returns_its_input_hands_it_on():
    merged = merge_models(returning("x"), chain(), {"x": "x"})
    assert verify(merged) == []
    assert names(merged.graph.outputs) == ["out", "y"]
    found = qh.run(merged, X)
    assert np.array_equal(found["out"], -X["x"])
    assert np.array_equal(found["y"], qh.run(chain(), X)["y"])


def test_what_goes_straight_through_both_models_keeps_its_last_name():
    second = returning()
    second.graph.outputs[0].name = "negated"
    merged = merge_models(returning("x"), second, {"x": "given"})
    assert verify(merged) == []
    found = qh.run(merged, X)
    assert list(found) == ["out", "negated", "given"]
    assert np.array_equal(found["given"], X["x"])
    assert np.array_equal(found["negated"], -X["x"])


def test_two_outputs_are_not_connected_to_one_input():
    first = loaded(
        proto([relu("x", "p"), relu("x", "q")], outputs=[info("p", [2, 3]), info("q", [2, 3])])
    )
    with pytest.raises(PassError, match="several outputs of the first model"):
        merge_models(first, other(), {"p": "given", "q": "given"})


def test_two_models_that_define_one_function_are_not_merged():
    def with_function(x: str, y: str):
        node = helper.make_node("Twice", [x], [y], domain="my")
        made = proto([node], [info(x, [2, 3])], [info(y, [2, 3])], {}, {"": 19, "my": 1})
        body = [helper.make_node("Add", ["a", "a"], ["b"])]
        made.functions.append(
            helper.make_function(
                "my", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 19)]
            )
        )
        return onnx_ir.from_proto(made)

    with pytest.raises(PassError, match=r"both models define my\.Twice"):
        merge_models(with_function("x", "p"), with_function("p", "y"))
