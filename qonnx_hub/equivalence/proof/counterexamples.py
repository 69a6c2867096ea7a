"""An input on which two whole models are seen to differ."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx_ir import Model

from qonnx_hub.equivalence.inputs.batches import cut_feeds
from qonnx_hub.equivalence.inputs.generate import generate_inputs
from qonnx_hub.equivalence.proof.step_functions import differs
from qonnx_hub.executor.session import Session
from qonnx_hub_ir.errors import HubError
from qonnx_hub_ir.facts import fixed_batch
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
    try:
        sessions = Session(a), Session(b)
    except HubError:
        return None  # an operator that nothing runs
    weights = sum(v.const_value.size for v in a.graph.initializers.values() if v.const_value)
    # Larger models get fewer batches of samples.
    rounds = int(np.clip(_WORK // (64 * max(weights, 1)), _FEWEST_ROUNDS, _MOST_ROUNDS))
    unit = fixed_batch(a) or 1
    for seed in range(rounds):
        try:
            feeds = generate_inputs(a, seed=seed)
            if _outputs_equal(sessions, feeds):
                continue
            for sample in cut_feeds(feeds, unit):
                # A sample is shown to differ by itself: batches may add in another order.
                if not _outputs_equal(sessions, sample):
                    return sample
        except HubError:
            return None
    return None


def _outputs_equal(sessions: tuple[Session, Session], feeds: Mapping[str, Array]) -> bool:
    own = sessions[1].input_names
    names = list(feeds) if set(own) == set(feeds) else own
    first = sessions[0].run(feeds)
    second = sessions[1].run(dict(zip(names, feeds.values(), strict=True)))
    others = [second[name] for name in first] if set(first) == set(second) else second.values()
    return not any(
        one.shape != other.shape or np.any(differs(one, other))
        for one, other in zip(first.values(), others, strict=True)
    )
