"""The lines of a conversion's report on onnxruntime keep to the one rule for noise."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub.conversion.onnxruntime_check import check_on_onnxruntime
from qonnx_hub_adapters.protocol import Artifact
from tests.support import model_of, quant_node

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


def test_parameters_that_are_inputs_with_a_default_are_known():
    made = net(split=True)
    source = net()
    for stored in source.graph.initializer:
        entry = helper.make_tensor_value_info(stored.name, stored.data_type, list(stored.dims))
        source.graph.input.append(entry)
    found = check_on_onnxruntime(
        source, qh.load(source), Artifact(onnx_ir.from_proto(made)), made, SAMPLES
    )
    assert str(found.first.verdict) == "WITHIN"


def test_layers_that_agree_on_few_samples_are_judged_on_all():
    # Integer weights are folded in one side's file only, and sums of many rows differ.
    source = model_of(
        [
            quant_node("w", "q", scale="s"),
            helper.make_node("Transpose", ["q"], ["t"], perm=[1, 0]),
            helper.make_node("MatMul", ["x", "t"], ["y"], "fc"),
        ],
        {"x": ("N", 64)},
        ["y"],
        {"w": WEIGHTS.T.copy(), "s": np.float32(0.037), "z": 0.0, "b": 4.0},
    )
    report = qh.convert(source, None, to="qcdq")
    assert str(report.ort.verdict) in ("EQUAL", "WITHIN")


def functions(factor=1.0):
    """Return a Softmax of sums; ``factor`` scales what it reads."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"], "fc"),
        helper.make_node("Mul", ["t", "s"], ["u"], "scale"),
        helper.make_node("Softmax", ["u"], ["y"], "shares", axis=-1),
    ]
    stored = {"w": 0.1 * WEIGHTS, "s": np.float32(factor)}
    return model_of(nodes, {"x": ("N", 64)}, ["y"], stored)


def test_functions_of_another_library_are_within_their_ulps_and_said():
    result = qh.check(functions(), functions(), SAMPLES, backend="ort")
    assert str(result.verdict) in {"EQUAL", "WITHIN"}
    if str(result.verdict) == "WITHIN":
        assert "functions such as Exp" in result.reason


def test_a_factor_before_a_function_of_another_library_is_no_noise():
    other = functions(float(np.nextafter(np.float32(1), np.float32(2))))
    assert str(qh.check(functions(), other, SAMPLES, backend="ort").verdict) == "DIFFERENT"


def test_an_integer_sum_that_wraps_is_no_noise():
    # onnxruntime adds 2^31 - 50 and 100 in int32; floats give the highest code.
    stored = {"s": 1.0, "u": np.array(0, np.uint8), "i": np.array(0, np.int8), "ys": 2.0**24}
    stored |= {"w": np.ones((2, 4, 1, 1), np.int8), "b": np.full(2, 2**31 - 50, np.int32)}
    first = helper.make_node("QuantizeLinear", ["x", "s", "u"], ["q"])
    last = helper.make_node("DequantizeLinear", ["k", "ys", "u"], ["y"])

    def made(*nodes):
        return model_of(
            [first, *nodes, last], {"x": ("N", 4, 3, 3)}, ["y"], stored, domains=()
        )

    reads = ["q", "s", "u", "w", "s", "i", "ys", "u", "b"]
    integer = made(helper.make_node("QLinearConv", reads, ["k"]))
    pairs = {"q": "u", "w": "i", "b": None}
    unpacked = [
        helper.make_node(
            "DequantizeLinear", [name, "s", *([zero] if zero else [])], [f"{name}f"]
        )
        for name, zero in pairs.items()
    ]
    floats = made(
        *unpacked,
        helper.make_node("Conv", ["qf", "wf", "bf"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "ys", "u"], ["k"]),
    )
    result = qh.check(floats, integer, backend="ort", samples=8)
    assert str(result.verdict) == "DIFFERENT", result.reason
