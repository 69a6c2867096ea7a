"""Verdicts: what a check concludes, and from what.

Proof goes before samples, what was left out before what was found equal, and doubt before
equality: a difference that no input showed is not the absence of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Verdict(str, Enum):
    """What a check found, best first."""

    PROVEN = "PROVEN"
    PROVEN_WITHIN = "PROVEN_WITHIN"
    EQUAL = "EQUAL"
    WITHIN = "WITHIN"
    UNDECIDED = "UNDECIDED"
    INCOMPLETE = "INCOMPLETE"
    DIFFERENT = "DIFFERENT"

    def __str__(self) -> str:
        """Return the word itself."""
        return self.value

    @property
    def holds(self) -> bool:
        """Whether the sides agree: equal, or within what was allowed or is explained."""
        return self not in {Verdict.UNDECIDED, Verdict.INCOMPLETE, Verdict.DIFFERENT}


ORDER = tuple(Verdict)
"""Verdicts, best first."""


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict that stands for several; of none, that nothing was compared."""
    return max(verdicts, key=ORDER.index, default=Verdict.INCOMPLETE)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a check brought to light, as far as its verdict rests on it.

    Attributes:
        outputs: Verdict of every pair of outputs, on the samples.
        left_out: Outputs that were not compared, with the reason, in words.
        proven: Whether a proof covers the sides as they run.
        inputs: For which inputs it holds, in words.
        bound: How far apart a proof allows outputs to be, in words; empty where it gives none.
        doubts: Why equal samples do not say that the sides are equal, in words.
        allowance: Why differing values are within bounds, in words.
        backing: What equal samples rest on, in words.
    """

    outputs: tuple[Verdict, ...]
    left_out: tuple[str, ...] = ()
    proven: bool = False
    inputs: str = "every input"
    bound: str = ""
    doubts: tuple[str, ...] = ()
    allowance: str = ""
    backing: str = ""


def decide(found: Evidence) -> tuple[Verdict, str]:
    """Return the verdict that evidence supports, and the sentence that it rests on."""
    seen = worst(found.outputs)
    if seen is Verdict.DIFFERENT:
        return Verdict.DIFFERENT, "an input shows it"
    if found.left_out:
        return Verdict.INCOMPLETE, f"not compared: {_listed(found.left_out)}"
    if found.proven and seen is Verdict.EQUAL:
        return Verdict.PROVEN, f"equal on {found.inputs}"
    if found.bound:
        return Verdict.PROVEN_WITHIN, found.bound
    if seen is Verdict.WITHIN:
        return Verdict.WITHIN, found.allowance
    if found.doubts:
        return Verdict.UNDECIDED, f"no sample shows a fault, but {_listed(found.doubts)}"
    return Verdict.EQUAL, found.backing


def _listed(reasons: Sequence[str]) -> str:
    more = len(reasons) - 1
    return reasons[0] + (f"; and {more} more, see the notes" if more else "")
