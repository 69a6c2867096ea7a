"""Integer operators read back: quantizers of the IR that compute the same.

The reference is onnxruntime on the file itself, without optimizations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_node

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.protocol import ExportOptions, ImportOptions
from qonnx_hub_adapters.qcdq.exporter import QcdqExporter
from qonnx_hub_adapters.qlinear.importer import QlinearImporter
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import SourceError

Nodes = list[onnx.NodeProto]
MICROSOFT = "com.microsoft"

BASE: dict[str, Any] = {
    "sx": np.float32(0.125),
    "zx": np.uint8(100),
    "sy": np.float32(0.25),
    "zy": np.uint8(120),
    "sw": np.float32(0.25),
    "zw": np.int8(0),
}
"""Powers of two, so that float32 sums are exact and answers must be equal."""


def file_of(
    nodes: Nodes, constants: dict[str, Any], shape: tuple[Any, ...]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def framed(*between: onnx.NodeProto, y_scale: str = "sy", y_zero: str = "zy") -> Nodes:
    """QuantizeLinear of `x` to `q`, nodes from `q` to `r`, DequantizeLinear to `y`."""
    return [
        make_node("QuantizeLinear", ["x", "sx", "zx"], ["q"], "first"),
        *between,
        make_node("DequantizeLinear", ["r", y_scale, y_zero], ["y"], "last"),
    ]


def answers(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0])


def assert_same(proto: onnx.ModelProto, shape: tuple[int, ...], quantizers: int) -> None:
    importer = QlinearImporter()
    assert importer.accepts(proto)
    model = importer.load(proto, ImportOptions())
    kinds = [node.op_type for node in model.graph]
    assert kinds.count("Quant") == quantizers, kinds
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(kinds)
    qcdq = QcdqExporter().export(model, ExportOptions()).model
    for seed in range(3):
        x = np.random.default_rng(seed).normal(0, 4, shape).astype(np.float32)
        expected = answers(proto, x)
        assert np.ptp(expected) > 0
        for loaded in (model, qcdq):
            np.testing.assert_array_equal(Session(loaded).run({"x": x})["y"], expected)


def integers(shape: tuple[int, ...], low: int = -127, high: int = 128) -> np.ndarray:
    return np.random.default_rng(9).integers(low, high, shape).astype(np.int8)


QLINEAR_INPUTS = ["q", "sx", "zx", "w", "sw", "zw", "sy", "zy"]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "attrs", [{}, {"pads": [1, 1, 1, 1], "strides": [2, 2]}, {"group": 2}]
)
def test_qlinear_conv(bias: bool, attrs: dict[str, Any]) -> None:
    channels = 4 // attrs.get("group", 1)
    constants = BASE | {"w": integers((6, channels, 3, 3), -7, 8)}
    inputs = list(QLINEAR_INPUTS)
    if bias:
        constants["b"] = np.arange(-300, 300, 100, dtype=np.int32)
        inputs.append("b")
    nodes = framed(make_node("QLinearConv", inputs, ["r"], "conv", **attrs))
    shape = (1, 4, 6, 7)
    assert_same(file_of(nodes, constants, shape), shape, 3 + bias)


def test_scales_per_channel() -> None:
    constants = BASE | {"w": integers((3, 4, 3, 3), -7, 8)}
    constants["sw"] = np.array([0.25, 0.5, 0.0625], dtype=np.float32)
    constants["zw"] = np.zeros(3, dtype=np.int8)
    constants["b"] = np.array([50, -60, 7], dtype=np.int32)
    nodes = framed(make_node("QLinearConv", [*QLINEAR_INPUTS, "b"], ["r"], "conv"))
    assert_same(file_of(nodes, constants, (1, 4, 6, 7)), (1, 4, 6, 7), 4)


def test_qlinear_matmul_with_a_clip_behind_it() -> None:
    constants = BASE | {"w": integers((8, 5), -7, 8), "lo": np.uint8(112), "hi": np.uint8(127)}
    nodes = framed(
        make_node("QLinearMatMul", QLINEAR_INPUTS, ["m"], "matmul"),
        make_node("Clip", ["m", "lo", "hi"], ["r"], "clip"),
    )
    proto = file_of(nodes, constants, (3, 8))
    assert_same(proto, (3, 8), 3)
    model = QlinearImporter().load(proto, ImportOptions())
    bits = [
        int(np.asarray(dialect.read_quantizer(n).bits))  # type: ignore[union-attr]
        for n in model.graph
        if dialect.is_quantizer(n) and dialect.constant_tensor(n.inputs[0]) is None
    ]
    # Codes 112 to 127 around a zero point of 120 are -8 to 7: four bits.
    assert 4 in bits


@pytest.mark.parametrize("conv", [False, True])
def test_an_integer_product_with_its_cast_and_scale(conv: bool) -> None:
    shape = (1, 4, 6, 7) if conv else (3, 8)
    weight = integers((5, 4, 3, 3) if conv else (8, 5))
    constants = BASE | {"w": weight, "unit": np.float32(2.0**-5)}
    nodes = [
        make_node("QuantizeLinear", ["x", "sx", "zx"], ["q"], "first"),
        make_node("ConvInteger" if conv else "MatMulInteger", ["q", "w", "zx"], ["s"], "sum"),
        make_node("Cast", ["s"], ["f"], "cast", to=TensorProto.FLOAT),
        make_node("Mul", ["f", "unit"], ["y"], "scale"),
    ]
    assert_same(file_of(nodes, constants, shape), shape, 2)


PAIR = ["q", "sx", "zx", "q", "sx", "zx", "sy", "zy"]


@pytest.mark.parametrize(
    ("op_type", "inputs", "attrs", "shape", "quantizers"),
    [
        ("QGemm", [*QLINEAR_INPUTS[:6], "b", "sy", "zy"], {"transB": 1}, (3, 8), 4),
        ("QGemm", [*QLINEAR_INPUTS[:6], "b", "sy", "zy"], {}, (3, 5), 4),
        ("QLinearAdd", PAIR, {}, (3, 8), 2),
        ("QLinearMul", PAIR, {}, (3, 8), 2),
        ("QLinearLeakyRelu", ["q", "sx", "zx", "sy", "zy"], {"alpha": 0.25}, (3, 8), 2),
        (
            "QLinearGlobalAveragePool",
            ["q", "sx", "zx", "sy", "zy"],
            {"channels_last": 0},
            (1, 5, 4, 4),
            2,
        ),
        (
            "QLinearConcat",
            ["sy", "zy", "q", "sx", "zx", "q", "sx", "zx"],
            {"axis": 1},
            (3, 8),
            2,
        ),
    ],
)
def test_operators_of_onnxruntime(
    op_type: str,
    inputs: list[str],
    attrs: dict[str, Any],
    shape: tuple[int, ...],
    quantizers: int,
) -> None:
    constants = BASE | {"w": integers((5, 8), -7, 8), "b": np.array([9] * 5, dtype=np.int32)}
    if attrs == {}:
        constants["b"] = np.array([9] * 8, dtype=np.int32)
    node = make_node(op_type, inputs, ["r"], "op", domain=MICROSOFT, **attrs)
    assert_same(file_of(framed(node), constants, shape), shape, quantizers)


def test_an_unknown_attribute_is_refused_by_name() -> None:
    constants = BASE | {"w": integers((8, 5))}
    node = make_node("QLinearConv", QLINEAR_INPUTS, ["r"], "conv", wrong=1)
    with pytest.raises(
        SourceError, match="QLinearConv 'conv' has an unknown attribute 'wrong'"
    ):
        QlinearImporter().load(file_of(framed(node), constants, (3, 8)), ImportOptions())


def test_other_files_are_not_claimed() -> None:
    importer = QlinearImporter()
    node = make_node("Identity", ["q"], ["r"], "same")
    assert not importer.accepts(file_of(framed(node, y_scale="sx", y_zero="zx"), BASE, (3,)))
    assert not importer.accepts("no_such_file.onnx")
    assert not importer.accepts(3)


def test_a_vector_may_be_the_second_factor() -> None:
    constants = BASE | {"w": integers((8,), -7, 8)}
    proto = file_of(
        framed(make_node("QLinearMatMul", QLINEAR_INPUTS, ["r"], "matmul")), constants, (3, 8)
    )
    assert_same(proto, (3, 8), 3)
