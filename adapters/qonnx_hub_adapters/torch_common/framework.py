"""torch, imported when it is needed, and quiet while it works."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from qonnx_hub_adapters.dependencies import require

_LOCK = threading.RLock()
"""Warning filters, the console and the state of torch's exporters are global variables."""


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


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings, logs and prints of the frameworks to themselves; one thread at a time.

    Errors are raised as ever.
    """
    nowhere = io.StringIO()
    disabled = logging.root.manager.disable
    with (
        _LOCK,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)


def first_line(error: BaseException) -> str:
    """Return the type of an error and the first line of its text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
