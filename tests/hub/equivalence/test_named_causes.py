"""Causes that have a name of their own, and equal causes that are told once."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub.equivalence.diagnosis.named_differences import (
    attribute_in_words,
    is_same_padding,
    permutation_in_words,
    scales_in_words,
)
from qonnx_hub.equivalence.diagnosis.quantizer_causes import (
    Cause,
    Explanation,
    Reason,
    Seen,
    explanation_of,
    match_formula,
)
from qonnx_hub.equivalence.reports.causes import grouped, layers_in_words
from qonnx_hub_ir.quantizers import IntQuant
from tests.support import model_of


def test_an_epsilon_says_whose_default_it_is():
    model = qh.load(
        model_of(
            [helper.make_node("BatchNormalization", ["x", *"abcd"], ["y"], name="bn")],
            {"x": (1, 2)},
            ["y"],
            {name: np.ones(2, dtype=np.float32) for name in "abcd"},
        )
    )
    node = next(n for n in model.graph if n.op_type == "BatchNormalization")
    assert attribute_in_words(node, "epsilon", None) == "1e-05 (the default)"
    keras = float(np.float32(0.001))
    assert attribute_in_words(node, "epsilon", keras) == "0.001 (Keras' default)"
    assert attribute_in_words(node, "epsilon", 0.002) == "0.002"


@pytest.mark.parametrize(
    ("ours", "theirs", "is_same"),
    [
        ([1, 1, 1, 1], [0, 0, 1, 1], True),
        ([0, 0, 1, 1], [1, 1, 0, 0], True),
        ([1, 1, 1, 1], [0, 0, 2, 2], False),
        ([1, 1, 1, 1], [2, 2, 2, 2], False),
        ([0, 0, 1, 1], [0, 0, 1, 1], False),
    ],
)
def test_the_padding_of_tensorflow_is_told_from_an_even_one(ours, theirs, is_same):
    assert is_same_padding(ours, theirs) is is_same


def window(pads, front=(), **attributes):
    """Return a convolution of stride two, after a Pad node where one is asked for."""
    nodes, reads, constants = [], "x", {"w": np.ones((2, 3, 3, 3), dtype=np.float32)}
    if front:
        constants["p"] = np.array([0, 0, *front[:2], 0, 0, *front[2:]])
        nodes, reads = [helper.make_node("Pad", ["x", "p"], ["xp"], name="pad")], "xp"
    if pads:
        attributes["pads"] = pads
    nodes.append(
        helper.make_node(
            "Conv", [reads, "w"], ["y"], name="conv", strides=[2, 2], **attributes
        )
    )
    return model_of(nodes, {"x": (1, 3, 8, 8)}, ["y"], constants)


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        (window([1, 1, 1, 1]), False),
        (window([0, 0, 1, 1]), True),
        (window((), auto_pad="SAME_UPPER"), True),
        (window((), front=(0, 0, 1, 1)), True),
        (window([0, 0, 1, 1], front=(0, 0, 1, 1)), False),
        (window([0, 0, 2, 2]), False),
    ],
    ids=["even", "numbers", "rule", "Pad", "Pad and numbers", "other"],
)
def test_same_padding_is_named_however_it_is_written(other, is_same):
    result = qh.check(window([1, 1, 1, 1]), other)
    causes = {finding.cause for finding in result.findings}
    assert (Cause.SAME_PADDING in causes) is is_same
    if is_same:
        assert "it answers" in result.table()
        assert "at [0, 0, 0, 0], against" in " ".join(result.table().split())


def test_permutations_are_named():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert permutation_in_words(x, x.T.copy()) == "axes in the order [1, 0]"
    assert permutation_in_words(x, x[:, ::-1].copy()) == "axis 1 reversed"
    swapped = x[:, [0, 2, 1]].copy()
    assert permutation_in_words(x, swapped) == "axis 1 in another order: 2 stands at 1"
    assert permutation_in_words(x, x + 1) == ""


def test_what_became_of_scales_is_named():
    many = np.array([0.1, 0.2, 0.3], dtype=np.float32)
    assert scales_in_words(many, many[:1]) == "3 scales became one"
    assert scales_in_words(many[:1], many) == "one scale became 3"
    half = many.astype(np.float16).astype(np.float32)
    assert scales_in_words(many, half) == "rounded to float16"
    assert scales_in_words(many, many * 2) == ""


def test_overflow_that_wraps_is_a_cause_of_its_own():
    # Three bits, steps of one: 4 becomes -4 where it wraps, 3 where it saturates.
    one, zero, bits = (np.array(v, dtype=np.float32) for v in (1.0, 0.0, 3.0))
    quant = IntQuant(one, zero, bits, signed=True)
    x = np.array([1.0, 4.0, -5.0, 9.0], dtype=np.float32)
    saturated = np.array([1, 3, -4, 3], dtype=np.float32)
    wrapped = np.array([1, -4, 3, 1], dtype=np.float32)
    reason = match_formula(Seen(x, saturated, wrapped), quant)
    assert reason is not None
    assert reason.cause is Cause.WRAPPED


def test_equal_causes_are_told_once():
    words = "BatchNormalization: epsilon 1e-05 (the default) against 0.001 (Keras' default)"
    findings = [Explanation(f"bn{k}", Cause.OPERATOR, words) for k in range(9)]
    other = Explanation("act", Cause.RANGE, "limits")
    (first, layers), (second, one) = grouped([*findings, other])
    assert (first.words, len(layers), second.layer, one) == (words, 9, "act", ["act"])
    assert layers_in_words(layers) == "9 layers ('bn0', 'bn1', 'bn2' and 6 more)"
    assert layers_in_words(layers[:3]) == "'bn0', 'bn1', 'bn2'"


def test_texts_that_differ_are_explained_without_numbers():
    a, b = np.array(["one", "two"], dtype=object), np.array(["one", "three"], dtype=object)
    found = explanation_of("joined", Reason(Cause.LAYOUT, "other texts"), Seen(a, a, b))
    assert (found.where, found.operand, found.values) == ((1,), None, None)
