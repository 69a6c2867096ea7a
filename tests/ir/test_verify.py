"""Each rule of the IR fires, with the node's name in it; sound models break none."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper

from qonnx_hub_ir.errors import InvalidModelError, Issue
from qonnx_hub_ir.validity import label, require_valid, verify
from tests.ir.graphs import BARE, CHANNELS_LAST, DOMAIN, f32, info, model, parameters, quant

FLOAT_INPUTS = ("s", "e", "m", "o", "l")
FLOAT_WEIGHTS = {"s": f32(1), "e": f32(4), "m": f32(3), "o": f32(7), "l": f32(448)}
FLOAT_ATTRIBUTES = {"has_inf": 0, "has_nan": 0, "has_subnormal": 1, "saturation": 1}


def float_quant(**changes) -> onnx.NodeProto:
    given = {**BARE, **FLOAT_ATTRIBUTES, **changes}
    return quant(op="FloatQuant", inputs=FLOAT_INPUTS, **given)


def trunc(**changes) -> onnx.NodeProto:
    return quant(**{"op": "Trunc", "inputs": ("s", "z", "b", "o", "c"), **changes})


OLD_TRUNC = trunc(inputs=("s", "z", "b", "c"), signed=None, narrow=None)
TRUNC_WEIGHTS = {**parameters(), "o": f32(2), "c": f32(2)}


def relu(x: str, y: str, name: str = "r") -> onnx.NodeProto:
    return helper.make_node("Relu", [x], [y], name=name)


def issues(*args, **kwargs) -> list[str]:
    return [str(issue) for issue in verify(model(*args, **kwargs))]


@pytest.mark.parametrize(
    ("node", "weights"),
    [
        (quant(), parameters()),
        (quant(), parameters([[0.5], [0.25]], [1.0, 2.0, 3.5], 8.0)),
        (quant(), parameters([[[[0.5]]]], [0.0], [[1.0]])),
        (quant(), parameters(0.25, 0.0, 64.0)),
        (quant(), parameters(bits=[2.0, 4.0, 8.0])),
        (quant(signed=0), parameters(bits=[1.0, 4.0, 8.0])),
        (quant(rounding_mode="DPU"), parameters()),
        (quant(op="BipolarQuant", inputs=("s",), **BARE), parameters()),
        (float_quant(), FLOAT_WEIGHTS),
        (float_quant(saturation=0, has_nan=1), FLOAT_WEIGHTS | {"m": f32(0)}),
        (trunc(), TRUNC_WEIGHTS),
        (OLD_TRUNC, TRUNC_WEIGHTS),
    ],
)
def test_a_sound_quantizer_breaks_no_rule(node, weights):
    assert issues([node], weights=weights) == []


def test_a_sound_net_breaks_no_rule():
    nodes = [
        quant("w", "wq", "qw"),
        helper.make_node("Conv", ["x", "wq"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["c", "", "high"], ["r"], name="clip"),
        quant("r", "y", "qr", signed=0),
    ]
    weights = parameters() | {"w": np.ones((4, 3, 3, 3), dtype=np.float32), "high": f32(6)}
    shapes = [info("x", ["N", 3, 8, 8])], [info("y", ["N", 4, 8, 8])]
    assert issues(nodes, *shapes, weights) == []


@pytest.mark.parametrize(
    ("weights", "rule"),
    [
        (parameters(scale=0.0), "scale must be above zero, it is 0"),
        (parameters(scale=-0.5), "scale must be above zero, it is -0.5"),
        (parameters(scale=[0.5, -np.inf, 0.25]), "scale must be above zero, it is -inf"),
        (parameters(scale=np.nan), "scale must be finite, it is nan"),
        (parameters(scale=[0.5, np.inf, 0.25]), "scale must be finite, it is inf"),
        (parameters(bits=0.0), "bit width must be a whole number from 1 to 64, it is 0"),
        (parameters(bits=1.5), "bit width must be a whole number from 1 to 64, it is 1.5"),
        (parameters(bits=65.0), "bit width must be a whole number from 1 to 64, it is 65"),
        (parameters(bits=-2.0), "bit width must be a whole number from 1 to 64, it is -2"),
        (parameters(bits=np.nan), "bit width must be a whole number from 1 to 64, it is nan"),
        (parameters(bits=np.inf), "bit width is infinite"),
        (parameters(zero=np.inf), "zero point is infinite"),
        (parameters(zero=np.nan), "zero point is not a number"),
        (parameters(scale=[]), "scale is empty"),
        (parameters(bits=[1.0, 4.0, 4.0]), "mixes one signed bit"),
        (
            parameters(scale=[0.5, 0.25]),
            r"scale of shape \(2,\) does not broadcast to input \(2, 3\)",
        ),
        (
            parameters(zero=np.ones((1, 2, 3))),
            r"zero point of shape \(1, 2, 3\) does not broadcast to input \(2, 3\)",
        ),
        (parameters(bits=[[4.0], [4.0], [4.0]]), r"bit width of shape \(3, 1\) does not"),
    ],
)
def test_a_parameter_without_a_meaning_is_found(weights, rule):
    found = issues([quant(name="q7")], weights=weights)
    assert found
    with pytest.raises(InvalidModelError, match=f"Quant 'q7': {rule}"):
        require_valid(model([quant(name="q7")], weights=weights), "it")


def test_a_parameter_may_not_enlarge_an_axis_of_one_element():
    shapes = [info("x", [2, 1])], [info("y", [2, 1])]
    found = issues([quant()], *shapes, parameters(scale=[0.5, 0.25, 1.0]))
    assert found == ["Quant 'q': scale of shape (3,) does not broadcast to input (2, 1)"]


def test_a_free_axis_takes_any_parameter():
    shapes = [info("x", ["N", None])], [info("y", ["N", None])]
    assert issues([quant()], *shapes, parameters(scale=[0.5, 0.25, 1.0])) == []
    unknown = [info("x", None)], [info("y", None)]
    assert issues([quant()], *unknown, parameters(scale=[0.5, 0.25, 1.0])) == []


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"m": f32(-1)}, "mantissa bit width must be a whole number from 0 to 64, it is -1"),
        ({"e": f32(0)}, "exponent bit width must be a whole number from 1 to 64, it is 0"),
        ({"o": f32(7.5)}, "exponent bias must be a whole number, it is 7.5"),
        ({"o": f32(np.nan)}, "exponent bias must be a whole number, it is nan"),
        ({"l": f32(np.inf)}, "max_val is infinite"),
        ({"s": f32(-1)}, "scale must be above zero, it is -1"),
    ],
)
def test_a_float_format_without_a_meaning_is_found(changes, rule):
    assert issues([float_quant()], weights=FLOAT_WEIGHTS | changes) == [
        f"FloatQuant 'q': {rule}"
    ]


def test_a_float_format_that_can_neither_saturate_nor_overflow_is_found():
    (found,) = issues([float_quant(saturation=0)], weights=FLOAT_WEIGHTS)
    assert found.startswith("FloatQuant 'q': does not saturate and has neither")


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"o": f32(0)}, "output scale must be above zero, it is 0"),
        ({"s": f32(-1)}, "scale must be above zero, it is -1"),
        ({"b": f32(0.5)}, "input bit width must be a whole number from 1 to 64, it is 0.5"),
        ({"c": f32(99)}, "output bit width must be a whole number from 1 to 64, it is 99"),
    ],
)
def test_a_truncation_without_a_meaning_is_found(changes, rule):
    assert issues([trunc()], weights=TRUNC_WEIGHTS | changes) == [f"Trunc 'q': {rule}"]


def test_an_old_truncation_names_its_own_inputs():
    found = issues([OLD_TRUNC], weights=TRUNC_WEIGHTS | {"c": f32(0)})
    assert found == [
        "Trunc 'q': output bit width must be a whole number from 1 to 64, it is 0"
    ]


@pytest.mark.parametrize("node", [quant(name="q7"), trunc(name="q7"), float_quant(name="q7")])
def test_a_quantizer_of_integers_is_found(node):
    weights = FLOAT_WEIGHTS | TRUNC_WEIGHTS | {"o": f32(7)}
    shapes = [info("x", [2, 3], TensorProto.INT32)], [info("y", [2, 3])]
    found = issues([node], *shapes, weights)
    assert found == [f"{node.op_type} 'q7': quantizes float values, its input is INT32"]


@pytest.mark.parametrize(
    "kind", [TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16]
)
def test_every_float_type_can_be_quantized(kind):
    assert issues([quant()], [info("x", [2, 3], kind)], [info("y", [2, 3], kind)]) == []


@pytest.mark.parametrize("inputs", [("s", "z"), ("s", "z", "b", "b"), ("", "z", "b")])
def test_a_quantizer_with_a_wrong_number_of_inputs_is_found(inputs):
    (found,) = issues([quant(name="q7", inputs=inputs)])
    assert found.startswith("Quant 'q7': takes the inputs x, scale, zero point, bit width; ")


def test_an_unknown_attribute_or_rounding_mode_of_a_quantizer_is_found():
    assert issues([quant(zz=1)]) == ["Quant 'q': unknown attribute 'zz'"]
    (found,) = issues([quant(rounding_mode="NEAREST")])
    assert "Quant 'q': node 'q': unknown rounding mode 'NEAREST'" in found


def test_an_input_that_nothing_defines_is_found():
    assert issues([relu("nowhere", "y")]) == ["Relu 'r': input 'nowhere' is defined nowhere"]
    assert issues([quant(inputs=("s", "nowhere", "b"))]) == [
        "Quant 'q': input 'nowhere' is defined nowhere"
    ]


def test_a_graph_output_that_nothing_computes_is_found():
    assert issues([relu("x", "t")]) == ["graph output 'y': nothing computes it"]


def test_a_graph_without_outputs_is_found():
    assert issues([relu("x", "y")], outputs=[]) == ["g: the graph has no output"]


def test_a_cycle_is_found():
    nodes = [
        helper.make_node("Add", ["x", "back"], ["t"], name="a"),
        relu("t", "back"),
        relu("t", "y", "r2"),
    ]
    assert issues(nodes) == [
        "Add 'a': input 'back' is defined after its use, or the graph has a cycle"
    ]


def test_a_node_before_its_input_is_found():
    assert issues([relu("t", "y", "late"), relu("x", "t", "early")]) == [
        "Relu 'late': input 't' is defined after its use, or the graph has a cycle"
    ]


def test_an_output_that_is_defined_twice_is_found():
    found = model([relu("x", "t", "first"), relu("t", "y", "second")])
    found.graph[0].outputs[0].name = "y"
    assert [str(issue) for issue in verify(found)] == [
        "Relu 'second': output 'y' is defined twice"
    ]
    found.graph[0].outputs[0].name = "s"  # an initializer's name
    assert [str(issue) for issue in verify(found)] == [
        "Relu 'first': output 's' is defined twice"
    ]


@pytest.mark.parametrize("domain", ["", DOMAIN, CHANNELS_LAST, "com.example"])
def test_an_unknown_operator_breaks_no_rule(domain):
    node = helper.make_node("Zz", ["x"], ["y"], name="n7", domain=domain)
    imports = {"": 19, DOMAIN: 2, CHANNELS_LAST: 19, "com.example": 1}
    assert issues([node], imports=imports) == []


@pytest.mark.parametrize("domain", [DOMAIN, "com.example"])
def test_a_domain_that_is_not_imported_is_found(domain):
    found = issues([quant(domain=domain)], imports={"": 19})
    assert found == [f"Quant 'q': domain '{domain}' is not imported"]


def test_the_standard_domain_must_be_imported_too():
    found = model([relu("x", "y")])
    del found.opset_imports[""]
    assert [str(issue) for issue in verify(found)] == ["Relu 'r': domain '' is not imported"]


def test_an_operator_newer_than_the_opset_is_unknown():
    node = helper.make_node("Gelu", ["x"], ["y"], name="g7")
    assert issues([node], imports={"": 19}) == [
        "Gelu 'g7': unknown operator 'Gelu' in opset 19"
    ]
    assert issues([node], imports={"": 20}) == []


def test_an_operator_that_was_removed_is_found():
    node = helper.make_node("Upsample", ["x", "s"], ["y"], name="u7")
    assert issues([node], imports={"": 19}) == [
        "Upsample 'u7': operator 'Upsample' is removed in opset 19"
    ]
    assert issues([node], imports={"": 9}) == []


def test_an_unknown_attribute_of_a_standard_operator_is_found():
    node = helper.make_node("Relu", ["x"], ["y"], name="r7", alpha=0.5)
    assert issues([node]) == ["Relu 'r7': unknown attribute 'alpha'"]


def test_a_required_attribute_that_is_missing_is_found():
    node = helper.make_node("Concat", ["x", "x"], ["y"], name="c7")
    assert issues([node]) == ["Concat 'c7': required attribute 'axis' is missing"]


@pytest.mark.parametrize(("inputs", "given"), [(["x", "x", "x"], 3), (["x"], 1)])
def test_a_wrong_number_of_inputs_of_a_standard_operator_is_found(inputs, given):
    node = helper.make_node("Add", inputs, ["y"], name="a7")
    assert issues([node]) == [f"Add 'a7': takes 2 to 2 inputs, {given} are given"]


def test_a_call_of_a_function_of_the_model_is_sound():
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    opsets = [helper.make_opsetid("", 19)]
    twice = helper.make_function("local", "Twice", ["a"], ["b"], body, opsets)
    call = helper.make_node("Twice", ["x"], ["y"], domain="local")
    assert issues([call], imports={"": 19, "local": 1}, functions=[twice]) == []


def branching(inner: str) -> list[onnx.NodeProto]:
    graphs = {
        name: helper.make_graph(
            [relu(inner, f"{name}_y", name)], name, [], [info(f"{name}_y", [2, 3])]
        )
        for name in ("then_branch", "else_branch")
    }
    return [relu("x", "t", "outer"), helper.make_node("If", ["c"], ["y"], name="if", **graphs)]


def test_a_branch_sees_the_values_around_it():
    inputs = [info("x", [2, 3]), info("c", [], TensorProto.BOOL)]
    assert issues(branching("t"), inputs) == []


def test_a_rule_that_is_broken_in_a_branch_is_found():
    found = model(branching("t"), [info("x", [2, 3]), info("c", [], TensorProto.BOOL)])
    inner = next(node for node in found.graph.all_nodes() if node.name == "then_branch")
    inner.replace_input_with(0, onnx_ir.Value(name="nowhere"))
    inner.attributes["zz"] = onnx_ir.AttrInt64("zz", 1)
    assert [str(issue) for issue in verify(found)] == [
        "Relu 'then_branch': input 'nowhere' is defined nowhere",
        "Relu 'then_branch': unknown attribute 'zz'",
    ]


def test_every_broken_rule_is_listed_not_only_the_first():
    nodes = [quant("x", "t", "q1"), quant("t", "y", "q2", zz=1)]
    found = model(nodes, weights=parameters(scale=0.0, bits=0.0))
    with pytest.raises(InvalidModelError) as raised:
        require_valid(found, "'net.onnx'")
    assert len(raised.value.issues) == 5
    lines = str(raised.value).splitlines()
    assert lines[0] == "'net.onnx' is not a valid model:"
    scale = "scale must be above zero, it is 0"
    bits = "bit width must be a whole number from 1 to 64, it is 0"
    assert lines[1:] == [
        f"  - Quant 'q1': {scale}; {bits}",
        f"  - Quant 'q2': unknown attribute 'zz'; {scale}; {bits}",
    ]
    assert {issue.where for issue in raised.value.issues} == {"Quant 'q1'", "Quant 'q2'"}


def test_a_sound_model_is_not_refused():
    require_valid(model([quant()]), "it")


def test_a_node_without_a_name_is_called_by_its_output():
    node = model([helper.make_node("Relu", ["x"], ["y"])]).graph[0]
    assert label(node) == "Relu 'y'"


def test_an_issue_is_one_line():
    issue = Issue("Relu 'r'", "is wrong")
    assert str(issue) == "Relu 'r': is wrong"
    with pytest.raises(dataclasses.FrozenInstanceError):
        issue.rule = ""  # type: ignore[misc]
