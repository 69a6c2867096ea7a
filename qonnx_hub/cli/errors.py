"""Which error ends in which exit code."""

from __future__ import annotations

from qonnx_hub_ir.errors import (
    HubError,
    MissingDependencyError,
    NotExactError,
    UsageError,
)

DIFFERENT = 1
USAGE = 2
UNREADABLE = 3
NOT_EXACT = 4
NOT_INSTALLED = 5


def exit_code(error: BaseException) -> int | None:
    """Return the documented exit code of an error, ``None`` for one that is not ours."""
    if isinstance(error, MissingDependencyError):
        return NOT_INSTALLED
    if isinstance(error, NotExactError):
        return NOT_EXACT
    if isinstance(error, UsageError):
        return USAGE
    if type(error).__name__ == "ConversionError":
        return DIFFERENT
    return UNREADABLE if isinstance(error, HubError) else None


def message(error: BaseException) -> str:
    """Return the error's text."""
    return str(error)
