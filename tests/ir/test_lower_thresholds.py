"""MultiThreshold as comparisons, against the operator document's own count by hand."""

import numpy as np
import onnx
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_ir.errors import NotExactError
from qonnx_hub_ir.passes import LowerThresholds
from tests.support import DOMAIN, model_of

runtime = pytest.importorskip("onnxruntime")

STEPS = np.sort(np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32), axis=1)


def thresholds(shape, steps=STEPS, **attributes) -> onnx.ModelProto:
    attributes = {"out_dtype": "INT4", **attributes}
    node = helper.make_node(
        "MultiThreshold", ["x", "t"], ["y"], "mt", domain=DOMAIN, **attributes
    )
    return model_of([node], {"x": shape}, ["y"], {"t": steps}, opset=13)


def counted(x, steps, axis, scale=1.0, bias=0.0) -> np.ndarray:
    """Return scale * count + bias, value by value."""
    out = np.empty_like(x)
    for place, value in np.ndenumerate(x):
        row = steps[0] if len(steps) == 1 else steps[place[axis]]
        count = np.float32(sum(value >= step for step in row))
        out[place] = np.float32(scale) * count + np.float32(bias)
    return out


def telling(shape) -> np.ndarray:
    """Return values on, right below and above thresholds, and the odd ones."""
    near = np.concatenate([STEPS.ravel(), *(np.nextafter(STEPS.ravel(), e) for e in (-9, 9))])
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], dtype=np.float32)
    return np.resize(np.concatenate([near, odd]).astype(np.float32), shape)


CASES = {
    "channels first": ((2, 3, 4, 5), STEPS, 1, {"data_layout": "NCHW"}),
    "channels last": ((2, 4, 5, 3), STEPS, 3, {"data_layout": "NHWC"}),
    "rows": ((30, 3), STEPS, 1, {"data_layout": "NC"}),
    "guessed for images": ((2, 3, 4, 5), STEPS, 1, {}),
    "guessed for three axes": ((5, 6, 3), STEPS, 2, {}),
    "one for all channels": ((2, 4, 15), STEPS[:1], 1, {}),
    "scaled": ((30, 3), STEPS, 1, {"out_scale": 0.3, "out_bias": -1.7}),
    "not in order": ((30, 3), STEPS[:, ::-1].copy(), 1, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_every_value_is_that_of_the_count(case, tmp_path):
    shape, steps, axis, attributes = CASES[case]
    x = telling(shape)
    numbers = [attributes.get(f"out_{n}", d) for n, d in (("scale", 1.0), ("bias", 0.0))]
    wanted = counted(x, steps, axis, *numbers)
    qh.convert(thresholds(shape, steps, **attributes), tmp_path / "y.onnx", to="qcdq")
    session = runtime.InferenceSession(tmp_path / "y.onnx")
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], wanted)


def test_a_self_contained_file_holds_the_comparisons(tmp_path):
    x = telling((30, 3))
    options = {"to": "qonnx", "self_contained": True}
    qh.convert(thresholds((30, 3)), tmp_path / "y.onnx", **options)
    session = runtime.InferenceSession(tmp_path / "y.onnx")
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], counted(x, STEPS, 1))


def test_qonnx_keeps_the_operator(tmp_path):
    qh.convert(thresholds((30, 3)), tmp_path / "y.onnx", to="qonnx")
    assert [n.op_type for n in onnx.load(tmp_path / "y.onnx").graph.node] == ["MultiThreshold"]


def test_thresholds_that_are_computed_stay_and_are_named(tmp_path):
    proto = thresholds((30, 3))
    proto.graph.initializer.pop()
    given = helper.make_tensor_value_info("t", onnx.TensorProto.FLOAT, [3, 7])
    proto.graph.input.append(given)
    model = read_model(proto)
    assert not LowerThresholds()(model).modified
    with pytest.raises(NotExactError, match="'mt': its thresholds are computed at run time"):
        qh.convert(proto, tmp_path / "y.onnx", to="qcdq", check=False)


def test_thresholds_of_another_number_of_channels_are_named(tmp_path):
    with pytest.raises(NotExactError, match="'mt': 3 channels of thresholds, 4 in the input"):
        qh.convert(thresholds((30, 4)), tmp_path / "y.onnx", to="qcdq", check=False)
