"""Predictions of both sides: how many agree, how many are right, how far numbers are apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qonnx_hub_ir.choices import Metric
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.quantizers import Array


@dataclass(frozen=True, slots=True)
class ScoreSpec:
    """How predictions are counted.

    Attributes:
        metric: "accuracy" of classes, "auc" of their scores, or "r2" of numbers.
        top_k: A class is right, or agreed on, among so many of the best.
        threshold: From which score on a single output says yes.
    """

    metric: Metric = "accuracy"
    top_k: int = 1
    threshold: float = 0.0


@dataclass(frozen=True, slots=True)
class Residuals:
    """How far numbers are apart: between the sides, and of each side from the right ones.

    Attributes:
        count: How many numbers.
        largest: The largest absolute difference between the sides.
        total: The sum of the absolute differences between the sides.
        squared: Of each side, the sum of squared distances from the right numbers.
        truth: Sum of the right numbers, and of their squares; ``None`` without any.
    """

    count: int
    largest: float
    total: float
    squared: tuple[float, float] = (0.0, 0.0)
    truth: tuple[float, float] | None = None

    def __add__(self, later: Residuals) -> Residuals:
        """Return those of both runs."""
        truth = None
        if self.truth is not None and later.truth is not None:
            truth = (self.truth[0] + later.truth[0], self.truth[1] + later.truth[1])
        return Residuals(
            self.count + later.count,
            max(self.largest, later.largest),
            self.total + later.total,
            (self.squared[0] + later.squared[0], self.squared[1] + later.squared[1]),
            truth,
        )


@dataclass(frozen=True, slots=True)
class Score:
    """Predictions of both sides.

    Attributes:
        samples: How many predictions.
        changed: How many the other side makes differently.
        correct: How many of each side are right; ``None`` without labels.
        spec: How they are counted.
        agreeing: For how many the reference's class is among the other side's best.
        moved: (class of the reference, class of the other side) -> how often; -1 stands for
            scores that hold a NaN.
        residuals: Distances of numbers, for the metric "r2".
        ranked: Scores of both sides and right classes, for the metric "auc".
    """

    samples: int
    changed: int
    correct: tuple[int, int] | None
    spec: ScoreSpec = ScoreSpec()
    agreeing: int = 0
    moved: Mapping[tuple[int, int], int] = field(default_factory=dict)
    residuals: Residuals | None = None
    ranked: tuple[Array, Array, Array] | None = None

    def __add__(self, later: Score) -> Score:
        """Return the score of both runs."""
        correct = residuals = ranked = None
        if self.correct is not None and later.correct is not None:
            correct = (
                self.correct[0] + later.correct[0],
                self.correct[1] + later.correct[1],
            )
        if self.residuals is not None and later.residuals is not None:
            residuals = self.residuals + later.residuals
        if self.ranked is not None and later.ranked is not None:
            first, second, truth = (
                np.concatenate(parts) for parts in zip(self.ranked, later.ranked, strict=True)
            )
            ranked = (first, second, truth)
        return Score(
            self.samples + later.samples,
            self.changed + later.changed,
            correct,
            self.spec,
            self.agreeing + later.agreeing,
            dict(Counter(self.moved) + Counter(later.moved)),
            residuals,
            ranked,
        )

    @property
    def agreement(self) -> float:
        """Share of the samples on which the sides predict the same, from 0 to 1."""
        return self.agreeing / self.samples

    def values(self) -> tuple[float, float] | None:
        """Return the metric of both sides; ``None`` without labels."""
        if self.residuals is not None:
            return _r2(self.residuals)
        if self.ranked is not None:
            first, second, truth = self.ranked
            return area_under_curve(first, truth), area_under_curve(second, truth)
        if self.correct is None:
            return None
        return self.correct[0] / self.samples, self.correct[1] / self.samples

    def to_dict(self) -> dict[str, Any]:
        """Return the score as plain data."""
        data: dict[str, Any] = {"samples": self.samples, "changed": self.changed}
        if self.residuals is not None:
            data["max_abs"] = self.residuals.largest
            data["mean_abs"] = self.residuals.total / self.residuals.count
        else:
            data |= {"top_k": self.spec.top_k, "agreement": self.agreement}
            data["moved"] = [[*pair, count] for pair, count in sorted(self.moved.items())]
        values = self.values()
        if values is not None:
            data[self.spec.metric] = list(values)
        return data


def score_predictions(
    a: Array, b: Array, labels: Array | None, spec: ScoreSpec = ScoreSpec()
) -> Score:
    """Return how predictions compare: the largest of several scores, or one and a threshold.

    Args:
        a: Outputs of the reference, the first axis over samples.
        b: Outputs of the other side.
        labels: The right class of every sample, or one number per class; for the metric "r2"
            the right numbers.
        spec: How predictions are counted.

    Raises:
        UsageError: There are other numbers of samples and labels, or labels that do not fit.
    """
    rows, others = (x.reshape(x.shape[0] if x.ndim else 1, -1) for x in (a, b))
    if labels is not None and len(labels) != len(rows):
        raise UsageError(f"there are {len(labels)} labels for {len(rows)} samples")
    truth = None if labels is None else np.asarray(labels).reshape(len(rows), -1)
    if spec.metric == "r2":
        return _of_numbers(rows, others, truth, spec)
    classes = None
    if truth is not None:
        classes = truth.argmax(axis=1) if truth.shape[1] > 1 else truth[:, 0]
    first, second = _best(rows, spec), _best(others, spec)
    changed = first[:, 0] != second[:, 0]
    correct = None
    if classes is not None:
        hits = [(found == classes[:, None]).any(axis=1) for found in (first, second)]
        correct = (int(hits[0].sum()), int(hits[1].sum()))
    moved = zip(first[changed, 0].tolist(), second[changed, 0].tolist(), strict=True)
    ranked = None
    if spec.metric == "auc" and classes is not None:
        ranked = (rows, others, classes)
    return Score(
        len(rows),
        int(changed.sum()),
        correct,
        spec,
        int((second == first[:, :1]).any(axis=1).sum()),
        dict(Counter(moved)),
        ranked=ranked,
    )


def _best(rows: Array, spec: ScoreSpec) -> Array:
    """Return the classes of the highest scores, the best first; -1 where a score is NaN."""
    if rows.shape[1] == 1:
        found = (rows > spec.threshold).astype(np.int64)
    elif spec.top_k == 1:
        found = rows.argmax(axis=1)[:, None]
    else:
        # Of equal scores the first counts, as with argmax.
        found = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, : spec.top_k]
    unknown = (rows != rows).any(axis=1)
    return np.asarray(np.where(unknown[:, None], np.int64(-1), found))


def _of_numbers(rows: Array, others: Array, truth: Array | None, spec: ScoreSpec) -> Score:
    x, y = rows.astype(np.float64), others.astype(np.float64)
    apart = np.abs(x - y)
    squared, sums = (0.0, 0.0), None
    if truth is not None:
        if truth.shape != x.shape:
            raise UsageError(
                f"the labels hold {truth.shape[1]} numbers per sample, the outputs "
                f"{x.shape[1]}: for the metric r2 they must be as many"
            )
        right = truth.astype(np.float64)
        squared = (float(((x - right) ** 2).sum()), float(((y - right) ** 2).sum()))
        sums = (float(right.sum()), float((right**2).sum()))
    found = Residuals(x.size, float(apart.max(initial=0.0)), float(apart.sum()), squared, sums)
    changed = int((apart != 0).any(axis=1).sum())
    return Score(
        len(rows),
        changed,
        None,
        spec,
        len(rows) - changed,
        residuals=found,
    )


def _r2(found: Residuals) -> tuple[float, float] | None:
    """Return 1 minus the squared error over the variance of the right numbers, per side."""
    if found.truth is None:
        return None
    spread = found.truth[1] - found.truth[0] ** 2 / found.count
    if spread <= 0:
        raise UsageError("all right numbers are the same: r2 is not defined")
    return 1 - found.squared[0] / spread, 1 - found.squared[1] / spread


def area_under_curve(scores: Array, classes: Array) -> float:
    """Return the area under the ROC curve; of several classes, the mean of one against all.

    Args:
        scores: One column of scores, or one per class; of two columns the second counts.
        classes: The right class of every row.

    Raises:
        UsageError: A class that is to be told from the others has all samples, or none; a NaN.

    Example:
        >>> area_under_curve(np.array([[0.1], [0.4], [0.35], [0.8]]), np.array([0, 0, 1, 1]))
        0.75
    """
    if (scores != scores).any():
        raise UsageError("scores hold a NaN: there is no order to take an area of")
    if scores.shape[1] < 3:
        return _area(scores[:, -1], classes == 1)
    present = [k for k in range(scores.shape[1]) if (classes == k).any()]
    return float(np.mean([_area(scores[:, k], classes == k) for k in present]))


def _area(scores: Array, positive: Array) -> float:
    """Return how often a positive sample scores above another one; ties count half."""
    count = int(positive.sum())
    others = len(positive) - count
    if not count or not others:
        raise UsageError("the area under the curve needs samples of the class, and others")
    _, places, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    # The mean rank of equal scores, from 1 on.
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[places]
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))
