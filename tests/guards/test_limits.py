"""Limits hold on both sides: the last value that passes, and the first one that does not."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir
import pytest
from onnx import helper
from onnx_ir import Model
from onnx_ir.passes import InPlacePass, PassResult

import qonnx_hub as qh
from qonnx_hub.analysis.weight_export import integer_weights
from qonnx_hub.api import ConversionError
from qonnx_hub.conversion.error_bounds import Observation
from qonnx_hub.equivalence.comparison.matching import match_tensors
from qonnx_hub.equivalence.diagnosis.quantizer_causes import Cause, Seen, explain_quantizer
from qonnx_hub.equivalence.runners.sides import ExecutorRunner
from qonnx_hub.transformation.pass_options import split
from qonnx_hub_adapters.protocol import Bound, QuantizerRecord
from qonnx_hub_ir import dialect
from qonnx_hub_ir.analysis import accumulators, infer_values
from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.errors import ExecutionError
from qonnx_hub_ir.passes import FoldBatchnorm, SinkTransposes
from qonnx_hub_ir.quantizers import IntQuant, Rounding
from qonnx_hub_ir.semantics import quantize
from tests.ir import graphs
from tests.support import DOMAIN, model_of, quant_node

QUANT = {"s": 0.5, "z": 0.0, "b": 8.0}


def f32(values: Any) -> np.ndarray:
    return np.array(values, dtype=np.float32)


# Comparisons


def check_off_by(steps: float) -> Any:
    """Compare a quantizer with itself plus so many of its steps of 0.5."""
    exact = model_of([quant_node("x", "y")], {"x": (1, 4)}, ["y"], QUANT)
    moved = [quant_node("x", "t"), helper.make_node("Add", ["t", "off"], ["y"], "add")]
    off = model_of(moved, {"x": (1, 4)}, ["y"], {**QUANT, "off": steps * 0.5})
    return qh.check(exact, off, {"x": f32([[0.0, 1.0, 2.0, -3.0]])}, lsb=1)


@pytest.mark.parametrize("steps", [0.25, 1.0, 1.0 + 2.0**-23])
def test_one_step_of_difference_is_one_lsb(steps: float) -> None:
    assert check_off_by(steps).verdict == "WITHIN"


@pytest.mark.parametrize("steps", [1.0 + 2.0**-18, 1.2, 2.0])
def test_more_than_one_step_is_more_than_one_lsb(steps: float) -> None:
    assert check_off_by(steps).verdict == "DIFFERENT"


def several(model: Model, *names: str) -> Model:
    """Say of some values that they come from one layer of the source."""
    for value in (v for node in model.graph for v in node.outputs):
        if value.name in names:
            value.metadata_props[dialect.PROVENANCE] = "layer"
    return model


def test_a_layer_of_several_values_is_known_by_its_last_one() -> None:
    ends = [helper.make_node("Relu", ["last"], ["y"], "relu")]
    two = [
        helper.make_node("Mul", ["x", "c"], ["first"], "mul"),
        helper.make_node("Add", ["first", "c"], ["last"], "add"),
    ]
    one = [helper.make_node("Add", ["x", "c"], ["last"], "add")]
    graph = {"x": (1, 4)}, ["y"], {"c": 2.0}
    many = ExecutorRunner(
        several(qh.load(model_of(two + ends, *graph)), "first", "last"), "many"
    )
    single = ExecutorRunner(several(qh.load(model_of(one + ends, *graph)), "last"), "single")
    for a, b in ((many, single), (single, many)):
        [pair] = [p for p in match_tensors(a, b, layers=True).layers if p.source == "layer"]
        assert (pair.a, pair.b) == ("last", "last")


@pytest.mark.parametrize(
    ("distance", "is_near"), [(1, True), (8, True), (9, False), (99, False)]
)
def test_a_tie_reaches_as_far_as_eight_units(distance: int, is_near: bool) -> None:
    one = f32(1.0)
    quant = IntQuant(one, f32(0.0), f32(8.0), True, False, Rounding.ROUND)
    # Beside 2.5, where a quotient and one more are spaced by 2^-22.
    x = f32([2.5 - distance * 2.0**-22, 1.25, -1.75, 7.25, -5.75, 3.75])
    ours = quantize(x, quant)
    theirs = ours.copy()
    theirs[0] += 1
    reason = explain_quantizer(Seen(x, ours, theirs), quant, None)
    found = reason is not None and reason.cause is Cause.TIE
    assert found == is_near


# Bounds of conversions


@pytest.mark.parametrize(("differing", "holds"), [(10_608, True), (10_609, False)])
def test_a_share_is_met_within_six_deviations_and_eight_values(
    differing: int, holds: bool
) -> None:
    # 1,000,000 values at a share of 0.01: 10,000 expected, with a deviation of 100.
    record = QuantizerRecord("q", "int8", "form", exact=False, bound=Bound(share=0.01))
    seen = Observation(record, count=10, even=1_000_000, differing_even=differing)
    assert (seen.problem() == "") == holds


# Passes


@dataclass(frozen=True)
class Nudges(InPlacePass):
    """Multiply a constant by a little more than one."""

    factor: float = 1 + 2.0**-20

    effect: ClassVar[Effect] = Effect.EXACT

    def call(self, model: Model) -> PassResult:
        value = model.graph.initializers["c"]
        assert value.const_value is not None
        changed = value.const_value.numpy() * np.float32(self.factor)
        value.const_value = onnx_ir.tensor(changed, name="c")
        return PassResult(model, modified=True)


@dataclass(frozen=True)
class NudgesAloud(Nudges):
    """The same, and says that it rounds."""

    effect: ClassVar[Effect] = Effect.ROUNDING


def scaled_model() -> Any:
    nodes = [helper.make_node("Mul", ["x", "c"], ["y"], "mul")]
    return model_of(nodes, {"x": (1, 4)}, ["y"], {"c": 3.0})


def test_an_exact_pass_may_not_differ_by_noise() -> None:
    with pytest.raises(ConversionError):
        qh.transform(scaled_model(), [Nudges()])


def test_a_rounding_pass_may_differ_by_noise_and_no_more() -> None:
    # Four roundings of a parameter on either side; the next power of two is a change.
    assert qh.transform(scaled_model(), [NudgesAloud(1 + 2.0**-22)]).check
    with pytest.raises(ConversionError):
        qh.transform(scaled_model(), [NudgesAloud(1 + 2.0**-20)])


def test_statistics_of_a_batch_are_not_folded_whatever_is_read_of_them() -> None:
    four = {name: f32([1.0, 2.0, 3.0]) for name in "gbmv"}
    for training in (0, 1):
        node = helper.make_node(
            "BatchNormalization", ["x", *four], ["y"], "bn", training_mode=training
        )
        found = graphs.model(
            [node], [graphs.info("x", [2, 3])], [graphs.info("y", [2, 3])], four
        )
        assert FoldBatchnorm()(found).modified == (not training)


@pytest.mark.parametrize("keep", [None, 0, 1])
def test_a_reduction_behind_a_transpose_keeps_its_axes_unless_it_says_not_to(
    keep: Any,
) -> None:
    given = {} if keep is None else {"keepdims": keep}
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], "turn", perm=[0, 2, 3, 1]),
        helper.make_node("ReduceMax", ["t", "axes"], ["y"], "reduce", **given),
    ]
    axes = {"axes": np.array([1], dtype=np.int64)}
    model = qh.load(model_of(nodes, {"x": (2, 3, 4, 5)}, ["y"], axes))
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    before = qh.run(model, {"x": x})["y"]
    assert SinkTransposes()(model).modified
    after = qh.run(model, {"x": x})["y"]
    assert after.shape == before.shape
    assert np.array_equal(after, before)


def test_an_escaped_quote_does_not_end_a_text() -> None:
    assert split(r'a="x\",y",b=1') == [r'a="x\",y"', "b=1"]
    assert split(r'a="x\\",b=1') == [r'a="x\\"', "b=1"]


# Integers


def test_zeros_of_weights_are_those_of_value_zero() -> None:
    weights = f32([[0.0, 1.0, -1.5], [0.0, 0.0, 0.5]])
    nodes = [quant_node("w", "wq"), helper.make_node("MatMul", ["x", "wq"], ["y"], "mul")]
    constants = {"s": 0.5, "z": 3.0, "b": 5.0, "w": weights}
    [found] = integer_weights(qh.load(model_of(nodes, {"x": (1, 2)}, ["y"], constants)))
    assert found.integers.tolist() == [[3, 5, 0], [3, 3, 4]]
    assert found.zeros == 3


@pytest.mark.parametrize("code", [*range(8, 128, 7), 127])
def test_the_integers_of_a_shift_are_whole_whatever_the_scale_rounds_to(code: int) -> None:
    # Three bits are shifted out of an 8-bit code. As floats, code * 0.1 lies beside the grid.
    node = helper.make_node(
        "Trunc", ["x", "s", "z", "i", "o"], ["y"], "t", domain=DOMAIN, rounding_mode="FLOOR"
    )
    constants = {"s": 0.1, "z": 0.0, "i": 8.0, "o": 5.0}
    model = qh.load(model_of([node], {"x": (1, 2)}, ["y"], constants))
    ends = [float(np.float32(code) * np.float32(0.1)) for code in (-code, code)]
    found = infer_values(model, {"x": (ends[0], ends[1])})["y"]
    values = qh.run(model, {"x": f32([ends])})["y"]
    assert found.grid is not None
    codes = np.rint(values / found.grid.scale).reshape(-1).tolist()
    assert [int(found.grid.low), int(found.grid.high)] == codes


def test_partial_sums_leave_terms_out() -> None:
    # Inputs from 10 to 12 by weights 1 and -1: the sum is small, what leads to it is not.
    nodes = [
        quant_node("x", "q", signed=0),
        helper.make_node("Clip", ["q", "low", "high"], ["c"], "clip"),
        quant_node("w", "wq", "s", "z", "wb"),
        helper.make_node("MatMul", ["c", "wq"], ["y"], "mul"),
    ]
    constants = {"s": 1.0, "z": 0.0, "b": 4.0, "wb": 3.0, "low": 10.0, "high": 12.0}
    weights = f32([[1.0], [-1.0], [1.0]])
    proto = model_of(nodes, {"x": (1, 3)}, ["y"], {**constants, "w": weights})
    [found] = accumulators(qh.load(proto))
    sums = [
        sum(c * w for c, w in zip(codes, weights[:, 0], strict=True))
        for codes in itertools.product((10, 11, 12), repeat=3)
    ]
    assert (int(found.low.min()), int(found.high.max())) == (min(sums), max(sums)) == (8, 14)
    # Up to 24 on the way, or down to -12: six bits with a sign.
    assert found.bits == 5
    assert found.partial_bits == 6


def test_a_sum_of_several_terms_may_be_added_in_any_order() -> None:
    nodes = [helper.make_node("Sum", ["a", "b", "c"], ["y"], "sum")]
    model = qh.load(model_of(nodes, dict.fromkeys("abc", (1,)), ["y"]))
    values = {"a": 1e8, "b": 1.0, "c": -1e8}
    found = infer_values(model, {name: (value, value) for name, value in values.items()})["y"]
    for order in itertools.permutations(values.values()):
        total = f32(order[0])
        for term in order[1:]:
            total = total + f32(term)
        assert found.low.min() <= total <= found.high.max()


# Fused nodes


def test_statistics_for_other_channels_are_refused_in_large_arrays_as_well() -> None:
    # Large enough that channels are computed block by block, each by its own statistics.
    names = ["x", *"gbmv"]
    nodes = [
        helper.make_node("BatchNormalization", names, ["t"], "bn"),
        helper.make_node("Relu", ["t"], ["y"], "relu"),
    ]
    four = {name: np.arange(1, 7, dtype=np.float32) for name in "gbmv"}
    session = qh.Session(qh.load(model_of(nodes, {"x": ("N", "C", "H", "W")}, ["y"], four)))
    assert session.run({"x": np.ones((1, 6, 256, 256), dtype=np.float32)})["y"].shape[1] == 6
    with pytest.raises(ExecutionError):
        session.run({"x": np.ones((1, 4, 256, 256), dtype=np.float32)})
