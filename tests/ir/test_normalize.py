"""Foreign spellings become canonical ones."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import helper, numpy_helper, parser

from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.lowering.function_bodies import text_of
from qonnx_hub_ir.lowering.quantizer_steps import Variant
from qonnx_hub_ir.passes import NormalizeDialect
from qonnx_hub_ir.quantizers import IntQuant, Rounding
from qonnx_hub_ir.validity import verify
from tests.ir.graphs import (
    BARE,
    CHANNELS_LAST,
    DOMAIN,
    attributes,
    constants,
    f32,
    i64,
    info,
    model,
    node_of,
    operators,
    parameters,
    quant,
)

ALIASES = ["onnx.brevitas", "finn.custom_op.general", "hawq2qonnx", "qonnx", "qonnx.custom_op"]


def normalized(found: onnx_ir.Model) -> onnx_ir.Model:
    """The model after the pass, which must have fired, and must not fire again."""
    assert NormalizeDialect()(found).modified
    assert not NormalizeDialect()(found).modified
    assert verify(found) == []
    return found


def test_a_normalized_model_is_left_alone():
    found = model([quant()])
    before = onnx_ir.to_proto(found).SerializeToString(deterministic=True)
    assert not NormalizeDialect()(found).modified
    assert onnx_ir.to_proto(found).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("domain", ALIASES)
def test_an_alias_of_the_domain_becomes_the_canonical_one(domain):
    found = normalized(model([quant(domain=domain)], imports={"": 19, domain: 1}))
    assert found.graph[0].domain == DOMAIN
    assert dict(found.opset_imports) == {"": 19, DOMAIN: 2}


@pytest.mark.parametrize("domain", [DOMAIN, *ALIASES])
def test_int_quant_is_another_name_of_quant(domain):
    found = normalized(
        model([quant(op="IntQuant", domain=domain)], imports={"": 19, domain: 1})
    )
    assert (found.graph[0].domain, found.graph[0].op_type) == (DOMAIN, "Quant")


@pytest.mark.parametrize(
    ("op", "inputs"),
    [
        ("BipolarQuant", ("s",)),
        ("FloatQuant", ("s", "b", "b", "b", "b")),
        ("Trunc", ("s", "z", "b", "b")),
        ("Trunc", ("s", "z", "b", "s", "b")),
    ],
)
def test_the_other_quantizers_are_known_by_their_aliases_too(op, inputs):
    node = quant(op=op, inputs=inputs, domain="onnx.brevitas", **BARE)
    found = normalized(model([node], imports={"": 19, "onnx.brevitas": 1}))
    assert dialect.is_quantizer(found.graph[0])


def test_ai_onnx_is_the_standard_domain():
    nodes = [helper.make_node("Relu", ["x"], ["t"], domain="ai.onnx"), quant("t")]
    found = normalized(model(nodes, imports={"ai.onnx": 13, DOMAIN: 2}))
    assert found.graph[0].domain == ""
    assert dict(found.opset_imports) == {"": 13, DOMAIN: 2}


@pytest.mark.parametrize(
    "imports",
    [
        {"": 19},  # missing
        {"": 19, DOMAIN: 1},  # an older version
        {"": 19, "onnx.brevitas": 1},  # of another spelling than the node's
        {"": 19, DOMAIN: 2, "finn.custom_op.general": 1},  # one too many
        [("", 19), (DOMAIN, 1), (DOMAIN, 1)],  # twice
    ],
)
def test_the_opset_imports_become_the_canonical_ones(imports):
    found = normalized(model([quant()], imports=imports))
    assert dict(found.opset_imports) == {"": 19, DOMAIN: 2}


def test_an_import_that_nobody_asked_about_is_kept():
    found = model([quant()], imports={"": 19, DOMAIN: 2, "com.example": 3})
    assert not NormalizeDialect()(found).modified
    assert found.opset_imports["com.example"] == 3


def test_channels_last_operators_have_the_version_of_the_standard_ones():
    node = helper.make_node("MaxPool", ["x"], ["y"], domain=CHANNELS_LAST, kernel_shape=[2, 2])
    found = normalized(model([node], weights={}, imports={"": 11, CHANNELS_LAST: 1}))
    assert found.opset_imports[CHANNELS_LAST] == 11


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("round", "ROUND"),
        ("half_up", "HALF_UP"),
        ("HALF_EVEN", "ROUND"),
        ("half_even", "ROUND"),
        ("ROUND_TO_ZERO", "DOWN"),
        ("dpu", "DPU"),
    ],
)
def test_rounding_modes_get_their_canonical_names(text, mode):
    found = normalized(model([quant(rounding_mode=text)]))
    assert attributes(found.graph[0])["rounding_mode"] == mode


@pytest.mark.parametrize(
    ("missing", "value"), [("signed", 1), ("narrow", 0), ("rounding_mode", "ROUND")]
)
def test_a_missing_attribute_is_written_out(missing, value):
    found = normalized(model([quant(**{missing: None})]))
    assert attributes(found.graph[0])[missing] == value


def test_trunc_defaults_to_floor():
    inputs = ("s", "z", "b", "s", "b")
    node = quant(op="Trunc", inputs=inputs, **BARE)
    found = normalized(model([node]))
    assert attributes(found.graph[0]) == {"signed": 1, "narrow": 0, "rounding_mode": "FLOOR"}


def test_trunc_of_version_1_has_neither_sign_nor_narrow_range():
    inputs = ("s", "z", "b", "b")
    bare = {"op": "Trunc", "inputs": inputs, "signed": None, "narrow": None}
    found = normalized(model([quant(**bare, rounding_mode="round")]))
    assert attributes(found.graph[0]) == {"rounding_mode": "ROUND"}
    with pytest.raises(SourceError, match="unknown attribute signed; known are rounding_mode"):
        NormalizeDialect()(model([quant(op="Trunc", inputs=inputs, narrow=None)]))


def test_a_flag_written_as_a_float_becomes_an_integer():
    found = normalized(model([quant(signed=1.0)]))
    attribute = found.graph[0].attributes["signed"]
    assert (attribute.type, attribute.value) == (onnx_ir.AttributeType.INT, 1)


@pytest.mark.parametrize("name", ["signed", "narrow"])
@pytest.mark.parametrize("value", [2, -1, 0.5, "1"])
def test_a_flag_that_is_neither_0_nor_1_is_refused(name, value):
    with pytest.raises(SourceError, match=f"Quant 'q7': attribute {name} is .*must be 0 or 1"):
        NormalizeDialect()(model([quant(name="q7", **{name: value})]))


def test_an_unknown_attribute_is_refused_by_name():
    with pytest.raises(
        SourceError, match="Quant 'q7': unknown attribute bits, zz; known are na"
    ):
        NormalizeDialect()(model([quant(name="q7", zz=1, bits=4)]))


def test_an_attribute_of_another_quantizer_is_unknown():
    node = quant(op="BipolarQuant", inputs=("s",), narrow=None, rounding_mode=None)
    with pytest.raises(SourceError, match="unknown attribute signed; known are none"):
        NormalizeDialect()(model([node]))


def test_an_unknown_rounding_mode_is_refused_by_name():
    with pytest.raises(SourceError, match="node 'q7': unknown rounding mode 'NEAREST'"):
        NormalizeDialect()(model([quant(name="q7", rounding_mode="NEAREST")]))


@pytest.mark.parametrize(
    ("op", "inputs", "text"),
    [
        ("Quant", ("s", "z"), "takes the inputs x, scale, zero point, bit width; 3 are given"),
        ("Quant", ("s", "z", "b", "b"), "5 are given, 5 of them connected"),
        ("Quant", ("s", "", "b"), "4 are given, 3 of them connected"),
        ("BipolarQuant", ("s", "s"), "takes the inputs x, scale; 3 are given"),
        ("FloatQuant", ("s",), "2 are given"),
        ("Trunc", ("s", "z", "b"), r"version 1: without output scale\); 4 are given"),
        ("Trunc", ("s", "z", "b", "s", "b", "b"), "7 are given"),
    ],
)
def test_a_number_of_inputs_that_no_version_has_is_refused(op, inputs, text):
    with pytest.raises(SourceError, match=f"{op} 'q7': .*{text}"):
        NormalizeDialect()(model([quant(name="q7", op=op, inputs=inputs, **BARE)]))


def test_initializers_are_not_graph_inputs():
    extra = [info("x", [2, 3]), info("s", []), info("z", []), info("b", [])]
    found = model([quant()], inputs=extra)
    assert dialect.read_quantizer(found.graph[0]).scale is None
    found = normalized(found)
    assert [value.name for value in found.graph.inputs] == ["x"]
    assert dialect.read_quantizer(found.graph[0]) == IntQuant(f32(0.5), f32(0), f32(4))


def test_a_graph_input_without_a_value_stays_one():
    weights = parameters()
    del weights["s"]
    found = model([quant()], inputs=[info("x", [2, 3]), info("s", [])], weights=weights)
    assert not NormalizeDialect()(found).modified
    assert [value.name for value in found.graph.inputs] == ["x", "s"]


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("value", numpy_helper.from_array(f32(0.25))),
        ("value_float", 0.25),
        ("value_floats", [0.25, 0.5, 1.0]),
    ],
)
def test_constant_nodes_become_initializers(attribute, value):
    constant = helper.make_node("Constant", [], ["s"], **{attribute: value})
    weights = parameters()
    del weights["s"]
    found = normalized(model([constant, quant()], weights=weights))
    assert operators(found) == ["Quant"]
    expected = f32(value if isinstance(value, (float, list)) else 0.25)
    assert dialect.read_quantizer(found.graph[0]).scale.tolist() == expected.tolist()


def test_a_large_constant_node_becomes_an_initializer_too():
    big = np.arange(5000, dtype=np.float32).reshape(1, 5000)
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(big)),
        helper.make_node("Add", ["x", "w"], ["y"]),
    ]
    found = normalized(model(nodes, [info("x", [1, 5000])], [info("y", [1, 5000])], {}))
    assert np.array_equal(constants(found)["w"], big)


def test_scalar_outputs_that_are_constants_are_dropped():
    # Exporters that return a quantized tensor write its parameters as outputs, too.
    outputs = [info("y", [2, 3]), info("s", []), info("z", []), info("b", [])]
    found = normalized(model([quant()], outputs=outputs))
    assert [value.name for value in found.graph.outputs] == ["y"]


def test_a_constant_that_is_the_only_output_stays():
    found = model([], outputs=[info("s", [])])
    assert not NormalizeDialect()(found).modified
    assert [value.name for value in found.graph.outputs] == ["s"]


def test_a_constant_output_of_several_elements_stays():
    weights = parameters(scale=[0.5, 0.5, 0.5])
    found = model([quant()], outputs=[info("y", [2, 3]), info("s", [3])], weights=weights)
    assert not NormalizeDialect()(found).modified
    assert [value.name for value in found.graph.outputs] == ["y", "s"]


def test_integer_parameters_are_read_as_they_are():
    weights = {"s": f32(0.5), "z": i64(0), "b": i64(6)}
    found = model([quant(domain="qonnx")], weights=weights, imports={"": 9, "qonnx": 1})
    said = dialect.read_quantizer(normalized(found).graph[0])
    assert said == IntQuant(f32(0.5), i64(0), i64(6), rounding=Rounding.ROUND)


def quant_function(domain: str, overload: str = "") -> onnx.FunctionProto:
    """The function that self-contained files define Quant by."""
    function = onnx.parser.parse_function(text_of(Variant("Quant")))
    function.domain = domain
    function.overload = overload
    return function


@pytest.mark.parametrize("domain", [DOMAIN, "onnx.brevitas"])
def test_a_function_that_says_what_a_quantizer_means_is_dropped(domain):
    functions = [quant_function(domain)]
    found = model([quant(domain=domain)], imports={"": 19, domain: 1}, functions=functions)
    found = normalized(found)
    assert not found.functions
    assert dialect.is_quantizer(found.graph[0])


def test_the_order_of_a_functions_nodes_does_not_matter():
    function = onnx.parser.parse_function(text_of(Variant("BipolarQuant")))
    (compare,) = [node for node in function.node if node.op_type == "GreaterOrEqual"]
    (negate,) = [node for node in function.node if node.op_type == "Neg"]
    found = [
        {"GreaterOrEqual": negate, "Neg": compare}.get(n.op_type, n) for n in function.node
    ]
    assert found != list(function.node)
    turned = helper.make_function(
        DOMAIN, "BipolarQuant", ["x", "scale"], ["y"], found, function.opset_import
    )
    node = helper.make_node("BipolarQuant", ["x", "s"], ["y"], domain=DOMAIN)
    assert not normalized(model([node], functions=[turned])).functions


def test_overloads_of_a_quantizers_function_are_dropped_as_well():
    node = quant()
    node.overload = "signed_4"
    found = model([node], functions=[quant_function(DOMAIN, "signed_4")], ir_version=10)
    assert normalized(found).graph[0].overload == ""


def test_a_function_that_says_something_else_is_refused():
    function = quant_function(DOMAIN)
    (clamp,) = [node for node in function.node if node.op_type == "Min"]
    clamp.op_type = "Max"
    with pytest.raises(SourceError, match="Remove the function if the operator is meant"):
        normalized(model([quant()], functions=[function]))


def test_a_function_that_rounds_by_another_mode_than_its_nodes_is_refused():
    text = text_of(Variant("Quant", (Rounding.FLOOR,)))
    found = model([quant()], functions=[onnx.parser.parse_function(text)])
    with pytest.raises(SourceError, match=r"defines qonnx\.custom_op\.general::Quant"):
        normalized(found)


def test_a_function_of_another_name_is_kept_with_its_calls():
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    opsets = [helper.make_opsetid("", 19)]
    twice = helper.make_function("qonnx", "Twice", ["a"], ["b"], body, opsets)
    nodes = [
        helper.make_node("Twice", ["x"], ["t"], domain="qonnx"),
        quant("t", domain="qonnx"),
    ]
    found = model(nodes, imports={"": 19, "qonnx": 1}, functions=[twice])
    found = normalized(found)
    assert [node.domain for node in found.graph] == ["qonnx", DOMAIN]
    assert dict(found.opset_imports) == {"": 19, "qonnx": 1, DOMAIN: 2}


def test_quantizers_inside_functions_are_normalized():
    body = [quant("x", "y", domain="onnx.brevitas", rounding_mode="round")]
    opsets = [helper.make_opsetid("onnx.brevitas", 1)]
    layer = helper.make_function("local", "Layer", ["x", "s", "z", "b"], ["y"], body, opsets)
    call = helper.make_node("Layer", ["x", "s", "z", "b"], ["y"], domain="local")
    found = model([call], imports={"": 19, "local": 1}, functions=[layer])
    NormalizeDialect()(found)
    (function,) = found.functions.values()
    assert function[0].domain == DOMAIN
    assert attributes(function[0])["rounding_mode"] == "ROUND"


def test_quantizers_inside_branches_are_normalized():
    branches = {}
    for name in ("then_branch", "else_branch"):
        node = quant("x", f"{name}_y", domain="onnx.brevitas", rounding_mode="up")
        branches[name] = helper.make_graph([node], name, [], [info(f"{name}_y", [2, 3])])
    node = helper.make_node("If", ["c"], ["y"], **branches)
    inputs = [info("x", [2, 3]), info("c", [], onnx.TensorProto.BOOL)]
    found = normalized(model([node], inputs, imports={"": 19, "onnx.brevitas": 1}))
    inner = [n for n in found.graph.all_nodes() if n.op_type == "Quant"]
    assert [(n.domain, attributes(n)["rounding_mode"]) for n in inner] == [(DOMAIN, "UP")] * 2


def test_an_operator_that_is_no_quantizer_keeps_its_name():
    node = helper.make_node(
        "MultiThreshold", ["x", "s"], ["y"], domain="finn.custom_op.general"
    )
    found = model([node], imports={"": 19, "finn.custom_op.general": 1})
    NormalizeDialect()(found)
    assert node_of(found, "MultiThreshold").domain == DOMAIN


def test_the_ir_version_allows_initializers_that_are_no_inputs():
    inputs = [info("x", [2, 3]), info("s", []), info("z", []), info("b", [])]
    found = normalized(model([quant()], inputs=inputs, ir_version=3))
    assert found.ir_version == 4


def test_a_model_written_as_text_is_normalized():
    text = """
    <ir_version: 8, opset_import: ["" : 13, "onnx.brevitas" : 1]>
    g (float[2,3] x) => (float[2,3] y) <float s = {0.5}, float z = {0.0}, float b = {4.0}>
    {
        t = Relu (x)
        y = onnx.brevitas.Quant <narrow: int = 0, rounding_mode: string = "round"> (t, s, z, b)
    }
    """
    found = normalized(onnx_ir.from_proto(parser.parse_model(text)))
    assert operators(found) == ["Relu", "Quant"]
    assert attributes(found.graph[1])["signed"] == 1
