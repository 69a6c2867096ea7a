"""In which layout a graph reads and makes its images."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest
from onnx.helper import make_node

from qonnx_hub_ir import dialect
from qonnx_hub_ir.analysis.image_layout import layout_made, layout_read
from qonnx_hub_ir.passes import ChangeLayout, InferShapes
from tests.support import model_of, quant_node

FIRST, LAST = {"perm": [0, 3, 1, 2]}, {"perm": [0, 2, 3, 1]}
HELD = {
    "w": np.ones((2, 2, 1, 1), dtype=np.float32),
    "s": 0.5,
    "z": 0.0,
    "b": 4.0,
    "half": 0.5,
    "pads": np.array([0, 1, 1, 0, 0, 1, 1, 0], dtype=np.int64),
    "row": np.array([1, -1], dtype=np.int64),
}


def net(*nodes, shape=(1, 2, 2, 2)):
    held = {name: value for name, value in HELD.items() if any(name in n.input for n in nodes)}
    model = onnx_ir.from_proto(model_of([*nodes], {"x": shape}, ["y"], held))
    InferShapes()(model)
    return model


def turned_conv(source):
    return [
        make_node("Transpose", [source], ["t"], **FIRST),
        make_node("Conv", ["t", "w"], ["y"]),
    ]


@pytest.mark.parametrize(
    ("nodes", "layout"),
    [
        (turned_conv("x"), "nhwc"),
        ([quant_node("x", "q"), make_node("Relu", ["q"], ["r"]), *turned_conv("r")], "nhwc"),
        ([make_node("Mul", ["x", "half"], ["m"]), *turned_conv("m")], "nhwc"),
        ([make_node("Pad", ["x", "pads"], ["p"]), *turned_conv("p")], "nhwc"),
        (
            [make_node("Conv", ["x", "w"], ["y"], domain=dialect.CHANNELS_LAST_DOMAIN)],
            "nhwc",
        ),
        ([quant_node("x", "q"), make_node("Conv", ["q", "w"], ["y"])], "nchw"),
        ([make_node("MaxPool", ["x"], ["y"], kernel_shape=[1, 1])], "nchw"),
        ([make_node("Transpose", ["x"], ["y"], **LAST)], "nchw"),
        # Nothing, or not everything, tells.
        ([make_node("Relu", ["x"], ["y"])], ""),
        ([make_node("Transpose", ["x"], ["y"], perm=[0, 2, 1, 3])], ""),
        ([make_node("Reshape", ["x", "row"], ["y"])], ""),
        (
            [
                make_node("Transpose", ["x"], ["t"], **FIRST),
                make_node("Conv", ["x", "w"], ["c"]),
                make_node("Add", ["t", "c"], ["y"]),
            ],
            "",
        ),
        # An image as weights of another tells nothing of where its channels are.
        ([make_node("Conv", ["w", "x"], ["y"])], ""),
    ],
)
def test_the_layout_is_told_by_what_reads_an_image(nodes, layout):
    assert layout_read(net(*nodes).graph.inputs[0]) == layout


@pytest.mark.parametrize(
    ("nodes", "layout"),
    [
        (
            [
                make_node("Conv", ["x", "w"], ["c"]),
                make_node("Transpose", ["c"], ["t"], **LAST),
                quant_node("t", "y"),
            ],
            "nhwc",
        ),
        ([make_node("Conv", ["x", "w"], ["c"]), make_node("Relu", ["c"], ["y"])], "nchw"),
        ([make_node("Relu", ["x"], ["y"])], ""),
    ],
)
def test_the_layout_is_told_by_what_makes_an_image(nodes, layout):
    assert layout_made(net(*nodes).graph.outputs[0]) == layout


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_the_layout_is_changed_once(layout):
    model = net(quant_node("x", "q"), make_node("Conv", ["q", "w"], ["y"]), shape=(1, 2, 3, 4))
    wanted = (1, 2, 3, 4) if layout == "nchw" else (1, 3, 4, 2)
    for _ in range(2):
        ChangeLayout(layout)(model)
        ends = (model.graph.inputs[0], model.graph.outputs[0])
        assert [tuple(value.shape) for value in ends] == [wanted, wanted]
