"""Quantizers inside of an If: converted where they stand, with the same values."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import qonnx_hub as qh
from tests.ir.graphs import info, proto, quant


def _branches() -> onnx.ModelProto:
    """``y = Quant(x)`` if ``c``, else ``y = Abs(x)``."""
    first = helper.make_graph([quant("x", "t")], "first", [], [info("t", [2, 3])])
    other = helper.make_node("Abs", ["x"], ["e"], name="abs")
    second = helper.make_graph([other], "second", [], [info("e", [2, 3])])
    node = helper.make_node(
        "If", ["c"], ["y"], name="if", then_branch=first, else_branch=second
    )
    return proto([node], inputs=[info("x", [2, 3]), info("c", [], TensorProto.BOOL)])


@pytest.mark.parametrize("to", ["qcdq", "qlinear"])
def test_a_quantizer_in_a_branch_becomes_standard_operators_there(to, tmp_path):
    path = tmp_path / "out.onnx"
    qh.convert(_branches(), path, to=to, check=False)
    written = onnx.load(path)
    (node,) = (n for n in written.graph.node if n.op_type == "If")
    domains = {n.domain for a in node.attribute for n in a.g.node}
    assert domains == {""}
    x = np.array([[0.3, -0.7, 5.0], [1.0, 2.0, -9.0]], dtype=np.float32)
    # Scale 0.5, 4 bits: -4 to 3.5, ties to even.
    quantized = np.array([[0.5, -0.5, 3.5], [1.0, 2.0, -4.0]], dtype=np.float32)
    for chosen, expected in ((True, quantized), (False, np.abs(x))):
        feeds = {"x": x, "c": np.array(chosen, dtype=np.bool_)}
        np.testing.assert_array_equal(qh.run(path, feeds)["y"], expected)


def test_a_qonnx_file_with_a_quantizer_in_a_branch_is_written_without_onnxruntime(tmp_path):
    pytest.importorskip("onnxruntime", reason="where it is missing it is not asked anyway")
    report = qh.convert(_branches(), tmp_path / "out.onnx", to="qonnx")
    # onnxruntime has no Quant: only the executor compares.
    assert report.ort is None
    assert report.check is not None
    assert report.check.outputs[0].differing == 0
