"""The lines of a conversion's report on onnxruntime keep to the one rule for noise."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub.conversion.onnxruntime_check import check_on_onnxruntime
from qonnx_hub_adapters.protocol import Artifact
from tests.support import model_of

pytest.importorskip("onnxruntime")

RNG = np.random.default_rng(3)
WEIGHTS = RNG.normal(size=(64, 4)).astype(np.float32)
SAMPLES = {"x": RNG.normal(size=(40, 64)).astype(np.float32)}


def net(scale=0.25, split=False):
    """Return a MatMul behind a scale; ``split`` adds its sum in two halves."""
    nodes = [helper.make_node("Mul", ["x", "s"], ["t"], "scale")]
    stored = {"s": np.float32(scale)}
    if not split:
        nodes.append(helper.make_node("MatMul", ["t", "w"], ["y"], "fc"))
        return model_of(nodes, {"x": ("N", 64)}, ["y"], {**stored, "w": WEIGHTS})
    nodes += [
        helper.make_node("Split", ["t", "n"], ["l", "r"], "split", axis=1),
        helper.make_node("MatMul", ["l", "w1"], ["a"], "left"),
        helper.make_node("MatMul", ["r", "w2"], ["b"], "right"),
        helper.make_node("Add", ["a", "b"], ["y"], "fc"),
    ]
    halves = {"w1": WEIGHTS[:32], "w2": WEIGHTS[32:], "n": np.array([32, 32], dtype=np.int64)}
    return model_of(nodes, {"x": ("N", 64)}, ["y"], {**stored, **halves})


def lines(made):
    source, written = net(), onnx_ir.from_proto(made)
    return check_on_onnxruntime(source, qh.load(source), Artifact(written), made, SAMPLES)


def test_another_order_of_sums_is_within():
    found = lines(net(split=True))
    assert [str(one.verdict) for one in (found.first, found.executor)] == ["WITHIN"] * 2


@pytest.mark.parametrize("split", [False, True])
def test_a_scale_that_differs_by_one_float_is_no_noise(split):
    # Outputs are apart by less than 1e-6 of their size.
    found = lines(net(np.nextafter(np.float32(0.25), np.float32(1)), split=split))
    assert [str(one.verdict) for one in (found.first, found.executor)] == ["DIFFERENT"] * 2
