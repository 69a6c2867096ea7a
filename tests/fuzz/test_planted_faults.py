"""The generator of planted faults by itself: repeatable, valid, and its oracle sees."""

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.fuzz.planted_equalities import EQUALITIES
from tests.fuzz.planted_faults import EVERY, make_pair, run_pairs
from tests.fuzz.planted_graphs import MOST_OPERATORS, QONNX
from tests.fuzz.planted_kinds import KINDS
from tests.fuzz.planted_oracle import Oracle, differing_rows, draw_inputs, telling_input

NEVER = ("false equal", "false proven", "does not fail", "equal called different", "error")

FIRST = 4 * EVERY
"""Enough pairs for two of every kind."""


@pytest.fixture(scope="module")
def pairs():
    made = [make_pair(0, number) for number in range(FIRST)]
    assert all(made)
    return made


def test_a_pair_is_made_of_seed_and_number_alone(pairs):
    again = make_pair(0, 7)
    assert again.first.SerializeToString() == pairs[7].first.SerializeToString()
    assert again.second.SerializeToString() == pairs[7].second.SerializeToString()
    other = make_pair(1, 7)
    assert other.first.SerializeToString() != pairs[7].first.SerializeToString()


def test_every_kind_comes(pairs):
    assert {p.kind for p in pairs if not p.equal} == set(KINDS)
    assert {p.kind for p in pairs if p.equal} <= set(EQUALITIES)
    assert len(KINDS) >= 18


def test_a_fault_changes_the_file_and_the_file_stays_valid(pairs):
    for pair in pairs:
        assert pair.first.SerializeToString() != pair.second.SerializeToString()
        for model in (pair.first, pair.second):
            onnx.checker.check_model(model)
            # One quantizer is spelled with four nodes at most, an operator is one.
            assert 1 <= len(model.graph.node) <= 5 * MOST_OPERATORS + 60


def test_an_equality_is_one_for_the_oracle(pairs):
    equal = [p for p in pairs if p.equal]
    assert equal
    for pair in equal:
        a, b = Oracle(pair.first), Oracle(pair.second)
        feeds = draw_inputs([pair.first], a.shapes, np.random.default_rng(3))
        assert not differing_rows(a(feeds), b(feeds)).any(), pair.kind


def test_most_faults_make_a_difference_somewhere(pairs):
    faults = [p for p in pairs if not p.equal]
    seen = [telling_input(p.first, p.second, np.random.default_rng(1)) for p in faults]
    assert np.mean([x is not None for x in seen]) > 0.5


def quantizer(rounding="ROUND"):
    constants = {"s": np.float32(1), "z": np.float32(0), "b": np.float32(4)}
    attributes = {"signed": 1, "narrow": 0, "rounding_mode": rounding}
    node = helper.make_node("Quant", ["x", "s", "z", "b"], ["y"], domain=QONNX, **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(QONNX, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_the_oracle_quantizes_as_by_hand():
    x = np.array([[0.5, 1.5], [-2.5, 100], [-100, -0.75]], dtype=np.float32)
    expected = [[0, 2], [-2, 7], [-8, -1]]
    assert Oracle(quantizer())({"x": x})[0].tolist() == expected


def test_the_oracle_finds_the_ties_by_which_two_modes_differ():
    x = telling_input(quantizer(), quantizer("HALF_UP"), np.random.default_rng(0))["x"]
    assert np.any(x - np.floor(x) == 0.5)


def test_the_oracle_finds_nothing_between_equal_models():
    assert telling_input(quantizer(), quantizer(), np.random.default_rng(0)) is None


PAIRS = int(os.environ.get("QONNX_HUB_PLANTED_PAIRS", "240"))
"""A night takes thousands."""


def test_the_oracle_adds_and_multiplies_a_normalization_as_onnxruntime_does():
    runtime = pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(2)
    held = {name: rng.uniform(0.1, 3, 64).astype(np.float32) for name in "gbmv"}
    nodes = [helper.make_node("BatchNormalization", ["x", *held], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, (8, 64))],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(array, name) for name, array in held.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = runtime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = {"x": rng.normal(size=(8, 64)).astype(np.float32)}
    assert np.array_equal(Oracle(model, folded=True)(feeds)[0], session.run(None, feeds)[0])


def test_no_planted_fault_is_called_equal():
    tally = run_pairs(PAIRS, seed=PAIRS)
    wrong = [(n, found.pair.kind, what) for n, what, found in tally.bad if what in NEVER]
    assert wrong == []
    assert tally.total("differ") > PAIRS / 2
    assert tally.total("undecided") <= 0.03 * tally.total("differ")
