"""Zero points and odd scales give way, and what a quantizer reached stays within reach."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.graph.queries import every_quantizer
from qonnx_hub_ir.passes import PowerOfTwoScales, Symmetrize
from qonnx_hub_ir.quantizers import IntQuant
from qonnx_hub_ir.semantics import quantize
from tests.ir.graphs import f32, info, model
from tests.support import quant_node


def quantizer(step, scale, zero, bits=8.0, weight=None, **attributes) -> IntQuant:
    """The quantizer that a pass makes of one on an activation, or on a weight."""
    source = "x" if weight is None else "w"
    nodes = [quant_node(source, "y", **attributes)]
    constants = {"s": f32(scale), "z": f32(zero), "b": f32(bits)}
    constants |= {} if weight is None else {"w": f32(weight)}
    found = model(nodes, [info("x", [2, 3])], [info("y", [2, 3])], constants)
    assert step(found).modified
    assert not step(found).modified
    (node,) = every_quantizer(found)
    assert (node.name, node.outputs[0].name) == (nodes[0].name, "y")
    return dialect.read_quantizer(node)


LATE = {"signed": 0, "zero_point_after_rounding": 1}


def test_an_asymmetric_range_fits_into_a_signed_one_of_the_same_width():
    found = quantizer(Symmetrize(), 0.1, 28, **LATE)
    # 0.1 * (255 - 28) = 22.7 lies at 127 steps; 0.1 * 28 below zero needs less.
    assert found == IntQuant(
        f32(np.float32(227 * np.float32(0.1)) / np.float32(127)), f32(0), f32(8)
    )


def test_the_longer_side_decides():
    found = quantizer(Symmetrize(), 0.125, 192, **LATE)
    assert found.scale == np.float32(192 * 0.125 / 128)


@pytest.mark.parametrize("after", [0, 1])
def test_a_zero_point_in_the_middle_keeps_every_value(after):
    found = quantizer(Symmetrize(), 0.25, 128, signed=0, zero_point_after_rounding=after)
    assert found == IntQuant(f32(0.25), f32(0), f32(8))


def test_what_is_never_negative_becomes_unsigned():
    found = quantizer(Symmetrize(), 0.5, -128, signed=1, zero_point_after_rounding=1)
    assert found == IntQuant(f32(0.5), f32(0), f32(8), signed=False)


def test_weights_are_quantized_anew_by_their_largest_magnitude_per_channel():
    weight = np.array([[1.0, -4.0, 2.0], [0.5, 2.0, -1.0]])
    scale = np.array([[0.03], [0.01]], dtype=np.float32)
    zero = np.array([[140], [120]], dtype=np.float32)
    before = IntQuant(scale, zero, f32(8), signed=False, zero_point_after_rounding=True)
    found = quantizer(Symmetrize(), scale, zero, weight=weight, **LATE)
    largest = np.abs(quantize(f32(weight), before)).max(axis=1, keepdims=True)
    np.testing.assert_allclose(found.scale, largest / 127, rtol=1e-6)
    error = np.abs(quantize(f32(weight), found) - quantize(f32(weight), before))
    assert np.all(error <= found.scale / 2 * 1.001)


@pytest.mark.parametrize("zero", [0, None])
def test_symmetric_and_computed_zero_points_stay(zero):
    constants = {"s": f32(0.1), "b": f32(8)} | ({} if zero is None else {"z": f32(zero)})
    inputs = [info("x", [2, 3])] + ([info("z", [])] if zero is None else [])
    found = model([quant_node("x", "y")], inputs, [info("y", [2, 3])], constants)
    assert not Symmetrize()(found).modified


@pytest.mark.parametrize(
    ("to", "scale", "wanted"),
    [
        ("above", 0.03, 2.0**-5),
        ("above", 3.0, 4.0),
        ("nearest", 0.03, 2.0**-5),
        ("nearest", 0.0220, 2.0**-6),
        ("nearest", 2.9, 4.0),
        ("nearest", 2.8, 2.0),
    ],
)
def test_scales_become_powers_of_two(to, scale, wanted):
    found = quantizer(PowerOfTwoScales(to), scale, 3, **LATE)
    expected = IntQuant(f32(wanted), f32(3), f32(8), signed=False)
    assert found == dataclasses.replace(expected, zero_point_after_rounding=True)


def test_scales_per_channel_become_powers_of_two_one_by_one():
    scale = np.array([[0.3], [0.25]], dtype=np.float32)
    found = quantizer(PowerOfTwoScales(), scale, 0, weight=np.ones((2, 3)))
    np.testing.assert_array_equal(found.scale, [[0.5], [0.25]])


def test_another_direction_is_refused():
    with pytest.raises(PassError, match="above or nearest"):
        PowerOfTwoScales("below").requires(None)
