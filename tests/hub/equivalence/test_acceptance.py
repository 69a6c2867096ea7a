"""Acceptance on data: what is counted, what is allowed, and that the bounds alone decide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub.equivalence.acceptance import Acceptance, judged
from qonnx_hub.equivalence.comparison.scores import (
    ScoreSpec,
    area_under_curve,
    score_predictions,
)
from qonnx_hub.io.preprocessing import parse_preprocessing
from tests.support import model_of

A = np.array([[3, 2, 1], [1, 3, 2], [2, 1, 3], [3, 1, 2]], np.float32)
B = np.array([[3, 2, 1], [3, 2, 1], [2, 1, 3], [1, 3, 2]], np.float32)
LABELS = np.array([0, 1, 2, 2])
"""Best classes 0 1 2 0 and 0 0 2 1."""


def bias(value: float, *, last: str = "") -> onnx.ModelProto:
    """x + value in its first column, for three classes or another ending."""
    add = np.array([value, 0, 0], np.float32)
    nodes = [helper.make_node("Add", ["x", "w"], ["s" if last else "y"], "add")]
    if last:
        nodes.append(helper.make_node(last, ["s"], ["y"], "end"))
    return model_of(nodes, {"x": ("N", 3)}, ["y"], {"w": add})


def test_predictions_are_counted_as_by_hand() -> None:
    score = score_predictions(A, B, LABELS)
    assert (score.changed, score.correct, score.agreement) == (2, (3, 2), 0.5)
    assert score.moved == {(1, 0): 1, (0, 1): 1}
    best_two = score_predictions(A, B, LABELS, ScoreSpec(top_k=2))
    # A's best two hold the label in all rows; B's 0 1, 0 1, 2 0, 1 2 as well. A's class 0 is
    # not among B's best two in the last row alone.
    assert (best_two.correct, best_two.agreement) == ((4, 4), 0.75)


def test_halves_add_up_to_the_whole() -> None:
    for spec in (ScoreSpec(), ScoreSpec(top_k=2), ScoreSpec("auc"), ScoreSpec("r2")):
        labels = B * 2 if spec.metric == "r2" else LABELS
        whole = score_predictions(A, B, labels, spec)
        parts = [
            score_predictions(A[k], B[k], labels[k], spec) for k in (np.s_[:1], np.s_[1:])
        ]
        assert (parts[0] + parts[1]).to_dict() == whole.to_dict()


def test_a_score_that_is_nan_predicts_nothing() -> None:
    bad = A.copy()
    bad[0, 1] = np.nan
    score = score_predictions(A, bad, LABELS)
    assert (score.changed, score.correct, score.moved) == (1, (3, 2), {(0, -1): 1})


def test_the_area_under_the_curve_is_that_of_pairs() -> None:
    rng = np.random.default_rng(3)
    scores, classes = rng.integers(0, 6, (40, 1)).astype(np.float32), rng.integers(0, 2, 40)
    yes, no = scores[classes == 1, 0], scores[classes == 0, 0]
    # By hand: of every pair of samples, the share that is in order; ties count half.
    pairs = np.mean([(p > n) + 0.5 * (p == n) for p in yes for n in no])
    assert area_under_curve(scores, classes) == pytest.approx(pairs, abs=1e-12)
    with pytest.raises(qh.UsageError, match="needs samples of the class"):
        area_under_curve(scores, np.ones(40))


def test_numbers_have_distances_and_r2() -> None:
    truth = np.array([[1.0], [2.0], [4.0]])
    a = truth + np.array([[0.0], [1.0], [0.0]])
    b = truth + np.array([[0.0], [0.0], [2.0]])
    score = score_predictions(a, b, truth, ScoreSpec("r2"))
    assert score.residuals is not None
    assert (score.residuals.largest, score.residuals.total) == (2.0, 3.0)
    # Squares around the mean 7/3 sum up to 14/3.
    assert score.values() == pytest.approx((1 - 3 / 14, 1 - 12 / 14))


@pytest.mark.parametrize(
    ("wanted", "accepted"),
    [
        (Acceptance(max_accuracy_drop=0.25), True),
        (Acceptance(max_accuracy_drop=0.2), False),
        (Acceptance(min_agreement=0.5), True),
        (Acceptance(min_agreement=0.51), False),
        (Acceptance(max_accuracy_drop=0.25, min_agreement=0.6), False),
        (Acceptance(), None),
    ],
)
def test_bounds_are_met_exactly_or_not(wanted: Acceptance, accepted: bool | None) -> None:
    # Accuracies 3/4 and 2/4; half of the predictions agree.
    assert judged(wanted, score_predictions(A, B, LABELS))[0] is accepted


def test_the_bounds_alone_decide_and_the_report_says_so() -> None:
    x = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0.75, 0]], np.float32)
    labels = x.argmax(axis=1)
    models = bias(0), bias(0.875)
    plain = qh.check(*models, x, labels=labels)
    assert not plain
    assert plain.accepted is None
    loose = qh.check(*models, x, labels=labels, max_accuracy_drop=0.25)
    strict = qh.check(*models, x, labels=labels, max_accuracy_drop=0.2)
    assert (bool(loose), bool(strict)) == (True, False)
    assert str(loose.verdict) == "DIFFERENT"
    assert "the bounds alone decide" in loose.summary()
    # One of four predictions moves from class 1 to class 0; scores are 0.875 apart.
    assert "from class 1 to 0 1 times" in loose.table()
    assert (
        "epsilon-equivalent on these inputs with epsilon 0.875; top-1-equivalent on 3 of 4"
        in (" ".join(loose.table(300).split()))
    )


def test_a_single_score_between_0_and_1_says_yes_from_one_half_on() -> None:
    w = np.zeros((1, 1), np.float32)
    nodes = [
        helper.make_node("Add", ["x", "w"], ["s"], "add"),
        helper.make_node("Sigmoid", ["s"], ["y"], "end"),
    ]
    model = model_of(nodes, {"x": ("N", 1)}, ["y"], {"w": w})
    x = np.array([[-2.0], [-1.0], [1.0], [2.0]], np.float32)
    result = qh.check(model, model, x, labels=np.array([0, 0, 1, 1]))
    assert result.score is not None
    assert result.score.correct == (4, 4)
    higher = qh.check(model, model, x, labels=np.array([0, 0, 0, 1]), threshold=0.8)
    assert higher.score is not None
    assert higher.score.correct == (4, 4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"min_agreement": 0.9}, "need data of yours"),
        ({"inputs": A, "max_accuracy_drop": 0.1}, "needs --labels"),
        ({"inputs": A, "min_agreement": 90}, "share from 0 to 1"),
        ({"inputs": A, "min_agreement": 0.9, "metric": "r2"}, "--atol and --rtol"),
        ({"preprocess": "scale=1/255"}, "data of yours"),
        ({"inputs": A, "preprocess": "scal=1/255"}, "no 'scal'"),
        ({"inputs": A, "preprocess": "scale=1/0"}, "divided by zero"),
        ({"inputs": A, "preprocess": "scale=nan"}, "a number is infinite, or none"),
        ({"inputs": A, "preprocess": "mean=inf"}, "a number is infinite, or none"),
        ({"inputs": A, "preprocess": "mean=[1,2]"}, "2 numbers are given for 3 channels"),
    ],
)
def test_bounds_that_mean_nothing_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(qh.UsageError, match=words.replace("[", r"\[")):
        qh.check(bias(0), bias(0), **options)  # type: ignore[arg-type]


def test_images_of_bytes_are_prepared_as_image_libraries_do() -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3)).astype(np.uint8)
    found = parse_preprocessing(
        "scale=1/255,mean=[0.485,0.456,0.406],std=[0.229,0.224,0.225],layout=nhwc"
    )(image, ("N", 3, 4, 5))
    mean = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
    std = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)
    x = image.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(found, (x - mean) / std)
    kept = parse_preprocessing("layout=nhwc")(image, (None, 4, 5, 3))
    assert kept.shape == image.shape
    with pytest.raises(qh.UsageError, match="no order"):
        parse_preprocessing("layout=nhwc")(image, (None, 1, 4, 5))


def test_prepared_data_is_what_both_sides_read() -> None:
    pixels = np.array([[0, 51, 255], [255, 0, 102]], np.uint8)
    x = pixels.astype(np.float32) / np.float32(255)
    given = qh.check(bias(0), bias(0.5), x, level="output")
    prepared = qh.check(bias(0), bias(0.5), pixels, level="output", preprocess="scale=1/255")
    assert prepared.outputs == given.outputs


def test_archives_of_one_array_are_data(tmp_path: Path) -> None:
    from qonnx_hub.cli.data import read_feeds

    np.savez(tmp_path / "x.npz", images=A)
    feeds, _ = read_feeds(None, tmp_path / "x.npz", None, ["x"])
    assert feeds is not None
    np.testing.assert_array_equal(feeds["x"], A)
    np.savez(tmp_path / "two.npz", x=A, y=LABELS)
    with pytest.raises(qh.UsageError, match="holds 2 arrays"):
        read_feeds(None, tmp_path / "two.npz", None, ["x"])


def test_a_conversion_and_a_transformation_that_keep_the_bounds_are_written(
    tmp_path: Path,
) -> None:
    data = {"labels": LABELS, "max_accuracy_drop": 0.0, "min_agreement": 1.0}
    done = qh.convert(bias(0.0), tmp_path / "c.onnx", inputs=A, **data)
    assert (bool(done), done.data.accepted, (tmp_path / "c.onnx").exists()) == (True,) * 3
    assert "accepted" in done.conclusion()
    assert done.to_dict()["data"]["accepted"] is True
    steps = ["change_batch:batch=4"]
    made = qh.transform(bias(0.0), steps, tmp_path / "t.onnx", inputs=A, **data)
    assert (made.check.accepted, (tmp_path / "t.onnx").exists()) == (True, True)


def test_where_a_bound_is_not_kept_nothing_is_written(tmp_path: Path) -> None:
    # In whole steps, 1.0 and 1.4 are one number: the first class is the best of both.
    x = np.array([[1.0, 1.4, 0.0], [2.0, 1.0, 0.0]], np.float32)
    fixed = ["quantize_fixed_point:bits=4,integer_bits=4"]
    # Without bounds, the pass may change values: it says so.
    free = qh.transform(bias(0.0), fixed, tmp_path / "t.onnx", inputs=x)
    assert free.check.score.changed == 1
    (tmp_path / "t.onnx").unlink()
    with pytest.raises(qh.HubError, match=r"not accepted: .*nothing was written"):
        qh.transform(bias(0.0), fixed, tmp_path / "t.onnx", inputs=x, min_agreement=1.0)
    assert not (tmp_path / "t.onnx").exists()


def test_bounds_without_data_are_refused() -> None:
    with pytest.raises(qh.UsageError, match="need data"):
        qh.convert(bias(0.0), min_agreement=0.9)
