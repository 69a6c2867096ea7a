"""Files are written with the versions of their source, unless a node needs newer ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import qonnx_hub as qh
from qonnx_hub_ir.errors import NotExactError, UsageError

QUANT = "qonnx.custom_op.general"


def source(opset: int, *, kind: str = "qdq", ir: int = 0, extra: str = "") -> onnx.ModelProto:
    """A quantized layer behind a mean, whose axes changed their form at opset 18."""
    constants = {
        "s": np.float32(0.25),
        "z": np.int8(0) if kind == "qdq" else np.float32(0),
        "b": np.float32(8),
        "w": np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3),
    }
    if kind == "qdq":
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="first"),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="second"),
        ]
        del constants["b"]
    else:
        nodes = [helper.make_node("Quant", ["x", "s", "z", "b"], ["d"], "first", domain=QUANT)]
    mean = helper.make_node("ReduceMean", ["d"], ["m"], name="mean", doc_string="of pixels")
    if opset < 18:
        mean.attribute.append(helper.make_attribute("axes", [2, 3]))
    else:
        mean.input.append("axes")
        constants["axes"] = np.array([2, 3])
    mean.attribute.append(helper.make_attribute("keepdims", 0))
    last = helper.make_node("MatMul", ["m", "w"], ["h"], name="layer", doc_string="a product")
    graph = helper.make_graph(
        [*nodes, mean, last, helper.make_node(extra or "Relu", ["h"], ["y"], name="end")],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
        doc_string="a small net",
    )
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid(QUANT, 1)] if kind != "qdq" else []
    model = helper.make_model(graph, opset_imports=imports)
    model.ir_version = ir or helper.find_min_ir_version_for(imports[:1])
    helper.set_model_props(model, {"author": "someone"})
    return model


def written(model: onnx.ModelProto, tmp_path: Path, to: str, **options) -> onnx.ModelProto:
    path = tmp_path / "out.onnx"
    qh.convert(model, path, to=to, **options)
    return onnx.load(path)


def opset_of(model: onnx.ModelProto) -> int:
    return next(one.version for one in model.opset_import if one.domain == "")


@pytest.mark.parametrize("to", ["qonnx", "qcdq", "qlinear"])
@pytest.mark.parametrize("opset", [11, 13, 17, 18, 21])
@pytest.mark.parametrize("kind", ["qdq", "qonnx"])
def test_a_file_keeps_the_versions_of_its_source(tmp_path, to, opset, kind):
    found = source(opset, kind=kind)
    result = written(found, tmp_path, to)
    # Codes of all 8 bits need no Clip, which took no integers before opset 12.
    assert (opset_of(result), result.ir_version) == (opset, found.ir_version)
    onnx.checker.check_model(result, full_check=True)


@pytest.mark.parametrize("to", ["qonnx", "qcdq"])
def test_what_need_not_change_stays(tmp_path, to):
    found = source(13)
    result = written(found, tmp_path, to)
    for side in ("input", "output"):
        ours, theirs = getattr(result.graph, side), getattr(found.graph, side)
        assert [(v.name, v.type) for v in ours] == [(v.name, v.type) for v in theirs]
    wanted = {"mean": "of pixels", "layer": "a product", "end": ""}
    docs = {node.name: node.doc_string for node in result.graph.node}
    assert {name: docs.get(name) for name in wanted} == wanted
    assert result.graph.doc_string == "a small net"
    props = {one.key: one.value for one in result.metadata_props}
    assert props == {"author": "someone"}


@pytest.mark.parametrize("batch", [{}, {"dim_value": -1}])
def test_an_open_size_stays_as_it_was_given(tmp_path, batch):
    found = source(13)
    for value in (found.graph.input[0], found.graph.output[0]):
        value.type.tensor_type.shape.dim[0].CopyFrom(onnx.TensorShapeProto.Dimension(**batch))
    result = written(found, tmp_path, "qcdq")
    assert result.graph.input[0].type == found.graph.input[0].type
    assert result.graph.output[0].type == found.graph.output[0].type


def test_the_producer_stays_and_is_the_hub_where_there_was_none(tmp_path):
    found = source(13)
    assert written(found, tmp_path, "qcdq").producer_name == "qonnx_hub"
    found.producer_name, found.producer_version = "pytorch", "2.5"
    result = written(found, tmp_path, "qcdq")
    assert (result.producer_name, result.producer_version) == ("pytorch", "2.5")


def test_an_ir_version_above_the_lowest_is_kept(tmp_path):
    assert written(source(13, ir=9), tmp_path, "qcdq").ir_version == 9


def test_weights_are_inputs_where_the_ir_version_asks_for_it(tmp_path):
    found = source(13, ir=3)
    for weight in found.graph.initializer:
        found.graph.input.append(
            helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
        )
    result = written(found, tmp_path, "qcdq")
    onnx.checker.check_model(result)  # asks for it before IR version 4
    assert result.ir_version == 3
    assert result.graph.input[0].name == "x"
    assert [value.name for value in qh.load(result).graph.inputs] == ["x"]


@pytest.mark.parametrize("ir", [3, 7])
def test_functions_raise_the_ir_version(tmp_path, ir):
    found = source(19, kind="qonnx", ir=ir)
    for weight in found.graph.initializer if ir < 4 else ():
        found.graph.input.append(
            helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
        )
    assert written(found, tmp_path, "qonnx", self_contained=True).ir_version == 8


@pytest.mark.parametrize(("opset", "ir"), [(13, 7), (17, 8), (21, 10)])
def test_an_opset_asked_for_is_written_with_its_own_ir_version(tmp_path, opset, ir):
    result = written(source(19), tmp_path, "qcdq", opset=opset)
    assert (opset_of(result), result.ir_version) == (opset, ir)


def test_a_node_that_needs_more_raises_the_opset_as_far_as_it_needs(tmp_path):
    found = source(13, kind="qonnx")
    bits = next(t for t in found.graph.initializer if t.name == "b")
    bits.CopyFrom(numpy_helper.from_array(np.float32(4), "b"))
    result = written(found, tmp_path, "qcdq", encoding="qdq")
    # Integers of 4 bits came with opset 21, which goes with IR version 10.
    assert (opset_of(result), result.ir_version) == (21, 10)


def test_an_opset_that_lacks_an_operator_names_the_node(tmp_path):
    with pytest.raises(NotExactError, match=r"Mish 'end'"):
        written(source(18, extra="Mish"), tmp_path, "qcdq", opset=13)


@pytest.mark.parametrize("opset", [8, 99])
def test_an_opset_that_cannot_be_written_is_refused_in_one_line(tmp_path, opset):
    with pytest.raises(UsageError, match=f"opset {opset}") as refused:
        written(source(13), tmp_path, "qcdq", opset=opset)
    assert "\n" not in str(refused.value)


def test_a_file_newer_than_onnxruntime_is_written_as_one_that_it_loads(tmp_path):
    ort = pytest.importorskip("onnxruntime")
    if onnx.defs.onnx_opset_version() < 28:
        pytest.skip("this onnx does not know opset 28")
    result = written(source(28), tmp_path, "qcdq")
    ort.InferenceSession(result.SerializeToString(), providers=["CPUExecutionProvider"])
    assert opset_of(result) == 27


def test_a_model_in_memory_keeps_the_versions_of_its_file_through_passes(tmp_path):
    changed = qh.transform(qh.load(source(13)), ["fold_constants"], check=False).model
    assert opset_of(written(onnx_ir.to_proto(changed), tmp_path, "qcdq")) == 19  # not in files
    path = tmp_path / "out.onnx"
    qh.convert(changed, path, to="qcdq")
    assert opset_of(onnx.load(path)) == 13
