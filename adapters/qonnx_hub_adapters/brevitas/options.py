"""The adapter's own options."""

from __future__ import annotations

from dataclasses import dataclass

from qonnx_hub_ir.errors import UsageError


@dataclass(frozen=True, slots=True)
class BrevitasOptions:
    """How to read a Brevitas model.

    Attributes:
        dynamo: Trace with torch.export instead of TorchScript.

    Raises:
        UsageError: A value that is neither true nor false.
    """

    dynamo: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no boolean."""
        if not isinstance(self.dynamo, bool):
            raise UsageError(f"option 'dynamo' is true or false, not {self.dynamo!r}")
