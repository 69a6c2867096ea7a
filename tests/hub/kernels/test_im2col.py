"""The kernel, the rules and the shapes of Im2Col."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub_ir.errors import InvalidModelError
from qonnx_hub_ir.passes import InferShapes
from qonnx_hub_ir.validity import verify
from tests.support import DOMAIN, model_of

IMAGE = np.arange(2 * 5 * 6 * 3, dtype=np.float32).reshape(2, 5, 6, 3)

CASES = {
    "plain": {"kernel_size": [2, 3], "stride": [1, 1]},
    "strides": {"kernel_size": [2, 2], "stride": [2, 3]},
    "dilations": {"kernel_size": [2, 2], "stride": [1, 1], "dilations": [2, 3]},
    "pads": {"kernel_size": [3, 3], "stride": [2, 2], "pad_amount": [1, 0, 2, 1]},
    "value": {
        "kernel_size": [3, 3],
        "stride": [1, 2],
        "pad_amount": [1, 1, 1, 1],
        "pad_value": -1,
    },
}


def im2col(shape=IMAGE.shape, **attributes) -> onnx.ModelProto:
    stated = {"input_shape": "(1,5,6,3)", **attributes}
    node = helper.make_node("Im2Col", ["x"], ["y"], "windows", domain=DOMAIN, **stated)
    return model_of([node], {"x": shape}, ["y"])


def by_hand(kernel_size, stride, dilations=(1, 1), pad_amount=(0,) * 4, pad_value=0):
    """Every window cut out by itself."""
    top, left, bottom, right = pad_amount
    around = ((0, 0), (top, bottom), (left, right), (0, 0))
    x = np.pad(IMAGE, around, constant_values=pad_value)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel_size, dilations, strict=True)]
    rows = []
    for i in range(0, x.shape[1] - reach[0] + 1, stride[0]):
        cut = x[:, i : i + reach[0] : dilations[0]]
        columns = [
            cut[:, :, j : j + reach[1] : dilations[1]].reshape(len(x), -1)
            for j in range(0, x.shape[2] - reach[1] + 1, stride[1])
        ]
        rows.append(np.stack(columns, axis=1))
    return np.stack(rows, axis=1)


@pytest.mark.parametrize("case", CASES)
def test_every_window_is_a_row(case):
    wanted = by_hand(**CASES[case])
    found = qh.run(im2col(**CASES[case]), {"x": IMAGE})["y"]
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("case", CASES)
def test_the_shape_is_inferred(case):
    model = onnx_ir.from_proto(im2col(**CASES[case]))
    model.opset_imports[DOMAIN] = 2
    InferShapes()(model)
    shape = model.graph.outputs[0].shape
    assert shape is not None
    assert tuple(shape) == by_hand(**CASES[case]).shape


@pytest.mark.parametrize("case", CASES)
def test_one_image_gives_what_qonnx_gives(case):
    # For more than one image qonnx 1.0.0 puts the rows of different images beside each other.
    pytest.importorskip("qonnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from qonnx.custom_op.general.im2col import im2col_indices_nchw
    given = {"dilations": [1, 1], "pad_amount": [0] * 4, "pad_value": 0, **CASES[case]}
    (height, width), (down, right) = given["kernel_size"], given["stride"]
    rows = im2col_indices_nchw(
        IMAGE[:1].transpose(0, 3, 1, 2),
        *IMAGE.shape[1:3],
        height,
        width,
        given["pad_amount"],
        down,
        right,
        given["pad_value"],
        *given["dilations"],
    )
    found = qh.run(im2col((1, 5, 6, 3), **CASES[case]), {"x": IMAGE[:1]})["y"]
    shape = (3, height, width, *found.shape[1:3])
    wanted = rows.reshape(shape).transpose(3, 4, 1, 2, 0).reshape(found.shape)
    np.testing.assert_array_equal(found, wanted)


WRONG = {
    "required attribute 'stride' is missing": {"kernel_size": [2, 2]},
    "unknown attribute 'strides'": {
        "kernel_size": [2, 2],
        "stride": [1, 1],
        "strides": [1, 1],
    },
    "have two entries": {"kernel_size": [2], "stride": [1]},
    "at least 1": {"kernel_size": [2, 2], "stride": [0, 1]},
}


@pytest.mark.parametrize("rule", WRONG)
def test_a_wrong_node_is_refused_by_rule(rule):
    with pytest.raises(InvalidModelError, match=rule):
        qh.load(im2col(**WRONG[rule]))


def test_a_right_node_breaks_no_rule():
    assert verify(qh.load(im2col(**CASES["pads"]))) == []
