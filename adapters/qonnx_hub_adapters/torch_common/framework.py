"""torch, imported when it is needed, and what the adapters on it say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qonnx_hub_adapters.dependencies import require
from qonnx_hub_adapters.protocol import Feature, Support

EXACT, QUANT = "exact", "quant"
MODES = (EXACT, QUANT)
"""Two forms of a model: every value as the framework computes it, or quantizers only."""

INTEGER_QUANTIZERS: Mapping[Feature, Support] = dict.fromkeys(
    (
        Feature.BITS_2_TO_8,
        Feature.BITS_9_TO_16,
        Feature.BITS_17_TO_32,
        Feature.UNSIGNED_1_BIT,
        Feature.NARROW,
        Feature.PER_CHANNEL,
        Feature.ZERO_POINT,
    ),
    Support.EXACT,
)
"""Static affine quantizers of any width up to 32 bits."""


def require_torch(adapter: str, *others: str) -> Any:
    """Return torch.

    Args:
        adapter: Name of the adapter, and of the extra that installs what it needs.
        *others: Import names of what must be installed beside torch.

    Raises:
        MissingDependencyError: torch, or one of the others, is not installed.
    """
    found = [
        require(name, needed_by=f"adapter '{adapter}'", extra=adapter)
        for name in ("torch", *others)
    ]
    return found[0]
