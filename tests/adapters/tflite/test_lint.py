"""``lint --target tflite`` says what the writer refuses, and what it writes otherwise."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper

import qonnx_hub as qh
from tests.adapters.tflite.test_near_layers import model_of


def refused(model: onnx.ModelProto) -> list[str]:
    return [
        f"{one.op}: {one.reason}"
        for one in qh.lint(model, "tflite").findings
        if one.severity.value == "refused"
    ]


@pytest.mark.parametrize("name", ["Conv", "Gemm", "MatMul"])
def test_a_layer_that_is_written_is_not_refused(name: str):
    model = model_of(name, "Relu", "one per channel", "per output")
    assert model is not None
    assert refused(model) == []


def test_scales_of_another_axis_are_refused_as_the_writer_does():
    model = model_of("Conv", "", "none", "per input")
    assert model is not None
    (found,) = refused(model)
    assert "scales are not one per output channel" in found


def test_a_sum_without_a_quantizer_is_named():
    model = model_of("Conv", "", "none", "one")
    assert model is not None
    (last,) = (node for node in model.graph.node if "y" in node.output)
    model.graph.node.remove(last)
    model.graph.node.append(helper.make_node("Identity", ["m"], ["y"]))
    assert any("Conv: has no quantizer behind it" in found for found in refused(model))


def test_an_operator_without_a_counterpart_is_named():
    model = model_of("Gemm", "", "none", "one")
    assert model is not None
    (last,) = (node for node in model.graph.node if "y" in node.output)
    last.input[0] = "e"
    model.graph.node.insert(3, helper.make_node("Erf", ["m"], ["e"], name="erf"))
    assert any("Erf: has no operator in TFLite" in found for found in refused(model))


def test_fewer_bits_are_noted():
    model = model_of("Gemm", "", "none", "one")
    assert model is not None
    (bits,) = (one for one in model.graph.initializer if one.name == "b")
    bits.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bits) - 4, "b"))
    notes = [one.reason for one in qh.lint(model, "tflite").findings]
    assert "has 4 bits" in notes
