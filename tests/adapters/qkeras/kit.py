"""What a case is, and the arrays that all cases share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import Any

import numpy as np

_OWNERS = {name.lower() for name in metadata.packages_distributions().get("qkeras", [])}
GENERATION = 3 if "qkeras-v3" in _OWNERS else 2
"""Of Keras, that the installed qkeras is written for."""


@dataclass(frozen=True)
class Kit:
    """The frameworks of this environment.

    Attributes:
        keras: tf_keras or keras.
        q: qkeras.
        generation: 2 or 3.
    """

    keras: ModuleType
    q: ModuleType
    generation: int

    @property
    def layers(self) -> Any:
        return self.keras.layers

    def model(self, shape: tuple[int | None, ...], *layers: Any) -> Any:
        """A functional model: the layers behind each other."""
        x = start = self.keras.Input(shape)
        for layer in layers:
            x = layer(x)
        return self.keras.Model(start, x)


Build = Callable[[Kit], Any]


@dataclass(frozen=True)
class Case:
    """One conversion.

    Attributes:
        name: Its name in the test report.
        build: Makes the model; weights are set afterwards.
        quantizers: Quantizer nodes that the IR must hold.
        tolerance: Allowed difference, relative to values above 1; 0 is bit-exact.
        flips: Share of values that may be one quantizer step off (a sigmoid or a sum that is
            rounded differently and lands on the other side of a tie).
        sample: Sizes of the axes that the model leaves open.
        generations: Keras generations in which qkeras can build it.
        weights: "dyadic", or "keep" for those that the builder set.
        span: Largest magnitude of the inputs.
        grid: Steps of the inputs per unit.
        extreme: Magnitude of the inputs that saturate everything.
    """

    name: str
    build: Build
    quantizers: int
    tolerance: float = 0.0
    flips: float = 0.0
    sample: tuple[int, ...] = ()
    generations: tuple[int, ...] = (2, 3)
    weights: str = "dyadic"
    span: float = 4.0
    grid: int = 16
    extreme: float = 1000.0


def dyadic(rng: np.random.Generator, shape: Any, span: float, grid: int) -> Any:
    """Random multiples of 1/grid within the span: sums and products of them are exact."""
    limit = int(span * grid)
    return (rng.integers(-limit, limit + 1, shape) / grid).astype(np.float32)


def set_weights(model: Any, seed: int = 0) -> None:
    """Give every weight values on a dyadic grid, with ties and values beyond 1."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        name = str(getattr(variable, "path", None) or variable.name)
        shape = tuple(variable.shape)
        if "iteration" in name or "seed" in name or "int" in str(variable.dtype):
            continue
        if "variance" in name:
            value = rng.choice(np.array([0.25, 1.0, 4.0], dtype=np.float32), shape)
        elif "gamma" in name:
            value = rng.choice(np.array([0.5, 0.75, 1.0, 2.0], dtype=np.float32), shape)
        else:
            value = dyadic(rng, shape, 1.25, 64)
        variable.assign(value)


def inputs_for(model: Any, case: Case, samples: int = 16) -> list[Any]:
    """Inputs on a dyadic grid, with zeros, ties and values far beyond every range."""
    rng = np.random.default_rng(1)
    feeds = []
    for tensor in model.inputs:
        dims = tuple(tensor.shape)[1:]
        open_dims = iter(case.sample)
        shape = [samples, *(next(open_dims) if d is None else d for d in dims)]
        x = dyadic(rng, shape, case.span, case.grid)
        flat = x.reshape(-1)
        flat[:: max(flat.size // 7, 1)] = 0.0
        flat[1 :: max(flat.size // 5, 1)] = case.extreme
        flat[2 :: max(flat.size // 5, 1)] = -case.extreme
        if "int" in str(tensor.dtype):
            x = rng.integers(0, 5, shape).astype(np.int32)
        feeds.append(x)
    return feeds
