"""What adapters refuse, note or choose, at the last value on either side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx_ir import Node

import qonnx_hub as qh
from qonnx_hub_adapters.hls4ml.exporter import Hls4mlExporter
from qonnx_hub_adapters.hls4ml.fixed_point import type_between
from qonnx_hub_adapters.hls4ml.pending_affine import normalize
from qonnx_hub_adapters.hls4ml.ranges import folded_norm
from qonnx_hub_adapters.qlinear.float_exactness import Doubt, doubt_of
from tests.ir import graphs
from tests.support import DOMAIN, model_of, quant_node


def f32(values: Any) -> np.ndarray:
    return np.array(values, dtype=np.float32)


@pytest.mark.parametrize("zero", [-129.0, -128.0, -8.0, 7.0, 127.0, 128.0, 200.0])
def test_a_zero_point_beyond_its_type_keeps_its_values(zero: float, tmp_path: Path) -> None:
    nodes = [quant_node("x", "y")]
    model = model_of(nodes, {"x": (1, 400)}, ["y"], {"s": 0.5, "z": zero, "b": 4.0})
    report = qh.convert(model, tmp_path / "y.onnx", to="qcdq")
    x = f32([np.linspace(-120.0, 120.0, 400)])
    wanted = qh.run(model, {"x": x})["y"]
    assert np.array_equal(qh.run(tmp_path / "y.onnx", {"x": x})["y"], wanted)
    [record] = report.quantizers
    assert ("Q + " in record.encoding) == (-128 <= zero <= 127)


def scales_of_a_sum(ratio: float) -> Node:
    names = ("a", "sa", "za", "b", "sb", "zb", "sy", "zy")
    constants = {"sa": f32(1.0), "sb": f32(ratio), "sy": f32(1.0)}
    constants |= {name: np.array(0, dtype=np.uint8) for name in ("za", "zb", "zy")}
    node = helper.make_node("QLinearAdd", names, ["y"], "add", domain="com.microsoft")
    ends = [graphs.info(name, [1, 4], 2) for name in ("a", "b")]
    imports = {"": 19, "com.microsoft": 1}
    model = graphs.model([node], ends, [graphs.info("y", [1, 4], 2)], constants, imports)
    return graphs.node_of(model, "QLinearAdd")


@pytest.mark.parametrize(
    ("power", "doubt"), [(0, Doubt.NONE), (14, Doubt.NONE), (15, Doubt.SUMS)]
)
def test_scales_of_a_sum_may_be_fourteen_powers_apart(power: int, doubt: Doubt) -> None:
    assert doubt_of(scales_of_a_sum(2.0**power)) is doubt
    assert doubt_of(scales_of_a_sum(2.0**-power)) is doubt


@pytest.mark.parametrize(
    ("bias", "doubt"),
    [(2**24 - 255, Doubt.NONE), (2**24 - 254, Doubt.SUMS), (None, Doubt.SUMS)],
)
def test_sums_are_exact_up_to_the_whole_numbers_of_float32(
    bias: int | None, doubt: Doubt
) -> None:
    names = ("x", "sx", "zx", "w", "sw", "zw", "sy", "zy", "bias")
    constants: dict[str, np.ndarray] = {name: f32(1.0) for name in ("sx", "sw", "sy")}
    constants |= {name: np.array(0, dtype=np.uint8) for name in ("zx", "zw", "zy")}
    constants["w"] = np.ones((1, 1, 1, 1), dtype=np.uint8)
    ends = [graphs.info("x", [1, 1, 2, 2], 2)]
    if bias is None:
        # Known at run time only.
        ends.append(graphs.info("bias", [1], 6))
    else:
        constants["bias"] = np.array([bias], dtype=np.int32)
    node = helper.make_node("QLinearConv", names, ["y"], "conv")
    model = graphs.model([node], ends, [graphs.info("y", [1, 1, 2, 2], 2)], constants)
    assert doubt_of(graphs.node_of(model, "QLinearConv")) is doubt


def test_a_fixed_point_type_is_the_narrowest_that_holds_its_ends() -> None:
    compared = 0
    for low in range(-33, 1):
        for high in range(34):
            # Two's complement of n bits: from -2^(n-1) to 2^(n-1) - 1.
            signed = next(
                n for n in range(1, 9) if -(2 ** (n - 1)) <= low and high < 2 ** (n - 1)
            )
            plain = max(next(n for n in range(9) if high < 2**n), 1)
            found = type_between(low * 0.25, high * 0.25, -2)
            width = signed if low < 0 else plain
            assert (found.width, found.integer, found.signed) == (width, width - 2, low < 0)
            compared += 1
    assert compared == 34 * 34


def pool_that_shifts(pads: list[int]) -> Any:
    """An average of four as FINN reads it: pool, times four, two bits shifted out."""
    nodes = [
        quant_node("x", "q"),
        helper.make_node(
            "AveragePool", ["q"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2], pads=pads
        ),
        helper.make_node("Mul", ["p", "four"], ["m"], "times"),
        helper.make_node(
            "Trunc",
            ["m", "s", "z", "wide", "b"],
            ["y"],
            "trunc",
            domain=DOMAIN,
            rounding_mode="FLOOR",
        ),
    ]
    constants = {"s": 1.0, "z": 0.0, "b": 4.0, "wide": 6.0, "four": 4.0}
    return model_of(nodes, {"x": (1, 2, 4, 4)}, ["y"], constants)


@pytest.mark.parametrize("place", range(4))
def test_a_padded_pool_is_no_shift(place: int) -> None:
    def about_the_shift(pads: list[int]) -> list[Any]:
        findings = qh.lint(pool_that_shifts(pads), target="finn").findings
        return [finding for finding in findings if "trunc" in str(finding).lower()]

    pads = [0, 0, 0, 0]
    assert about_the_shift(pads) == []
    pads[place] = 1
    assert about_the_shift(pads) != []


def batchnorm() -> Node:
    """A normalization whose factor depends on the order of operations, in float32."""
    four = {"g": f32([3.0]), "b": f32([0.0]), "m": f32([0.0]), "v": f32([3.0])}
    node = helper.make_node("BatchNormalization", ["x", *four], ["y"], "bn", epsilon=0.0)
    ends = [graphs.info("x", [1, 1])], [graphs.info("y", [1, 1])]
    return graphs.node_of(graphs.model([node], *ends, four), "BatchNormalization")


def test_the_factor_of_a_normalization_is_that_of_the_source() -> None:
    # In float32, 1 / sqrt(3) is 0.57735026, three times that 1.7320508: as onnxruntime has it.
    gain, none, variance = f32([3.0]), f32([0.0]), f32([3.0])
    step = normalize((gain, none, none, variance, 0.0))
    assert f32(step.factor).reshape(-1).tolist() == [float(np.float32(1.7320508))]
    four = {"g": gain, "b": none, "m": none, "v": variance}
    node = helper.make_node("BatchNormalization", ["x", *four], ["y"], "bn", epsilon=0.0)
    [answer] = qh.run(
        model_of([node], {"x": (1, 1)}, ["y"], four), {"x": f32([[1.0]])}
    ).values()
    assert answer.reshape(-1).tolist() == f32(step.factor).reshape(-1).tolist()


def test_the_types_of_a_normalization_are_of_the_factor_that_hls4ml_computes() -> None:
    # hls4ml divides: in float32, 3 by the root 1.7320508 is 1.7320509.
    factor, offset = folded_norm(batchnorm())
    assert factor.reshape(-1).tolist() == [float(np.float32(1.7320509))]
    assert offset.reshape(-1).tolist() == [0.0]


@pytest.mark.parametrize(("scale", "is_refused"), [(5e-39, False), (4.2e-45, True)])
def test_a_scale_whose_inverse_is_infinite_is_refused_by_node_and_value(
    scale: float, is_refused: bool
) -> None:
    nodes = [quant_node("x", "y")]
    constants = {"s": scale, "z": 0.0, "b": 4.0}
    model = qh.load(model_of(nodes, {"x": (1, 4)}, ["y"], constants))
    told = [str(gap) for gap in Hls4mlExporter().gaps(model)]
    assert any("it divides by 4.2039e-45" in one for one in told) == is_refused
