"""How far apart outputs of two models can be, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OutputBound:
    """How far apart an output of two models can be.

    Attributes:
        output: Its name in the second model.
        bound: The largest difference; infinite where none is known.
        steps: The same in steps of the quantizer that makes it; ``None`` without one.
        width: Distance between the lowest and the highest value of the output.
    """

    output: str
    bound: float
    steps: int | None
    width: float

    @property
    def says_something(self) -> bool:
        """Whether the bound is narrower than the output's own range."""
        return math.isfinite(self.bound) and self.bound < self.width


@dataclass(frozen=True, slots=True)
class ModelBounds:
    """What is proven of two models that are equal up to rounding.

    Attributes:
        outputs: Each output's bound.
        same_function: Whether both are one function in exact arithmetic.
        layers: Value of the second model -> how far apart it can be on equal inputs.
    """

    outputs: tuple[OutputBound, ...]
    same_function: bool
    layers: tuple[tuple[str, float], ...]

    @property
    def equal(self) -> bool:
        """Whether nothing is left to differ."""
        return all(output.bound == 0 for output in self.outputs)

    @property
    def holds(self) -> bool:
        """Whether every output's bound is narrower than its range."""
        return all(output.bound == 0 or output.says_something for output in self.outputs)

    def words(self) -> str:
        """Return the bound of the widest output, or those per layer where it says nothing."""
        if not self.holds:
            listed = ", ".join(f"'{name}' {bound:.3g}" for name, bound in self.layers)
            return f"bounds per layer, wider than the outputs' range behind them all: {listed}"
        widest = max(self.outputs, key=lambda output: output.bound)
        plural = "" if widest.steps == 1 else "s"
        steps = "" if widest.steps is None else f" ({widest.steps} step{plural})"
        return f"outputs differ by at most {widest.bound:.3g}{steps}"
