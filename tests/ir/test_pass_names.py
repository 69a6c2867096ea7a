"""RenameTensors and GiveNames: names change where they are asked to, and only there."""

from __future__ import annotations

import onnx_ir
import pytest
from onnx import helper

from qonnx_hub_ir.dialect import PROVENANCE
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.passes import GiveNames, RenameTensors
from tests.ir.graphs import f32, info, parameters, proto, quant
from tests.ir.pass_kit import assert_equal, assert_left_alone, loaded, transformed

X = {"x": f32([[-1, 0.3, 2], [0.1, 9, -7]])}


def net():
    nodes = [
        helper.make_node("MatMul", ["x", "a.b.weight"], ["/a/b/out"], name="/a/b/MatMul"),
        quant("/a/b/out", "/a/q/out", "/a/q"),
        helper.make_node("Relu", ["/a/q/out"], ["y"], name="/a/r"),
    ]
    weights = parameters() | {"a.b.weight": f32([[1, 2, 3], [4, 5, 6], [7, 8, 9]])}
    return proto(nodes, weights=weights)


def names_of(found: onnx_ir.Model) -> list[str]:
    return [str(v.name) for node in found.graph for v in (*node.inputs, *node.outputs)]


def renamed(names):
    after = loaded(net())
    assert RenameTensors(names)(after).modified
    assert not RenameTensors(names)(after).modified
    return after


def test_inputs_outputs_weights_and_inner_values_are_renamed():
    names = {"x": "image", "y": "classes", "a.b.weight": "w", "/a/b/out": "sum"}
    after = renamed(names)
    assert names_of(after) == [
        "image",
        "w",
        "sum",
        "sum",
        "s",
        "z",
        "b",
        "/a/q/out",
        "/a/q/out",
        "classes",
    ]
    assert sorted(after.graph.initializers) == ["b", "s", "w", "z"]
    proto_names = {t.name for t in onnx_ir.to_proto(after).graph.initializer}
    assert proto_names == {"b", "s", "w", "z"}


def test_names_can_be_exchanged():
    before = loaded(net())
    after = before.clone()
    assert RenameTensors({"/a/b/out": "/a/q/out", "/a/q/out": "/a/b/out"})(after).modified
    assert names_of(after)[2:4] == ["/a/q/out", "/a/q/out"]
    assert names_of(after)[7] == "/a/b/out"
    assert_equal(before, after, X)


def test_the_source_layers_name_stays():
    before = loaded(net())
    before.graph[0].outputs[0].metadata_props[PROVENANCE] = "layer"
    assert RenameTensors({"/a/b/out": "sum"})(before).modified
    assert before.graph[0].outputs[0].metadata_props[PROVENANCE] == "layer"


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ({"nobody": "n"}, "there is no tensor 'nobody'"),
        ({"x": "y"}, "another tensor is called 'y' already"),
        ({"x": "n", "y": "n"}, "2 tensors shall be called 'n'"),
        ({"x": ""}, "'x' shall have an empty name"),
        ({"x": "y", "nobody": "n"}, "another tensor"),
    ],
)
def test_names_that_clash_are_refused_before_anything_changes(names, reason):
    found = loaded(net())
    before = names_of(found)
    with pytest.raises(onnx_ir.passes.PreconditionError) as caught:
        RenameTensors(names)(found)
    assert isinstance(caught.value.__cause__, PassError)
    assert reason in str(caught.value.__cause__)
    assert names_of(found) == before


def test_readable_names_say_operator_and_role():
    before, after = transformed(net(), GiveNames())
    assert [node.name for node in after.graph] == ["MatMul_0", "Quant_0", "Relu_0"]
    assert names_of(after) == [
        "x",
        "MatMul_0_weight",
        "MatMul_0_out0",
        "MatMul_0_out0",
        "Quant_0_scale",
        "Quant_0_zero_point",
        "Quant_0_bit_width",
        "Quant_0_out0",
        "Quant_0_out0",
        "y",
    ]
    assert_equal(before, after, X)


def test_nodes_alone_or_tensors_alone_can_be_named():
    _, nodes = transformed(net(), GiveNames(tensors=False))
    assert names_of(nodes) == names_of(loaded(net()))
    _, tensors = transformed(net(), GiveNames(nodes=False))
    assert [node.name for node in tensors.graph] == ["/a/b/MatMul", "/a/q", "/a/r"]
    assert names_of(tensors)[1] == "/a/b/MatMul_weight"


def test_a_name_that_an_output_has_is_not_given_again():
    nodes = [
        helper.make_node("Relu", ["x"], ["t"]),
        helper.make_node("Neg", ["t"], ["Relu_0_out0"]),
    ]
    source = proto(nodes, outputs=[info("Relu_0_out0", [2, 3])])
    before, after = transformed(source, GiveNames())
    assert names_of(after) == ["x", "Relu_0_out0_1", "Relu_0_out0_1", "Relu_0_out0"]
    assert_equal(before, after, X)


def test_names_that_are_given_twice_are_given_once():
    _, after = transformed(net(), GiveNames())
    assert_left_alone(after, GiveNames())
