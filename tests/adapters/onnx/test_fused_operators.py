"""Float operators of onnxruntime's saved optimized models, against onnxruntime itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import helper, numpy_helper

import qonnx_hub as qh
from tests.adapters.static_quantization import quantized_cnn

CONTRIB = "com.microsoft"
WINDOW = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
CONV = {"Relu": [], "LeakyRelu": [0.2], "Sigmoid": [], "Tanh": [], "Clip": [-0.5, 0.9]}
GEMM: dict[str, dict[str, float]] = {
    "Elu": {"alpha": 0.7},
    "HardSigmoid": {"alpha": 0.3, "beta": 0.4},
    "LeakyRelu": {"alpha": 0.3},
    "Relu": {},
    "Selu": {"alpha": 1.2, "gamma": 1.1},
    "Sigmoid": {},
    "Softplus": {},
    "Softsign": {},
    "Tanh": {},
    "ThresholdedRelu": {"alpha": 0.3},
}


def file_of(
    op_type: str, shapes: dict[str, Any], *weights: tuple[int, ...], **attributes: Any
) -> onnx.ModelProto:
    """A file of one node, with inputs of these shapes and weights behind them."""
    random = np.random.default_rng(0)
    stored = [
        numpy_helper.from_array(random.normal(0, 0.5, shape).astype(np.float32), f"w{index}")
        for index, shape in enumerate(weights)
    ]
    inputs = [*shapes, *(tensor.name for tensor in stored)]
    node = helper.make_node(op_type, inputs, ["y"], "own", domain=CONTRIB, **attributes)
    ends = [helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()]
    made = [helper.make_tensor_value_info("y", 1, None)]
    graph = helper.make_graph([node], "g", ends, made, stored)
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid(CONTRIB, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def answers(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, feeds)[0])


def operators_of(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def assert_read(model: onnx.ModelProto, *operators: str) -> None:
    """Check the operators that it is read as, and onnxruntime's bits of both."""
    read = onnx_ir.to_proto(qh.load(model))
    assert operators_of(read) == list(operators)
    random = np.random.default_rng(1)
    feeds = {
        one.name: random.normal(
            0, 2, [size.dim_value for size in one.type.tensor_type.shape.dim]
        ).astype(np.float32)
        for one in model.graph.input
    }
    np.testing.assert_array_equal(answers(read, feeds), answers(model, feeds))


@pytest.mark.parametrize("activation", CONV)
def test_a_convolution_with_its_activation_is_both(activation: str) -> None:
    given = {"activation_params": CONV[activation]} if CONV[activation] else {}
    shapes = {"x": [2, 3, 6, 6]}
    node = {"activation": activation, **given, **WINDOW}
    assert_read(file_of("FusedConv", shapes, (4, 3, 3, 3), (4,), **node), "Conv", activation)


def test_a_convolution_that_adds_to_another_value_stays() -> None:
    shapes = {"x": [2, 3, 6, 6], "b": [4], "z": [2, 4, 6, 6]}
    model = file_of("FusedConv", shapes, (4, 3, 3, 3), activation="Relu", **WINDOW)
    model.graph.node[0].input[:] = ["x", "w0", "b", "z"]
    assert operators_of(onnx_ir.to_proto(qh.load(model))) == ["FusedConv"]


@pytest.mark.parametrize("activation", GEMM)
def test_a_gemm_with_its_activation_is_both(activation: str) -> None:
    given = {f"activation_{name}": value for name, value in GEMM[activation].items()}
    model = file_of("FusedGemm", {"x": [4, 12]}, (12, 5), (5,), activation=activation, **given)
    assert_read(model, "Gemm", activation)


@pytest.mark.parametrize("switches", range(16))
def test_a_product_of_permuted_factors_is_read(switches: int) -> None:
    left, right, left_first, right_first = (bool(switches >> at & 1) for at in range(4))

    def shape(rows: int, columns: int, swaps: bool, moves: bool) -> tuple[int, ...]:
        first, last = (columns, rows) if swaps else (rows, columns)
        return (first, 2, 3, last) if moves else (2, 3, first, last)

    node = dict(zip(("transA", "transB", "transBatchA", "transBatchB"), (0,) * 4, strict=True))
    node |= {"transA": int(left), "transB": int(right)}
    node |= {"transBatchA": int(left_first), "transBatchB": int(right_first)}
    shapes = {"x": list(shape(5, 6, left, left_first))}
    model = file_of("FusedMatMul", shapes, shape(6, 4, right, right_first), alpha=0.3, **node)
    first = ["Transpose"] if left or left_first else []
    assert_read(model, *first, "MatMul", "Mul")  # the weight is permuted as it is stored


@pytest.mark.parametrize(("summands", "stays"), [(128, False), (300, True)])
def test_a_scaled_product_of_long_sums_stays(summands: int, stays: bool) -> None:
    model = file_of("FusedMatMul", {"x": [5, summands]}, (summands, 4), alpha=0.3)
    assert_read(model, *(["FusedMatMul"] if stays else ["MatMul", "Mul"]))


def test_a_long_product_is_scaled_by_a_power_of_two() -> None:
    assert_read(
        file_of("FusedMatMul", {"x": [5, 300]}, (300, 4), alpha=0.125), "MatMul", "Mul"
    )


@pytest.mark.parametrize("given", [{}, {"alpha": 1.5}])
def test_quick_gelu_is_a_product(given: dict[str, float]) -> None:
    assert_read(file_of("QuickGelu", {"x": [5, 600]}, **given), "Mul", "Sigmoid", "Mul")


@pytest.mark.parametrize("level", ["EXTENDED", "ALL"])
def test_a_saved_optimized_model_keeps_its_integers_and_its_answers(
    level: str, tmp_path: Path
) -> None:
    ort = pytest.importorskip("onnxruntime")
    options, saved = ort.SessionOptions(), tmp_path / "saved.onnx"
    options.graph_optimization_level = getattr(
        ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}"
    )
    options.optimized_model_filepath = str(saved)
    ort.InferenceSession(quantized_cnn(tmp_path), options, providers=["CPUExecutionProvider"])
    source = onnx.load(saved)
    qh.convert(saved, tmp_path / "back.onnx", to="qlinear")
    written = onnx.load(tmp_path / "back.onnx")
    products = {"QLinearConv", "QGemm"}
    kept = [name for name in operators_of(written) if name in products]
    assert kept == [name for name in operators_of(source) if name in products] != []
    x = np.random.default_rng(2).normal(0.3, 1, (1, 3, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(answers(written, {"x": x}), answers(source, {"x": x}))


def test_parameters_of_an_activation_keep_their_order() -> None:
    x = np.array([-2, -0.5, 0, 0.5, 2], dtype=np.float32).reshape(1, 1, 5)
    info = helper.make_tensor_value_info
    node = helper.make_node(
        *("FusedConv", ["x", "w"], ["y"], "conv"),
        domain="com.microsoft",
        activation="HardSigmoid",
        activation_params=[0.25, 0.75],
    )
    ends = [[info(name, onnx.TensorProto.FLOAT, x.shape)] for name in "xy"]
    one = numpy_helper.from_array(np.ones((1, 1, 1), dtype=np.float32), "w")
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "g", *ends, [one])
    made = qh.run(helper.make_model(graph, opset_imports=imports, ir_version=8), {"x": x})
    np.testing.assert_array_equal(made["y"].ravel(), [0.25, 0.625, 0.75, 0.875, 1])
