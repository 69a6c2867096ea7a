"""How a proof ends: proven, refuted, unmatched, out of time; and for which inputs it holds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from onnx.helper import make_node

from qonnx_hub.api import check
from qonnx_hub.equivalence.proof.certificate import ProofOutcome
from qonnx_hub.equivalence.proof.deadline import Deadline
from qonnx_hub.equivalence.proof.prove import prove_models
from qonnx_hub.equivalence.proof.step_functions import find_steps
from qonnx_hub.equivalence.verdicts import Verdict
from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.protocol import export_options
from qonnx_hub_adapters.qcdq.exporter import QcdqExporter
from qonnx_hub_ir.errors import TooManyLevelsError
from tests.support import model_of, quant_node

FLOAT = np.float32


def parameters(**scales):
    held = {name: FLOAT(value) for name, value in scales.items()}
    return held | {"z": FLOAT(0), "b": FLOAT(4)}


def quantized(scale=0.25, bits=4.0):
    nodes = [quant_node("x", "y", "s", "z", "b")]
    held = parameters(s=scale) | {"b": FLOAT(bits)}
    return read_model(model_of(nodes, {"x": (1, 3)}, ["y"], held))


def as_floats(model):
    return QcdqExporter().export(model.clone(), export_options(encoding="float")).model


def reordered(order):
    nodes = [
        quant_node("x", "t", "s", "z", "b"),
        make_node("Concat", order, ["k"], axis=-2, name="cat"),
        quant_node("k", "y", "s", "z", "b"),
    ]
    return read_model(model_of(nodes, {"x": (2, 4)}, ["y"], parameters(s=0.75)))


def test_equal_quantizers_are_proven_for_every_input():
    found = prove_models(quantized(), as_floats(quantized()))
    assert found.outcome is ProofOutcome.PROVEN
    assert found.inputs == "every input"


def test_another_scale_is_refuted():
    found = prove_models(quantized(0.25), as_floats(quantized(0.5)), search=False)
    assert found.outcome is ProofOutcome.REFUTED
    assert found.inputs == ""
    assert found.counterexample.layer == "y"


def test_no_feed_is_looked_for_where_none_is_wanted():
    pair = quantized(0.25), as_floats(quantized(0.5))
    assert prove_models(*pair, search=False).counterexample.feeds is None
    assert prove_models(*pair).counterexample.feeds is not None


def test_an_operator_of_one_model_alone_is_unmatched():
    nodes = [make_node("Tanh", ["x"], ["t"]), make_node("Softmax", ["t"], ["y"])]
    other = read_model(model_of(nodes, {"x": (1, 3)}, ["y"]))
    found = prove_models(quantized(), other)
    assert found.outcome is ProofOutcome.UNMATCHED
    assert any("Tanh" in text for text in found.unmatched)


def test_nothing_is_compared_where_no_time_is_given():
    found = prove_models(quantized(), as_floats(quantized()), seconds=0.0)
    assert found.outcome is ProofOutcome.OUT_OF_TIME
    assert found.late


def test_what_the_time_does_not_suffice_for_is_named():
    found = prove_models(quantized(bits=16.0), as_floats(quantized(bits=16.0)), seconds=0.0)
    assert "y" in " ".join(found.late)
    assert found.to_dict()["outcome"] == "out of time"


def test_models_of_the_same_operators_need_no_time():
    assert prove_models(quantized(), quantized(), seconds=0.0).outcome is ProofOutcome.PROVEN


def test_a_reordered_concat_is_not_proven():
    found = prove_models(reordered(["x", "t", "x"]), reordered(["t", "x", "x"]))
    assert found.outcome is ProofOutcome.REFUTED
    assert prove_models(reordered(["x", "t"]), reordered(["x", "t"])).proven


@pytest.mark.parametrize(("ticks", "passed"), [(3, False), (4, True)])
def test_a_deadline_passes_when_its_seconds_are_over(ticks, passed):
    times = iter([0.0, float(ticks)])
    assert Deadline(4.0, clock=lambda: next(times)).passed() is passed


def test_a_table_is_given_up_when_the_time_is_over():
    ticks = itertools.count()
    deadline = Deadline(5.0, clock=lambda: float(next(ticks)))
    with pytest.raises(TooManyLevelsError, match="within 5 s"):
        find_steps(np.round, deadline=deadline, limit=1 << 30)


def twenty_bits(zero, **attributes):
    """Return a net of a quantizer with 2^20 levels, and a layer behind it."""
    nodes = [
        quant_node("x", "q", "s", "z", "b", **attributes),
        make_node("Neg", ["q"], ["y"]),
    ]
    held = {"s": FLOAT(0.5), "z": FLOAT(zero), "b": FLOAT(20)}
    return read_model(model_of(nodes, {"x": (1, 3)}, ["y"], held))


def test_a_nan_that_only_one_zero_point_keeps_is_named_in_the_verdict():
    a = twenty_bits(0.0)
    b = twenty_bits(2.0**19, signed=0, zero_point_after_rounding=1)
    ours, theirs = (
        Session(model).run({"x": FLOAT([[np.nan, 1.3, -7e9]])})["y"] for model in (a, b)
    )
    assert np.array_equal(np.isnan(ours), [[True, False, False]])
    assert not np.isnan(theirs).any()
    assert np.array_equal(ours[:, 1:], theirs[:, 1:])
    found = check(a, b)
    assert found.verdict is Verdict.PROVEN
    assert found.reason == "equal on every input on which no NaN arises"


def test_no_nan_is_named_where_both_zero_points_lose_it():
    b = twenty_bits(3.0, signed=0, zero_point_after_rounding=1)
    found = check(b, b.clone())
    assert found.reason == "equal on every input"
