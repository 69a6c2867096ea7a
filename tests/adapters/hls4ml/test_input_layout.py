"""Folders take images as their source does, whatever stands before its first layer."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.helper import make_node

import qonnx_hub as qh
from tests.support import model_of, quant_node

RNG = np.random.default_rng(3)
FIRST, LAST = [0, 3, 1, 2], [0, 2, 3, 1]


def image_net(*before):
    """Return a net on images of 6 x 5 x 2 that convolves them channels first."""
    held = {"s": 2.0**-5, "t": 0.25, "z": 0.0, "b8": 8.0, "b4": 4.0, "half": 0.5}
    held["w"] = (RNG.integers(-3, 4, size=(3, 2, 3, 3)) * 0.25).astype(np.float32)
    nodes, value = [], "x"
    for kind in before:
        made = f"{value}_"
        nodes.append(
            quant_node(value, made, "s", "z", "b8")
            if kind == "Quant"
            else make_node(kind, [value, "half"][: 1 + (kind == "Mul")], [made])
        )
        value = made
    nodes += [
        quant_node("w", "v", "t", "z", "b4"),
        make_node("Transpose", [value], ["a"], perm=FIRST),
        make_node("Conv", ["a", "v"], ["c"], pads=[1] * 4),
        make_node("Transpose", ["c"], ["d"], perm=LAST),
        quant_node("d", "y", "t", "z", "b8"),
    ]
    held = {name: v for name, v in held.items() if any(name in n.input for n in nodes)}
    return model_of(nodes, {"x": (1, 6, 5, 2)}, ["y"], held)


@pytest.mark.parametrize(
    "before", [(), ("Quant",), ("Relu",), ("Quant", "Relu"), ("Mul", "Quant")], ids=str
)
@pytest.mark.parametrize("io_type", ["io_parallel", "io_stream"])
def test_an_image_that_is_channels_last_is_fed_as_it_is(before, io_type, tmp_path):
    options = {"io_type": io_type}
    qh.convert(image_net(*before), tmp_path / "out", to="hls4ml", target_options=options)
    written = onnx.load(tmp_path / "out" / "model.onnx")
    sizes = [d.dim_value for d in written.graph.input[0].type.tensor_type.shape.dim]
    assert sizes == [1, 6, 5, 2]
    assert "Transpose" not in {node.op_type for node in written.graph.node}


@pytest.mark.parametrize("layout", ["nchw", "nhwc", "keep"])
def test_whatever_the_layout_asked_for_hls4ml_gets_channels_last(layout, tmp_path):
    qh.convert(image_net("Quant"), tmp_path / "out", to="hls4ml", layout=layout)
    written = onnx.load(tmp_path / "out" / "model.onnx")
    for end in (written.graph.input[0], written.graph.output[0]):
        sizes = [d.dim_value for d in end.type.tensor_type.shape.dim]
        assert sizes[:3] == [1, 6, 5]
