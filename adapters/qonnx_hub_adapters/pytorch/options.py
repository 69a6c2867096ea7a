"""The adapter's own options."""

from __future__ import annotations

from dataclasses import dataclass

from qonnx_hub_adapters.torch_common.options import EXACT, require_mode


@dataclass(frozen=True, slots=True)
class PyTorchOptions:
    """How to read a model of PyTorch's.

    Attributes:
        mode: "exact" (every value as torch computes it) or "quant" (``Quant`` nodes only,
            which differ from torch where a value lies on a rounding tie).

    Raises:
        UsageError: A mode that does not exist.
    """

    mode: str = EXACT

    def __post_init__(self) -> None:
        """Refuse unknown modes."""
        require_mode(self.mode)
