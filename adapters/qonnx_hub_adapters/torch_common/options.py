"""Two forms of a model: every value as the framework computes it, or quantizers only."""

from __future__ import annotations

from qonnx_hub_ir.errors import UsageError

EXACT, QUANT = "exact", "quant"
MODES = (EXACT, QUANT)


def require_mode(mode: str) -> None:
    """Raise unless the option ``mode`` is one of the two.

    Raises:
        UsageError: It is neither.
    """
    if mode not in MODES:
        raise UsageError(f"mode '{mode}' is none of {', '.join(MODES)}")
