"""Inputs on which outputs part, found where samples of a check do not show them."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import qonnx_hub as qh
from qonnx_hub.equivalence.comparison.matching import match_tensors
from qonnx_hub.equivalence.inputs.batches import read_batches
from qonnx_hub.equivalence.inputs.differences import find_difference
from qonnx_hub.equivalence.inputs.reach import find_inputs
from qonnx_hub.equivalence.runners.sides import ExecutorRunner


def far_clip(shift, batch="N", size=4):
    """Return a model whose output is open only where one value far away meets small ones."""
    sums = np.ones((size, 1), dtype=np.float32)
    nodes = [
        helper.make_node("Add", ["x", "k"], ["t"], "t"),
        helper.make_node("MatMul", ["t", "w"], ["u"], "u"),
        helper.make_node("Clip", ["u", "lo", "hi"], ["y"], "y"),
    ]
    constants = {
        "k": np.array([shift, 0, 0, 0], dtype=np.float32),
        "w": sums,
        "lo": np.float32(5000),
        "hi": np.float32(5100),
    }
    graph = helper.make_graph(
        nodes,
        "far",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 1])],
        [numpy_helper.from_array(np.asarray(c), n) for n, c in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    return qh.load(helper.make_model(graph, opset_imports=opsets, ir_version=8))


def searched(one, other, **options):
    a, b = ExecutorRunner(one, "a"), ExecutorRunner(other, "b")
    outputs = match_tensors(a, b, layers=False).outputs
    return find_difference(a, b, outputs, **options), a, b


@pytest.mark.parametrize("batch", ["N", 1, 3])
def test_a_difference_that_shows_in_a_narrow_place_is_found(batch):
    found, a, b = searched(far_clip(0.0, batch), far_clip(0.5, batch))
    assert found is not None
    for part in read_batches(found):
        ours, theirs = a.outputs(part.feeds)["y"], b.outputs(part.feeds)["y"]
        assert (ours != theirs).any()


def test_nothing_is_found_between_equal_models():
    assert searched(far_clip(0.25), far_clip(0.25))[0] is None


def test_ranges_are_kept_to():
    # Within them, the output is 5000 in both.
    found, _, _ = searched(far_clip(0.0), far_clip(0.5), ranges={"x": (-1.0, 1.0)})
    assert found is None


def test_the_same_seed_finds_the_same_input():
    one, two = (searched(far_clip(0.0), far_clip(0.5), seed=1)[0] for _ in range(2))
    assert np.array_equal(one.feeds(0)["x"], two.feeds(0)["x"])


def test_lines_lead_into_the_open_part_of_a_clip():
    coverage = find_inputs(far_clip(0.0)).coverage
    assert coverage.unchanged == ()
    assert [(row.reached, row.reachable) for row in coverage.bends] == [(3, 3)]
