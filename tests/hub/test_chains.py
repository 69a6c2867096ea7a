"""Pointwise nodes that run as one step compute what each of them computes by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub.executor import fusion
from qonnx_hub.executor.kernels.fusible import STAGES
from qonnx_hub.executor.kernels.spec import KernelSpec
from qonnx_hub_ir.errors import ExecutionError
from tests.support import model_of, quant_node

CHANNELS = 6


def _norm(source: str, target: str) -> helper.NodeProto:
    return helper.make_node(
        "BatchNormalization", [source, "g", "b", "m", "v"], [target], target
    )


def _constants(rng: np.random.Generator) -> dict[str, np.ndarray]:
    vectors = {n: rng.normal(size=CHANNELS).astype(np.float32) for n in "gbm"}
    return {
        **vectors,
        "v": rng.uniform(0.5, 2, CHANNELS).astype(np.float32),
        "s": np.array(0.1, dtype=np.float32),
        "half": np.array(0.5, dtype=np.float32),
        "z": np.array(0.0, dtype=np.float32),
        "bits": np.array(3.0, dtype=np.float32),
    }


NODES = [
    _norm("x", "n"),
    helper.make_node("Relu", ["n"], ["r"], "r"),
    quant_node("r", "q", "s", "z", "bits", signed=0),
    helper.make_node("Mul", ["half", "q"], ["h"], "h"),
    helper.make_node("Sub", ["half", "h"], ["y"], "y"),
]


def _session(constants, shape) -> qh.Session:
    return qh.Session(qh.load(model_of(NODES, {"x": shape}, ["y"], constants)))


def _by_hand(x: np.ndarray, c: dict[str, np.ndarray]) -> np.ndarray:
    """Return the five nodes in float32, as their documents say."""
    shape = (1, CHANNELS, *(1,) * (x.ndim - 2))
    factor = c["g"] * (np.float32(1) / np.sqrt(c["v"] + np.float32(1e-5)))
    offset = c["b"] - c["m"] * factor
    r = np.maximum(x * factor.reshape(shape) + offset.reshape(shape), np.float32(0))
    q = np.rint(np.clip(r / c["s"], np.float32(0), np.float32(7))) * c["s"]
    return c["half"] - c["half"] * q


# Whole arrays, blocks of samples, blocks of channels, and one sample alone.
@pytest.mark.parametrize("shape", [(2, 6), (9, 6), (3, 6, 5), (2, 6, 11, 7), (1, 6, 40, 5)])
@pytest.mark.parametrize("block", [7, 64, 1 << 20])
def test_a_chain_gives_the_same_floats_whatever_its_blocks(shape, block, monkeypatch) -> None:
    monkeypatch.setattr(fusion, "BLOCK", block)
    rng = np.random.default_rng(3)
    constants = _constants(rng)
    session = _session(constants, shape)
    assert len(session._plan.steps) == 1
    x = rng.normal(0, 2, shape).astype(np.float32)
    x.reshape(-1)[:3] = [np.nan, np.inf, -np.inf]
    kept = x.copy()
    expected = _by_hand(x, constants)
    np.testing.assert_array_equal(session.run({"x": x})["y"], expected)
    np.testing.assert_array_equal(session.run({"x": x}, all_tensors=True)["y"], expected)
    np.testing.assert_array_equal(x, kept)


def test_a_value_that_somebody_else_reads_ends_a_chain() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "half"], ["a"], "a"),
        helper.make_node("Relu", ["a"], ["r"], "r"),
        helper.make_node("Add", ["r", "a"], ["y"], "y"),
    ]
    constants = {"half": np.array(0.5, dtype=np.float32)}
    session = qh.Session(qh.load(model_of(nodes, {"x": (3,)}, ["y"], constants)))
    x = np.array([-2, 0, 4], dtype=np.float32)
    np.testing.assert_array_equal(session.run({"x": x})["y"], np.float32([-1, 0, 4]))


def test_constants_that_enlarge_the_data_are_not_chained_away() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "row"], ["a"], "a"),
        helper.make_node("Relu", ["a"], ["y"], "y"),
    ]
    row = np.array([[1, -1, 2]], dtype=np.float32)
    session = qh.Session(qh.load(model_of(nodes, {"x": (2, 1)}, ["y"], {"row": row})))
    x = np.array([[1], [-3]], dtype=np.float32)
    expected = np.array([[1, 0, 2], [0, 3, 0]], dtype=np.float32)
    np.testing.assert_array_equal(session.run({"x": x})["y"], expected)


@pytest.mark.parametrize("op", ["Add", "BatchNormalization", "Div", "Mul", "Relu", "Sub"])
def test_a_node_with_an_attribute_that_nobody_knows_is_not_chained(op) -> None:
    vector = np.ones(2, dtype=np.float32)
    spec = KernelSpec(op, constants=(None, *(vector,) * 4), present=(True,) * 5)
    assert STAGES["", op](spec) is not None
    assert STAGES["", op](replace(spec, attributes={"odd": 1})) is None


def test_a_failing_node_inside_a_chain_is_named() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "row"], ["a"], "fits"),
        helper.make_node("Add", ["a", "long"], ["y"], "does_not"),
    ]
    constants = {"row": np.ones((), dtype=np.float32), "long": np.ones(4, dtype=np.float32)}
    session = qh.Session(qh.load(model_of(nodes, {"x": ("N", "M")}, ["y"], constants)))
    with pytest.raises(ExecutionError, match=r"Add 'does_not'.*float32\[2, 3\]"):
        session.run({"x": np.ones((2, 3), dtype=np.float32)})


def test_a_power_of_two_scale_is_divided_by_exactly() -> None:
    """Every exponent of float32 at which scale and inverse are normal numbers."""
    from qonnx_hub_ir.quantizers import IntQuant, Rounding
    from qonnx_hub_ir.semantics import quantize

    rng = np.random.default_rng(0)
    bits = np.array(8.0, dtype=np.float32)
    for exponent in (-126, -40, -3, 0, 5, 60, 126):
        scale = np.ldexp(np.float32(1), exponent)
        with np.errstate(over="ignore"):
            x = (rng.normal(0, 90, 500) * np.float64(scale)).astype(np.float32)
        x[:4] = [scale * np.float32(0.5), scale * np.float32(2.5), np.inf, np.nan]
        zero = np.zeros((), dtype=np.float32)
        got = quantize(x, IntQuant(scale, zero, bits, True, False, Rounding.ROUND))
        with np.errstate(all="ignore"):
            expected = np.rint(np.clip(x / scale, -128, 127)) * scale
        np.testing.assert_array_equal(got, expected)
