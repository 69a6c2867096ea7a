"""The call of the removed ``qonnx.converters.from_keras``."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import qonnx_hub as qh
from qonnx_hub.compat import from_keras
from qonnx_hub_ir.errors import UsageError
from tests.adapters.qkeras.helpers import ask_keras
from tests.adapters.qkeras.kit import Case, inputs_for, set_weights
from tests.adapters.qkeras.model_cases import cnn


@pytest.fixture
def model(kit):
    made = cnn(kit)
    set_weights(made)
    return made


def test_a_model_and_none_are_returned(model) -> None:
    proto, storage = from_keras(model, "jets")
    assert isinstance(proto, onnx.ModelProto)
    assert storage is None
    assert proto.graph.name == "jets"
    assert sum(node.op_type == "Quant" for node in proto.graph.node) == 8


def test_the_file_is_written_as_well(model, tmp_path) -> None:
    path = tmp_path / "out.onnx"
    from_keras(model, "jets", output_path=str(path))
    feeds = inputs_for(model, Case("compat", cnn, 1))
    name = onnx.load(path).graph.input[0].name
    answer = next(iter(qh.run(str(path), {name: feeds[0]}).values()))
    assert np.array_equal(answer, ask_keras(model, feeds)[0])


def test_a_signature_fixes_the_open_axes(model, kit) -> None:
    import tensorflow as tf

    proto, _ = from_keras(model, "m", [tf.TensorSpec((1, 12, 12, 1), tf.float32)])
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [1, 12, 12, 1]


def test_a_signature_that_does_not_fit_is_refused(model) -> None:
    with pytest.raises(UsageError, match="signature"):
        from_keras(model, "m", [np.zeros((1, 3, 3, 1), dtype=np.float32)])


def test_the_opset_can_be_raised(model) -> None:
    proto, _ = from_keras(model, opset=21)
    assert {(i.domain, i.version) for i in proto.opset_import} >= {("", 21)}


def test_inputs_can_be_taken_channels_first(model) -> None:
    name = model.inputs[0].name.partition(":")[0]
    proto, _ = from_keras(model, inputs_as_nchw=[name])
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims][1:] == [1, 12, 12]


def test_the_batch_is_one_and_may_stay_open(model) -> None:
    proto, _ = from_keras(model)
    for value in (proto.graph.input[0], proto.graph.output[0]):
        assert value.type.tensor_type.shape.dim[0].dim_value == 1
    proto, _ = from_keras(model, batch=None)
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 0


@pytest.mark.parametrize("opset", [9, 11, 13, 15, 18])
def test_the_opset_asked_for_is_written_and_computes_the_same(model, opset) -> None:
    proto, _ = from_keras(model, opset=opset)
    assert {i.version for i in proto.opset_import if not i.domain} == {opset}
    feeds = inputs_for(model, Case("compat", cnn, 1))
    answer = next(iter(qh.run(proto, {"global_in": feeds[0]}).values()))
    assert np.array_equal(answer, ask_keras(model, feeds)[0])


def test_names_are_those_of_the_old_converter(model) -> None:
    proto, _ = from_keras(model)
    assert proto.opset_import[0].version == 15
    assert proto.graph.input[0].name == "global_in"
    assert proto.graph.output[0].name == "global_out"
    assert all(n.name.rpartition("_")[0] == n.op_type for n in proto.graph.node)
    known = {info.name for info in proto.graph.value_info}
    assert {one.name for one in proto.graph.initializer} <= known


def test_empty_arguments_that_steered_the_old_converter_are_taken(model) -> None:
    empty = {"custom_ops": {}, "extra_opset": [], "target": [], "shape_override": {}}
    proto, _ = from_keras(model, **empty)
    assert proto.graph.node


@pytest.mark.parametrize(
    "argument", ["custom_ops", "custom_rewriter", "target", "large_model"]
)
def test_an_argument_that_would_have_no_effect_is_refused(model, argument) -> None:
    with pytest.raises(UsageError, match=argument):
        from_keras(model, **{argument: ["x"]})
