"""Proofs around operators that nothing knows, and around nodes that hold graphs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_node

from qonnx_hub.equivalence.proof.prove import prove_models
from qonnx_hub_adapters.onnx_reader import read_model
from tests.support import DOMAIN, model_of, quant_node

FLOAT = np.float32
HELD = {"s": FLOAT(0.25), "z": FLOAT(0), "b": FLOAT(4), "k": FLOAT([0.0, 1.0])}


def unknown(op="Fancy", version=1, outputs=("u",), spelled=None, before=(), **attributes):
    """Return quantizer, unknown operator, quantizer."""
    first = spelled or [quant_node("x", "q")]
    nodes = [
        *first,
        *before,
        make_node(op, ["q", "k"], [*outputs], domain="com.example", **attributes),
        quant_node("u", "y"),
    ]
    held = HELD | {"minus": FLOAT([-0.0, 1.0]), "ends": FLOAT(1.75), "low": FLOAT(-2)}
    model = model_of(nodes, {"x": (1, 2)}, ["y"], held, domains=(DOMAIN, "com.example"))
    for opset in model.opset_import:
        if opset.domain == "com.example":
            opset.version = version
    return read_model(model)


def written_out():
    """Return the same steps as the first quantizer of ``unknown``."""
    return [
        make_node("Div", ["x", "s"], ["t"]),
        make_node("Round", ["t"], ["r"]),
        make_node("Mul", ["r", "s"], ["m"]),
        make_node("Clip", ["m", "low", "ends"], ["q"]),
    ]


def test_an_unknown_operator_is_one_function_of_equal_inputs_and_the_proof_says_so():
    found = prove_models(unknown(mode="a"), unknown(mode="a", spelled=written_out()))
    assert found.proven
    assert (
        "these unknown operators are functions of their inputs and attributes: "
        "com.example::Fancy" in found.assumptions
    )


def test_the_assumption_is_not_named_where_all_operators_are_known():
    nodes = [quant_node("x", "y")]
    model = read_model(model_of(nodes, {"x": (1, 2)}, ["y"], HELD))
    assert "unknown" not in " ".join(prove_models(model, model.clone()).assumptions)


@pytest.mark.parametrize(
    "other",
    [
        {"op": "Plain"},
        {"version": 2},
        {"outputs": ("u", "v")},
        {"outputs": ("v", "u")},
        {"mode": "b"},
        {"pads": [0, 0]},
    ],
    ids=str,
)
def test_unknown_operators_that_differ_in_anything_are_not_taken_for_one(other):
    assert not prove_models(unknown(), unknown(**other), search=False).proven


@pytest.mark.parametrize("name", ["RandomFancy", "FancyDropout", "TopKSampling"])
def test_an_unknown_operator_that_draws_by_its_name_is_no_function(name):
    assert not prove_models(unknown(name), unknown(name), search=False).proven


def test_stored_zeros_of_another_sign_are_other_inputs_of_an_unknown_operator():
    a, b = unknown(), unknown()
    node = next(n for n in b.graph if n.op_type == "Fancy")
    zeros = FLOAT([-0.0, 1.0])
    node.inputs[1].const_value = (
        read_model(
            model_of([make_node("Add", ["x", "c"], ["y"])], {"x": (1, 2)}, ["y"], {"c": zeros})
        )
        .graph.initializers["c"]
        .const_value
    )
    assert not prove_models(a, b, search=False).proven


@pytest.mark.parametrize(("zero", "proven"), [(0.0, True), (-0.0, False)])
def test_a_stored_divisor_of_another_zero_is_another_divisor(zero, proven):
    # 1 / 0 is infinite, and 1 / -0 is minus infinite.
    def divided(number):
        nodes = [make_node("Div", ["x", "c"], ["y"])]
        held = {"c": FLOAT([2.0, number])}
        return read_model(model_of(nodes, {"x": (1, 2)}, ["y"], held))

    assert prove_models(divided(0.0), divided(zero), search=False).proven is proven


def value(name, kind=TensorProto.FLOAT, shape=None):
    return helper.make_tensor_value_info(name, kind, shape)


def loop(factor=2.0, reads="q", inner="Mul", spelled=None, names=("c", "d", "e")):
    """Return a quantizer, and a loop that runs three times over what it makes."""
    cond, out, carried = names
    body = helper.make_graph(
        [
            make_node("Identity", [f"{cond}_in"], [f"{cond}_out"]),
            make_node(inner, [f"{carried}_in", "factor"], [out]),
            make_node("Add", [out, reads], [f"{carried}_out"]),
        ],
        "body",
        [
            value("i", TensorProto.INT64, ()),
            value(f"{cond}_in", TensorProto.BOOL, ()),
            value(f"{carried}_in", shape=(1, 2)),
        ],
        [value(f"{cond}_out", TensorProto.BOOL, ()), value(f"{carried}_out", shape=(1, 2))],
        [numpy_helper.from_array(FLOAT(factor), "factor")],
    )
    nodes = [
        *(spelled or [quant_node("x", "q")]),
        make_node("Neg", ["q"], ["p"]),
        make_node("Loop", ["n", "", "q"], ["y"], body=body),
    ]
    held = HELD | {"n": np.array(3, dtype=np.int64), "ends": FLOAT(1.75), "low": FLOAT(-2)}
    read = {name for node in nodes for name in node.input} | {reads}
    held = {name: array for name, array in held.items() if name in read}
    return read_model(model_of(nodes, {"x": (1, 2)}, ["y"], held))


def test_loops_of_one_body_are_equal_whatever_their_values_are_called():
    other = loop(spelled=written_out(), names=("stop", "twice", "total"))
    found = prove_models(loop(), other)
    assert found.proven
    assert any("zero whose sign it tells" in claim for claim in found.assumptions)


@pytest.mark.parametrize("other", [{"factor": 3.0}, {"reads": "p"}, {"inner": "Div"}], ids=str)
def test_loops_of_other_bodies_are_not_equal(other):
    assert not prove_models(loop(), loop(**other), search=False).proven


def test_what_a_body_reads_is_only_equal_if_it_is_proven():
    # The values carried are equal; those that the body reads are of another scale.
    def reading(scale):
        nodes = [
            quant_node("x", "q"),
            quant_node("x", "p", "s2", "z", "b"),
            make_node("Loop", ["n", "", "q"], ["y"], body=_body()),
        ]
        held = {n: HELD[n] for n in "szb"} | {"s2": FLOAT(scale), "n": np.array(3)}
        return read_model(model_of(nodes, {"x": (1, 2)}, ["y"], held))

    def _body():
        return helper.make_graph(
            [
                make_node("Identity", ["c_in"], ["c_out"]),
                make_node("Add", ["e_in", "p"], ["e_out"]),
            ],
            "body",
            [
                value("i", TensorProto.INT64, ()),
                value("c_in", TensorProto.BOOL, ()),
                value("e_in", shape=(1, 2)),
            ],
            [value("c_out", TensorProto.BOOL, ()), value("e_out", shape=(1, 2))],
        )

    assert prove_models(reading(0.5), reading(0.5), search=False).proven
    assert not prove_models(reading(0.5), reading(0.75), search=False).proven


def drawing(opset=17):
    """Return an If whose branches draw numbers."""

    def branch(name):
        nodes = [make_node("RandomNormalLike", ["x"], [name])]
        return helper.make_graph(nodes, name, [], [value(name, shape=(1, 2))])

    nodes = [
        make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        make_node("Cast", ["total"], ["yes"], to=TensorProto.BOOL),
        make_node("If", ["yes"], ["y"], then_branch=branch("t"), else_branch=branch("e")),
    ]
    graph = helper.make_graph(
        nodes, "g", [value("x", shape=(1, 2))], [value("y", shape=(1, 2))]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def test_bodies_that_draw_numbers_are_never_equal():
    model: onnx.ModelProto = drawing()
    assert not prove_models(read_model(model), read_model(model), search=False).proven
