"""Zero points of activations and weights, and integers that cross the borders of a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_node
from onnx_ir import Model

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.quantizers import IntQuant
from tests.adapters.qlinear.kit import Net, assert_exact, export, net, ops, run_everywhere

LATE: dict[str, Any] = {dialect.ORDER: 1}


def late(n: Net, x: str, y: str, scale: float, zero: float, signed: int = 0) -> str:
    """A quantizer as QuantizeLinear rounds: the zero point is added last."""
    return n.quant(x, y, scale, 8, zero, signed=signed, **LATE)


def wide_levels(rows: int, columns: int) -> np.ndarray:
    """Levels from -100 to 155: no 8-bit type holds them without a zero point."""
    levels = np.linspace(-100, 155, rows * columns).round()
    return np.random.default_rng(3).permutation(levels).reshape(rows, columns)


@pytest.mark.parametrize("zero", [113.0, 128.0, 7.0])
def test_a_zero_point_added_after_rounding_is_that_of_quantize_linear(zero: float) -> None:
    n = net()
    late(n, "x", "xq", 0.25, zero)
    n.weight("w", np.arange(-12, 12).reshape(8, 3) * 0.5, 0.5, 8)
    n.add("MatMul", ["xq", "w"], "acc")
    late(n, "acc", "y", 0.5, zero)
    artifact = export(n.model(("N", 8), "y"))
    assert ops(artifact) == ["QuantizeLinear", "QLinearMatMul", "DequantizeLinear"]
    [source] = [node for node in artifact.model.graph if node.op_type == "QuantizeLinear"]
    stored = dialect.constant_value(source.inputs[2])
    assert stored is not None
    assert stored.dtype == np.uint8
    assert stored == zero
    assert_exact(n.model(("N", 8), "y"), artifact, spread=8.0)


@pytest.mark.parametrize("is_conv", [True, False])
def test_weights_of_nine_bits_are_stored_with_a_zero_point(is_conv: bool) -> None:
    n = net()
    late(n, "x", "xq", 0.25, 113.0)
    levels = wide_levels(8, 3)
    shape: tuple[Any, ...] = ("N", 8)
    if is_conv:
        levels, shape = levels.T.reshape(3, 8, 1, 1), ("N", 8, 4, 4)
    n.weight("w", levels * 0.5, 0.5, 8, zero=100.0, signed=0)
    n.add("Conv" if is_conv else "MatMul", ["xq", "w"], "acc")
    late(n, "acc", "y", 4.0, 99.0)
    model = n.model(shape, "y")
    artifact = export(model)
    [layer] = [node for node in artifact.model.graph if node.op_type.startswith("QLinear")]
    codes, zero = (dialect.constant_value(layer.inputs[i]) for i in (3, 5))
    assert codes is not None
    assert zero is not None
    assert codes.dtype == zero.dtype == np.uint8
    np.testing.assert_array_equal(codes.astype(int) - int(zero), levels)
    assert_exact(model, artifact, spread=8.0)


def test_sums_of_weights_of_nine_bits_are_integer_sums() -> None:
    n = net()
    late(n, "x", "xq", 0.25, 113.0)
    n.weight("w", wide_levels(8, 3) * 0.5, 0.5, 8, zero=100.0, signed=0)
    n.add("MatMul", ["xq", "w"], "y")
    model = n.model(("N", 8), "y")
    artifact = export(model)
    assert "MatMulInteger" in ops(artifact)
    assert_exact(model, artifact)


def with_integer_borders(signed: bool) -> Model:
    """uint8 or int8 in, a layer between quantizers, the same type out."""
    kind = TensorProto.INT8 if signed else TensorProto.UINT8
    dtype = np.int8 if signed else np.uint8
    nodes = [
        make_node("DequantizeLinear", ["q", "xs", "xz"], ["x"], "dq"),
        make_node("MatMul", ["x", "w"], ["acc"], "layer"),
        make_node("QuantizeLinear", ["acc", "ys", "yz"], ["p"], "q_out"),
    ]
    values = {
        "xs": np.float32(0.25),
        "xz": dtype(17),
        "w": np.arange(-12, 12, dtype=np.float32).reshape(8, 3),
        "ys": np.float32(2.0),
        "yz": dtype(9),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("q", kind, [4, 8])],
        [helper.make_tensor_value_info("p", kind, [4, 3])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return read_model(proto)


def quantized_weight(model: Model) -> Model:
    """Give the layer's weight a quantizer."""
    [layer] = [node for node in model.graph if node.op_type == "MatMul"]
    one, zero, bits = (np.array(v, dtype=np.float32) for v in (1, 0, 8))
    weight = layer.inputs[1]
    assert weight is not None
    model.opset_imports[dialect.DOMAIN] = dialect.DOMAIN_VERSION
    layer.replace_input_with(1, Emitter(layer).quantizer(weight, IntQuant(one, zero, bits)))
    return model


@pytest.mark.parametrize("signed", [True, False])
def test_integers_at_the_borders_of_a_graph_go_straight_into_its_layers(signed: bool) -> None:
    model = quantized_weight(with_integer_borders(signed))
    artifact = export(model)
    assert ops(artifact) == ["QLinearMatMul"]
    rng = np.random.default_rng(0)
    low = -128 if signed else 0
    q = rng.integers(low, low + 256, (4, 8)).astype(np.int8 if signed else np.uint8)
    ours = run_everywhere(artifact, {"q": q})["p"]
    np.testing.assert_array_equal(ours, Session(model).run({"q": q})["p"])


def test_parts_of_a_split_keep_their_integers() -> None:
    n = net()
    late(n, "x", "xq", 0.25, 113.0)
    n.constant("sizes", np.array([5, 3], dtype=np.int64))
    n.nodes.append(make_node("Split", ["xq", "sizes"], ["a", "b"], "split", axis=1))
    n.weight("wa", np.arange(-10, 10).reshape(5, 4) * 0.5, 0.5, 8)
    n.weight("wb", np.arange(-6, 6).reshape(3, 4) * 0.5, 0.5, 8)
    n.add("MatMul", ["a", "wa"], "left")
    n.add("MatMul", ["b", "wb"], "right")
    late(n, "left", "lq", 0.5, 100.0)
    late(n, "right", "rq", 0.5, 100.0)
    n.add("Concat", ["lq", "rq"], "y", axis=1)
    model = n.model(("N", 8), "y")
    artifact = export(model)
    assert ops(artifact).count("QLinearMatMul") == 2
    assert not {"MatMul", "Clip"} & set(ops(artifact))
    assert_exact(model, artifact, spread=4.0)
