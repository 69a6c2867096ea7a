from __future__ import annotations

import numpy as np
import pytest

import qonnx_hub as qh
from qonnx_hub.equivalence.inputs.batches import (
    ChainedInputs,
    GeneratedInputs,
    GivenInputs,
    read_batches,
)
from qonnx_hub.equivalence.inputs.boundary import search_boundaries
from qonnx_hub.equivalence.inputs.generate import generate_inputs
from qonnx_hub.equivalence.inputs.probes import probe_values
from qonnx_hub.equivalence.inputs.reach import find_inputs
from qonnx_hub.equivalence.inputs.sweep import try_magnitudes
from qonnx_hub.equivalence.inputs.watch import Watcher
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.quantizers import IntQuant
from tests.support import model_of, quant_node


@pytest.fixture
def model(nets):
    return qh.load(nets["mlp"]())


def all_values(source):
    return np.concatenate([b.feeds["x"].reshape(-1) for b in read_batches(source)])


def test_every_tie_of_the_first_quantizer_and_the_floats_beside_it_are_met(model):
    # Scale 2**-4, 6 bits signed: codes -32..31, so ties at (k + 1/2) / 16.
    values = set(all_values(GeneratedInputs(model, 512)).tolist())
    ties = (np.arange(-32, 31) + 0.5).astype(np.float32) / np.float32(16)
    for side in (-np.inf, np.inf):
        assert set(np.nextafter(ties, np.float32(side)).tolist()) <= values
    assert set(ties.tolist()) <= values


def test_limits_are_met_and_exceeded(model):
    values = all_values(GeneratedInputs(model, 512))
    assert {-2.0, 31 / 16} <= set(values.tolist())
    assert values.min() < -2.0
    assert values.max() > 2.0


def test_zeros_of_both_signs_are_among_the_first_samples(model):
    x = GeneratedInputs(model, 64).feeds(0)["x"]
    assert not x[0].any()
    assert not x[3].any()
    assert np.signbit(x[3]).all()


def test_a_range_holds_for_all_values_and_its_ends_are_met(model):
    values = all_values(GeneratedInputs(model, 64, ranges={"x": (-0.3, 0.7)}))
    assert values.min() == np.float32(-0.3)
    assert values.max() == np.float32(0.7)


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (0.0, float("inf")), (float("nan"), 1.0)])
def test_a_range_without_values_is_refused(model, bounds):
    with pytest.raises(UsageError, match="holds no values"):
        GeneratedInputs(model, ranges={"x": bounds})


def test_a_range_of_no_input_is_refused(model):
    with pytest.raises(UsageError, match="'z', which is no input"):
        GeneratedInputs(model, ranges={"z": (0, 1)})


def test_a_seed_gives_the_same_inputs_and_another_gives_others(model):
    first, second = GeneratedInputs(model, 64, seed=3), GeneratedInputs(model, 64, seed=3)
    assert np.array_equal(all_values(first), all_values(second))
    assert not np.array_equal(
        all_values(first), all_values(GeneratedInputs(model, 64, seed=4))
    )


def test_batches_are_of_any_length_and_hold_all_samples(model):
    source = GeneratedInputs(model, 50, length=16)
    batches = list(read_batches(source))
    assert [(b.start, b.samples) for b in batches] == [(0, 16), (16, 16), (32, 16), (48, 2)]


def test_chained_sources_go_on_where_the_first_ends():
    one = GivenInputs({"x": np.zeros((3, 1), dtype=np.float32)}, 2, "zeros")
    two = GivenInputs({"x": np.ones((2, 1), dtype=np.float32)}, 2, "ones")
    batches = list(read_batches(ChainedInputs((one, two))))
    assert [(b.index, b.start, b.samples) for b in batches] == [
        (0, 0, 2),
        (1, 2, 1),
        (2, 3, 2),
    ]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({}, "no inputs are given"),
        ({"x": np.zeros((0, 2), dtype=np.float32)}, "'x' is empty"),
        (
            {"x": np.array([[1, np.nan]], dtype=np.float32)},
            r"'x' holds NaN \(first at \[0, 1\]\)",
        ),
        ({"x": np.zeros(2, np.float32), "z": np.zeros(3, np.float32)}, "different numbers"),
    ],
)
def test_inputs_that_show_nothing_are_refused(arrays, words):
    with pytest.raises(UsageError, match=words):
        GivenInputs(arrays, 8)


def test_thresholds_of_inner_quantizers_are_met_from_both_sides(model):
    coverage = find_inputs(model, 32).coverage
    by_layer = {row.layer: row for row in coverage.quantizers}
    assert set(by_layer) == {"in", "act1", "act2"}
    # 4 bits unsigned have 15 thresholds, 6 bits signed have 63.
    assert [by_layer[n].total for n in ("in", "act1", "act2")] == [63, 15, 15]
    assert all(row.exercised >= 8 for row in coverage.quantizers)


def test_pairs_of_steered_inputs_are_as_close_as_floats_go(model):
    feeds = GeneratedInputs(model, 32).feeds(0)
    found, _ = search_boundaries(Watcher(model), feeds, ["x"], 1 << 28)
    x = found["x"]
    reach = np.abs(x).max()
    halves = [x[: len(x) // 2], x[len(x) // 2 :]] if len(x) <= 96 else np.split(x[:96], 2)
    assert np.abs(halves[0] - halves[1]).max() < reach * 2.0**-18


def test_steered_inputs_show_a_threshold_that_moved(nets, surgery):
    model = nets["mlp"]()
    # Without the first quantizer, what the next one reads is not bound to a grid.
    surgery.bypass_node(model, "in")
    other = surgery.copied(model)
    surgery.change_constant(other, "bn1.shift", lambda s: s + np.float32(2e-6))

    def flips(result):
        return {r.source: r.comparison.differing for r in result.layer_rows}["act1"]

    assert flips(qh.check(model, other, boundary=False)) == 0
    assert flips(qh.check(model, other)) > 0


def test_integer_inputs_stay_within_what_they_index():
    from onnx import TensorProto, helper, numpy_helper

    table = np.arange(10, dtype=np.float32).reshape(5, 2)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "x"], ["y"], name="y")],
        "lookup",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["N"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    assert qh.check(model, model)


def test_effort_bounds_the_search(model):
    quick, normal = find_inputs(model, effort="quick"), find_inputs(model)
    assert "thresholds of inner" not in quick.source.description
    assert "thresholds of inner" in normal.source.description
    thorough = find_inputs(model, effort="thorough")
    assert thorough.source.samples > normal.source.samples
    assert [found.coverage.effort for found in (quick, normal, thorough)] == [
        "quick",
        "normal",
        "thorough",
    ]


def test_an_unknown_effort_is_wrong_usage(nets):
    with pytest.raises(UsageError, match="unknown effort 'huge'; there are: quick, normal"):
        find_inputs(qh.load(nets["mlp"]()), effort="huge")


def test_results_say_sizes_effort_and_bends(nets, surgery):
    result = qh.check(nets["mlp"](), nets["mlp"](), proof_seconds=0, effort="quick")
    assert result.effort == "quick"
    data = result.to_dict()
    assert {"bends", "unchanged", "sizes", "effort"} <= set(data)


def test_probes_stand_on_ties_on_both_sides_of_the_limits():
    one, zero, bits = (np.array(v, dtype=np.float32) for v in (1.0, 0.0, 3.0))
    found = probe_values(IntQuant(one, zero, bits), (4096,), np.dtype(np.float32))
    # Codes are -4 to 3.
    assert {-5.5, -4.5, -3.5, -0.5, 0.5, 2.5, 3.5, 4.5} <= set(found.tolist())


def quantized_input():
    constants = {"s": 1.0, "z": 0.0, "b": 4.0}
    return qh.load(model_of([quant_node("x", "y")], {"x": ("N", 64)}, ["y"], constants))


def test_random_values_go_beyond_the_limits_of_what_reads_them():
    x = generate_inputs(quantized_input(), 64)["x"]
    # Limits are -8 and 7; far values stand at four times that.
    assert np.mean(np.abs(x) > 8.5) > 0.2
    assert np.max(np.abs(x)) <= 32


def test_magnitudes_are_tried_far_beside_every_scale():
    watcher = Watcher(quantized_input())
    feeds = {"x": np.zeros((1, 64), dtype=np.float32)}
    x = np.abs(try_magnitudes(watcher, feeds, ["x"], 240, 0)["x"])
    assert x.max() > 2.0**10
    assert np.median(x[0]) < 2.0**-8
