"""torch, imported when it is needed."""

from __future__ import annotations

from typing import Any

from qonnx_hub_adapters.dependencies import require


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
