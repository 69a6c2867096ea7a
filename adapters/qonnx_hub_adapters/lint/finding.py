"""What another tool would make of a model: refused, computed wrongly, or worth knowing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Severity(str, Enum):
    """What happens at the target."""

    REFUSED = "refused"
    WRONG = "wrong"
    UNKNOWN = "unknown"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class LintFinding:
    """One construct that a target does not take as it is.

    Attributes:
        severity: Refused loudly, computed wrongly without a word, not known to the rules, or
            worth knowing.
        node: Name of the node, input or value concerned; empty for the whole model.
        op: Its operator.
        reason: What about it.
        effect: The target's own error text, or what comes out wrong.
        remedy: What to do.
    """

    severity: Severity
    node: str
    op: str
    reason: str
    effect: str
    remedy: str

    @property
    def is_error(self) -> bool:
        """Return whether the target does not compute what the model says, or may not."""
        return self.severity is not Severity.NOTE

    def __str__(self) -> str:
        """Return one line."""
        where = f"{self.op} '{self.node}'" if self.node else self.op
        return f"{self.severity.value}: {where}: {self.reason}: {self.effect}; {self.remedy}"
