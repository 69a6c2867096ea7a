"""RemoveIdentity takes out what changes nothing, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from qonnx_hub_ir.passes import RemoveIdentity
from tests.ir.graphs import f32, i64, info, model, operators, proto, quant
from tests.ir.pass_kit import assert_equal, assert_left_alone, transformed

X = np.array([[-1.5, -0.0, 2.0], [0.25, 7.0, -3.0]], dtype=np.float32)


def relu(x: str, y: str):
    return helper.make_node("Relu", [x], [y], name=f"relu_{y}")


def node(op: str, inputs: list[str], **attributes):
    return helper.make_node(op, inputs, ["t"], name="same", **attributes)


SAME = {
    "Identity": (node("Identity", ["x"]), {}),
    "Dropout": (node("Dropout", ["x"]), {}),
    "Dropout told not to train": (
        node("Dropout", ["x", "half", "false"]),
        {"half": f32(0.5), "false": np.array(False)},
    ),
    "Mul by 1": (node("Mul", ["x", "one"]), {"one": f32(1)}),
    "1 times": (node("Mul", ["one", "x"]), {"one": f32([1, 1, 1])}),
    "Div by 1": (node("Div", ["x", "one"]), {"one": f32([[1]])}),
    "Add of 0": (node("Add", ["x", "nil"]), {"nil": f32([[0], [0]])}),
    "Add of -0": (node("Add", ["x", "nil"]), {"nil": f32(-0.0)}),
    "Sub of 0": (node("Sub", ["x", "nil"]), {"nil": f32(0)}),
    "Transpose": (node("Transpose", ["x"], perm=[0, 1]), {}),
    "Reshape": (node("Reshape", ["x", "shape"]), {"shape": i64([2, -1])}),
    "Flatten": (node("Flatten", ["x"]), {}),
    "Expand": (node("Expand", ["x", "shape"]), {"shape": i64([1, 3])}),
    "Pad": (node("Pad", ["x", "pads"]), {"pads": i64([0, 0, 0, 0])}),
    "Cast": (node("Cast", ["x"], to=TensorProto.FLOAT), {}),
    "Concat": (node("Concat", ["x"], axis=0), {}),
    "Sum": (node("Sum", ["x"]), {}),
}


@pytest.mark.parametrize("name", SAME)
def test_what_returns_its_input_is_removed(name):
    same, weights = SAME[name]
    before, after = transformed(
        proto([same, relu("t", "y")], weights=weights), RemoveIdentity()
    )
    assert operators(after) == ["Relu"]
    assert_equal(before, after, {"x": X})


@pytest.mark.parametrize("name", SAME)
def test_a_graph_output_keeps_its_name(name):
    same, weights = SAME[name]
    last = helper.make_node(same.op_type, [], ["y"], name="same")
    last.input.extend("u" if value == "x" else value for value in same.input)
    last.attribute.extend(same.attribute)
    source = proto([relu("x", "u"), last], weights=weights)
    before, after = transformed(source, RemoveIdentity())
    assert [value.name for value in after.graph.outputs] == ["y"]
    assert operators(after) == ["Relu"]
    assert_equal(before, after, {"x": X})


CHANGES = {
    "Mul by 2": (node("Mul", ["x", "c"]), {"c": f32(2)}),
    "Mul that enlarges": (node("Mul", ["x", "c"]), {"c": np.ones((4, 2, 3), np.float32)}),
    "1 divided": (node("Div", ["c", "x"]), {"c": f32(1)}),
    "0 minus": (node("Sub", ["c", "x"]), {"c": f32(0)}),
    "Add of a NaN": (node("Add", ["x", "c"]), {"c": f32(np.nan)}),
    "Transpose": (node("Transpose", ["x"], perm=[1, 0]), {}),
    "Transpose by default": (node("Transpose", ["x"]), {}),
    "Reshape": (node("Reshape", ["x", "c"]), {"c": i64([3, 2])}),
    "Pad": (node("Pad", ["x", "c"]), {"c": i64([0, 0, 0, 1])}),
    "Cast": (node("Cast", ["x"], to=TensorProto.FLOAT16), {}),
    "Concat": (node("Concat", ["x", "x"], axis=0), {}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_something_stays(name):
    changes, weights = CHANGES[name]
    kind = TensorProto.FLOAT16 if name == "Cast" else TensorProto.FLOAT
    source = proto([changes, relu("t", "y")], outputs=[info("y", None, kind)], weights=weights)
    assert_left_alone(source, RemoveIdentity())


def test_a_dropout_whose_mask_is_read_stays():
    nodes = [
        helper.make_node("Dropout", ["x"], ["t", "mask"]),
        helper.make_node("Cast", ["mask"], ["m"], to=1),
        helper.make_node("Add", ["t", "m"], ["y"]),
    ]
    assert_left_alone(proto(nodes), RemoveIdentity())


def test_an_input_does_not_become_an_output():
    assert_left_alone(proto([helper.make_node("Identity", ["x"], ["y"])]), RemoveIdentity())


def test_two_outputs_do_not_become_one():
    nodes = [relu("x", "y"), helper.make_node("Identity", ["y"], ["again"])]
    source = proto(nodes, outputs=[info("y", [2, 3]), info("again", [2, 3])])
    assert_left_alone(source, RemoveIdentity())


@pytest.mark.parametrize(
    ("op", "zero", "removed"), [("Add", 0.0, False), ("Add", -0.0, True), ("Sub", 0.0, True)]
)
def test_a_zero_is_not_added_away_where_the_sign_of_zeros_shows(op, zero, removed):
    # 1 / (-0.0 + 0.0) is inf, 1 / -0.0 is -inf.
    nodes = [node(op, ["x", "nil"]), helper.make_node("Reciprocal", ["t"], ["y"])]
    found = model(nodes, weights={"nil": f32(zero)})
    assert RemoveIdentity()(found).modified is removed


def test_a_chain_of_identities_goes_at_once():
    nodes = [helper.make_node("Identity", [f"v{i}"], [f"v{i + 1}"]) for i in range(50)]
    nodes = [relu("x", "v0"), *nodes, quant("v50", "y")]
    before, after = transformed(proto(nodes), RemoveIdentity())
    assert operators(after) == ["Relu", "Quant"]
    assert_equal(before, after, {"x": X})


def test_an_identity_inside_of_a_branch_is_removed():
    graphs = {
        name: helper.make_graph(
            [
                relu("x", f"{name}_p"),
                helper.make_node("Identity", [f"{name}_p"], [f"{name}_q"]),
                relu(f"{name}_q", f"{name}_r"),
            ],
            name,
            [],
            [info(f"{name}_r", [2, 3])],
        )
        for name in ("then_branch", "else_branch")
    }
    branch = helper.make_node("If", ["c0"], ["y"], **graphs)
    source = proto([branch], [info("x", [2, 3]), info("c0", [], TensorProto.BOOL)])
    before, after = transformed(source, RemoveIdentity())
    assert sum(n.op_type == "Identity" for n in after.graph.all_nodes()) == 0
    assert_equal(before, after, {"x": X, "c0": np.array(True)})
