"""What another tool would make of a model: refused, computed wrongly, or worth knowing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from onnx_ir import Node

from qonnx_hub_ir.verify import label


class Severity(str, Enum):
    """What happens at the target."""

    REFUSED = "refused"
    WRONG = "wrong"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One construct that a target does not take as it is.

    Attributes:
        severity: Refused loudly, computed wrongly without a word, or worth knowing.
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
        """Return whether the target does not compute what the model says."""
        return self.severity is not Severity.NOTE

    def __str__(self) -> str:
        """Return one line."""
        where = f"{self.op} '{self.node}'" if self.node else self.op
        return f"{self.severity.value}: {where}: {self.reason}: {self.effect}; {self.remedy}"


def refused(node: Node, reason: str, effect: str, remedy: str) -> Finding:
    """Return a finding of something that the target refuses."""
    return Finding(Severity.REFUSED, _name(node), node.op_type, reason, effect, remedy)


def wrong(node: Node, reason: str, effect: str, remedy: str) -> Finding:
    """Return a finding of something that the target computes wrongly without a word."""
    return Finding(Severity.WRONG, _name(node), node.op_type, reason, effect, remedy)


def note(node: Node, reason: str, effect: str, remedy: str) -> Finding:
    """Return a finding of something that a user should know."""
    return Finding(Severity.NOTE, _name(node), node.op_type, reason, effect, remedy)


def of_model(severity: Severity, reason: str, effect: str, remedy: str) -> Finding:
    """Return a finding that belongs to no single node."""
    return Finding(severity, "", "model", reason, effect, remedy)


def _name(node: Node) -> str:
    return node.name or label(node)
