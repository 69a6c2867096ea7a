"""Formulas and intervals of the verifier, by hand and against the definition of QONNX."""

from __future__ import annotations

import numpy as np
import pytest

from qonnx_hub.verifier import ROUNDING, Step, enclose, keeps_order
from qonnx_hub_ir.quantizers import Rounding
from qonnx_hub_ir.semantics import round_values

FLOAT = np.float32


@pytest.mark.parametrize("mode", list(Rounding), ids=str)
def test_rounding_modes_are_those_of_quantizers(mode):
    t = np.array([-2.75, -2.5, -2.25, -1.5, -0.5, 0.0, 0.5, 1.5, 2.25, 2.5, 2.75], FLOAT)
    name = str(mode.value)
    assert np.array_equal(ROUNDING[name](t), round_values(t, mode))


def step(op, **attributes):
    return Step(op, "", ["x"], ["y"], attributes, attributes)


def box(low, high):
    ends = [np.array([end], dtype=FLOAT) for end in (low, high)]
    return (*ends, np.array([True]))


@pytest.mark.parametrize(
    ("low", "high", "least", "most"),
    [
        (-0.5, 0.25, 0.0, 0.5),
        (0.0, 0.25, 0.0, 0.25),
        (-2.0, -1.0, 1.0, 2.0),
        (1.0, 2.0, 1.0, 2.0),
    ],
)
def test_a_magnitude_is_zero_where_its_input_may_be(low, high, least, most):
    found = enclose(step("Abs"), [box(low, high)])
    assert (found[0].item(), found[1].item(), found[2].item()) == (least, most, True)


def test_a_logarithm_is_trusted_to_its_error_only():
    found = enclose(step("Log"), [box(2.0, 3.0)])
    assert found[0].item() < np.log(2.0) * (1 - 1e-6)
    assert found[1].item() > np.log(3.0) * (1 + 1e-6)
    assert found[1].item() < np.log(3.0) * (1 + 1e-5)


@pytest.mark.parametrize("op", ["Mul", "Div"])
def test_zero_and_infinity_leave_a_product_unknown(op):
    infinite = box(1.0, np.inf) if op == "Mul" else box(1.0, 2.0)
    assert not enclose(step(op), [infinite, box(-1.0, 1.0)])[2].item()
    assert enclose(step(op), [box(1.0, 2.0), box(1.0, 2.0)])[2].item()


@pytest.mark.parametrize(("scale", "rises"), [(0.5, True), (0.0, False), (-0.5, False)])
def test_a_quantizer_rises_where_its_scale_is_above_zero(scale, rises):
    given = [box(0.0, 1.0), *(np.array(v, FLOAT) for v in (scale, 0.0, 4.0))]
    assert keeps_order(step("Quant"), given) is rises
