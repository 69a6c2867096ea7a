"""Why equal samples do not say that two models are equal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from qonnx_hub.equivalence.comparison.compare import Tally
from qonnx_hub.equivalence.comparison.matching import Pair
from qonnx_hub.equivalence.diagnosis.pieces import find_differing_pieces
from qonnx_hub.equivalence.diagnosis.quantizer_causes import Explanation
from qonnx_hub.equivalence.diagnosis.unobserved import find_unobserved
from qonnx_hub.equivalence.inputs.batches import SampleBatch
from qonnx_hub.equivalence.inputs.coverage import InputCoverage
from qonnx_hub.equivalence.proof.certificate import Certificate
from qonnx_hub.equivalence.runners.sides import Runner

COVERAGE_FLOOR = 0.5
"""Share of the thresholds that can be reached which samples have to cross to say anything."""


@dataclass(frozen=True, slots=True)
class Doubts:
    """What speaks against equality although no sample does.

    Attributes:
        words: Each reason, the weightiest first.
        latent: Layers that compute something else from equal inputs.
    """

    words: tuple[str, ...] = ()
    latent: tuple[Explanation, ...] = ()


def find_doubts(
    a: Runner,
    b: Runner,
    pairs: Sequence[Pair],
    batch: SampleBatch,
    certificate: Certificate | None,
    *,
    folded: bool = False,
) -> Doubts:
    """Return which layers differ that no sample showed to differ.

    Args:
        a: The reference side.
        b: The other side.
        pairs: All pairs, in the order of the reference.
        batch: Any batch.
        certificate: What a proof left; ``None`` where none was looked for.
        folded: Whether parameters of one side were folded into others.
    """
    refuted = None if certificate is None else refutation(certificate)
    words = [] if refuted is None else [refuted]
    latent = [*find_unobserved(a, b, pairs, batch)]
    known = {one.layer for one in latent}
    pieces = find_differing_pieces(a, b, pairs, batch, folded=folded)
    latent += (one for one in pieces if one.layer not in known)
    for one in latent:
        ours, theirs = one.values or (0.0, 0.0)
        read = "" if one.operand is None else f" of {one.operand!r}"
        words.append(
            f"layer '{one.layer}' differs given equal inputs ({one.cause}: {one.words}): it "
            f"makes {ours!r}{read}, the other side {theirs!r}"
        )
    return Doubts(tuple(words), tuple(latent))


def refutation(certificate: Certificate) -> str | None:
    """Return where a proof saw the graphs part, in words; ``None`` where it did not."""
    found = certificate.counterexample
    if found is None:
        return None
    read = "" if found.input_value is None else f" of {found.input_value!r}"
    return f"'{found.layer}' makes {found.value_a!r}{read}, the other side {found.value_b!r}"


def unreached(
    outputs: Sequence[Pair], tallies: Mapping[Pair, Tally], coverage: InputCoverage | None
) -> Iterator[str]:
    """Give what generated samples did not bring about, without which they say too little."""
    empty = (pair.a for pair in outputs if pair in tallies and not tallies[pair].count)
    yield from (f"output '{name}' held no value on any of the samples" for name in empty)
    if coverage is None or not coverage.measured:
        return
    compared = {pair.a for pair in outputs}
    for name in coverage.unchanged:
        if name in compared:
            yield f"output '{name}' was the same for all samples"
    if coverage.share < COVERAGE_FLOOR:
        yield (
            f"only {coverage.reached} of {coverage.reachable} thresholds that can be reached "
            f"were crossed, fewer than {COVERAGE_FLOOR:.0%}"
        )
