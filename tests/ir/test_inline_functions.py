"""Local functions: attributes of the caller, other opsets, circles, and bombs."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import qonnx_hub as qh
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_ir.errors import SourceError

OWN = "my.functions"
X = np.random.default_rng(2).normal(size=(3, 4)).astype(np.float32)


def calling(functions, top="F", opset=19, **attributes) -> onnx.ModelProto:
    node = helper.make_node(top, ["x"], ["y"], "call", domain=OWN, **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(OWN, 1)]
    return helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=9)


def function(name, nodes, opset=19, **options) -> onnx.FunctionProto:
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(OWN, 1)]
    return helper.make_function(OWN, name, ["a"], ["b"], nodes, imports, **options)


def referring(op, inputs, outputs, name, to, kind=onnx.AttributeProto.INT) -> onnx.NodeProto:
    node = helper.make_node(op, inputs, outputs, op)
    node.attribute.append(onnx.AttributeProto(name=name, ref_attr_name=to, type=kind))
    return node


def run(proto) -> np.ndarray:
    return qh.run(proto, {"x": X})["y"]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("opset", [13, 19])
def test_a_reference_takes_the_value_of_the_caller(axis, opset):
    soft = referring("Softmax", ["a"], ["b"], "axis", "along")
    proto = calling([function("F", [soft], opset, attributes=["along"])], along=axis)
    exponentials = np.exp(X - X.max(axis=axis, keepdims=True))
    wanted = exponentials / exponentials.sum(axis=axis, keepdims=True)
    np.testing.assert_allclose(run(proto), wanted, rtol=1e-6)


def test_a_reference_that_nobody_gives_takes_the_default_of_the_function():
    leaky = referring("LeakyRelu", ["a"], ["b"], "alpha", "slope", onnx.AttributeProto.FLOAT)
    default = helper.make_attribute("slope", 0.5)
    proto = calling([function("F", [leaky], attribute_protos=[default])])
    np.testing.assert_array_equal(run(proto), np.where(X < 0, X * np.float32(0.5), X))


def test_a_quantizer_in_a_function_takes_the_attributes_of_the_caller():
    node = referring("Quant", ["a", "s", "z", "w"], ["b"], "narrow", "n")
    node.domain = "qonnx.custom_op.general"
    constants = [
        helper.make_node("Constant", [], [name], value_float=value)
        for name, value in (("s", 0.25), ("z", 0.0), ("w", 2.0))
    ]
    imports = [helper.make_opsetid("", 19), helper.make_opsetid(node.domain, 1)]
    body = [*constants, node]
    made = helper.make_function(OWN, "F", ["a"], ["b"], body, imports, attributes=["n"])
    assert run(calling([made], n=1)).min() == -0.25
    assert run(calling([made], n=0)).min() == -0.5


@pytest.mark.parametrize(("own", "inner"), [(18, 11), (11, 18), (13, 19), (21, 13)])
def test_a_function_of_another_opset_means_what_it_means_there(own, inner):
    squeeze = {"axes": [2]} if inner < 13 else {}
    last = ["t"] if inner < 13 else ["t", "axes"]
    nodes = [
        helper.make_node("Unsqueeze", ["a"], ["t"], "up", axes=[2])
        if inner < 13
        else helper.make_node("Unsqueeze", ["a", "axes"], ["t"], "up"),
        helper.make_node("Squeeze", last, ["b"], "down", **squeeze),
    ]
    if inner >= 13:
        nodes.insert(0, helper.make_node("Constant", [], ["axes"], value_ints=[2]))
    proto = calling([function("F", nodes, inner)], opset=own)
    np.testing.assert_array_equal(run(proto), X)


def test_functions_of_several_opsets_may_call_each_other():
    low = function("Low", [helper.make_node("Relu", ["a"], ["b"], "r")], 11)
    middle = [
        helper.make_node("Low", ["a"], ["t"], "l", domain=OWN),
        helper.make_node("Neg", ["t"], ["b"], "n"),
    ]
    np.testing.assert_array_equal(
        run(calling([function("F", middle, 15), low], opset=18)), -np.maximum(X, 0)
    )


def test_a_reference_that_another_opset_writes_as_an_input_is_refused_by_name():
    node = referring("Squeeze", ["a"], ["b"], "axes", "along", onnx.AttributeProto.INTS)
    proto = calling([function("F", [node], 11, attributes=["along"])], along=[0])
    with pytest.raises(SourceError, match="local function 'F': attribute 'axes' of node"):
        read_model(proto)


def test_functions_in_a_circle_are_refused_in_one_line():
    first = function("F", [helper.make_node("G", ["a"], ["b"], "g", domain=OWN)])
    second = function("G", [helper.make_node("F", ["a"], ["b"], "f", domain=OWN)])
    with pytest.raises(SourceError, match="call each other in a circle") as caught:
        read_model(calling([first, second]))
    assert len(str(caught.value).splitlines()) == 1


def test_functions_that_stand_for_millions_of_nodes_are_refused_in_one_line():
    functions = [function("F0", [helper.make_node("Relu", ["a"], ["b"], "r")])]
    for level in range(1, 26):
        inner = [
            helper.make_node(f"F{level - 1}", [x], [y], f"c{y}", domain=OWN)
            for x, y in (("a", "t"), ("t", "b"))
        ]
        functions.append(function(f"F{level}", inner))
    with pytest.raises(SourceError, match=r"stand for \d+ nodes") as caught:
        read_model(calling(functions, "F25"))
    assert len(str(caught.value).splitlines()) == 1


def test_results_that_the_caller_does_not_take_need_not_be_named():
    two = [helper.make_node("Neg", ["a"], ["b"]), helper.make_node("Abs", ["a"], ["c"])]
    both = function("F", two)
    both.output.append("c")
    np.testing.assert_array_equal(run(calling([both])), -X)


def test_a_node_without_a_name_is_called_after_the_call_the_function_and_its_operator():
    inner = function("G", [helper.make_node("Relu", ["a"], ["b"])])
    outer = function(
        "F",
        [
            helper.make_node("G", ["a"], ["r"], domain=OWN),
            helper.make_node("Neg", ["r"], ["n"]),
            helper.make_node("Abs", ["n"], ["b"], "/own/name"),
        ],
    )
    model = read_model(calling([inner, outer]))
    names = [node.name for node in model.graph]
    assert names == ["call/G/Relu", "call/F/Neg", "/own/name"]
    assert not any("called_from" in key for node in model.graph for key in node.metadata_props)


def test_a_node_of_the_graph_keeps_its_name_whatever_it_starts_with():
    proto = calling([function("F", [helper.make_node("Neg", ["a"], ["b"])])])
    proto.graph.node[0].output[0] = "t"
    proto.graph.node.append(helper.make_node("Abs", ["t"], ["y"], "//Abs"))
    names = [node.name for node in read_model(proto).graph]
    assert names == ["call/F/Neg", "//Abs"]
