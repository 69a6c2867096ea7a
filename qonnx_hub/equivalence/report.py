"""What a check found, as data, JSON and text."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from qonnx_hub.equivalence.compare import TensorComparison, Verdict


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first layer in which two models part, in the order in which the first computes.

    Attributes:
        source: Name of the source layer that both values stand for.
        comparison: The numbers.
    """

    source: str
    comparison: TensorComparison


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Whether two models agree, with the numbers. True where they are equal or within bounds.

    Attributes:
        a: The reference side.
        b: The other side.
        verdict: The worst verdict of all outputs.
        outputs: One comparison per output.
        samples: Length of the inputs' first axis.
        inputs: Where the inputs came from.
        layers: How many inner values were compared, where the check went that deep.
        first_divergence: The first layer that differs; ``None`` where none does or none was
            compared.
        notes: Sentences that a user should read.
    """

    a: str
    b: str
    verdict: Verdict
    outputs: tuple[TensorComparison, ...]
    samples: int
    inputs: str
    layers: int = 0
    first_divergence: Divergence | None = None
    notes: tuple[str, ...] = field(default=())

    def __bool__(self) -> bool:
        """Return whether the models agree."""
        return self.verdict is not Verdict.DIFFERENT

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data."""
        data = asdict(self)
        data["verdict"] = str(self.verdict)
        data["outputs"] = [output.to_dict() for output in self.outputs]
        if self.first_divergence is not None:
            data["first_divergence"]["comparison"] = self.first_divergence.comparison.to_dict()
        return data

    def to_json(self) -> str:
        """Return the result as JSON; infinities and NaN become strings."""
        return json.dumps(plain(self.to_dict()), indent=2)

    def summary(self) -> str:
        """Return the result in one line."""
        compared = sum(output.count for output in self.outputs)
        differing = sum(output.differing for output in self.outputs)
        worst = max((output.max_abs for output in self.outputs), default=0.0)
        text = f"{self.verdict}: {differing} of {compared} output values differ"
        if differing:
            text += f", by {worst:.6g} at most"
        return f"{text} ({self.samples} samples, {self.inputs})"


def plain(value: Any) -> Any:
    """Return data that strict JSON can say: numbers beyond it become strings."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):
        return str(value)
    return value
