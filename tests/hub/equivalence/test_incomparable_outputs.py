"""Outputs of other shapes, outputs that hold nothing, outputs that no two runs agree on."""

from __future__ import annotations

import numpy as np
from onnx import helper

import qonnx_hub as qh
from qonnx_hub.equivalence.verdicts import Verdict
from tests.support import model_of


def _sliced(stop: int):
    """``y = x[:, :stop]`` of a 2x3 input."""
    node = helper.make_node("Slice", ["x", "starts", "ends", "axes"], ["y"], name="slice")
    constants = {
        name: np.array([value], dtype=np.int64)
        for name, value in (("starts", 0), ("ends", stop), ("axes", 1))
    }
    return model_of([node], {"x": (2, 3)}, ["y"], constants)


def test_outputs_of_other_shapes_differ():
    result = qh.check(_sliced(3), _sliced(2))
    assert result.verdict is Verdict.DIFFERENT
    assert "output 'y' has shape [2, 3] in the reference, [2, 2] in the other side" in (
        result.notes
    )


def test_an_output_that_never_holds_a_value_is_equal_by_proof_only():
    assert qh.check(_sliced(0), _sliced(0)).verdict is Verdict.PROVEN
    sampled = qh.check(_sliced(0), _sliced(0), proof_seconds=0)
    assert sampled.verdict is Verdict.UNDECIDED
    assert "output 'y' held no value on any of the samples" in sampled.reason


def _noisy(scale: float):
    """``y`` is random, ``z`` is the input times a number."""
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["y"], name="noise"),
        helper.make_node("Mul", ["x", "s"], ["z"], name="times"),
    ]
    constants = {"s": np.array(scale, dtype=np.float32)}
    return model_of(nodes, {"x": (1, 4)}, ["y", "z"], constants)


def test_a_random_output_is_named_and_the_others_are_compared():
    result = qh.check(_noisy(2.0), _noisy(2.0))
    assert result.verdict is Verdict.INCOMPLETE
    assert "output 'y' depends on the random operator 'noise'" in result.reason
    assert [output.name for output in result.outputs] == ["z"]
    assert qh.check(_noisy(2.0), _noisy(2.0), ignore_outputs=["y"]).verdict is Verdict.PROVEN
    assert qh.check(_noisy(2.0), _noisy(2.5)).verdict is Verdict.DIFFERENT
