"""The conversion as users ask for it: reports, dialects, formats found by themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto
from onnx_ir import Model

import qonnx_hub as qh
from qonnx_hub_ir.errors import NotExactError, UsageError
from tests.adapters.qlinear.kit import export, net, ops

RNG = np.random.default_rng


def two_branches(second: float = 0.25) -> Model:
    """A matrix product with bias, quantized, plus its input, quantized again."""
    n = net()
    n.quant("x", "xq", 0.25, 4)
    n.weight("w", RNG(1).normal(0, 1, (6, 6)), 0.25, 4)
    n.add("Gemm", ["xq", "w", n.constant("b", (np.arange(6) / 16).astype(np.float32))], "acc")
    n.quant("acc", "q", second, 5)
    n.add("Add", ["q", "xq"], "sum")
    n.add("Relu", ["sum"], "relu")
    n.quant("relu", "y", 0.5, 4, signed=0)
    return n.model(("N", 6), "y")


@pytest.mark.parametrize(
    ("dialect", "wanted", "refused"),
    [
        ("onnx", {"QLinearConv", "Gather"}, {"QGemm", "QLinearAdd"}),
        ("ort", {"QGemm", "QLinearAdd"}, {"QLinearConv", "Gather"}),
    ],
)
def test_both_dialects_give_the_values_of_the_source(
    dialect: str, wanted: set[str], refused: set[str], tmp_path: Path
) -> None:
    path = tmp_path / "out.onnx"
    report = qh.convert(two_branches(), path, "qlinear", dialect=dialect, samples=32)
    assert report.check
    assert report.notes[0] == "1 of 1 layers integer-only"
    assert report.ort is None or report.ort
    assert report.model is not None
    kinds = {node.op_type for node in report.model.graph}
    assert wanted <= kinds
    assert not refused & kinds
    assert path.exists()


def test_onnxruntime_gives_the_same_integers_in_both_dialects() -> None:
    ort = pytest.importorskip("onnxruntime")
    x = RNG(3).normal(0, 2, (500, 6)).astype(np.float32)
    answers = []
    for dialect in ("onnx", "ort"):
        proto = onnx_ir.to_proto(export(two_branches(0.3), dialect=dialect).model)
        session = ort.InferenceSession(
            proto.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        answers.append(session.run(None, {"x": x})[0])
    assert np.ptp(answers[0]) > 0
    np.testing.assert_array_equal(answers[0], answers[1])


def test_an_addition_near_ties_is_left_to_the_table() -> None:
    # 0.3 and 0.25 in steps of 0.5 meet ties that a rounding of float32 decides.
    artifact = export(two_branches(0.3), dialect="ort")
    assert "QLinearAdd" not in ops(artifact)
    assert "Gather" in ops(artifact)


def test_a_written_file_is_found_to_be_qlinear_and_becomes_quantizers(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    source = two_branches()
    qh.convert(source, path, "qlinear", dialect="ort", samples=8)
    model = qh.load(path)
    assert "Quant" in [node.op_type for node in model.graph]
    report = qh.convert(path, tmp_path / "qcdq.onnx", "qcdq", samples=8)
    assert report.check
    feeds = {"x": RNG(4).normal(0, 2, (50, 6)).astype(np.float32)}
    np.testing.assert_array_equal(qh.run(model, feeds)["y"], qh.run(source, feeds)["y"])


def test_what_differs_by_rounding_is_reported_and_written(tmp_path: Path) -> None:
    n = net()
    n.quant("x", "xq", 0.013, 8)
    n.weight("w", RNG(1).normal(0, 1, (64, 6)), 0.011, 8)
    n.add("MatMul", ["xq", "w"], "acc")
    n.quant("acc", "y", 0.17, 8)
    report = qh.convert(n.model(("N", 64), "y"), tmp_path / "out.onnx", "qlinear", samples=16)
    reasons = [record.reason for record in report.quantizers if not record.exact]
    assert reasons
    assert all("one step apart in a share below" in reason for reason in reasons)
    assert (tmp_path / "out.onnx").exists()


def test_an_unknown_dialect_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown dialect 'tflite'"):
        export(two_branches(), dialect="tflite")


def test_an_opset_without_a_clip_of_integers_is_refused() -> None:
    with pytest.raises(NotExactError, match="opset 11"):
        export(two_branches(), opset=11)


def scales_per_row() -> onnx.ModelProto:
    """A product with a scale for each row, which onnxruntime loads and does not run."""
    names = ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy"]
    codes = RNG(1).integers(0, 256, (4, 5)).astype(np.uint8)
    row = np.full((3, 1), 0.125, dtype=np.float32)
    scale, zero = np.array(0.25, dtype=np.float32), np.array(120, dtype=np.uint8)
    given = [row, np.full((3, 1), 120, dtype=np.uint8), codes, scale, zero, scale, zero]
    kind = onnx.TensorProto.UINT8
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("QLinearMatMul", names, ["y"], "layer")],
        "g",
        [onnx.helper.make_tensor_value_info("x", kind, [3, 4])],
        [onnx.helper.make_tensor_value_info("y", kind, [3, 5])],
        [onnx.numpy_helper.from_array(a, n) for a, n in zip(given, names[1:], strict=True)],
    )
    imports = [onnx.helper.make_opsetid("", 19)]
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=9)


def test_what_onnxruntime_does_not_run_of_the_source_is_written_with_a_note(
    tmp_path: Path,
) -> None:
    pytest.importorskip("onnxruntime")
    report = qh.convert(scales_per_row(), tmp_path / "out.onnx", "qlinear", samples=6)
    assert any("not run on onnxruntime" in note for note in report.notes)
    [node] = onnx.load(tmp_path / "out.onnx").graph.node
    assert node.op_type == "QLinearMatMul"


def test_nodes_in_any_order_are_compared_on_onnxruntime(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    qh.convert(two_branches(), tmp_path / "sorted.onnx", "qlinear", samples=4)
    proto = onnx.load(tmp_path / "sorted.onnx")
    backwards = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(backwards)
    report = qh.convert(proto, tmp_path / "out.onnx", "qlinear", samples=4)
    assert report.ort


@pytest.mark.parametrize(("opset", "in_floats"), [(11, True), (12, False)])
def test_a_pool_takes_integers_from_opset_12_on(
    opset: int, in_floats: bool, tmp_path: Path
) -> None:
    n = net()
    n.quant("x", "xq", 0.25, 8)
    n.weight("w", np.arange(-9, 9).reshape(1, 2, 3, 3), 0.5, 8)
    n.add("Conv", ["xq", "w"], "acc")
    n.add("MaxPool", ["acc"], "pooled", kernel_shape=[2, 2])
    n.quant("pooled", "y", 1.0, 8)
    source = n.model((1, 2, 6, 6), "y")
    qh.convert(source, tmp_path / "out.onnx", "qlinear", opset=opset)
    graph = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "out.onnx")).graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    (pool,) = [node for node in graph.node if node.op_type == "MaxPool"]
    assert (types[pool.input[0]] == TensorProto.FLOAT) is in_floats
