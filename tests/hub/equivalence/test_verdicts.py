"""Verdicts: what each rests on, which hold, and every limit from both sides."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub.equivalence import noise
from qonnx_hub.equivalence.comparison.compare import Tolerance, summarize, tally
from qonnx_hub.equivalence.comparison.matching import Pair
from qonnx_hub.equivalence.doubts import COVERAGE_FLOOR, unreached
from qonnx_hub.equivalence.inputs.coverage import Coverage, InputCoverage
from qonnx_hub.equivalence.parameters import compare_parameters
from qonnx_hub.equivalence.proof.bounds import ModelBounds, OutputBound
from qonnx_hub.equivalence.proof.certificate import Certificate
from qonnx_hub.equivalence.proving import proven_bound
from qonnx_hub.equivalence.verdicts import Evidence, Verdict, decide, worst
from qonnx_hub_ir.errors import UsageError
from tests.support import model_of, quant_node

SAME = Evidence((Verdict.EQUAL,), backing="sampled")
INEXACT = Evidence((Verdict.EQUAL, Verdict.WITHIN), allowance="allowed")


@pytest.mark.parametrize(
    ("evidence", "verdict", "reason"),
    [
        (SAME, Verdict.EQUAL, "sampled"),
        (dataclasses.replace(SAME, proven=True), Verdict.PROVEN, "equal on every input"),
        (dataclasses.replace(SAME, proven=True, doubts=("d",)), Verdict.PROVEN, "equal on"),
        (dataclasses.replace(SAME, doubts=("d",)), Verdict.UNDECIDED, "but d"),
        (dataclasses.replace(SAME, doubts=("d", "e")), Verdict.UNDECIDED, "d; and 1 more"),
        (dataclasses.replace(SAME, left_out=("y",)), Verdict.INCOMPLETE, "not compared: y"),
        (
            dataclasses.replace(SAME, proven=True, left_out=("y",)),
            Verdict.INCOMPLETE,
            "not compared: y",
        ),
        (INEXACT, Verdict.WITHIN, "allowed"),
        # Samples speak against a proof.
        (dataclasses.replace(INEXACT, proven=True), Verdict.WITHIN, "allowed"),
        (
            Evidence((Verdict.DIFFERENT,), left_out=("y",), proven=True),
            Verdict.DIFFERENT,
            "an input shows it",
        ),
        (dataclasses.replace(INEXACT, bound="one step"), Verdict.PROVEN_WITHIN, "one step"),
        (Evidence((), left_out=("y",)), Verdict.INCOMPLETE, "not compared: y"),
    ],
    ids=lambda value: str(value) if isinstance(value, Verdict) else None,
)
def test_evidence_gives_a_verdict_and_the_sentence_it_rests_on(evidence, verdict, reason):
    found = decide(evidence)
    assert (found[0], reason in found[1]) == (verdict, True), found


def test_only_verdicts_of_agreement_hold():
    holding = [v for v in Verdict if v.holds]
    assert holding == ["PROVEN", "PROVEN_WITHIN", "EQUAL", "WITHIN"]
    assert [v for v in Verdict if not v.holds] == ["UNDECIDED", "INCOMPLETE", "DIFFERENT"]


def test_the_worst_verdict_stands_for_several():
    assert worst([Verdict.EQUAL, Verdict.UNDECIDED, Verdict.PROVEN]) is Verdict.UNDECIDED
    assert worst([]) is Verdict.INCOMPLETE


def reach(reached, unchanged=()):
    row = Coverage("q", 0, reached, 100, 100, 2, 2)
    return InputCoverage(quantizers=(row,), unchanged=unchanged)


def doubts(coverage):
    return list(unreached([Pair("y", "y", "y")], {}, coverage))


def test_half_of_the_thresholds_that_can_be_reached_back_equal_samples():
    floor = int(100 * COVERAGE_FLOOR)
    assert doubts(reach(floor)) == []
    (words,) = doubts(reach(floor - 1))
    assert "only 49 of 100 thresholds" in words


def test_an_output_that_never_changed_says_nothing():
    assert doubts(reach(100, ("y",))) == ["output 'y' was the same for all samples"]
    # Another model's output, or one that was waived, is nobody's business.
    assert doubts(reach(100, ("z",))) == []


# Models that a proof cannot tell apart, or must not.


def quantized(scale=0.25, bits=4.0, *nodes, outputs=("y",)):
    constants = {"s": scale, "z": 0.0, "b": bits}
    return model_of([quant_node("x", "q"), *nodes], {"x": ("N", 4)}, list(outputs), constants)


def relu(op="Relu", **attributes):
    return helper.make_node(op, ["q"], ["y"], name="act", **attributes)


def test_a_proof_comes_first_at_every_level_and_can_be_left_out():
    for level in ("output", "layer", "proof"):
        assert qh.check(quantized(0.25, 4, relu()), quantized(0.25, 4, relu()), level=level)
    proven = qh.check(quantized(0.25, 4, relu()), quantized(0.25, 4, relu()))
    assert (proven.verdict, proven.certificate["proven"]) == (Verdict.PROVEN, True)
    sampled = qh.check(quantized(0.25, 4, relu()), quantized(0.25, 4, relu()), proof_seconds=0)
    assert (sampled.verdict, sampled.certificate) == (Verdict.EQUAL, None)
    assert "thresholds that can be reached were crossed" in sampled.reason


def test_what_no_given_input_shows_is_undecided_where_a_layer_differs():
    # On positive inputs alone, no Relu can be told from none.
    a = quantized(0.25, 4, relu())
    b = quantized(0.25, 4, relu("Identity"))
    feeds = {"x": np.full((3, 4), 0.5, dtype=np.float32)}
    result = qh.check(a, b, feeds)
    assert (result.verdict, bool(result)) == (Verdict.UNDECIDED, False)
    shown = {"x": np.full((3, 4), -0.5, dtype=np.float32)}
    assert qh.check(a, b, shown).verdict is Verdict.DIFFERENT
    assert qh.check(a, b).verdict is Verdict.DIFFERENT


def test_given_inputs_back_equality_on_themselves_alone():
    feeds = {"x": np.zeros((3, 4), dtype=np.float32)}
    answer = qh.run(quantized(0.25, 4, relu()), feeds)
    result = qh.check(quantized(0.25, 4, relu()), answer, feeds)
    assert result.verdict is Verdict.EQUAL
    assert "equal on the 3 inputs given" in result.reason


def test_an_output_without_a_counterpart_is_never_equal():
    both = quantized(0.25, 4, relu(), outputs=("y", "q"))
    one = quantized(0.25, 4, relu())
    for a, b in ((both, one), (one, both)):
        result = qh.check(a, b)
        assert result.verdict is Verdict.INCOMPLETE
        assert "output 'q' of" in result.reason
        assert qh.check(a, b, ignore_outputs=["q"]).verdict is Verdict.PROVEN
    with pytest.raises(UsageError, match="'w' cannot be ignored"):
        qh.check(both, one, ignore_outputs=["w"])


def test_one_output_left_on_each_side_is_paired_by_position_and_that_is_said():
    node = helper.make_node("Relu", ["q"], ["logits"], name="act")
    renamed = quantized(0.25, 4, node, outputs=("logits", "q"))
    result = qh.check(quantized(0.25, 4, relu(), outputs=("y", "q")), renamed)
    assert result.verdict is Verdict.PROVEN
    assert "outputs paired by position: 'y' with 'logits'" in result.notes
    wrong = helper.make_node("LeakyRelu", ["q"], ["logits"], name="act")
    other = quantized(0.25, 4, wrong, outputs=("logits", "q"))
    assert qh.check(quantized(0.25, 4, relu(), outputs=("y", "q")), other).verdict is (
        Verdict.DIFFERENT
    )


# Noise, and what is none.


def with_split_sum(model, surgery, layer, reads):
    """Add the products of the first half of a layer's inputs to those of the second half."""
    other = surgery.copied(model)
    halves = [("a", 0, 8), ("b", 8, 16)]
    nodes, constants = [], {"axis0": np.array([0]), "axis1": np.array([1])}
    for key, start, stop in halves:
        constants |= {f"from_{key}": np.array([start]), f"to_{key}": np.array([stop])}
        cut = [f"from_{key}", f"to_{key}"]
        nodes += [
            surgery.make_node("Slice", [reads, *cut, "axis1"], f"x_{key}"),
            surgery.make_node("Slice", [f"{layer}.wt", *cut, "axis0"], f"w_{key}"),
            surgery.make_node("MatMul", [f"x_{key}", f"w_{key}"], f"part_{key}"),
        ]
    nodes.append(surgery.make_node("Add", ["part_a", "part_b"], layer))
    surgery.replace_node(other, layer, nodes, constants)
    return other


def test_an_order_of_sums_is_noise_unless_strict(nets, surgery):
    a = nets["mlp"]()
    other = with_split_sum(a, surgery, "y", "act2")
    result = qh.check(a, other)
    assert result.verdict is Verdict.WITHIN, result.table()
    assert "another order of float32 sums" in result.reason
    assert qh.check(a, other, strict=True).verdict is Verdict.DIFFERENT
    # A parameter that differs by one bit is no noise, however small its effect.
    surgery.change_constant(other, "bn2.shift", lambda x: np.nextafter(x, np.float32(9)))
    assert qh.check(a, other).verdict is Verdict.DIFFERENT


def test_noise_inside_is_said_where_no_output_shows_it(nets, surgery):
    a = nets["mlp"]()
    other = with_split_sum(a, surgery, "fc2", "act1")
    result = qh.check(a, other)
    assert {output.verdict for output in result.outputs} == {Verdict.EQUAL}
    assert result.verdict is Verdict.WITHIN
    assert qh.check(a, other, strict=True).verdict is Verdict.UNDECIDED


def test_a_value_at_zero_is_no_noise_without_a_sum():
    # BipolarQuant of a negative value: with a Relu in front it is one, else minus one.
    def bipolar(*front):
        domain = "qonnx.custom_op.general"
        reads = "r" if front else "x"
        node = helper.make_node("BipolarQuant", [reads, "s"], ["y"], name="y", domain=domain)
        return model_of([*front, node], {"x": ("N", 4)}, ["y"], {"s": 0.25})

    front = helper.make_node("Relu", ["x"], ["r"], name="front")
    assert qh.check(bipolar(front), bipolar()).verdict is Verdict.DIFFERENT


def test_parameters_are_compared_bit_by_bit():
    nearly = float(np.nextafter(np.float32(0.25), np.float32(1)))
    a, same, other = (qh.load(quantized(scale, 4, relu())) for scale in (0.25, 0.25, nearly))
    assert compare_parameters(a, same).changed == ()
    (words,) = compare_parameters(a, other).changed
    assert "scale" in words
    assert compare_parameters(a, None).changed == ()


def test_the_sign_of_a_zero_is_named_and_blamed_on_nobody(tmp_path):
    # 1 / -0.0 and 1 / 0.0: QONNX keeps the sign of a zero, DequantizeLinear does not.
    node = helper.make_node("Reciprocal", ["q"], ["y"], name="inverse")
    report = qh.convert(quantized(0.25, 4, node), tmp_path / "o.onnx", to="qcdq")
    assert report.verdict is Verdict.INCOMPLETE
    assert "the sign of a zero decides (Reciprocal 'inverse')" in report.conclusion()
    assert (tmp_path / "o.onnx").exists()
    assert not any("defect" in note for note in report.notes)


def two_outputs(*, split, last, limit=50.0):
    """Return a model of a sum and of a product of two inputs, which one node ends."""
    weights = np.random.default_rng(0).normal(size=(16, 8)) * 1e5
    constants: dict[str, object] = {"w": weights.astype(np.float32), "k": 1e-6}
    constants |= {"low": -limit, "high": limit}
    constants |= {f"i{k}": np.array([k], dtype=np.int64) for k in (0, 1, 8, 16)}
    sums = [helper.make_node("MatMul", ["x", "w"], ["h"], name="h")]
    if split:
        sums = [
            helper.make_node("Slice", ["x", "i0", "i8", "i1"], ["xa"], name="xa"),
            helper.make_node("Slice", ["x", "i8", "i16", "i1"], ["xb"], name="xb"),
            helper.make_node("Slice", ["w", "i0", "i8", "i0"], ["wa"], name="wa"),
            helper.make_node("Slice", ["w", "i8", "i16", "i0"], ["wb"], name="wb"),
            helper.make_node("MatMul", ["xa", "wa"], ["pa"], name="pa"),
            helper.make_node("MatMul", ["xb", "wb"], ["pb"], name="pb"),
            helper.make_node("Add", ["pa", "pb"], ["h"], name="h"),
        ]
    ends = {"Clip": ["m", "low", "high"], "Identity": ["m"]}
    nodes = [
        *sums,
        helper.make_node("Relu", ["h"], ["y"], name="y"),
        helper.make_node("Gather", ["x", "i0"], ["x0"], name="x0", axis=1),
        helper.make_node("Gather", ["x", "i1"], ["x1"], name="x1", axis=1),
        helper.make_node("Mul", ["x0", "x1"], ["m"], name="m"),
        helper.make_node(last, ends[last], ["c"], name="c"),
        helper.make_node("Mul", ["c", "k"], ["z"], name="z"),
    ]
    return model_of(nodes, {"x": ("N", 16)}, ["y", "z"], constants)


@pytest.fixture
def inputs_within_limits():
    x = np.random.default_rng(1).normal(size=(3000, 16))
    return np.clip(x, -3, 3).astype(np.float32)


@pytest.mark.parametrize("level", ["output", "layer"])
def test_noise_of_one_output_does_not_speak_for_another(inputs_within_limits, level):
    # 9 * 9 is clipped to 50, in the last sample alone; what that is worth is far less than
    # the rounding of the large sums beside it.
    x = np.concatenate([inputs_within_limits, np.zeros((1, 16), dtype=np.float32)])
    x[-1, :2] = 9
    a, b = two_outputs(split=False, last="Identity"), two_outputs(split=True, last="Clip")
    result = qh.check(a, b, {"x": x}, level=level, proof_seconds=0)
    assert result.verdict is Verdict.DIFFERENT, result.reason
    noisy = two_outputs(split=True, last="Identity")
    assert qh.check(a, noisy, {"x": x}, level=level, proof_seconds=0).verdict is Verdict.WITHIN


def test_the_worst_sample_of_each_output_is_looked_at_however_many_differ(
    inputs_within_limits, monkeypatch
):
    monkeypatch.setattr(noise, "MOST_RUNS", 0)
    x = np.concatenate([inputs_within_limits, np.zeros((1, 16), dtype=np.float32)])
    x[-1, :2] = 9
    a, b = two_outputs(split=False, last="Identity"), two_outputs(split=True, last="Clip")
    assert qh.check(a, b, {"x": x}, proof_seconds=0).verdict is Verdict.DIFFERENT
    result = qh.check(a, two_outputs(split=True, last="Identity"), {"x": x}, proof_seconds=0)
    # What was not looked at is not called noise.
    assert (result.verdict, bool(result)) == (Verdict.UNDECIDED, False)
    assert "on 0 samples that differ, and not on 3001 others" in result.reason


def test_a_difference_seen_beyond_a_bound_leaves_nothing_proven():
    bounds = (OutputBound("y", 1.0, None, 9.0), OutputBound("z", 2.0, None, 9.0))
    found = Certificate(False, 0, (), (), (), bounds=ModelBounds(bounds, True, ()))
    one, two = (
        summarize(tally(np.zeros(1), np.full(1, x), tolerance=Tolerance()), name, name, None)
        for name, x in (("y", 1.0), ("z", 2.0))
    )
    assert proven_bound(found, [one, two], None) == "outputs differ by at most 2"
    assert proven_bound(found, [dataclasses.replace(one, max_abs=1.001), two], None) == ""


def test_noise_does_not_hide_a_layer_that_differs_unseen(inputs_within_limits):
    # No product of two inputs is beyond 9: none is clipped.
    feeds = {"x": inputs_within_limits}
    a = two_outputs(split=False, last="Identity")
    for split in (False, True):
        b = two_outputs(split=split, last="Clip", limit=10.0)
        result = qh.check(a, b, feeds, proof_seconds=0)
        assert (result.verdict, bool(result)) == (Verdict.UNDECIDED, False)
        assert "layer 'c' differs given equal inputs" in result.reason


def test_scales_that_are_computed_are_given_to_both_sides_alike():
    # The scale of the integers is one number without axes, as its product with another is.
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], "dynamic"),
        helper.make_node("Mul", ["s", "w"], ["product"], "product"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["values"], "values"),
        helper.make_node("Mul", ["values", "product"], ["y"], "last"),
    ]
    model = model_of(nodes, {"x": (2, 6)}, ["y"], {"w": np.float32(0.5)}, domains=())
    result = qh.check(model, model, samples=8, proof_seconds=0)
    assert result.verdict is Verdict.EQUAL, result.reason


# What a failing input shows.


def test_a_failing_input_makes_outputs_differ_and_not_only_layers(nets, surgery):
    a = nets["cnn"]()
    other = surgery.copied(a)
    surgery.change_constant(other, "act1.scale", lambda s: s * np.float32(1.003))
    found = qh.check(a, other).failing
    outputs = [qh.run(model, found.feeds)["y"] for model in (a, other)]
    assert not np.array_equal(*outputs)
