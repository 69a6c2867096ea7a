"""The adapter's own options."""

from __future__ import annotations

from dataclasses import dataclass

from qonnx_hub_adapters.adapter_options import read_own_options
from qonnx_hub_adapters.protocol import ImportOptions
from qonnx_hub_ir.errors import UsageError

EXACT, QUANT = "exact", "quant"
MODES = (EXACT, QUANT)


@dataclass(frozen=True, slots=True)
class Settings:
    """How to read a model of PyTorch's.

    Attributes:
        mode: "exact" (every value as torch computes it) or "quant" (``Quant`` nodes only,
            which differ from torch where a value lies on a rounding tie).
    """

    mode: str = EXACT


def read_settings(options: ImportOptions) -> Settings:
    """Return the adapter's options out of those of the call.

    Raises:
        UsageError: An option or a mode that does not exist.
    """
    settings = read_own_options(Settings, "pytorch", options)
    if settings.mode not in MODES:
        raise UsageError(f"mode '{settings.mode}' is none of {', '.join(MODES)}")
    return settings
