"""Every combination of types that runtimes serve, against sums of int64 by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_node

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.onnx_reader import read_model

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
    model = model_of(node, x, constants, y)
    ours = Session(read_model(model)).run({"x": x})["y"]
    session = ort.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    np.testing.assert_array_equal(ours, session.run(None, {"x": x})[0])
    return ours


def model_of(node: onnx.NodeProto, x: np.ndarray, constants: dict[str, Any], y: str) -> Any:
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", ONNX[x.dtype.name], x.shape)],
        [helper.make_tensor_value_info("y", ONNX[y], None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def requantized(sums: np.ndarray, multiplier: np.ndarray, zero: int, kind: str) -> np.ndarray:
    limits = np.iinfo(KINDS[kind])
    scaled = np.rint(sums.astype(np.float32) * multiplier.astype(np.float32)) + zero
    return np.clip(scaled, limits.min, limits.max).astype(KINDS[kind])


def convolved(x: np.ndarray, w: np.ndarray, group: int = 1) -> np.ndarray:
    """Valid 2-D convolution of int64, by its definition."""
    if group > 1:
        parts = zip(np.split(x, group, axis=1), np.split(w, group), strict=True)
        return np.concatenate([convolved(*part) for part in parts], axis=1)
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


@pytest.mark.parametrize(("xk", "wk"), QLINEAR)
@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("group", [1, 2, 4])
def test_qlinear_conv_with_zero_points_of_weights_and_groups(
    xk: str, wk: str, channels: bool, group: int
) -> None:
    x, w = random_integers(xk, (2, 4, 6, 7), 1), random_integers(wk, (8, 4 // group, 3, 3), 2)
    zx, count = ZERO[xk], 8 if channels else 1
    # onnxruntime wants one zero point for all channels; scales may differ.
    zw = np.full(count, ZERO[wk], dtype=KINDS[wk])
    sw = np.geomspace(0.003, 0.03, count).astype(np.float32)
    constants = {"sx": SX, "zx": KINDS[xk](zx), "w": w, "sw": sw, "zw": zw, "sy": SY}
    constants["zy"] = KINDS[xk](7)
    sums = convolved(x.astype(np.int64) - zx, w.astype(np.int64) - ZERO[wk], group)
    multiplier = np.broadcast_to((SX * sw) / SY, (8,)).reshape(1, 8, 1, 1)
    expected = requantized(sums, multiplier, 7, xk)
    assert len(np.unique(expected)) > 5
    node = make_node(
        "QLinearConv", ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy"], ["y"], group=group
    )
    np.testing.assert_array_equal(run_both(node, x, constants, x.dtype.name), expected)


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize(("xk", "wk", "yk"), [("i8", "u8", "i8"), ("u8", "i8", "i8")])
def test_types_that_onnxruntime_does_not_mix_are_exact_too(
    conv: bool, xk: str, wk: str, yk: str
) -> None:
    shapes = ((2, 4, 6, 7), (5, 4, 3, 3)) if conv else ((6, 40), (40, 5))
    x, w = random_integers(xk, shapes[0], 1), random_integers(wk, shapes[1], 2)
    zx, zw = ZERO[xk], ZERO[wk]
    constants = {"sx": SX, "zx": KINDS[xk](zx), "w": w, "sw": SW[:1], "sy": SY}
    constants |= {"zw": np.array([zw], dtype=KINDS[wk]), "zy": KINDS[yk](7)}
    left, right = x.astype(np.int64) - zx, w.astype(np.int64) - zw
    sums = convolved(left, right) if conv else left @ right
    expected = requantized(sums, (SX * SW[:1]) / SY, 7, yk)
    assert len(np.unique(expected)) > 5
    name = "QLinearConv" if conv else "QLinearMatMul"
    node = make_node(name, ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy"], ["y"])
    model = model_of(node, x, constants, expected.dtype.name)
    ours = Session(read_model(model)).run({"x": x})["y"]
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_product_of_two_batches_of_activations(kind: str) -> None:
    x, w = random_integers(kind, (3, 2, 6, 40), 1), random_integers(kind, (3, 2, 40, 5), 2)
    zero = ZERO[kind]
    constants = {"sx": SX, "zx": KINDS[kind](zero), "w": w, "sw": SW[0], "sy": SY}
    constants |= {"zw": KINDS[kind](zero), "zy": KINDS[kind](7)}
    sums = (x.astype(np.int64) - zero) @ (w.astype(np.int64) - zero)
    expected = requantized(sums, (SX * SW[0]) / SY, 7, kind)
    assert len(np.unique(expected)) > 5
    node = make_node("QLinearMatMul", ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy"], ["y"])
    np.testing.assert_array_equal(run_both(node, x, constants, x.dtype.name), expected)


def doubled(x: np.ndarray) -> np.ndarray:
    return x.repeat(2, axis=2).repeat(2, axis=3)


def largest(x: np.ndarray) -> np.ndarray:
    return x.reshape(2, 3, 2, 2, 3, 2).max(axis=(3, 5))


MOVES: list[tuple[str, list[str], dict[str, Any], Any]] = [
    ("Clip", ["x", "low", "high"], {}, lambda x: np.clip(x, 5, 90)),
    ("Concat", ["x", "x"], {"axis": 1}, lambda x: np.concatenate([x, x], axis=1)),
    ("Flatten", ["x"], {}, lambda x: x.reshape(2, -1)),
    ("MaxPool", ["x"], {"kernel_shape": [2, 2], "strides": [2, 2]}, largest),
    ("Pad", ["x", "pads", "low"], {},
     lambda x: np.pad(x, ((0, 0), (0, 0), (1, 0), (0, 2)), constant_values=5)),
    ("Reshape", ["x", "shape"], {}, lambda x: x.reshape(2, 6, 12)),
    ("Resize", ["x", "", "twice"], {"mode": "nearest"}, doubled),
    ("Transpose", ["x"], {"perm": [0, 2, 3, 1]}, lambda x: x.transpose(0, 2, 3, 1)),
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("op_type", "inputs", "attrs", "by_hand"), MOVES)
def test_operators_that_move_or_choose_integers(
    kind: str, op_type: str, inputs: list[str], attrs: dict[str, Any], by_hand: Any
) -> None:
    x = random_integers(kind, (2, 3, 4, 6), 1)
    known = {
        "low": KINDS[kind](5),
        "high": KINDS[kind](90),
        "pads": np.array([0, 0, 1, 0, 0, 0, 0, 2], dtype=np.int64),
        "shape": np.array([2, 6, 12], dtype=np.int64),
        "twice": np.array([1, 1, 2, 2], dtype=np.float32),
    }
    constants = {name: known[name] for name in inputs if name in known}
    node = make_node(op_type, inputs, ["y"], **attrs)
    ours = run_both(node, x, constants, x.dtype.name)
    np.testing.assert_array_equal(ours, by_hand(x))


def test_relu_of_int8() -> None:
    x = random_integers("i8", (2, 3, 4, 6), 1)
    ours = run_both(make_node("Relu", ["x"], ["y"]), x, {}, "int8")
    np.testing.assert_array_equal(ours, np.where(x < 0, 0, x))


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
