"""Any QuantizeLinear, Clip, DequantizeLinear: the import computes what onnxruntime does."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from onnx.helper import make_node

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.protocol import ImportOptions
from qonnx_hub_adapters.qcdq.importer import QcdqImporter, kept_reasons
from tests.support import model_of

ort = pytest.importorskip("onnxruntime")

RANGES = {
    np.dtype(np.int8): (-128, 127),
    np.dtype(np.uint8): (0, 255),
    np.dtype(np.int16): (-32768, 32767),
    np.dtype(np.uint16): (0, 65535),
    np.dtype(ml_dtypes.int4): (-8, 7),
    np.dtype(ml_dtypes.uint4): (0, 15),
    np.dtype(ml_dtypes.int2): (-2, 1),
    np.dtype(ml_dtypes.uint2): (0, 3),
}
OPSETS = {8: (13, 19, 21), 16: (21,), 4: (21,), 2: (25,)}
FLOATS = st.floats(min_value=2.0**-100, max_value=2.0**100, width=32)
SCALES = st.one_of(FLOATS, st.sampled_from([0.125, 1.0, 0.1, 1 / 3, 4.0]))


def ort_run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, feeds)[0])


def imported_run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    imported = QcdqImporter().load(model, ImportOptions())
    assert kept_reasons(imported) == {}
    assert {n.op_type for n in imported.graph} <= {"Quant", "Clip", "Max", "Min"}
    return Session(imported).run(feeds)["y"]


def width(dtype: np.dtype[Any]) -> int:
    low, high = RANGES[dtype]
    return (high - low).bit_length()


def hard_values(scale: np.float32, steps: np.ndarray) -> np.ndarray:
    """Every tie around the steps, the steps themselves, and two floats on either side."""
    with np.errstate(over="ignore"):
        middles = np.concatenate([steps, steps + 0.5]).astype(np.float32) * scale
    ladder = [middles]
    for direction in (-np.inf, np.inf):
        near = middles
        for _ in range(2):
            near = np.nextafter(near, np.float32(direction))
            ladder.append(near)
    extremes = np.array([0.0, -0.0, np.inf, -np.inf, 3e38, -3e38], dtype=np.float32)
    return np.concatenate([*ladder, extremes])


def steps_around(low: int, high: int) -> np.ndarray:
    """Whole steps through a range, all of them where there are few."""
    if high - low <= 600:
        return np.arange(low - 3, high + 4, dtype=np.int64)
    ends = [np.arange(end - 20, end + 21, dtype=np.int64) for end in (low, 0, high)]
    return np.concatenate([*ends, np.linspace(low, high, 301).astype(np.int64)])


@st.composite
def quantizers(draw: st.DrawFn) -> dict[str, Any]:
    dtype = draw(st.sampled_from(list(RANGES)))
    low, high = RANGES[dtype]
    zero = draw(st.one_of(st.just(0), st.sampled_from([low, high]), st.integers(low, high)))
    zero = min(max(zero, low), high)
    ends = sorted(draw(st.lists(st.integers(low, high), min_size=2, max_size=2)))
    clip = draw(st.sampled_from(["none", "both", "low", "high"]))
    return {
        "dtype": dtype,
        "zero": zero,
        "low": ends[0] if clip in {"both", "low"} else None,
        "high": ends[1] if clip in {"both", "high"} else None,
        "opset": draw(st.sampled_from(OPSETS[width(dtype)])),
        "wide": draw(st.booleans()),
    }


def qcdq_model(
    q: dict[str, Any], scale: np.ndarray, zero: np.ndarray, shape: tuple[Any, ...], axis: int
) -> onnx.ModelProto:
    """Q, Clip, DQ; the Clip in int32 where the type has none, or where `wide` says so."""
    dtype = q["dtype"]
    attributes = {"axis": axis} if scale.size > 1 else {}
    clipped = q["low"] is not None or q["high"] is not None
    wide = clipped and (q["wide"] or width(dtype) != 8)
    stored = np.dtype(np.int32) if wide else dtype
    constants: dict[str, Any] = {"s": scale, "z": zero.astype(dtype)}
    nodes = [make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **attributes)]
    codes = "q"
    if wide:
        nodes.append(make_node("Cast", ["q"], ["w"], to=TensorProto.INT32))
        codes = "w"
    if clipped:
        for name in ("low", "high"):
            if q[name] is not None:
                constants[name] = np.array(q[name], dtype=stored)
        bounds = [name if q[name] is not None else "" for name in ("low", "high")]
        nodes.append(make_node("Clip", [codes, *bounds], ["c"]))
        codes = "c"
    if wide:
        kind = onnx.helper.np_dtype_to_tensor_dtype(dtype)
        nodes.append(make_node("Cast", ["c"], ["n"], to=kind))
        codes = "n"
    nodes.append(make_node("DequantizeLinear", [codes, "s", "z"], ["y"], **attributes))
    return model_of(nodes, {"x": shape}, ["y"], constants, opset=q["opset"], domains=())


def range_of(q: dict[str, Any]) -> tuple[int, int]:
    low, high = RANGES[q["dtype"]]
    return (low if q["low"] is None else q["low"], high if q["high"] is None else q["high"])


@settings(max_examples=300)
@given(q=quantizers(), number=SCALES)
def test_any_quantizer_per_tensor_equals_onnxruntime(q: dict[str, Any], number: float) -> None:
    scale = np.float32(number)
    low, high = range_of(q)
    x = hard_values(scale, steps_around(low - q["zero"], high - q["zero"]))
    model = qcdq_model(q, np.array(scale), np.array(q["zero"]), ("n",), 1)
    np.testing.assert_array_equal(imported_run(model, {"x": x}), ort_run(model, {"x": x}))


@settings(max_examples=150)
@given(
    q=quantizers(),
    numbers=st.lists(SCALES, min_size=2, max_size=4),
    axis=st.sampled_from([0, 1, -1, -2]),
    data=st.data(),
)
def test_any_quantizer_per_channel_equals_onnxruntime(
    q: dict[str, Any], numbers: list[float], axis: int, data: st.DataObject
) -> None:
    scale = np.array(numbers, dtype=np.float32)
    lowest, highest = RANGES[q["dtype"]]
    same = data.draw(st.booleans())
    zeros = [q["zero"] if same else data.draw(st.integers(lowest, highest)) for _ in numbers]
    low, high = range_of(q)
    rows = [
        hard_values(s, steps_around(low - z, high - z))
        for s, z in zip(scale, zeros, strict=True)
    ]
    length = max(len(row) for row in rows)
    x = np.stack([np.resize(row, length) for row in rows], axis=axis)
    model = qcdq_model(q, scale, np.array(zeros), x.shape, axis)
    np.testing.assert_array_equal(imported_run(model, {"x": x}), ort_run(model, {"x": x}))


@settings(max_examples=150)
@given(
    q=quantizers(),
    number=SCALES,
    ends=st.lists(st.floats(-70000, 70000, width=32), min_size=2, max_size=2),
    whole=st.booleans(),
)
def test_a_float_clip_in_front_equals_onnxruntime(
    q: dict[str, Any], number: float, ends: list[float], whole: bool
) -> None:
    scale = np.float32(number)
    codes = sorted(np.rint(e) if whole else e for e in ends)
    bounds = np.array(codes, dtype=np.float32) * scale
    model = qcdq_model(q, np.array(scale), np.array(q["zero"]), ("n",), 1)
    clip = make_node("Clip", ["x0", "a", "b"], ["x"])
    nodes = [clip, *model.graph.node]
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    arrays.update({"a": np.array(bounds[0]), "b": np.array(bounds[1])})
    model = model_of(nodes, {"x0": ("n",)}, ["y"], arrays, opset=q["opset"], domains=())
    low, high = range_of(q)
    x = np.concatenate(
        [
            hard_values(scale, steps_around(low - q["zero"], high - q["zero"])),
            hard_values(scale, np.rint(codes).astype(np.int64)),
        ]
    )
    np.testing.assert_array_equal(imported_run(model, {"x0": x}), ort_run(model, {"x0": x}))


@settings(max_examples=60)
@given(
    dtype=st.sampled_from([np.dtype(np.int8), np.dtype(np.uint8), np.dtype(ml_dtypes.int4)]),
    block=st.integers(1, 5),
    columns=st.integers(1, 7),
    axis=st.sampled_from([0, 1, -1]),
    seed=st.integers(0, 1000),
)
def test_blocked_scales_equal_onnxruntime(
    dtype: np.dtype[Any], block: int, columns: int, axis: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shape = [3, 3]
    shape[axis] = columns
    blocks = list(shape)
    blocks[axis] = -(-columns // block)
    scale = rng.uniform(0.01, 2, blocks).astype(np.float32)
    low, high = RANGES[dtype]
    zero = rng.integers(low, high + 1, blocks)
    nodes = [
        make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=axis, block_size=block),
        make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=axis, block_size=block),
    ]
    constants = {"s": scale, "z": zero.astype(dtype)}
    model = model_of(nodes, {"x": tuple(shape)}, ["y"], constants, opset=21, domains=())
    x = (rng.integers(2 * low, 2 * high + 2, shape) / 2).astype(np.float32)
    x *= np.float32(rng.choice([1.0, 0.25]))
    np.testing.assert_array_equal(imported_run(model, {"x": x}), ort_run(model, {"x": x}))


@settings(max_examples=100)
@given(q=quantizers(), number=SCALES, seed=st.integers(0, 1000), is_float=st.booleans())
def test_a_constant_equals_onnxruntime_and_a_quantizer_is_on_it(
    q: dict[str, Any], number: float, seed: int, is_float: bool
) -> None:
    rng = np.random.default_rng(seed)
    scale = np.array(number, dtype=np.float32)
    low, high = RANGES[q["dtype"]]
    model = qcdq_model(q, scale, np.array(q["zero"]), (40,), 1)
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes = list(model.graph.node)
    if is_float:
        with np.errstate(over="ignore"):
            arrays["x"] = rng.uniform(low, high, 40).astype(np.float32) * scale
    else:
        arrays["q"] = rng.integers(low, high + 1, 40).astype(q["dtype"])
        nodes = nodes[1:]
    nodes.append(make_node("Add", ["nil", "y"], ["out"]))
    arrays_in = {"nil": (40,)}
    model = model_of(nodes, arrays_in, ["out"], arrays, opset=q["opset"], domains=())
    feeds = {"nil": np.zeros(40, dtype=np.float32)}
    imported = QcdqImporter().load(model, ImportOptions())
    assert kept_reasons(imported) == {}
    assert sum(n.domain != "" for n in imported.graph) == 1
    np.testing.assert_array_equal(Session(imported).run(feeds)["out"], ort_run(model, feeds))
