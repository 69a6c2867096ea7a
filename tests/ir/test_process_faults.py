"""Models over which ONNX's compiled functions end the process are told in a sentence."""

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper

import qonnx_hub as qh
from qonnx_hub_ir.errors import HubError, SourceError
from qonnx_hub_ir.passes import InferShapes, RaiseOpset


def _model(nodes, opset=22):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("acme", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


@pytest.mark.parametrize("opset", [13, 22])
def test_eye_like_behind_an_operator_that_nobody_knows_is_read(opset):
    foreign = helper.make_node("Foo", ["x"], ["h"], domain="acme")
    eye = helper.make_node("EyeLike", ["h"], ["e"], name="eye", dtype=TensorProto.INT32)
    cast = helper.make_node("Cast", ["e"], ["y"], to=TensorProto.FLOAT)
    model = qh.load(_model([foreign, eye, cast], opset))
    assert [node.op_type for node in model.graph] == ["Foo", "EyeLike", "Cast"]
    assert model.graph.node(1).outputs[0].dtype == onnx_ir.DataType.INT32


def test_eye_like_that_is_raised_to_a_newer_opset_computes_the_same():
    eye = helper.make_node("EyeLike", ["x"], ["y"], dtype=TensorProto.FLOAT, k=1)
    x = np.zeros((2, 3), np.float32)
    found = qh.run(_model([eye], 13), {"x": x})["y"]
    np.testing.assert_array_equal(found, np.eye(2, 3, k=1, dtype=np.float32))


def test_text_behind_an_operator_that_nobody_knows_is_matched_to_booleans():
    foreign = helper.make_node("Foo", ["x"], ["h"], domain="acme")
    match = helper.make_node("RegexFullMatch", ["h"], ["m"], pattern="a")
    cast = helper.make_node("Cast", ["m"], ["y"], to=TensorProto.FLOAT)
    model = qh.load(_model([foreign, match, cast]))
    assert model.graph.node(1).outputs[0].dtype == onnx_ir.DataType.BOOL


_BROKEN = {
    "more outputs than num_outputs": (
        helper.make_node("Split", ["x"], ["y", "z"], name="broken", num_outputs=1),
        "2 outputs",
    ),
    "negative batch_dims": (
        helper.make_node("GatherND", ["x", "x"], ["y"], name="broken", batch_dims=-1),
        "batch_dims",
    ),
}


@pytest.mark.parametrize("what", _BROKEN)
@pytest.mark.parametrize("opset", [18, 22])
def test_what_would_end_the_process_names_the_node(what, opset):
    node, words = _BROKEN[what]
    with pytest.raises(HubError, match=rf"{node.op_type} 'broken'.*{words}"):
        qh.load(_model([node], opset))
    model = onnx_ir.from_proto(_model([node], opset))
    with pytest.raises(HubError, match=rf"{node.op_type} 'broken'.*{words}"):
        InferShapes()(model)


def test_an_attribute_of_another_type_is_told_before_the_opset_is_raised():
    node = helper.make_node("Unsqueeze", ["x"], ["y"], name="broken", axes="s")
    model = onnx_ir.from_proto(_model([node], 11))
    with pytest.raises(SourceError, match="Unsqueeze 'broken': attribute 'axes' is of type"):
        RaiseOpset()(model)


def test_an_input_of_undefined_type_is_named():
    model = _model([helper.make_node("Relu", ["x"], ["y"])])
    one = onnx.ValueInfoProto(name="u")
    one.type.tensor_type.elem_type = TensorProto.UNDEFINED
    one.type.tensor_type.shape.dim.add().dim_value = 2
    model.graph.input.append(one)
    with pytest.raises(HubError, match="graph input 'u'"):
        qh.run(model, {"x": np.zeros((2, 3), np.float32), "u": np.zeros(2, np.float32)})


def test_an_output_without_a_type_behind_an_unknown_operator_is_written_without_one(tmp_path):
    model = _model([helper.make_node("Foo", ["x"], ["y"], domain="acme")])
    model.graph.output[0].ClearField("type")
    qh.save(qh.load(model), tmp_path / "out.onnx")
    assert not onnx.load(tmp_path / "out.onnx").graph.output[0].HasField("type")


def test_an_input_without_a_type_cannot_be_written_and_is_named(tmp_path):
    model = qh.load(_model([helper.make_node("Foo", ["x"], ["y"], domain="acme")]))
    model.graph.inputs[0].type = None
    with pytest.raises(HubError, match="input 'x' of the model has no type"):
        qh.save(model, tmp_path / "out.onnx")


def test_an_attribute_of_thresholds_that_is_no_number_is_named():
    node = helper.make_node("MultiThreshold", ["x", "x"], ["y"], out_dtype="INT4")
    node.name, node.domain = "t", "qonnx.custom_op.general"
    node.attribute.append(helper.make_attribute("out_scale", "text"))
    model = _model([node])
    model.opset_import.append(helper.make_opsetid(node.domain, 1))
    with pytest.raises(HubError, match="MultiThreshold 't': attribute 'out_scale' is of type"):
        qh.load(model)
