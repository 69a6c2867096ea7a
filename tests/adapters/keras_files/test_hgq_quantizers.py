"""HGQ2's quantizers as nodes, against their definition in exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import onnx_ir
import pytest
from onnx_ir import Graph, Model

import qonnx_hub as qh
from qonnx_hub_adapters.keras_files.hgq import FixedBits, applied, quantized
from qonnx_hub_adapters.keras_files.plain_forms import write_plain_forms
from qonnx_hub_adapters.keras_files.scope import OPSET, Net
from qonnx_hub_ir import dialect
from qonnx_hub_ir.passes import DropUnused

RANDOM = np.random.default_rng(3)
MODES = ["RND", "TRN", "RND_CONV", "TRN_ZERO", "RND_ZERO", "RND_MIN_INF", "RND_INF"]


def rounded(t: Fraction, mode: str) -> int:
    below, half = math.floor(t), Fraction(1, 2)
    if mode == "TRN":
        return below
    if mode == "TRN_ZERO":
        return math.trunc(t)
    if t - below != half:
        return math.floor(t + half)
    choices = {
        "RND": below + 1,
        "RND_MIN_INF": below,
        "RND_CONV": below if below % 2 == 0 else below + 1,
        "RND_ZERO": below + 1 if t < 0 else below,
        "RND_INF": below if t < 0 else below + 1,
    }
    return choices[mode]


def by_definition(x: float, k: int, i: int, f: int, mode: str, overflow: str) -> float:
    if k + i + f <= 0:
        return 0.0
    i = max(i, -f)
    step, top = Fraction(2) ** -f, Fraction(2) ** i
    t = Fraction(x)
    if overflow.startswith("SAT"):
        low = -k * (top - step if overflow == "SAT_SYM" else top)
        t = min(max(t, low), top - step)
    y = rounded(t / step, mode) * step
    if overflow == "WRAP":
        span, offset = Fraction(2) ** (i + k), k * Fraction(2) ** (i + k - 1)
        y = (y + offset) % span - offset
    return float(y)


def bits(mode: str, overflow: str, k, i, f, place: str = "datalane") -> FixedBits:
    arrays = (np.asarray(v, dtype=np.float32) for v in (k, i, f))
    return FixedBits(*arrays, mode, overflow, None, None, place, by_width=False)


def on_executor(q: FixedBits, x: np.ndarray) -> np.ndarray:
    graph = Graph([], [], nodes=[], opset_imports={}, name="g")
    net, kind = Net(graph, 3), onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    value = onnx_ir.Value(name="x", type=kind, shape=onnx_ir.Shape(["n", x.shape[1]]))
    graph.inputs.append(value)
    scope = net.scope("q")
    y = quantized(scope, value, q)
    scope.close()
    y.name = "y"
    graph.outputs.append(y)
    model = Model(graph, ir_version=9)
    model.opset_imports[""] = OPSET
    model.opset_imports[dialect.DOMAIN] = dialect.DOMAIN_VERSION
    return qh.run(model, {"x": x})["y"]


def behind_a_range(i: int, mode: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the operators of WRAP behind values from -4 to 3.75, the answer and the input."""
    graph = Graph([], [], nodes=[], opset_imports={}, name="g")
    net, kind = Net(graph, 3), onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    value = onnx_ir.Value(name="x", type=kind, shape=onnx_ir.Shape(["n", 1]))
    graph.inputs.append(value)
    first, scope = net.scope("first"), net.scope("second")
    y = quantized(first, value, bits("RND", "SAT", 1, 2, 2))
    y = quantized(scope, y, bits(mode, "WRAP", 1, i, 1))
    first.close()
    scope.close()
    y.name = "y"
    graph.outputs.append(y)
    graph.sort()
    model = Model(graph, ir_version=9)
    model.opset_imports[""] = OPSET
    model.opset_imports[dialect.DOMAIN] = dialect.DOMAIN_VERSION
    write_plain_forms(net, model)
    DropUnused()(model)
    x = np.arange(-100, 100, dtype=np.float32)[:, None] / 16
    return [node.op_type for node in model.graph], qh.run(model, {"x": x})["y"], x


RANGES = [(3, "RND", False), (2, "TRN", False), (2, "RND", True), (1, "TRN", True)]


@pytest.mark.parametrize(("i", "mode", "wraps"), RANGES)
def test_wrapping_is_a_plain_quantizer_where_nothing_overflows(i, mode, wraps):
    operators, found, x = behind_a_range(i, mode)
    assert ("Floor" in operators) is wraps
    before = [by_definition(float(v), 1, 2, 2, "RND", "SAT") for v in x[:, 0]]
    wanted = [by_definition(v, 1, i, 1, mode, "WRAP") for v in before]
    np.testing.assert_array_equal(found[:, 0], np.float32(wanted))


def values() -> np.ndarray:
    """Ties and levels of all widths below, what lies beside them, and far values.

    Not the very next floats: HGQ adds one half in float32, which may reach the tie.
    """
    grid = np.arange(-80, 81, dtype=np.float32) / 16
    beside = [grid + np.float32(step) for step in (-(2.0**-10), 2.0**-10)]
    return np.concatenate([grid, *beside, np.float32([-37.3, 100.25, 0.0])])[:, None]


ELEMENTS = np.array([(1, 2, 3), (0, 2, 2), (1, 0, 1), (0, -1, 3), (1, -2, 1), (1, 3, -1)]).T
"""k, i, f of six elements: the fifth has no bits left."""


@pytest.mark.parametrize("overflow", ["SAT", "SAT_SYM", "WRAP"])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_what_its_definition_says(mode, overflow):
    x = np.repeat(values(), ELEMENTS.shape[1], axis=1)
    found = on_executor(bits(mode, overflow, *ELEMENTS[:, None]), x)
    for column, (k, i, f) in enumerate(ELEMENTS.T.tolist()):
        wanted = [by_definition(float(v), k, i, f, mode, overflow) for v in x[:, column]]
        np.testing.assert_array_equal(found[:, column], np.float32(wanted), f"{k} {i} {f}")


@pytest.mark.parametrize("overflow", ["SAT", "SAT_SYM", "WRAP"])
@pytest.mark.parametrize("mode", MODES)
def test_stored_biases_are_what_the_definition_says(mode, overflow):
    x = np.repeat(values(), ELEMENTS.shape[1], axis=1)
    found = applied(bits(mode, overflow, *ELEMENTS[:, None], place="bias"), x)
    for column, (k, i, f) in enumerate(ELEMENTS.T.tolist()):
        wanted = [by_definition(float(v), k, i, f, mode, overflow) for v in x[:, column]]
        np.testing.assert_array_equal(found[:, column], np.float32(wanted), f"{k} {i} {f}")


def test_a_weight_does_not_wrap():
    q = bits("RND", "WRAP", 1, 0, 2, place="weight")
    assert applied(q, np.float32([5.3])).tolist() == [5.25]
    assert applied(bits("RND", "WRAP", 1, 0, 2, place="bias"), np.float32([5.3])).tolist() == [
        -0.75
    ]


def test_one_width_for_all_elements_is_one_quantizer():
    graph_bits = bits("RND_CONV", "SAT", [[1, 1]], [[2, 2]], [[3, 3]])
    x = RANDOM.uniform(-6, 6, (50, 2)).astype(np.float32)
    wanted = np.clip(np.rint(x * 8), -32, 31) / 8
    np.testing.assert_array_equal(on_executor(graph_bits, x), wanted)
