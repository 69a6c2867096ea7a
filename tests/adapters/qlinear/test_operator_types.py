"""Every combination of types that runtimes serve, against sums of int64 by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_node

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.onnx_source import read_model

KINDS = {"i8": np.int8, "u8": np.uint8}
ONNX = {"int8": TensorProto.INT8, "uint8": TensorProto.UINT8, "int32": TensorProto.INT32}
QLINEAR = [("u8", "u8"), ("u8", "i8"), ("i8", "i8")]
INTEGER = [(a, b) for a in KINDS for b in KINDS]


def random_integers(kind: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    limits = np.iinfo(KINDS[kind])
    values = np.random.default_rng(seed).integers(limits.min, limits.max + 1, shape)
    return values.astype(KINDS[kind])


def run_both(node: onnx.NodeProto, x: np.ndarray, constants: dict[str, Any], y: str) -> Any:
    """Return what the executor computes, once onnxruntime is shown to compute the same."""
    ort = pytest.importorskip("onnxruntime")
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", ONNX[x.dtype.name], x.shape)],
        [helper.make_tensor_value_info("y", ONNX[y], None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    ours = Session(read_model(model)).run({"x": x})["y"]
    session = ort.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    np.testing.assert_array_equal(ours, session.run(None, {"x": x})[0])
    return ours


def requantized(sums: np.ndarray, multiplier: np.ndarray, zero: int, kind: str) -> np.ndarray:
    limits = np.iinfo(KINDS[kind])
    scaled = np.rint(sums.astype(np.float32) * multiplier.astype(np.float32)) + zero
    return np.clip(scaled, limits.min, limits.max).astype(KINDS[kind])


def convolved(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Valid 2-D convolution of int64, by its definition."""
    out = np.zeros((len(x), len(w), x.shape[2] - 2, x.shape[3] - 2), dtype=np.int64)
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            window = x[:, np.newaxis, :, i : i + 3, j : j + 3]
            out[:, :, i, j] = (window * w[np.newaxis]).sum(axis=(2, 3, 4))
    return out


SX, SY = np.float32(0.02), np.float32(0.7)
SW = np.array([0.01, 0.03, 0.002, 0.05, 0.007], dtype=np.float32)
ZERO = {"i8": -3, "u8": 131}


@pytest.mark.parametrize(("xk", "wk"), QLINEAR)
@pytest.mark.parametrize("weight_zero", [False, True])
def test_qlinear_matmul(xk: str, wk: str, weight_zero: bool) -> None:
    x, w = random_integers(xk, (6, 40), 1), random_integers(wk, (40, 5), 2)
    zx, zw = ZERO[xk], ZERO[wk] if weight_zero else 0
    constants = {"sx": SX, "zx": KINDS[xk](zx), "w": w, "sw": SW, "sy": SY, "zy": KINDS[xk](7)}
    constants["zw"] = np.full(5, zw, dtype=KINDS[wk])
    node = make_node("QLinearMatMul", ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy"], ["y"])
    sums = (x.astype(np.int64) - zx) @ (w.astype(np.int64) - zw)
    expected = requantized(sums, (SX * SW) / SY, 7, xk)
    assert len(np.unique(expected)) > 5
    np.testing.assert_array_equal(run_both(node, x, constants, x.dtype.name), expected)


@pytest.mark.parametrize(("xk", "wk"), QLINEAR)
@pytest.mark.parametrize("bias", [False, True])
def test_qlinear_conv(xk: str, wk: str, bias: bool) -> None:
    x, w = random_integers(xk, (2, 4, 6, 7), 1), random_integers(wk, (5, 4, 3, 3), 2)
    zx = ZERO[xk]
    constants = {"sx": SX, "zx": KINDS[xk](zx), "w": w, "sw": SW, "sy": SY, "zy": KINDS[xk](7)}
    constants["zw"] = np.zeros(5, dtype=KINDS[wk])
    names = ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy"]
    sums = convolved(x.astype(np.int64) - zx, w.astype(np.int64))
    if bias:
        constants["b"] = np.array([100, -2000, 30000, 0, 5], dtype=np.int32)
        sums = sums + constants["b"].reshape(1, 5, 1, 1)
        names.append("b")
    expected = requantized(sums, ((SX * SW) / SY).reshape(1, 5, 1, 1), 7, xk)
    assert len(np.unique(expected)) > 5
    node = make_node("QLinearConv", names, ["y"])
    np.testing.assert_array_equal(run_both(node, x, constants, x.dtype.name), expected)


@pytest.mark.parametrize(("xk", "wk"), INTEGER)
def test_matmul_integer(xk: str, wk: str) -> None:
    x, w = random_integers(xk, (6, 400), 1), random_integers(wk, (400, 5), 2)
    zeros = random_integers(wk, (5,), 3)
    constants = {"zx": KINDS[xk](ZERO[xk]), "w": w, "zw": zeros}
    expected = (x.astype(np.int64) - ZERO[xk]) @ (w.astype(np.int64) - zeros)
    node = make_node("MatMulInteger", ["x", "w", "zx", "zw"], ["y"])
    np.testing.assert_array_equal(run_both(node, x, constants, "int32"), expected)


@pytest.mark.parametrize(("xk", "wk"), INTEGER)
def test_conv_integer(xk: str, wk: str) -> None:
    x, w = random_integers(xk, (2, 4, 6, 7), 1), random_integers(wk, (5, 4, 3, 3), 2)
    constants = {"zx": KINDS[xk](ZERO[xk]), "w": w, "zw": KINDS[wk](ZERO[wk])}
    expected = convolved(x.astype(np.int64) - ZERO[xk], w.astype(np.int64) - ZERO[wk])
    node = make_node("ConvInteger", ["x", "w", "zx", "zw"], ["y"])
    np.testing.assert_array_equal(run_both(node, x, constants, "int32"), expected)
