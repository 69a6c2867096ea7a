"""ONNX's own node tests as data: models, inputs and the answers of the standard's authors."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

# What cannot be compared: the answer is random, or differs by design from one run to the next.
RANDOM = ("bernoulli", "random", "multinomial", "training_dropout")


@dataclass(frozen=True)
class Case:
    """A node test: its data is one pair (inputs, outputs) per run."""

    name: str
    model: onnx.ModelProto
    data: list[tuple[list[np.ndarray], list[np.ndarray]]]
    rtol: float
    atol: float

    @property
    def inputs(self) -> list[np.ndarray]:
        return self.data[0][0]

    @property
    def outputs(self) -> list[np.ndarray]:
        return self.data[0][1]

    @property
    def operators(self) -> set[str]:
        return {node.op_type for node in self.model.graph.node}


@cache
def node_cases() -> tuple[Case, ...]:
    """Return every test whose inputs and outputs are plain tensors and that is not random."""
    return tuple(_cases())


def _cases() -> Iterator[Case]:
    with warnings.catch_warnings():
        # Building the cases divides by zero and overflows on purpose.
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        tests = load_model_tests(kind="node")
    for test in tests:
        if test.model is None or any(word in test.name for word in RANDOM):
            continue
        sets = [(_arrays(given), _arrays(wanted)) for given, wanted in test.data_sets or ()]
        graph = test.model.graph
        plain = all(v.type.HasField("tensor_type") for v in (*graph.input, *graph.output))
        if plain and sets and not any(None in pair for pair in sets):
            yield Case(test.name, test.model, sets, test.rtol, test.atol)


def _arrays(values: Any) -> list[np.ndarray] | None:
    known = [numpy_helper.to_array(v) if hasattr(v, "dims") else v for v in values]
    return known if all(isinstance(array, np.ndarray) for array in known) else None
