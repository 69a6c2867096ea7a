"""Files whose nodes do not fit together: every verb ends in one line that names the node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import qonnx_hub as qh
from qonnx_hub.equivalence.inputs.generate import generate_inputs
from qonnx_hub.executor.explained import explained, reason_not_to_run
from qonnx_hub_ir.errors import HubError, SourceError
from tests.support import model_of, quant_node

QUANT = {"s": 0.25, "z": 0.0, "b": 4.0}


def _conv(weight: tuple[int, ...], **attributes: Any) -> onnx.ModelProto:
    nodes = [
        quant_node("x", "q"),
        helper.make_node("Conv", ["q", "w"], ["y"], "c", **attributes),
    ]
    constants = {**QUANT, "w": np.ones(weight, dtype=np.float32)}
    return model_of(nodes, {"x": (1, 2, 5, 5)}, ["y"], constants)


SPOILED: dict[str, onnx.ModelProto] = {
    "no group": _conv((3, 2, 1, 1), group=0),
    "other channels": _conv((3, 5, 3, 3)),
    "padding beyond memory": _conv((3, 2, 1, 1), pads=[1 << 31] * 4),
}


def _verbs(path: str) -> Sequence[Callable[[], object]]:
    forms = [{"to": "qcdq"}, {"to": "qlinear"}, {"to": "hls4ml"}, {"profile": "finn"}]
    return [
        lambda: qh.cost(path),
        lambda: qh.inspect(path, ranges=True),
        lambda: qh.lint(path, "hls4ml"),
        lambda: qh.diff(path, path),
        *(lambda form=form: qh.convert(path, None, **form) for form in forms),
    ]


def _refusal(verb: Callable[[], object]) -> str:
    """Return what a verb refuses; an answer is as good, and counts as one."""
    try:
        verb()
    except HubError as error:
        return str(error)
    return "an answer about Conv 'c'"


@pytest.mark.parametrize("name", SPOILED)
def test_every_verb_answers_or_names_the_node_of_a_layer_that_cannot_run(
    name: str, tmp_path: Path
) -> None:
    path = str(tmp_path / "m.onnx")
    onnx.save(SPOILED[name], path)
    for verb in _verbs(path):
        assert "Conv 'c'" in _refusal(verb)


def test_what_trips_over_a_model_that_runs_stays_a_defect() -> None:
    model = qh.load(_conv((3, 2, 3, 3)))
    with pytest.raises(KeyError), explained(model, "m.onnx"):
        raise KeyError("lost")
    assert reason_not_to_run(model) == ""


def test_what_trips_over_a_model_that_cannot_run_is_told_with_its_node() -> None:
    model = qh.load(_conv((3, 5, 3, 3)))
    told = r"m\.onnx cannot run: Conv 'c' failed .*2 channels in 1 groups do not fit"
    with pytest.raises(SourceError, match=told), explained(model, "m.onnx"):
        raise KeyError("lost")


def _linear(scales: int, zeros: int) -> onnx.ModelProto:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "ql"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], "dql"),
    ]
    numbers = {
        "s": np.full(scales, 0.5, dtype=np.float32),
        "z": np.zeros(zeros, dtype=np.int8),
    }
    return model_of(nodes, {"x": (2, 4)}, ["y"], numbers)


@pytest.mark.parametrize(("scales", "zeros"), [(4, 3), (4, 0), (4, 1), (1, 4)])
def test_scales_and_zero_points_are_as_many(scales: int, zeros: int) -> None:
    told = f"QuantizeLinear 'ql': {scales} scales do not fit {zeros} zero points"
    with pytest.raises(HubError, match=told):
        qh.load(_linear(scales, zeros))


def test_a_shape_is_one_list() -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"], "r")]
    shape = np.array([[2, 4]], dtype=np.int64)
    told = r"Reshape 'r'.*'shape' is one list of numbers, it has 2"
    with pytest.raises(HubError, match=told):
        qh.load(model_of(nodes, {"x": (2, 4)}, ["y"], {"shape": shape}))


@pytest.mark.parametrize("operator", ["MatMul", "Gemm"])
def test_a_layer_without_outputs_is_converted(operator: str) -> None:
    nodes = [helper.make_node(operator, ["x", "w"], ["y"], "empty")]
    constants = {"w": np.ones((4, 0), dtype=np.float32)}
    model = model_of(nodes, {"x": (2, 4)}, ["y"], constants)
    x = np.ones((2, 4), dtype=np.float32)
    assert qh.run(model, {"x": x})["y"].shape == (2, 0)
    assert qh.convert(model, None, to="qcdq").opset > 0
    with pytest.raises(HubError, match=f"{operator} '.*': its result has no elements"):
        qh.convert(model, None, to="hls4ml")


def test_hls4ml_names_what_it_refuses_where_a_shape_behind_is_not_known() -> None:
    nodes = [
        helper.make_node("Unknown", ["x"], ["u"], "u", domain="mine"),
        helper.make_node("Transpose", ["u"], ["y"], "t", perm=[0, 2, 1]),
    ]
    model = model_of(nodes, {"x": (1, 2, 3)}, ["y"], {})
    model.opset_import.append(helper.make_opsetid("mine", 1))
    with pytest.raises(HubError, match="Unknown 'u': hls4ml ends with"):
        qh.convert(model, None, to="hls4ml")


def cast_from(kind: int) -> onnx.ModelProto:
    """Return a model that makes float32 of another type."""
    x = helper.make_tensor_value_info("x", kind, [2, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 8])
    cast = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    return helper.make_model(
        helper.make_graph([cast], "g", [x], [y]),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.UINT4, TensorProto.BOOL])
def test_inputs_of_few_bits_are_generated_as_whole_numbers_of_their_range(kind: int) -> None:
    model = cast_from(kind)
    lowest, highest = {"INT4": (-8, 7), "UINT4": (0, 15), "BOOL": (0, 1)}[
        TensorProto.DataType.Name(kind)
    ]
    result = qh.check(model, model, level="output")
    assert result
    given = generate_inputs(qh.load(model))["x"].astype(np.int64)
    assert lowest <= given.min() < given.max() <= highest


def test_a_size_that_no_memory_holds_does_not_keep_shapes_from_being_found() -> None:
    nodes = [helper.make_node("Concat", ["x", "x"], ["y"], axis=0)]
    model = qh.load(model_of(nodes, {"x": (1 << 40,)}, ["y"], {}))
    assert [int(size) for size in model.graph.outputs[0].shape or ()] == [1 << 41]


def test_a_width_that_is_computed_can_be_any_number() -> None:
    nodes = [quant_node("x", "y", bits="bits")]
    model = model_of(nodes, {"x": (1, 2), "bits": (1, 2)}, ["y"], {"s": 0.5, "z": 0.0})
    x, bits = (np.array([row], dtype=np.float32) for row in ((700.3, 700.3), (4, 2000)))
    assert qh.run(model, {"x": x, "bits": bits})["y"].tolist() == [[3.5, 700.5]]


def test_an_unknown_operator_of_a_known_domain_is_passed_through() -> None:
    nodes = [
        quant_node("x", "q"),
        helper.make_node("Labeluncoder", ["q"], ["y"], "l", domain="ai.onnx.ml"),
    ]
    model = model_of(nodes, {"x": (1, 4)}, ["y"], QUANT)
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 4))
    made = qh.convert(model, None, to="qcdq").model
    assert "Labeluncoder" in {node.op_type for node in made.graph}


def test_outputs_without_samples_are_left_out_where_a_file_is_run_piece_by_piece() -> None:
    pytest.importorskip("onnxruntime")
    nodes = [
        helper.make_node("CastLike", ["one", "x"], ["scalar"], "like"),
        helper.make_node("Mul", ["x", "scalar"], ["y"], "product"),
    ]
    one = np.array(2, dtype=np.float64)
    model = model_of(nodes, {"x": (3, 4)}, ["y"], {"one": one})
    report = qh.convert(model, None, to="qonnx", samples=6)
    assert report.ort is not None


def test_an_input_that_onnxruntime_takes_from_no_array_is_said() -> None:
    pytest.importorskip("onnxruntime")
    model = cast_from(TensorProto.FLOAT8E5M2)
    notes = qh.convert(model, None, to="qcdq").notes
    assert any("input 'x' holds float8_e5m2, which onnxruntime takes" in n for n in notes)


@pytest.mark.parametrize("operator", ["Resize", "Expand", "Tile"])
def test_sizes_that_are_given_at_run_time_are_small(operator: str) -> None:
    before = {"Resize": ["", ""]}.get(operator, [])
    node = helper.make_node(operator, ["x", *before, "sizes"], ["y"], "n")
    model = model_of([node], {"x": (1, 1, 4, 4), "sizes": (4,)}, ["y"])
    model.graph.input[1].type.tensor_type.elem_type = TensorProto.INT64
    given = generate_inputs(qh.load(model))["sizes"]
    assert 1 <= given.min() <= given.max() <= 4


def test_a_scale_for_each_sample_of_a_file_is_converted() -> None:
    nodes = [quant_node("x", "q"), quant_node("q", "y", scale="each")]
    scales = np.array([[0.5], [0.25]], dtype=np.float32)
    model = model_of(nodes, {"x": (2, 4)}, ["y"], {**QUANT, "each": scales})
    report = qh.convert(model, None, to="qcdq")
    assert report.check is not None
    assert report.check.verdict.name in {"PROVEN", "EQUAL"}


def test_fewer_samples_than_the_other_file_takes_are_diagnosed() -> None:
    nodes = [quant_node("x", "q"), helper.make_node("Relu", ["q"], ["y"], "r")]
    one = model_of(nodes, {"x": ("N", 4)}, ["y"], QUANT)
    six = model_of(nodes, {"x": (6, 4)}, ["y"], {**QUANT, "s": 0.5})
    assert not qh.check(one, six, samples=4)
