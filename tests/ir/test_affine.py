"""Affine functions that wait, and batch normalization as one of them."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest
from onnx import helper

from qonnx_hub_ir.graph.affine import (
    PendingAffine,
    batchnorm_affine,
    batchnorm_parameters,
    product,
    total,
)
from tests.ir.graphs import f32, info, model, node_of

X = onnx_ir.Value(name="x")


def _batchnorm(**attributes: object) -> onnx_ir.Node:
    names = ("g", "b", "m", "v")
    node = helper.make_node("BatchNormalization", ["x", *names], ["y"], name="n", **attributes)
    weights = {name: f32([1, 2]) for name in names}
    shape = info("x", [1, 2, 3])
    return node_of(model([node], [shape], [info("y", [1, 2, 3])], weights), node.op_type)


def test_a_batch_normalization_is_its_factor_and_offset():
    gain, shift, mean, variance = (np.array(v) for v in ([2.0], [1.0], [3.0], [15.0]))
    factor, offset = batchnorm_affine(gain, shift, mean, variance, 1.0)
    # By hand: 2 / sqrt(16) = 0.5, and 1 - 3 * 0.5.
    assert (factor.item(), offset.item()) == (0.5, -0.5)


def test_a_batch_normalization_rounds_each_operation_in_float32():
    generator = np.random.default_rng(5)
    given = [generator.uniform(0.1, 2, 200).astype(np.float32) for _ in range(4)]
    factor, offset = batchnorm_affine(*given, 1e-5)
    assert factor.dtype == offset.dtype == np.float32
    # Rounded once at the end, some results would be others.
    exact = given[0] / np.sqrt(given[3].astype(np.float64) + 1e-5)
    assert not np.array_equal(factor, exact.astype(np.float32))
    root = np.sqrt(given[3] + np.float32(1e-5))
    np.testing.assert_array_equal(factor, (np.float32(1) / root) * given[0])


@pytest.mark.parametrize(("attributes", "known"), [({}, True), ({"training_mode": 1}, False)])
def test_parameters_of_a_batch_normalization_that_trains_are_not_known(attributes, known):
    found = batchnorm_parameters(_batchnorm(**attributes))
    assert (found is not None) == known
    if found is not None:
        assert found[4] == pytest.approx(1e-5)


def test_parameters_computed_at_run_time_are_not_known():
    node = _batchnorm()
    node.replace_input_with(3, node.inputs[0])
    assert batchnorm_parameters(node) is None


def test_what_is_pending_follows_the_order_of_operations():
    # (x * 2 + 3) * 4 + 5 = x * 8 + 17
    pending = PendingAffine(X).times(f32(2)).plus(f32(3)).times(f32(4)).plus(f32(5))
    assert (float(pending.factor), float(pending.offset)) == (8.0, 17.0)


@pytest.mark.parametrize(
    ("make", "written"),
    [
        (lambda p: p.times(f32(2)), True),
        (lambda p: p.plus(f32(2)), True),
        (lambda p: p.times(f32(2)).plus(f32(3)), True),
        (lambda p: p.plus(f32(3)).times(f32(2)), False),
        (lambda p: p.times(f32(2)).times(f32(3)), False),
        (lambda p: p.plus(f32(2)).plus(f32(3)), False),
    ],
)
def test_one_product_and_then_one_sum_is_what_the_graph_says_already(make, written):
    assert make(PendingAffine(X)).written == written


def test_products_are_rounded_once_to_the_type_asked_for():
    third = np.array(1 / 3, dtype=np.float64)
    assert product(third, third).dtype == np.float32
    assert product(third, third, np.float64) == third * third
    assert product(None, third) is third


def test_a_sum_beyond_float32_is_infinite_without_a_warning():
    large = f32(3e38)
    assert np.isinf(total(large, large))


def test_a_negative_factor_does_not_keep_the_order():
    assert PendingAffine(X).positive
    assert PendingAffine(X, f32([1, 2])).positive
    assert not PendingAffine(X, f32([1, -2])).positive
