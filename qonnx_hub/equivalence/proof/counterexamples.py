"""An input on which two whole models are seen to differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx_ir import Model, Value

from qonnx_hub.equivalence.inputs.generate import generate_inputs
from qonnx_hub.equivalence.proof.step_functions import differs
from qonnx_hub.executor.session import Session
from qonnx_hub_ir.errors import HubError
from qonnx_hub_ir.quantizers import Array

_MOST_ROUNDS = 8
_FEWEST_ROUNDS = 2
_WORK = 1 << 26
"""Parameters times samples that are tried before a model is taken for too large to go on."""


def find_feeds(a: Model, b: Model) -> dict[str, Array] | None:
    """Return one sample on which some output of the models differs, by the inputs of ``a``.

    Random samples, and samples on rounding ties and limits, are run on both models.

    Args:
        a: An IR model.
        b: An IR model with as many inputs and outputs.

    Returns:
        ``None`` where none of the samples shows a difference, or none can be made.
    """
    sessions = Session(a), Session(b)
    for seed in range(_rounds(a)):
        try:
            feeds = generate_inputs(a, seed=seed)
            sample = _differing_sample(a, b, sessions, feeds)
        except HubError:
            return None
        if sample is not None:
            return sample
    return None


def _rounds(model: Model) -> int:
    """Return how many batches of samples to try: fewer for larger models."""
    weights = sum(
        v.const_value.size for v in model.graph.initializers.values() if v.const_value
    )
    return int(np.clip(_WORK // (64 * max(weights, 1)), _FEWEST_ROUNDS, _MOST_ROUNDS))


def _differing_sample(
    a: Model, b: Model, sessions: tuple[Session, Session], feeds: Mapping[str, Array]
) -> dict[str, Array] | None:
    unit = _unit(a.graph.inputs)
    total = min((array.shape[0] // unit for array in feeds.values() if array.ndim), default=1)
    if _outputs_equal(a, b, sessions, feeds):
        return None
    for index in range(total):
        part = slice(index * unit, (index + 1) * unit)
        sample = {n: array[part] if array.ndim else array for n, array in feeds.items()}
        # A sample is shown to differ by itself: batches may add in another order.
        if not _outputs_equal(a, b, sessions, sample):
            return sample
    return None


def _unit(inputs: Sequence[Value]) -> int:
    """Return the samples that a model takes at once."""
    sizes = {v.shape[0] for v in inputs if v.shape is not None and len(v.shape)}
    fixed = {size for size in sizes if isinstance(size, int)}
    return fixed.pop() if len(fixed) == 1 else 1


def _outputs_equal(
    a: Model, b: Model, sessions: tuple[Session, Session], feeds: Mapping[str, Array]
) -> bool:
    names_b = [str(value.name) for value in b.graph.inputs]
    renamed = (
        dict(feeds)
        if set(names_b) == set(feeds)
        else dict(zip(names_b, feeds.values(), strict=True))
    )
    first, second = sessions[0].run(feeds), sessions[1].run(renamed)
    if set(first) == set(second):
        pairs = [(first[name], second[name]) for name in first]
    else:
        pairs = list(zip(first.values(), second.values(), strict=True))
    return not any(
        one.shape != other.shape or np.any(differs(one, other)) for one, other in pairs
    )
