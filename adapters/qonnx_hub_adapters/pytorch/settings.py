"""The adapter's own options."""

from __future__ import annotations

from dataclasses import dataclass, fields

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
    known = {field.name for field in fields(Settings)}
    unknown = sorted(set(options.extra) - known)
    if unknown:
        raise UsageError(
            f"adapter 'pytorch' has no option {', '.join(unknown)}; "
            f"it has {', '.join(sorted(known))}"
        )
    settings = Settings(**dict(options.extra))
    if settings.mode not in MODES:
        raise UsageError(f"mode '{settings.mode}' is none of {', '.join(MODES)}")
    return settings
