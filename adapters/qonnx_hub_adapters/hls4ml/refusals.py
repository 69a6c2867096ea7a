"""Refusing a node while going on with the others, so that all reasons are listed at once."""

from __future__ import annotations

from onnx_ir import Node

from qonnx_hub_ir.errors import Gap
from qonnx_hub_ir.validity import label


class RefusedError(Exception):
    """A node that cannot be written; the walk goes on behind it."""

    def __init__(self, gap: Gap) -> None:
        super().__init__(str(gap))
        self.gap = gap


def refuse(node: Node, reason: str, remedy: str = "") -> RefusedError:
    """Return the error that says why a node cannot be written."""
    return RefusedError(Gap(node.name or label(node), node.op_type, reason, remedy))
