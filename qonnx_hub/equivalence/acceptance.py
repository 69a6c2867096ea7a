"""Acceptance on data: how much may be lost, and whether it was."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx_ir import Model

from qonnx_hub.equivalence.comparison.scores import Score, ScoreSpec
from qonnx_hub_ir.analysis.value_ranges import infer_values
from qonnx_hub_ir.choices import Metric
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.graph.queries import dims


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What a user accepts; where a bound is given, the answer is by the bounds alone.

    Attributes:
        max_accuracy_drop: How much of the metric may be lost; 0.01 is one point of a hundred.
        min_agreement: Share of the samples on which the predictions must agree, from 0 to 1.
        metric: What is measured: "accuracy", "auc" or "r2".
        top_k: A class counts among so many of the best.
        threshold: From which score on a single output says yes; by default 0, and 0.5 where
            the output lies between 0 and 1.
    """

    max_accuracy_drop: float | None = None
    min_agreement: float | None = None
    metric: Metric = "accuracy"
    top_k: int = 1
    threshold: float | None = None

    def __post_init__(self) -> None:
        """Refuse bounds that mean nothing."""
        if self.max_accuracy_drop is not None and not 0 <= self.max_accuracy_drop <= 1:
            raise UsageError(
                f"--max-accuracy-drop is a share from 0 to 1, not {self.max_accuracy_drop}; "
                "0.01 is one point of a hundred"
            )
        if self.min_agreement is not None and not 0 <= self.min_agreement <= 1:
            raise UsageError(
                f"--min-agreement is a share from 0 to 1, not {self.min_agreement}"
            )
        if self.min_agreement is not None and self.metric == "r2":
            raise UsageError("--min-agreement counts classes; numbers have --atol and --rtol")
        if self.top_k < 1:
            raise UsageError(f"--top-k is at least 1, not {self.top_k}")

    @property
    def is_given(self) -> bool:
        """Whether there is a bound."""
        return self.max_accuracy_drop is not None or self.min_agreement is not None

    @property
    def scores(self) -> bool:
        """Whether predictions are counted, for a bound or by wish."""
        return self.is_given or self != Acceptance()

    def spec(self, model: Model | None) -> ScoreSpec:
        """Return how predictions are counted, with a threshold that fits a model's output."""
        own = _threshold(model) if self.threshold is None else self.threshold
        return ScoreSpec(self.metric, self.top_k, own)

    def require_data(self, *, has_inputs: bool, has_labels: bool) -> None:
        """Refuse bounds that nothing could show to be kept.

        Raises:
            UsageError: Inputs are missing, or labels.
        """
        if self.is_given and not has_inputs:
            raise UsageError("bounds on predictions need data of yours: --data or --inputs")
        if self.max_accuracy_drop is not None and not has_labels:
            raise UsageError("--max-accuracy-drop needs --labels")


def _threshold(model: Model | None) -> float:
    """Return from which score on a single output says yes: halfway, between 0 and 1."""
    if model is None or not model.graph.outputs:
        return 0.0
    first = model.graph.outputs[0]
    if any(isinstance(size, int) and size != 1 for size in (dims(first) or ())[1:]):
        return 0.0  # one score per class
    found = infer_values(model).get(str(first.name))
    within = found is not None and np.min(found.low) >= 0 and np.max(found.high) <= 1
    return 0.5 if within else 0.0


def judged(wanted: Acceptance, score: Score | None) -> tuple[bool | None, str]:
    """Return whether bounds are kept, and in words how; ``None`` without bounds."""
    if not wanted.is_given:
        return None, ""
    if score is None:
        return False, "not accepted: the first output was not compared"
    kept, words = [], []
    values = score.values()
    if wanted.max_accuracy_drop is not None and values is not None:
        # Shares are counts over counts: what is lost is compared beyond their rounding.
        lost = round(values[0] - values[1], 12)
        kept.append(lost <= wanted.max_accuracy_drop)
        words.append(
            f"{wanted.metric} falls by {lost:.6g} ({values[0]:.6g} to {values[1]:.6g}), "
            f"{wanted.max_accuracy_drop:g} is allowed"
        )
    if wanted.min_agreement is not None:
        kept.append(score.agreement >= wanted.min_agreement)
        words.append(
            f"predictions agree on {score.agreement:.6g} of the samples, "
            f"{wanted.min_agreement:g} is wanted"
        )
    accepted = bool(kept) and all(kept)
    what = "accepted" if accepted else "not accepted"
    return accepted, f"{what}: {'; '.join(words)}; the bounds alone decide"
