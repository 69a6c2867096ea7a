"""Each form of QuantizeLinear and DequantizeLinear becomes the quantizer that it is."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto
from onnx.helper import make_node

from qonnx_hub.executor.session import Session
from qonnx_hub_ir import dialect
from qonnx_hub_ir.quantizers import IntQuant
from tests.adapters.qcdq.importer_graphs import (
    CLIP,
    DEQUANTIZE,
    QUANTIZE,
    f32,
    i8,
    load,
    ops,
    pair,
    quantizers,
    summaries,
    u8,
)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (i8(-8), i8(7), (4, "int", 0.0)),
        (i8(-7), i8(7), (4, "int narrow", 0.0)),
        (i8(-1), i8(1), (2, "int narrow", 0.0)),
        (i8(-127), i8(127), (8, "int narrow", 0.0)),
        (i8(-128), i8(127), (8, "int", 0.0)),
        (i8(0), i8(127), (7, "uint", 0.0)),
        (i8(0), i8(1), (1, "uint", 0.0)),
        (u8(0), u8(15), (4, "uint", 0.0)),
        (u8(0), u8(254), (8, "uint narrow", 0.0)),
        (u8(0), u8(2), (2, "uint narrow", 0.0)),
    ],
    ids=str,
)
def test_bits_and_narrowness_come_from_the_clip(
    low: np.ndarray, high: np.ndarray, expected: tuple[int, str, float]
) -> None:
    zero = np.zeros((), dtype=low.dtype)
    constants = {"s": 0.25, "z": zero, "low": low, "high": high}
    model = load(pair(CLIP, last="c"), constants)
    assert ops(model) == ["Quant"]
    assert summaries(model) == [expected]


@pytest.mark.parametrize(
    ("dtype", "opset", "expected"),
    [
        (np.int8, 19, (8, "int", 0.0)),
        (np.uint8, 19, (8, "uint", 0.0)),
        (np.int16, 21, (16, "int", 0.0)),
        (np.uint16, 21, (16, "uint", 0.0)),
        (ml_dtypes.int4, 21, (4, "int", 0.0)),
        (ml_dtypes.uint4, 21, (4, "uint", 0.0)),
        (ml_dtypes.int2, 25, (2, "int", 0.0)),
        (ml_dtypes.uint2, 25, (2, "uint", 0.0)),
    ],
)
def test_without_a_clip_bits_come_from_the_type(
    dtype: Any, opset: int, expected: tuple[int, str, float]
) -> None:
    model = load(pair(), {"s": 0.25, "z": np.zeros((), dtype=dtype)}, opset=opset)
    assert summaries(model) == [expected]


def test_a_missing_zero_point_means_unsigned_eight_bits() -> None:
    nodes = [
        make_node(QUANTIZE, ["x", "s"], ["q"]),
        make_node(DEQUANTIZE, ["q", "s"], ["y"]),
    ]
    assert summaries(load(nodes, {"s": 0.25})) == [(8, "uint", 0.0)]


def test_one_bound_is_enough() -> None:
    clip = make_node("Clip", ["q", "", "high"], ["c"])
    model = load(pair(clip, last="c"), {"s": 0.25, "z": u8(0), "high": u8(63)})
    assert summaries(model) == [(6, "uint", 0.0)]


def test_opset_ten_is_read() -> None:
    model = load(pair(), {"s": 0.25, "z": i8(0)}, opset=10)
    assert summaries(model) == [(8, "int", 0.0)]


def test_a_range_of_no_bit_width_is_a_wider_quantizer_and_a_clip() -> None:
    constants = {"s": 0.5, "z": i8(0), "low": i8(-5), "high": i8(5)}
    model = load(pair(CLIP, last="c"), constants, shape=(4,))
    assert ops(model) == ["Quant", "Clip"]
    assert summaries(model) == [(4, "int", 0.0)]
    y = Session(model).run({"x": f32(-9, -2.75, 2.25, 9)})["y"]
    assert y.tolist() == [-2.5, -2.5, 2.0, 2.5]


def test_a_tie_before_an_odd_zero_point_goes_to_even() -> None:
    model = load(pair(), {"s": 1.0, "z": u8(3)}, shape=(5,))
    assert ops(model) == ["Quant"]
    assert summaries(model) == [(8, "uint", 3.0)]
    # QuantizeLinear rounds 0.5 to 0 and 1.5 to 2, and adds 3 after that.
    y = Session(model).run({"x": f32(0.5, 1.5, -0.5, -4, 300)})["y"]
    assert y.tolist() == [0.0, 2.0, 0.0, -3.0, 252.0]


@pytest.mark.parametrize(
    ("zero", "low", "high", "expected"),
    [
        (128, 1, 255, (8, "int narrow", 0.0)),
        (128, 120, 135, (4, "int", 0.0)),
        (10, 10, 25, (4, "uint", 0.0)),
        (3, 0, 255, (8, "uint", 3.0)),
        (128, 0, 255, (8, "uint", 128.0)),
        (8, 0, 15, (4, "uint", 8.0)),
        (1, 0, 3, (2, "uint", 1.0)),
        (5, 0, 254, (8, "uint narrow", 5.0)),
    ],
)
def test_a_whole_range_keeps_its_zero_point_and_a_shifted_one_loses_it(
    zero: int, low: int, high: int, expected: tuple[int, str, float]
) -> None:
    constants = {"s": 0.1, "z": u8(zero), "low": u8(low), "high": u8(high)}
    model = load(pair(CLIP, last="c"), constants)
    assert ops(model) == ["Quant"]
    assert summaries(model) == [expected]


def test_zero_points_per_channel_stay_with_the_quantizer() -> None:
    constants = {"s": f32(1, 0.5, 2), "z": u8(3, 0, 128)}
    model = load(pair(axis=-1), constants, shape=(1, 3))
    assert ops(model) == ["Quant"]
    assert summaries(model) == [(8, "uint", [[3.0, 0.0, 128.0]])]


def test_a_range_per_channel_that_no_bits_have_becomes_bounds_per_channel() -> None:
    constants = {"s": f32(1, 0.5, 2), "z": u8(3, 0, 128), "low": u8(0), "high": u8(200)}
    model = load(pair(CLIP, last="c", axis=-1), constants, shape=(1, 3))
    assert ops(model) == ["Quant", "Max", "Min"]
    assert summaries(model) == [(8, "uint", [[3.0, 0.0, 128.0]])]
    low, high = (dialect.constant_value(n.inputs[1]) for n in list(model.graph)[1:])
    assert low is not None
    assert high is not None
    assert low.tolist() == [[-3.0, 0.0, -256.0]]
    assert high.tolist() == [[197.0, 100.0, 144.0]]


def test_a_scale_per_channel_lies_along_the_axis() -> None:
    for axis, shape in ((1, (1, 3, 1)), (-3, (2, 1, 1)), (2, (1, 1, 4))):
        size = max(shape)
        scale = np.linspace(0.1, 1, size, dtype=np.float32)
        constants = {"s": scale, "z": np.zeros(size, dtype=np.int8)}
        (quant,) = quantizers(load(pair(axis=axis), constants, shape=(2, 3, 4)))
        assert isinstance(quant, IntQuant)
        assert np.asarray(quant.scale).shape == shape
        assert np.asarray(quant.scale).reshape(-1).tolist() == scale.tolist()


def test_blocks_are_spelled_out_per_element() -> None:
    scale = f32(1, 2, 3, 4).reshape(2, 2)
    constants = {"s": scale, "z": np.zeros((2, 2), dtype=np.int8)}
    (quant,) = quantizers(load(pair(axis=1, block_size=2), constants, shape=(2, 3), opset=21))
    assert isinstance(quant, IntQuant)
    assert np.asarray(quant.scale).tolist() == [[1, 1, 2], [3, 3, 4]]


def test_blocks_as_long_as_an_axis_leave_one_entry() -> None:
    constants = {"s": f32(1, 2).reshape(2, 1), "z": np.zeros((2, 1), dtype=np.int8)}
    (quant,) = quantizers(load(pair(axis=1, block_size=3), constants, shape=(2, 3), opset=21))
    assert isinstance(quant, IntQuant)
    assert np.asarray(quant.scale).tolist() == [[1], [2]]


@pytest.mark.parametrize("back", [True, False])
def test_a_clip_in_wider_integers_counts(back: bool) -> None:
    between = [
        make_node("Cast", ["q"], ["w"], to=TensorProto.INT32),
        make_node("Clip", ["w", "low", "high"], ["c"]),
        make_node("Cast", ["c"], ["n"], to=TensorProto.INT8),
    ]
    constants = {"s": 0.25, "z": i8(0), "low": np.int32(-8), "high": np.int32(7)}
    constants = {k: np.asarray(v) if k != "s" else v for k, v in constants.items()}
    nodes = pair(*between, last="n")
    if not back:
        nodes = pair(*between[:2], last="c")
        nodes[-1].input[2] = "z32"
        constants["z32"] = np.array(0, dtype=np.int32)
    assert summaries(load(nodes, constants)) == [(4, "int", 0.0)]


def test_maximum_minimum_and_relu_of_integers_are_clips() -> None:
    between = [
        make_node("Relu", ["q"], ["r"]),
        make_node("Min", ["high", "r"], ["c"]),
    ]
    constants = {"s": 0.25, "z": i8(0), "low": i8(-31), "high": i8(31)}
    assert summaries(load(pair(*between, last="c"), constants)) == [(5, "uint", 0.0)]
    between[0] = make_node("Max", ["q", "low"], ["r"])
    assert summaries(load(pair(*between, last="c"), constants)) == [(6, "int narrow", 0.0)]


@pytest.mark.parametrize("scale", [0.25, f32(0.25, 0.5, 0.1)], ids=["scalar", "channels"])
def test_a_float_clip_of_the_codes_values_is_the_range(scale: Any) -> None:
    zero = np.zeros(np.shape(scale), dtype=np.int16)
    low, high = (np.float32(end) * np.asarray(scale, np.float32) for end in (-2047, 2047))
    constants = {"s": scale, "z": zero, "low": np.asarray(low), "high": np.asarray(high)}
    clip = [
        make_node("Max", ["x", "low"], ["m"]),
        make_node("Min", ["high", "m"], ["c"]),
    ]
    nodes = [*clip, *pair(axis=-1)]
    nodes[2].input[0] = "c"
    model = load(nodes, constants, opset=21)
    assert ops(model) == ["Quant"]
    assert summaries(model) == [(12, "int narrow", 0.0)]


def test_an_activation_function_in_front_stays() -> None:
    clip = make_node("Clip", ["x", "low", "high"], ["c"])
    nodes = [clip, *pair()]
    nodes[1].input[0] = "c"
    constants = {"s": float(np.float32(6 / 127)), "z": i8(0), "low": 0.0, "high": 6.0}
    model = load(nodes, constants)
    assert ops(model) == ["Clip", "Quant"]
    assert summaries(model) == [(8, "int", 0.0)]


def test_two_dequantizers_of_one_quantizer_share_it() -> None:
    nodes = [
        *pair(),
        make_node(DEQUANTIZE, ["q", "s", "z"], ["second"]),
        make_node("Mul", ["y", "second"], ["product"]),
    ]
    model = load(nodes, {"s": 0.25, "z": i8(0)}, outputs=("product",))
    assert ops(model) == ["Quant", "Mul"]
    both = load(nodes, {"s": 0.25, "z": i8(0)}, outputs=("product", "second", "y"))
    assert sorted(ops(both)) == ["Identity", "Mul", "Quant"]


def test_two_ranges_of_one_quantizer_are_two() -> None:
    nodes = [
        *pair(CLIP, last="c"),
        make_node(DEQUANTIZE, ["q", "s", "z"], ["second"]),
        make_node("Mul", ["y", "second"], ["product"]),
    ]
    constants = {"s": 0.25, "z": i8(0), "low": i8(-8), "high": i8(7)}
    model = load(nodes, constants, outputs=("product",))
    assert summaries(model) == [(4, "int", 0.0), (8, "int", 0.0)]


def test_two_bounds_of_one_quantizer_are_two() -> None:
    nodes = [
        *pair(CLIP, last="c"),
        make_node("Clip", ["q", "low", "top"], ["c2"]),
        make_node(DEQUANTIZE, ["c2", "s", "z"], ["second"]),
        make_node("Mul", ["y", "second"], ["product"]),
    ]
    constants = {"s": 0.25, "z": i8(0), "low": i8(-5), "high": i8(5), "top": i8(6)}
    model = load(nodes, constants, outputs=("product",))
    assert summaries(model) == [(4, "int", 0.0), (4, "int", 0.0)]


def test_the_output_keeps_its_name_and_provenance() -> None:
    model = load(pair(), {"s": 0.25, "z": i8(0)})
    (value,) = model.graph.outputs
    assert (value.name, value.metadata_props[dialect.PROVENANCE]) == ("y", "y")
