"""What a file annotates survives loading, passes, conversions; it moves with its tensor."""

from __future__ import annotations

import onnx
import pytest

import qonnx_hub as qh
from tests.compat.models import annotated, notes


def through(proto, tmp_path, step) -> dict[str, dict[str, str]]:
    out = tmp_path / "out.onnx"
    step(proto, out)
    return notes(onnx.load(out))


def datatypes(found: dict[str, dict[str, str]]) -> dict[str, str]:
    return {name: e["finn_datatype"] for name, e in found.items() if "finn_datatype" in e}


ALL = {"x": "INT8", "W": "INT4", "c": "INT32", "r": "FIXED<16,14>", "y": "SCALEDINT<4>"}


@pytest.mark.parametrize("opset", [9, 11, 13, 18, 19, 21])
def test_annotations_survive_load_and_save_at_any_opset(tmp_path, opset):
    proto = annotated(opset)
    found = through(proto, tmp_path, lambda m, out: qh.save(qh.load(m), out))
    assert found == notes(proto)


def test_an_unknown_key_survives(tmp_path):
    found = through(annotated(11), tmp_path, lambda m, out: qh.save(qh.load(m), out))
    assert found["x"]["mine"] == "42"


@pytest.mark.parametrize(
    "name", ["cleanup", "remove_identity", "fold_constants", "name_nodes"]
)
def test_datatypes_survive_a_pass(tmp_path, name):
    found = through(
        annotated(11), tmp_path, lambda m, out: qh.transform(m, [name], out, check=False)
    )
    assert datatypes(found) == ALL


def test_datatypes_survive_the_profile_of_finn(tmp_path):
    found = through(
        annotated(11), tmp_path, lambda m, out: qh.convert(m, out, profile="finn", check=False)
    )
    assert datatypes(found).items() >= ALL.items()


@pytest.mark.parametrize("form", ["qcdq", "qlinear"])
def test_datatypes_of_the_ends_survive_a_conversion(tmp_path, form):
    found = through(
        annotated(13), tmp_path, lambda m, out: qh.convert(m, out, to=form, check=False)
    )
    assert {name: datatypes(found)[name] for name in ("x", "y")} == {
        name: ALL[name] for name in ("x", "y")
    }


@pytest.mark.parametrize("name", ["thresholds", "quant_to_multithreshold", "extract_scale"])
def test_the_datatype_of_the_output_survives_what_rewrites_its_quantizer(tmp_path, name):
    found = through(
        annotated(19), tmp_path, lambda m, out: qh.transform(m, [name], out, check=False)
    )
    assert datatypes(found)["y"] == "SCALEDINT<4>"


def test_a_layout_moves_with_its_tensor(tmp_path):
    found = through(
        annotated(19),
        tmp_path,
        lambda m, out: qh.transform(m, ["to_channels_last"], out, check=False),
    )
    assert found["x"]["tensor_layout"] == "['N', 'H', 'W', 'C']"
    assert found["y"]["tensor_layout"] == "['N', 'H', 'W', 'C']"


def test_a_layout_moves_with_an_input_that_is_turned(tmp_path):
    found = through(
        annotated(19),
        tmp_path,
        lambda m, out: qh.transform(m, ["change_layout:layout=nhwc"], out, check=False),
    )
    assert found["x"]["tensor_layout"] == "['N', 'H', 'W', 'C']"


def test_a_matrix_has_no_sparsity_of_a_kernel(tmp_path):
    found = through(
        annotated(19),
        tmp_path,
        lambda m, out: qh.transform(m, ["lower_conv_to_matmul"], out, check=False),
    )
    assert "tensor_sparsity" not in found["W"]
    assert found["W"]["finn_datatype"] == "INT4"


def test_the_levels_of_a_quantizer_do_not_keep_the_datatype_of_its_values(tmp_path):
    # Its scale moved behind the layer: what "xq" holds are levels, and nobody said their type.
    proto = annotated(19)
    proto.graph.initializer[0].CopyFrom(
        onnx.helper.make_tensor("s", onnx.TensorProto.FLOAT, [], [0.25])
    )
    extra = proto.graph.quantization_annotation.add(tensor_name="xq")
    extra.quant_parameter_tensor_names.add(key="finn_datatype", value="FIXED<4,2>")
    model = qh.transform(proto, ["streamline"], check=False).model
    quantizer = next(node for node in model.graph if node.op_type == "Quant")
    assert quantizer.inputs[1].const_value.numpy() == 1
    held = quantizer.outputs[0].meta.get("quant_parameter_tensor_names", {})
    assert "finn_datatype" not in held


@pytest.mark.parametrize("opset", [11, 19])
def test_cost_counts_with_an_annotated_weight(opset):
    # qonnx 1.0.0 says op_mac_INT4_INT4 of this file.
    buckets = qh.cost(annotated(opset), "qonnx").to_dict()["mac_buckets"]
    assert list(buckets) == ["INT4 x INT4"]
