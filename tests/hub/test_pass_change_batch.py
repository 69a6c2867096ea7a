"""The number of samples that a model takes at once."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.passes import ChangeBatch
from qonnx_hub_ir.validity import verify
from tests.support import model_of

RANDOM = np.random.default_rng(2)
WEIGHT = RANDOM.integers(-3, 4, (12, 5)).astype(np.float32)
SAMPLES = RANDOM.normal(size=(3, 3, 2, 2)).astype(np.float32)


def i64(*numbers):
    return np.array(numbers, dtype=np.int64)


def flat(target, batch=1, **attributes):
    nodes = [
        helper.make_node("Reshape", ["x", "t"], ["f"], "flatten", **attributes),
        helper.make_node("MatMul", ["f", "w"], ["y"], "fc"),
    ]
    return qh.load(model_of(nodes, {"x": (batch, 3, 2, 2)}, ["y"], {"t": target, "w": WEIGHT}))


def dims(value):
    return [d if isinstance(d, int) else d.value for d in value.shape]


@pytest.mark.parametrize(
    "target", [i64(1, 12), i64(1, -1), i64(-1, 12), i64(0, 12)], ids=lambda t: str(t.tolist())
)
@pytest.mark.parametrize("batch", [3, "samples"])
def test_a_reshape_to_the_old_batch_follows(target, batch):
    model = flat(target)
    assert ChangeBatch(batch)(model).modified
    assert verify(model) == []
    assert dims(model.graph.inputs[0]) == [batch, 3, 2, 2]
    assert dims(model.graph.outputs[0]) == [batch, 5]
    found = qh.run(model, {"x": SAMPLES})["y"]
    np.testing.assert_array_equal(found, SAMPLES.reshape(3, 12) @ WEIGHT)
    assert not ChangeBatch(batch)(model).modified


def test_a_reshape_that_takes_zeros_literally_follows():
    model = flat(i64(1, 12), allowzero=1)
    ChangeBatch(3)(model)
    found = qh.run(model, {"x": SAMPLES})["y"]
    np.testing.assert_array_equal(found, SAMPLES.reshape(3, 12) @ WEIGHT)


def test_a_symbol_becomes_a_number_and_a_number_a_symbol():
    model = flat(i64(-1, 12), batch="N")
    ChangeBatch(4)(model)
    assert dims(model.graph.outputs[0]) == [4, 5]
    ChangeBatch("M")(model)
    assert dims(model.graph.outputs[0]) == ["M", 5]
    assert "f" in {value.name for node in model.graph for value in node.outputs}
    assert dims(next(iter(model.graph)).outputs[0]) == ["M", 12]


def test_an_image_enlarged_to_a_given_size_gets_the_number_but_no_symbol():
    def resized():
        node = helper.make_node("Resize", ["x", "", "", "t"], ["y"], "up", mode="nearest")
        return qh.load(model_of([node], {"x": (1, 3, 2, 2)}, ["y"], {"t": i64(1, 3, 4, 4)}))

    model = resized()
    ChangeBatch(3)(model)
    assert dims(model.graph.outputs[0]) == [3, 3, 4, 4]
    wanted = SAMPLES.repeat(2, axis=2).repeat(2, axis=3)
    np.testing.assert_array_equal(qh.run(model, {"x": SAMPLES})["y"], wanted)
    with pytest.raises(PassError, match="lost at Resize 'up'"):
        ChangeBatch("N")(resized())


def test_an_expand_leaves_the_batch():
    node = helper.make_node("Expand", ["x", "t"], ["y"], "wide")
    model = qh.load(model_of([node], {"x": (2, 1)}, ["y"], {"t": i64(2, 4)}))
    ChangeBatch(3)(model)
    assert dims(model.graph.outputs[0]) == [3, 4]
    x = SAMPLES[:, 0, 0, :1]
    np.testing.assert_array_equal(qh.run(model, {"x": x})["y"], np.tile(x, (1, 4)))


def single(op_type, *more, shape=(2, 3), constants=None, **attributes):
    node = helper.make_node(op_type, ["x", *more], ["y"], "n", **attributes)
    return qh.load(model_of([node], {"x": shape}, ["y"], constants or {}))


REFUSED = {
    "lost at Reshape 'n'": lambda: single("Reshape", "t", constants={"t": i64(6)}),
    "works along the batch": lambda: single("Softmax", axis=0),
    "lost at ReduceSum 'n'": lambda: single("ReduceSum", "t", constants={"t": i64(0)}),
    "ends on another axis": lambda: single("Transpose", perm=[1, 0]),
    "cannot be changed to 5: shapes do not fit": lambda: single(
        "Add", "c", constants={"c": np.ones((2, 3), dtype=np.float32)}
    ),
    "do not share one batch": lambda: qh.load(
        model_of(
            [helper.make_node("MatMul", ["x", "z"], ["y"], "n")],
            {"x": (2, 3), "z": (3, 4)},
            ["y"],
        )
    ),
    "has no first axis": lambda: single("Identity", shape=()),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_mixes_samples_is_refused_and_left_as_it_was(reason):
    model = REFUSED[reason]()
    before = onnx_ir.to_proto(model).SerializeToString(deterministic=True)
    with pytest.raises(PassError, match=reason):
        ChangeBatch(5)(model)
    assert onnx_ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_a_batch_below_one_is_refused():
    with pytest.raises(PassError, match="not 0"):
        ChangeBatch(0)(flat(i64(1, 12)))


def test_it_is_what_the_qonnx_package_gives_its_input():
    pytest.importorskip("qonnx")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.transformation.change_batchsize import ChangeBatchSize

        other = ModelWrapper(onnx_ir.to_proto(single("Relu"))).transform(ChangeBatchSize(7))
    model = single("Relu")
    ChangeBatch(7)(model)
    for name, value in (("x", model.graph.inputs[0]), ("y", model.graph.outputs[0])):
        assert list(other.get_tensor_shape(name)) == dims(value)
