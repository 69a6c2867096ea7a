"""What a check found, as data, JSON and text."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

import numpy as np

from qonnx_hub.equivalence.comparison.compare import TensorComparison
from qonnx_hub.equivalence.comparison.scores import Score
from qonnx_hub.equivalence.diagnosis.minimize import FailingInput
from qonnx_hub.equivalence.diagnosis.quantizer_causes import Cause, Explanation
from qonnx_hub.equivalence.inputs.coverage import BendCoverage, Coverage
from qonnx_hub.equivalence.reports.page import check_page
from qonnx_hub.equivalence.reports.text import describe_result
from qonnx_hub.equivalence.verdicts import Verdict
from qonnx_hub.reporting.pages.page import Page
from qonnx_hub.reporting.pages.pictures import GraphStep
from qonnx_hub.reporting.plain_data import plain
from qonnx_hub.reporting.report import Part, Report

_PACKAGES = ("qonnx-hub", "numpy", "onnx", "onnx-ir", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first layer that differs, in the order in which the reference computes.

    Attributes:
        source: Name of the source layer that both values stand for.
        comparison: The numbers.
    """

    source: str
    comparison: TensorComparison


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer of a check.

    Attributes:
        source: Name of the source layer.
        comparison: The error that has accumulated up to it.
        isolated: Its own error, on the reference's values before it, for the inputs that show
            a difference; ``None`` where that is not known.
        constant: Whether it is a stored value.
    """

    source: str
    comparison: TensorComparison
    isolated: TensorComparison | None = None
    constant: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain data."""
        return {
            "source": self.source,
            "constant": self.constant,
            "accumulated": self.comparison.to_dict(),
            "isolated": None if self.isolated is None else self.isolated.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class QuantizerRow:
    """One quantizer of the reference.

    Attributes:
        layer: Name of its layer.
        words: What it does.
        weight: Whether it quantizes a stored value.
    """

    layer: str
    words: str
    weight: bool


@dataclass(frozen=True, slots=True, repr=False)
class CheckResult(Report):
    """Whether two models agree, with the numbers. True where the verdict holds.

    Attributes:
        a: The reference side.
        b: The other side.
        verdict: What all of it comes to.
        outputs: One comparison per output.
        samples: Length of the inputs' first axis.
        inputs: Where the inputs came from.
        layers: How many inner values were compared, where the check went that deep.
        first_divergence: The first layer that differs; ``None`` where none does or none was
            compared.
        notes: Sentences that a user should read.
        findings: Why they differ, in the order of the layers.
        latent: How quantizers differ on values that no input brought about.
        layer_rows: The inner values that were compared, in order.
        failing: The smallest input found that shows a difference.
        coverage: Thresholds that the inputs met, quantizer by quantizer.
        bends: Of each Relu, Clip and their like, how many of its pieces the inputs met.
        unchanged: Outputs that were the same for all samples.
        sizes: Open axis of the inputs -> the sizes that were run.
        effort: How much was searched for the inputs; "" where they were not searched for.
        score: Predictions of both sides, where they were counted.
        accepted: Whether bounds on predictions are kept; ``None`` where none are given. Where
            they are, the result is true by them alone.
        acceptance: The bounds in words.
        certificate: What was proven, as plain data, where a proof was asked for.
        accumulators: Range and width of every accumulator, where a proof was asked for.
        quantizers: The reference's quantizers.
        seed: Seed of generated inputs.
        environment: Versions that the numbers were made with.
        reason: What the verdict rests on, in one sentence.
        stages: The reference's graph in few boxes, for its picture; not in JSON.
    """

    schema: ClassVar[str] = "check/1"
    heading: ClassVar[str] = "Equivalence check"

    a: str
    b: str
    verdict: Verdict
    outputs: tuple[TensorComparison, ...]
    samples: int
    inputs: str
    layers: int = 0
    first_divergence: Divergence | None = None
    notes: tuple[str, ...] = field(default=())
    findings: tuple[Explanation, ...] = ()
    latent: tuple[Explanation, ...] = ()
    layer_rows: tuple[LayerRow, ...] = ()
    failing: FailingInput | None = None
    coverage: tuple[Coverage, ...] = ()
    bends: tuple[BendCoverage, ...] = ()
    unchanged: tuple[str, ...] = ()
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    effort: str = ""
    score: Score | None = None
    accepted: bool | None = None
    acceptance: str = ""
    certificate: dict[str, Any] | None = None
    accumulators: tuple[dict[str, Any], ...] = ()
    quantizers: tuple[QuantizerRow, ...] = ()
    seed: int | None = None
    environment: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    stages: tuple[GraphStep, ...] = field(default=(), compare=False)

    def __bool__(self) -> bool:
        """Return whether the models agree, or, where bounds are given, keep them."""
        return self.verdict.holds if self.accepted is None else self.accepted

    @property
    def epsilon(self) -> float:
        """The largest absolute difference of outputs: they are epsilon-equivalent."""
        return max((output.max_abs for output in self.outputs), default=0.0)

    @property
    def cause(self) -> Cause | None:
        """The first cause found."""
        return self.findings[0].cause if self.findings else None

    def required_tolerance(self) -> dict[str, float]:
        """Return the tolerances each of which alone would let every output pass.

        Empty where no tolerance is needed, or none would do.
        """
        differing = [o for o in self.outputs if o.differing]
        if not differing or not all(np.isfinite(o.max_abs) for o in differing):
            return {}
        needed = {"atol": max(o.max_abs for o in differing)}
        relative = max(o.required_rtol for o in differing)
        if np.isfinite(relative):
            needed["rtol"] = relative
        steps = [o.max_lsb for o in differing]
        if all(s is not None and np.isfinite(s) for s in steps):
            needed["lsb"] = max(float(np.ceil(s - 1e-6)) for s in steps if s is not None)
        return needed

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data, fit for JSON; infinities and NaN become strings."""
        names = [f.name for f in fields(self) if f.name != "stages"]
        data = {name: plain(getattr(self, name)) for name in names}
        return {**data, "required_tolerance": plain(self.required_tolerance())}

    def page(self) -> Page:
        """Return the page: verdict, causes, graph, charts, layers, quantizers, versions."""
        return check_page(self)

    def parts(self) -> Iterator[Part]:
        """Give the outputs, the layers from the first difference on, causes and verdict."""
        yield from describe_result(self)

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per inner value compared, then one per output."""
        layers = [
            {"what": "layer", "source": row.source, "constant": row.constant}
            | row.comparison.to_dict()
            for row in self.layer_rows
        ]
        outputs = [{"what": "output", **one.to_dict()} for one in self.outputs]
        return [plain(row) for row in (*layers, *outputs)]

    def sides(self) -> str:
        """Return what ran on either side."""
        return f"{self.a} against {self.b}"

    def summary(self) -> str:
        """Return the result in one line."""
        compared = sum(output.count for output in self.outputs)
        differing = sum(output.differing for output in self.outputs)
        worst = max((output.max_abs for output in self.outputs), default=0.0)
        text = f"{self.verdict}: {differing} of {compared} output values differ"
        if differing:
            text += f", by {worst:.6g} at most"
        text += f" ({self.samples} samples, {self.inputs})"
        return "; ".join(filter(None, (text, self.reason, self.acceptance)))


def describe_environment() -> dict[str, str]:
    """Return the versions that numbers depend on."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
