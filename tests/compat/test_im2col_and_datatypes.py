"""Columns as channels in front of Im2Col, and datatypes that the user says."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub_ir.errors import PassError, UsageError
from tests.compat.models import DOMAIN, annotated, info, model, note, notes

RNG = np.random.default_rng(0)


def windows(width=28, channels=1, height=8, **given):
    attributes = {
        "kernel_size": [4, 28],
        "stride": [4, 28],
        "pad_amount": [0] * 4,
        "input_shape": f"(1,{height},{width},{channels})",
        "dilations": [1, 1],
        **given,
    }
    node = helper.make_node("Im2Col", ["x"], ["y"], name="I", domain=DOMAIN, **attributes)
    return model([node], [info("x", [1, height, width, channels])], [info("y", None)], [])


@pytest.mark.parametrize(
    ("width", "columns", "channels"), [(28, 28, 7), (56, 28, 4), (30, 28, 2)]
)
def test_columns_become_channels_and_the_rows_stay(width, columns, channels):
    proto = windows(width)
    x = RNG.normal(size=(1, 8, width, 1)).astype(np.float32)
    after = qh.transform(proto, [f"rebalance_im2col:channels={channels}"], check=False).model
    assert [node.op_type for node in after.graph] == ["Reshape", "Im2Col"]
    assert np.array_equal(qh.run(after, {"x": x})["y"], qh.run(proto, {"x": x})["y"])
    assert list(after.graph[1].attributes["kernel_size"].value) == [4, columns // channels]


LEFT = {
    "channels": {"channels": 2},
    "width": {"width": 29},
    "kernel": {"kernel_size": [4, 27], "stride": [4, 27]},
    "stride": {"stride": [4, 14]},
    "pads": {"pad_amount": [0, 7, 0, 7]},
    "depthwise": {"depthwise": 1},
    "dilations": {"dilations": [2, 1]},
}


@pytest.mark.parametrize("given", LEFT.values(), ids=LEFT)
def test_windows_of_which_columns_cannot_be_channels_stay(given):
    assert not qh.transform(windows(**given), ["rebalance_im2col:channels=7"]).modified


def test_one_column_is_no_channel():
    with pytest.raises(PassError, match="2 or more"):
        qh.transform(windows(), ["rebalance_im2col:channels=1"])


def test_the_qonnx_package_makes_the_same_windows():
    pytest.importorskip("qonnx")
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.custom_op.registry import getCustomOp
    from qonnx.transformation.infer_shapes import InferShapes
    from qonnx.transformation.rebalance_conv import RebalanceIm2Col

    proto = windows(56, height=28, kernel_size=[28, 28], stride=[28, 28])
    proto.graph.output[0].CopyFrom(info("y", [1, 1, 2, 784]))
    theirs = ModelWrapper(proto).transform(InferShapes()).transform(RebalanceIm2Col(7))
    ours = qh.transform(proto, ["rebalance_im2col:channels=7"], check=False).model
    node = theirs.get_nodes_by_op_type("Im2Col")[0]
    for name in ("kernel_size", "stride"):
        held = list(
            next(n for n in ours.graph if n.op_type == "Im2Col").attributes[name].value
        )
        assert held == getCustomOp(node).get_nodeattr(name)
    x = RNG.normal(size=(1, 28, 56, 1)).astype(np.float32)
    note(proto, "x", finn_datatype="FLOAT32")  # its kernel looks for one
    found = execute_onnx(ModelWrapper(proto), {"x": x})["y"]
    assert np.array_equal(qh.run(ours, {"x": x})["y"], found)


def test_a_datatype_that_is_said_reaches_the_file_and_the_cost(tmp_path):
    proto, path = annotated(13), str(tmp_path / "m.onnx")
    steps = ["annotate_datatype:types=x=uint8,types=r=UINT9"]
    assert qh.transform(proto, steps, path, check=False).modified
    held = notes(onnx.load(path))
    assert (held["x"]["finn_datatype"], held["r"]["finn_datatype"]) == ("UINT8", "UINT9")
    assert held["x"]["mine"] == "42"
    assert not qh.transform(path, steps, check=False).modified
    finn = str(tmp_path / "finn.onnx")
    qh.convert(path, finn, profile="finn", check=False)
    assert notes(onnx.load(finn))["x"]["finn_datatype"] == "UINT8"


def test_a_datatype_or_tensor_that_is_none_is_refused():
    with pytest.raises(UsageError, match="'x'"):
        qh.transform(annotated(13), ["annotate_datatype:types=x=MANY"])
    with pytest.raises(PassError, match="no tensor 'nobody'"):
        qh.transform(annotated(13), ["annotate_datatype:types=nobody=INT8"])
