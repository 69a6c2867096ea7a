"""Operators that nothing here knows: they go through, and nothing is taken for granted."""

import onnx
import pytest
from onnx import helper

from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.errors import InvalidModelError
from tests.support import DOMAIN, model_of, quant_node

CONSTANTS = {"s": 0.25, "z": 0.0, "b": 4.0}


def around(op: str, domain: str, **options) -> onnx.ModelProto:
    """Return a file with one node between two quantizers."""
    nodes = [
        quant_node("x", "q"),
        helper.make_node(op, ["q"], ["m"], "foreign", domain=domain, k=3),
        quant_node("m", "y"),
    ]
    imports = tuple({DOMAIN, domain} - {""})
    return model_of(nodes, {"x": (1, 4)}, ["y"], CONSTANTS, domains=imports, **options)


def read_types(proto: onnx.ModelProto) -> list[tuple[str, str]]:
    return [(node.domain, node.op_type) for node in read_model(proto).graph]


@pytest.mark.parametrize("domain", ["com.example", "", "finn.custom_op.general"])
@pytest.mark.parametrize("opset", [11, 19])
def test_a_node_that_nothing_knows_keeps_its_name_and_domain(domain, opset):
    found = read_types(around("MyOp", domain, opset=opset))
    assert found == [(DOMAIN, "Quant"), (domain, "MyOp"), (DOMAIN, "Quant")]


def test_a_node_that_nothing_knows_keeps_its_attributes_when_the_opset_is_raised():
    model = read_model(around("RequantShift", "", opset=11))
    assert model.opset_imports[""] == 19
    assert model.graph[1].attributes["k"].as_int() == 3
    assert "qonnx_hub.opaque" not in model.opset_imports


def test_what_is_not_known_is_noted_with_domain_and_count():
    note = read_model(around("MyOp", "com.example")).metadata_props[dialect.NOTE]
    assert "1 com.example::MyOp" in note


def test_a_file_of_known_operators_has_no_note():
    proto = model_of([quant_node("x", "y")], {"x": (1, 4)}, ["y"], CONSTANTS)
    assert dialect.NOTE not in read_model(proto).metadata_props


def test_the_shape_that_a_file_gives_behind_an_unknown_node_is_kept():
    proto = around("MyOp", "com.example")
    info = helper.make_tensor_value_info("m", onnx.TensorProto.FLOAT, [1, 4])
    proto.graph.value_info.append(info)
    behind = read_model(proto).graph[2].outputs[0]
    assert list(behind.shape) == [1, 4]


@pytest.mark.parametrize(
    ("domain", "name", "opaque"),
    [
        ("", "Relu", False),
        ("ai.onnx", "Relu", False),
        ("ai.onnx.ml", "Scaler", False),
        ("", "Relou", True),
        ("com.example", "Relu", True),
        (DOMAIN, "Quant", False),
        (DOMAIN, "Im2Col", False),
        (DOMAIN, "DebugMarker", False),
        (DOMAIN, "GenericPartition", True),
        ("com.microsoft", "QGemm", False),
    ],
)
def test_an_operator_is_opaque_if_neither_the_table_nor_onnx_has_it(domain, name, opaque):
    assert operators.is_opaque_name(domain, name) is opaque


def test_an_operator_that_a_later_opset_brings_is_still_no_operator_of_an_older_one():
    with pytest.raises(InvalidModelError, match="unknown operator 'Gelu' in opset 19"):
        read_model(around("Gelu", ""))


@pytest.mark.parametrize("name", ["Quant", "IntQuant"])
def test_a_quantizer_in_the_standard_domain_is_read(name):
    node = helper.make_node(name, ["x", "s", "z", "b"], ["y"], "q", signed=1, narrow=0)
    proto = model_of([node], {"x": (1, 4)}, ["y"], CONSTANTS, domains=(), opset=13)
    assert read_types(proto) == [(DOMAIN, "Quant")]


def test_a_bipolar_quantizer_in_the_standard_domain_is_read():
    node = helper.make_node("BipolarQuant", ["x", "s"], ["y"], "q")
    proto = model_of([node], {"x": (1, 4)}, ["y"], {"s": 0.5}, domains=())
    assert read_types(proto) == [(DOMAIN, "BipolarQuant")]
