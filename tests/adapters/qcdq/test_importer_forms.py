"""Quantizers in other words: other domains, float operators, choices by sign."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx.helper import make_node

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.protocol import ImportOptions
from qonnx_hub_adapters.qcdq.importer import QcdqImporter, kept_reasons
from qonnx_hub_ir import dialect
from qonnx_hub_ir.quantizers import BipolarQuant, IntQuant, Rounding
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
from tests.support import model_of


def contrib(*nodes: onnx.NodeProto) -> Nodes:
    for node in nodes:
        if node.op_type in {QUANTIZE, DEQUANTIZE}:
            node.domain = "com.microsoft"
    return list(nodes)


@pytest.mark.parametrize(
    ("dtype", "opset", "expected"),
    [(np.int16, 21, (16, "int", 0.0)), (np.uint8, 19, (8, "uint", 0.0))],
)
def test_onnxruntimes_own_operators_are_the_standard_ones(
    dtype: Any, opset: int, expected: tuple[int, str, float]
) -> None:
    constants = {"s": 0.25, "z": np.zeros((), dtype=dtype)}
    proto = model_of(
        contrib(*pair()), {"x": (2, 3)}, ["y"], constants, 13, domains=("com.microsoft",)
    )
    model = QcdqImporter().load(proto, ImportOptions())
    assert summaries(model) == [expected]
    assert dict(model.opset_imports) == {"": opset, dialect.DOMAIN: dialect.DOMAIN_VERSION}


def test_the_hybrid_form_is_a_quantizer_with_a_zero_point() -> None:
    nodes = [
        make_node("Div", ["x", "s"], ["d"]),
        make_node("Add", ["d", "zf"], ["t"]),
        make_node(QUANTIZE, ["t", "one", "nil"], ["q"]),
        make_node("Clip", ["q", "low", "high"], ["c"]),
        make_node(DEQUANTIZE, ["c", "s", "z"], ["y"]),
    ]
    constants = {"s": 0.1, "zf": 3.0, "one": 1.0, "nil": u8(0), "z": u8(3)}
    constants.update({"low": u8(0), "high": u8(15)})
    model = load(nodes, constants)
    assert ops(model) == ["Quant"]
    assert summaries(model) == [(4, "uint", 3.0)]


@pytest.mark.parametrize("change", [{"s2": 0.2}, {"zf": 2.0}, {"high": u8(14), "low": u8(1)}])
def test_a_form_that_is_nearly_hybrid_stays(change: dict[str, Any]) -> None:
    nodes = [
        make_node("Div", ["x", "s2"], ["d"]),
        make_node("Add", ["d", "zf"], ["t"]),
        make_node(QUANTIZE, ["t", "one", "nil"], ["q"], "quantize"),
        make_node("Clip", ["q", "low", "high"], ["c"]),
        make_node(DEQUANTIZE, ["c", "s", "z"], ["y"], "dequantize"),
    ]
    constants = {"s": 0.1, "s2": 0.1, "zf": 3.0, "one": 1.0, "nil": u8(0), "z": u8(3)}
    constants.update({"low": u8(0), "high": u8(15)})
    model = load(nodes, {**constants, **change})
    assert not any(dialect.is_quantizer(node) for node in model.graph)
    assert set(kept_reasons(model)) == {"quantize", "dequantize"}


def test_the_hybrid_form_may_shift_its_codes() -> None:
    nodes = [
        make_node("Div", ["x", "s"], ["d"]),
        make_node("Floor", ["d"], ["t"]),
        make_node(QUANTIZE, ["t", "one", "z"], ["q"]),
        make_node("Clip", ["q", "low", "high"], ["c"]),
        make_node(DEQUANTIZE, ["c", "s", "z"], ["y"]),
    ]
    constants = {"s": 0.1, "one": 1.0, "z": u8(128), "low": u8(120), "high": u8(135)}
    (quant,) = quantizers(load(nodes, constants))
    assert isinstance(quant, IntQuant)
    assert quant.rounding is Rounding.FLOOR
    assert (float(np.asarray(quant.bits)), quant.signed) == (4.0, True)
    assert np.all(quant.zero_point == 0)


def test_the_hybrid_form_per_channel_is_not_followed_through_moves() -> None:
    nodes = [
        make_node("Div", ["x", "sx"], ["d"]),
        make_node("Floor", ["d"], ["t"]),
        make_node(QUANTIZE, ["t", "one", "nil"], ["q"], "quantize"),
        make_node("Transpose", ["q"], ["m"], perm=[1, 0]),
        make_node(DEQUANTIZE, ["m", "s", "z"], ["y"], "dequantize", axis=1),
    ]
    scale = f32(0.1, 0.2)
    constants = {"s": scale, "sx": scale, "one": 1.0, "nil": i8(0), "z": i8(0, 0)}
    model = load(nodes, constants, shape=(2, 2))
    assert "cannot be followed" in kept_reasons(model)["dequantize"]


FLOAT_FORM = [
    make_node("Div", ["x", "s"], ["d"]),
    make_node("Round", ["d"], ["r"]),
    make_node("Clip", ["r", "low", "high"], ["c"]),
    make_node("Mul", ["s2", "c"], ["y"]),
]


def test_a_float_form_is_a_quantizer() -> None:
    constants = {"s": 0.1, "s2": 0.1, "low": -8.0, "high": 7.0}
    model = load(FLOAT_FORM, constants)
    assert ops(model) == ["Quant"]
    assert summaries(model) == [(4, "int", 0.0)]


@pytest.mark.parametrize("change", [{"high": 7.5}, {"high": 6.0}])
def test_a_form_that_is_nearly_a_quantizer_is_left_alone(change: dict[str, float]) -> None:
    constants = {"s": 0.1, "s2": 0.1, "low": -8.0, "high": 7.0}
    model = load(FLOAT_FORM, {**constants, **change})
    assert ops(model) == ["Div", "Round", "Clip", "Mul"]


@pytest.mark.parametrize("change", [{"s2": 0.2}, {"s": -0.1, "s2": -0.1}])
def test_whole_numbers_between_other_factors_are_a_quantizer_of_scale_1(
    change: dict[str, float],
) -> None:
    constants = {"s": 0.1, "s2": 0.1, "low": -8.0, "high": 7.0}
    model = load(FLOAT_FORM, {**constants, **change})
    assert ops(model) == ["Div", "Quant", "Mul"]
    (quant,) = quantizers(model)
    assert float(np.asarray(quant.scale)) == 1.0


def test_rounding_inside_a_larger_form_keeps_the_factors_around_it() -> None:
    nodes = [
        make_node("Div", ["x", "shift"], ["d"]),
        make_node("Clip", ["d", "low", "high"], ["c"]),
        make_node("Floor", ["c"], ["r"]),
        make_node("Mul", ["r", "s"], ["y"]),
    ]
    model = load(nodes, {"shift": 4.0, "s": 0.3, "low": -8.0, "high": 7.0})
    assert ops(model) == ["Div", "Quant", "Mul"]
    (quant,) = quantizers(model)
    assert isinstance(quant, IntQuant)
    assert quant.rounding is Rounding.FLOOR


def test_a_float_form_with_a_dynamic_scale_keeps_it_outside() -> None:
    nodes = [
        make_node("ReduceMax", ["x"], ["s"], keepdims=0),
        make_node("Div", ["x", "s"], ["d"]),
        make_node("Clip", ["d", "low", "high"], ["c"]),
        make_node("Round", ["c"], ["r"]),
        make_node("Mul", ["r", "s"], ["y"]),
    ]
    model = load(nodes, {"low": -8.0, "high": 7.0})
    assert ops(model) == ["ReduceMax", "Div", "Quant", "Mul"]


def test_rounding_and_clip_alone_are_a_quantizer_of_whole_numbers() -> None:
    nodes = [
        make_node("Clip", ["x", "low", "high"], ["c"]),
        make_node("Ceil", ["c"], ["y"]),
    ]
    (quant,) = quantizers(load(nodes, {"low": 0.0, "high": 255.0}))
    assert isinstance(quant, IntQuant)
    assert quant.rounding is Rounding.CEIL
    assert (float(np.asarray(quant.bits)), float(np.asarray(quant.scale))) == (8.0, 1.0)


@pytest.mark.parametrize("half", [0.5, 0.25])
def test_a_tie_that_is_no_half_is_no_rounding_mode(half: float) -> None:
    nodes = [
        make_node("Clip", ["x", "low", "high"], ["t"]),
        make_node("Floor", ["t"], ["f"]),
        make_node("Sub", ["t", "f"], ["rest"]),
        make_node("Equal", ["rest", "half"], ["tie"]),
        make_node("Less", ["t", "nil"], ["below"]),
        make_node("And", ["below", "tie"], ["up"]),
        make_node("Ceil", ["t"], ["c"]),
        make_node("Round", ["t"], ["r"]),
        make_node("Where", ["up", "c", "r"], ["y"]),
    ]
    constants = {"low": -8.0, "high": 7.0, "nil": 0.0, "half": half}
    model = load(nodes, constants)
    assert ("Where" not in ops(model)) == (half == 0.5)


@pytest.mark.parametrize(
    ("question", "chosen"),
    [
        (["GreaterOrEqual", "x", "nil"], ["s", "minus"]),
        (["Less", "x", "nil"], ["minus", "s"]),
        (["LessOrEqual", "nil", "x"], ["s", "minus"]),
        (["Greater", "nil", "x"], ["minus", "s"]),
    ],
)
def test_a_choice_by_sign_is_bipolar(question: list[str], chosen: list[str]) -> None:
    nodes = [
        make_node(question[0], question[1:], ["c"]),
        make_node("Where", ["c", *chosen], ["y"]),
    ]
    model = load(nodes, {"nil": 0.0, "s": 0.25, "minus": -0.25})
    assert quantizers(model) == [BipolarQuant(f32(0.25))]
    y = Session(model).run({"x": f32(0, -0.0, -1, 1, 1e-30, -1e-30).reshape(2, 3)})["y"]
    assert y.reshape(-1).tolist() == [0.25, 0.25, -0.25, 0.25, 0.25, -0.25]


@pytest.mark.parametrize(
    ("question", "chosen"),
    [
        (["Greater", "x", "nil"], ["s", "minus"]),
        (["LessOrEqual", "x", "nil"], ["minus", "s"]),
        (["GreaterOrEqual", "x", "nil"], ["minus", "s"]),
        (["GreaterOrEqual", "x", "s"], ["s", "minus"]),
        (["GreaterOrEqual", "x", "nil"], ["s", "nil"]),
    ],
)
def test_a_choice_that_is_no_sign_is_left_alone(
    question: list[str], chosen: list[str]
) -> None:
    nodes = [
        make_node(question[0], question[1:], ["c"]),
        make_node("Where", ["c", *chosen], ["y"]),
    ]
    model = load(nodes, {"nil": 0.0, "s": 0.25, "minus": -0.25})
    assert ops(model) == [question[0], "Where"]


@pytest.mark.parametrize("shape", [(4, 1, 3), (2, 3)])
def test_a_choice_that_widens_its_input_is_left_alone(shape: tuple[int, ...]) -> None:
    nodes = [
        make_node("GreaterOrEqual", ["x", "nil"], ["c"]),
        make_node("Where", ["c", "s", "minus"], ["y"]),
    ]
    scale = np.full(shape, 0.25, dtype=np.float32)
    model = load(nodes, {"nil": 0.0, "s": scale, "minus": -scale}, shape=(1, 3))
    assert ops(model) == ["GreaterOrEqual", "Where"]


def test_a_sign_in_integers_is_bipolar() -> None:
    nodes = [
        make_node("GreaterOrEqual", ["x", "nil"], ["c"]),
        make_node("Where", ["c", "up", "down"], ["q"]),
        make_node(DEQUANTIZE, ["q", "s", "z"], ["y"], "dequantize"),
    ]
    constants = {"nil": 0.0, "up": i8(1), "down": i8(-1), "s": 0.25, "z": i8(0)}
    assert quantizers(load(nodes, constants)) == [BipolarQuant(f32(0.25))]
    kept = load(nodes, {**constants, "z": i8(1)})
    assert set(kept_reasons(kept)) == {"dequantize"}


def test_a_resize_of_whole_pixels_moves_behind_the_quantizer() -> None:
    scales = np.array([1, 1, 2, 2], dtype=np.float32)
    resize = make_node("Resize", ["q", "", "scales"], ["c"], "resize", mode="nearest")
    constants = {"s": 0.25, "z": i8(3), "scales": scales}
    model = load(pair(resize, last="c"), constants, shape=(1, 2, 3, 4))
    assert ops(model) == ["Quant", "Resize"]


def test_a_unique_of_integers_stays() -> None:
    # Clamping may make values equal that it drops, so the quantizer cannot move in front.
    nodes = pair(make_node("Unique", ["q"], ["c"], "unique"), last="c")
    model = load(nodes, {"s": 0.25, "z": i8(0)})
    assert "Unique" in ops(model)
    assert "Quant" not in ops(model)
