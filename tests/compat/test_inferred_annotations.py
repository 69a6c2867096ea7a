"""Datatypes and layouts that follow from operators and annotations."""

from __future__ import annotations

import onnx_ir
import pytest
from onnx import helper

import qonnx_hub as qh
from tests.compat.models import annotated, constant, info, model, note, notes


def bare(opset: int = 13):
    """The annotated model with the annotations of its input and its weight only."""
    proto = annotated(opset)
    for held in list(proto.graph.quantization_annotation):
        if held.tensor_name not in ("x", "W"):
            proto.graph.quantization_annotation.remove(held)
    return proto


def done(proto, step: str):
    report = qh.transform(proto, [step], check=False)
    assert report.modified
    assert not qh.transform(report.model, [step], check=False).modified
    return notes(onnx_ir.to_proto(report.model))


def test_datatypes_follow_from_quantizers_and_sums():
    found = done(bare(), "infer_datatypes:allow_scaledint=true")
    said = {name: entry["finn_datatype"] for name, entry in found.items()}
    assert (said["xq"], said["c"], said["y"]) == ("INT4", "INT32", "SCALEDINT<4>")


def test_a_scaled_quantizer_gives_floats_unless_asked():
    assert done(bare(), "infer_datatypes")["y"]["finn_datatype"] == "FLOAT32"


@pytest.mark.parametrize("scaled", [True, False])
def test_datatypes_are_those_of_the_qonnx_package(scaled):
    wrapper = pytest.importorskip("qonnx.core.modelwrapper").ModelWrapper
    from qonnx.transformation.infer_datatypes import InferDataTypes

    theirs = wrapper(bare()).transform(InferDataTypes(allow_scaledint_dtypes=scaled))
    ours = done(bare(), f"infer_datatypes:allow_scaledint={str(scaled).lower()}")
    for name in ("xq", "c", "r", "y"):
        assert ours[name]["finn_datatype"] == theirs.get_tensor_datatype(name).name


def test_a_concat_of_several_types_is_float():
    nodes = [helper.make_node("Concat", ["a", "b"], ["y"], name="C", axis=1)]
    proto = model(nodes, [info("a", [1, 2]), info("b", [1, 2])], [info("y", None)], [])
    note(proto, "a", finn_datatype="INT2")
    note(proto, "b", finn_datatype="INT8")
    assert done(proto, "infer_datatypes")["y"]["finn_datatype"] == "FLOAT32"


def test_layouts_follow_from_operators_with_windows():
    found = done(bare(), "infer_data_layouts")
    assert {found[n]["tensor_layout"] for n in ("x", "xq", "c", "r", "y")} == {
        "['N', 'C', 'H', 'W']"
    }


def test_a_layout_is_permuted_in_either_direction():
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], name="T", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w"], ["y"], name="C", kernel_shape=[1, 1]),
    ]
    held = [constant("w", [[[[1.0]], [[2.0]]]])]
    proto = model(nodes, [info("x", [1, 4, 4, 2])], [info("y", None)], held)
    assert done(proto, "infer_data_layouts")["x"]["tensor_layout"] == "['N', 'H', 'W', 'C']"


def test_nothing_is_said_from_a_rank_alone():
    nodes = [helper.make_node("Relu", ["x"], ["y"], name="R")]
    proto = model(nodes, [info("x", [1, 3, 4])], [info("y", None)], [])
    assert not qh.transform(proto, ["infer_data_layouts"], check=False).modified
