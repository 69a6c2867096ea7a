"""What the inputs of a check reached: thresholds, limits, both sides of each bend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many thresholds of a quantizer the inputs met on both sides.

    Quantizers of more than 8 bits are counted in 256 bands of equal width, not code by code.

    Attributes:
        layer: Name of its layer.
        exercised: Thresholds with two inputs so close that nothing lies between them, or next
            to it, one on each side.
        reached: Thresholds with inputs on both sides.
        total: All thresholds of the quantizer.
        reachable: Thresholds that some input can have on both sides, as far as ranges tell:
            ``reached <= reachable <= total``.
        ends: Of the lowest and the highest code, how many an input led to.
        reachable_ends: How many of the two can be reached.
    """

    layer: str
    exercised: int
    reached: int
    total: int
    reachable: int
    ends: int
    reachable_ends: int


@dataclass(frozen=True, slots=True)
class BendCoverage:
    """Whether the inputs led to both sides of where a node bends (Relu, Clip, LeakyRelu).

    Attributes:
        layer: Name of its layer.
        reached: Pieces of the function (Relu: below zero, above) that some element met.
        reachable: Pieces that can be met, as far as ranges tell.
    """

    layer: str
    reached: int
    reachable: int


@dataclass(frozen=True, slots=True)
class InputCoverage:
    """What the inputs of a check reached in the reference.

    Attributes:
        quantizers: Of each quantizer that is computed at run time.
        bends: Of each node that bends.
        unchanged: Outputs that were the same for every sample, though they depend on an input.
            For an ArgMax or TopK at the end the value in front of it counts.
        sizes: Open axis -> the sizes that were run.
        effort: How much was searched: "quick", "normal" or "thorough"; "" for given inputs.
        measured: Whether the model could be watched while it ran; nothing is known otherwise.

    Example:
        >>> coverage = measure_coverage(model, [{"x": x}])
        >>> coverage.share  # of all reachable thresholds
        0.93
    """

    quantizers: tuple[Coverage, ...] = ()
    bends: tuple[BendCoverage, ...] = ()
    unchanged: tuple[str, ...] = ()
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    effort: str = ""
    measured: bool = True

    @property
    def reached(self) -> int:
        """Thresholds of all quantizers with inputs on both sides."""
        return sum(row.reached for row in self.quantizers)

    @property
    def reachable(self) -> int:
        """Thresholds of all quantizers that some input can have on both sides."""
        return sum(row.reachable for row in self.quantizers)

    @property
    def share(self) -> float:
        """Share of the reachable thresholds with inputs on both sides; 1.0 without any."""
        return self.reached / self.reachable if self.reachable else 1.0

    @property
    def one_sided(self) -> tuple[str, ...]:
        """Layers that bend of which the inputs met one side only."""
        return tuple(row.layer for row in self.bends if row.reached < row.reachable)

    @property
    def stuck(self) -> tuple[str, ...]:
        """Quantizers with reachable thresholds of which no input crossed any."""
        return tuple(row.layer for row in self.quantizers if row.reachable and not row.reached)
