"""Weights in blocks of onnxruntime: read as quantizers, written as blocks or as they were.

The reference is onnxruntime on the file itself, without optimizations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_node, make_tensor_value_info

import qonnx_hub as qh
from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.protocol import ExportOptions, ImportOptions
from qonnx_hub_adapters.qcdq.exporter import QcdqExporter
from qonnx_hub_adapters.qcdq.importer import QcdqImporter
from qonnx_hub_adapters.qlinear.blocks import packed, unpacked
from qonnx_hub_adapters.qlinear.importer import QlinearImporter
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.quantizers import IntQuant
from tests.adapters.qlinear.kit import export, ops
from tests.adapters.qlinear.test_importer import MICROSOFT

COLUMNS, ROWS, BLOCK = 40, 6, 16
COUNT = 3
"""40 columns are two blocks of 16 and a half one."""


def model_of(
    node: onnx.NodeProto, x: onnx.ValueInfoProto, constants: dict[str, Any], opset: int = 21
) -> onnx.ModelProto:
    tensors = [
        value if isinstance(value, TensorProto) else numpy_helper.from_array(value, name)
        for name, value in constants.items()
    ]
    y = make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", [x], [y], tensors)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def nbits(
    bits: int = 4,
    *,
    zero: bool = True,
    bias: bool = False,
    columns: int = COLUMNS,
    **more: Any,
) -> onnx.ModelProto:
    rng, size = np.random.default_rng(bits), BLOCK * bits // 8
    count = -(-columns // BLOCK)
    constants: dict[str, Any] = {
        "b": rng.integers(0, 256, (ROWS, count, size)).astype(np.uint8),
        "s": rng.uniform(0.01, 0.1, ROWS * count).astype(np.float32),
    }
    inputs = ["x", "b", "s"]
    if zero:
        points = rng.integers(0, 1 << bits, (ROWS, count))
        constants["z"] = packed(points, bits).reshape(-1)
        inputs.append("z")
    if bias:
        constants["c"] = rng.normal(0, 1, ROWS).astype(np.float32)
        inputs += [*([] if zero else [""]), "", "c"]
    attrs = {"K": columns, "N": ROWS, "bits": bits, "block_size": BLOCK, **more}
    node = make_node("MatMulNBits", inputs, ["y"], "layer", domain=MICROSOFT, **attrs)
    x = make_tensor_value_info("x", TensorProto.FLOAT, ["n", columns])
    return model_of(node, x, constants)


def answers(proto: onnx.ModelProto, **feeds: np.ndarray) -> np.ndarray:
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, feeds)[0])


def load(proto: onnx.ModelProto) -> onnx_ir.Model:
    assert QlinearImporter().accepts(proto)
    return QlinearImporter().load(proto, ImportOptions())


def weight_of(model: onnx_ir.Model) -> tuple[onnx_ir.Node, IntQuant]:
    [node] = [node for node in model.graph if dialect.is_quantizer(node)]
    quant = dialect.read_quantizer(node)
    assert isinstance(quant, IntQuant)
    return node, quant


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_product_with_blocked_weights_is_a_layer_with_quantized_ones(
    bits: int, zero: bool, bias: bool
) -> None:
    proto = nbits(bits, zero=zero, bias=bias)
    model = load(proto)
    node, quant = weight_of(model)
    assert (int(np.asarray(quant.bits)), quant.signed) == (bits, False)
    tensor = dialect.constant_value(node.inputs[0])
    assert tensor is not None
    assert tensor.shape == (COLUMNS, ROWS)
    x = np.random.default_rng(0).normal(0, 1, (3, COLUMNS)).astype(np.float32)
    expected = answers(proto, x=x)
    ours = Session(model).run({"x": x})["y"]
    np.testing.assert_allclose(ours, expected, rtol=0, atol=np.abs(expected).max() * 2e-6)


def test_integers_lie_in_bytes_the_lowest_bits_first() -> None:
    codes = np.array([[1, 2, 3, 0, 2]])
    # 1 + 2 * 4 + 3 * 16 + 0 * 64, then 2.
    assert packed(codes, 2).tolist() == [[57, 2]]
    assert unpacked(packed(codes, 2), 2, 5).tolist() == codes.tolist()


@pytest.mark.parametrize("bits", [4, 8])
def test_blocked_weights_are_written_as_blocks(bits: int) -> None:
    proto = nbits(bits)
    qcdq = QcdqExporter().export(load(proto), ExportOptions()).model
    assert [node.op_type for node in qcdq.graph] == ["DequantizeLinear", "MatMul"]
    [stored] = [node for node in qcdq.graph if node.op_type == "DequantizeLinear"]
    assert stored.attributes["block_size"].as_int() == BLOCK
    assert stored.inputs[0] is not None
    assert stored.inputs[0].dtype == onnx_ir.DataType[f"UINT{bits}"]
    x = np.random.default_rng(0).normal(0, 1, (3, COLUMNS)).astype(np.float32)
    expected = answers(proto, x=x)
    written = answers(onnx_ir.to_proto(qcdq), x=x)
    np.testing.assert_allclose(written, expected, rtol=0, atol=np.abs(expected).max() * 2e-6)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("bias", [False, True])
def test_blocked_weights_are_written_as_they_were(bits: int, bias: bool) -> None:
    proto = nbits(bits, bias=bias, columns=2 * BLOCK, accuracy_level=1)
    artifact = export(load(proto))
    assert ops(artifact) == ["MatMulNBits"]
    [node] = artifact.model.graph
    for index, name in enumerate(("b", "s", "z"), start=1):
        [given] = [t for t in proto.graph.initializer if t.name == name]
        written = dialect.constant_value(node.inputs[index])
        np.testing.assert_array_equal(written, numpy_helper.to_array(given))
    attributes = {name: one.value for name, one in node.attributes.items()}
    assert attributes == {
        "K": 2 * BLOCK,
        "N": ROWS,
        "bits": bits,
        "block_size": BLOCK,
        "accuracy_level": 1,
    }
    x = np.random.default_rng(0).normal(0, 1, (3, 2 * BLOCK)).astype(np.float32)
    written = answers(onnx_ir.to_proto(artifact.model), x=x)
    np.testing.assert_array_equal(written, answers(proto, x=x))


def test_weights_survive_a_visit_to_qcdq() -> None:
    proto = nbits(columns=2 * BLOCK)
    qcdq = QcdqExporter().export(load(proto), ExportOptions()).model
    again = QcdqImporter().load(onnx_ir.to_proto(qcdq), ImportOptions())
    assert ops(export(again)) == ["MatMulNBits"]


@pytest.mark.parametrize("index", [1, 2])
def test_numbers_that_vary_inside_a_block_are_no_blocks_any_more(index: int) -> None:
    model = load(nbits(columns=2 * BLOCK))
    node, quant = weight_of(model)
    given = np.array([None, quant.scale, quant.zero_point][index], dtype=np.float32)
    given[3, 2] += 1
    node.replace_input_with(index, Emitter(node).constant("changed", given))
    artifact = export(model)
    assert "MatMulNBits" not in ops(artifact)
    x = np.random.default_rng(0).normal(0, 1, (3, 2 * BLOCK)).astype(np.float32)
    expected = Session(model).run({"x": x})["y"]
    np.testing.assert_array_equal(Session(artifact.model).run({"x": x})["y"], expected)


@pytest.mark.parametrize("zero", [20.0, -3.0, 7.25])
def test_zero_points_that_are_no_code_are_not_packed(zero: float) -> None:
    model = load(nbits(columns=2 * BLOCK))
    node, quant = weight_of(model)
    node.replace_input_with(2, Emitter(node).constant("changed", np.array(zero, np.float32)))
    artifact = export(model)
    assert "MatMulNBits" not in ops(artifact)
    weight = dialect.constant_value(node.inputs[0])
    assert weight is not None
    scale = np.asarray(quant.scale, dtype=np.float64)
    codes = np.rint(np.clip(weight / scale + zero, 0, 15))
    x = np.random.default_rng(0).normal(0, 1, (3, 2 * BLOCK)).astype(np.float32)
    expected = x.astype(np.float64) @ ((codes - zero) * scale)
    written = answers(onnx_ir.to_proto(artifact.model), x=x)
    np.testing.assert_allclose(written, expected, rtol=1e-5, atol=1e-5)


def test_activations_that_onnxruntime_quantizes_for_itself_are_said() -> None:
    assert "accuracy_level 4" in load(nbits(accuracy_level=4)).metadata_props[dialect.BOUNDED]


def test_weights_that_are_inputs_of_the_graph_stay_as_they_are() -> None:
    proto = nbits()
    [b] = [t for t in proto.graph.initializer if t.name == "b"]
    proto.graph.input.append(make_tensor_value_info("b", TensorProto.UINT8, list(b.dims)))
    proto.graph.initializer.remove(b)
    assert [node.op_type for node in load(proto).graph] == ["MatMulNBits"]


TABLE = (10, 40)


def lookup(kind: str, *, zero: bool, gather_axis: int = 0) -> onnx.ModelProto:
    rng = np.random.default_rng(4)
    scale = rng.uniform(0.01, 0.1, (TABLE[0], COUNT)).astype(np.float32)
    constants: dict[str, Any] = {"s": scale}
    attrs: dict[str, Any] = {"block_size": BLOCK, "gather_axis": gather_axis}
    if kind == "bytes":
        constants["d"] = rng.integers(0, 256, (TABLE[0], TABLE[1] // 2)).astype(np.uint8)
        constants["z"] = rng.integers(0, 256, (TABLE[0], 2)).astype(np.uint8)
        attrs["bits"] = 4
    else:
        low, type_ = (-8, TensorProto.INT4) if kind == "int4" else (0, TensorProto.UINT4)
        for name, shape in (("d", TABLE), ("z", scale.shape)):
            codes = rng.integers(low, low + 16, shape).ravel().tolist()
            constants[name] = helper.make_tensor(name, type_, shape, codes)
    if not zero:
        del constants["z"]
    inputs = ["d", "i", "s", *(["z"] if zero else [])]
    node = make_node(
        "GatherBlockQuantized",
        *(inputs, ["y"], "layer"),
        domain=MICROSOFT,
        quantize_axis=1,
        **attrs,
    )
    return model_of(node, make_tensor_value_info("i", TensorProto.INT64, ["n"]), constants)


@pytest.mark.parametrize("kind", ["int4", "uint4", "bytes"])
@pytest.mark.parametrize("zero", [False, True])
def test_a_lookup_in_a_blocked_table(kind: str, zero: bool) -> None:
    proto = lookup(kind, zero=zero)
    model = load(proto)
    assert [node.op_type for node in model.graph] == ["Quant", "Gather"]
    _, quant = weight_of(model)
    assert (int(np.asarray(quant.bits)), quant.signed) == (4, kind == "int4")
    i = np.array([0, 9, 4], dtype=np.int64)
    expected = answers(proto, i=i)
    qcdq = QcdqExporter().export(model, ExportOptions()).model
    np.testing.assert_array_equal(Session(model).run({"i": i})["y"], expected)
    np.testing.assert_array_equal(answers(onnx_ir.to_proto(qcdq), i=i), expected)


def test_a_product_that_may_round_its_input_is_compared_as_a_product_of_floats() -> None:
    pytest.importorskip("onnxruntime")
    source = nbits(8, bias=True, columns=2 * BLOCK, accuracy_level=4)
    report = qh.convert(source, None, to="qlinear")
    assert report.check is not None
    assert report.check.verdict == "EQUAL"
    (node,) = report.model.graph
    assert node.attributes["accuracy_level"].as_int() == 4
