"""Constants behind QuantizeLinear and DequantizeLinear keep their values."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx.helper import make_node
from onnx_ir import Model

from qonnx_hub_adapters.qcdq.importer import kept_reasons
from qonnx_hub_ir import dialect
from qonnx_hub_ir.quantizers import BipolarQuant
from tests.adapters.qcdq.importer_graphs import (
    DEQUANTIZE,
    QUANTIZE,
    Nodes,
    f32,
    i8,
    load,
    ops,
    pair,
    quantizers,
    summaries,
    u8,
)


def weight_model(*between: onnx.NodeProto, last: str = "w") -> Nodes:
    """Integers `w`, nodes between, DQ, added to `x`."""
    return [
        *between,
        make_node(DEQUANTIZE, [last, "s", "z"], ["v"], "dequantize", axis=0),
        make_node("Add", ["x", "v"], ["y"], "add"),
    ]


def weights(model: Model) -> list[float]:
    """Values that the only quantizer is applied to, which must be a constant."""
    (node,) = [n for n in model.graph if dialect.is_quantizer(n)]
    known = dialect.constant_value(node.inputs[0])
    assert known is not None
    return np.asarray(known.reshape(-1)).tolist()


@pytest.mark.parametrize(
    ("dtype", "opset", "expected"),
    [
        (np.int8, 19, (8, "int", 0.0)),
        (np.uint8, 19, (8, "uint", 0.0)),
        (np.int16, 21, (16, "int", 0.0)),
        (np.int32, 19, (32, "int", 0.0)),
        (ml_dtypes.int4, 21, (4, "int", 0.0)),
        (ml_dtypes.uint4, 21, (4, "uint", 0.0)),
        (ml_dtypes.int2, 25, (2, "int", 0.0)),
    ],
)
def test_stored_integers_become_a_quantizer_on_their_values(
    dtype: Any, opset: int, expected: tuple[int, str, float]
) -> None:
    codes = np.array([0, 1, 1], dtype=dtype)
    constants = {"w": codes, "s": 0.25, "z": np.zeros((), dtype=dtype)}
    model = load(weight_model(), constants, opset=opset)
    assert ops(model) == ["Quant", "Add"]
    assert summaries(model) == [expected]
    assert weights(model) == [0.0, 0.25, 0.25]


def test_a_clip_on_stored_integers_gives_the_bits() -> None:
    clip = make_node("Clip", ["w", "low", "high"], ["c"])
    codes = i8(-7, 0, 3)
    constants = {"w": codes, "s": 0.5, "z": i8(0), "low": i8(-7), "high": i8(7)}
    for opset in (13, 19):
        model = load(weight_model(clip, last="c"), constants, opset=opset)
        assert summaries(model) == [(4, "int narrow", 0.0)]
        assert weights(model) == [-3.5, 0.0, 1.5]


def test_a_clip_cuts_stored_integers() -> None:
    clip = make_node("Clip", ["w", "low", "high"], ["c"])
    codes = i8(-90, 0, 90)
    constants = {"w": codes, "s": 0.5, "z": i8(0), "low": i8(-5), "high": i8(5)}
    model = load(weight_model(clip, last="c"), constants)
    assert summaries(model) == [(4, "int", 0.0)]
    assert weights(model) == [-2.5, 0.0, 2.5]


def test_stored_integers_keep_their_zero_points() -> None:
    codes = u8(*range(6)).reshape(2, 3)
    constants = {"w": codes, "s": f32(0.5, 0.1), "z": u8(3, 1)}
    model = load(weight_model(), constants)
    assert summaries(model) == [(8, "uint", [[3.0], [1.0]])]


def test_stored_codes_around_the_middle_keep_their_zero_point() -> None:
    codes = u8(127, 128, 200)
    model = load(weight_model(), {"w": codes, "s": 0.5, "z": u8(128)})
    assert summaries(model) == [(8, "uint", 128.0)]
    assert weights(model) == [-0.5, 0.0, 36.0]


def test_plus_and_minus_one_are_bipolar() -> None:
    codes = i8(1, -1, 1)
    model = load(weight_model(), {"w": codes, "s": 0.25, "z": i8(0)})
    assert quantizers(model) == [BipolarQuant(f32(0.25))]
    assert weights(model) == [0.25, -0.25, 0.25]


@pytest.mark.parametrize("codes", [i8(1, 1, 1), i8(1, 0, -1)], ids=str)
def test_other_small_integers_are_not_bipolar(codes: np.ndarray) -> None:
    model = load(weight_model(), {"w": codes, "s": 0.25, "z": i8(0)})
    assert summaries(model) == [(8, "int", 0.0)]


def test_plus_and_minus_one_with_a_zero_point_are_not_bipolar() -> None:
    codes = i8(1, -1, 1)
    model = load(weight_model(), {"w": codes, "s": 0.25, "z": i8(1)})
    assert summaries(model) == [(8, "int", 1.0)]


def test_plus_and_minus_one_behind_a_clip_are_two_bits() -> None:
    clip = make_node("Clip", ["w", "low", "high"], ["c"])
    codes = i8(1, -1, 1)
    constants = {"w": codes, "s": 0.5, "z": i8(0), "low": i8(-1), "high": i8(1)}
    model = load(weight_model(clip, last="c"), constants)
    assert summaries(model) == [(2, "int narrow", 0.0)]


def test_wide_integers_come_back_from_float32() -> None:
    rng = np.random.default_rng(6)
    codes = rng.integers(-(2**31), 2**31, (2, 500)).astype(np.int32)
    codes[:, :4] = [-(2**31), 2**31 - 1, 2**24 + 1, 0]
    scale = rng.uniform(1e-6, 1, 2).astype(np.float32)
    constants = {"w": codes, "s": scale, "z": np.zeros(2, dtype=np.int32)}
    model = load(weight_model(), constants, shape=(2, 500))
    assert summaries(model) == [(32, "int", 0.0)]


def test_wide_integers_with_a_zero_point_stay() -> None:
    codes = np.array([1, 2, 3], dtype=np.int32)
    constants = {"w": codes, "s": 0.5, "z": np.array(7, dtype=np.int32)}
    model = load(weight_model(), constants)
    assert ops(model) == ["DequantizeLinear", "Add"]
    assert kept_reasons(model) == {"dequantize": "it has 32-bit integers and a zero point"}


def test_stored_infinities_stay() -> None:
    codes = f32(1, np.inf, -np.inf).astype(ml_dtypes.float8_e5m2)
    constants = {"w": codes, "s": 0.5, "z": np.zeros((), dtype=ml_dtypes.float8_e5m2)}
    model = load(weight_model(), constants)
    assert ops(model) == ["DequantizeLinear", "Add"]
    assert "does not give its values back" in kept_reasons(model)["dequantize"]


def test_quantized_float_weights_keep_their_values_and_get_a_quantizer() -> None:
    nodes = [
        make_node(QUANTIZE, ["w", "s", "z"], ["q"], axis=0),
        make_node("Clip", ["q", "low", "high"], ["c"]),
        make_node(DEQUANTIZE, ["c", "s", "z"], ["v"], axis=0),
        make_node("Add", ["x", "v"], ["y"]),
    ]
    weight = np.linspace(-2, 2, 6, dtype=np.float32).reshape(2, 3)
    constants = {"w": weight, "low": i8(-7), "high": i8(7)}
    model = load(nodes, {**constants, "s": f32(0.2, 0.1), "z": i8(0, 0)})
    assert summaries(model) == [(4, "int narrow", 0.0)]
    assert weights(model) == weight.reshape(-1).tolist()


def test_quantized_float_weights_with_a_zero_point_stay_one_quantizer() -> None:
    nodes = [*pair(), make_node("Add", ["x", "y"], ["out"])]
    nodes[0].input[0] = "w"
    # 1.5 / 0.5 is no tie, 0.25 / 0.5 is one.
    for weight in (f32(1.5, -0.5, 9), f32(0.25, 0.75, -0.25)):
        constants = {"w": weight, "s": 0.5, "z": u8(3)}
        model = load(nodes, constants, outputs=("out",))
        assert ops(model) == ["Quant", "Add"]
        assert summaries(model) == [(8, "uint", 3.0)]


def test_constants_that_grow_on_their_way_are_moved_as_values() -> None:
    between = [
        make_node("Expand", ["w", "wide"], ["e"]),
        make_node("Clip", ["e", "low", "high"], ["c"]),
    ]
    constants = {
        "w": i8(-90, 0, 90).reshape(1, 3),
        "s": 0.5,
        "z": i8(0),
        "wide": np.array([30000, 3], dtype=np.int64),
        "low": i8(-8),
        "high": i8(7),
    }
    model = load(weight_model(*between, last="c"), constants, shape=(1, 3))
    assert ops(model) == ["Quant", "Expand", "Add"]
    assert summaries(model) == [(4, "int", 0.0)]
    assert weights(model) == [-4.0, 0.0, 3.5]


def test_constants_that_grow_before_a_scale_per_channel_stay() -> None:
    expand = make_node("Expand", ["w", "wide"], ["e"])
    constants = {
        "w": i8(5, 6, 7).reshape(1, 3),
        "s": np.linspace(0.1, 0.2, 30000, dtype=np.float32),
        "z": np.zeros(30000, dtype=np.int8),
        "wide": np.array([30000, 3], dtype=np.int64),
    }
    model = load(weight_model(expand, last="e"), constants, shape=(1, 3))
    assert ops(model) == ["Expand", "DequantizeLinear", "Add"]
    assert "moved before a scale per channel" in kept_reasons(model)["dequantize"]
