"""onnxruntime's own integer operators: by hand in exact fractions, and on onnxruntime.

``hand`` computes with Python's fractions, so that a tie is a tie. Where all scales are powers
of two onnxruntime must give the same integers, ties included; with other scales it computes
in float32, and the inputs here keep away from what that rounds differently.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.helper import make_node

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_ir.errors import ExecutionError, InvalidModelError

MICROSOFT = "com.microsoft"
KINDS = {"i8": np.int8, "u8": np.uint8}
# Odd and even: behind an odd zero point the two places of rounding differ at every tie.
ZEROS = {"i8": (7, -6), "u8": (131, 130)}
IN_ZEROS = {"i8": (3, -5), "u8": (100, 121)}
EVEN_SCALES = (0.125, 0.25, 0.5)
ODD_SCALES = (0.1234, 0.0567, 0.2345)

CASES = list(itertools.product(KINDS, (0, 1), (EVEN_SCALES, ODD_SCALES)))
each_case = pytest.mark.parametrize(
    ("kind", "parity", "scales"),
    CASES,
    ids=[f"{k}-{'even' if p else 'odd'}-{'dyadic' if s is EVEN_SCALES else 'other'}"
         for k, p, s in CASES],
)  # fmt: skip


def random_codes(kind: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    limits = np.iinfo(KINDS[kind])
    values = np.random.default_rng(seed).integers(limits.min, limits.max + 1, shape)
    return values.astype(KINDS[kind])


def model_of(
    op_type: str,
    inputs: list[str],
    feeds: dict[str, np.ndarray],
    constants: dict[str, Any],
    out: Any,
    **attrs: Any,
) -> onnx.ModelProto:
    kinds = {k: helper.np_dtype_to_tensor_dtype(v.dtype) for k, v in feeds.items()}
    node = make_node(op_type, inputs, ["y"], "node", domain=MICROSOFT, **attrs)
    used = {k: v for k, v in constants.items() if k in inputs}
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(k, kinds[k], v.shape) for k, v in feeds.items()],
        [
            helper.make_tensor_value_info(
                "y", helper.np_dtype_to_tensor_dtype(np.dtype(out)), None
            )
        ],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in used.items()],
    )
    imports = [helper.make_opsetid("", 19), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def run_ours(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    result: np.ndarray = Session(read_model(proto)).run(feeds)["y"]
    return result


def run_theirs(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, feeds)[0])


def half_even(value: Fraction) -> int:
    return round(value)


def hand(
    values: Any, scale: float, zero: int, kind: str, *, after_zero: bool = False
) -> np.ndarray:
    """Codes of exact fractions: rounded before the zero point is added, or after."""
    limits = np.iinfo(KINDS[kind])
    step = Fraction(float(np.float32(scale)))
    flat = []
    for value in np.asarray(values, dtype=object).reshape(-1):
        t = value / step
        whole = half_even(t + zero) if after_zero else half_even(t) + zero
        flat.append(min(max(whole, int(limits.min)), int(limits.max)))
    return np.array(flat, dtype=KINDS[kind]).reshape(np.shape(values))


def exact(codes: np.ndarray, scale: float, zero: int) -> Any:
    """The values of codes as an array of fractions."""
    step = Fraction(float(np.float32(scale)))
    flat = [(int(code) - zero) * step for code in codes.reshape(-1)]
    result = np.empty(len(flat), dtype=object)
    result[:] = flat
    return result.reshape(codes.shape)


def parameters(kind: str, parity: int, scales: tuple[float, ...]) -> dict[str, Any]:
    za, zb = IN_ZEROS[kind]
    return {
        "sa": np.float32(scales[0]),
        "za": KINDS[kind](za),
        "sb": np.float32(scales[1]),
        "zb": KINDS[kind](zb),
        "sy": np.float32(scales[2]),
        "zy": KINDS[kind](ZEROS[kind][parity]),
    }


def assert_codes(got: np.ndarray, expected: np.ndarray) -> None:
    assert len(np.unique(expected)) > 3, "the comparison would pass for a constant"
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


PAIR = ["a", "sa", "za", "b", "sb", "zb", "sy", "zy"]
SINGLE = ["a", "sa", "za", "sy", "zy"]


@each_case
@pytest.mark.parametrize("op_type", ["QLinearAdd", "QLinearMul"])
@pytest.mark.parametrize("shape", [(20, 30), (30,), (1,), ()])
def test_two_operands_broadcast_and_round_their_result_with_the_zero_point(
    op_type: str, kind: str, parity: int, scales: tuple[float, ...], shape: tuple[int, ...]
) -> None:
    c = parameters(kind, parity, scales)
    if op_type == "QLinearMul":
        c["sy"] = np.float32(16 * scales[2])
    a, b = random_codes(kind, (20, 30), 1), random_codes(kind, shape, 2)
    x, y = exact(a, c["sa"], int(c["za"])), exact(b, c["sb"], int(c["zb"]))
    values = x + y if op_type == "QLinearAdd" else x * y
    expected = hand(values, c["sy"], int(c["zy"]), kind, after_zero=True)
    proto = model_of(op_type, PAIR, {"a": a, "b": b}, c, a.dtype)
    assert_codes(run_ours(proto, {"a": a, "b": b}), expected)
    np.testing.assert_array_equal(run_theirs(proto, {"a": a, "b": b}), expected)


@each_case
@pytest.mark.parametrize(
    "attrs",
    [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1]},
        {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    ],
)
def test_an_average_pool_rounds_its_mean_with_the_zero_point(
    kind: str, parity: int, scales: tuple[float, ...], attrs: dict[str, Any]
) -> None:
    c = parameters(kind, parity, scales)
    a = random_codes(kind, (2, 3, 6, 7), 1)
    values = averaged(exact(a, c["sa"], int(c["za"])), **attrs)
    expected = hand(values, c["sy"], int(c["zy"]), kind, after_zero=True)
    proto = model_of("QLinearAveragePool", SINGLE, {"a": a}, c, a.dtype, **attrs)
    assert_codes(run_ours(proto, {"a": a}), expected)
    np.testing.assert_array_equal(run_theirs(proto, {"a": a}), expected)


def averaged(
    x: Any,
    kernel_shape: list[int],
    strides: tuple[int, int] = (1, 1),
    pads: tuple[int, ...] = (0, 0, 0, 0),
    count_include_pad: int = 0,
) -> Any:
    """Means of windows by the definition."""
    height, width = x.shape[2:]
    rows = range(-pads[0], height + pads[2] - kernel_shape[0] + 1, strides[0])
    columns = range(-pads[1], width + pads[3] - kernel_shape[1] + 1, strides[1])
    out = np.empty((*x.shape[:2], len(rows), len(columns)), dtype=object)
    for (i, top), (j, left) in itertools.product(enumerate(rows), enumerate(columns)):
        window = x[
            :,
            :,
            max(top, 0) : min(top + kernel_shape[0], height),
            max(left, 0) : min(left + kernel_shape[1], width),
        ]
        count = math.prod(kernel_shape if count_include_pad else window.shape[2:])
        out[:, :, i, j] = window.sum(axis=(2, 3)) / count
    return out


@each_case
@pytest.mark.parametrize("rank", [3, 4])
def test_a_global_average_adds_the_zero_point_to_a_rounded_mean(
    kind: str, parity: int, scales: tuple[float, ...], rank: int
) -> None:
    c = parameters(kind, parity, scales)
    c["sy"] = np.float32(scales[2] / 16)
    a = random_codes(kind, (20, 9, 4, 4)[:2] + (4,) * (rank - 2), 1)
    x = exact(a, c["sa"], int(c["za"]))
    axes = tuple(range(2, rank))
    values = x.sum(axis=axes, keepdims=True) / (x.size // (20 * 9))
    expected = hand(values, c["sy"], int(c["zy"]), kind)
    proto = model_of("QLinearGlobalAveragePool", SINGLE, {"a": a}, c, a.dtype)
    assert_codes(run_ours(proto, {"a": a}), expected)
    np.testing.assert_array_equal(run_theirs(proto, {"a": a}), expected)


@each_case
@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_mean_over_axes_adds_the_zero_point_to_a_rounded_mean(
    kind: str, parity: int, scales: tuple[float, ...], keepdims: int
) -> None:
    # No onnxruntime for processors runs this operator: by hand only.
    c = parameters(kind, parity, scales)
    a = random_codes(kind, (4, 30, 8), 1)
    x = exact(a, c["sa"], int(c["za"]))
    values = x.sum(axis=(0, 2), keepdims=bool(keepdims)) / 32
    c["sy"] = np.float32(scales[2] / 4)
    expected = hand(values, c["sy"], int(c["zy"]), kind)
    attrs = {"axes": [0, -1], "keepdims": keepdims}
    proto = model_of("QLinearReduceMean", SINGLE, {"a": a}, c, a.dtype, **attrs)
    assert_codes(run_ours(proto, {"a": a}), expected)


@each_case
def test_concat_requantizes_each_of_its_inputs(
    kind: str, parity: int, scales: tuple[float, ...]
) -> None:
    c = parameters(kind, parity, scales)
    a, b = random_codes(kind, (6, 30), 1), random_codes(kind, (6, 20), 2)
    values = np.concatenate(
        [exact(a, c["sa"], int(c["za"])), exact(b, c["sb"], int(c["zb"]))], axis=1
    )
    expected = hand(values, c["sy"], int(c["zy"]), kind)
    inputs = ["sy", "zy", "a", "sa", "za", "b", "sb", "zb"]
    proto = model_of("QLinearConcat", inputs, {"a": a, "b": b}, c, a.dtype, axis=1)
    assert_codes(run_ours(proto, {"a": a, "b": b}), expected)
    np.testing.assert_array_equal(run_theirs(proto, {"a": a, "b": b}), expected)


@each_case
def test_where_requantizes_what_it_chooses(
    kind: str, parity: int, scales: tuple[float, ...]
) -> None:
    c = parameters(kind, parity, scales)
    a, b = random_codes(kind, (6, 30), 1), random_codes(kind, (6, 30), 2)
    condition = np.random.default_rng(3).random((6, 30)) < 0.5
    values = np.where(
        condition, exact(a, c["sa"], int(c["za"])), exact(b, c["sb"], int(c["zb"]))
    )
    expected = hand(values, c["sy"], int(c["zy"]), kind)
    feeds = {"condition": condition, "a": a, "b": b}
    proto = model_of("QLinearWhere", ["condition", *PAIR], feeds, c, a.dtype)
    assert_codes(run_ours(proto, feeds), expected)
    np.testing.assert_array_equal(run_theirs(proto, feeds), expected)


@each_case
def test_leaky_relu_of_every_code(kind: str, parity: int, scales: tuple[float, ...]) -> None:
    c = parameters(kind, parity, scales)
    a = np.arange(256, dtype=np.uint8).view(KINDS[kind])
    x = exact(a, c["sa"], int(c["za"]))
    expected = hand(np.where(x < 0, x / 4, x), c["sy"], int(c["zy"]), kind)
    proto = model_of("QLinearLeakyRelu", SINGLE, {"a": a}, c, a.dtype, alpha=0.25)
    assert_codes(run_ours(proto, {"a": a}), expected)
    np.testing.assert_array_equal(run_theirs(proto, {"a": a}), expected)


@each_case
def test_sigmoid_of_every_code(kind: str, parity: int, scales: tuple[float, ...]) -> None:
    c = parameters(kind, parity, scales)
    c["sy"] = np.float32(1 / 256)
    a = np.arange(256, dtype=np.uint8).view(KINDS[kind])
    levels = a.astype(np.int64) - int(c["za"])
    values = 1 / (1 + np.exp(-(levels * float(c["sa"]))))
    assert np.min(np.abs(values * 256 % 1 - 0.5)) > 1e-6
    limits = np.iinfo(KINDS[kind])
    expected = np.clip(np.rint(values * 256) + int(c["zy"]), limits.min, limits.max)
    proto = model_of("QLinearSigmoid", SINGLE, {"a": a}, c, a.dtype)
    assert_codes(run_ours(proto, {"a": a}), expected.astype(a.dtype))
    np.testing.assert_array_equal(run_theirs(proto, {"a": a}), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("opset", [12, 13])
def test_softmax_is_that_of_the_values_and_onnxruntime_at_most_one_step_away(
    kind: str, opset: int
) -> None:
    c = parameters(kind, 1, ODD_SCALES) | {"sy": np.float32(1 / 256)}
    c["zy"] = KINDS[kind](np.iinfo(KINDS[kind]).min)
    a = random_codes(kind, (30, 3, 4), 1)
    levels = a.astype(np.int64) - int(c["za"])
    powers = np.exp(levels * float(c["sa"]))
    axes: Any = (1, 2) if opset == 12 else 1
    values = powers / powers.sum(axis=axes, keepdims=True)
    expected = np.clip(np.rint(values * 256), 0, 255) + np.iinfo(KINDS[kind]).min
    proto = model_of("QLinearSoftmax", SINGLE, {"a": a}, c, a.dtype, opset=opset, axis=1)
    ours = run_ours(proto, {"a": a})
    assert_codes(ours, expected.astype(a.dtype))
    # onnxruntime takes exponentials from a table of rounded ones.
    theirs = run_theirs(proto, {"a": a})
    assert np.max(np.abs(ours.astype(int) - theirs.astype(int))) <= 1


GEMM = ["a", "sa", "za", "b", "sb", "zb", "bias", "sy", "zy"]


@pytest.mark.parametrize(("ak", "bk"), [("u8", "u8"), ("u8", "i8"), ("i8", "i8")])
@pytest.mark.parametrize("turned", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_gemm_in_every_type_that_onnxruntime_runs(
    ak: str, bk: str, turned: tuple[int, int], columns: bool, bias: bool
) -> None:
    a, b = random_codes(ak, (6, 40), 1), random_codes(bk, (40, 5), 2)
    za, zb = IN_ZEROS[ak][0], np.full(5 if columns else (), IN_ZEROS[bk][0])
    c = parameters(ak, 0, ODD_SCALES)
    sb = np.array([0.01, 0.03, 0.002, 0.05, 0.007], dtype=np.float32)
    c |= {"sb": sb if columns else sb[0], "zb": zb.astype(KINDS[bk]), "sy": np.float32(5.5)}
    sums = (a.astype(np.int64) - za) @ (b.astype(np.int64) - zb)
    if bias:
        c["bias"] = np.array([100, -20000, 300000, 0, 5], dtype=np.int32)
        sums = sums + c["bias"]
    # Documented: alpha belongs to the bias as well, whose scale is alpha * a_scale * b_scale.
    scale = np.float32(0.75) * c["sa"] * c["sb"]
    limits = np.iinfo(KINDS[ak])
    rounded = np.rint(sums.astype(np.float32) * (scale / c["sy"])) + int(c["zy"])
    expected = np.clip(rounded, limits.min, limits.max).astype(KINDS[ak])
    c["b"] = np.ascontiguousarray(b.T) if turned[1] else b
    feeds = {"a": np.ascontiguousarray(a.T) if turned[0] else a}
    inputs = [name if name != "bias" or bias else "" for name in GEMM]
    attrs = {"transA": turned[0], "transB": turned[1], "alpha": 0.75}
    proto = model_of("QGemm", inputs, feeds, c, a.dtype, **attrs)
    assert_codes(run_ours(proto, feeds), expected)
    np.testing.assert_array_equal(run_theirs(proto, feeds), expected)
    floats = model_of("QGemm", inputs[:7], feeds, c, np.float32, **attrs)
    values = sums.astype(np.float32) * scale
    np.testing.assert_array_equal(run_ours(floats, feeds), values)
    np.testing.assert_array_equal(run_theirs(floats, feeds), values)


@pytest.mark.parametrize(("ak", "bk"), list(itertools.product(KINDS, KINDS)))
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_an_integer_product_to_float(ak: str, bk: str, columns: bool, bias: bool) -> None:
    a, b = random_codes(ak, (2, 6, 400), 1), random_codes(bk, (400, 5), 2)
    zb = np.full(5 if columns else (), IN_ZEROS[bk][0])
    c = parameters(ak, 0, ODD_SCALES) | {"b": b, "zb": zb.astype(KINDS[bk])}
    if columns:
        c["sb"] = np.array([0.01, 0.03, 0.002, 0.05, 0.007], dtype=np.float32)
    sums = (a.astype(np.int64) - int(c["za"])) @ (b.astype(np.int64) - zb)
    expected = sums.astype(np.float32) * (c["sa"] * c["sb"])
    inputs = ["a", "b", "sa", "sb", "za", "zb"]
    if bias:
        c["bias"] = np.array([1.5, -2, 0.125, 7, 3], dtype=np.float32)
        expected = expected + c["bias"]
        inputs.append("bias")
    proto = model_of("MatMulIntegerToFloat", inputs, {"a": a}, c, np.float32)
    np.testing.assert_array_equal(run_ours(proto, {"a": a}), expected)
    if (ak, bk) == ("i8", "u8"):
        return  # onnxruntime has no kernel for these types
    # A processor may add the bias without rounding the product first: one rounding apart.
    theirs = run_theirs(proto, {"a": a})
    largest = float(np.abs(expected).max())
    np.testing.assert_allclose(theirs, expected, rtol=0, atol=2.0**-23 * largest * bias)


@pytest.mark.parametrize("bk", KINDS)
def test_a_dynamically_quantized_product(bk: str) -> None:
    x = np.random.default_rng(1).normal(0, 3, (6, 40)).astype(np.float32)
    c = parameters(bk, 0, ODD_SCALES) | {"b": random_codes(bk, (40, 5), 2)}
    # As DynamicQuantizeLinear documents it.
    low, high = np.minimum(x.min(), np.float32(0)), np.maximum(x.max(), np.float32(0))
    scale = np.float32((high - low) / np.float32(255))
    zero = int(np.rint((0 - low) / scale))
    codes = np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.int64)
    sums = (codes - zero) @ (c["b"].astype(np.int64) - int(c["zb"]))
    expected = sums.astype(np.float32) * (scale * c["sb"])
    proto = model_of("DynamicQuantizeMatMul", ["x", "b", "sb", "zb"], {"x": x}, c, x.dtype)
    np.testing.assert_array_equal(run_ours(proto, {"x": x}), expected)
    np.testing.assert_array_equal(run_theirs(proto, {"x": x}), expected)


def test_shapes_are_known_behind_every_operator() -> None:
    c = parameters("u8", 1, EVEN_SCALES)
    a = random_codes("u8", (2, 3, 6, 8), 1)
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    mean = {"axes": [1], "keepdims": 0}
    expected = {
        ("QLinearAveragePool", *pool): (pool, SINGLE, [2, 3, 3, 4]),
        ("QLinearGlobalAveragePool",): ({}, SINGLE, [2, 3, 1, 1]),
        ("QLinearReduceMean",): (mean, SINGLE, [2, 6, 8]),
        ("QLinearSigmoid",): ({}, SINGLE, [2, 3, 6, 8]),
        ("QLinearConcat",): (
            {"axis": 1},
            ["sy", "zy", "a", "sa", "za", "a", "sa", "za"],
            [2, 6, 6, 8],
        ),
        ("QLinearAdd",): ({}, ["a", "sa", "za", "a", "sa", "za", "sy", "zy"], [2, 3, 6, 8]),
    }
    for (op_type, *_), (attrs, inputs, shape) in expected.items():
        model = read_model(model_of(op_type, inputs, {"a": a}, c, a.dtype, **attrs))
        [output] = model.graph.outputs
        assert output.shape is not None
        assert list(output.shape) == shape, op_type
        assert output.dtype is not None
        assert output.dtype.name == "UINT8", op_type


@pytest.mark.parametrize(
    ("op_type", "inputs", "attrs", "problem"),
    [
        ("QLinearAdd", PAIR[:6], {}, "takes 7 to 8 inputs, 6 are given"),
        ("QLinearSigmoid", SINGLE, {"alpha": 1.0}, "unknown attribute 'alpha'"),
        ("QLinearSoftmax", SINGLE, {}, "required attribute 'opset' is missing"),
    ],
)
def test_what_no_document_knows_is_refused_by_name(
    op_type: str, inputs: list[str], attrs: dict[str, Any], problem: str
) -> None:
    a = random_codes("u8", (2, 3), 1)
    c = parameters("u8", 0, EVEN_SCALES) | {"b": a}
    with pytest.raises(InvalidModelError, match=f"{op_type} 'node': {problem}"):
        read_model(model_of(op_type, inputs, {"a": a}, c, a.dtype, **attrs))


def test_a_channels_last_pool_is_handed_to_onnxruntime() -> None:
    pytest.importorskip("onnxruntime")
    a = random_codes("u8", (1, 4, 4, 2), 1)
    c = parameters("u8", 0, EVEN_SCALES)
    attrs = {"kernel_shape": [2, 2], "channels_last": 1}
    proto = model_of("QLinearAveragePool", SINGLE, {"a": a}, c, a.dtype, **attrs)
    np.testing.assert_array_equal(run_ours(proto, {"a": a}), run_theirs(proto, {"a": a}))


def test_a_type_other_than_bytes_is_refused() -> None:
    a = np.arange(6, dtype=np.int16)
    c = parameters("u8", 0, EVEN_SCALES) | {"za": np.int16(0), "zy": np.int16(0)}
    proto = model_of("QLinearSigmoid", SINGLE, {"a": a}, c, a.dtype)
    with pytest.raises(ExecutionError, match="takes int8 or uint8, not int16"):
        run_ours(proto, {"a": a})
