"""The proof that comes before the samples: of which graphs, for how long, and what it left."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from onnx_ir import Model

from qonnx_hub.equivalence.comparison.compare import TensorComparison
from qonnx_hub.equivalence.comparison.matching import Pair
from qonnx_hub.equivalence.graph_slices import with_outputs
from qonnx_hub.equivalence.inputs.sizes import named_axes
from qonnx_hub.equivalence.proof.certificate import Certificate, ProofOutcome
from qonnx_hub.equivalence.proof.prove import prove_models
from qonnx_hub.equivalence.runners.sides import Runner
from qonnx_hub.executor.batch_axis import OPENED
from qonnx_hub.reporting.progress import stage
from qonnx_hub_ir.errors import HubError

EVERY_INPUT = "every input"
"""For which inputs a proof holds that leaves none out."""


def look_for_proof(
    a: Runner, b: Runner, outputs: Sequence[Pair], seconds: float
) -> Certificate | None:
    """Return what could be proven of two sides' graphs.

    Args:
        a: The reference side.
        b: The other side.
        outputs: The outputs that are compared.
        seconds: How long it may take; 0 looks for no proof.

    Returns:
        ``None`` where there is nothing to prove: a side without a graph, no time, or operators
        that no proof knows.
    """
    if a.model is None or b.model is None or not outputs or seconds <= 0:
        return None
    one = _with_outputs(a.model, a.output_names, [pair.a for pair in outputs])
    other = _with_outputs(b.model, b.output_names, [pair.b for pair in outputs])
    stage("looking for a proof")
    try:
        return prove_models(one, other, seconds=seconds)
    except HubError:
        return None


def proven_inputs(certificate: Certificate | None, model: Model | None) -> str:
    """Return for which inputs a proof holds, in a few words: which NaN, which open sizes."""
    is_every = certificate is None or certificate.inputs in {"", EVERY_INPUT}
    words = EVERY_INPUT if is_every else f"{EVERY_INPUT} on which no NaN arises"
    # What the executor opens is frozen in the file, and no size of the user's.
    names = [] if model is None else [n for n in named_axes(model) if n != OPENED]
    return f"{words}, whatever the size of {', '.join(names)}" if names else words


def proven_bound(
    certificate: Certificate | None, compared: Iterable[TensorComparison], lsb: float | None
) -> str:
    """Return within what outputs are proven to stay, in words; empty where nothing holds.

    Args:
        certificate: What was proven, if that was looked for.
        compared: What was seen; a difference beyond the bound leaves nothing proven.
        lsb: How many steps the caller allows.
    """
    bounds = None if certificate is None else certificate.bounds
    if certificate is None or bounds is None:
        return ""
    steps = [output.steps for output in bounds.outputs if output.bound]
    allowed = lsb is not None and all(n is not None and n <= lsb for n in steps)
    if certificate.outcome is not ProofOutcome.WITHIN and not (bounds.holds and allowed):
        return ""
    limits = {output.output: output.bound for output in bounds.outputs}
    seen = [(x.max_abs, limits[x.other]) for x in compared if x.other in limits]
    # Steps of quantizers are floats: their multiples round.
    return bounds.words() if all(x <= limit * (1 + 1e-6) for x, limit in seen) else ""


def _with_outputs(model: Model, own: Collection[str], wanted: Sequence[str]) -> Model:
    return model if list(own) == list(wanted) else with_outputs(model, wanted)
